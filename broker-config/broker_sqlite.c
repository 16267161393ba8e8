/* The embedded broker: the log in SQLite, written by one thread. It takes all that is pending (no
 * waiting window: the groups size themselves), writes it in one transaction, acknowledges, then
 * reads for the subscriptions, and sleeps on a condition variable when nothing is left to do.
 *
 * Finishes alone start a transaction only when they are FINISH_MS old; they ride along with
 * any other. Of struct sqlite_broker, what is shared stands under `lock`; the rest has one
 * thread, as marked. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "broker-config/config.h"
#include "broker-config/pace.h"
#include "broker-config/sqlite_feed.h"
#include "broker-config/sqlite_group.h"
#include "schema/migrate.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PENDING_BYTES = 64 << 20, /* default of max_pending_bytes */
    FINISH_MS = 20,
    RETRY_MS = 1000, /* between tries to write finishes while the disk refuses */
    TRIM_RETRY_MS = 10000,
    TIDY_PAGES = 256,     /* in the WAL, that are moved to the file in a quiet moment: */
    TIDY_MS = 10,         /* after a commit, when no work has come since */
    WAL_BYTES = 64 << 20, /* a longer WAL is cut when nothing is left to do */
    LOG_NICE = 5
};

struct topic_stat {
    _Atomic int64_t first, end, n_waiting;
};

/* A subscribe on its way to the writer. */
struct order {
    struct order *next;
    int topic;
    struct subscription s;
};

/* What is asked of the writer; it takes all of it in one go. */
struct work {
    struct publish *publishes, **publish_end;
    struct broker_read *reads, **read_end;
    struct order *orders;
    struct positions finishes;
};

struct sqlite_broker {
    struct broker head; /* first */
    const struct topics *topics;
    struct inbox *inbox;
    size_t max_pending;
    struct topic_stat *stat; /* the writer stores, all load */
    bool *is_subscribed;     /* the loop's */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    struct work work;
    size_t pending_bytes;
    bool is_asleep, is_closing, is_nudged;
    bool is_urgent; /* a publish that is not patient is pending */
    bool is_pacing; /* the writer waits in wait_for_company() */
    struct pace pace;
    int64_t delete_at_ms; /* when the oldest of group.finished is due; 0: there is none */
    struct feeds_next next;
    struct err health;

    /* the writer's */
    pthread_t thread;
    struct sqlite_log log;
    struct feeds feeds;
    struct sqlite_group group; /* its `finished` are out of the windows already */
    char *walz;                /* path of the write-ahead log */
    bool has_written;          /* since the WAL was last looked at */
    int64_t trim_at_ms;
    int64_t tidy_at_ms; /* 0: nothing to be moved */
};

extern const struct broker_ops broker_sqlite; /* at the bottom; broker.c's table names it */

static struct sqlite_broker *sqlite_of(struct broker *b)
{
    return (struct sqlite_broker *)(void *)b;
}

static void work_init(struct work *w)
{
    w->publishes = NULL;
    w->publish_end = &w->publishes;
    w->reads = NULL;
    w->read_end = &w->reads;
    w->orders = NULL;
    w->finishes.n = 0;
}

/* ---- after a transaction ---- */

static void store_stats(struct sqlite_broker *b)
{
    const struct log_topic *t;
    size_t i;

    for (i = 0; i < topics_count(b->topics); i++) {
        t = &b->log.topic[i];
        atomic_store_explicit(&b->stat[i].first, t->first, memory_order_relaxed);
        atomic_store_explicit(&b->stat[i].end, t->next, memory_order_relaxed);
        atomic_store_explicit(&b->stat[i].n_waiting, sqlite_log_is_kept((int)i) ? 0 : t->n_rows,
                              memory_order_relaxed);
    }
}

static void note_health(struct sqlite_broker *b, int rc, const struct err *e)
{
    int before = b->health.code; /* only this thread writes it */

    if (rc == before)
        return;
    pthread_mutex_lock(&b->lock);
    b->health = rc ? *e : (struct err){0};
    pthread_mutex_unlock(&b->lock);
    if (rc)
        log_error("log_write", LI("code", rc), LZ("error", e->msg));
    else
        log_info("log_write_recovered", LI("code", before));
}

/* Gives a publish back to its owner. */
static void acknowledge(struct sqlite_broker *b, struct publish *p, int code)
{
    size_t i, n_appended = 0;

    for (i = 0; i < p->n; i++) {
        if (code)
            p->records[i].code = code;
        else if (topics_is_source(p->records[i].source.topic))
            feeds_finish(&b->feeds, p->records[i].source);
        n_appended += p->records[i].code == 0;
    }
    metric_add(METRIC_DB_RECORDS, (int64_t)n_appended);
    p->on_ack(p, code);
}

