/* The consumer is of librdkafka's simple kind, without a group: a partition is opened at an offset,
 * read, and closed. While Kafka is away the thread goes on trying: a record that cannot be read now
 * is not one that is gone. */
#include "broker-config/kafka_read.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum {
    WAIT_MS = 100, /* for a message, before looking whether to end */
    QUERY_MS = 2000,
    PAUSE_MS = 500,
    CLOSE_MS = 1000, /* to answer what was asked before close */
    GAP = 1000       /* offsets that are read over; beyond it, the partition is opened anew */
};

struct kafka_reader {
    const struct topics *topics;
    rd_kafka_t *rk;
    rd_kafka_topic_t **topic; /* by topic, opened when first read */
    size_t n_topics;
    struct inbox *inbox;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    struct broker_read *reads, **read_end;
    struct kafka_check *checks, **check_end;
    bool is_closing;
    int64_t over_ms; /* closing: when the thread ends at the latest */
};

/* An answer on its way to the loop. */
struct answer {
    struct message m; /* first */
    struct broker_read *read;
    rd_kafka_message_t **messages;
    size_t n;
    struct record records[];
};

/* ---- waiting ---- */

bool kafka_reader_is_over(struct kafka_reader *r)
{
    bool is_over;

    pthread_mutex_lock(&r->lock);
    is_over = r->is_closing && clock_mono_ms() >= r->over_ms;
    pthread_mutex_unlock(&r->lock);
    return is_over;
}

void kafka_reader_pause(struct kafka_reader *r)
{
    int64_t at_ms = clock_mono_ms() + PAUSE_MS;
    struct timespec at = {.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000};

    pthread_mutex_lock(&r->lock);
    while (!r->is_closing && clock_mono_ms() < at_ms)
        pthread_cond_timedwait(&r->wake, &r->lock, &at);
    pthread_mutex_unlock(&r->lock);
}

/* ---- scanning ---- */

static rd_kafka_topic_t *open_topic(struct kafka_reader *r, int topic)
{
    rd_kafka_topic_t **t = &r->topic[topic];

    if (!*t)
        *t = rd_kafka_topic_new(r->rk, topics_name(r->topics, topic), NULL);
    return *t;
}

int kafka_scan_open(struct kafka_reader *r, struct kafka_scan *s, int topic, int32_t partition,
                    int64_t from)
{
    rd_kafka_topic_t *t = open_topic(r, topic);

    if (!t || rd_kafka_consume_start(t, partition, from) != 0)
        return kafka_code(rd_kafka_last_error());
    *s = (struct kafka_scan){t, partition};
    return 0;
}

void kafka_scan_close(struct kafka_scan *s)
{
    if (s->topic)
        rd_kafka_consume_stop(s->topic, s->partition);
    s->topic = NULL;
}

/* ---- bounds ---- */

/* With a handle: of topics without, librdkafka does not look again for a leader that has moved, for
 * a minute and a half. */
static rd_kafka_topic_partition_list_t *name_all(struct kafka_reader *r,
                                                 const struct kafka_bounds *b, size_t n)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)n);
    size_t i;

    for (i = 0; i < n; i++) {
        open_topic(r, b[i].topic);
        rd_kafka_topic_partition_list_add(list, topics_name(r->topics, b[i].topic), b[i].partition);
    }
    return list;
}

/* rd_kafka_query_watermark_offsets would do, but in 2.0.2 it waits for a broker that is down for a
 * minute, whatever time it is given. */
static rd_kafka_resp_err_t ask(struct kafka_reader *r, rd_kafka_topic_partition_list_t *list,
                               int64_t which)
{
    rd_kafka_resp_err_t err;
    int i;

    for (i = 0; i < list->cnt; i++)
        list->elems[i].offset = which;
    err = rd_kafka_offsets_for_times(r->rk, list, QUERY_MS);
    for (i = 0; i < list->cnt && !err; i++)
        err = list->elems[i].err;
    return err;
}

