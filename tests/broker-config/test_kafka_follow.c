#include "base/clock.h"
#include "base/file.h"
#include "broker-config/sqlite_log.h"
#include "schema/migrate.h"
#include "store/reader.h"
#include "store/writer.h"
#include "tests/broker-config/kafka_rig.h"
#include "tests/lib/dump.h"
#include <fcntl.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOB(id) "{\"id\":\"" id "\",\"model\":\"m\",\"prompt\":\"hi\",\"created_at\":5}"
#define OTHER_JOB(id) "{\"id\":\"" id "\",\"model\":\"m\",\"prompt\":\"no\",\"created_at\":6}"

#define LATER_JOB(id) \
    "{\"id\":\"" id "\",\"model\":\"m\",\"prompt\":\"hi\",\"created_at\":5,\"not_before\":" \
    "9000000}"

#define READ_SO_FAR "SELECT sum(next) FROM position"

enum { LIMIT_MS = 30000 };

struct fixture {
    struct kafka_rig k;
    struct store_writer *writer;
    struct kafka_follow *follow;
};

static struct kafka_follow *open_follow(struct fixture *fx, struct err *e)
{
    struct kafka_follow_options o = {.config = fx->k.config, .topics = fx->k.topics};

    fx->writer = store_writer_new(fx->k.topics, NULL, 0);
    o.hooks = (struct broker_hooks){store_apply, store_flush, store_committed, fx->writer};
    fx->follow = kafka_follow_open(&o, e);
    return fx->follow;
}

static void start(struct fixture *fx)
{
    struct err e = {0};

    if (!open_follow(fx, &e))
        test_fail(__FILE__, __LINE__, e.msg);
}

static void stop(struct fixture *fx)
{
    kafka_follow_close(fx->follow);
    store_writer_free(fx->writer);
}

static void refuses(struct fixture *fx, int code, const char *wordz)
{
    struct err e = {0};

    CHECK(!open_follow(fx, &e));
    CHECK_INT(e.code, code);
    if (!strstr(e.msg, wordz))
        test_fail(__FILE__, __LINE__, e.msg);
    store_writer_free(fx->writer);
}

static void open_rig(struct fixture *fx, int n_partitions)
{
    kafka_rig_open(&fx->k, "");
    kafka_rig_make_topics(&fx->k, n_partitions);
}

static int64_t query(const char *sqlz)
{
    struct db_stmt *s;
    struct db *db;
    int64_t n;

    CHECK_INT(db_open(DB_FILE, DB_READ, 100, &db, NULL), 0);
    CHECK_INT(db_prepare(db, sqlz, &s, NULL), 0);
    n = db_step(s, NULL) > 0 ? db_int(s, 0) : -1;
    db_reset(s);
    db_close(db);
    return n;
}

/* Whether the store has the job where Kafka has it, and knows that it has read so far. */
static void check_position(struct fixture *fx, const char *idz, struct position at)
{
    struct position found, beyond = at;
    struct err e = {0};
    struct reader *r = reader_open(".", NULL, &e);
    struct job j;

    CHECK(r);
    CHECK_INT(reader_job_head(r, STR("default"), str_z(idz), &j, &found, fx->k.topics, &e), 0);
    CHECK_INT(found.topic, at.topic);
    CHECK_INT(found.partition, at.partition);
    CHECK_INT(found.offset, at.offset);
    job_release(&j);
    beyond.offset++;
    CHECK_INT(reader_has_applied(r, at, fx->k.topics, &e), 1);
    CHECK_INT(reader_has_applied(r, beyond, fx->k.topics, &e), 0);
    beyond = (struct position){at.topic, 99, 0};
    CHECK_INT(reader_has_applied(r, beyond, fx->k.topics, &e), 0);
    reader_close(r);
}

static void await_number(const char *sqlz, int64_t want)
{
    int64_t until_ms = clock_mono_ms() + LIMIT_MS, n;

    while ((n = query(sqlz)) != want && clock_mono_ms() < until_ms)
        usleep(2000);
    CHECK_INT(n, want);
}

static void dump(struct buf *out)
{
    struct db *db;

    CHECK_INT(db_open(DB_FILE, DB_READ, 100, &db, NULL), 0);
    dump_tables(db, out);
    db_close(db);
}

