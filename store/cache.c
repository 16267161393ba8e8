/* What both places of cached answers have in common: who waits, and for how long. */
#include "base/metric.h"
#include "store/cache_internal.h"
#include <stdlib.h>

struct cache {
    const struct cache_ops *ops;
    void *driver; /* NULL: nothing is ever found */
    uv_loop_t *loop;
    uv_timer_t limit;
    struct list asks; /* somebody waits for them; oldest first */
    size_t n_late;    /* asks that were not answered in time, nor yet */
};

struct cache *cache_open(const struct config *c, uv_loop_t *loop)
{
    struct cache *cache = xcalloc(1, sizeof *cache);

    cache->ops = c->redis_url[0] ? &cache_redis_ops : &cache_sqlite_ops;
    cache->loop = loop;
    list_init(&cache->asks);
    uv_timer_init(loop, &cache->limit);
    cache->limit.data = cache;
    if (c->cache_ttl_s > 0 && c->cache_max_bytes > 0)
        cache->driver = cache->ops->open(c, loop);
    return cache;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void cache_close(struct cache *c)
{
    struct list *node;

    while ((node = list_pop(&c->asks)) != NULL)
        LIST_ENTRY(node, struct cache_ask, node)->fn = NULL;
    if (c->driver)
        c->ops->close(c->driver);
    uv_close((uv_handle_t *)&c->limit, on_closed);
}

/* ---- looking ---- */

static void on_limit(uv_timer_t *timer);

static void arm(struct cache *c)
{
    int64_t now_ms = (int64_t)uv_now(c->loop);
    const struct cache_ask *first;

    if (list_is_empty(&c->asks))
        return;
    first = LIST_ENTRY(c->asks.next, struct cache_ask, node);
    uv_timer_start(&c->limit, on_limit,
                   first->due_ms > now_ms ? (uint64_t)(first->due_ms - now_ms) : 0, 0);
}

/* One may close all that is asked, but not the cache. */
static void on_limit(uv_timer_t *timer)
{
    struct cache *c = timer->data;
    struct cache_ask *a;

    while (!list_is_empty(&c->asks)) {
        a = LIST_ENTRY(c->asks.next, struct cache_ask, node);
        if (a->due_ms > (int64_t)uv_now(c->loop))
            break;
        list_remove(&a->node);
        a->is_late = true;
        c->n_late++;
        metric_add(METRIC_CACHE_MISSES, 1);
        a->fn(a->data, STR_NONE);
        a->fn = NULL;
    }
    arm(c);
}

/* While an answer is overdue nobody else waits for one. */
struct cache_ask *cache_look(struct cache *c, const uint8_t key[SHA256_LEN], cache_fn fn,
                             void *data)
{
    struct cache_ask *a;

    if (!c->driver)
        return NULL;
    a = xcalloc(1, sizeof *a);
    uv_update_time(c->loop); /* a turn that was long so far is not the cache's fault */
    *a = (struct cache_ask){
        .cache = c, .fn = fn, .data = data, .due_ms = (int64_t)uv_now(c->loop) + CACHE_LOOK_MS};
    if (c->n_late > 0 || c->ops->look(c->driver, key, a) != 0) {
        metric_add(METRIC_CACHE_MISSES, 1);
        free(a);
        return NULL;
    }
    list_push(&c->asks, &a->node);
    if (!uv_is_active((uv_handle_t *)&c->limit))
        arm(c);
    return a;
}

void cache_leave(struct cache_ask *a)
{
    if (list_is_linked(&a->node))
        list_remove(&a->node);
    a->fn = NULL;
}

void cache_answer(struct cache_ask *a, struct str output)
{
    if (list_is_linked(&a->node))
        list_remove(&a->node);
    if (a->is_late)
        a->cache->n_late--;
    if (a->fn) {
        metric_add(output.p ? METRIC_CACHE_HITS : METRIC_CACHE_MISSES, 1);
        a->fn(a->data, output);
    }
    free(a);
}

/* ---- keeping ---- */

void cache_keep(struct cache *c, const uint8_t key[SHA256_LEN], struct str output)
{
    if (c->driver && output.n > 0 && output.n <= CACHE_ANSWER_MAX_BYTES)
        c->ops->keep(c->driver, key, output);
}
