/* The consuming half of the Kafka driver: deliveries, commits, take-over, rebalances, reads. */
#include "base/clock.h"
#include "tests/kafka/rig.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct reading {
    struct broker_read read; /* first */
    size_t n;
    int64_t offsets[8], keys[8];
    bool is_done;
};

static void on_read(struct broker_read *read, const struct record *records, size_t n)
{
    struct reading *g = (struct reading *)(void *)read;
    size_t i;

    for (i = 0; i < n; i++) {
        g->offsets[i] = records[i].at.offset;
        CHECK(str_int(records[i].key, &g->keys[i]));
    }
    g->n = n;
    g->is_done = true;
}

TEST(records_come_in_order_and_the_end_is_told)
{
    struct site s;
    struct member m;

    site_init(&s, 4, "");
    site_put(&s, 0, 5000);
    member_open(&m, &s, 100000, -1);
    member_subscribe(&m, JOBS);
    member_subscribe(&m, TOPIC_SCHEDULED);
    SITE_UNTIL(&s, m.n_caught_up == 2);
    CHECK_INT(m.n_seen, 5000);
    CHECK(!m.is_out_of_order);
    site_put(&s, 5000, 1000);
    SITE_UNTIL(&s, m.n_seen == 6000);
    CHECK(!m.is_out_of_order);
    CHECK_INT(m.n_caught_up, 2);
    member_close(&m);
    site_release(&s);
}

struct rounds {
    const struct member *m;
    int n_calls, most;
};

static void on_round(uv_prepare_t *handle)
{
    struct rounds *r = handle->data;
    int n = r->m->n_calls - r->n_calls;

    r->n_calls += n;
    r->most = n > r->most ? n : r->most;
}

/* A slice in a round of the loop, where each of 16 partitions has something: what else the loop has
 * to do gets its turn. One that a signal of librdkafka's begins, or a timer, may come with it. */
TEST(a_backlog_does_not_keep_the_loop)
{
    struct site s;
    struct member m;
    struct rounds r = {.m = &m};
    uv_prepare_t rounds;

    site_init(&s, 16, "");
    site_put(&s, 0, 16000);
    member_open(&m, &s, 100000, -1);
    m.call_ms = 2;
    uv_prepare_init(&s.loop, &rounds);
    rounds.data = &r;
    uv_prepare_start(&rounds, on_round);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == 16000);
    CHECK(r.most >= 1 && r.most <= 3);
    CHECK(!m.is_out_of_order);
    uv_close((uv_handle_t *)&rounds, NULL);
    member_close(&m);
    site_release(&s);
}

TEST(the_window_holds_and_opens_again)
{
    struct site s;
    struct member m;
    int i;

    site_init(&s, 1, "");
    site_put(&s, 0, 50);
    member_open(&m, &s, 4, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == 4 && m.n_caught_up == 1);
    site_run(&s, 200);
    CHECK_INT(m.n_seen, 4);
    kafka_group_finish(m.group, (struct position){JOBS, 0, 2});
    SITE_UNTIL(&s, m.n_seen == 5);
    for (i = 0; i < 50; i++) {
        SITE_UNTIL(&s, m.n_seen > i);
        kafka_group_finish(m.group, (struct position){JOBS, 0, i});
    }
    SITE_UNTIL(&s, m.n_seen == 50);
    member_close(&m);
    site_release(&s);
}

/* What is finished far above the low mark goes with the commit, too. */
TEST(a_window_of_more_than_a_commit_surely_holds)
{
    enum { N = 70000, LAST = 10 };
    struct site s;
    struct member m;
    int i;

    site_init(&s, 1, "");
    site_put(&s, 0, N);
    member_open(&m, &s, 100000, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == N);
    for (i = N - LAST; i < N; i++)
        kafka_group_finish(m.group, (struct position){JOBS, 0, i});
    member_close(&m);
    member_open(&m, &s, 100000, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_caught_up == 1);
    CHECK_INT(m.n_seen, N - LAST);
    member_close(&m);
    site_release(&s);
}

