#include "base/id.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void id_random(void *dst, size_t n)
{
    char *p = dst;
    ssize_t got;

    while (n > 0) {
        got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        p += got;
        n -= (size_t)got;
    }
}

bool id_is_valid(struct str s)
{
    /* One bit a byte value: checked several times for every job. */
    static const uint64_t allowed[4] = {0x03ff600000000000, 0x07fffffe87fffffe};
    size_t i;

    if (s.n == 0 || s.n > ID_MAX)
        return false;
    for (i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (!(allowed[c / 64] >> c % 64 & 1))
            return false;
    }
    return true;
}

/* The 80 random bits of an id, in two halves of 40. */
struct ulid_tail {
    int64_t ms;
    uint64_t high, low;
};

/* Draws anew in a new ms, else adds one, so that ids of one ms sort in the order they were made. */
static void step_tail(struct ulid_tail *t, int64_t wall_ms)
{
    uint64_t drawn[2];

    if (wall_ms == t->ms) {
        t->low = (t->low + 1) & 0xFFFFFFFFFFu;
        t->high = (t->high + (t->low == 0)) & 0xFFFFFFFFFFu;
        return;
    }
    id_random(drawn, sizeof drawn);
    t->ms = wall_ms;
    t->high = drawn[0] & 0x7FFFFFFFFFu; /* top bit clear: room to add without wrapping */
    t->low = drawn[1] & 0xFFFFFFFFFFu;
}

/* Writes the low 5 * n bits of v. */
static void put_base32(uint64_t v, size_t n, char *dst)
{
    while (n-- > 0) {
        dst[n] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[v & 31];
        v >>= 5;
    }
}

void id_ulid(int64_t wall_ms, char dst[ULID_LEN + 1])
{
    static _Thread_local struct ulid_tail tail = {-1, 0, 0};

    step_tail(&tail, wall_ms);
    put_base32((uint64_t)wall_ms & 0xFFFFFFFFFFFFu, 10, dst);
    put_base32(tail.high, 8, dst + 10);
    put_base32(tail.low, 8, dst + 18);
    dst[ULID_LEN] = '\0';
}