/* ---- following ---- */

TEST(it_reads_from_the_beginning_and_goes_on)
{
    struct fixture fx = {0};
    struct broker_stat stat;
    struct position at;

    open_rig(&fx, 3);
    at = kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    kafka_rig_end(&fx.k, JOB("a"), STATE_SUCCEEDED, at);
    start(&fx);
    await_number("SELECT count(*) FROM job WHERE id='a' AND state=3", 1);
    kafka_rig_job(&fx.k, JOB("b"), POSITION_NONE);
    await_number("SELECT count(*) FROM job WHERE id='b' AND state=1", 1);
    stop(&fx);
    at = kafka_rig_job(&fx.k, JOB("c"), POSITION_NONE);
    start(&fx);
    await_number("SELECT count(*) FROM job", 3);
    check_position(&fx, "c", at);
    at = kafka_rig_job(&fx.k, LATER_JOB("d"), POSITION_NONE);
    await_number("SELECT count(*) FROM job", 4);
    check_position(&fx, "d", at);
    at = kafka_rig_job(&fx.k, LATER_JOB("d"), at); /* now it is due */
    await_number("SELECT count(*) FROM job WHERE state=1", 3);
    check_position(&fx, "d", at);
    kafka_follow_stat(fx.follow, at.topic, &stat);
    CHECK_INT(stat.end, 4);
    CHECK_INT(stat.n_waiting, 0);
    CHECK_INT(store_unfinished(fx.writer), 3);
    CHECK_INT(query("SELECT count(*) FROM call"), 1);
    CHECK_INT(query("SELECT count(*) FROM \"genq.completions\" WHERE off=0"), 1);
    CHECK_INT(kafka_follow_health(fx.follow, NULL), 0);
    stop(&fx);
    kafka_rig_close(&fx.k);
}

/* Jobs and their completions, ids 0 … n-1. */
static void send_many(struct fixture *fx, int n)
{
    struct record *records = xcalloc((size_t)n * 2, sizeof *records);
    struct buf *mems = xcalloc((size_t)n * 2, sizeof *mems);
    struct job_defaults d = {.tenant = STR("default"), .batch_line = -1, .wall_ms = 5};
    struct call call = {.attempt = 1, .node = STR("n"), .model = STR("m"), .outcome = CALL_OK};
    struct completion c = {.state = STATE_SUCCEEDED, .calls = &call, .n_calls = 1};
    struct job j;
    char json[128];
    int i;

    for (i = 0; i < n; i++) {
        struct record *job = &records[2 * i], *end = &records[2 * i + 1];

        snprintf(json, sizeof json, "{\"id\":\"%d\",\"model\":\"m\",\"prompt\":\"hi\"}", i);
        CHECK_INT(job_parse(&j, str_z(json), true, NULL, NULL), 0);
        CHECK_INT(job_complete(&j, &d, NULL), 0);
        buf_init(&mems[2 * i], 1 << 16);
        buf_init(&mems[2 * i + 1], 1 << 16);
        id_ulid(5, call.id);
        CHECK_INT(envelope_job(job, &j, &mems[2 * i], NULL), 0);
        CHECK_INT(envelope_completion(end, &j, &c, NULL, &mems[2 * i + 1], NULL), 0);
        job->at.topic = topics_jobs(fx->k.topics, STR("default"), PRIORITY_NORMAL);
        end->at.topic = TOPIC_COMPLETIONS;
        end->source = (struct position){job->at.topic, 0, 0};
        kafka_rig_send(&fx->k, job);
        kafka_rig_send(&fx->k, end);
        job_release(&j);
    }
    kafka_rig_flush(&fx->k);
    for (i = 0; i < 2 * n; i++)
        buf_release(&mems[i]);
    free(mems);
    free(records);
}

/* A process to be killed, made while this one has no threads; it waits to be told the prefix. */
struct victim {
    pid_t pid;
    int prefix;
};

static void follow_until_killed(int prefix)
{
    struct fixture fx = {0};
    char yaml[256] = "";

    if (read(prefix, yaml, sizeof yaml - 1) <= 0)
        exit(0); /* not needed */
    fx.k.config = config_parse(str_z(yaml), "test", NULL);
    config_set_text(&fx.k.config->broker_servers, getenv("KAFKA_SERVERS"));
    fx.k.topics = topics_new(fx.k.config);
    start(&fx);
    for (;;)
        pause();
}

