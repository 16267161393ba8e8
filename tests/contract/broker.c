/* What every broker driver does: appending, delivering, finishing, reading. Kills:
 * broker_crash.c. */
#include "tests/contract/broker.h"
#include "base/buf.h"
#include "base/clock.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static struct position at(int topic, int64_t offset)
{
    return (struct position){topic, 0, offset};
}

ON_DRIVERS(an_acknowledged_record_is_there_after_a_reopen)
{
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    CHECK_INT(rig_put(&r, JOBS, "a", "one"), 0);
    CHECK_INT(rig_put(&r, JOBS, "b", "two"), 1);
    rig_reopen(&r);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 2);
    CHECK_STR(rig_seen(&r, 0)->key, "a");
    CHECK_STR(rig_seen(&r, 0)->value, "one");
    CHECK_INT(rig_seen(&r, 1)->at.offset, 1);
    CHECK_INT(rig_seen(&r, 1)->at.topic, JOBS);
    CHECK(rig_seen(&r, 1)->ts_ms > 1600000000000);
    CHECK_INT(rig_put(&r, JOBS, "c", "three"), 2);
    rig_wait_seen(&r, 3);
    rig_release(&r);
}

ON_DRIVERS(opening_well_leaves_the_error_alone)
{
    struct err e = {.code = 1};
    struct rig r;
    int i;

    rig_init(&r, d);
    for (i = 0; i < 2; i++) { /* a new log, and one that is there */
        r.broker = broker_open(&r.options, &e);
        CHECK(r.broker);
        CHECK_INT(e.code, 1);
        CHECK_STR(str_z(e.msg), "");
        rig_close(&r);
    }
    rig_release(&r);
}

ON_DRIVERS(records_come_in_the_order_of_publishing)
{
    enum { N = 1000 };
    struct record records[10];
    char keys[10][24];
    struct rig r;
    int i, j;

    rig_init(&r, d);
    rig_open(&r);
    rig_subscribe(&r, JOBS, N * 2);
    for (i = 0; i < N; i += 10) {
        for (j = 0; j < 10; j++) {
            snprintf(keys[j], sizeof keys[j], "%d", i + j);
            records[j] = rig_record(JOBS, keys[j], "v");
        }
        CHECK_INT(rig_publish(&r, records, 10), 0);
        CHECK_INT(records[9].at.offset, i + 9);
    }
    rig_wait_seen(&r, N);
    for (i = 0; i < N; i++) {
        snprintf(keys[0], sizeof keys[0], "%d", i);
        CHECK_STR(rig_seen(&r, (size_t)i)->key, keys[0]);
        CHECK_INT(rig_seen(&r, (size_t)i)->at.offset, i);
    }
    rig_release(&r);
}

static void check_same(struct str got, struct str want)
{
    CHECK_INT(got.p != NULL, want.p != NULL);
    CHECK(str_eq(got, want));
}

ON_DRIVERS(keys_values_and_headers_keep_every_byte)
{
    struct record recs[4];
    char all[256], key[] = {0, 'k', (char)0xff, 0, 'z', (char)0xc3};
    struct rig r;
    int i, h;

    for (i = 0; i < 256; i++)
        all[i] = (char)i;
    for (i = 0; i < 4; i++)
        recs[i] = rig_record(JOBS, NULL, NULL);
    recs[1].key = str_of(key, sizeof key);
    recs[1].value = str_of(all, sizeof all);
    for (h = 0; h < HEADER_COUNT_; h++)
        recs[1].headers[h] = str_of(all, (size_t)(h * 18));
    recs[2].key = STR("");
    recs[2].value = STR("");
    recs[2].headers[HEADER_REASON] = STR("why");
    recs[3].ts_ms = 12345;
    rig_init(&r, d);
    rig_open(&r);
    CHECK_INT(rig_publish(&r, recs, 4), 0);
    rig_reopen(&r);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 4);
    for (i = 0; i < 4; i++) {
        check_same(rig_seen(&r, (size_t)i)->key, recs[i].key);
        check_same(rig_seen(&r, (size_t)i)->value, recs[i].value);
        for (h = 0; h < HEADER_COUNT_; h++)
            check_same(rig_seen(&r, (size_t)i)->headers[h], recs[i].headers[h]);
    }
    if (!broker_is_shared(r.broker)) /* else the time is its brokers' */
        CHECK_INT(rig_seen(&r, 3)->ts_ms, 12345);
    rig_release(&r);
}

