#include "worker/settled.h"
#include "base/buf.h"
#include "base/sha256.h"
#include "schema/job.h"
#include <stdlib.h>

#define SLOTS (2 * SETTLED_MAX)
#define HINTS (16 * SETTLED_MAX)

enum { WORD = 64 };

/* A generation. */
struct settled_ids {
    struct settled_key slots[SLOTS]; /* open addressing */
    uint64_t hints[HINTS / WORD];    /* a bit for each id: where it is 0, the id is not here */
};

void settled_init(struct settled *s)
{
    *s = (struct settled){NULL, NULL, 0};
}

void settled_release(struct settled *s)
{
    free(s->young);
    free(s->old);
    settled_init(s);
}

enum { MARK_BYTES = 4 };

/* Never 0, which is unknown. */
static uint32_t mark_of(const uint8_t digest[MARK_BYTES])
{
    return (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 |
           digest[3] | 1;
}

uint32_t settled_mark(struct str digits)
{
    uint8_t digest[MARK_BYTES];
    size_t n = 2 * sizeof digest;

    return digits.n >= n && unhex(str_of(digits.p, n), digest, sizeof digest) ? mark_of(digest) : 0;
}

uint32_t settled_mark_of(const struct job *j)
{
    uint8_t digest[SHA256_LEN];

    job_digest(j, digest);
    return mark_of(digest);
}

struct settled_key settled_key(struct str tenant, struct str id)
{
    struct settled_key k = {.mark = 0};
    uint8_t digest[SHA256_LEN];
    struct buf b;

    buf_init(&b, 2 * ID_MAX + 2);
    buf_adds(&b, tenant);
    buf_addc(&b, '/'); /* in no id */
    buf_adds(&b, id);
    sha256(buf_str(&b), digest);
    buf_release(&b);
    memcpy(&k.id, digest, sizeof k.id);
    memcpy(&k.more, digest + sizeof k.id, sizeof k.more);
    k.id |= 1; /* never a free slot */
    return k;
}

/* The key's slot, or the free one where it would stand. */
static struct settled_key *find(struct settled_key *slots, struct settled_key k)
{
    size_t at = k.more & (SLOTS - 1);

    while (slots[at].id && (slots[at].id != k.id || slots[at].more != k.more))
        at = (at + 1) & (SLOTS - 1);
    return &slots[at];
}

void settled_add(struct settled *s, uint64_t hash, struct str tenant, struct str id, uint32_t mark)
{
    struct settled_key k = settled_key(tenant, id), *slot;
    size_t hint = hash % HINTS;

    k.mark = mark;
    if (s->n_young == SETTLED_MAX) {
        free(s->old);
        s->old = s->young;
        s->young = NULL;
        s->n_young = 0;
    }
    if (!s->young)
        s->young = xcalloc(1, sizeof *s->young);
    s->young->hints[hint / WORD] |= UINT64_C(1) << hint % WORD;
    slot = find(s->young->slots, k);
    s->n_young += slot->id == 0;
    if (!k.mark)
        k.mark = slot->mark; /* what was known of it stays known */
    *slot = k;
}

static bool has_hint(const struct settled_ids *ids, size_t hint)
{
    return ids && (ids->hints[hint / WORD] & UINT64_C(1) << hint % WORD) != 0;
}

static enum settled_as look(struct settled_ids *ids, struct settled_key k)
{
    const struct settled_key *slot = ids ? find(ids->slots, k) : NULL;

    if (!slot || slot->id == 0)
        return SETTLED_NOT;
    return slot->mark && k.mark && slot->mark != k.mark ? SETTLED_OTHER : SETTLED_SAME;
}

enum settled_as settled_look(const struct settled *s, uint64_t hash, struct str tenant,
                             struct str id, uint32_t mark)
{
    size_t hint = hash % HINTS;
    struct settled_key k;
    enum settled_as as;

    if (!has_hint(s->young, hint) && !has_hint(s->old, hint))
        return SETTLED_NOT;
    k = settled_key(tenant, id);
    k.mark = mark;
    as = look(s->young, k);
    return as == SETTLED_NOT ? look(s->old, k) : as;
}

bool settled_has(const struct settled *s, uint64_t hash, struct str tenant, struct str id)
{
    return settled_look(s, hash, tenant, id, 0) != SETTLED_NOT;
}
