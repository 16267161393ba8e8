#include "worker/health.h"

enum { FIRST_WAIT_MS = 100 };

static bool become(struct health *h, enum node_state state)
{
    bool is_new = h->state != state;

    h->state = state;
    return is_new;
}

bool health_good(struct health *h, int64_t rise)
{
    h->n_good++;
    h->n_bad = 0;
    return (h->state == NODE_STARTING || h->n_good >= rise) && become(h, NODE_UP);
}

bool health_bad(struct health *h, int64_t fall, bool is_refused)
{
    h->n_bad++;
    h->n_good = 0;
    return (h->state == NODE_STARTING || is_refused || h->n_bad >= fall) && become(h, NODE_DOWN);
}

int64_t health_wait_ms(const struct health *h, int64_t interval_ms)
{
    int64_t wait = FIRST_WAIT_MS, n;

    if (h->state == NODE_UP)
        return interval_ms;
    for (n = 1; n < h->n_bad && wait < interval_ms; n++)
        wait *= 2;
    return wait < interval_ms ? wait : interval_ms;
}
