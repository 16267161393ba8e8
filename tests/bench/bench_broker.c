/* What the log costs: records a second and CPU a record, at 64 publishes of one record in flight
 * and at 4 of 256, and for whole jobs (append, then a completion that takes the job's place),
 * beside a plain loop of inserts into one table with as many rows a commit. The ratio is the loop's
 * time over ours.
 *
 * Usage: bench_broker [seconds a measurement (2)]; works in the current directory. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/db.h"
#include "base/file.h"
#include "base/metric.h"
#include "broker-config/broker.h"
#include "broker-config/config.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { VALUE_BYTES = 400, IN_FLIGHT_MAX = 64 };

struct slot {
    struct publish p; /* first */
    struct bench *b;
    struct slot *next;
    bool has_job; /* the last one appended jobs: now their completions */
};

struct bench {
    struct broker *broker;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct slot *done;
    struct slot slots[IN_FLIGHT_MAX];
    bool is_waiting, is_jobs;
};

struct result {
    double rows_s, cpu_us, rows_commit;
};

static char value[VALUE_BYTES], key[26];

static void fail(const char *whatz, const char *whyz)
{
    fprintf(stderr, "bench_broker: %s: %s\n", whatz, whyz);
    exit(1);
}

static double cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fill(struct record *r, int topic)
{
    struct position source = POSITION_NONE;

    if (topic == TOPIC_COMPLETIONS)
        source = r->at;
    *r = (struct record){.at = {topic, 0, 0}, .source = source};
    r->key = str_of(key, sizeof key);
    r->value = str_of(value, sizeof value);
    r->headers[HEADER_SPECVERSION] = STR("1.0");
    r->headers[HEADER_EVENT_ID] = r->key;
    r->headers[HEADER_TYPE] = STR("genq.job.v1");
    r->headers[HEADER_CONTENT_TYPE] = STR("application/json");
    r->headers[HEADER_TENANT] = STR("default");
    r->headers[HEADER_MODEL] = STR("qwen2.5:0.5b");
}

static void on_ack(struct publish *p, int code)
{
    struct slot *s = (struct slot *)(void *)p;

    if (code)
        fail("publish", "refused");
    pthread_mutex_lock(&s->b->lock);
    s->next = s->b->done;
    s->b->done = s;
    if (s->b->is_waiting)
        pthread_cond_signal(&s->b->cond);
    pthread_mutex_unlock(&s->b->lock);
}

static struct slot *take_done(struct bench *b)
{
    struct slot *s;

    pthread_mutex_lock(&b->lock);
    b->is_waiting = true;
    while (!b->done)
        pthread_cond_wait(&b->cond, &b->lock);
    b->is_waiting = false;
    s = b->done;
    b->done = NULL;
    pthread_mutex_unlock(&b->lock);
    return s;
}

static void send_slot(struct bench *b, struct slot *s)
{
    int topic = s->has_job ? TOPIC_COMPLETIONS : TOPIC_JOBS;
    size_t i;

    for (i = 0; i < s->p.n; i++)
        fill(&s->p.records[i], topic);
    s->has_job = b->is_jobs && !s->has_job;
    if (broker_publish(b->broker, &s->p) != 0)
        fail("publish", "not taken");
}

static int64_t run_slots(struct bench *b, int n_slots, size_t n_each, int64_t ms)
{
    int64_t end_ms = clock_mono_ms() + ms, n_rows = 0;
    struct slot *s, *next;
    int i, n_out = n_slots;

    for (i = 0; i < n_slots; i++) {
        b->slots[i] = (struct slot){.b = b};
        b->slots[i].p = (struct publish){.records = xcalloc(n_each, sizeof(struct record)),
                                         .n = n_each,
                                         .on_ack = on_ack};
        send_slot(b, &b->slots[i]);
    }
    while (n_out > 0)
        for (s = take_done(b); s; s = next) {
            next = s->next;
            n_rows += (int64_t)n_each;
            if (clock_mono_ms() < end_ms)
                send_slot(b, s);
            else
                n_out--;
        }
    for (i = 0; i < n_slots; i++)
        free(b->slots[i].p.records);
    return n_rows;
}