/* Its leader may be another by now. */
static void look_for_leaders(struct kafka_reader *r)
{
    const struct rd_kafka_metadata *m;

    if (rd_kafka_metadata(r->rk, 0, NULL, &m, QUERY_MS) == 0)
        rd_kafka_metadata_destroy(m);
}

rd_kafka_resp_err_t kafka_reader_bounds(struct kafka_reader *r, struct kafka_bounds *b, size_t n)
{
    rd_kafka_topic_partition_list_t *list = name_all(r, b, n);
    rd_kafka_resp_err_t err = ask(r, list, RD_KAFKA_OFFSET_BEGINNING);
    size_t i;

    for (i = 0; i < n && !err; i++)
        b[i].first = list->elems[i].offset;
    err = err ? err : ask(r, list, RD_KAFKA_OFFSET_END);
    for (i = 0; i < n && !err; i++)
        b[i].end = list->elems[i].offset;
    rd_kafka_topic_partition_list_destroy(list);
    if (err)
        look_for_leaders(r);
    return err;
}

/* ---- reads ---- */

static void on_answer(struct message *m)
{
    struct answer *a = (struct answer *)(void *)m;
    size_t i;

    a->read->on_read(a->read, a->records, a->n);
    for (i = 0; i < a->n; i++)
        rd_kafka_message_destroy(a->messages[i]);
    free(a->messages);
    free(a);
}

static struct answer *answer_new(struct broker_read *read)
{
    struct answer *a = xcalloc(1, sizeof *a + read->n * sizeof a->records[0]);

    a->m.on_receive = on_answer;
    a->read = read;
    a->messages = xcalloc(read->n + 1, sizeof *a->messages);
    return a;
}

/* Where a read stands. */
struct cursor {
    struct kafka_scan scan;
    size_t i;            /* next of the wanted offsets */
    int64_t start, next; /* where the scan was opened, what it gives next */
};

static bool move_to(struct kafka_reader *r, const struct broker_read *read, struct cursor *c)
{
    int64_t want = read->offsets[c->i];

    if (c->scan.topic && want - c->next <= GAP)
        return true;
    kafka_scan_close(&c->scan);
    c->start = c->next = want;
    return kafka_scan_open(r, &c->scan, read->topic, read->partition, want) == 0;
}

/* Gives false when the wanted ones that are left are not there. Takes m. */
static bool look_at(struct kafka_reader *r, struct answer *a, struct cursor *c,
                    rd_kafka_message_t *m)
{
    const struct broker_read *read = a->read;
    bool is_wanted = false;
    int64_t offset = m->offset;

    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF || (!m->err && offset < c->start)) {
        rd_kafka_message_destroy(m); /* the latter: a start behind the end is set back */
        return false;
    }
    if (m->err) {
        log_warn("kafka_read", LZ("topic", topics_name(r->topics, read->topic)),
                 LI("partition", read->partition), LZ("error", rd_kafka_message_errstr(m)));
        rd_kafka_message_destroy(m);
        kafka_scan_close(&c->scan);
        kafka_reader_pause(r);
        return true;
    }
    while (c->i < read->n && read->offsets[c->i] < offset)
        c->i++;
    if (c->i < read->n && read->offsets[c->i] == offset) {
        is_wanted = true;
        kafka_record(r->topics, read->topic, m, &a->records[a->n]);
        a->messages[a->n++] = m;
        c->i++;
    }
    c->next = offset + 1;
    if (!is_wanted)
        rd_kafka_message_destroy(m);
    return true;
}

static void read_one(struct kafka_reader *r, struct broker_read *read)
{
    struct answer *a = answer_new(read);
    struct cursor c = {0};
    rd_kafka_message_t *m;

    while (c.i < read->n && !kafka_reader_is_over(r)) {
        if (!move_to(r, read, &c)) {
            kafka_reader_pause(r);
            continue;
        }
        m = rd_kafka_consume(c.scan.topic, read->partition, WAIT_MS);
        if (m && !look_at(r, a, &c, m))
            break;
    }
    kafka_scan_close(&c.scan);
    inbox_post(r->inbox, &a->m);
}

/* ---- the thread ---- */

