#include "base/clock.h"
#include "base/metric.h"
#include "tests/worker/rig.h"
#include "worker/journal.h"
#include <stdio.h>
#include <stdlib.h>

/* One worker on one stub engine. */
struct bench {
    struct rig r;
    int pid, port;
};

static const char *fast[] = {"--latency-ms", "0", NULL};

/* more: further YAML. The worker is not started yet. */
static void open_bench(struct bench *b, const char *const *args, const char *morez)
{
    char yaml[1024];

    b->port = stub_start(0, &b->pid, args);
    snprintf(yaml, sizeof yaml,
             "engines: [{name: n, url: \"http://127.0.0.1:%d\"}]\nretry: {base_ms: 5}\n%s", b->port,
             morez);
    rig_open(&b->r, yaml);
}

static void close_bench(struct bench *b)
{
    rig_close(&b->r);
    stub_kill(b->pid);
}

TEST(a_job_runs_and_its_completion_is_kept)
{
    struct bench b;
    int64_t start;

    open_bench(&b, fast, "");
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"hello\","
                     "\"metadata\":{\"x\":1}}");
    start = clock_mono_ms();
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 1);
    printf("# first job after %d ms\n", (int)(clock_mono_ms() - start));
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), 1);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"text\":\"echo: hello\"",
                  "\"node\":\"n\"", "\"attempts\":1", "\"metadata\":{\"x\":1}",
                  "\"outcome\":\"ok\"", "\"finish_reason\":\"stop\"", "\"error\":null");
    CHECK_STR(str_z(worker_trouble(b.r.worker)), "");
    close_bench(&b);
}

TEST(many_jobs_end_once_each)
{
    enum { N = 2000 };
    struct bench b;
    int64_t start;

    open_bench(&b, fast, "");
    rig_submit_many(&b.r, "j", N, "\"model\":\"stub\"");
    start = clock_mono_ms();
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, N);
    printf("# %d jobs in %d ms\n", N, (int)(clock_mono_ms() - start));
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), N);
    CHECK_INT(stub_count("/api/generate 200"), N);
    close_bench(&b);
}

/* The log's own publish, counting those of the worker that it may hold up for company. */
static const struct broker_ops *log_ops;
static int n_patient;

static int count_patient(struct broker *b, struct publish *p)
{
    n_patient += p->is_patient;
    return log_ops->publish(b, p);
}

TEST(only_what_others_follow_may_be_held_up)
{
    struct bench b;
    struct broker_ops ops;
    char job[64];
    int i;

    open_bench(&b, fast, "");
    log_ops = b.r.broker->ops;
    ops = *log_ops;
    ops.publish = count_patient;
    b.r.broker->ops = &ops;
    rig_start_worker(&b.r);
    for (i = 0; i < 10; i++) {
        snprintf(job, sizeof job, "{\"id\":\"%d\",\"model\":\"stub\",\"prompt\":\"p\"}", i);
        rig_submit(&b.r, job);
        rig_until_ended(&b.r, i + 1);
    }
    CHECK_INT(n_patient, 0);
    rig_submit_many(&b.r, "j", 100, "\"model\":\"stub\"");
    rig_until_ended(&b.r, 110);
    CHECK(n_patient > 0);
    b.r.broker->ops = log_ops;
    close_bench(&b);
}

TEST(a_worker_without_a_store_forgets_what_has_ended)
{
    struct live_view view;
    struct bench b;
    char id[16];
    int i;

    open_bench(&b, fast, "");
    b.r.worker_live = live_new(1 << 20);
    rig_submit_many(&b.r, "j", 50, "\"model\":\"stub\"");
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 50);
    rig_stop_worker(&b.r, 5000);
    for (i = 0; i < 50; i++) {
        snprintf(id, sizeof id, "j%d", i);
        CHECK(!live_get(b.r.worker_live, STR("default"), str_z(id), &view));
    }
    live_free(b.r.worker_live);
    close_bench(&b);
}

