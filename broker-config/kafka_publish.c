/* Records into topics. Any thread hands publishes over; one thread sends them, hears what became of
 * them, and acknowledges. It sleeps on an eventfd that librdkafka writes too.
 *
 * A publish with a source among its records is kept: it is sent by the patient sender and does not
 * fail while Kafka is away. */
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metric.h"
#include "broker-config/kafka_sender.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    PENDING_BYTES = 64 << 20, /* default of max_pending_bytes */
    CLOSE_MS = 2000,
    PROBE_MS = 1000, /* between looks whether Kafka is back, while nothing is flying */
    PROBE_WAIT_MS = 200
};

/* One record of a parcel. */
struct item {
    struct kafka_waiter waiter; /* first */
    struct parcel *parcel;
    struct record *record;
};

/* A publish on its way. */
struct parcel {
    struct publish *publish;
    struct kafka_publisher *p;
    size_t n_left; /* records without a result */
    int code;      /* first failure */
    int64_t taken_us;
    struct item items[];
};

struct kafka_publisher {
    struct kafka_publisher_options o;
    size_t max_pending;
    int64_t record_bytes;
    int wake_fd;

    pthread_mutex_t lock;
    /* under lock */
    struct publish *arrived, **arrived_end;
    struct kafka_waiter *applied; /* came back from the follower */
    size_t pending_bytes;
    bool is_closing;
    struct map owed; /* sources whose records are not in Kafka yet */
    struct err health;

    /* the thread's */
    pthread_t thread;
    struct kafka_sender brief, patient;
    size_t n_parcels;
    int64_t probe_at_ms;     /* while health is bad */
    const char *lost_topicz; /* what health is bad for; NULL: all of Kafka */
};

static void wake(struct kafka_publisher *p)
{
    static const uint64_t one = 1;

    if (write(p->wake_fd, &one, sizeof one) < 0)
        assert(errno == EAGAIN); /* it is awake */
}

/* ---- sources that are not finished yet ---- */

struct owed {
    struct map_node node; /* first */
    struct position source;
    int n; /* records that finish it */
};

static struct str key_of(const struct position *at)
{
    return str_of(at, sizeof *at);
}

static void owe(struct map *m, struct position source) /* under lock */
{
    struct owed *o = (struct owed *)(void *)map_get(m, key_of(&source));

    if (!o) {
        o = xcalloc(1, sizeof *o);
        o->source = source;
        map_put(m, &o->node, key_of(&o->source));
    }
    o->n++;
}

static void pay(struct map *m, struct position source) /* under lock */
{
    struct owed *o = (struct owed *)(void *)map_get(m, key_of(&source));

    assert(o && o->n > 0);
    if (--o->n > 0)
        return;
    map_remove(m, &o->node);
    free(o);
}

static void free_owed(struct map_node *node, void *data)
{
    (void)data;
    free(node);
}

static bool is_kept(const struct publish *p)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        if (topics_is_source(p->records[i].source.topic))
            return true;
    return false;
}

/* ---- health ---- */

static void note_health(struct kafka_publisher *p, const struct err *e)
{
    int before = p->health.code; /* only this thread writes it */
    int code = e ? e->code : 0;

    if (code == before)
        return;
    pthread_mutex_lock(&p->lock);
    p->health = e ? *e : (struct err){0};
    pthread_mutex_unlock(&p->lock);
    p->probe_at_ms = clock_mono_ms() + PROBE_MS;
    if (e)
        log_error("kafka_publish", LI("code", code), LZ("error", e->msg));
    else
        log_info("kafka_publish_recovered", LI("code", before));
}

