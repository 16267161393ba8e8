/* What cJSON lets through beyond RFC 8259, refused by one pass over the text before it: cJSON cuts
 * strings at NUL, reads bad \u digits as zero, takes any byte up to 0x20 for white space, and takes
 * control characters in strings, a byte order mark, `01`, `1.` and 1000 levels; 1.7.15 reads one
 * byte past `{"a":1,`. For json.c alone. Any thread. */
#pragma once
#include "base/str.h"

/* Checks all of the text but for its grammar of commas, colons and words: strings (UTF-8, escapes,
 * ends), numbers, brackets, depth. NULL when it is right; else why not, and *at the place in bytes.
 */
const char *json_check(struct str text, size_t *at);

/* Where the first quote, backslash or control character stands in s from `at` (<= s.n) on; s.n when
 * there is none. Adds the high bits that it meets to *high, which is left 0 by ASCII. */
size_t json_skip_plain(struct str s, size_t at, uint64_t *high);

/* Where the number at `at` (its first byte) ends; `at` itself when it is none (RFC 8259, section
 * 6). */
size_t json_skip_number(struct str s, size_t at);
