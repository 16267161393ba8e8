/* Reading and writing go over the flags a word at a time; the writer counts first and writes what
 * it counted. */
#include "broker-config/offsets_code.h"
#include "base/base64.h"
#include "base/sha256.h"
#include <assert.h>
#include <endian.h>

enum {
    WORD = 64,
    VERSION = '1',
    K_MAX = 20,
    K_MASK = 31,
    UNFINISHED = 32, /* in form */
    LOW_BYTES = 8,
    FEED_END_BYTES = 9,
    SIZE_BYTES = 3,
    FORM_BYTES = 1,
    CHECK_BYTES = 4,
    BODY_MAX = BASE64_BYTES(OFFSETS_CODE_CHARS - 1),
    SLACK = 8, /* so that a word can be read or written at every byte */
};

#define FIXED_BYTES (FEED_END_BYTES + SIZE_BYTES + FORM_BYTES + CHECK_BYTES)
#define BITS_MAX \
    (4 * (OFFSETS_MAX_UNFINISHED + 1) + (OFFSETS_MAX_SPREAD + 1 - OFFSETS_MAX_UNFINISHED) / 8)

static_assert(1 + BASE64_CHARS(FIXED_BYTES + (BITS_MAX + 7) / 8) <= OFFSETS_CODE_CHARS,
              "what intake allows always fits");
static_assert(OFFSETS_DONE_SPAN <= 1 << K_MAX && OFFSETS_DONE_SPAN < 1 << (7 * SIZE_BYTES),
              "k and size reach over the span");

/* The hashed bytes: low, then the body, which ends with the check. */
struct body {
    uint8_t bytes[LOW_BYTES + BODY_MAX + SLACK];
    size_t n; /* with low */
};

/* How the flags are written. n * (1 + k) + the sum of each gap >> k is `bits`. */
struct form {
    size_t size; /* flags */
    size_t n;    /* symbols, with the one above the flags when they are the unfinished */
    size_t sum;  /* of all gaps */
    bool is_unfinished;
    unsigned k;
    size_t bits;
};

/* Goes over the offsets of a symbol. */
struct scan {
    const struct offsets *o;
    const struct offsets_done *d;
    uint64_t flip; /* all ones to look for the unfinished */
    size_t at;     /* of the word's bit 0 */
    uint64_t word; /* symbols not given yet */
};

static uint64_t flags_at(const struct offsets *o, const struct offsets_done *d, size_t i)
{
    int64_t offset = o->low + (int64_t)i;

    return offsets_flags(o, offset) | offsets_done_flags(d, offset);
}

static struct scan scan_start(const struct offsets *o, const struct offsets_done *d,
                              const struct form *f)
{
    uint64_t flip = f->is_unfinished ? ~0ull : 0;

    return (struct scan){.o = o, .d = d, .flip = flip, .word = flags_at(o, d, 0) ^ flip};
}

/* The next one; the caller knows how many there are. */
static size_t scan_next(struct scan *s)
{
    size_t i;

    while (s->word == 0) {
        s->at += WORD;
        s->word = flags_at(s->o, s->d, s->at) ^ s->flip;
    }
    i = s->at + (size_t)__builtin_ctzll(s->word);
    s->word &= s->word - 1;
    return i;
}

/* Sizes the flags and counts the rarer symbol. The other one is never shorter than the bitmap: it
 * has half of the flags or more, and with k >= 1 at least 2 bits each. With 2^k <= sum / n <
 * 2^(k+1), n (1 + k) + sum / 2^k, which no writing of the gaps exceeds, is least. */
static void measure(struct form *f, const struct offsets *o, const struct offsets_done *d)
{
    int64_t end = o->end > d->end ? o->end : d->end;
    size_t i, finished = 0;

    *f = (struct form){0};
    for (i = ((size_t)(end - o->low) + WORD - 1) / WORD; i-- > 0;) {
        uint64_t flags = flags_at(o, d, i * WORD);

        finished += (size_t)__builtin_popcountll(flags);
        if (flags && f->size == 0)
            f->size = (i + 1) * WORD - (size_t)__builtin_clzll(flags);
    }
    f->is_unfinished = f->size + 1 - finished < finished;
    f->n = f->is_unfinished ? f->size + 1 - finished : finished;
    f->sum = f->is_unfinished ? finished : f->size - finished;
    while (f->n > 0 && f->sum >> (f->k + 1) >= f->n)
        f->k++;
    f->bits = f->n * (1 + f->k) + (f->sum >> f->k);
    if (f->bits > f->size)
        f->bits = f->size;
}