TEST(bodies_beyond_prefetch_are_read_again_in_order)
{
    struct bench b;

    open_bench(&b, fast, "worker: {prefetch: 3}\n");
    rig_submit_many(&b.r, "lo", 150, "\"model\":\"stub\",\"priority\":\"low\"");
    rig_submit_many(&b.r, "no", 150, "\"model\":\"stub\"");
    rig_submit_many(&b.r, "ot", 150, "\"model\":\"stub\",\"tenant\":\"other\"");
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 450);
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), 450);
    CHECK_INT(stub_count("/api/generate 200"), 450);
    close_bench(&b);
}

TEST(records_that_are_no_jobs_block_nobody)
{
    static const char *const bad[] = {"", "{", "[1]", "{\"id\":\"x\"}", "\xff\xfe"};
    struct broker_stat stat;
    struct bench b;
    size_t i, n = sizeof bad / sizeof bad[0];
    int topic;

    open_bench(&b, fast, "");
    topic = topics_jobs(b.r.topics, STR("default"), PRIORITY_NORMAL);
    for (i = 0; i < n; i++)
        rig_publish_raw(&b.r, topic, str_z(bad[i]));
    rig_publish_raw(&b.r, TOPIC_CONTROL, STR("{\"no\":1}"));
    rig_publish_raw(&b.r, TOPIC_SCHEDULED, STR("nothing"));
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 1);
    CHECK_INT(metric_get(METRIC_RECORDS_DEAD), n + 2);
    rig_stop_worker(&b.r, 100);
    rig_start_worker(&b.r);
    broker_stat(b.r.broker, topic, &stat);
    CHECK_INT(stat.n_waiting, 0);
    broker_stat(b.r.broker, TOPIC_DEAD, &stat);
    CHECK_INT(stat.end - stat.first, n + 2);
    close_bench(&b);
}

/* Of jobs whose bodies are not kept only a look is taken: it finds the same as reading them whole.
 */
TEST(behind_the_prefetch_all_is_found_that_is_no_job_or_is_over)
{
    static const char *const bad[] = {"", "{\"id\":\"x\"}", "\xff\xfe",
                                      "{\"model\":\"stub\",\"prompt\":\"x\",\"colour\":1}"};
    struct bench b;
    size_t i, n = sizeof bad / sizeof bad[0];
    int topic;

    open_bench(&b, fast, "worker: {prefetch: 2}\n");
    topic = topics_jobs(b.r.topics, STR("default"), PRIORITY_NORMAL);
    rig_submit_many(&b.r, "a", 100, "\"model\":\"stub\"");
    for (i = 0; i < n; i++)
        rig_publish_raw(&b.r, topic, str_z(bad[i]));
    rig_submit_many(&b.r, "e", 10, "\"model\":\"stub\",\"deadline\":1000");
    rig_submit_many(&b.r, "b", 100,
                    "\"model\":\"stub\",\"custom_id\":\"\\u0041 \\\"\",\"tenant\":\"other\"");
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 210);
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), 200);
    CHECK_INT(rig_ended(&b.r, STATE_EXPIRED), 10);
    CHECK_INT(stub_count("/api/generate 200"), 200);
    CHECK_INT(metric_get(METRIC_RECORDS_DEAD), (int64_t)n);
    close_bench(&b);
}

TEST(a_failed_answer_is_tried_again)
{
    const char *args[] = {"--latency-ms", "0", "--fault", "kind=status,code=500,times=2", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":3", "\"outcome\":\"failed\"",
                  "\"outcome\":\"ok\"");
    close_bench(&b);
}

TEST(attempts_are_exhausted)
{
    const char *args[] = {"--latency-ms", "0", "--fault", "kind=drop", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"max_attempts\":3}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"failed\"", "\"attempts\":3", "attempts_exhausted",
                  "3 of 3 attempts failed");
    close_bench(&b);
}

TEST(an_engine_that_is_busy_costs_no_attempt)
{
    const char *args[] = {"--latency-ms", "0", "--fault", "kind=status,code=503,times=3", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"max_attempts\":1}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":1",
                  "\"outcome\":\"refused\"");
    close_bench(&b);
}

TEST(retry_after_is_kept)
{
    const char *args[] = {"--latency-ms", "0", "--fault",
                          "kind=status,code=429,times=1,retry_after=1", NULL};
    struct bench b;
    int64_t start;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    start = clock_mono_ms();
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":1");
    CHECK(clock_mono_ms() - start >= 990);
    close_bench(&b);
}