TEST(a_restart_runs_only_what_is_unfinished)
{
    struct site s;
    struct member m;
    int i;

    site_init(&s, 1, "");
    site_put(&s, 0, 100);
    member_open(&m, &s, 1000, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == 100);
    for (i = 0; i < 100; i++)
        if (i % 10 != 3)
            kafka_group_finish(m.group, (struct position){JOBS, 0, i});
    member_close(&m);
    member_open(&m, &s, 1000, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_caught_up == 1);
    CHECK_INT(m.n_seen, 10);
    for (i = 0; i < 100; i++)
        CHECK_INT(s.tally->fates[i].n_started, i % 10 == 3 ? 2 : 1);
    member_close(&m);
    site_release(&s);
}

/* Runs what it gets until it is killed, with what it has in memory alone lost. */
static void live(struct site *s)
{
    struct member m;

    kafka_rig_connect(&s->k);
    uv_loop_init(&s->loop);
    member_open(&m, s, 64, 5);
    member_subscribe(&m, JOBS);
    for (;;)
        site_run(s, 1000);
}

TEST(what_has_its_completion_does_not_run_again_after_kill_9)
{
    enum { N = 20000, KILLS = 4, AHEAD = 80 };
    struct site s;
    struct member m;
    int i, k, status, n_before, n_again = 0;
    pid_t pid;

    site_init(&s, 4, "worker: {name: w}");
    site_put(&s, 0, N);
    kafka_rig_disconnect(&s.k);
    for (k = 0; k < KILLS; k++) {
        n_before = s.tally->n_ended;
        fflush(stdout);
        pid = fork();
        if (pid == 0)
            live(&s);
        for (i = 0; i < 3000 && s.tally->n_ended < n_before + 300; i++)
            usleep(10000);
        kill(pid, SIGKILL);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        CHECK(s.tally->n_ended >= n_before + 300);
    }
    kafka_rig_connect(&s.k);
    member_open(&m, &s, 1000, 5);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen >= 2000);
    member_close(&m);
    for (i = 0; i < N; i++) {
        CHECK_INT(s.tally->fates[i].n_after_end, 0);
        n_again += s.tally->fates[i].n_started > 1;
    }
    printf("# %d kills, %d ended, %d of those in flight ran again\n", KILLS, s.tally->n_ended,
           n_again);
    CHECK(n_again <= KILLS * AHEAD + 1000);
    site_release(&s);
}

TEST(members_come_and_go_and_nothing_runs_twice)
{
    enum { N = 8000, ROUNDS = 3 };
    struct site s;
    struct member a, b;
    int i, round, n_again = 0, n_seen_b = 0;

    site_init(&s, 6, "");
    site_put(&s, 0, N);
    member_open(&a, &s, 60, 40);
    member_subscribe(&a, JOBS);
    SITE_UNTIL(&s, a.n_seen > 100);
    for (round = 0; round < ROUNDS; round++) {
        member_open(&b, &s, 60, 40);
        member_subscribe(&b, JOBS);
        SITE_UNTIL(&s, b.n_seen > 200 || s.tally->n_ended >= N);
        n_seen_b += b.n_seen;
        b.run_ms = 0; /* what comes from now on is not started */
        SITE_UNTIL(&s, list_is_empty(&b.running));
        member_close(&b);
        site_run(&s, 500);
    }
    SITE_UNTIL(&s, s.tally->n_ended >= N);
    site_run(&s, 300);
    for (i = 0; i < N; i++) {
        CHECK_INT(s.tally->fates[i].n_after_end, 0);
        CHECK_INT(s.tally->fates[i].n_ended, 1);
        n_again += s.tally->fates[i].n_started > 1;
    }
    printf("# %d jobs, %d by the second member, %d revocations; %d delivered again unfinished\n", N,
           n_seen_b, a.n_revoked, n_again);
    CHECK(a.n_revoked > 0);
    member_close(&a);
    site_release(&s);
}