ON_DRIVERS(a_large_record_goes_through)
{
    enum { N = 5 << 20 };
    struct record rec = rig_record(JOBS, "k", NULL);
    struct rig r;
    char *big = xmalloc(N);

    memset(big, 'x', N);
    rec.value = str_of(big, N);
    rig_init(&r, d);
    rig_open(&r);
    CHECK_INT(rig_publish(&r, &rec, 1), 0);
    rig_put(&r, JOBS, "small", "y");
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 2);
    check_same(rig_seen(&r, 0)->value, rec.value);
    rig_release(&r);
    free(big);
}

ON_DRIVERS(topics_have_offsets_of_their_own)
{
    struct record recs[3] = {rig_record(JOBS, "a", "1"), rig_record(TOPIC_COMPLETIONS, "b", "2"),
                             rig_record(JOBS, "c", "3")};
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    CHECK_INT(rig_publish(&r, recs, 3), 0);
    CHECK_INT(recs[0].at.offset, 0);
    CHECK_INT(recs[1].at.offset, 0);
    CHECK_INT(recs[2].at.offset, 1);
    rig_subscribe(&r, TOPIC_COMPLETIONS, 10);
    rig_wait_seen(&r, 1);
    CHECK_STR(rig_seen(&r, 0)->key, "b");
    rig_release(&r);
}

ON_DRIVERS(a_subscription_starts_at_the_oldest_unfinished)
{
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 5; i++)
        rig_put(&r, JOBS, "k", "v");
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 0));
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 3));
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 3);
    CHECK_INT(rig_seen(&r, 0)->at.offset, 1);
    CHECK_INT(rig_seen(&r, 1)->at.offset, 2);
    CHECK_INT(rig_seen(&r, 2)->at.offset, 4);
    rig_wait_caught_up(&r, 1);
    rig_release(&r);
}

ON_DRIVERS(the_window_holds_and_opens_again)
{
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 20; i++)
        rig_put(&r, JOBS, "k", "v");
    rig_subscribe(&r, JOBS, 4);
    rig_wait_seen(&r, 4);
    rig_wait_caught_up(&r, 1);
    rig_run_ms(&r, 60);
    CHECK_INT(r.n_seen, 4);
    broker_finish(r.broker, at(JOBS, 2));
    rig_wait_seen(&r, 5);
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 0));
    rig_wait_seen(&r, 6);
    rig_run_ms(&r, 60);
    CHECK_INT(r.n_seen, 6);
    r.finish_each = 1;
    for (i = 1; i < 6; i++)
        broker_finish(r.broker, at(JOBS, i));
    rig_wait_seen(&r, 20);
    CHECK_INT(r.n_caught_up, 1);
    CHECK_INT(rig_seen(&r, 19)->at.offset, 19);
    rig_release(&r);
}

ON_DRIVERS(a_window_of_one_moves_a_backlog)
{
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 100; i++)
        rig_put(&r, JOBS, "k", "v");
    r.finish_each = 1;
    rig_subscribe(&r, JOBS, 1);
    rig_wait_seen(&r, 100);
    rig_release(&r);
}

ON_DRIVERS(a_long_backlog_comes_to_a_slow_loop_whole)
{
    enum { N = 8000 };
    struct record *recs = xcalloc(N, sizeof *recs);
    const struct seen *s;
    struct rig r;
    size_t i;

    for (i = 0; i < N; i++)
        recs[i] = rig_record(JOBS, "k", "a value of some length, as jobs have it");
    rig_init(&r, d);
    rig_open(&r);
    CHECK_INT(rig_publish(&r, recs, N), 0);
    rig_subscribe(&r, JOBS, N * 2);
    for (i = 0; i < 20; i++) /* the loop stands still; the broker goes on working */
        rig_put(&r, TOPIC_META, "k", "v");
    rig_wait_seen(&r, N);
    for (s = r.seen, i = 0; s; s = s->next)
        CHECK_INT(s->r.at.offset, i++);
    rig_release(&r);
    free(recs);
}

ON_DRIVERS(an_empty_topic_is_caught_up_at_once)
{
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    rig_subscribe(&r, JOBS, 4);
    rig_subscribe(&r, TOPIC_SCHEDULED, 4);
    rig_wait_caught_up(&r, 2);
    CHECK_INT(r.n_seen, 0);
    rig_release(&r);
}

