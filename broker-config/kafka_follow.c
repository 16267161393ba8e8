/* Follows the log into the store: one thread takes what has come of any partition, applies it in
 * one transaction with the positions behind it, and tells who waits for it. A record is applied
 * exactly once, whatever is killed: its position is committed with it. Within a partition the order
 * is the log's; across partitions it is any (store/writer.h says what that means for the tables).
 *
 * A transaction that the disk refuses is rolled back and tried again, with the same messages:
 * nothing is fetched beyond them meanwhile. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "broker-config/kafka_tail.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    BATCH = 2000,          /* records in a transaction … */
    BATCH_BYTES = 8 << 20, /* … and their bytes, but for the last ones taken */
    TAKE = 256,            /* messages at a time */
    WAIT_MS = 500,         /* for a first message; also how often deadlines are looked at */
    RETRY_MS = 100,        /* after a transaction that failed, doubled up to … */
    RETRY_MAX_MS = 5000
};

struct kafka_follow {
    const struct topics *topics;
    struct broker_hooks hooks;
    struct marks *marks;

    /* the thread's */
    pthread_t thread;
    struct follow_store store;
    struct tail tail;
    rd_kafka_message_t *messages[BATCH];
    struct record records[BATCH]; /* of the messages, as the last try left them */
    int left_out[BATCH];          /* code of a record that could not be judged; 0: none */
    int culprit;                  /* the same, of the record that ended the last try */
    struct tail_part *touched[BATCH];
    size_t n, n_touched, n_bytes;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    bool is_closing;
    struct err written; /* of the last transaction */
    struct err read;    /* tail.trouble, for others */
};

/* ---- taking ---- */

static void add(struct kafka_follow *f, size_t n)
{
    struct tail_part *p;
    size_t i;

    for (i = f->n; i < f->n + n; i++) {
        f->n_bytes += f->messages[i]->len + f->messages[i]->key_len;
        f->left_out[i] = 0;
        p = tail_part(f->messages[i]);
        if (!p->is_touched)
            f->touched[f->n_touched++] = p;
        p->is_touched = true;
    }
    f->n += n;
}

/* Waits for one message, then takes what is there. */
static void take(struct kafka_follow *f)
{
    size_t got;
    int wait_ms = WAIT_MS;

    do {
        got = BATCH - f->n < TAKE ? BATCH - f->n : TAKE;
        got = tail_take(&f->tail, f->messages + f->n, got, wait_ms);
        add(f, got);
        wait_ms = 0;
    } while (got > 0 && f->n < BATCH && f->n_bytes < BATCH_BYTES);
}

static void drop_batch(struct kafka_follow *f)
{
    size_t i;

    for (i = 0; i < f->n; i++)
        rd_kafka_message_destroy(f->messages[i]);
    for (i = 0; i < f->n_touched; i++)
        f->touched[i]->is_touched = false;
    f->n = f->n_touched = f->n_bytes = 0;
}

/* ---- a transaction ---- */

static int apply_record(struct kafka_follow *f, size_t i, struct err *e)
{
    struct record *r = &f->records[i];
    int topic = tail_part(f->messages[i])->next.topic;

    kafka_record(f->topics, topic, f->messages[i], r);
    r->code = f->left_out[i] ? f->left_out[i] : f->hooks.apply(f->hooks.data, f->store.db, r);
    if (r->code == 0)
        return follow_store_add(&f->store, r, e);
    if (f->left_out[i] || broker_is_verdict(r->code))
        return 0;
    if (!broker_is_disk_failure(r->code)) /* its own fault: it shall not block the others */
        f->left_out[i] = f->culprit = r->code;
    return err_set(e, r->code, "the store could not take a record (%d)", r->code);
}

static int save_positions(struct kafka_follow *f, struct err *e)
{
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < f->n_touched; i++)
        rc = follow_store_save(&f->store, f->touched[i]->next, e);
    return rc;
}

static int flush_hook(struct kafka_follow *f, struct err *e)
{
    int rc = f->hooks.flush ? f->hooks.flush(f->hooks.data, f->store.db) : 0;

    return rc ? err_set(e, rc, "the store could not write (%d)", rc) : 0;
}

static int write_once(struct kafka_follow *f, struct err *e)
{
    size_t i;
    int rc = db_begin(f->store.db, e);

    if (rc)
        return rc;
    for (i = 0; rc == 0 && i < f->n; i++)
        rc = apply_record(f, i, e);
    rc = rc ? rc : save_positions(f, e);
    rc = rc ? rc : flush_hook(f, e);
    rc = rc ? rc : db_commit(f->store.db, e);
    if (rc)
        db_rollback(f->store.db);
    if (f->hooks.committed)
        f->hooks.committed(f->hooks.data, rc == 0);
    return rc;
}