static void make_victim(struct victim *v)
{
    int ends[2];

    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    v->prefix = ends[1];
    v->pid = fork();
    if (v->pid == 0) {
        close(ends[1]);
        follow_until_killed(ends[0]);
    }
    close(ends[0]);
}

static void kill_on_the_way(struct victim *v, const struct fixture *fx, int64_t before,
                            int after_ms)
{
    char yaml[256];
    int n =
        snprintf(yaml, sizeof yaml, "broker: {kind: kafka, servers: unused, prefix: %s}\ndata: .\n", fx->k.config->broker_prefix);

    CHECK_INT(write(v->prefix, yaml, (size_t)n), n);
    while (query(READ_SO_FAR) == before) {
        CHECK_INT(waitpid(v->pid, NULL, WNOHANG), 0);
        usleep(1000);
    }
    usleep(1000 * (useconds_t)after_ms);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

TEST(killed_at_any_time_it_applies_each_record_once)
{
    enum { N = 9000, VICTIMS = 6 };
    struct victim victims[VICTIMS];
    struct fixture fx = {0};
    int64_t so_far;
    int i;

    for (i = 0; i < VICTIMS; i++)
        make_victim(&victims[i]);
    open_rig(&fx, 3);
    start(&fx); /* makes the database */
    stop(&fx);
    send_many(&fx, N);
    for (i = 0; i < VICTIMS && (so_far = query(READ_SO_FAR)) < 2 * N; i++)
        kill_on_the_way(&victims[i], &fx, so_far, 2 * i);
    CHECK(i > 1);
    start(&fx);
    await_number(READ_SO_FAR, 2 * N);
    CHECK_INT(query("SELECT count(*) FROM job WHERE state=3"), N);
    CHECK_INT(query("SELECT count(*) FROM \"genq.completions\""), N);
    CHECK_INT(query("SELECT count(*) FROM call WHERE is_wasted=0"), N);
    CHECK_INT(query("SELECT count(*) FROM call"), N);
    CHECK_INT(query("SELECT sum(value) FROM fact"), 0);
    stop(&fx);
    kafka_rig_close(&fx.k);
}

TEST(a_database_that_was_deleted_comes_out_the_same)
{
    enum { N = 3000 };
    struct fixture fx = {0};
    struct buf before, after;

    buf_init(&before, 1 << 28);
    buf_init(&after, 1 << 28);
    open_rig(&fx, 3);
    start(&fx);
    send_many(&fx, N);
    await_number(READ_SO_FAR, 2 * N);
    stop(&fx);
    dump(&before);
    CHECK_INT(unlink(DB_FILE), 0);
    start(&fx);
    await_number(READ_SO_FAR, 2 * N);
    stop(&fx);
    dump(&after);
    CHECK(str_eq(buf_str(&before), buf_str(&after)));
    buf_release(&before);
    buf_release(&after);
    kafka_rig_close(&fx.k);
}

/* ---- waiters ---- */

struct waiting {
    struct kafka_waiter w; /* first */
    _Atomic bool is_done;
};

static void on_applied(struct kafka_waiter *w)
{
    ((struct waiting *)(void *)w)->is_done = true;
}

static void await_verdict(struct fixture *fx, struct position at, int code, int detail)
{
    struct waiting one = {.w = {.at = at, .on_applied = on_applied}};
    int64_t until_ms = clock_mono_ms() + LIMIT_MS;

    kafka_follow_wait(fx->follow, &one.w);
    while (!one.is_done && clock_mono_ms() < until_ms)
        usleep(1000);
    CHECK(one.is_done);
    CHECK_INT(one.w.code, code);
    CHECK_INT(one.w.detail, detail);
}

TEST(waiters_get_the_verdict_before_and_after)
{
    struct fixture fx = {0};
    struct position at[3];
    int i;

    open_rig(&fx, 2);
    start(&fx);
    at[0] = kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    at[1] = kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    at[2] = kafka_rig_job(&fx.k, OTHER_JOB("a"), POSITION_NONE);
    for (i = 0; i < 2; i++) { /* the second time it has been applied */
        await_verdict(&fx, at[0], 0, 0);
        await_verdict(&fx, at[1], ERR_EXISTS, STATE_QUEUED);
        await_verdict(&fx, at[2], ERR_CONFLICT, STATE_QUEUED);
    }
    stop(&fx);
    kafka_rig_close(&fx.k);
}

TEST(a_waiter_is_not_kept_for_ever)
{
    struct fixture fx = {0};
    struct position at = {TOPIC_COMPLETIONS, 0, 1000};
    struct waiting one = {.w = {.at = at, .on_applied = on_applied}};

    open_rig(&fx, 1);
    start(&fx);
    await_verdict(&fx, at, 0, 0); /* 10 s: it is never there */
    kafka_follow_wait(fx.follow, &one.w);
    CHECK(!one.is_done);
    stop(&fx);
    CHECK(one.is_done);
    kafka_rig_close(&fx.k);
}

/* ---- trouble ---- */

TEST(a_full_disk_stops_it_until_there_is_room)
{
    struct rlimit was, full;
    struct fixture fx = {0};
    struct stat st;
    struct err e = {0};
    int64_t until_ms;

    signal(SIGXFSZ, SIG_IGN);
    open_rig(&fx, 2);
    start(&fx);
    kafka_rig_job(&fx.k, JOB("first"), POSITION_NONE);
    await_number("SELECT count(*) FROM job", 1);
    getrlimit(RLIMIT_FSIZE, &was);
    CHECK_INT(stat(DB_FILE "-wal", &st), 0);
    full = was;
    full.rlim_cur = (rlim_t)st.st_size + 65536;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &full), 0);
    send_many(&fx, 3000);
    until_ms = clock_mono_ms() + LIMIT_MS;
    while (kafka_follow_health(fx.follow, &e) == 0 && clock_mono_ms() < until_ms)
        usleep(1000);
    CHECK_INT(kafka_follow_health(fx.follow, &e), ERR_FULL);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &was), 0);
    await_number("SELECT count(*) FROM job WHERE state=3", 3000);
    await_number("SELECT count(*) FROM call", 3000);
    until_ms = clock_mono_ms() + LIMIT_MS;
    while (kafka_follow_health(fx.follow, &e) != 0 && clock_mono_ms() < until_ms)
        usleep(1000);
    CHECK_INT(kafka_follow_health(fx.follow, &e), 0);
    stop(&fx);
    kafka_rig_close(&fx.k);
}