static bool says_no_engine_is_up(struct rig *r, void *data)
{
    (void)data;
    return strstr(worker_trouble(r->worker), "no engine node is up") != NULL;
}

TEST(an_engine_that_is_away_is_waited_for)
{
    struct bench b;

    open_bench(&b, fast, "");
    stub_kill(b.pid);
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"max_attempts\":1}");
    rig_until(&b.r, says_no_engine_is_up, NULL);
    CHECK_INT(stub_start(b.port, &b.pid, fast), b.port);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":1");
    close_bench(&b);
}

static bool is_running(struct rig *r, void *data)
{
    (void)r;
    return metric_get(METRIC_JOBS_RUNNING) == *(int *)data;
}

/* The engine has that many calls; checks of its health are none. */
static bool has_received(struct rig *r, void *data)
{
    (void)r;
    return stub_count(" /api/generate 0 ") >= *(int *)data;
}

static bool has_aborted(struct rig *r, void *data)
{
    (void)r;
    return stub_count(" abort ") >= *(int *)data;
}

TEST(an_engine_that_dies_in_the_middle_is_waited_for)
{
    const char *slow[] = {"--latency-ms", "20000", NULL};
    struct bench b;
    int two = 2;

    open_bench(&b, slow, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_submit(&b.r, "{\"id\":\"b\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_until(&b.r, has_received, &two);
    CHECK_INT(metric_get(METRIC_JOBS_RUNNING), 2);
    stub_kill(b.pid);
    rig_run(&b.r, 200);
    stub_start(b.port, &b.pid, fast);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":2", "\"outcome\":\"cut\"");
    RIG_CHECK_JOB(&b.r, "b", "\"status\":\"succeeded\"", "\"attempts\":2");
    close_bench(&b);
}

TEST(a_model_that_nobody_has)
{
    const char *args[] = {"--latency-ms", "0", "--model", "one", "--model", "two:latest", NULL};
    struct bench b;

    open_bench(&b, args, "models: {small: {target: one}}\n");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"none\",\"prompt\":\"x\"}");
    rig_submit(&b.r, "{\"id\":\"b\",\"model\":\"two\",\"prompt\":\"x\"}");
    rig_submit(&b.r, "{\"id\":\"c\",\"model\":\"small\",\"prompt\":\"x\"}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"failed\"", "model_not_found", "one", "\"attempts\":0",
                  "two:latest");
    RIG_CHECK_JOB(&b.r, "b", "\"status\":\"succeeded\"", "\"model\":\"two\"");
    RIG_CHECK_JOB(&b.r, "c", "\"status\":\"succeeded\"", "\"model\":\"small\"");
    close_bench(&b);
}

TEST(the_jobs_own_fault_is_told_at_once)
{
    const char *args[] = {"--latency-ms", "0", "--fault",
                          "kind=status,code=400,body={\"error\":\"bad thing\"}", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"failed\"", "invalid_request", "bad thing",
                  "\"attempts\":1");
    close_bench(&b);
}

TEST(a_call_ends_at_its_timeout)
{
    const char *args[] = {"--latency-ms", "0", "--fault", "kind=hang", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"timeout_ms\":100,"
                     "\"max_attempts\":2}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"failed\"", "engine_timeout", "\"attempts\":2",
                  "\"outcome\":\"timeout\"");
    close_bench(&b);
}

TEST(a_stalled_stream_ends_at_its_limit)
{
    const char *args[] = {"--latency-ms", "0", "--fault", "kind=stall,times=1", NULL};
    struct bench b;

    open_bench(&b, args, "worker: {between_tokens_ms: 1500}\n");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"stream\":true}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":2",
                  "\"outcome\":\"timeout\"");
    close_bench(&b);
}

static bool has_delta(struct rig *r, void *data)
{
    live_events(r->live, STR("default"), STR("a"), 0, data);
    return strstr(((struct buf *)data)->p, "event: delta") != NULL;
}

TEST(a_streamed_job_tells_its_tokens)
{
    const char *args[] = {"--latency-ms", "3000", "--tokens", "5", NULL};
    struct buf events;
    struct bench b;

    open_bench(&b, args, "");
    buf_init(&events, 1 << 20);
    buf_addz(&events, " ");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"stream\":true}");
    rig_until(&b.r, has_delta, &events);
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), 0);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"text\":\"echo: x");
    buf_release(&events);
    close_bench(&b);
}