/* Finds the k that is shortest. With s = sum / (n 2^k), 1 <= s < 2, for the k that measure found, k
 * costs at most n (1 + k + s) bits; k + 2 and more at least n (1 + k + 2); and k - j at least
 * n (k - j + 2^j s), as rounding saves less than a bit a gap: no less from j = 2 on. So one of
 * three, or the bitmap, which stays when there are more symbols than other flags. */
static void choose(struct form *f, const struct offsets *o, const struct offsets_done *d)
{
    unsigned first = f->k > 1 ? f->k - 1 : 1, k;
    size_t i, next = 0, bits[3] = {0};
    struct scan s = scan_start(o, d, f);

    if (f->sum < f->n)
        return;
    for (i = 0; i < f->n; i++) {
        size_t symbol = scan_next(&s), gap = symbol - next;

        for (k = 0; k < 3; k++)
            bits[k] += (gap >> (first + k)) + 1 + first + k;
        next = symbol + 1;
    }
    f->k = 0;
    f->bits = f->size;
    for (k = 0; k < 3; k++) {
        if (bits[k] < f->bits) {
            f->k = first + k;
            f->bits = bits[k];
        }
    }
}

static uint64_t load_word(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static void store_word(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

static void put_varint(struct body *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        b->bytes[b->n++] = (uint8_t)(0x80 | (v & 0x7f));
    b->bytes[b->n++] = (uint8_t)v;
}

/* The bytes from b->n on are 0 up to the last word that f->bits reach. */
static void put_gaps(struct body *b, const struct offsets *o, const struct offsets_done *d,
                     const struct form *f)
{
    struct scan s = scan_start(o, d, f);
    size_t i, next = 0, at = 0;

    for (i = 0; i < f->n; i++) {
        size_t symbol = scan_next(&s), gap = symbol - next;
        uint64_t low_bits = gap & ((1ull << f->k) - 1);
        uint8_t *p;

        at += gap >> f->k;
        p = &b->bytes[b->n + at / 8];
        store_word(p, load_word(p) | (1 | low_bits << 1) << (at % 8));
        at += 1 + f->k;
        next = symbol + 1;
    }
    assert(at == f->bits);
}

static void put_bitmap(struct body *b, const struct offsets *o, const struct offsets_done *d,
                       const struct form *f)
{
    size_t i;

    for (i = 0; i < f->size; i += WORD)
        store_word(&b->bytes[b->n + i / 8], flags_at(o, d, i));
}

static void put_flags(struct body *b, const struct offsets *o, const struct offsets_done *d,
                      const struct form *f)
{
    if (f->size == 0)
        return;
    if (f->k == 0) {
        b->bytes[b->n++] = 0;
        put_bitmap(b, o, d, f);
    } else {
        b->bytes[b->n++] = (uint8_t)(f->k | (f->is_unfinished ? UNFINISHED : 0));
        put_gaps(b, o, d, f);
    }
    b->n += (f->bits + 7) / 8;
}

/* Of the hash of n bytes. */
static void make_check(const uint8_t *p, size_t n, uint8_t out[CHECK_BYTES])
{
    uint8_t digest[SHA256_LEN];

    sha256(str_of(p, n), digest);
    memcpy(out, digest, CHECK_BYTES);
}

size_t offsets_encode(const struct offsets *o, const struct offsets_done *d, int64_t feed_end,
                      char *dst, size_t cap)
{
    struct body b = {.n = LOW_BYTES};
    struct form f;

    assert(feed_end >= 0);
    measure(&f, o, d);
    if (f.size > OFFSETS_DONE_SPAN)
        return 0;
    choose(&f, o, d);
    store_word(b.bytes, (uint64_t)o->low);
    put_varint(&b, (uint64_t)feed_end);
    put_varint(&b, f.size);
    if (b.n + FORM_BYTES + (f.bits + 7) / 8 + CHECK_BYTES > LOW_BYTES + BODY_MAX)
        return 0;
    put_flags(&b, o, d, &f);
    make_check(b.bytes, b.n, &b.bytes[b.n]);
    b.n = b.n + CHECK_BYTES - LOW_BYTES;
    if (1 + BASE64_CHARS(b.n) > cap)
        return 0;
    dst[0] = VERSION;
    return 1 + base64_encode(b.bytes + LOW_BYTES, b.n, dst + 1);
}

size_t offsets_code_chars(const struct offsets *o, const struct offsets_done *d)
{
    struct form f;

    measure(&f, o, d);
    if (f.size > OFFSETS_DONE_SPAN)
        return SIZE_MAX;
    return 1 + BASE64_CHARS(FIXED_BYTES + (f.bits + 7) / 8);
}

/* What is still to be read. */
struct input {
    const uint8_t *p;
    size_t n;
};

/* False unless it is there, below 2^63 and without a needless last byte. */
static bool cut_varint(struct input *in, uint64_t *v)
{
    unsigned i;

    *v = 0;
    for (i = 0; i < in->n && i < FEED_END_BYTES; i++) {
        *v |= (uint64_t)(in->p[i] & 0x7f) << (7 * i);
        if (in->p[i] & 0x80)
            continue;
        if (i > 0 && in->p[i] == 0)
            return false;
        in->p += i + 1;
        in->n -= i + 1;
        return true;
    }
    return false;
}

/* Cuts a Rice code at bit *at of in. A gap has less bits than in, times 2^20: no overflow. */
static bool cut_gap(struct input in, size_t *at, unsigned k, size_t *gap)
{
    size_t one = *at, n_bits = in.n * 8;
    uint64_t word = 0;

    while (one < n_bits && (word = load_word(&in.p[one / 8]) >> (one % 8)) == 0)
        one = (one / 8 + sizeof word) * 8;
    if (!word)
        return false;
    one += (size_t)__builtin_ctzll(word);
    if (one + 1 + k > n_bits)
        return false;
    word = load_word(&in.p[(one + 1) / 8]) >> ((one + 1) % 8);
    *gap = (one - *at) << k | (size_t)(word & ((1ull << k) - 1));
    *at = one + 1 + k;
    return true;
}

/* Reads all of the gaps that in holds: they make exactly `size` flags, the last of them set. */
static bool read_gaps(struct input in, uint8_t form, size_t size, struct offsets_done *d)
{
    bool is_unfinished = form & UNFINISHED, ok = true;
    size_t limit = size + is_unfinished, next = 0, at = 0, gap;
    int64_t from;

    while (ok && next < limit) {
        if (!cut_gap(in, &at, form & K_MASK, &gap) || gap >= limit - next)
            return false;
        from = d->low + (int64_t)next;
        if (is_unfinished)
            ok = offsets_done_add(d, from, from + (int64_t)gap);
        else
            ok = offsets_done_add(d, from + (int64_t)gap, from + (int64_t)gap + 1);
        next += gap + 1;
    }
    return ok && d->end == d->low + (int64_t)size && in.n == (at + 7) / 8 &&
           (at % 8 == 0 || in.p[in.n - 1] >> (at % 8) == 0);
}

static bool read_body(struct input in, struct offsets_done *d, int64_t *feed_end)
{
    uint64_t feed, size;
    uint8_t form;

    if (!cut_varint(&in, &feed) || !cut_varint(&in, &size) || size > OFFSETS_DONE_SPAN)
        return false;
    *feed_end = (int64_t)feed;
    if (size == 0)
        return in.n == 0;
    if (in.n == 0)
        return false;
    form = in.p[0];
    if ((form & ~(K_MASK | UNFINISHED)) != 0 || (form & K_MASK) > K_MAX)
        return false;
    return read_gaps((struct input){in.p + 1, in.n - 1}, form, (size_t)size, d);
}

/* Decodes the characters and holds their check against low. */
static bool open_body(struct body *b, struct str text, int64_t low)
{
    uint8_t check[CHECK_BYTES];

    if (text.n < 1 || text.n > OFFSETS_CODE_CHARS || text.p[0] != VERSION)
        return false;
    if (!base64_decode(str_of(text.p + 1, text.n - 1), b->bytes + LOW_BYTES))
        return false;
    b->n = LOW_BYTES + BASE64_BYTES(text.n - 1);
    if (b->n < LOW_BYTES + CHECK_BYTES)
        return false;
    store_word(b->bytes, (uint64_t)low);
    b->n -= CHECK_BYTES;
    make_check(b->bytes, b->n, check);
    return memcmp(check, &b->bytes[b->n], CHECK_BYTES) == 0;
}

bool offsets_decode(struct str text, int64_t low, struct offsets_done *d, int64_t *feed_end)
{
    struct body b = {.n = 0};

    offsets_done_init(d, low < 0 ? 0 : low);
    if (low >= 0 && low <= INT64_MAX - OFFSETS_DONE_SPAN - 1 && open_body(&b, text, low) &&
        read_body((struct input){b.bytes + LOW_BYTES, b.n - LOW_BYTES}, d, feed_end))
        return true;
    offsets_done_release(d);
    offsets_done_init(d, low < 0 ? 0 : low);
    *feed_end = -1;
    return false;
}