ON_DRIVERS(a_topic_has_one_subscription)
{
    struct subscription s = {.window = 1};
    struct rig r;
    struct err e;

    rig_init(&r, d);
    rig_open(&r);
    rig_subscribe(&r, JOBS, 4);
    CHECK_INT(broker_subscribe(r.broker, JOBS, &s, &e), ERR_EXISTS);
    rig_release(&r);
}

ON_DRIVERS(a_source_is_finished_with_its_replacement)
{
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 3; i++)
        rig_put(&r, JOBS, "k", "v");
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 3);
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 1));
    rig_replace(&r, JOBS + 1, "again", at(JOBS, 2)); /* a retry on another topic */
    rig_reopen(&r);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_caught_up(&r, 1);
    CHECK_INT(r.n_seen, 1);
    CHECK_INT(rig_seen(&r, 0)->at.offset, 0);
    rig_subscribe(&r, JOBS + 1, 10);
    rig_wait_seen(&r, 2);
    rig_release(&r);
}

ON_DRIVERS(a_finish_is_durable_soon)
{
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 3; i++)
        rig_put(&r, JOBS, "k", "v");
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 3);
    broker_finish(r.broker, at(JOBS, 0));
    broker_finish(r.broker, at(JOBS, 2));
    rig_run_ms(&r, 50);
    rig_reopen(&r);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_caught_up(&r, 1);
    CHECK_INT(r.n_seen, 1);
    CHECK_INT(rig_seen(&r, 0)->at.offset, 1);
    rig_release(&r);
}

ON_DRIVERS(offsets_are_never_given_twice)
{
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    rig_put(&r, JOBS, "k", "v");
    rig_put(&r, JOBS, "k", "v");
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 1));
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 0));
    rig_reopen(&r);
    CHECK_INT(rig_put(&r, JOBS, "k", "v"), 2);
    rig_release(&r);
}

ON_DRIVERS(completions_and_meta_stay_when_finished)
{
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    rig_put(&r, TOPIC_COMPLETIONS, "k", "v");
    rig_put(&r, TOPIC_META, "k", "v");
    r.finish_each = 1;
    rig_subscribe(&r, TOPIC_COMPLETIONS, 1);
    rig_subscribe(&r, TOPIC_META, 1);
    rig_wait_seen(&r, 2);
    rig_run_ms(&r, 50);
    r.finish_each = 0;
    rig_reopen(&r);
    rig_subscribe(&r, TOPIC_COMPLETIONS, 1);
    rig_subscribe(&r, TOPIC_META, 1);
    rig_wait_seen(&r, 2);
    rig_release(&r);
}

/* ---- reading ---- */

struct reading {
    struct broker_read read; /* first */
    size_t n;
    int64_t offsets[8];
    char value[32];
};

static void on_read(struct broker_read *read, const struct record *records, size_t n)
{
    struct reading *g = (struct reading *)(void *)read;

    g->n = n;
    for (size_t i = 0; i < n; i++) {
        g->offsets[i] = records[i].at.offset;
        str_copyz(g->value, sizeof g->value, records[i].value);
    }
    g->read.topic = -1;
}

static void read_now(struct rig *r, struct reading *g, const int64_t *offsets, size_t n)
{
    *g = (struct reading){.read = {.offsets = offsets, .n = n, .topic = JOBS, .on_read = on_read}};
    CHECK_INT(broker_read(r->broker, &g->read), 0);
    while (g->read.topic != -1)
        uv_run(&r->loop, UV_RUN_ONCE);
}

ON_DRIVERS(a_read_gives_what_is_there)
{
    static const int64_t some[] = {0, 1, 2, 77}, none[] = {5, 6};
    struct reading g;
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    rig_put(&r, JOBS, "a", "one");
    rig_put(&r, JOBS, "b", "two");
    rig_put(&r, JOBS, "c", "three");
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 1));
    read_now(&r, &g, some, 4);
    CHECK_INT(g.n, d->needs_kafka ? 3 : 2);
    CHECK_INT(g.offsets[0], 0);
    CHECK_INT(g.offsets[g.n - 1], 2);
    CHECK_STR(str_z(g.value), "three");
    read_now(&r, &g, none, 2);
    CHECK_INT(g.n, 0);
    read_now(&r, &g, none, 0);
    CHECK_INT(g.n, 0);
    rig_release(&r);
}