static void tell(struct kafka_follow *f)
{
    struct record *r;
    size_t i;

    for (i = 0; i < f->n; i++) {
        r = &f->records[i];
        if (r->code)
            marks_verdict(f->marks, r->at, r->code, r->detail);
        if (f->left_out[i])
            log_error("record_left_out", LZ("topic", topics_name(f->topics, r->at.topic)),
                      LI("partition", r->at.partition), LI("offset", r->at.offset),
                      LI("code", r->code));
    }
    for (i = 0; i < f->n_touched; i++)
        marks_reach(f->marks, f->touched[i]->next);
    metric_add(METRIC_DB_COMMITS, 1);
    metric_add(METRIC_DB_RECORDS, (int64_t)f->n);
}

/* ---- the thread ---- */

static void note_written(struct kafka_follow *f, const struct err *e)
{
    int before = f->written.code; /* only this thread writes it */

    if (e->code == before)
        return;
    pthread_mutex_lock(&f->lock);
    f->written = *e;
    pthread_mutex_unlock(&f->lock);
    if (e->code)
        log_error("follow_write", LI("code", e->code), LZ("error", e->msg));
    else
        log_info("follow_write_recovered", LI("code", before));
}

/* False when closing. */
static bool pause_ms(struct kafka_follow *f, int64_t ms)
{
    int64_t at_ms = clock_mono_ms() + ms;
    struct timespec at = {.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000};
    bool is_closing;

    pthread_mutex_lock(&f->lock);
    while (!f->is_closing && clock_mono_ms() < at_ms)
        pthread_cond_timedwait(&f->wake, &f->lock, &at);
    is_closing = f->is_closing;
    pthread_mutex_unlock(&f->lock);
    return !is_closing;
}

/* Until it is written, or genq closes: the next start then reads it again. */
static void write_batch(struct kafka_follow *f)
{
    int64_t wait_ms = RETRY_MS;
    struct err e;

    for (;;) {
        e = (struct err){0};
        if (write_once(f, &e) == 0)
            break;
        if (f->culprit) {
            f->culprit = 0;
            continue;
        }
        note_written(f, &e);
        if (!pause_ms(f, wait_ms))
            return;
        wait_ms = wait_ms * 2 < RETRY_MAX_MS ? wait_ms * 2 : RETRY_MAX_MS;
        marks_expire(f->marks, clock_mono_ms());
    }
    note_written(f, &e);
    tell(f);
}

static bool is_closing(struct kafka_follow *f)
{
    bool is;

    pthread_mutex_lock(&f->lock);
    is = f->is_closing;
    if (f->read.code != f->tail.trouble.code)
        f->read = f->tail.trouble;
    pthread_mutex_unlock(&f->lock);
    return is;
}

static void *run(void *data)
{
    struct kafka_follow *f = data;

    while (!is_closing(f)) {
        take(f);
        if (f->n > 0)
            write_batch(f);
        drop_batch(f);
        tail_look(&f->tail, clock_mono_ms());
        marks_expire(f->marks, clock_mono_ms());
    }
    marks_close(f->marks);
    return NULL;
}

/* ---- for others ---- */

static void release(struct kafka_follow *f)
{
    tail_close(&f->tail);
    follow_store_close(&f->store);
    marks_free(f->marks);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void init_lock(struct kafka_follow *f)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->wake, &attr);
    pthread_condattr_destroy(&attr);
}

/* Signals are the loop's. */
static void start_thread(struct kafka_follow *f)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&f->thread, NULL, run, f) != 0)
        abort(); /* no memory for a thread at start */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct kafka_follow *kafka_follow_open(const struct kafka_follow_options *o, struct err *e)
{
    struct kafka_follow *f = xcalloc(1, sizeof *f);
    int rc;

    f->topics = o->topics;
    f->hooks = o->hooks;
    f->marks = marks_new(topics_count(o->topics));
    init_lock(f);
    rc = follow_store_open(&f->store, o->config->data, o->topics, e);
    f->tail = (struct tail){.topics = o->topics, .store = &f->store, .marks = f->marks};
    if (rc || tail_open(&f->tail, o->config, e) != 0) {
        release(f);
        return NULL;
    }
    start_thread(f);
    return f;
}

void kafka_follow_wait(struct kafka_follow *f, struct kafka_waiter *w)
{
    marks_wait(f->marks, w);
}

void kafka_follow_stat(struct kafka_follow *f, int topic, struct broker_stat *out)
{
    marks_stat(f->marks, topic, out);
}

int kafka_follow_health(struct kafka_follow *f, struct err *e)
{
    const struct err *now;
    int code;

    pthread_mutex_lock(&f->lock);
    now = f->written.code ? &f->written : &f->read;
    code = now->code;
    if (code && e)
        *e = *now;
    pthread_mutex_unlock(&f->lock);
    return code;
}

void kafka_follow_close(struct kafka_follow *f)
{
    pthread_mutex_lock(&f->lock);
    f->is_closing = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    tail_wake(&f->tail);
    pthread_join(f->thread, NULL);
    release(f);
}