static void await_health(struct fixture *fx, bool is_well)
{
    int64_t until_ms = clock_mono_ms() + LIMIT_MS;

    while ((kafka_follow_health(fx->follow, NULL) == 0) != is_well && clock_mono_ms() < until_ms)
        usleep(10000);
    CHECK_INT(kafka_follow_health(fx->follow, NULL) == 0, is_well);
}

/* librdkafka's own mock of a cluster, which can be switched off. */
TEST(kafka_goes_away_and_comes_back)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    rd_kafka_mock_cluster_t *mock = rd_kafka_mock_cluster_new(host, 1);
    struct fixture fx = {0};
    int i;

    setenv("KAFKA_SERVERS", rd_kafka_mock_cluster_bootstraps(mock), 1);
    kafka_rig_open(&fx.k, "");
    for (i = 0; i < (int)topics_count(fx.k.topics); i++)
        rd_kafka_mock_topic_create(mock, topics_name(fx.k.topics, i), 2, 1);
    start(&fx);
    kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    await_number("SELECT count(*) FROM job", 1);
    rd_kafka_mock_broker_set_down(mock, 1);
    await_health(&fx, false);
    rd_kafka_mock_broker_set_up(mock, 1);
    kafka_rig_job(&fx.k, JOB("b"), POSITION_NONE);
    await_number("SELECT count(*) FROM job", 2);
    await_health(&fx, true);
    stop(&fx);
    kafka_rig_close(&fx.k);
    rd_kafka_mock_cluster_destroy(mock);
    rd_kafka_destroy(host);
}