TEST(a_waiting_job_expires_without_a_slot)
{
    struct bench b;
    char json[256];

    open_bench(&b, fast, "");
    stub_kill(b.pid);
    rig_start_worker(&b.r);
    snprintf(json, sizeof json,
             "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"deadline\":%lld}",
             (long long)clock_wall_ms() + 200);
    rig_submit(&b.r, json);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"expired\"", "deadline_exceeded", "\"attempts\":0");
    rig_close(&b.r);
}

TEST(a_cold_job_expires_too)
{
    struct bench b;
    char extra[128];

    open_bench(&b, fast, "worker: {prefetch: 1}\n");
    stub_kill(b.pid);
    rig_start_worker(&b.r);
    snprintf(extra, sizeof extra, "\"model\":\"stub\",\"deadline\":%lld",
             (long long)clock_wall_ms() + 300);
    rig_submit_many(&b.r, "e", 100, extra);
    rig_until_ended(&b.r, 100);
    CHECK_INT(rig_ended(&b.r, STATE_EXPIRED), 100);
    rig_close(&b.r);
}

TEST(a_running_job_is_broken_off_at_its_deadline)
{
    const char *slow[] = {"--latency-ms", "20000", NULL};
    struct bench b;
    char json[256];
    int one = 1;

    open_bench(&b, slow, "");
    rig_start_worker(&b.r);
    snprintf(json, sizeof json,
             "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"deadline\":%lld}",
             (long long)clock_wall_ms() + 3000);
    rig_submit(&b.r, json);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"expired\"", "\"outcome\":\"cancelled\"");
    rig_until(&b.r, has_aborted, &one);
    CHECK_INT(stub_count(" abort "), 1);
    close_bench(&b);
}

static bool have_called(struct rig *r, void *n)
{
    (void)r;
    return stub_count(" fault ") >= *(int *)n;
}

static bool have_lost(struct rig *r, void *n)
{
    (void)r;
    return metric_get(METRIC_COMPLETIONS_LOST_RACE) >= *(int *)n;
}

TEST(a_cancelled_call_is_broken_off_and_its_tokens_are_noted)
{
    const char *slow[] = {"--latency-ms", "20000", NULL};
    struct position at;
    struct bench b;
    int one = 1, none = 0;

    open_bench(&b, slow, "");
    rig_start_worker(&b.r);
    at = rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_until(&b.r, has_received, &one);
    rig_cancel(&b.r, "a", at);
    rig_until(&b.r, is_running, &none);
    rig_until(&b.r, has_aborted, &one);
    rig_until(&b.r, have_lost, &one);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"cancelled\"");
    CHECK_INT(stub_count(" abort "), 1);
    CHECK_INT(metric_get(METRIC_COMPLETIONS_LOST_RACE), 1);
    close_bench(&b);
}

static void check_n_calls(struct rig *r, const char *textz)
{
    struct buf b;
    struct err e;

    buf_init(&b, 1 << 16);
    CHECK_INT(reader_usage(r->reader, STR("tenant"), 0, 0, STR_NONE, false, &b, &e), 0);
    CHECK(b.p && strstr(b.p, textz));
    buf_release(&b);
}

/* Their bodies are not in memory, and their records are gone with the cancellation. */
TEST(calls_of_a_job_that_is_cancelled_in_its_backoff_are_noted)
{
    enum { N = 6 };
    const char *args[] = {"--fault", "kind=status,code=500", NULL};
    struct position at[N];
    char yaml[256], text[64];
    struct rig r;
    int pid, n = N, none = 0;

    snprintf(yaml, sizeof yaml,
             "engines: [{name: n, url: \"http://127.0.0.1:%d\"}]\n"
             "retry: {base_ms: 600000, cap_ms: 600000}\nworker: {prefetch: 1}\n",
             stub_start(0, &pid, args));
    rig_open(&r, yaml);
    rig_start_worker(&r);
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "{\"id\":\"j%d\",\"model\":\"stub\",\"prompt\":\"x\"}", i);
        at[i] = rig_submit(&r, text);
    }
    rig_until(&r, have_called, &n);
    rig_until(&r, is_running, &none);
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "j%d", i);
        rig_cancel(&r, text, at[i]);
    }
    rig_until(&r, have_lost, &n);
    check_n_calls(&r, "\"calls\":6");
    rig_close(&r);
    stub_kill(pid);
}

