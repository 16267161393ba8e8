#include "worker/worker.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "worker/inside.h"
#include <stdio.h>
#include <stdlib.h>

enum { GRACE_MS = 2000 }; /* after a drain, for completions that cannot be written */

/* ---- small things for all roles ---- */

static void read_clocks(struct worker *w)
{
    w->wall_ms = clock_wall_ms();
    w->mono_ms = clock_mono_ms();
}

int64_t worker_wall_ms(struct worker *w)
{
    if (w->wall_ms == 0)
        read_clocks(w);
    return w->wall_ms;
}

int64_t worker_mono_ms(struct worker *w)
{
    if (w->wall_ms == 0)
        read_clocks(w);
    return w->mono_ms;
}

uint64_t worker_random(struct worker *w)
{
    w->random ^= w->random << 13; /* xorshift64 (Marsaglia): jitter, no secret */
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

struct journal_key worker_journal_key(const struct worker *w, const struct task *t)
{
    return (struct journal_key){w->topic_hashes[t->topic], t->offset, t->partition};
}

void worker_read_failed(void *worker, int code)
{
    struct worker *w = worker;

    if (code == ERR_CORRUPT)
        w->read_failure = code;
}

/* ---- turns ---- */

static bool is_at_rest(const struct worker *w)
{
    return w->n_runs == 0 && outbox_count(&w->outbox) == 0 && w->loader.n_reads == 0 &&
           outbox_count(&w->due.outbox) == 0 && w->due.n_reads == 0;
}

/* May free w. */
static void end_stop(struct worker *w)
{
    w->is_stopped = true;
    uv_timer_stop(&w->drain);
    uv_timer_stop(&w->retries.timer);
    uv_timer_stop(&w->not_before.timer);
    uv_timer_stop(&w->deadlines.timer);
    uv_timer_stop(&w->due.alarms.timer);
    log_info("worker_stopped", LI("waiting", w->tasks.n));
    if (w->on_stopped)
        w->on_stopped(w->on_stopped_data);
}

/* After the pool changed. What fails is tried again with the next change. */
static void widen(struct worker *w)
{
    struct err e = {0};

    if (!w->is_widen_due || w->is_stopping)
        return;
    w->is_widen_due = false;
    if (intake_widen(w, &e) != 0)
        log_error("subscribe", LZ("error", e.msg));
}

/* All of a turn's work that is done once for many. May free w. */
static void end_turn(struct worker *w)
{
    if (w->is_stopped)
        return;
    widen(w);
    due_flush(w);
    load_flush(w);
    if (w->is_pump_due) {
        w->is_pump_due = false;
        pump(w);
    }
    outbox_flush(&w->outbox, w->n_runs > 0);
    metric_set(METRIC_JOBS_RUNNING, w->n_runs);
    metric_set(METRIC_JOBS_WAITING, (int64_t)w->tasks.n - w->n_runs - w->n_ending);
    w->wall_ms = 0;
    if (w->is_stopping && is_at_rest(w))
        end_stop(w);
}

static void before_poll(uv_prepare_t *handle)
{
    end_turn(handle->data);
}

static void after_poll(uv_check_t *handle)
{
    end_turn(handle->data);
}

static void on_pool_change(void *data)
{
    struct worker *w = data;

    w->is_pump_due = w->is_widen_due = true;
}

/* ---- start ---- */

static int open_journal(struct worker *w, struct err *e)
{
    char path[4200];

    snprintf(path, sizeof path, "%s/starts.journal", w->config->data);
    w->journal = journal_open(path, e);
    return w->journal ? 0 : e->code;
}

static void hash_topics(struct worker *w)
{
    size_t i, n = topics_count(w->topics);

    w->topic_hashes = xcalloc(n, sizeof w->topic_hashes[0]);
    for (i = 0; i < n; i++)
        w->topic_hashes[i] = journal_topic(topics_name(w->topics, (int)i));
}

static void init_handles(struct worker *w)
{
    uv_prepare_init(w->loop, &w->before);
    uv_check_init(w->loop, &w->after);
    uv_timer_init(w->loop, &w->drain);
    w->before.data = w->after.data = w->drain.data = w;
    uv_prepare_start(&w->before, before_poll);
    uv_check_start(&w->after, after_poll);
}

static void init_roles(struct worker *w, struct nodes *nodes)
{
    struct pool_options pool = {.config = w->config,
                                .schedule = schedule_new(),
                                .nodes = nodes,
                                .loop = w->loop,
                                .on_change = on_pool_change,
                                .data = w};

    hash_topics(w);
    init_handles(w);
    w->cache = cache_open(w->config, w->loop);
    w->inbox = inbox_new(w->loop);
    tasks_init(&w->tasks);
    settled_init(&w->settled);
    list_init(&w->runs);
    w->schedule = pool.schedule;
    outbox_init(&w->outbox, w->broker, w->inbox, w->loop);
    load_init(w);
    waiting_init(w);
    due_init(w);
    w->pool = pool_new(&pool);
    w->tried = xcalloc(w->pool->n, sizeof w->tried[0]);
}

struct worker *worker_start(const struct worker_options *o, struct err *e)
{
    struct worker *w = xcalloc(1, sizeof *w);

    w->config = o->config;
    w->topics = o->topics;
    w->broker = o->broker;
    w->live = o->live;
    w->has_store = o->has_store;
    w->loop = o->loop;
    id_random(&w->random, sizeof w->random);
    w->random |= 1;
    if (open_journal(w, e) != 0) {
        free(w);
        return NULL;
    }
    init_roles(w, o->nodes);
    /* cancellations first; due last, for it only adds jobs */
    if (cancel_start(w, e) != 0 || intake_start(w, e) != 0 || due_start(w, e) != 0) {
        w->is_stopped = w->is_stopping = true;
        worker_free(w);
        return NULL;
    }
    return w;
}

/* ---- stop ---- */

static void on_grace_over(uv_timer_t *timer)
{
    struct worker *w = timer->data;

    outbox_drop(&w->outbox);
    outbox_drop(&w->due.outbox);
}

static void break_off(struct worker *w)
{
    run_abort_all(w);
    if (w->outbox.backoff_ms > 0)
        outbox_drop(&w->outbox);
    if (w->due.outbox.backoff_ms > 0)
        outbox_drop(&w->due.outbox);
    uv_timer_start(&w->drain, on_grace_over, GRACE_MS, 0);
}

static void on_drain_over(uv_timer_t *timer)
{
    break_off(timer->data);
}

void worker_stop(struct worker *w, int64_t drain_ms, void (*on_stopped)(void *data), void *data)
{
    if (w->is_stopped)
        return;
    if (on_stopped) {
        w->on_stopped = on_stopped;
        w->on_stopped_data = data;
    }
    if (w->is_stopping) {
        break_off(w);
        return;
    }
    w->is_stopping = true;
    log_debug("worker_stopping", LI("running", w->n_runs), LI("drain_ms", drain_ms));
    uv_timer_start(&w->drain, on_drain_over, drain_ms > 0 ? (uint64_t)drain_ms : 0, 0);
}

static void on_closed(uv_handle_t *handle)
{
    struct worker *w = handle->data;

    if (--w->n_handles > 0)
        return;
    pool_free(w->pool);
    free(w);
}

static void close_handle(uv_handle_t *handle, void *data)
{
    struct worker *w = data;

    handle->data = w;
    w->n_handles++;
    uv_close(handle, on_closed);
}

static void close_handles(struct worker *w)
{
    uv_handle_t *own[] = {
        (uv_handle_t *)&w->before,
        (uv_handle_t *)&w->after,
        (uv_handle_t *)&w->drain,
        (uv_handle_t *)&w->outbox.timer,
        (uv_handle_t *)&w->loader.retry,
        (uv_handle_t *)&w->retries.timer,
        (uv_handle_t *)&w->not_before.timer,
        (uv_handle_t *)&w->deadlines.timer,
        (uv_handle_t *)&w->due.alarms.timer,
        (uv_handle_t *)&w->due.outbox.timer,
    };
    size_t i;

    for (i = 0; i < sizeof own / sizeof own[0]; i++)
        close_handle(own[i], w);
    pool_each_handle(w->pool, close_handle, w);
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pool_stop(w->pool);
    cache_close(w->cache);
    inbox_free(w->inbox);
    load_release(w);
    due_release(w);
    tasks_release(&w->tasks);
    settled_release(&w->settled);
    alarms_release(&w->retries);
    alarms_release(&w->not_before);
    alarms_release(&w->deadlines);
    journal_close(w->journal);
    free(w->topic_hashes);
    free(w->is_taken);
    free(w->tried);
    pool_drop_models(w->pool);
    schedule_free(w->schedule);
    close_handles(w);
}

/* ---- what others ask ---- */

int worker_failure(const struct worker *w)
{
    return w->read_failure;
}

const char *worker_trouble(const struct worker *w)
{
    struct worker *own = (struct worker *)(uintptr_t)w; /* the text is w's */
    size_t n_waiting = w->tasks.n - (size_t)w->n_runs - (size_t)w->n_ending;

    own->trouble[0] = '\0';
    if (w->outbox.backoff_ms > 0)
        snprintf(own->trouble, sizeof own->trouble, "results cannot be saved%s; %zu wait",
                 w->outbox.failed_with == ERR_FULL ? ": the disk is full" : "",
                 outbox_count(&w->outbox));
    else if (n_waiting > 0 && w->n_runs == 0)
        pool_trouble(w->pool, own->trouble, sizeof own->trouble);
    return own->trouble;
}
