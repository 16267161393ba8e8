/* A publisher on the mock cluster, and what came of what it was given. One in a process. */
#pragma once
#include "base/clock.h"
#include "base/log.h"
#include "tests/broker-config/mock_kafka.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>

enum { WAIT_MS = 20000, BROKER_ID = 1, N_MOST = 4096 };

/* A publish of up to 4 records. */
struct sent {
    struct publish publish; /* first */
    struct record records[4];
    int code;
    bool is_acked;
};

static struct mock k;
static struct kafka_publisher *publisher;
static struct sent sent[N_MOST];
static size_t n_sent;

/* What came back. To be read through wait_for and count, or when nothing is on its way. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int n_acks, n_finished;
static int64_t finished[N_MOST]; /* offsets of sources, in the order they were finished */
static struct position finished_by[N_MOST];

/* The follower of these tests answers with it, at once or when the case lets `held` go. */
static int verdict;
static bool is_holding;
static struct kafka_waiter *held;

void kafka_follow_wait(struct kafka_follow *f, struct kafka_waiter *w)
{
    CHECK(f == (struct kafka_follow *)(void *)&verdict);
    CHECK(w->at.offset >= 0);
    w->code = verdict;
    w->detail = verdict ? 7 : 0;
    if (is_holding)
        __atomic_store_n(&held, w, __ATOMIC_RELEASE);
    else
        w->on_applied(w);
}

static void on_finished(void *data, struct position source, struct position by)
{
    CHECK(data == &k);
    pthread_mutex_lock(&lock);
    finished[n_finished] = source.offset;
    finished_by[n_finished++] = by;
    pthread_mutex_unlock(&lock);
}

static void on_ack(struct publish *p, int code)
{
    struct sent *s = (struct sent *)(void *)p;

    pthread_mutex_lock(&lock);
    CHECK(!s->is_acked);
    s->is_acked = true;
    s->code = code;
    n_acks++;
    pthread_mutex_unlock(&lock);
}

static inline void open_publisher(size_t max_pending, bool has_follow)
{
    struct kafka_publisher_options o = {
        .config = k.config,
        .topics = k.topics,
        .max_pending_bytes = max_pending,
        .follow = has_follow ? (struct kafka_follow *)(void *)&verdict : NULL,
        .on_finished = on_finished,
        .data = &k};
    struct err e;

    publisher = kafka_publisher_open(&o, &e);
    if (!publisher)
        fprintf(stderr, "%s\n", e.msg);
    CHECK(publisher);
    CHECK_INT(kafka_publisher_start(publisher, &e), 0);
}

/* mock_open, without additions to the broker's settings, and open_publisher. */
static inline void open_with(const char *yamlz, size_t max_pending, bool has_follow)
{
    log_setup(LOG_ERROR, LOG_TEXT);
    mock_open(&k, "", yamlz);
    open_publisher(max_pending, has_follow);
}

static inline void close_all(void)
{
    kafka_publisher_close(publisher);
    mock_close(&k);
}

static void fill(struct record *r, int topic, struct str value, int64_t source)
{
    *r = (struct record){
        .at = {topic, 0, 0}, .key = STR("key"), .value = value, .source = POSITION_NONE};
    if (source >= 0)
        r->source = (struct position){TOPIC_JOBS, 1, source};
}

/* A publish of n records, all of one value; the first has source {TOPIC_JOBS, 1, source} (source
 * below 0: none), the next ones those after it. */
static inline struct sent *add(int topic, struct str value, size_t n, int64_t source)
{
    struct sent *s = &sent[n_sent++];
    size_t i;

    for (i = 0; i < n; i++)
        fill(&s->records[i], topic, value, source < 0 ? -1 : source + (int64_t)i);
    s->publish = (struct publish){.records = s->records, .n = n, .on_ack = on_ack};
    return s;
}

/* The same of one record, published. */
static inline struct sent *publish(int topic, const char *valuez, int64_t source)
{
    struct sent *s = add(topic, str_z(valuez), 1, source);

    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    return s;
}

static inline int count(const int *n)
{
    int got;

    pthread_mutex_lock(&lock);
    got = *n;
    pthread_mutex_unlock(&lock);
    return got;
}

/* Waits until *what is n, and checks that it is no more. */
static inline void wait_for(const int *what, int n)
{
    int64_t end_ms = clock_mono_ms() + WAIT_MS;

    while (count(what) < n) {
        CHECK(clock_mono_ms() < end_ms);
        poll(NULL, 0, 1);
    }
    CHECK_INT(count(what), n);
}

static inline void wait_for_health(int code)
{
    int64_t end_ms = clock_mono_ms() + WAIT_MS;

    while (kafka_publisher_health(publisher, NULL) != code) {
        CHECK(clock_mono_ms() < end_ms);
        poll(NULL, 0, 1);
    }
}

/* One completion, at offset 0. After it nothing is late because of connecting. */
static inline void warm_up(void)
{
    publish(TOPIC_COMPLETIONS, "warm", N_MOST);
    wait_for(&n_acks, 1);
    wait_for(&n_finished, 1);
    n_acks = n_finished = 0;
    n_sent = 0;
    memset(sent, 0, sizeof sent[0]);
}