static void on_result(void *data, struct publish *p, const struct publish *end, int code)
{
    struct sqlite_broker *b = data;
    struct publish *next;
    size_t bytes = 0;

    for (next = p; next != end; next = next->next)
        bytes += broker_publish_bytes(next);
    pthread_mutex_lock(&b->lock);
    b->pending_bytes -= bytes; /* first, so that who hears of it finds the room */
    pthread_mutex_unlock(&b->lock);
    for (; p != end; p = next) {
        next = p->next;
        acknowledge(b, p, code);
    }
}

static void on_written(void *data, int code, const struct err *e)
{
    struct sqlite_broker *b = data;

    note_health(b, code, e);
    if (code)
        return;
    metric_add(METRIC_DB_COMMITS, 1);
    b->has_written = true;
    b->tidy_at_ms = db_wal_pages(b->log.db) >= TIDY_PAGES ? clock_mono_ms() + TIDY_MS : 0;
    store_stats(b);
}

/* ---- the writer thread ---- */

static bool has_work(const struct sqlite_broker *b) /* under lock */
{
    const struct work *w = &b->work;

    return w->publishes || w->reads || w->orders || b->is_closing || b->is_nudged ||
           b->next.is_now || (w->finishes.n > 0 && b->delete_at_ms == 0) ||
           (b->next.wake_after > 0 && w->finishes.n >= b->next.wake_after);
}

static void wake_writer(struct sqlite_broker *b) /* under lock */
{
    if (b->is_asleep && has_work(b))
        pthread_cond_signal(&b->wake);
}

static void on_nudge(void *data)
{
    struct sqlite_broker *b = data;

    pthread_mutex_lock(&b->lock);
    b->is_nudged = true;
    wake_writer(b);
    pthread_mutex_unlock(&b->lock);
}

static void sleep_until(struct sqlite_broker *b, int64_t mono_ms) /* under lock */
{
    struct timespec at = {.tv_sec = mono_ms / 1000, .tv_nsec = mono_ms % 1000 * 1000000};

    b->is_asleep = true;
    if (mono_ms)
        pthread_cond_timedwait(&b->wake, &b->lock, &at);
    else
        pthread_cond_wait(&b->wake, &b->lock);
    b->is_asleep = false;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return b == 0 || (a > 0 && a < b) ? a : b;
}

/* What sleep ends at; 0: at nothing. Under lock. */
static int64_t deadline(const struct sqlite_broker *b)
{
    return earlier(b->tidy_at_ms, earlier(b->delete_at_ms, b->next.retry_at_ms));
}

/* Under lock. What is not patient is not held up. */
static void wait_for_company(struct sqlite_broker *b)
{
    int64_t now_us = clock_mono_us(), ready_us = pace_next(&b->pace, now_us);
    struct timespec at = {.tv_sec = ready_us / 1000000, .tv_nsec = ready_us % 1000000 * 1000};

    b->is_pacing = ready_us > now_us;
    while (b->is_pacing && !b->is_urgent && !b->is_closing) {
        if (pthread_cond_timedwait(&b->wake, &b->lock, &at) == ETIMEDOUT)
            break;
    }
    b->is_pacing = false;
}

/* Waits for something to do and takes all of it, leaving w's memory in its place. False:
 * closing, and nothing is left. */
static bool take(struct sqlite_broker *b, struct work *w, bool *is_closing)
{
    struct positions room = w->finishes;
    int64_t at_ms;

    pthread_mutex_lock(&b->lock);
    while (!has_work(b) && ((at_ms = deadline(b)) == 0 || clock_mono_ms() < at_ms))
        sleep_until(b, at_ms);
    if (b->work.publishes)
        wait_for_company(b);
    *is_closing = b->is_closing;
    *w = b->work;
    b->work.finishes = room;
    work_init(&b->work);
    b->is_nudged = b->is_urgent = false;
    pthread_mutex_unlock(&b->lock);
    return !*is_closing || w->publishes || w->reads || w->orders || w->finishes.n > 0 ||
           b->group.finished.n > 0;
}

static void start_feeds(struct sqlite_broker *b, struct order *o)
{
    struct order *next;

    for (; o; o = next) {
        next = o->next;
        feeds_start(&b->feeds, o->topic, &o->s);
        free(o);
    }
}

static void take_finishes(struct sqlite_broker *b, const struct positions *p)
{
    size_t i;

    for (i = 0; i < p->n; i++) {
        feeds_finish(&b->feeds, p->at[i]);
        positions_add(&b->group.finished, p->at[i]);
    }
}

