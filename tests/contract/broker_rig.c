#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "broker-config/kafka_topics.h"
#include "tests/contract/broker.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LIMIT_MS = 20000 };

const struct driver drivers[] = {
    {.namez = "sqlite",
     .configz = "broker: {kind: sqlite}\n",
     .has_hooks = true,
     .has_local_disk = true,
     .n_kills = 60,
     .life_us = 50000},
    {.namez = "sqlite_normal",
     .configz = "broker: {kind: sqlite, sync: normal}\n",
     .has_hooks = true,
     .has_local_disk = true,
     .n_kills = 60,
     .life_us = 50000},
    {.namez = "kafka", /* with a name, one that was killed is not waited for */
     .configz = "broker: {kind: kafka, servers: \"$KAFKA_SERVERS\", partitions: 1}\nworker: {name: "
                "contract}\n",
     .needs_kafka = true,
     .n_kills = 12,
     .life_us = 4000000},
};
const size_t n_drivers = sizeof drivers / sizeof drivers[0];

bool driver_is_wanted(const struct driver *d)
{
    return d->needs_kafka == (getenv("KAFKA_SERVERS") != NULL);
}

static void must(int rc, const struct err *e)
{
    CHECK_STR(str_z(rc ? e->msg : ""), "");
}

static void on_step(void *data, const struct topic_plan *p, enum topic_step step)
{
    (void)data, (void)p, (void)step;
}

/* Gives this data directory a prefix of its own, and topics; a second look finds them. */
static void find_kafka(struct rig *r)
{
    struct kafka_plan left;
    char path[256], prefix[40];
    struct err e;
    FILE *f;

    snprintf(path, sizeof path, "%s/prefix", r->config->data);
    f = fopen(path, "r");
    if (!f || !fgets(prefix, sizeof prefix, f))
        snprintf(prefix, sizeof prefix, "c%d-%lld", (int)getpid(), (long long)clock_wall_ms());
    must(config_set_text(&r->config->broker_servers, getenv("KAFKA_SERVERS")), &e);
    must(config_set_text(&r->config->broker_prefix, prefix), &e);
    r->topics = topics_new(r->config);
    if (!f) {
        must(kafka_topics_apply(r->config, r->topics, on_step, NULL, &left, &e), &e);
        kafka_plan_release(&left);
        f = fopen(path, "w");
        CHECK(f && fputs(prefix, f) >= 0);
    }
    CHECK_INT(fclose(f), 0);
}

void rig_init(struct rig *r, const struct driver *d)
{
    struct err e;

    *r = (struct rig){.driver = d};
    r->seen_end = &r->seen;
    r->config = config_parse(str_z(d->configz), d->namez, &e);
    must(r->config ? 0 : -1, &e);
    must(config_set_text(&r->config->data, d->namez), &e);
    must(file_make_dir(d->namez, &e), &e);
    if (d->needs_kafka)
        find_kafka(r);
    else
        r->topics = topics_new(r->config);
    uv_loop_init(&r->loop);
    r->options =
        (struct broker_options){.config = r->config, .topics = r->topics, .loop = &r->loop};
}

void rig_open(struct rig *r)
{
    struct err e;

    r->broker = broker_open(&r->options, &e);
    must(r->broker ? 0 : -1, &e);
}

void rig_close(struct rig *r)
{
    broker_close(r->broker);
    r->broker = NULL;
    uv_run(&r->loop, UV_RUN_DEFAULT);
}

void rig_forget(struct rig *r)
{
    struct seen *s;
    int h;

    while ((s = r->seen)) {
        r->seen = s->next;
        free((void *)s->r.key.p);
        free((void *)s->r.value.p);
        for (h = 0; h < HEADER_COUNT_; h++)
            free((void *)s->r.headers[h].p);
        free(s);
    }
    r->seen_end = &r->seen;
    r->n_seen = 0;
    r->n_caught_up = 0;
}

void rig_reopen(struct rig *r)
{
    rig_close(r);
    rig_forget(r);
    rig_open(r);
}

void rig_release(struct rig *r)
{
    if (r->broker)
        rig_close(r);
    rig_forget(r);
    topics_free(r->topics);
    config_free(r->config);
    CHECK_INT(uv_loop_close(&r->loop), 0);
}

static struct str copy(struct str s)
{
    return s.p ? str_of(xstrdup(s), s.n) : STR_NONE;
}

