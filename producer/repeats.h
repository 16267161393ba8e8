/* Counts how often a line has stood before it in the same input: the k in a batch line's id. Exact,
 * in bounded memory: a temporary SQLite file that spills past its cache. One thread. */
#pragma once
#include "base/err.h"
#include <stdint.h>

struct repeats;

struct repeats *repeats_new(struct err *e);
void repeats_free(struct repeats *r);
/* How many times `hash` was given before: 0 the first time. Negative: ERR_FULL, ERR_IO. */
int64_t repeats_next(struct repeats *r, uint64_t hash, struct err *e);
