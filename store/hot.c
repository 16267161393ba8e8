/* The thread, and how far Redis is. Work is done in batches: jobs, then completions, each read from
 * the store and pipelined; when all of a batch are answered the next begins. After any failure the
 * place is asked from Redis anew, so a batch that was half done is neither lost nor done twice. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    DEADLINE_MS = 2000,
    LAST_CALL_MS = 500,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    BATCH_COMMANDS = 500,
    PENDING_BYTES = 16 << 20,
    BATCH_BYTES = 4 << 20,
};

static void sync_position(struct hot *h);
static void pump(struct hot *h);

/* ---- health ---- */

static void set_health(struct hot *h)
{
    struct err now = h->fault;

    redis_health(h->redis, &now);
    metric_set(METRIC_REDIS_UP, now.code == 0);
    pthread_mutex_lock(&h->lock);
    h->health = now;
    pthread_mutex_unlock(&h->lock);
}

int hot_health(struct hot *h, struct err *e)
{
    int code;

    pthread_mutex_lock(&h->lock);
    code = h->health.code;
    if (code)
        *e = h->health;
    pthread_mutex_unlock(&h->lock);
    return code;
}

/* ---- a batch ---- */

static void begin_batch(struct hot *h)
{
    h->failed.code = h->batch_n = 0;
    h->batch_bytes = 0;
    h->batch_position = h->position;
    h->batch_job_seq = h->job_seq;
}

void hot_fail(struct hot *h, int code, struct str why)
{
    if (!h->failed.code)
        err_set(&h->failed, code, "redis: %.*s", STR_ARG(why));
}

bool hot_has_room(const struct hot *h)
{
    return !h->failed.code && h->batch_n < BATCH_COMMANDS && h->batch_bytes < BATCH_BYTES;
}

bool hot_send_to(struct hot *h, const struct str *args, size_t n, redis_fn fn, void *data)
{
    size_t i;
    int rc = redis_send(h->redis, args, n, fn, data);

    if (rc) {
        hot_fail(h, rc, STR("it takes no more commands now"));
        return false;
    }
    for (i = 0; i < n; i++)
        h->batch_bytes += args[i].n;
    h->n_sent++;
    h->batch_n++;
    return true;
}

void hot_send(struct hot *h, const struct str *args, size_t n, redis_fn fn)
{
    hot_send_to(h, args, n, fn, h);
}

bool hot_answered(struct hot *h, int code, const struct redis_reply *reply)
{
    h->n_sent--;
    if (code == 0)
        return true;
    metric_add(METRIC_REDIS_FAILED, 1);
    hot_fail(h, code, reply ? redis_text(reply) : STR("it did not answer in time"));
    return false;
}

static void on_retry(uv_timer_t *timer)
{
    sync_position(timer->data);
}

/* Tries again later; where the connection itself is lost, when it is back (on_up). */
static void rest(struct hot *h)
{
    bool is_up = redis_health(h->redis, NULL) == 0;

    if (is_up && !h->fault.code)
        log_warn("redis_refuses", LZ("error", h->failed.msg));
    h->fault = h->failed;
    h->step = HOT_AWAY;
    set_health(h);
    if (!is_up)
        return;
    uv_timer_start(&h->retry, on_retry, (uint64_t)h->backoff_ms, 0);
    h->backoff_ms = 2 * h->backoff_ms < BACKOFF_MAX_MS ? 2 * h->backoff_ms : BACKOFF_MAX_MS;
}

/* That there was nothing to write does not tell that Redis would take it. */
static void clear_fault(struct hot *h)
{
    if (!h->fault.code ||
        (h->batch_n == 0 && (h->fault.code == ERR_FULL || h->fault.code == ERR_BUSY)))
        return;
    h->fault.code = 0;
    h->backoff_ms = BACKOFF_MIN_MS;
    set_health(h);
}

static void finish_batch(struct hot *h)
{
    if (h->failed.code) {
        rest(h);
        return;
    }
    clear_fault(h);
    h->position = h->batch_position;
    h->done_to = h->position > h->done_to ? h->position : h->done_to;
    h->job_seq = h->batch_job_seq;
}

void hot_go_on(struct hot *h)
{
    if (h->n_sent > 0)
        return;
    finish_batch(h);
    pump(h);
}

static void note_behind(struct hot *h)
{
    int64_t end = h->position;

    reader_feed_end(h->reader, &end, NULL);
    metric_set(METRIC_REDIS_BEHIND, end > h->position ? end - h->position : 0);
}

static void close_all(struct hot *h);