static void on_records(void *data, const struct record *records, size_t n)
{
    struct rig *r = data;
    struct seen *s;
    size_t i;
    int h;

    CHECK(n > 0);
    for (i = 0; i < n; i++) {
        s = xcalloc(1, sizeof *s);
        s->r = records[i];
        s->r.key = copy(records[i].key);
        s->r.value = copy(records[i].value);
        for (h = 0; h < HEADER_COUNT_; h++)
            s->r.headers[h] = copy(records[i].headers[h]);
        *r->seen_end = s;
        r->seen_end = &s->next;
        r->n_seen++;
        if (r->finish_each)
            broker_finish(r->broker, records[i].at);
    }
}

static void on_caught_up(void *data, int topic)
{
    struct rig *r = data;

    (void)topic;
    r->n_caught_up++;
}

void rig_subscribe(struct rig *r, int topic, size_t window)
{
    struct subscription s = {
        .on_records = on_records, .on_caught_up = on_caught_up, .data = r, .window = window};
    struct err e;

    must(broker_subscribe(r->broker, topic, &s, &e), &e);
}

static void on_timer(uv_timer_t *t)
{
    *(bool *)t->data = true;
    uv_stop(t->loop); /* it may fire before the poll, which would then wait for something else */
}

static void on_closed(uv_handle_t *h)
{
    *(bool *)h->data = true;
}

/* Turns the loop until a number (NULL: none) is reached, for ms at most; true when it was. */
static bool turn(struct rig *r, const size_t *n_now, size_t n_want, const int *c_now, int c_want,
                 int ms)
{
    bool is_over = false, is_closed = false, is_so = false;
    uv_timer_t t;

    uv_timer_init(&r->loop, &t);
    t.data = &is_over;
    uv_timer_start(&t, on_timer, (uint64_t)ms, 0);
    while (!is_over && !is_so) {
        is_so = (n_now && *n_now >= n_want) || (c_now && *c_now >= c_want);
        if (!is_so)
            uv_run(&r->loop, UV_RUN_ONCE);
    }
    t.data = &is_closed;
    uv_close((uv_handle_t *)&t, on_closed);
    while (!is_closed)
        uv_run(&r->loop, UV_RUN_NOWAIT);
    return is_so;
}

void rig_wait_seen(struct rig *r, size_t n)
{
    turn(r, &r->n_seen, n, NULL, 0, LIMIT_MS);
    CHECK_INT(r->n_seen, n);
}

void rig_wait_caught_up(struct rig *r, int n)
{
    turn(r, NULL, 0, &r->n_caught_up, n, LIMIT_MS);
    CHECK_INT(r->n_caught_up, n);
}

void rig_run_ms(struct rig *r, int ms)
{
    turn(r, NULL, 0, NULL, 0, ms);
}

const struct record *rig_seen(const struct rig *r, size_t i)
{
    const struct seen *s = r->seen;

    CHECK(i < r->n_seen);
    while (i-- > 0)
        s = s->next;
    return &s->r;
}

struct record rig_record(int topic, const char *keyz, const char *valuez)
{
    return (struct record){.at = {topic, 0, 0},
                           .key = keyz ? str_z(keyz) : STR_NONE,
                           .value = valuez ? str_z(valuez) : STR_NONE,
                           .source = POSITION_NONE};
}

static void on_ack(struct publish *p, int code)
{
    struct waiting *w = (struct waiting *)(void *)p;

    pthread_mutex_lock(&w->lock);
    CHECK(!w->is_done);
    w->is_done = true;
    w->code = code;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

void waiting_init(struct waiting *w, struct record *records, size_t n)
{
    *w = (struct waiting){.p = {.records = records, .n = n, .on_ack = on_ack}};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
}

int waiting_wait(struct waiting *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->is_done)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->code;
}

int rig_publish(struct rig *r, struct record *records, size_t n)
{
    struct waiting w;
    int rc;

    waiting_init(&w, records, n);
    rc = broker_publish(r->broker, &w.p);
    return rc ? rc : waiting_wait(&w);
}

int64_t rig_put(struct rig *r, int topic, const char *keyz, const char *valuez)
{
    struct record rec = rig_record(topic, keyz, valuez);

    CHECK_INT(rig_publish(r, &rec, 1), 0);
    CHECK_INT(rec.code, 0);
    CHECK_INT(rec.at.topic, topic);
    return rec.at.offset;
}

int64_t rig_replace(struct rig *r, int topic, const char *keyz, struct position source)
{
    struct record rec = rig_record(topic, keyz, "done");

    rec.source = source;
    CHECK_INT(rig_publish(r, &rec, 1), 0);
    return rec.at.offset;
}
