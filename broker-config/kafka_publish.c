/* Records into topics. Any thread hands publishes over; one thread sends them, hears what became of
 * them, and acknowledges. It sleeps on an eventfd that librdkafka writes too.
 *
 * A publish with a source among its records is kept: it does not fail while Kafka is away. */
#include "base/clock.h"
#include "base/log.h"
#include "broker-config/kafka_publish_inside.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    PENDING_BYTES = 64 << 20, /* default of max_pending_bytes */
    CLOSE_MS = 2000,
    PROBE_MS = 1000, /* between looks whether Kafka is back, while nothing is flying */
    PROBE_WAIT_MS = 200,
    FLIGHT_MS =
        250 /* the longest that records wait for those before them: one broker may be away */
};

void publisher_wake(struct kafka_publisher *p)
{
    static const uint64_t one = 1;

    if (write(p->wake_fd, &one, sizeof one) < 0)
        assert(errno == EAGAIN); /* it is awake */
}

/* ---- health ---- */

void publisher_note_health(struct kafka_publisher *p, const struct err *e)
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
    publisher_note_health(data, &e);
}

/* A record that was not delivered, for a reason that is not its own. */
void publisher_note_failure(struct kafka_publisher *p, int topic, rd_kafka_resp_err_t err)
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
    publisher_note_health(p, &e);
}

/* ---- sending ---- */

static void on_report(void *data, const rd_kafka_message_t *m, void *opaque)
{
    struct kafka_publisher *p = data;
    struct item *i = opaque;
    int code = kafka_code(m->err);

    if (code == 0) {
        p->success_ms = clock_mono_ms();
        publisher_note_health(p, NULL);
    }
    if (i->parcel->is_kept) {
        keep_on_report(p, i, m);
    } else if (code == 0) {
        item_deliver(i, m->partition, m->offset);
    } else if (code == ERR_TOO_LARGE || code == ERR_INVALID) {
        item_fail(i, code, true);
    } else {
        publisher_note_failure(p, i->topic, m->err);
        item_fail(i, code, false);
    }
}

static void send_brief(struct kafka_publisher *p, struct item *i)
{
    int rc = kafka_sender_send(&p->brief, i->record, i);

    if (rc)
        item_fail(i, rc, rc == ERR_TOO_LARGE);
}

static void send_one(struct kafka_publisher *p, struct publish *publish)
{
    struct parcel *c = parcel_new(p, publish);
    struct item *i;

    for (i = c->items; i < c->items + c->n; i++) {
        if ((int64_t)kafka_record_size(p->o.topics, i->record) > p->record_bytes)
            item_fail(i, ERR_TOO_LARGE, true);
        else if (!c->is_kept)
            send_brief(p, i);
    }
    if (c->is_kept)
        keep_add(p, c);
    parcel_release(c);
}

static void send_all(struct kafka_publisher *p, struct publish *publish)
{
    struct publish *next;

    for (; publish; publish = next) {
        next = publish->next;
        send_one(p, publish);
    }
}

/* ---- the thread ---- */

static bool is_flying(const struct kafka_publisher *p)
{
    return p->brief.n_flying + p->patient.n_flying > 0;
}