/* Deletes what was finished long enough ago; gives when to come back, 0: not at all. */
static int64_t write_finishes(struct sqlite_broker *b, bool is_closing)
{
    int64_t now_ms, at_ms = b->delete_at_ms; /* only this thread writes it */
    int rc;

    if (b->group.finished.n == 0)
        return 0;
    now_ms = clock_mono_ms();
    if (at_ms == 0)
        at_ms = now_ms + FINISH_MS;
    if (now_ms < at_ms && !is_closing)
        return at_ms;
    rc = sqlite_group_write(&b->group, NULL);
    if (is_closing)
        b->group.finished.n = 0; /* delivered again after the next open */
    return rc ? now_ms + RETRY_MS : 0;
}

static bool is_idle(struct sqlite_broker *b)
{
    bool is;

    pthread_mutex_lock(&b->lock);
    is = !has_work(b);
    pthread_mutex_unlock(&b->lock);
    return is;
}

/* Cuts a WAL that readers or a burst let grow. */
static void trim_wal(struct sqlite_broker *b)
{
    struct stat st;

    b->has_written = false;
    if (stat(b->walz, &st) != 0 || st.st_size <= WAL_BYTES || clock_mono_ms() < b->trim_at_ms)
        return;
    if (db_checkpoint(b->log.db, true, NULL, NULL) != 0)
        b->trim_at_ms = clock_mono_ms() + TRIM_RETRY_MS; /* a reader is in the way */
}

/* A checkpoint that a commit would do, or the close, when nobody waits for it. */
static void tidy_wal(struct sqlite_broker *b)
{
    b->tidy_at_ms = 0;
    db_checkpoint(b->log.db, false, NULL, NULL); /* what is left waits for the next commit */
}

static void work_once(struct sqlite_broker *b, struct work *w, bool is_closing)
{
    struct feeds_next next = {0};
    int64_t delete_at_ms;

    start_feeds(b, w->orders);
    take_finishes(b, &w->finishes);
    if (w->publishes)
        sqlite_group_write(&b->group, w->publishes);
    delete_at_ms = write_finishes(b, is_closing);
    feeds_read(&b->feeds, w->reads);
    if (!is_closing)
        next = feeds_deliver(&b->feeds);
    pthread_mutex_lock(&b->lock);
    b->delete_at_ms = delete_at_ms;
    b->next = next;
    pthread_mutex_unlock(&b->lock);
    if (b->has_written && is_idle(b))
        trim_wal(b);
    if (b->tidy_at_ms && clock_mono_ms() >= b->tidy_at_ms && is_idle(b))
        tidy_wal(b);
}

static void *run_writer(void *data)
{
    struct sqlite_broker *b = data;
    struct work w = {0};
    bool is_closing;

    /* Engines come first: where cores are few, the loop's thread, which hands them their next
     * calls, is not to wait for this one. (On Linux a thread has a nice value of its own.) */
    setpriority(PRIO_PROCESS, (id_t)gettid(), LOG_NICE);
    while (take(b, &w, &is_closing))
        work_once(b, &w, is_closing);
    free(w.finishes.at);
    return NULL;
}

/* ---- the driver ---- */

static void init_lock(struct sqlite_broker *b)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->wake, &attr);
    pthread_condattr_destroy(&attr);
}

/* Signals are the loop's. */
static int start_writer(struct sqlite_broker *b)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&b->thread, NULL, run_writer, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void release(struct sqlite_broker *b)
{
    feeds_release(&b->feeds);
    sqlite_log_close(&b->log);
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->lock);
    free(b->work.finishes.at);
    free(b->group.finished.at);
    free(b->group.gone.at);
    free(b->stat);
    free(b->is_subscribed);
    free(b->walz);
    free(b);
}

static char *path_in(const char *dataz, const char *namez)
{
    struct buf b;

    buf_init(&b, 1 << 16);
    buf_addf(&b, "%s/%s", dataz, namez);
    return buf_take(&b, NULL);
}

static void sqlite_close(struct broker *head)
{
    struct sqlite_broker *b = sqlite_of(head);

    pthread_mutex_lock(&b->lock);
    b->is_closing = true;
    wake_writer(b);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    b->feeds.is_stopping = true;
    inbox_drain(b->inbox);
    inbox_free(b->inbox);
    db_checkpoint(b->log.db, true, NULL, NULL);
    release(b);
}