static void pump(struct hot *h)
{
    if (h->step != HOT_READY || h->n_sent > 0)
        return;
    begin_batch(h);
    if (h->is_sweep_due) { /* not beside batches: these may follow each other without a gap */
        h->is_sweep_due = false;
        hot_send_running(h);
        hot_send_beat(h);
    }
    hot_send_streams(h);
    if (h->reader) {
        hot_send_jobs(h);
        hot_send_ends(h);
    }
    if (h->n_sent == 0 && atomic_load(&h->is_closing) && hot_send_farewell(h))
        return;
    if (h->n_sent > 0)
        return;
    finish_batch(h);
    if (atomic_load(&h->is_closing) && h->step == HOT_READY)
        close_all(h);
}

/* ---- how far Redis is ---- */

static void on_set(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    hot_answered(h, code, reply);
    hot_go_on(h);
}

/* Of several gateways the first one's value stays. */
static void set_once(struct hot *h, const char *fieldz, const char *valuez)
{
    struct str args[] = {STR("HSETNX"), str_z(h->feed_key), str_z(fieldz), str_z(valuez)};

    hot_send(h, args, 4, on_set);
}

/* Redis has never seen this log, or was emptied. What was published before is not published again.
 */
static void begin_anew(struct hot *h)
{
    char position[24], silent[24];

    h->position = 0;
    reader_feed_oldest(h->reader, &h->position, NULL);
    log_info("redis_begins", LI("from", h->position), LI("publishes_from", h->done_to));
    snprintf(position, sizeof position, "%lld", (long long)h->position);
    snprintf(silent, sizeof silent, "%lld", (long long)h->done_to);
    set_once(h, "silent", silent);
    set_once(h, "position", position);
}

/* An embedded log that is shorter than what Redis has of it was put back to an earlier state. */
static void go_back(struct hot *h, int64_t end)
{
    char position[24];

    snprintf(position, sizeof position, "%lld", (long long)end);
    log_warn("redis_ahead", LI("position", h->position), LI("end", end));
    hot_send(h, (struct str[]){STR("HSET"), str_z(h->feed_key), STR("position"), str_z(position)},
             4, on_set);
    h->position = end;
}

static void on_position(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;
    int64_t end = 0;

    hot_answered(h, code, reply);
    if (h->failed.code) {
        rest(h);
        return;
    }
    h->step = HOT_READY;
    begin_batch(h);
    if (!str_int(redis_text(reply), &h->position) && h->reader)
        begin_anew(h);
    else if (h->reader && h->config->broker_kind == BROKER_KIND_SQLITE &&
             reader_feed_end(h->reader, &end, NULL) == 0 && h->position > end)
        go_back(h, end);
    log_debug("redis_position", LI("position", h->position));
    h->batch_position = h->position;
    if (h->n_sent == 0)
        pump(h);
}

static void on_sha(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;
    int i = 0;

    while (h->sha[i][0]) /* answers come in order */
        i++;
    if (hot_answered(h, code, reply))
        str_copyz(h->sha[i], sizeof h->sha[i], redis_text(reply));
}

static void sync_position(struct hot *h)
{
    struct str load[3] = {STR("SCRIPT"), STR("LOAD")};
    size_t i;

    h->step = HOT_SYNCING;
    begin_batch(h);
    for (i = 0; i < HOT_SCRIPT_COUNT_; i++)
        h->sha[i][0] = '\0';
    for (i = 0; i < HOT_SCRIPT_COUNT_; i++) {
        load[2] = str_z(hot_scripts[i]);
        hot_send(h, load, 3, on_sha);
    }
    hot_send(h, (struct str[]){STR("HGET"), str_z(h->feed_key), STR("position")}, 3, on_position);
    if (h->n_sent == 0)
        rest(h);
}

void hot_sync(struct hot *h)
{
    if (h->step == HOT_READY && h->n_sent == 0)
        sync_position(h);
}

static void on_up(void *data)
{
    struct hot *h = data;

    uv_timer_stop(&h->retry);
    h->beat_ms = 0;
    hot_forget_running(h); /* a Redis that comes back may have forgotten all */
    hot_read_watched(h);
    sync_position(h);
    set_health(h);
}

/* ---- the thread ---- */

static void on_wake(uv_async_t *wake);

void hot_changed(void *hot)
{
    uv_async_send(&((struct hot *)hot)->wake);
}

static void on_sweep(uv_timer_t *timer)
{
    struct hot *h = timer->data;

    set_health(h);
    if (h->reader)
        note_behind(h);
    hot_drop_streams(h);
    h->is_sweep_due = true;
    pump(h);
}

