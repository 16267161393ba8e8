#include "worker/balance.h"

/* (busy + 1) / weight, compared without division: what the node's load would become. */
static bool is_less_loaded(const struct node *a, const struct node *b)
{
    return (int64_t)(a->busy + 1) * b->config->weight * b->slots <
           (int64_t)(b->busy + 1) * a->config->weight * a->slots;
}

struct node *balance_least(const struct pool *p, const bool *tried)
{
    struct node *best = NULL;
    size_t i;

    for (i = 0; i < p->n; i++)
        if (!tried[i] && node_is_open(&p->node[i]) &&
            (!best || is_less_loaded(&p->node[i], best)))
            best = &p->node[i];
    return best;
}