static void on_error(void *data, rd_kafka_resp_err_t err, const char *reasonz)
{
    struct err e;

    if (err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && kafka_code(err) != ERR_UNREACHABLE) {
        log_warn("kafka", LZ("error", rd_kafka_err2name(err)), LZ("text", reasonz));
        return;
    }
    if (err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
        return; /* one of several; told by librdkafka's log */
    err_set(&e, ERR_UNREACHABLE, "Kafka: %s", reasonz);
    note_health(data, &e);
}

/* A record that was not delivered, for a reason that is not its own. */
static void note_failure(struct kafka_publisher *p, int topic, rd_kafka_resp_err_t err)
{
    struct err e;
    const char *namez = topics_name(p->o.topics, topic);

    if (kafka_code(err) == ERR_CLOSED)
        return;
    p->lost_topicz = kafka_code(err) == ERR_NOT_FOUND ? namez : NULL;
    if (p->lost_topicz)
        err_set(&e, ERR_NOT_FOUND, "Kafka has no topic %s: 'genq topics apply' makes it", namez);
    else
        kafka_fail(&e, err, namez);
    if (e.code == ERR_TIMEOUT)
        e.code = ERR_UNREACHABLE; /* it may be away, or too slow */
    note_health(p, &e);
}

/* ---- results ---- */

static void acknowledge(struct parcel *c)
{
    struct kafka_publisher *p = c->p;
    struct publish *publish = c->publish;
    int code = c->code;

    metric_add(METRIC_KAFKA_PUBLISHES, 1);
    metric_add(METRIC_KAFKA_PUBLISH_US, clock_mono_us() - c->taken_us);
    p->n_parcels--;
    free(c);
    pthread_mutex_lock(&p->lock);
    p->pending_bytes -= broker_publish_bytes(publish); /* first: who hears of it finds the room */
    pthread_mutex_unlock(&p->lock);
    publish->on_ack(publish, code);
}

static void release(struct parcel *c)
{
    if (--c->n_left == 0)
        acknowledge(c);
}

/* The record has its result. */
static void settle(struct item *i, int code)
{
    i->record->code = code;
    release(i->parcel);
}

static void pay_for(struct kafka_publisher *p, const struct record *r)
{
    if (!topics_is_source(r->source.topic))
        return;
    pthread_mutex_lock(&p->lock);
    pay(&p->owed, r->source);
    pthread_mutex_unlock(&p->lock);
}

static void fail(struct item *i, int code, bool is_its_own)
{
    metric_add(METRIC_KAFKA_FAILED, 1);
    if (i->parcel->code == 0 && !is_its_own)
        i->parcel->code = code;
    pay_for(i->parcel->p, i->record);
    settle(i, code);
}

/* On the follow's thread, or in kafka_follow_wait. */
static void on_applied(struct kafka_waiter *w)
{
    struct kafka_publisher *p = ((struct item *)(void *)w)->parcel->p;

    pthread_mutex_lock(&p->lock);
    w->next = p->applied;
    p->applied = w;
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

static void deliver(struct item *i, int32_t partition, int64_t offset)
{
    struct kafka_publisher *p = i->parcel->p;
    struct record *r = i->record;

    r->at.partition = partition;
    r->at.offset = offset;
    metric_add(METRIC_KAFKA_RECORDS, 1);
    if (topics_is_source(r->source.topic))
        p->o.on_finished(p->o.data, r->source, r->at);
    pay_for(p, r); /* after it, so that the source is always known to somebody */
    if (!p->o.follow) {
        settle(i, 0);
        return;
    }
    i->waiter = (struct kafka_waiter){.at = r->at, .on_applied = on_applied};
    kafka_follow_wait(p->o.follow, &i->waiter);
}

static void on_report(void *data, const rd_kafka_message_t *m, void *opaque)
{
    struct kafka_publisher *p = data;
    struct item *i = opaque;
    int code = kafka_code(m->err);

    if (code == 0) {
        note_health(p, NULL);
        deliver(i, m->partition, m->offset);
    } else if (code == ERR_TOO_LARGE || code == ERR_INVALID) {
        fail(i, code, true);
    } else {
        note_failure(p, i->record->at.topic, m->err);
        fail(i, code, false);
    }
}

static void take_applied(struct kafka_waiter *w)
{
    struct kafka_waiter *next;
    struct item *i;

    for (; w; w = next) {
        next = w->next;
        i = (struct item *)(void *)w;
        i->record->detail = w->detail;
        settle(i, w->code);
    }
}

/* ---- sending ---- */

static struct parcel *pack(struct kafka_publisher *p, struct publish *publish)
{
    struct parcel *c = xcalloc(1, sizeof *c + publish->n * sizeof c->items[0]);
    size_t i;

    c->p = p;
    c->publish = publish;
    c->n_left = publish->n + 1; /* one is the sending itself */
    c->taken_us = clock_mono_us();
    for (i = 0; i < publish->n; i++) {
        c->items[i].parcel = c;
        c->items[i].record = &publish->records[i];
        publish->records[i].detail = 0;
    }
    p->n_parcels++;
    return c;
}

static void send_item(struct kafka_sender *s, struct item *i)
{
    struct kafka_publisher *p = i->parcel->p;
    int rc;

    if ((int64_t)kafka_record_size(p->o.topics, i->record) > p->record_bytes) {
        fail(i, ERR_TOO_LARGE, true);
        return;
    }
    rc = kafka_sender_send(s, i->record, i);
    if (rc)
        fail(i, rc, rc == ERR_TOO_LARGE);
}

static void send_all(struct kafka_publisher *p, struct publish *publish)
{
    struct publish *next;
    struct parcel *c;
    size_t i;

    for (; publish; publish = next) {
        next = publish->next;
        c = pack(p, publish);
        for (i = 0; i < publish->n; i++)
            send_item(is_kept(publish) ? &p->patient : &p->brief, &c->items[i]);
        release(c);
    }
}

/* ---- the thread ---- */

static void probe(struct kafka_publisher *p)
{
    int64_t now_ms = clock_mono_ms();

    if (p->health.code == 0 || now_ms < p->probe_at_ms)
        return;
    p->probe_at_ms = now_ms + PROBE_MS;
    if (p->brief.n_flying + p->patient.n_flying == 0 &&
        kafka_sender_probe(&p->brief, p->lost_topicz, PROBE_WAIT_MS))
        note_health(p, NULL);
}

static void sleep_until(struct kafka_publisher *p, int64_t mono_ms) /* 0: till woken */
{
    struct pollfd fd = {.fd = p->wake_fd, .events = POLLIN};
    int64_t left_ms = mono_ms ? mono_ms - clock_mono_ms() : -1;
    uint64_t n;

    if (mono_ms && left_ms < 0)
        left_ms = 0;
    if (poll(&fd, 1, (int)left_ms) > 0 && read(p->wake_fd, &n, sizeof n) < 0)
        assert(errno == EAGAIN);
}

/* Takes what has come. True: closing. */
static bool take(struct kafka_publisher *p, struct publish **publishes,
                 struct kafka_waiter **applied)
{
    bool is_closing;

    pthread_mutex_lock(&p->lock);
    *publishes = p->arrived;
    p->arrived = NULL;
    p->arrived_end = &p->arrived;
    *applied = p->applied;
    p->applied = NULL;
    is_closing = p->is_closing;
    pthread_mutex_unlock(&p->lock);
    return is_closing;
}

static bool work(struct kafka_publisher *p)
{
    struct publish *publishes;
    struct kafka_waiter *applied;
    bool is_closing = take(p, &publishes, &applied);

    take_applied(applied);
    send_all(p, publishes);
    kafka_sender_poll(&p->patient);
    kafka_sender_poll(&p->brief);
    probe(p);
    return !is_closing;
}

/* What is not there in time fails; the follower gives everything back within its own limit. */
static void finish(struct kafka_publisher *p)
{
    int64_t end_ms = clock_mono_ms() + CLOSE_MS;

    while (p->n_parcels > 0) {
        if (clock_mono_ms() >= end_ms) {
            kafka_sender_purge(&p->patient);
            kafka_sender_purge(&p->brief);
        }
        work(p);
        if (p->n_parcels > 0)
            sleep_until(p, p->brief.n_flying + p->patient.n_flying ? end_ms : 0);
    }
}

static void *run(void *data)
{
    struct kafka_publisher *p = data;

    while (work(p))
        sleep_until(p, p->health.code ? p->probe_at_ms : 0);
    finish(p);
    return NULL;
}

/* ---- from outside ---- */

int kafka_publisher_publish(struct kafka_publisher *p, struct publish *publish)
{
    size_t bytes = broker_publish_bytes(publish), i;
    int rc = 0;

    publish->next = NULL;
    pthread_mutex_lock(&p->lock);
    if (p->is_closing) {
        rc = ERR_CLOSED;
    } else if (p->pending_bytes > 0 && p->pending_bytes + bytes > p->max_pending) {
        rc = ERR_FULL; /* but what is larger than all room goes when it is alone */
    } else {
        p->pending_bytes += bytes;
        for (i = 0; i < publish->n; i++)
            if (topics_is_source(publish->records[i].source.topic))
                owe(&p->owed, publish->records[i].source);
        *p->arrived_end = publish;
        p->arrived_end = &publish->next;
    }
    pthread_mutex_unlock(&p->lock);
    if (rc == 0)
        wake(p);
    return rc;
}

bool kafka_publisher_owes(struct kafka_publisher *p, struct position source)
{
    bool is;

    pthread_mutex_lock(&p->lock);
    is = map_get(&p->owed, key_of(&source)) != NULL;
    pthread_mutex_unlock(&p->lock);
    return is;
}

int kafka_publisher_health(struct kafka_publisher *p, struct err *e)
{
    int code;

    pthread_mutex_lock(&p->lock);
    code = p->health.code;
    if (code && e)
        *e = p->health;
    pthread_mutex_unlock(&p->lock);
    return code;
}

static void free_publisher(struct kafka_publisher *p)
{
    kafka_sender_close(&p->brief);
    kafka_sender_close(&p->patient);
    close(p->wake_fd);
    map_each(&p->owed, free_owed, NULL);
    map_release(&p->owed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Signals are the loop's. */
static int start_thread(struct kafka_publisher *p, struct err *e)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&p->thread, NULL, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? err_set(e, ERR_IO, "no thread: %s", strerror(rc)) : 0;
}

static int open_senders(struct kafka_publisher *p, struct err *e)
{
    struct kafka_sender_options o = {.config = p->o.config,
                                     .topics = p->o.topics,
                                     .wake_fd = p->wake_fd,
                                     .on_report = on_report,
                                     .on_error = on_error,
                                     .data = p};
    int rc = kafka_sender_open(&p->brief, &o, e);

    o.is_patient = true;
    return rc ? rc : kafka_sender_open(&p->patient, &o, e);
}

struct kafka_publisher *kafka_publisher_open(const struct kafka_publisher_options *o, struct err *e)
{
    struct kafka_publisher *p = xcalloc(1, sizeof *p);
    int rc = 0;

    p->o = *o;
    p->max_pending = o->max_pending_bytes ? o->max_pending_bytes : PENDING_BYTES;
    p->record_bytes = kafka_record_bytes(o->config);
    p->arrived_end = &p->arrived;
    pthread_mutex_init(&p->lock, NULL);
    map_init(&p->owed);
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->wake_fd < 0)
        rc = err_set(e, ERR_IO, "eventfd: %s", strerror(errno));
    rc = rc ? rc : open_senders(p, e);
    rc = rc ? rc : start_thread(p, e);
    if (rc == 0)
        return p;
    free_publisher(p);
    return NULL;
}

void kafka_publisher_close(struct kafka_publisher *p)
{
    pthread_mutex_lock(&p->lock);
    p->is_closing = true;
    pthread_mutex_unlock(&p->lock);
    wake(p);
    pthread_join(p->thread, NULL);
    free_publisher(p);
}
