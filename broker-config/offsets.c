/* A ring of finished flags. Bits at and above `end` are 0, bits of [low, end) say finished, and
 * what lies below `low` is cleared word by word as `base` moves past it. */
#include "broker-config/offsets.h"
#include "base/buf.h"
#include <assert.h>
#include <stdlib.h>

enum { WORD = 64, FIRST_ROOM = 1024 };

static uint64_t *word_at(const struct offsets *o, int64_t offset)
{
    return &o->bits[((uint64_t)offset & (o->room - 1)) / WORD];
}

static uint64_t bit_of(int64_t offset)
{
    return 1ull << ((uint64_t)offset % WORD);
}

static int64_t word_start(int64_t offset)
{
    return offset - offset % WORD;
}

void offsets_init(struct offsets *o, int64_t first)
{
    assert(first >= 0);
    *o = (struct offsets){.low = first, .end = first, .base = word_start(first)};
}

void offsets_release(struct offsets *o)
{
    free(o->bits);
    offsets_init(o, 0);
}

/* Makes room for the flags of [base, end), in a larger ring when this one is too short. */
static void make_room(struct offsets *o, int64_t end)
{
    struct offsets larger = *o;
    uint64_t want = (uint64_t)(end - o->base);
    int64_t at;

    if (want <= o->room)
        return;
    larger.room = o->room ? o->room : FIRST_ROOM;
    while (larger.room < want)
        larger.room *= 2;
    larger.bits = xcalloc(larger.room / WORD, sizeof *larger.bits);
    for (at = o->base; o->bits && at < o->end; at += WORD)
        *word_at(&larger, at) = *word_at(o, at);
    free(o->bits);
    *o = larger;
}

static void set_finished(struct offsets *o, int64_t from, int64_t to)
{
    for (; from < to && from % WORD != 0; from++)
        *word_at(o, from) |= bit_of(from);
    for (; to - from >= WORD; from += WORD)
        *word_at(o, from) = ~0ull;
    for (; from < to; from++)
        *word_at(o, from) |= bit_of(from);
}

/* Moves low over what is finished, and base after it. */
static void advance(struct offsets *o)
{
    int64_t base;

    while (o->low < o->end) {
        uint64_t unfinished = ~*word_at(o, o->low) >> (o->low % WORD);

        if (unfinished) {
            o->low += __builtin_ctzll(unfinished);
            break;
        }
        o->low = word_start(o->low) + WORD;
    }
    if (o->low > o->end)
        o->low = o->end;
    for (base = word_start(o->low); o->base < base; o->base += WORD)
        *word_at(o, o->base) = 0;
}

/* With nothing unfinished, a jump to `offset` needs no flags for what is skipped. */
static void jump(struct offsets *o, int64_t offset)
{
    if (o->bits)
        *word_at(o, o->base) = 0;
    o->low = o->end = offset;
    o->base = word_start(offset);
}

bool offsets_take(struct offsets *o, int64_t offset)
{
    if (offset < o->end)
        return false;
    if (o->n_unfinished == 0)
        jump(o, offset);
    make_room(o, offset + 1);
    set_finished(o, o->end, offset);
    o->end = offset + 1;
    o->n_unfinished++;
    return true;
}

bool offsets_is_finished(const struct offsets *o, int64_t offset)
{
    if (offset < o->low || offset >= o->end)
        return offset < o->low;
    return (*word_at(o, offset) & bit_of(offset)) != 0;
}

bool offsets_finish(struct offsets *o, int64_t offset)
{
    if (offset < o->low || offset >= o->end || offsets_is_finished(o, offset))
        return false;
    *word_at(o, offset) |= bit_of(offset);
    o->n_unfinished--;
    if (offset == o->low)
        advance(o);
    return true;
}

uint64_t offsets_flags(const struct offsets *o, int64_t offset)
{
    int64_t next = word_start(offset) + WORD;
    uint64_t flags;

    assert(offset >= o->low);
    if (offset >= o->end)
        return 0;
    flags = *word_at(o, offset) >> (offset % WORD);
    if (offset % WORD != 0 && next < o->end)
        flags |= *word_at(o, next) << (WORD - offset % WORD);
    return flags;
}