static bool is_forgotten(struct rig *r, void *idz)
{
    struct live_view view;

    return !live_get(r->live, STR("default"), str_z(idz), &view);
}

TEST(an_attempt_that_began_after_its_job_was_cancelled_leaves_no_trace)
{
    struct position at;
    struct bench b;

    open_bench(&b, fast, "");
    stub_kill(b.pid);
    rig_start_worker(&b.r);
    at = rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_run(&b.r, 100);
    rig_cancel(&b.r, "a", at);
    /* as if it had found its engine gone between the end and the order to cancel */
    live_start(b.r.live, STR("default"), STR("a"), 1, STR("n"), 1, false);
    live_requeue(b.r.live, STR("default"), STR("a"));
    rig_until(&b.r, is_forgotten, "a");
    rig_close(&b.r);
}

TEST(a_cancelled_waiting_job_never_runs)
{
    const char *args[] = {"--latency-ms", "4000", NULL};
    struct position at;
    struct bench b;
    int slots = 4;

    open_bench(&b, args, "");
    rig_submit_many(&b.r, "j", 4, "\"model\":\"stub\"");
    at = rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"key=victim\"}");
    rig_start_worker(&b.r);
    rig_until(&b.r, is_running, &slots);
    rig_cancel(&b.r, "a", at);
    rig_until_ended(&b.r, 5);
    CHECK_INT(stub_count("victim"), 0);
    CHECK_INT(metric_get(METRIC_COMPLETIONS_LOST_RACE), 0);
    close_bench(&b);
}

TEST(a_scheduled_job_runs_when_it_is_due)
{
    struct bench b;
    int64_t due = clock_wall_ms() + 400;
    char json[256];

    open_bench(&b, fast, "");
    snprintf(json, sizeof json,
             "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"not_before\":%lld}",
             (long long)due);
    rig_submit(&b.r, json);
    rig_start_worker(&b.r);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"attempts\":1");
    CHECK(clock_wall_ms() >= due);
    CHECK(clock_wall_ms() < due + 20000);
    close_bench(&b);
}

/* A log whose first reads fail, as on a disk that is away for a moment. */
static struct {
    struct broker_ops ops;
    int (*read)(struct broker *b, struct broker_read *r);
    struct rig *r;
    int n_failing;
} flaky;

struct failed_read {
    uv_timer_t timer; /* first */
    struct broker_read *r;
};

static void on_failed_read_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_failed_read(uv_timer_t *timer)
{
    struct broker_read *r = ((struct failed_read *)(void *)timer)->r;

    uv_close((uv_handle_t *)timer, on_failed_read_closed);
    r->code = ERR_IO;
    r->on_read(r, NULL, 0);
}

static int flaky_read(struct broker *b, struct broker_read *r)
{
    struct failed_read *f;

    if (flaky.n_failing == 0)
        return flaky.read(b, r);
    flaky.n_failing--;
    f = xcalloc(1, sizeof *f);
    f->r = r;
    uv_timer_init(&flaky.r->loop, &f->timer);
    return uv_timer_start(&f->timer, on_failed_read, 1, 0);
}

static void fail_reads(struct rig *r, int n)
{
    flaky.ops = *r->broker->ops;
    flaky.read = flaky.ops.read;
    flaky.ops.read = flaky_read;
    flaky.r = r;
    flaky.n_failing = n;
    r->broker->ops = &flaky.ops;
}

TEST(what_cannot_be_read_for_a_while_is_read_later)
{
    struct bench b;
    char extra[128];

    open_bench(&b, fast, "worker: {prefetch: 3}\n");
    rig_submit_many(&b.r, "j", 200, "\"model\":\"stub\"");
    snprintf(extra, sizeof extra, "\"model\":\"stub\",\"not_before\":%lld",
             (long long)clock_wall_ms() + 100);
    rig_submit_many(&b.r, "d", 100, extra);
    fail_reads(&b.r, 6);
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 300);
    CHECK_INT(flaky.n_failing, 0);
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), 300);
    CHECK_INT(worker_failure(b.r.worker), 0);
    close_bench(&b);
}