TEST(a_revoked_partition_waits_for_what_runs)
{
    enum { N = 400 };
    struct site s;
    struct member a, b;
    int64_t began_ms;
    int i;

    site_init(&s, 2, "");
    site_put(&s, 0, N);
    member_open(&a, &s, 40, 1500); /* some run for long */
    member_subscribe(&a, JOBS);
    SITE_UNTIL(&s, a.n_seen >= 40);
    began_ms = clock_mono_ms();
    member_open(&b, &s, 40, 10);
    member_subscribe(&b, JOBS);
    SITE_UNTIL(&s, b.n_seen > 0);
    printf("# handed over after %lld ms\n", (long long)(clock_mono_ms() - began_ms));
    SITE_UNTIL(&s, s.tally->n_ended >= N);
    for (i = 0; i < N; i++)
        CHECK_INT(s.tally->fates[i].n_started, 1);
    member_close(&b);
    member_close(&a);
    site_release(&s);
}

/* librdkafka holds the partitions that are kept meanwhile; some versions go on behind the end that
 * they had told of (its issue 4844). */
TEST(what_comes_during_a_rebalance_is_delivered)
{
    enum { PARTITIONS = 4 };
    struct site s;
    struct member a, b;
    int i, n = 2 * PARTITIONS;

    site_init(&s, PARTITIONS, "");
    site_put(&s, 0, PARTITIONS);
    member_open(&a, &s, 1000, 1000000); /* they run until they are told to end */
    member_subscribe(&a, JOBS);
    SITE_UNTIL(&s, a.n_seen == PARTITIONS);
    site_run(&s, 500); /* the ends are told */
    member_open(&b, &s, 1000, -1);
    member_subscribe(&b, JOBS);
    SITE_UNTIL(&s, a.n_revoked > 0);
    site_put(&s, PARTITIONS, PARTITIONS);
    a.run_ms = -1;
    member_end_all(&a);
    for (; b.n_seen == 0 && n < JOBS_MAX; n += PARTITIONS) { /* no end is reached */
        site_put(&s, n, PARTITIONS);
        site_run(&s, 10);
    }
    SITE_UNTIL(&s, s.tally->n_started >= n);
    for (i = 0; i < n; i++)
        CHECK_INT(s.tally->fates[i].n_started, 1);
    member_close(&b);
    member_close(&a);
    site_release(&s);
}

static struct {
    int before, pipes[2];
} stuffed;

/* Who logs now waits: librdkafka's thread does when it finds that the session is over. */
static void stuff_stderr(void)
{
    static const char bytes[512];

    stuffed.before = dup(2);
    CHECK_INT(pipe(stuffed.pipes), 0);
    CHECK_INT(fcntl(stuffed.pipes[1], F_SETFL, O_NONBLOCK), 0);
    while (write(stuffed.pipes[1], bytes, sizeof bytes) > 0)
        ;
    CHECK_INT(fcntl(stuffed.pipes[1], F_SETFL, 0), 0);
    CHECK(dup2(stuffed.pipes[1], 2) == 2);
}

static void on_alarm(int number)
{
    static char bytes[65536];

    (void)number;
    if (dup2(stuffed.before, 2) != 2 || read(stuffed.pipes[0], bytes, sizeof bytes) <= 0)
        _exit(1);
}

/* Stops itself when 500 jobs have ended. Woken, it has room for more, and turns of the loop come
 * before librdkafka tells of the loss. */
static void live_and_sleep(struct site *s)
{
    static const struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct member m;

    kafka_rig_connect(&s->k);
    uv_loop_init(&s->loop);
    member_open(&m, s, 64, 5);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(s, s->tally->n_ended >= 500 && !list_is_empty(&m.running));
    sigaction(SIGALRM, &a, NULL);
    stuff_stderr();
    raise(SIGSTOP);
    setitimer(ITIMER_REAL, &soon, NULL);
    member_end_all(&m);
    for (;;)
        site_run(s, 1000);
}

