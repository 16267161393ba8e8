#include "broker-config/header_codec.h"
#include <assert.h>

static_assert(HEADER_COUNT_ < 255, "a header's number + 1 is stored in a byte");

enum { LENGTH_BYTES_MAX = 5 };

static void add_length(struct buf *b, size_t n)
{
    for (; n >= 0x80; n >>= 7)
        buf_addc(b, (char)(0x80 | (n & 0x7f)));
    buf_addc(b, (char)n);
}

int header_encode(const struct record *r, struct buf *b)
{
    int h;

    for (h = 0; h < HEADER_COUNT_; h++) {
        if (!r->headers[h].p)
            continue;
        if (r->headers[h].n > UINT32_MAX)
            return ERR_TOO_LARGE;
        buf_addc(b, (char)(h + 1));
        add_length(b, r->headers[h].n);
        buf_adds(b, r->headers[h]);
    }
    return b->is_over ? ERR_TOO_LARGE : 0;
}

static bool cut_length(struct str *s, size_t *out)
{
    uint64_t v = 0;
    size_t i;

    for (i = 0; i < s->n && i < LENGTH_BYTES_MAX; i++) {
        v |= (uint64_t)(s->p[i] & 0x7f) << (7 * i);
        if ((s->p[i] & 0x80) == 0) {
            *out = (size_t)v;
            *s = str_of(s->p + i + 1, s->n - i - 1);
            return true;
        }
    }
    return false;
}

static bool decode(struct str s, struct str headers[HEADER_COUNT_])
{
    int last = 0, id;
    size_t n;

    while (s.n > 0) {
        id = (unsigned char)s.p[0];
        s = str_of(s.p + 1, s.n - 1);
        if (id <= last || !cut_length(&s, &n) || n > s.n)
            return false;
        if (id <= HEADER_COUNT_)
            headers[id - 1] = str_of(s.p, n);
        s = str_of(s.p + n, s.n - n);
        last = id;
    }
    return true;
}

int header_decode(struct str s, struct str headers[HEADER_COUNT_])
{
    memset(headers, 0, HEADER_COUNT_ * sizeof headers[0]);
    if (decode(s, headers))
        return 0;
    memset(headers, 0, HEADER_COUNT_ * sizeof headers[0]);
    return ERR_CORRUPT;
}