ON_DRIVERS(a_read_is_answered_by_close_at_the_latest)
{
    static const int64_t offsets[] = {0};
    struct reading g = {.read = {.offsets = offsets, .n = 1, .topic = JOBS, .on_read = on_read}};
    struct rig r;

    rig_init(&r, d);
    rig_open(&r);
    rig_put(&r, JOBS, "a", "one");
    CHECK_INT(broker_read(r.broker, &g.read), 0);
    rig_close(&r);
    CHECK_INT(g.n, 1);
    rig_release(&r);
}

ON_DRIVERS(stat_counts_what_waits)
{
    struct broker_stat s;
    struct rig r;
    int i;

    if (d->needs_kafka)
        return;
    rig_init(&r, d);
    rig_open(&r);
    broker_stat(r.broker, JOBS, &s);
    CHECK_INT(s.first, 0);
    CHECK_INT(s.end, 0);
    CHECK_INT(s.n_waiting, 0);
    for (i = 0; i < 5; i++)
        rig_put(&r, JOBS, "k", "v");
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 0));
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 2));
    rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, 2)); /* twice counts once */
    for (i = 0; i < 2; i++) {
        broker_stat(r.broker, JOBS, &s);
        CHECK_INT(s.first, 1);
        CHECK_INT(s.end, 5);
        CHECK_INT(s.n_waiting, 3);
        broker_stat(r.broker, TOPIC_COMPLETIONS, &s);
        CHECK_INT(s.first, 0);
        CHECK_INT(s.end, 3);
        CHECK_INT(s.n_waiting, 0);
        rig_reopen(&r);
    }
    for (i = 0; i < 5; i++)
        rig_replace(&r, TOPIC_COMPLETIONS, "k", at(JOBS, i));
    broker_stat(r.broker, JOBS, &s);
    CHECK_INT(s.first, 5);
    CHECK_INT(s.n_waiting, 0);
    rig_release(&r);
}

ON_DRIVERS(a_source_of_zeros_finishes_nothing)
{
    static const int64_t none[] = {77};
    struct record rec = rig_record(JOBS, "a", "1");
    struct reading g;
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    rig_subscribe(&r, TOPIC_COMPLETIONS, 1);
    CHECK_INT(rig_put(&r, TOPIC_COMPLETIONS, "k", "fills the window"), 0);
    rig_wait_seen(&r, 1);
    CHECK_INT(rig_put(&r, TOPIC_COMPLETIONS, "l", "waits"), 1);
    rec.source = (struct position){0};
    CHECK_INT(rig_publish(&r, &rec, 1), 0);
    for (i = 0; i < 2; i++) /* what the driver would deliver comes before the second answer */
        read_now(&r, &g, none, 1);
    CHECK_INT(r.n_seen, 1);
    broker_finish(r.broker, at(TOPIC_COMPLETIONS, 0));
    rig_wait_seen(&r, 2);
    rig_release(&r);
}

/* ---- hooks ---- */

struct hook {
    pthread_mutex_t gate; /* held by a case: the writer stands in apply */
    atomic_int n_apply, n_flush, n_ok, n_failed;
    atomic_int flush_code;
    struct db *db;
};

static int on_apply(void *data, struct db *db, struct record *r)
{
    struct hook *h = data;

    (void)db;
    h->n_apply++;
    pthread_mutex_lock(&h->gate);
    pthread_mutex_unlock(&h->gate);
    r->detail = 7;
    if (str_eq(r->key, STR("exists")))
        return ERR_EXISTS;
    if (str_eq(r->key, STR("conflict")))
        return ERR_CONFLICT;
    if (str_eq(r->key, STR("full")))
        return ERR_FULL;
    return str_eq(r->key, STR("io")) ? ERR_IO : 0;
}

static int on_flush(void *data, struct db *db)
{
    struct hook *h = data;

    (void)db;
    h->n_flush++;
    return h->flush_code;
}

static void on_committed(void *data, bool is_ok)
{
    struct hook *h = data;

    *(is_ok ? &h->n_ok : &h->n_failed) += 1;
}

