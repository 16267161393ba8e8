#include "producer/filerun_internal.h"
#include "base/buf.h"
#include "base/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

void filerun_wake_locked(struct filerun *f)
{
    static const uint64_t one = 1;

    f->n_wakes++;
    pthread_cond_broadcast(&f->changed);
    if (f->is_polling) {
        ssize_t written = write(f->wake_fd, &one, sizeof one);

        (void)written; /* it is full only of earlier ones */
        f->is_polling = false;
    }
}

void filerun_wake(struct filerun *f)
{
    pthread_mutex_lock(&f->lock);
    filerun_wake_locked(f);
    pthread_mutex_unlock(&f->lock);
}

void filerun_wait_locked(struct filerun *f, uint64_t *seen, int64_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000)
        until.tv_sec++, until.tv_nsec -= 1000000000;
    while (f->n_wakes == *seen && !f->is_stopping) {
        if (pthread_cond_timedwait(&f->changed, &f->lock, &until) == ETIMEDOUT)
            break;
    }
    *seen = f->n_wakes;
}

void filerun_note(struct filerun *f, enum filerun_thread who, const char *textz)
{
    pthread_mutex_lock(&f->lock);
    f->notes[who] = textz;
    pthread_mutex_unlock(&f->lock);
}

static struct str split_id(struct str id, int64_t *n_tries)
{
    *n_tries = 0;
    for (size_t i = id.n; i >= 2; i--) {
        if (id.p[i - 2] == '.' && id.p[i - 1] == 'r' &&
            str_int(str_of(id.p + i, id.n - i), n_tries))
            return str_of(id.p, i - 2);
    }
    return id;
}

struct str filerun_base_id(struct str id)
{
    int64_t n_tries;

    return split_id(id, &n_tries);
}

void filerun_next_id(struct str id, char dst[ID_MAX + 1])
{
    int64_t n_tries;
    struct str base = split_id(id, &n_tries);

    if (base.n > ID_MAX - 8)
        base.n = ID_MAX - 8;
    snprintf(dst, ID_MAX + 1, "%.*s.r%d", STR_ARG(base), (int)(n_tries % 99999) + 1);
}

/* On the loop. */
static void on_ended(struct message *m)
{
    struct filerun *f = LIST_ENTRY(m, struct filerun, ended);

    f->on_end(f->data, f->error.code);
}

/* On the loop. */
static void on_ready_told(struct message *m)
{
    struct filerun *f = LIST_ENTRY(m, struct filerun, ready);

    f->on_ready(f->data);
}

void filerun_tell_ready(struct filerun *f)
{
    f->ready.on_receive = on_ready_told;
    inbox_post(f->inbox, &f->ready);
}

/* Tells the loop once. */
static void end(struct filerun *f, const struct err *e)
{
    bool is_first;

    pthread_mutex_lock(&f->lock);
    is_first = !f->is_ended;
    if (is_first && e)
        f->error = *e;
    f->is_ended = true;
    pthread_mutex_unlock(&f->lock);
    if (!is_first)
        return;
    f->ended.on_receive = on_ended;
    inbox_post(f->inbox, &f->ended);
}

void filerun_fail(struct filerun *f, const struct err *e)
{
    end(f, e);
}

/* On the broker's thread, under live's lock. */
static void on_feed(struct watcher *w)
{
    filerun_wake(LIST_ENTRY(w, struct filerun, feed));
}

static void *run_writer(void *data)
{
    struct filerun *f = data;

    filerun_write(f);
    end(f, NULL);
    return NULL;
}

struct created {
    struct publish publish;
    struct record record;
    struct buf mem;
    struct filerun *run;
};

