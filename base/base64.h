/* Base64 as in RFC 4648 section 4 (A-Z a-z 0-9 + /), without padding. Any thread. */
#pragma once
#include "base/str.h"

/* Characters that n bytes make, and bytes that n characters hold (n % 4 != 1). */
#define BASE64_CHARS(n) (((n) / 3) * 4 + ((n) % 3 * 8 + 5) / 6)
#define BASE64_BYTES(n) (((n) / 4) * 3 + (n) % 4 * 6 / 8)

/* Writes BASE64_CHARS(n) characters to dst (no NUL) and returns their number. */
size_t base64_encode(const uint8_t *p, size_t n, char *dst);
/* Writes BASE64_BYTES(s.n) bytes to dst. False (dst then holds nothing useful) when s is no base64:
 * another character, padding, a length that none has, or set bits behind the last byte. */
bool base64_decode(struct str s, uint8_t *dst);
