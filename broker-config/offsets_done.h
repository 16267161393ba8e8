/* What was finished on a partition before this owner came: the low mark of the last commit and the
 * finished offsets above it, as the commit's metadata (offsets_code.h), the completions published
 * after it and the outbox tell. The new owner reads the partition from the low mark on and takes
 * all that is delivered, in order; what this set has, it finishes at once instead of running it:
 *
 *     if (!offsets_take(&o, at))
 *         return;
 *     if (offsets_done_has(&d, at))
 *         offsets_finish(&o, at);
 *     else
 *         run it
 *
 * Until o.end has passed d.end the set knows what `o` does not know yet, so every commit holds
 * both; then it can be released. An all-zero set is empty. Not thread safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How far above the low mark the set reaches: 128 KiB of flags at most. */
#define OFFSETS_DONE_SPAN (1 << 20)

struct offsets_done {
    int64_t low;    /* all below are finished */
    int64_t end;    /* one past the highest finished; == low when there is none above */
    uint64_t *bits; /* bit i is offset low + i; NULL when there is none above */
    size_t room;    /* bits allocated, a multiple of 64 */
};

/* Starts with nothing finished at or above low (>= 0). */
void offsets_done_init(struct offsets_done *d, int64_t low);
/* Frees the flags; d is then empty. */
void offsets_done_release(struct offsets_done *d);
/* Adds [from, to); what lies below low is known already. False, and nothing added, when `to` is
 * more than OFFSETS_DONE_SPAN above low: these would run again. */
bool offsets_done_add(struct offsets_done *d, int64_t from, int64_t to);
bool offsets_done_has(const struct offsets_done *d, int64_t offset);
/* The flags of [offset, offset + 64), bit 0 first; offset >= low. */
uint64_t offsets_done_flags(const struct offsets_done *d, int64_t offset);