static void open_hooked(struct rig *r, const struct driver *d, struct hook *h)
{
    *h = (struct hook){.gate = PTHREAD_MUTEX_INITIALIZER};
    rig_init(r, d);
    r->options.hooks = (struct broker_hooks){on_apply, on_flush, on_committed, h};
    rig_open(r);
}

ON_DRIVERS(the_hook_turns_single_records_away)
{
    struct record recs[4] = {rig_record(JOBS, "a", "1"), rig_record(JOBS, "exists", "2"),
                             rig_record(JOBS, "conflict", "3"), rig_record(JOBS, "b", "4")};
    struct record alone = rig_record(JOBS, "exists", "5");
    struct hook h;
    struct rig r;

    if (!d->has_hooks)
        return;
    open_hooked(&r, d, &h);
    CHECK_INT(rig_publish(&r, recs, 4), 0);
    CHECK_INT(recs[0].code, 0);
    CHECK_INT(recs[1].code, ERR_EXISTS);
    CHECK_INT(recs[1].detail, 7);
    CHECK_INT(recs[2].code, ERR_CONFLICT);
    CHECK_INT(recs[3].code, 0);
    CHECK_INT(recs[3].at.offset, 1);
    CHECK_INT(rig_publish(&r, &alone, 1), 0);
    CHECK_INT(alone.code, ERR_EXISTS);
    CHECK_INT(h.n_apply, 5);
    CHECK_INT(h.n_flush, 2);
    CHECK_INT(h.n_ok, 2);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 2);
    CHECK_STR(rig_seen(&r, 1)->key, "b");
    rig_release(&r);
}

ON_DRIVERS(a_record_turned_away_still_finishes_its_source)
{
    struct record rec = rig_record(TOPIC_COMPLETIONS, "exists", "late");
    struct hook h;
    struct rig r;

    if (!d->has_hooks)
        return;
    open_hooked(&r, d, &h);
    rig_put(&r, JOBS, "a", "1");
    rec.source = at(JOBS, 0);
    CHECK_INT(rig_publish(&r, &rec, 1), 0);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_caught_up(&r, 1);
    CHECK_INT(r.n_seen, 0);
    rig_release(&r);
}

ON_DRIVERS(one_publish_that_fails_fails_alone)
{
    enum { N = 7 };
    static const char *const keys[N][2] = {{"first", "x"}, {"a", "b"}, {"c", "full"}, {"d", "e"},
                                           {"io", "f"},    {"g", "h"}, {"full", "i"}};
    static const int codes[N] = {0, 0, ERR_FULL, 0, ERR_IO, 0, ERR_FULL};
    struct record recs[N][2];
    struct waiting w[N];
    struct hook h;
    struct rig r;
    int i, j;

    if (!d->has_hooks)
        return;
    open_hooked(&r, d, &h);
    pthread_mutex_lock(&h.gate);
    for (i = 0; i < N; i++) {
        for (j = 0; j < 2; j++)
            recs[i][j] = rig_record(JOBS, keys[i][j], "v");
        waiting_init(&w[i], recs[i], 2);
        CHECK_INT(broker_publish(r.broker, &w[i].p), 0);
        while (i == 0 && h.n_apply == 0) /* the first is in hand; the others become one group */
            uv_run(&r.loop, UV_RUN_NOWAIT);
    }
    pthread_mutex_unlock(&h.gate);
    for (i = 0; i < N; i++)
        CHECK_INT(waiting_wait(&w[i]), codes[i]);
    CHECK_INT(recs[1][0].at.offset, 2);
    CHECK_INT(recs[3][0].at.offset, 4);
    CHECK_INT(recs[5][1].at.offset, 7);
    CHECK_INT(recs[2][0].code, ERR_FULL);
    rig_subscribe(&r, JOBS, 20);
    rig_wait_seen(&r, 8);
    CHECK_STR(rig_seen(&r, 4)->key, "d");
    CHECK_STR(rig_seen(&r, 7)->key, "h");
    rig_wait_caught_up(&r, 1);
    CHECK_INT(r.n_seen, 8);
    rig_release(&r);
}

