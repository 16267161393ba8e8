/* The headers of a record as broker_sqlite stores them: for each header that is there, in
 * record.def's order, a byte from 1 on (its number + 1), its length (LEB128) and its bytes; or a
 * byte from 128 on (the number of a well-known word in header_codec.c) and nothing behind it; or
 * 255 and the digest as bytes. Any thread. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/sha256.h"
#include "schema/record.h"

/* Headers as they were read; they borrow the bytes they were read from and the digits beside them,
 * so this is not to be copied. */
struct headers {
    struct str all[HEADER_COUNT_]; /* p == NULL: absent */
    char digits[2 * SHA256_LEN + 1];
};

/* Appends r's headers to b; adds nothing when there are none. 0 or ERR_TOO_LARGE (b's ceiling). */
int header_encode(const struct record *r, struct buf *b);
/* Fills *out from s. A number or a word that this version does not know yet is skipped. 0, or
 * ERR_CORRUPT; the headers are then all absent. */
int header_decode(struct str s, struct headers *out);
