#include "worker/settled.h"
#include "base/buf.h"
#include "base/sha256.h"
#include "schema/job.h"
#include <stdlib.h>

#define SLOTS (2 * SETTLED_MAX)

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

struct settled_key settled_key(struct str tenant, struct str id)
{
    uint8_t digest[SHA256_LEN];
    struct settled_key k;
    struct buf b;

    buf_init(&b, 2 * ID_MAX + 2);
    buf_adds(&b, tenant);
    buf_addc(&b, '/'); /* in no id */
    buf_adds(&b, id);
    sha256(buf_str(&b), digest);
    buf_release(&b);
    memcpy(k.h, digest, sizeof k.h);
    k.h[0] |= 1; /* never a free slot */
    return k;
}

/* The key's slot, or the free one where it would stand. */
static struct settled_key *find(struct settled_key *slots, struct settled_key k)
{
    size_t at = k.h[1] & (SLOTS - 1);

    while (slots[at].h[0] && (slots[at].h[0] != k.h[0] || slots[at].h[1] != k.h[1]))
        at = (at + 1) & (SLOTS - 1);
    return &slots[at];
}

static bool has(struct settled_key *slots, struct settled_key k)
{
    return slots && find(slots, k)->h[0] != 0;
}

void settled_add(struct settled *s, struct str tenant, struct str id)
{
    struct settled_key k = settled_key(tenant, id), *slot;

    if (s->n_young == SETTLED_MAX) {
        free(s->old);
        s->old = s->young;
        s->young = NULL;
        s->n_young = 0;
    }
    if (!s->young)
        s->young = xcalloc(SLOTS, sizeof *s->young);
    slot = find(s->young, k);
    s->n_young += slot->h[0] == 0;
    *slot = k;
}

bool settled_has(const struct settled *s, struct str tenant, struct str id)
{
    struct settled_key k;

    if (!s->young && !s->old)
        return false;
    k = settled_key(tenant, id);
    return has(s->young, k) || has(s->old, k);
}