TEST(a_member_that_was_cut_off_comes_back)
{
    enum { N = 30000 };
    int i, status, n_before, n_twice = 0;
    struct member m;
    struct site s;
    pid_t pid;

    site_init(&s, 4, ""); /* a session of 10 s */
    site_put(&s, 0, N);
    kafka_rig_disconnect(&s.k);
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        live_and_sleep(&s);
    CHECK_INT(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    n_before = s.tally->n_ended;
    kafka_rig_connect(&s.k);
    member_open(&m, &s, 64, 5);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, s.tally->n_ended > n_before + 1000);
    CHECK_INT(m.n_revoked, 0);
    kill(pid, SIGCONT);
    SITE_UNTIL(&s, m.n_revoked > 0); /* it has joined again */
    n_before = s.tally->n_ended - m.n_seen;
    SITE_UNTIL(&s, s.tally->n_ended - m.n_seen > n_before + 100);
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    member_close(&m);
    for (i = 0; i < N; i++) {
        CHECK_INT(s.tally->fates[i].n_after_end, 0);
        /* It took none of the other's. */
        CHECK_INT(s.tally->fates[i].n_moves,
                  s.tally->fates[i].first_by == pid && s.tally->fates[i].last_by != pid);
        n_twice += s.tally->fates[i].n_started > 1;
    }
    printf("# %d of those that ran at the cut ran again\n", n_twice);
    CHECK(n_twice <= 64);
    site_release(&s);
}

TEST(close_ends_where_there_is_no_kafka)
{
    static const int64_t offsets[] = {0};
    /* Its client is left to the process's end (kafka_group.c): there LeakSanitizer must find it. */
    static struct kafka_group *g;
    int64_t began_ms = clock_mono_ms();
    struct config *c;
    struct topics *t;
    struct kafka_group_options o = {0};
    struct subscription s = {.on_records = NULL, .window = 1};
    struct reading r = {.read = {.offsets = offsets, .n = 1, .topic = JOBS, .on_read = on_read}};
    uv_loop_t loop;
    struct err e;

    c = config_parse(STR("broker: {kind: kafka, servers: \"127.0.0.1:1\"}"), "test", &e);
    CHECK(c);
    t = topics_new(c);
    uv_loop_init(&loop);
    o = (struct kafka_group_options){.config = c, .topics = t, .loop = &loop};
    g = kafka_group_open(&o, &e);
    CHECK(g);
    CHECK_INT(kafka_group_subscribe(g, JOBS, &s, &e), 0);
    CHECK_INT(kafka_group_subscribe(g, TOPIC_META, &s, &e), 0);
    CHECK_INT(kafka_group_read(g, &r.read), 0);
    while (kafka_group_health(g, &e) == 0)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_INT(e.code, ERR_UNREACHABLE);
    kafka_group_close(g);
    CHECK(r.is_done);
    CHECK_INT(r.n, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&loop), 0);
    CHECK(clock_mono_ms() - began_ms < 15000);
    topics_free(t);
    config_free(c);
}

TEST(stat_counts_what_waits)
{
    struct broker_stat stat;
    struct member m;
    struct site s;
    int i;

    site_init(&s, 2, "");
    site_put(&s, 0, 10);
    member_open(&m, &s, 4, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == 4);
    for (i = 0; i < 2; i++)
        kafka_group_finish(m.group, (struct position){JOBS, i, 0});
    SITE_UNTIL(&s, m.n_seen == 6);
    site_run(&s, 600);
    kafka_group_stat(m.group, JOBS, &stat);
    CHECK_INT(stat.first, 2);
    CHECK_INT(stat.end, 10);
    CHECK_INT(stat.n_waiting, 8);
    member_close(&m);
    site_release(&s);
}

static int64_t oldest(struct site *s, int topic)
{
    int64_t first = -1, end;

    CHECK_INT(rd_kafka_query_watermark_offsets(s->k.producer, topics_name(s->k.topics, topic), 0,
                                               &first, &end, 5000),
              0);
    return first;
}