TEST(many_scheduled_jobs_are_due_at_once)
{
    enum { N = 3000 }; /* more than are moved at one time */
    struct bench b;
    char extra[128];

    open_bench(&b, fast, "");
    snprintf(extra, sizeof extra, "\"model\":\"stub\",\"not_before\":%lld",
             (long long)clock_wall_ms() + 500);
    rig_submit_many(&b.r, "d", N, extra);
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, N);
    CHECK_INT(rig_ended(&b.r, STATE_SUCCEEDED), N);
    close_bench(&b);
}

TEST(a_scheduled_job_can_be_cancelled)
{
    struct broker_stat stat;
    struct position at;
    struct bench b;
    char json[256];

    open_bench(&b, fast, "");
    rig_start_worker(&b.r);
    snprintf(json, sizeof json,
             "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"not_before\":%lld}",
             (long long)clock_wall_ms() + 3000);
    at = rig_submit(&b.r, json);
    rig_cancel(&b.r, "a", at);
    rig_run(&b.r, 3200);
    CHECK_INT(stub_count("/api/generate"), 0);
    broker_stat(b.r.broker, TOPIC_SCHEDULED, &stat);
    CHECK_INT(stat.n_waiting, 0);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"cancelled\"");
    close_bench(&b);
}

TEST(a_stop_lets_calls_end_and_the_next_start_goes_on)
{
    const char *args[] = {"--latency-ms", "100", NULL};
    struct bench b;
    int64_t n;
    int some = 6;

    open_bench(&b, args, "");
    rig_submit_many(&b.r, "j", 40, "\"model\":\"stub\"");
    rig_start_worker(&b.r);
    rig_until(&b.r, has_received, &some);
    b.r.is_stopped = false;
    rig_stop_worker(&b.r, 10000);
    n = stub_count("/api/generate 200");
    CHECK(n >= 4 && n < 40);
    CHECK_INT(stub_count(" abort "), 0);
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 40 - n);
    CHECK_INT(stub_count("/api/generate 200"), 40); /* none ran twice */
    close_bench(&b);
}

TEST(a_stop_hands_back_what_does_not_end)
{
    const char *slow[] = {"--latency-ms", "20000", NULL};
    struct bench b;
    int four = 4;

    open_bench(&b, slow, "");
    rig_submit_many(&b.r, "j", 4, "\"model\":\"stub\"");
    rig_start_worker(&b.r);
    rig_until(&b.r, has_received, &four);
    rig_stop_worker(&b.r, 50);
    stub_kill(b.pid);
    stub_start(b.port, &b.pid, fast);
    rig_start_worker(&b.r);
    rig_until_ended(&b.r, 4);
    RIG_CHECK_JOB(&b.r, "j3", "\"status\":\"succeeded\"", "\"attempts\":1");
    close_bench(&b);
}

TEST(a_job_in_flight_at_two_crashes_is_poison)
{
    struct journal_key key;
    struct position at;
    struct bench b;
    int i;

    open_bench(&b, fast, "");
    at = rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\"}");
    rig_submit(&b.r, "{\"id\":\"b\",\"model\":\"stub\",\"prompt\":\"x\"}");
    key = (struct journal_key){journal_topic(topics_name(b.r.topics, at.topic)), at.offset, 0};
    for (i = 0; i < 2; i++) {
        struct journal *j = journal_open("data/starts.journal", NULL);

        CHECK(journal_start(j, &key, i + 1) >= 0);
        if (i == 0) {
            struct journal_key other = key;

            other.offset++;
            CHECK(journal_start(j, &other, 1) >= 0);
        }
        journal_close(j);
    }
    rig_start_worker(&b.r);
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"failed\"", "poison", "\"attempts\":2");
    RIG_CHECK_JOB(&b.r, "b", "\"status\":\"succeeded\"", "\"attempts\":2", "\"attempt\":2");
    close_bench(&b);
}

TEST(an_openai_engine_is_found_out)
{
    const char *args[] = {"--latency-ms", "0", "--dialect", "openai", "--model", "stub", NULL};
    struct bench b;

    open_bench(&b, args, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"stub\",\"messages\":[{\"role\":\"user\","
                     "\"content\":\"hi\"}]}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "echo: hi", "\"role\":\"assistant\"");
    close_bench(&b);
}