enum { ENDED_BYTES = 32 << 20 }; /* of some 200 000 jobs */

struct kafka_check *kafka_check_new(size_t n)
{
    struct kafka_check *c = xcalloc(1, sizeof *c + n * sizeof c->starts[0]);

    c->n = n;
    buf_init(&c->ended, ENDED_BYTES);
    return c;
}

void kafka_check_free(struct kafka_check *c)
{
    size_t i;

    for (i = 0; i < c->n; i++)
        offsets_done_release(&c->starts[i].done);
    buf_release(&c->ended);
    free(c);
}

/* Takes one of either; false: closing, and nothing is left. */
static bool take(struct kafka_reader *r, struct kafka_check **check, struct broker_read **read)
{
    pthread_mutex_lock(&r->lock);
    while (!r->checks && !r->reads && !r->is_closing)
        pthread_cond_wait(&r->wake, &r->lock);
    *check = r->checks;
    if (r->checks && !(r->checks = r->checks->next))
        r->check_end = &r->checks;
    *read = r->reads;
    if (r->reads && !(r->reads = r->reads->next))
        r->read_end = &r->reads;
    pthread_mutex_unlock(&r->lock);
    return *check || *read;
}

static void *run(void *data)
{
    struct kafka_reader *r = data;
    struct kafka_check *check;
    struct broker_read *read;

    while (take(r, &check, &read)) {
        if (check) {
            check->is_found = kafka_check_run(r, r->topics, check);
            inbox_post(r->inbox, &check->m);
        }
        if (read)
            read_one(r, read);
    }
    return NULL;
}

/* ---- outside ---- */

static rd_kafka_t *client_new(const struct config *c, struct err *e)
{
    rd_kafka_conf_t *conf = kafka_conf(c, KAFKA_CONSUMER, NULL, e);
    int rc;

    if (!conf)
        return NULL;
    rc = kafka_conf_set(conf, "enable.partition.eof", "true", e);
    if (rc == 0) /* an end is known that soon */
        rc = kafka_conf_set(conf, "fetch.wait.max.ms", "10", e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "auto.offset.reset", "earliest", e);
    if (rc == 0)
        return kafka_client_new(KAFKA_CONSUMER, conf, e);
    rd_kafka_conf_destroy(conf);
    return NULL;
}

/* Signals are the loop's. */
static void start_thread(struct kafka_reader *r)
{
    pthread_condattr_t attr;
    sigset_t all, before;
    int rc;

    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        abort(); /* no memory for a thread at start */
}

struct kafka_reader *kafka_reader_open(const struct config *c, const struct topics *t,
                                       struct inbox *inbox, struct err *e)
{
    rd_kafka_t *rk = client_new(c, e);
    struct kafka_reader *r;

    if (!rk)
        return NULL;
    r = xcalloc(1, sizeof *r);
    r->rk = rk;
    r->topics = t;
    r->inbox = inbox;
    r->n_topics = topics_count(t);
    r->topic = xcalloc(r->n_topics, sizeof *r->topic);
    r->read_end = &r->reads;
    r->check_end = &r->checks;
    start_thread(r);
    return r;
}

void kafka_reader_read(struct kafka_reader *r, struct broker_read *read)
{
    read->next = NULL;
    pthread_mutex_lock(&r->lock);
    *r->read_end = read;
    r->read_end = &read->next;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void kafka_reader_check(struct kafka_reader *r, struct kafka_check *check)
{
    check->next = NULL;
    pthread_mutex_lock(&r->lock);
    *r->check_end = check;
    r->check_end = &check->next;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void kafka_reader_stop(struct kafka_reader *r)
{
    pthread_mutex_lock(&r->lock);
    r->is_closing = true;
    r->over_ms = clock_mono_ms() + CLOSE_MS;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
}

void kafka_reader_free(struct kafka_reader *r)
{
    size_t i;

    for (i = 0; i < r->n_topics; i++)
        if (r->topic[i])
            rd_kafka_topic_destroy(r->topic[i]);
    rd_kafka_destroy(r->rk);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r->topic);
    free(r);
}