TEST(new_partitions_are_followed)
{
    struct fixture fx = {0};
    int topic, i;
    char json[128];

    open_rig(&fx, 1);
    start(&fx);
    topic = topics_jobs(fx.k.topics, STR("default"), PRIORITY_NORMAL);
    kafka_rig_add_partitions(&fx.k, topics_name(fx.k.topics, topic), 4);
    sleep(1);
    for (i = 0; i < 40; i++) {
        snprintf(json, sizeof json, "{\"id\":\"%d\",\"model\":\"m\",\"prompt\":\"hi\"}", i);
        kafka_rig_job(&fx.k, json, POSITION_NONE);
    }
    await_number("SELECT count(*) FROM job", 40);
    stop(&fx);
    kafka_rig_close(&fx.k);
}

TEST(records_deleted_before_it_came_are_passed_over)
{
    struct fixture fx = {0};
    struct position at;

    open_rig(&fx, 1);
    start(&fx);
    kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    await_number("SELECT count(*) FROM job", 1);
    stop(&fx);
    kafka_rig_job(&fx.k, JOB("b"), POSITION_NONE);
    at = kafka_rig_job(&fx.k, JOB("c"), POSITION_NONE);
    kafka_rig_trim(&fx.k, at);
    start(&fx);
    await_number("SELECT count(*) FROM job", 2);
    CHECK_INT(query("SELECT count(*) FROM job WHERE id='c'"), 1);
    stop(&fx);
    kafka_rig_close(&fx.k);
}

/* ---- what it refuses ---- */

TEST(a_missing_topic_is_named)
{
    struct fixture fx = {0};
    int i;

    kafka_rig_open(&fx.k, "");
    for (i = 1; i < (int)topics_count(fx.k.topics); i++)
        kafka_rig_make_topic(&fx.k, topics_name(fx.k.topics, i), 1);
    refuses(&fx, ERR_NOT_FOUND, "genq topics apply");
    refuses(&fx, ERR_NOT_FOUND, topics_name(fx.k.topics, TOPIC_COMPLETIONS));
    kafka_rig_close(&fx.k);
}

TEST(a_topic_made_anew_is_refused)
{
    struct fixture fx = {0};
    struct position at;
    const char *namez;

    open_rig(&fx, 1);
    at = kafka_rig_job(&fx.k, JOB("a"), POSITION_NONE);
    start(&fx);
    await_number("SELECT count(*) FROM job", 1);
    stop(&fx);
    namez = topics_name(fx.k.topics, at.topic);
    kafka_rig_delete_topic(&fx.k, namez);
    sleep(1);
    kafka_rig_make_topic(&fx.k, namez, 1);
    refuses(&fx, ERR_INVALID, "made anew");
    kafka_rig_close(&fx.k);
}

TEST(another_prefix_is_refused)
{
    struct fixture fx = {0}, other = {0};

    open_rig(&fx, 1);
    start(&fx);
    stop(&fx);
    usleep(2000);
    open_rig(&other, 1);
    refuses(&other, ERR_INVALID, "prefix");
    kafka_rig_close(&other.k);
    kafka_rig_close(&fx.k);
}

TEST(an_embedded_log_is_refused_and_the_other_way_round)
{
    struct fixture fx = {0};
    struct sqlite_log log;
    struct err e = {0};

    open_rig(&fx, 1);
    CHECK_INT(sqlite_log_open(&log, DB_FILE, false, fx.k.topics, &e), 0);
    sqlite_log_close(&log);
    refuses(&fx, ERR_INVALID, "embedded");
    CHECK_INT(unlink(DB_FILE), 0);
    start(&fx);
    stop(&fx);
    CHECK_INT(sqlite_log_open(&log, DB_FILE, false, fx.k.topics, &e), ERR_INVALID);
    CHECK(strstr(e.msg, "Kafka"));
    kafka_rig_close(&fx.k);
}

TEST(another_programs_database_is_left_alone)
{
    struct fixture fx = {0};
    struct db *db;

    CHECK_INT(db_open(DB_FILE, DB_WRITE, 100, &db, NULL), 0);
    CHECK_INT(db_exec(db, "CREATE TABLE cake(n INT)", NULL), 0);
    db_close(db);
    open_rig(&fx, 1);
    refuses(&fx, ERR_CORRUPT, "another program");
    CHECK_INT(query("SELECT count(*) FROM sqlite_schema"), 1);
    kafka_rig_close(&fx.k);
}
