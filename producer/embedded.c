#include "producer/embedded.h"
#include "base/buf.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int lock_data(struct embedded *m, const char *dataz, struct err *e)
{
    char path[4200];

    if (file_make_dir(dataz, e) < 0)
        return e->code;
    snprintf(path, sizeof path, "%s/lock", dataz);
    if (file_lock(path, &m->lock_fd, e) == 0)
        return 0;
    if (e->code == ERR_BUSY)
        return err_set(e, ERR_BUSY, "another genq has %s open", dataz);
    return e->code;
}

static int open_log(struct embedded *m, struct err *e)
{
    struct gateway *g = &m->gateway;
    struct broker_options options = {
        .config = g->config,
        .topics = g->topics,
        .hooks = {store_apply, store_flush, store_committed, g->store},
        .loop = m->loop,
    };

    g->broker = broker_open(&options, e);
    return g->broker ? 0 : e->code;
}

static void make_hot(struct gateway *g)
{
    g->hot = hot_new(g->config, g->live, g->store, g->nodes);
    store_set_on_commit(g->store, hot_changed, g->hot);
}

int embedded_open(struct embedded *m, const struct config *c, uv_loop_t *loop,
                  const struct worker_side *side, struct err *e)
{
    struct gateway *g = &m->gateway;

    memset(m, 0, sizeof *m);
    m->loop = loop;
    m->side = side;
    m->lock_fd = -1;
    if (lock_data(m, c->data, e) < 0)
        return e->code;
    g->config = c;
    g->topics = topics_new(c);
    g->live = live_new((size_t)c->limits_stream_bytes);
    g->nodes = nodes_new(c->n_engines);
    g->store = store_writer_new(g->topics, g->live, c->limits_queued_jobs);
    store_set_retention(g->store, c->retention_jobs_days);
    if (c->redis_url[0])
        make_hot(g);
    if (open_log(m, e) == 0 && (!g->hot || hot_start(g->hot, e) == 0) &&
        (m->worker = side->start(g, loop, e)))
        return 0;
    embedded_close(m);
    return e->code;
}

void embedded_stop(struct embedded *m, int64_t drain_ms, void (*on_stopped)(void *data), void *data)
{
    m->side->stop(m->worker, drain_ms, on_stopped, data);
}

void embedded_close(struct embedded *m)
{
    struct gateway *g = &m->gateway;

    if (m->worker)
        m->side->free(m->worker);
    if (g->broker)
        broker_close(g->broker);
    if (g->hot)
        hot_free(g->hot);
    if (g->store)
        store_writer_free(g->store);
    if (g->nodes)
        nodes_free(g->nodes);
    if (g->live)
        live_free(g->live);
    topics_free((struct topics *)g->topics);
    if (m->lock_fd >= 0)
        close(m->lock_fd);
}

void embedded_close_loop(uv_loop_t *loop)
{
    for (int i = 0; i < 100 && uv_loop_close(loop) == UV_EBUSY; i++)
        uv_run(loop, UV_RUN_NOWAIT);
}