ON_DRIVERS(a_store_that_cannot_read_is_told_by_health)
{
    struct record rec = rig_record(JOBS, "io", "1");
    struct hook h;
    struct rig r;
    struct err e;

    if (!d->has_hooks)
        return;
    open_hooked(&r, d, &h);
    CHECK_INT(rig_publish(&r, &rec, 1), ERR_IO);
    CHECK_INT(broker_health(r.broker, &e), ERR_IO);
    CHECK(e.msg[0]);
    rec.key = STR("full"); /* its own ceiling, maybe */
    CHECK_INT(rig_publish(&r, &rec, 1), ERR_FULL);
    CHECK_INT(broker_health(r.broker, &e), ERR_IO);
    CHECK_INT(rig_put(&r, JOBS, "a", "2"), 0);
    CHECK_INT(broker_health(r.broker, &e), 0);
    rig_release(&r);
}

ON_DRIVERS(a_flush_that_fails_takes_the_group_along)
{
    struct record rec = rig_record(JOBS, "a", "1");
    struct broker_stat s;
    struct hook h;
    struct rig r;
    struct err e;

    if (!d->has_hooks)
        return;
    open_hooked(&r, d, &h);
    CHECK_INT(broker_health(r.broker, &e), 0);
    h.flush_code = ERR_FULL;
    CHECK_INT(rig_publish(&r, &rec, 1), ERR_FULL);
    CHECK_INT(rec.code, ERR_FULL);
    CHECK_INT(h.n_failed, 1);
    CHECK_INT(broker_health(r.broker, &e), ERR_FULL);
    broker_stat(r.broker, JOBS, &s);
    CHECK_INT(s.end, 0);
    h.flush_code = 0;
    CHECK_INT(rig_put(&r, JOBS, "b", "2"), 0);
    CHECK_INT(broker_health(r.broker, &e), 0);
    rig_subscribe(&r, JOBS, 10);
    rig_wait_seen(&r, 1);
    CHECK_STR(rig_seen(&r, 0)->key, "b");
    rig_release(&r);
}

ON_DRIVERS(past_max_pending_bytes_publish_says_full)
{
    struct record recs[3];
    struct waiting w[3];
    char kib[600];
    struct hook h;
    struct rig r;
    int i;

    if (!d->has_hooks)
        return;
    memset(kib, 'x', sizeof kib);
    h = (struct hook){.gate = PTHREAD_MUTEX_INITIALIZER};
    rig_init(&r, d);
    r.options.hooks = (struct broker_hooks){on_apply, on_flush, on_committed, &h};
    r.options.max_pending_bytes = 1024;
    rig_open(&r);
    pthread_mutex_lock(&h.gate);
    for (i = 0; i < 3; i++) {
        recs[i] = rig_record(JOBS, "k", NULL);
        recs[i].value = str_of(kib, i == 1 ? sizeof kib : 200);
        waiting_init(&w[i], &recs[i], 1);
    }
    CHECK_INT(broker_publish(r.broker, &w[0].p), 0);
    CHECK_INT(broker_publish(r.broker, &w[1].p), 0);
    CHECK_INT(broker_publish(r.broker, &w[2].p), ERR_FULL);
    pthread_mutex_unlock(&h.gate);
    CHECK_INT(waiting_wait(&w[0]), 0);
    CHECK_INT(waiting_wait(&w[1]), 0);
    CHECK_INT(rig_publish(&r, &recs[2], 1), 0);
    recs[0].value = str_of(kib, sizeof kib); /* larger than all room, but alone */
    for (i = 0; i < HEADER_COUNT_; i++)
        recs[0].headers[i] = str_of(kib, 100);
    CHECK_INT(rig_publish(&r, &recs[0], 1), 0);
    rig_release(&r);
}

ON_DRIVERS(close_acknowledges_everything)
{
    enum { N = 200 };
    struct record *recs = xcalloc(N, sizeof *recs);
    struct waiting *w = xcalloc(N, sizeof *w);
    struct rig r;
    size_t i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < N; i++) {
        recs[i] = rig_record(JOBS, "k", "v");
        waiting_init(&w[i], &recs[i], 1);
        CHECK_INT(broker_publish(r.broker, &w[i].p), 0);
    }
    rig_close(&r);
    for (i = 0; i < N; i++) {
        CHECK(w[i].is_done);
        CHECK_INT(w[i].code, 0);
    }
    rig_open(&r);
    rig_subscribe(&r, JOBS, N);
    rig_wait_seen(&r, N);
    rig_release(&r);
    free(recs);
    free(w);
}

