#include "broker-config/offsets_done.h"
#include "base/buf.h"
#include <assert.h>
#include <stdlib.h>

enum { WORD = 64, FIRST_ROOM = 1024 };

void offsets_done_init(struct offsets_done *d, int64_t low)
{
    assert(low >= 0);
    *d = (struct offsets_done){.low = low, .end = low};
}

void offsets_done_release(struct offsets_done *d)
{
    free(d->bits);
    *d = (struct offsets_done){0};
}

static void make_room(struct offsets_done *d, size_t n_bits)
{
    size_t room = d->room ? d->room : FIRST_ROOM;

    if (n_bits <= d->room)
        return;
    while (room < n_bits)
        room *= 2;
    d->bits = xrealloc(d->bits, room / 8);
    memset(d->bits + d->room / WORD, 0, (room - d->room) / 8);
    d->room = room;
}

bool offsets_done_add(struct offsets_done *d, int64_t from, int64_t to)
{
    size_t i, end;

    if (from < d->low)
        from = d->low;
    if (from >= to)
        return true;
    if (to - d->low > OFFSETS_DONE_SPAN)
        return false;
    end = (size_t)(to - d->low);
    make_room(d, end);
    for (i = (size_t)(from - d->low); i < end && i % WORD != 0; i++)
        d->bits[i / WORD] |= 1ull << (i % WORD);
    for (; end - i >= WORD; i += WORD)
        d->bits[i / WORD] = ~0ull;
    for (; i < end; i++)
        d->bits[i / WORD] |= 1ull << (i % WORD);
    if (to > d->end)
        d->end = to;
    return true;
}

bool offsets_done_has(const struct offsets_done *d, int64_t offset)
{
    size_t i = (size_t)(offset - d->low);

    if (offset < d->low || offset >= d->end)
        return offset < d->low;
    return (d->bits[i / WORD] >> (i % WORD) & 1) != 0;
}

uint64_t offsets_done_flags(const struct offsets_done *d, int64_t offset)
{
    size_t i = (size_t)(offset - d->low), word = i / WORD;
    uint64_t flags;

    assert(offset >= d->low);
    if (i >= d->room)
        return 0;
    flags = d->bits[word] >> (i % WORD);
    if (i % WORD != 0 && (word + 1) * WORD < d->room)
        flags |= d->bits[word + 1] << (WORD - i % WORD);
    return flags;
}