static struct result measure(const char *syncz, int n_slots, size_t n_each, bool is_jobs,
                             int64_t ms)
{
    struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct config *c = config_parse(str_z(syncz), "bench", NULL);
    struct topics *t = topics_new(c);
    struct broker_options o = {.config = c, .topics = t};
    int64_t n_commits = metric_get(METRIC_DB_COMMITS), n_rows, start_us;
    struct result r;
    uv_loop_t loop;
    struct err e;
    double cpu;

    config_set_text(&c->data, ".");
    uv_loop_init(&loop);
    o.loop = &loop;
    b.broker = broker_open(&o, &e);
    if (!b.broker)
        fail("open", e.msg);
    b.is_jobs = is_jobs;
    start_us = clock_mono_us();
    cpu = cpu_s();
    n_rows = run_slots(&b, n_slots, n_each, ms);
    r.rows_s = (double)n_rows * 1e6 / (double)(clock_mono_us() - start_us);
    r.cpu_us = (cpu_s() - cpu) * 1e6 / (double)n_rows;
    r.rows_commit = (double)n_rows / (double)(metric_get(METRIC_DB_COMMITS) - n_commits);
    broker_close(b.broker);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    topics_free(t);
    config_free(c);
    unlink("genq.db");
    return r;
}

/* The floor: nothing but the insert. */
static struct result measure_plain(enum db_mode mode, int64_t n_commit, int64_t ms)
{
    int64_t start_us, end_ms, n_rows = 0, i;
    struct db_stmt *s;
    struct result r;
    struct db *db;
    struct err e;
    double cpu;

    if (db_open("plain.db", mode, 32768, &db, &e) != 0 ||
        db_exec(db, "CREATE TABLE t(off INTEGER PRIMARY KEY, ts INT, key TEXT, headers BLOB, "
                    "value BLOB)", &e) != 0 ||
        db_prepare(db, "INSERT INTO t VALUES(?,?,?,?,?)", &s, &e) != 0)
        fail("plain.db", e.msg);
    start_us = clock_mono_us();
    end_ms = clock_mono_ms() + ms;
    cpu = cpu_s();
    while (clock_mono_ms() < end_ms) {
        db_begin(db, NULL);
        for (i = 0; i < n_commit; i++) {
            db_bind_int(s, 1, n_rows++);
            db_bind_int(s, 2, end_ms);
            db_bind_text(s, 3, str_of(key, sizeof key));
            db_bind_blob(s, 4, str_of(value, 90));
            db_bind_blob(s, 5, str_of(value, sizeof value));
            db_run(s, NULL);
        }
        if (db_commit(db, &e) != 0)
            fail("commit", e.msg);
    }
    r.rows_s = (double)n_rows * 1e6 / (double)(clock_mono_us() - start_us);
    r.cpu_us = (cpu_s() - cpu) * 1e6 / (double)n_rows;
    r.rows_commit = (double)n_commit;
    db_close(db);
    unlink("plain.db");
    return r;
}

static void report(const char *syncz, const char *whatz, const struct result *r,
                   const struct result *plain)
{
    printf("%-7s %-14s %9.0f rows/s %6.2f us CPU a row %7.1f rows a commit", syncz, whatz,
           r->rows_s, r->cpu_us, r->rows_commit);
    if (plain)
        printf("; plain loop %9.0f rows/s %6.2f us: ratio %.2f, CPU %.2f", plain->rows_s,
               plain->cpu_us, r->rows_s / plain->rows_s, r->cpu_us / plain->cpu_us);
    printf("\n");
    fflush(stdout);
}

static void run_mode(const char *syncz, const char *configz, enum db_mode mode, int64_t ms)
{
    struct result r, plain;

    r = measure(configz, 64, 1, false, ms);
    plain = measure_plain(mode, (int64_t)(r.rows_commit + 0.5), ms);
    report(syncz, "64 x 1", &r, &plain);
    r = measure(configz, 4, 256, false, ms);
    plain = measure_plain(mode, (int64_t)(r.rows_commit + 0.5), ms);
    report(syncz, "4 x 256", &r, &plain);
    r = measure(configz, 64, 1, true, ms);
    report(syncz, "64 x 1 jobs", &r, NULL);
    r = measure(configz, 1, 1, false, ms);
    report(syncz, "1 x 1", &r, NULL);
}

int main(int argc, char **argv)
{
    int64_t seconds = 2;

    if (argc > 1 && !str_int(str_z(argv[1]), &seconds))
        fail(argv[1], "seconds expected");
    memset(value, 'v', sizeof value);
    memset(key, 'k', sizeof key);
    run_mode("full", "broker: {sync: full}", DB_WRITE, seconds * 1000);
    run_mode("normal", "broker: {sync: normal}", DB_WRITE_NORMAL, seconds * 1000);
    return 0;
}