static void close_all(struct hot *h)
{
    if (uv_is_closing((uv_handle_t *)&h->wake))
        return;
    redis_close(h->redis);
    if (h->messages)
        redis_close(h->messages);
    uv_close((uv_handle_t *)&h->wake, NULL);
    uv_close((uv_handle_t *)&h->retry, NULL);
    uv_close((uv_handle_t *)&h->sweep, NULL);
    uv_close((uv_handle_t *)&h->last_call, NULL);
}

static void on_last_call(uv_timer_t *timer)
{
    close_all(timer->data);
}

static void on_wake(uv_async_t *wake)
{
    struct hot *h = wake->data;

    if (atomic_load(&h->is_closing) && !uv_is_active((uv_handle_t *)&h->last_call))
        uv_timer_start(&h->last_call, on_last_call, LAST_CALL_MS, 0);
    hot_look_around(h);
    hot_send_looks(h);
    hot_look_at_watched(h);
    pump(h);
    if (atomic_load(&h->is_closing) && h->step != HOT_READY && !uv_is_closing((uv_handle_t *)wake))
        close_all(h);
}

static void run(void *data)
{
    struct hot *h = data;

    uv_timer_start(&h->sweep, on_sweep, HOT_SWEEP_MS, HOT_SWEEP_MS);
    uv_run(&h->loop, UV_RUN_DEFAULT);
}

/* ---- from outside ---- */

struct hot *hot_new(const struct config *c, struct live *live, struct store_writer *store,
                    struct nodes *nodes)
{
    struct hot *h = xcalloc(1, sizeof *h);

    h->config = c;
    h->live = live;
    h->store = store;
    h->nodes = nodes;
    hot_name_worker(h);
    list_init(&h->waiters);
    list_init(&h->watch_changes);
    list_init(&h->looks);
    list_init(&h->known_streams);
    list_init(&h->new_streams);
    list_init(&h->changed_streams);
    h->position = -1;
    h->backoff_ms = BACKOFF_MIN_MS;
    map_init(&h->running);
    map_init(&h->watched);
    map_init(&h->told_streams);
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->stream_lock, NULL);
    hot_tell_streams(h);
    err_set(&h->health, ERR_UNREACHABLE, "redis: connecting");
    if (uv_loop_init(&h->loop) != 0 || uv_async_init(&h->loop, &h->wake, on_wake) != 0)
        abort(); /* no memory or no descriptors at start */
    uv_timer_init(&h->loop, &h->retry);
    uv_timer_init(&h->loop, &h->sweep);
    uv_timer_init(&h->loop, &h->last_call);
    h->wake.data = h->retry.data = h->sweep.data = h->last_call.data = h;
    return h;
}

static int open_store(struct hot *h, struct err *e)
{
    int rc;

    h->reader = reader_open(h->config->data, h->live, e);
    rc = h->reader ? reader_feed_end(h->reader, &h->done_to, e) : e->code;
    return rc ? rc : reader_last_job(h->reader, &h->job_seq, e);
}

int hot_start(struct hot *h, struct err *e)
{
    struct redis_options o = {.loop = &h->loop,
                              .urlz = h->config->redis_url,
                              .deadline_ms = DEADLINE_MS,
                              .max_bytes = PENDING_BYTES,
                              .on_up = on_up,
                              .data = h};

    if (hot_set_feed_key(h, e) || (h->store && open_store(h, e)))
        return e->code;
    h->redis = redis_open(&o, e);
    if (!h->redis)
        return err_prefix(e, "redis.url");
    if (uv_thread_create(&h->thread, run, h) != 0)
        return err_set(e, ERR_IO, "no thread for redis");
    h->is_started = true;
    return 0;
}

void hot_free(struct hot *h)
{
    if (h->is_started) {
        atomic_store(&h->is_closing, true);
        uv_async_send(&h->wake);
        uv_thread_join(&h->thread);
    } else {
        if (h->redis)
            redis_close(h->redis);
        uv_close((uv_handle_t *)&h->wake, NULL);
        uv_close((uv_handle_t *)&h->retry, NULL);
        uv_close((uv_handle_t *)&h->sweep, NULL);
        uv_close((uv_handle_t *)&h->last_call, NULL);
        uv_run(&h->loop, UV_RUN_DEFAULT);
    }
    uv_loop_close(&h->loop);
    hot_forget_running(h);
    hot_forget_streams(h);
    hot_forget_watched(h);
    map_release(&h->running);
    map_release(&h->watched);
    map_release(&h->told_streams);
    reader_close(h->reader);
    buf_release(&h->view);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->stream_lock);
    free(h);
}
