/* The headers of a record as broker_sqlite stores them: for each header that is there, in
 * record.def's order, one byte (its number + 1), its length (LEB128) and its bytes. Any thread. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "schema/record.h"

/* Appends r's headers to b; adds nothing when there are none. 0 or ERR_TOO_LARGE (b's ceiling). */
int header_encode(const struct record *r, struct buf *b);
/* Fills all of `headers` from s (borrowing its bytes). A number that this version does not know
 * yet is skipped. 0, or ERR_CORRUPT; `headers` are then all absent. */
int header_decode(struct str s, struct str headers[HEADER_COUNT_]);