static void probe(struct kafka_publisher *p)
{
    int64_t now_ms = clock_mono_ms();

    if (p->health.code == 0 || now_ms < p->probe_at_ms)
        return;
    p->probe_at_ms = now_ms + PROBE_MS;
    if (!is_flying(p) && kafka_sender_probe(&p->brief, p->lost_topicz, PROBE_WAIT_MS))
        publisher_note_health(p, NULL);
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

/* Under lock. When what has arrived is sent, monotonic: once what was sent before has landed, for
 * an idempotent producer sends no more to a partition that five records are on their way to. So
 * groups get larger where Kafka gets slower, and a lone record never waits. */
static int64_t departure_us(const struct kafka_publisher *p)
{
    int64_t landed_us = is_flying(p) ? p->sent_us + FLIGHT_MS * 1000 : 0;

    return p->ready_us > landed_us ? p->ready_us : landed_us;
}

/* Takes what has come. True: closing. */
static bool take(struct kafka_publisher *p, struct publish **publishes,
                 struct kafka_waiter **applied)
{
    int64_t now_us = clock_mono_us(), go_us;
    bool is_closing;

    pthread_mutex_lock(&p->lock);
    *publishes = NULL;
    p->look_at_ms = 0;
    go_us = p->arrived && !p->is_closing ? departure_us(p) : 0;
    if (go_us > now_us) {
        p->look_at_ms = go_us / 1000 + 1;
    } else if (p->arrived) {
        *publishes = p->arrived;
        p->arrived = NULL;
        p->arrived_end = &p->arrived;
        p->sent_us = now_us;
    }
    *applied = p->applied;
    p->applied = NULL;
    is_closing = p->is_closing;
    pthread_mutex_unlock(&p->lock);
    return is_closing;
}

/* What is reported meanwhile may be more to do: no sleep after it. */
static void flush(struct kafka_publisher *p)
{
    bool has_sent = kafka_sender_flush(&p->patient);

    if (kafka_sender_flush(&p->brief) || has_sent)
        p->look_at_ms = 1;
}

static bool work(struct kafka_publisher *p)
{
    struct publish *publishes;
    struct kafka_waiter *applied;
    bool is_closing = take(p, &publishes, &applied);

    items_applied(applied);
    send_all(p, publishes);
    kafka_sender_poll(&p->patient);
    kafka_sender_poll(&p->brief);
    keep_turn(p);
    flush(p);
    probe(p);
    return !is_closing;
}

static int64_t sooner(int64_t a_ms, int64_t b_ms) /* 0: never */
{
    return a_ms == 0 || (b_ms != 0 && b_ms < a_ms) ? b_ms : a_ms;
}

static int64_t deadline(const struct kafka_publisher *p)
{
    int64_t at_ms = sooner(keep_deadline(p), p->look_at_ms);

    return p->health.code ? sooner(at_ms, p->probe_at_ms) : at_ms;
}

/* What Kafka does not take in time goes to the outbox, or fails; the follower gives everything back
 * within its own limit. */
static void finish(struct kafka_publisher *p)
{
    int64_t end_ms = clock_mono_ms() + CLOSE_MS;

    p->keep.is_closing = true;
    while (work(p), is_flying(p) && clock_mono_ms() < end_ms)
        sleep_until(p, end_ms);
    keep_give_up(p);
    kafka_sender_purge(&p->brief);
    while (work(p), p->n_open > 0)
        sleep_until(p, 0);
}

static void *run(void *data)
{
    struct kafka_publisher *p = data;

    while (work(p))
        sleep_until(p, deadline(p));
    finish(p);
    return NULL;
}

/* ---- from outside ---- */

/* What is larger than all room goes when it is alone. */
static bool has_room(int64_t used, int64_t bytes, int64_t most)
{
    return used == 0 || used + bytes <= most;
}

static int admit(struct kafka_publisher *p, int64_t bytes, bool is_to_keep) /* under lock */
{
    if (p->is_closing)
        return ERR_CLOSED;
    if (!has_room((int64_t)p->pending_bytes, bytes, (int64_t)p->max_pending))
        return ERR_FULL;
    if (is_to_keep && (p->is_outbox_bad || !has_room(p->kept_bytes + p->stored_bytes, bytes,
                                                     p->o.config->limits_outbox_bytes)))
        return ERR_FULL;
    p->pending_bytes += (size_t)bytes;
    p->kept_bytes += is_to_keep ? bytes : 0;
    return 0;
}

static void owe(struct kafka_publisher *p, const struct publish *publish)
{
    size_t i;

    for (i = 0; i < publish->n; i++)
        if (topics_is_source(publish->records[i].source.topic))
            kafka_owed_add(&p->owed, publish->records[i].source);
}

/* Under lock. True: the thread has to hear of it; else it is woken already. */
static bool add(struct kafka_publisher *p, struct publish *publish)
{
    bool is_first = !p->arrived, is_held = !is_first && p->ready_us > 0;

    if (!publish->is_patient)
        p->ready_us = 0;
    else if (is_first)
        p->ready_us = pace_next(&p->pace, clock_mono_us());
    *p->arrived_end = publish;
    p->arrived_end = &publish->next;
    return is_first || (is_held && !publish->is_patient);
}

int kafka_publisher_publish(struct kafka_publisher *p, struct publish *publish)
{
    int64_t bytes = (int64_t)broker_publish_bytes(publish);
    bool is_to_keep = is_kept(publish), is_news = false;
    int rc;

    publish->next = NULL;
    pthread_mutex_lock(&p->lock);
    rc = admit(p, bytes, is_to_keep);
    if (rc == 0) {
        owe(p, publish);
        is_news = add(p, publish);
    }
    pthread_mutex_unlock(&p->lock);
    if (is_news)
        publisher_wake(p);
    return rc;
}

bool kafka_publisher_owes(struct kafka_publisher *p, struct position source)
{
    return kafka_owed_has(&p->owed, source);
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
    keep_close(p);
    kafka_owed_release(&p->owed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Signals are the loop's. */
int kafka_publisher_start(struct kafka_publisher *p, struct err *e)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&p->thread, NULL, run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    p->is_started = rc == 0;
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
    kafka_owed_init(&p->owed);
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->wake_fd < 0)
        rc = err_set(e, ERR_IO, "eventfd: %s", strerror(errno));
    rc = rc ? rc : keep_open(p, e);
    rc = rc ? rc : open_senders(p, e);
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
    publisher_wake(p);
    if (p->is_started)
        pthread_join(p->thread, NULL);
    free_publisher(p);
}