TEST(what_is_finished_is_deleted_after_its_commit)
{
    enum { N = 3000 };
    struct member m;
    struct site s;
    int i;

    site_init(&s, 1, "");
    site_put(&s, 0, N);
    member_open(&m, &s, N, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == N);
    for (i = 0; i < N; i++)
        if (i != 2000)
            kafka_group_finish(m.group, (struct position){JOBS, 0, i});
    SITE_UNTIL(&s, oldest(&s, JOBS) > 0);
    CHECK_INT(oldest(&s, JOBS), 2000);
    member_close(&m);
    member_open(&m, &s, N, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_caught_up == 1);
    CHECK_INT(m.n_seen, 1);
    CHECK_INT(m.last.offset, 2000);
    member_close(&m);
    site_release(&s);
}

TEST(what_the_outbox_owes_is_not_delivered)
{
    struct site s;
    struct member m;

    site_init(&s, 1, "");
    site_put(&s, 0, 3);
    owed = (struct position){JOBS, 0, 1};
    member_open(&m, &s, 3, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_seen == 2 && m.n_caught_up == 1);
    CHECK_INT(s.tally->fates[1].n_started, 0);
    kafka_group_finish(m.group, (struct position){JOBS, 0, 0});
    kafka_group_note(m.group, owed, site_complete(&s, owed));
    owed = POSITION_NONE;
    member_close(&m);
    member_open(&m, &s, 3, 0);
    member_subscribe(&m, JOBS);
    SITE_UNTIL(&s, m.n_caught_up == 1);
    CHECK_INT(m.n_seen, 1);
    CHECK_INT(m.last.offset, 2);
    member_close(&m);
    site_release(&s);
}

TEST(plain_readers_read_all_each_time)
{
    struct site s;
    struct member m;
    char key[16];
    int i, round;

    site_init(&s, 1, "");
    for (i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "%d", i);
        site_put_to(&s, TOPIC_CONTROL, 0, key);
    }
    kafka_rig_flush(&s.k);
    for (round = 1; round <= 2; round++) {
        member_open(&m, &s, 10, -1);
        member_subscribe(&m, TOPIC_CONTROL);
        member_subscribe(&m, TOPIC_META);
        SITE_UNTIL(&s, m.n_seen == 300 && m.n_caught_up == 2);
        member_close(&m);
        CHECK_INT(s.tally->fates[299].n_started, round);
    }
    site_release(&s);
}

static void read_now(struct member *m, struct reading *g, int32_t partition, const int64_t *offsets,
                     size_t n)
{
    *g = (struct reading){
        .read = {
            .offsets = offsets, .n = n, .topic = JOBS, .partition = partition, .on_read = on_read}};
    CHECK_INT(kafka_group_read(m->group, &g->read), 0);
    SITE_UNTIL(m->site, g->is_done);
}

TEST(a_read_gives_what_is_there)
{
    static const int64_t some[] = {0, 1, 7, 4000, 4001, 9999, 20000}, none[] = {10000, 20000};
    struct site s;
    struct reading g;
    struct member m;
    size_t i;

    site_init(&s, 2, "");
    site_put(&s, 0, 20000);
    member_open(&m, &s, 1, 0);
    read_now(&m, &g, 1, some, 7);
    CHECK_INT(g.n, 6);
    for (i = 0; i < 6; i++) {
        CHECK_INT(g.offsets[i], some[i]);
        CHECK_INT(g.keys[i], some[i] * 2 + 1);
    }
    read_now(&m, &g, 0, none, 2);
    CHECK_INT(g.n, 0);
    read_now(&m, &g, 0, none, 0);
    CHECK_INT(g.n, 0);
    g = (struct reading){
        .read = {.offsets = some, .n = 1, .topic = JOBS, .partition = 0, .on_read = on_read}};
    CHECK_INT(kafka_group_read(m.group, &g.read), 0);
    member_close(&m);
    CHECK(g.is_done);
    CHECK_INT(g.n, 1);
    site_release(&s);
}
