#include "worker/balance.h"

static uint64_t hash_z(uint64_t h, struct str s)
{
    size_t i;

    for (i = 0; i < s.n; i++) /* FNV-1a */
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001B3U;
    h ^= h >> 33; /* and murmur's end, for short names that differ little */
    h *= 0xFF51AFD7ED558CCDU;
    return h ^ h >> 33;
}

struct node *balance_session(const struct pool *p, const struct model *m, struct str session)
{
    uint64_t base = hash_z(0xCBF29CE484222325U, session), score, most = 0;
    struct node *best = NULL, *n;
    size_t i;

    for (i = 0; i < p->n; i++) {
        n = &p->node[i];
        if (!node_is_open(n) || !node_has_model(n, m))
            continue;
        score = hash_z(base, str_z(n->config->name));
        if (!best || score > most) {
            best = n;
            most = score;
        }
    }
    return best;
}