TEST(json_is_parsed_and_asked_for_again)
{
    struct bench b;

    open_bench(&b, fast, "");
    rig_start_worker(&b.r);
    rig_submit(&b.r,
               "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"response_format\":{\"type\":"
               "\"json_schema\",\"json_schema\":{\"name\":\"l\",\"schema\":{\"type\":\"object\","
               "\"properties\":{\"label\":{\"type\":\"string\",\"enum\":[\"yes\",\"no\"]}}}}}}");
    RIG_CHECK_JOB(&b.r, "a", "\"status\":\"succeeded\"", "\"json\":{\"label\":\"yes\"}");
    close_bench(&b);
}

TEST(a_dead_node_s_jobs_go_to_the_other)
{
    const char *args[] = {"--latency-ms", "20", NULL};
    int pids[2], ports[2], i;
    char yaml[512];
    struct rig r;

    for (i = 0; i < 2; i++)
        ports[i] = stub_start(0, &pids[i], args);
    snprintf(yaml, sizeof yaml,
             "engines: [{name: n0, url: \"http://127.0.0.1:%d\"}, {name: n1, url: "
             "\"http://127.0.0.1:%d\"}]\nretry: {base_ms: 5}\n",
             ports[0], ports[1]);
    rig_open(&r, yaml);
    rig_submit_many(&r, "j", 200, "\"model\":\"stub\"");
    rig_start_worker(&r);
    rig_run(&r, 200);
    stub_kill(pids[0]);
    rig_until_ended(&r, 200);
    CHECK_INT(rig_ended(&r, STATE_SUCCEEDED), 200);
    rig_close(&r);
    stub_kill(pids[1]);
}

static const struct broker_ops *shared_before;

/* The rig's log, told to be a shared one. */
static void share(struct rig *r, int64_t lease_ms)
{
    static struct broker_ops ops;

    if (!shared_before)
        shared_before = r->broker->ops;
    ops = *r->broker->ops;
    ops.is_shared = true;
    r->broker->ops = &ops;
    r->broker->lease_ms = clock_boot_ms() + lease_ms;
}

static bool has_routed(struct rig *r, void *data)
{
    (void)r;
    return metric_get(METRIC_JOBS_ROUTED) == *(int *)data;
}

/* It had begun here: the node listed the model, and said at the call that it has none. */
TEST(a_worker_without_a_store_forgets_what_it_sent_to_another_queue)
{
    const char *args[] = {
        "--model", "large", "--fault",
        "kind=status,code=404,times=100,body={\"error\":\"model 'large' not found\"}", NULL};
    struct live_view view;
    struct bench b;
    int one = 1;

    open_bench(&b, args,
               "queues: {big: {}}\nmodels: {big: {target: large, queue: big}}\n"
               "worker: {queues: [default]}\n");
    b.r.worker_live = live_new(1 << 20);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"big\",\"queue\":\"default\",\"prompt\":\"x\"}");
    share(&b.r, 60000);
    rig_start_worker(&b.r);
    rig_until(&b.r, has_routed, &one);
    CHECK(stub_count(" fault ") > 0);
    CHECK(!live_get(b.r.worker_live, STR("default"), STR("a"), &view));
    b.r.broker->ops = shared_before;
    rig_stop_worker(&b.r, 100);
    live_free(b.r.worker_live);
    b.r.worker_live = NULL;
    close_bench(&b);
}

static bool is_down(struct rig *r, void *data)
{
    (void)r;
    (void)data;
    return metric_get(METRIC_NODES_UP) == 0;
}

static int refused; /* topic whose next subscription fails; -1: none */

static bool was_refused(struct rig *r, void *data)
{
    (void)r;
    (void)data;
    return refused == -1;
}

static int refuse_some(struct broker *b, int topic, const struct subscription *s, struct err *e)
{
    if (topic == refused) {
        refused = -1;
        return err_set(e, ERR_UNREACHABLE, "refused");
    }
    return shared_before->subscribe(b, topic, s, e);
}