static struct rig *closing;

static void on_records_close(void *data, const struct record *records, size_t n)
{
    (void)records;
    (void)n;
    *(int *)data += 1;
    broker_close(closing->broker);
    closing->broker = NULL;
}

ON_DRIVERS(close_may_be_called_from_on_records)
{
    int n_calls = 0;
    struct subscription s = {.on_records = on_records_close, .data = &n_calls, .window = 1000};
    struct rig r;
    struct err e;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    for (i = 0; i < 600; i++)
        rig_put(&r, JOBS, "k", "v");
    closing = &r;
    CHECK_INT(broker_subscribe(r.broker, JOBS, &s, &e), 0);
    while (r.broker)
        uv_run(&r.loop, UV_RUN_ONCE);
    uv_run(&r.loop, UV_RUN_DEFAULT);
    CHECK_INT(n_calls, 1);
    rig_release(&r);
}

/* ---- many threads, a full disk ---- */

struct publisher {
    struct rig *r;
    pthread_t thread;
    int n;
};

static void *run_publisher(void *data)
{
    struct publisher *p = data;
    struct record recs[3];
    int i;

    for (i = 0; i < p->n; i++) {
        recs[0] = rig_record(JOBS, "a", "1");
        recs[1] = rig_record(JOBS + 1, "b", "2");
        recs[2] = rig_record(JOBS, "c", "3");
        CHECK_INT(rig_publish(p->r, recs, 3), 0);
        CHECK_INT(recs[2].at.offset, recs[0].at.offset + 1);
    }
    return NULL;
}

ON_DRIVERS(many_threads_publish_while_the_loop_reads)
{
    enum { THREADS = 8, EACH = 100 };
    struct publisher p[THREADS];
    struct rig r;
    int i;

    rig_init(&r, d);
    rig_open(&r);
    r.finish_each = 1;
    rig_subscribe(&r, JOBS, 16);
    rig_subscribe(&r, JOBS + 1, 1000);
    for (i = 0; i < THREADS; i++) {
        p[i] = (struct publisher){.r = &r, .n = EACH};
        pthread_create(&p[i].thread, NULL, run_publisher, &p[i]);
    }
    rig_wait_seen(&r, THREADS * EACH * 3);
    for (i = 0; i < THREADS; i++)
        pthread_join(p[i].thread, NULL);
    rig_release(&r);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit l;

    getrlimit(RLIMIT_FSIZE, &l);
    l.rlim_cur = bytes;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &l), 0);
}

ON_DRIVERS(a_full_disk_refuses_and_recovers)
{
    struct record rec = rig_record(JOBS, "k", NULL);
    struct broker_stat s;
    struct rig r;
    struct err e;
    char value[4000];
    int64_t n = 0;
    int rc, i;

    if (!d->has_local_disk)
        return;
    memset(value, 'v', sizeof value);
    signal(SIGXFSZ, SIG_IGN);
    rig_init(&r, d);
    rig_open(&r);
    rig_put(&r, JOBS, "k", "v");
    rig_subscribe(&r, JOBS, 1);
    rig_wait_seen(&r, 1);
    limit_files(400 << 10);
    do {
        rec = rig_record(JOBS, "k", NULL);
        rec.value = str_of(value, sizeof value);
        rc = rig_publish(&r, &rec, 1);
        n += rc == 0;
    } while (rc == 0 && n < 1000);
    CHECK_INT(rc, ERR_FULL);
    CHECK_INT(broker_health(r.broker, &e), ERR_FULL);
    broker_finish(r.broker, at(JOBS, 0)); /* cannot be written now, but opens the window */
    rig_wait_seen(&r, 2);
    for (i = 0; i < 3; i++)
        CHECK_INT(rig_publish(&r, &rec, 1), ERR_FULL);
    broker_stat(r.broker, JOBS, &s);
    CHECK_INT(s.end, n + 1);
    limit_files(RLIM_INFINITY);
    CHECK_INT(rig_put(&r, JOBS, "k", "v"), n + 1);
    CHECK_INT(broker_health(r.broker, &e), 0);
    rig_reopen(&r);
    rig_subscribe(&r, JOBS, 2000);
    rig_wait_seen(&r, (size_t)n + 1);
    CHECK_INT(rig_seen(&r, 0)->at.offset, 1);
    rig_release(&r);
}
