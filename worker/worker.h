/* The worker: takes jobs from the log, keeps the engine nodes full, publishes completions. All of
 * it lives on one libuv loop; its roles are the files of this folder in a job's order: intake,
 * schedule, pool, run, engine, retry, finish; cancel and due beside them. */
#pragma once
#include "broker-config/broker.h"
#include "store/live.h"
#include "store/nodes.h"

struct worker;

struct worker_options {
    const struct config *config;
    const struct topics *topics;
    struct broker *broker;
    struct live *live;
    bool has_store;      /* one in this process tells `live` of ends; else the worker does */
    struct nodes *nodes; /* as many as config->n_engines */
    uv_loop_t *loop;
};

/* Makes the worker: opens its journal in config->data, subscribes, starts health checks. It takes
 * jobs at once. NULL and *e on failure. */
struct worker *worker_start(const struct worker_options *o, struct err *e);

/* Stops taking jobs, lets running calls end for at most drain_ms, aborts the rest (their jobs stay
 * in the log; no attempt is spent), waits for the last completions to be acknowledged (2 s more
 * where they cannot be written), then calls on_stopped on the loop, not inside this call. A second
 * call makes it stop at once (on_stopped NULL: the first one's stays). */
void worker_stop(struct worker *w, int64_t drain_ms, void (*on_stopped)(void *data), void *data);
/* Frees a stopped worker; before broker_close and in the same turn of the loop (the broker still
 * holds its subscriptions). The memory goes once the loop has run its close callbacks. */
void worker_free(struct worker *w);

/* What keeps jobs waiting now ("no engine node is up: http://…: connection refused"), or "" — for
 * the progress bar. Valid until the next turn of the loop. */
const char *worker_trouble(const struct worker *w);
/* Whether it can go on: 0, or ERR_CORRUPT when a part of the log cannot be read (the log says
 * which). */
int worker_failure(const struct worker *w);