TEST(a_queue_that_could_not_be_taken_is_tried_again)
{
    static struct broker_ops ops;
    struct bench b;

    open_bench(&b, fast,
               "queues: {big: {}}\nmodels: {big: {target: stub, queue: big}, s: {}}\n"
               "health: {interval_ms: 20}\n");
    stub_kill(b.pid);
    rig_submit(&b.r, "{\"id\":\"a\",\"model\":\"big\",\"queue\":\"big\",\"prompt\":\"x\"}");
    share(&b.r, 60000);
    ops = *b.r.broker->ops;
    ops.subscribe = refuse_some;
    b.r.broker->ops = &ops;
    rig_start_worker(&b.r); /* it takes none: which models are there is not known */
    refused = topics_jobs(b.r.topics, STR("big"), PRIORITY_NORMAL);
    stub_start(b.port, &b.pid, fast);
    rig_until(&b.r, was_refused, NULL);
    stub_kill(b.pid); /* the next change at the nodes */
    rig_until(&b.r, is_down, NULL);
    stub_start(b.port, &b.pid, fast);
    rig_until_ended(&b.r, 1);
    b.r.broker->ops = shared_before;
    close_bench(&b);
}

static struct subscription taken; /* of job topics, the newest */

static int note_taken(struct broker *b, int topic, const struct subscription *s, struct err *e)
{
    if (topics_is_jobs(topic))
        taken = *s;
    return shared_before->subscribe(b, topic, s, e);
}

static bool is_called(struct rig *r, void *textz)
{
    (void)r;
    return stub_count(textz) > 0;
}

static bool has_nothing(struct rig *r, void *data)
{
    (void)r;
    (void)data;
    return metric_get(METRIC_JOBS_RUNNING) == 0 && metric_get(METRIC_JOBS_WAITING) == 0;
}

/* What fails after its partition went away is the new owner's to try again; but ours, where the
 * partition has come back meanwhile. */
TEST(a_job_whose_partition_went_is_not_tried_again_here)
{
    static const char job[] =
        "{\"id\":\"a\",\"model\":\"stub\",\"prompt\":\"x\",\"timeout_ms\":500,"
        "\"max_attempts\":2}";
    const char *args[] = {"--latency-ms", "100000", NULL};
    static struct broker_ops ops;
    struct record again = {.value = str_z(job), .source = POSITION_NONE};
    struct bench b;

    open_bench(&b, args, "");
    again.at = rig_submit(&b.r, job);
    share(&b.r, 60000);
    ops = *b.r.broker->ops;
    ops.subscribe = note_taken;
    b.r.broker->ops = &ops;
    rig_start_worker(&b.r);
    rig_until(&b.r, is_called, "recv 1 - /api/generate");
    CHECK_INT(taken.on_revoked(taken.data, again.at.topic, again.at.partition), 1);
    rig_until(&b.r, has_nothing, NULL);
    CHECK_INT(stub_count("recv 2 - /api/generate"), 0);
    taken.on_records(taken.data, &again, 1);
    rig_until(&b.r, is_called, "recv 2 - /api/generate");
    CHECK_INT(taken.on_revoked(taken.data, again.at.topic, again.at.partition), 1);
    taken.on_records(taken.data, &again, 1);
    rig_until_ended(&b.r, 1);
    CHECK_INT(stub_count("recv 3 - /api/generate"), 1);
    b.r.broker->ops = shared_before;
    close_bench(&b);
}

TEST(what_was_delivered_waits_while_it_may_be_another_worker_s)
{
    const char *args[] = {"--latency-ms", "300", NULL};
    const struct broker_ops *before;
    struct bench b;
    int four = 4;

    open_bench(&b, args, "");
    before = b.r.broker->ops;
    rig_submit_many(&b.r, "j", 20, "\"model\":\"stub\"");
    share(&b.r, 60000);
    rig_start_worker(&b.r);
    rig_until(&b.r, has_received, &four);
    b.r.broker->lease_ms = 0; /* as if it woke from a long sleep */
    rig_until_ended(&b.r, 4); /* what was in flight */
    rig_run(&b.r, 200);
    CHECK_INT(stub_count("/api/generate 0"), 4);
    share(&b.r, 60000);
    rig_until_ended(&b.r, 20);
    b.r.broker->ops = before;
    close_bench(&b);
}
