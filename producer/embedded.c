#include "producer/embedded.h"
#include "base/buf.h"
#include "base/file.h"
#include "schema/migrate.h"
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
        .loop = m->loop,
    };

    if (g->store)
        options.hooks = (struct broker_hooks){store_apply, store_flush, store_committed, g->store};
    g->broker = broker_open(&options, e);
    if (!g->broker)
        return e->code;
    return g->store ? store_load(g->store, g->config->data, e) : 0;
}

/* Where the log is Kafka's, what is in it was accepted: submission_send judged it. */
static void make_store(struct gateway *g)
{
    const struct config *c = g->config;
    bool is_shared = c->broker_kind == BROKER_KIND_KAFKA;

    g->store = store_writer_new(g->topics, g->live, is_shared ? INT64_MAX : c->limits_queued_jobs);
    store_set_retention(g->store, c->retention_jobs_days);
}

static void make_hot(struct gateway *g)
{
    g->hot = hot_new(g->config, g->live, g->store, nodes_count(g->nodes) ? g->nodes : NULL);
    if (g->store)
        store_set_on_commit(g->store, hot_changed, g->hot);
}

/* Only gateways of one log can take the same id. */
static int open_claims(struct embedded *m, struct err *e)
{
    struct gateway *g = &m->gateway;

    if (!g->store || !g->hot || !broker_is_shared(g->broker))
        return 0;
    g->claims = claims_open(g->config, m->loop, e);
    return g->claims ? 0 : e->code;
}

int embedded_open(struct embedded *m, const struct config *c, uv_loop_t *loop,
                  const struct worker_side *side, unsigned roles, struct err *e)
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
    m->roles = roles;
    g->nodes = nodes_new(roles & ROLE_WORKER ? c->n_engines : 0);
    if (roles & ROLE_GATEWAY)
        make_store(g);
    if (c->redis_url[0])
        make_hot(g);
    if (open_log(m, e) == 0 && (!g->hot || hot_start(g->hot, e) == 0) && open_claims(m, e) == 0)
        return 0;
    embedded_close(m);
    return e->code;
}

int embedded_start(struct embedded *m, struct err *e)
{
    if (!(m->roles & ROLE_WORKER))
        return 0;
    m->worker = m->side->start(&m->gateway, m->loop, e);
    return m->worker ? 0 : e->code;
}

void embedded_stop(struct embedded *m, int64_t drain_ms, void (*on_stopped)(void *data), void *data)
{
    if (m->worker)
        m->side->stop(m->worker, drain_ms, on_stopped, data);
    else
        on_stopped(data);
}

const char *embedded_trouble(const struct embedded *m)
{
    return m->worker ? m->side->trouble(m->worker) : "";
}

int embedded_failure(const struct embedded *m, struct err *e)
{
    struct err why = {0};
    int rc = broker_health(m->gateway.broker, &why);

    if (rc != ERR_CORRUPT && m->worker && (rc = m->side->failure(m->worker)) == ERR_CORRUPT)
        err_set(&why, rc, "records cannot be read");
    if (rc != ERR_CORRUPT)
        return 0;
    return err_set(e, rc, "%s/" DB_FILE " is damaged: %s", m->gateway.config->data, why.msg);
}

void embedded_close(struct embedded *m)
{
    struct gateway *g = &m->gateway;

    if (m->worker)
        m->side->free(m->worker);
    if (g->claims)
        claims_close(g->claims);
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
