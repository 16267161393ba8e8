/* Out-of-order completion on one partition: the lowest unfinished offset and the set of finished ones
 * above it. Offsets are taken in increasing order and finished in any. (The idea of Confluent's
 * Parallel Consumer.) Gaps between two taken offsets (never delivered: compacted, transaction
 * markers) count as finished. Memory: a bit an offset between low and end. Not thread safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct offsets {
    int64_t low;   /* lowest unfinished offset; == end when all taken are finished */
    int64_t end;   /* one past the highest taken */
    size_t n_unfinished;
    uint64_t *bits; /* ring of finished flags for [base, base + room) */
    int64_t base;   /* multiple of 64, <= low */
    size_t room;    /* bits allocated, power of two */
};

/* Starts with nothing taken; the next offset taken is >= first. */
void offsets_init(struct offsets *o, int64_t first);
void offsets_release(struct offsets *o);
/* Takes `offset` (>= end, else it is a redelivery and false comes back: drop it). */
bool offsets_take(struct offsets *o, int64_t offset);
/* Finishes a taken offset; false when it was finished already or never taken. */
bool offsets_finish(struct offsets *o, int64_t offset);
bool offsets_is_finished(const struct offsets *o, int64_t offset);
/* The finished flags of [offset, offset + 64), bit 0 first; offset >= low. 0 at and above end. */
uint64_t offsets_flags(const struct offsets *o, int64_t offset);
