#include "broker-config/header_codec.h"
#include <assert.h>

static_assert(HEADER_COUNT_ < 127, "a header's number + 1 is below the words'");

enum { LENGTH_BYTES_MAX = 5, FIRST_WORD = 128, DIGEST = 255 };

/* Values that nearly every record has. Their numbers are stored: only add at the end. */
static const struct {
    enum record_header header;
    struct str value;
} words[] = {
    {HEADER_SPECVERSION, STR_INIT("1.0")},
    {HEADER_TYPE, STR_INIT("genq.job.v1")},
    {HEADER_TYPE, STR_INIT("genq.completion.v1")},
    {HEADER_EVENT_SOURCE, STR_INIT("genq")},
    {HEADER_CONTENT_TYPE, STR_INIT("application/json")},
    {HEADER_TENANT, STR_INIT("default")},
    {HEADER_STATUS, STR_INIT("succeeded")},
};

enum { N_WORDS = sizeof words / sizeof words[0] };

static_assert(FIRST_WORD + N_WORDS <= DIGEST, "a word's number is a byte below the digest's");

static void add_length(struct buf *b, size_t n)
{
    for (; n >= 0x80; n >>= 7)
        buf_addc(b, (char)(0x80 | (n & 0x7f)));
    buf_addc(b, (char)n);
}

static size_t find_word(enum record_header h, struct str value)
{
    size_t i;

    for (i = 0; i < N_WORDS; i++)
        if (words[i].header == h && str_eq(words[i].value, value))
            break;
    return i;
}

static void encode(enum record_header h, struct str value, struct buf *b)
{
    uint8_t digest[SHA256_LEN];
    size_t word;

    if (h == HEADER_DIGEST && unhex(value, digest, sizeof digest)) {
        buf_addc(b, (char)DIGEST);
        buf_add(b, digest, sizeof digest);
        return;
    }
    word = find_word(h, value);
    if (word < N_WORDS) {
        buf_addc(b, (char)(FIRST_WORD + word));
        return;
    }
    buf_addc(b, (char)(h + 1));
    add_length(b, value.n);
    buf_adds(b, value);
}

int header_encode(const struct record *r, struct buf *b)
{
    int h;

    for (h = 0; h < HEADER_COUNT_; h++) {
        if (!r->headers[h].p)
            continue;
        if (r->headers[h].n > UINT32_MAX)
            return ERR_TOO_LARGE;
        encode((enum record_header)h, r->headers[h], b);
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

/* Takes one header off s: its number + 1 and *value (STR_NONE: a later version's word), or 0. */
static int cut_header(struct str *s, struct headers *out, struct str *value)
{
    int id = (unsigned char)s->p[0];
    size_t n = 0;

    *s = str_of(s->p + 1, s->n - 1);
    *value = STR_NONE;
    if (id == DIGEST) {
        if (s->n < SHA256_LEN)
            return 0;
        hex((const uint8_t *)s->p, SHA256_LEN, out->digits);
        *value = str_of(out->digits, 2 * SHA256_LEN);
        *s = str_of(s->p + SHA256_LEN, s->n - SHA256_LEN);
        return HEADER_DIGEST + 1;
    }
    if (id >= FIRST_WORD) {
        if (id - FIRST_WORD >= N_WORDS)
            return HEADER_COUNT_ + 1;
        *value = words[id - FIRST_WORD].value;
        return (int)words[id - FIRST_WORD].header + 1;
    }
    if (!cut_length(s, &n) || n > s->n)
        return 0;
    *value = str_of(s->p, n);
    *s = str_of(s->p + n, s->n - n);
    return id;
}

/* The headers that this version knows stand in their order. */
static bool decode(struct str s, struct headers *out)
{
    struct str value;
    int last = 0, id;

    while (s.n > 0) {
        id = cut_header(&s, out, &value);
        if (id <= 0 || (id <= HEADER_COUNT_ && id <= last))
            return false;
        if (id <= HEADER_COUNT_) {
            out->all[id - 1] = value;
            last = id;
        }
    }
    return true;
}

int header_decode(struct str s, struct headers *out)
{
    memset(out->all, 0, sizeof out->all);
    if (decode(s, out))
        return 0;
    memset(out->all, 0, sizeof out->all);
    return ERR_CORRUPT;
}