static struct broker *sqlite_open(const struct broker_options *o, struct err *e)
{
    size_t n = topics_count(o->topics);
    struct sqlite_broker *b = xcalloc(1, sizeof *b);
    char *pathz = path_in(o->config->data, DB_FILE);
    int rc =
        sqlite_log_open(&b->log, pathz, o->config->broker_sync == BROKER_SYNC_FULL, o->topics, e);

    free(pathz);
    if (rc) {
        free(b);
        return NULL;
    }
    b->head.ops = &broker_sqlite;
    b->topics = o->topics;
    b->group = (struct sqlite_group){.log = &b->log,
                                     .hooks = o->hooks,
                                     .on_result = on_result,
                                     .on_written = on_written,
                                     .data = b};
    b->max_pending = o->max_pending_bytes ? o->max_pending_bytes : PENDING_BYTES;
    b->stat = xcalloc(n, sizeof *b->stat);
    b->is_subscribed = xcalloc(n, sizeof *b->is_subscribed);
    b->walz = path_in(o->config->data, DB_FILE "-wal");
    b->inbox = inbox_new(o->loop);
    work_init(&b->work);
    init_lock(b);
    feeds_init(&b->feeds, &b->log, b->inbox, on_nudge, b);
    store_stats(b);
    if (start_writer(b) != 0)
        abort(); /* no memory for a thread at start */
    return &b->head;
}

static int sqlite_publish(struct broker *head, struct publish *p)
{
    struct sqlite_broker *b = sqlite_of(head);
    size_t bytes = broker_publish_bytes(p);
    int rc = 0;

    p->next = NULL;
    pthread_mutex_lock(&b->lock);
    if (b->is_closing) {
        rc = ERR_CLOSED;
    } else if (b->pending_bytes > 0 && b->pending_bytes + bytes > b->max_pending) {
        rc = ERR_FULL; /* but what is larger than all room goes when it is alone */
    } else {
        b->pending_bytes += bytes;
        *b->work.publish_end = p;
        b->work.publish_end = &p->next;
        if (!p->is_patient) {
            b->is_urgent = true;
            if (b->is_pacing)
                pthread_cond_signal(&b->wake);
        }
        wake_writer(b);
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static int sqlite_subscribe(struct broker *head, int topic, const struct subscription *s,
                            struct err *e)
{
    struct sqlite_broker *b = sqlite_of(head);
    struct order *o;

    assert(topic >= 0 && (size_t)topic < topics_count(b->topics) && s->window > 0);
    if (b->is_subscribed[topic])
        return err_set(e, ERR_EXISTS, "%s: is subscribed to", topics_name(b->topics, topic));
    b->is_subscribed[topic] = true;
    o = xcalloc(1, sizeof *o);
    o->topic = topic;
    o->s = *s;
    pthread_mutex_lock(&b->lock);
    o->next = b->work.orders;
    b->work.orders = o;
    wake_writer(b);
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static void sqlite_finish(struct broker *head, struct position at)
{
    struct sqlite_broker *b = sqlite_of(head);

    assert(at.topic >= 0 && (size_t)at.topic < topics_count(b->topics));
    pthread_mutex_lock(&b->lock);
    positions_add(&b->work.finishes, at);
    wake_writer(b);
    pthread_mutex_unlock(&b->lock);
}

static int sqlite_read(struct broker *head, struct broker_read *r)
{
    struct sqlite_broker *b = sqlite_of(head);

    assert(r->topic >= 0 && (size_t)r->topic < topics_count(b->topics) && r->partition == 0);
    r->next = NULL;
    pthread_mutex_lock(&b->lock);
    *b->work.read_end = r;
    b->work.read_end = &r->next;
    wake_writer(b);
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static void sqlite_stat(struct broker *head, int topic, struct broker_stat *out)
{
    const struct topic_stat *s = &sqlite_of(head)->stat[topic];

    out->first = atomic_load_explicit(&s->first, memory_order_relaxed);
    out->end = atomic_load_explicit(&s->end, memory_order_relaxed);
    out->n_waiting = atomic_load_explicit(&s->n_waiting, memory_order_relaxed);
}

static int sqlite_health(struct broker *head, struct err *e)
{
    struct sqlite_broker *b = sqlite_of(head);
    int code;

    pthread_mutex_lock(&b->lock);
    code = b->health.code;
    if (code && e)
        *e = b->health;
    pthread_mutex_unlock(&b->lock);
    return code;
}

const struct broker_ops broker_sqlite = {
    .namez = "sqlite",
    .open = sqlite_open,
    .publish = sqlite_publish,
    .subscribe = sqlite_subscribe,
    .finish = sqlite_finish,
    .read = sqlite_read,
    .stat = sqlite_stat,
    .health = sqlite_health,
    .close = sqlite_close,
};
