/* What others may ask about a group from any thread: numbers of its topics, and its health. */
#include "base/log.h"
#include "broker-config/kafka_inside.h"

static void store_stat(struct kafka_group *g, struct kafka_topic *t)
{
    int64_t first = 0, end = 0, n = 0, lo, hi;
    const struct kafka_feed *f;
    size_t i;

    for (i = 0; i < t->room; i++) {
        f = t->feeds[i];
        if (!f || f->state == FEED_CHECKING)
            continue;
        lo = f->offsets.low;
        if (rd_kafka_get_watermark_offsets(f->is_plain ? g->plain : g->member,
                                           topics_name(g->topics, f->topic), f->partition, &lo,
                                           &hi) != 0 ||
            hi < f->offsets.end)
            hi = f->offsets.end;
        first += f->is_plain ? lo : f->offsets.low;
        end += hi;
        n += f->is_plain ? 0 : (int64_t)f->offsets.n_unfinished + hi - f->offsets.end;
    }
    atomic_store_explicit(&t->stat.first, first, memory_order_relaxed);
    atomic_store_explicit(&t->stat.end, end, memory_order_relaxed);
    atomic_store_explicit(&t->stat.n_waiting, n, memory_order_relaxed);
}

void kafka_group_store_stats(struct kafka_group *g)
{
    size_t i;

    for (i = 0; i < g->n_topics; i++)
        if (g->topic[i].is_on)
            store_stat(g, &g->topic[i]);
}

void kafka_group_stat(struct kafka_group *g, int topic, struct broker_stat *out)
{
    const struct kafka_topic *t = &g->topic[topic];

    out->first = atomic_load_explicit(&t->stat.first, memory_order_relaxed);
    out->end = atomic_load_explicit(&t->stat.end, memory_order_relaxed);
    out->n_waiting = atomic_load_explicit(&t->stat.n_waiting, memory_order_relaxed);
}

void kafka_group_set_health(struct kafka_group *g, rd_kafka_resp_err_t err, const char *whyz)
{
    log_warn("kafka_group", LZ("error", rd_kafka_err2name(err)), LZ("why", whyz));
    uv_mutex_lock(&g->lock);
    g->is_fatal |= err == RD_KAFKA_RESP_ERR__FATAL;
    err_set(&g->health, kafka_code(err), "Kafka: %s", whyz);
    atomic_store(&g->gate.is_answered, false);
    uv_mutex_unlock(&g->lock);
}

void kafka_group_await_answer(struct kafka_group *g)
{
    uv_mutex_lock(&g->lock);
    if (g->health.code == 0 && !atomic_load(&g->gate.is_answered))
        err_set(&g->health, ERR_UNREACHABLE, "Kafka has not answered yet");
    uv_mutex_unlock(&g->lock);
}

int kafka_group_health(struct kafka_group *g, struct err *e)
{
    int rc = 0;

    uv_mutex_lock(&g->lock);
    if (g->health.code && (g->is_fatal || !atomic_load(&g->gate.is_answered))) {
        *e = g->health;
        rc = g->health.code;
    }
    uv_mutex_unlock(&g->lock);
    return rc;
}
