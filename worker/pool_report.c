/* A node's status, for the API. */
#include "worker/pool.h"
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void put_latencies(const struct node *n, struct node_status *s)
{
    int64_t sorted[NODE_LATENCIES];
    size_t count = n->n_latencies < NODE_LATENCIES ? n->n_latencies : NODE_LATENCIES;

    s->latency_ms_p50 = s->latency_ms_p95 = -1;
    if (count == 0)
        return;
    memcpy(sorted, n->latencies, count * sizeof sorted[0]);
    qsort(sorted, count, sizeof sorted[0], by_value);
    s->latency_ms_p50 = sorted[(count - 1) / 2];
    s->latency_ms_p95 = sorted[(count - 1) * 95 / 100];
}

static const char *state_of(const struct node *n)
{
    if (n->health.state == NODE_STARTING)
        return "starting";
    return n->health.state == NODE_UP && !n->is_denied ? "up" : "down";
}

void pool_report(struct node *n)
{
    const char **models = xcalloc(n->has.n_models + 1, sizeof models[0]);
    struct node_status s = {
        .namez = n->config->name,
        .urlz = n->config->url,
        .apiz = n->ops ? n->ops->namez : "unknown",
        .statez = state_of(n),
        .errorz = n->error,
        .slots = n->slots,
        .busy = n->busy,
        .weight = n->config->weight,
        .n_calls = n->n_calls,
        .n_failed = n->n_failed,
        .checked_at = n->checked_at,
        .models = models,
    };
    size_t i, n_shown = 0;

    for (i = 0; i < n->has.n_models; i++)
        if (node_shows_model(n, n->models[i]))
            models[n_shown++] = n->models[i]->name;
    put_latencies(n, &s);
    if (n->pool->nodes)
        nodes_put(n->pool->nodes, n->at, &s);
    n->is_dirty = false;
    free(models);
}