/* On the broker's thread. A repeat, of an earlier run's, is as good. */
static void on_created(struct publish *p, int code)
{
    struct created *c = (struct created *)(void *)p;
    struct filerun *f = c->run;

    buf_release(&c->mem);
    free(c);
    pthread_mutex_lock(&f->lock);
    f->is_batch_acked = true;
    f->batch_code = code;
    f->n_wakes++;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

int filerun_create_batch(struct filerun *f)
{
    struct created *c = xcalloc(1, sizeof *c);
    struct batch record = {
        .id = STR(BATCH_ID), .tenant = str_z(f->options.tenantz), .state = BATCH_RECEIVING,
        .created_at = clock_wall_ms(), .n_lines = -1};
    int rc;

    c->run = f;
    buf_init(&c->mem, 4096);
    envelope_batch(&c->record, &record, &c->mem);
    c->record.at.topic = TOPIC_META;
    c->record.source = POSITION_NONE;
    c->publish = (struct publish){.records = &c->record, .n = 1, .on_ack = on_created};
    f->is_batch_acked = false; /* nothing is on its way: no lock */
    rc = broker_publish(f->embedded->gateway.broker, &c->publish);
    if (rc < 0)
        on_created(&c->publish, rc);
    pthread_mutex_lock(&f->lock);
    while (!f->is_batch_acked)
        pthread_cond_wait(&f->changed, &f->lock);
    rc = f->batch_code;
    pthread_mutex_unlock(&f->lock);
    return rc;
}

void filerun_fail_log(struct filerun *f, int code)
{
    struct err e, why = {0};

    broker_health(f->embedded->gateway.broker, &why);
    err_set(&e, code, "the log failed to take jobs%s%s", why.code ? ": " : "", why.msg);
    filerun_fail(f, &e);
}

struct filerun *filerun_start(struct embedded *m, const struct filerun_options *o,
                              void (*on_ready)(void *data), void (*on_end)(void *data, int code),
                              void *data, struct err *e)
{
    struct filerun *f = xcalloc(1, sizeof *f);
    pthread_condattr_t attr;

    f->embedded = m;
    f->options = *o;
    f->on_ready = on_ready;
    f->on_end = on_end;
    f->data = data;
    f->counts.n_total = -1;
    list_init(&f->acked);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    f->inbox = inbox_new(m->loop);
    f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->feed.on_wake = on_feed;
    live_watch(m->gateway.live, STR_NONE, STR_NONE, &f->feed);
    if (f->wake_fd < 0) {
        err_set(e, ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    } else if (filerun_load_mark(f, e) == 0) {
        f->has_reader = pthread_create(&f->reader, NULL, filerun_read, f) == 0;
        f->has_writer = pthread_create(&f->writer, NULL, run_writer, f) == 0;
        if (f->has_reader && f->has_writer)
            return f;
        err_set(e, ERR_IO, "cannot start a thread");
    }
    filerun_stop(f);
    filerun_free(f);
    return NULL;
}

void filerun_get_counts(struct filerun *f, struct filerun_counts *out)
{
    pthread_mutex_lock(&f->lock);
    *out = f->counts;
    out->notez = f->notes[FILERUN_WRITER]   ? f->notes[FILERUN_WRITER]
                 : f->notes[FILERUN_READER] ? f->notes[FILERUN_READER]
                                            : "";
    pthread_mutex_unlock(&f->lock);
}

bool filerun_refused(struct filerun *f, int i, char *dst, size_t room)
{
    bool is_there;

    pthread_mutex_lock(&f->lock);
    is_there = i < FILERUN_REFUSED_SHOWN && i < f->counts.n_refused;
    if (is_there)
        str_copyz(dst, room, str_z(f->refused[i]));
    pthread_mutex_unlock(&f->lock);
    return is_there;
}

void filerun_interrupt(struct filerun *f)
{
    pthread_mutex_lock(&f->lock);
    f->stops_reading = true;
    pthread_mutex_unlock(&f->lock);
    filerun_wake(f);
}

void filerun_stop(struct filerun *f)
{
    pthread_mutex_lock(&f->lock);
    f->is_stopping = f->stops_reading = true;
    pthread_mutex_unlock(&f->lock);
    filerun_wake(f);
    if (f->has_reader)
        pthread_join(f->reader, NULL);
    if (f->has_writer)
        pthread_join(f->writer, NULL);
}

const struct err *filerun_error(const struct filerun *f)
{
    return &f->error;
}

bool filerun_is_complete(const struct filerun *f)
{
    return f->is_read && f->counts.n_written >= f->n_ready && f->error.code == 0;
}

void filerun_free(struct filerun *f)
{
    live_unwatch(f->embedded->gateway.live, &f->feed);
    inbox_free(f->inbox);
    if (f->wake_fd >= 0)
        close(f->wake_fd);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
