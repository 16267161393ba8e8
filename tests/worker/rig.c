#include "tests/worker/rig.h"
#include "base/clock.h"
#include "base/file.h"
#include "schema/envelope.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 20000, LOOK_MS = 5, ARGS_MAX = 32 };

/* ---- stub engines ---- */

int stub_start(int port, int *pid, const char *const *args)
{
    static int n_started;
    char port_text[16], file[64];
    const char *argv[ARGS_MAX] = {BINARY_DIR "/stub_engine", "--port", port_text,
                                  "--port-file", file, "--log", "stub.log"};
    int n = 7, found = 0;
    int64_t limit = clock_mono_ms() + LIMIT_MS;
    FILE *f = NULL;

    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(file, sizeof file, "port.%d", n_started++);
    for (; args && *args; args++)
        argv[n++] = *args;
    *pid = fork();
    if (*pid == 0) {
        execv(argv[0], (char **)(uintptr_t)argv);
        _exit(127);
    }
    while (!f && clock_mono_ms() < limit && waitpid(*pid, NULL, WNOHANG) == 0)
        f = fopen(file, "r");
    CHECK(f && fscanf(f, "%d", &found) == 1);
    fclose(f);
    return found;
}

void stub_kill(int pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int stub_count(const char *textz)
{
    FILE *f = fopen("stub.log", "r");
    char line[4096];
    int n = 0;

    while (f && fgets(line, sizeof line, f))
        n += strstr(line, textz) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* ---- opening and closing ---- */

static void check_made(const void *p, const struct err *e)
{
    if (!p)
        CHECK_STR(str_z(e->msg), "");
    CHECK(p != NULL);
}

/* The store's hooks, with a count of the completions that became durable. */
static int apply(void *data, struct db *db, struct record *record)
{
    struct rig *r = data;
    enum job_state state;
    int rc = store_apply(r->store, db, record);

    if (rc == 0 && record->at.topic == TOPIC_COMPLETIONS &&
        state_parse(record->headers[HEADER_STATUS], &state))
        r->ending[state]++;
    return rc;
}

static int flush(void *data, struct db *db)
{
    return store_flush(((struct rig *)data)->store, db);
}

static void committed(void *data, bool is_ok)
{
    struct rig *r = data;

    for (int state = 0; state < STATE_COUNT_; state++) {
        if (is_ok)
            atomic_fetch_add(&r->ended[state], r->ending[state]);
        r->ending[state] = 0;
    }
    store_committed(r->store, is_ok);
}

static void open_broker(struct rig *r, bool has_store)
{
    struct broker_options o = {.config = r->config, .topics = r->topics, .loop = &r->loop};
    struct err e = {0};

    r->store = store_writer_new(r->topics, r->live, 10000000);
    if (has_store)
        o.hooks = (struct broker_hooks){apply, flush, committed, r};
    r->broker = broker_open(&o, &e);
    check_made(r->broker, &e);
}

static void close_broker(struct rig *r)
{
    broker_close(r->broker);
    r->broker = NULL;
    while (uv_run(&r->loop, UV_RUN_DEFAULT) != 0)
        ;
    store_writer_free(r->store);
}

void rig_open(struct rig *r, const char *yamlz)
{
    struct buf yaml;
    struct err e = {0};

    *r = (struct rig){.config = NULL};
    CHECK(uv_loop_init(&r->loop) == 0);
    buf_init(&yaml, 1 << 20);
    buf_addf(&yaml, "data: ./data\n%s", yamlz);
    r->config = config_parse(buf_str(&yaml), "test.yaml", &e);
    check_made(r->config, &e);
    buf_release(&yaml);
    CHECK_INT(file_make_dir(r->config->data, &e), 0);
    r->topics = topics_new(r->config);
    r->live = live_new(1 << 20);
    r->nodes = nodes_new(r->config->n_engines);
    open_broker(r, true);
    r->reader = reader_open(r->config->data, r->live, &e);
    check_made(r->reader, &e);
}

void rig_start_worker(struct rig *r)
{
    struct worker_options o = {.config = r->config,
                               .topics = r->topics,
                               .live = r->worker_live ? r->worker_live : r->live,
                               .has_store = !r->worker_live,
                               .nodes = r->nodes,
                               .loop = &r->loop};
    struct err e = {0};

    if (!r->broker)
        open_broker(r, true);
    o.broker = r->broker;
    for (int state = 0; state < STATE_COUNT_; state++)
        r->ended_before[state] = atomic_load(&r->ended[state]);
    r->worker = worker_start(&o, &e);
    check_made(r->worker, &e);
}

static void on_stopped(void *data)
{
    ((struct rig *)data)->is_stopped = true;
}

static bool is_stopped(struct rig *r, void *data)
{
    (void)data;
    return r->is_stopped;
}

void rig_stop_worker(struct rig *r, int64_t drain_ms)
{
    r->is_stopped = false;
    worker_stop(r->worker, drain_ms, on_stopped, r);
    rig_until(r, is_stopped, NULL);
    worker_free(r->worker);
    r->worker = NULL;
    close_broker(r);
}

void rig_close(struct rig *r)
{
    if (r->worker)
        rig_stop_worker(r, 0);
    if (r->broker)
        close_broker(r);
    reader_close(r->reader);
    CHECK_INT(uv_loop_close(&r->loop), 0);
    nodes_free(r->nodes);
    live_free(r->live);
    topics_free(r->topics);
    config_free(r->config);
}

/* ---- the loop ---- */

static void on_look(uv_timer_t *timer)
{
    (void)timer;
}

static void on_look_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

static bool run_until(struct rig *r, int64_t limit_ms, bool (*is_true)(struct rig *, void *),
                      void *data)
{
    int64_t limit = clock_mono_ms() + limit_ms;
    bool is_closed = false, result = false;
    uv_timer_t look;

    uv_timer_init(&r->loop, &look);
    look.data = &is_closed;
    uv_timer_start(&look, on_look, LOOK_MS, LOOK_MS);
    while (!(is_true && (result = is_true(r, data))) && clock_mono_ms() < limit)
        uv_run(&r->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&look, on_look_closed);
    while (!is_closed)
        uv_run(&r->loop, UV_RUN_ONCE);
    return result;
}

int64_t rig_ended(struct rig *r, enum job_state state)
{
    return atomic_load(&r->ended[state]) - r->ended_before[state];
}

void rig_until(struct rig *r, bool (*is_true)(struct rig *r, void *data), void *data)
{
    CHECK(run_until(r, LIMIT_MS, is_true, data));
}

void rig_run(struct rig *r, int64_t ms)
{
    run_until(r, ms, NULL, NULL);
}

static int64_t ended(struct rig *r)
{
    int64_t n = 0;

    for (int state = 0; state < STATE_COUNT_; state++)
        n += rig_ended(r, (enum job_state)state);
    return n;
}

static bool have_ended(struct rig *r, void *data)
{
    return ended(r) >= *(int64_t *)data;
}

void rig_until_ended(struct rig *r, int64_t n)
{
    rig_until(r, have_ended, &n);
    CHECK_INT(ended(r), n);
}

/* ---- publishing ---- */

struct post {
    struct publish publish;
    uv_sem_t done;
    int code;
};

static void on_ack(struct publish *p, int code)
{
    struct post *post = (struct post *)(void *)p;

    post->code = code;
    uv_sem_post(&post->done);
}

static void publish(struct rig *r, struct record *records, size_t n)
{
    struct post post = {.publish = {.records = records, .n = n, .on_ack = on_ack}};
    size_t i;

    uv_sem_init(&post.done, 0);
    CHECK_INT(broker_publish(r->broker, &post.publish), 0);
    uv_sem_wait(&post.done);
    uv_sem_destroy(&post.done);
    CHECK_INT(post.code, 0);
    for (i = 0; i < n; i++)
        CHECK_INT(records[i].code, 0);
}

struct position rig_publish_raw(struct rig *r, int topic, struct str value)
{
    struct record record = {.at = {topic, 0, 0}, .value = value, .source = POSITION_NONE};

    close_broker(r);
    open_broker(r, false);
    record.ts_ms = clock_wall_ms();
    publish(r, &record, 1);
    close_broker(r);
    open_broker(r, true);
    return record.at;
}

static void parse(struct job *j, const char *jsonz)
{
    struct job_defaults d = {
        .tenant = STR("default"), .batch_line = -1, .wall_ms = clock_wall_ms()};
    struct err e = {0};

    if (job_parse(j, str_z(jsonz), false, NULL, &e) != 0)
        check_made(NULL, &e);
    CHECK_INT(job_complete(j, &d, &e), 0);
    job_step(j, j->not_before > clock_wall_ms() ? EVENT_SUBMIT_LATER : EVENT_SUBMIT);
}

static int topic_of(struct rig *r, const struct job *j)
{
    return j->state == STATE_SCHEDULED
               ? TOPIC_SCHEDULED
               : topics_jobs(r->topics, j->queue.p ? j->queue : STR("default"), j->priority);
}

struct position rig_submit(struct rig *r, const char *jsonz)
{
    struct record record = {.source = POSITION_NONE};
    struct job j;
    struct buf mem;
    struct err e;

    parse(&j, jsonz);
    buf_init(&mem, 64 << 20);
    CHECK_INT(envelope_job(&record, &j, &mem, &e), 0);
    record.at.topic = topic_of(r, &j);
    record.ts_ms = clock_wall_ms();
    publish(r, &record, 1);
    buf_release(&mem);
    job_release(&j);
    return record.at;
}

void rig_submit_many(struct rig *r, const char *prefixz, int n, const char *extraz)
{
    struct record *records = xcalloc((size_t)n, sizeof *records);
    struct buf *mems = xcalloc((size_t)n, sizeof *mems);
    char json[1024];
    struct job j;
    struct err e;
    int i;

    for (i = 0; i < n; i++) {
        snprintf(json, sizeof json, "{\"id\":\"%s%d\",\"prompt\":\"key=%s%d\"%s%s}", prefixz, i,
                 prefixz, i, extraz[0] ? "," : "", extraz);
        parse(&j, json);
        buf_init(&mems[i], 1 << 20);
        records[i].source = POSITION_NONE;
        CHECK_INT(envelope_job(&records[i], &j, &mems[i], &e), 0);
        records[i].at.topic = topic_of(r, &j);
        records[i].ts_ms = clock_wall_ms();
        job_release(&j);
    }
    publish(r, records, (size_t)n);
    for (i = 0; i < n; i++)
        buf_release(&mems[i]);
    free(mems);
    free(records);
}

void rig_cancel(struct rig *r, const char *idz, struct position at)
{
    struct record records[2] = {{.at = {TOPIC_COMPLETIONS, 0, 0}, .source = at},
                                {.at = {TOPIC_CONTROL, 0, 0}, .source = POSITION_NONE}};
    struct completion c = {.state = STATE_CANCELLED,
                           .finished_at = clock_wall_ms(),
                           .reason = REASON_CANCELLED,
                           .queue_ms = -1,
                           .engine_ms = -1,
                           .first_token_ms = -1,
                           .total_ms = -1};
    struct position unused;
    struct buf mem[2];
    struct job head;
    struct err e = {0};
    int i;

    for (i = 0; i < 2; i++)
        buf_init(&mem[i], 1 << 20);
    CHECK_INT(reader_job_head(r->reader, STR("default"), str_z(idz), &head, &unused, r->topics, &e),
              0);
    CHECK_INT(envelope_completion(&records[0], &head, &c, NULL, &mem[0], &e), 0);
    CHECK_INT(envelope_cancel(&records[1], STR("default"), str_z(idz), &mem[1]), 0);
    records[0].ts_ms = records[1].ts_ms = clock_wall_ms();
    publish(r, records, 2);
    job_release(&head);
    for (i = 0; i < 2; i++)
        buf_release(&mem[i]);
}

/* ---- reading ---- */

struct wanted {
    const char *idz;
    struct buf *b;
};

static bool is_terminal(struct rig *r, void *data)
{
    struct wanted *w = data;
    enum job_state state = STATE_NEW;
    struct err e = {0};

    buf_clear(w->b);
    return reader_job(r->reader, STR("default"), str_z(w->idz), w->b, &state, &e) == 0 &&
           state_is_terminal(state);
}

void rig_job(struct rig *r, const char *idz, struct buf *b)
{
    struct wanted w = {idz, b};

    rig_until(r, is_terminal, &w);
}

void rig_check_job(struct rig *r, const char *idz, const char *const *texts)
{
    struct buf b;

    buf_init(&b, 64 << 20);
    rig_job(r, idz, &b);
    for (; *texts; texts++)
        if (!strstr(b.p, *texts)) {
            fprintf(stderr, "# %s\n", b.p);
            CHECK_STR(STR("is not in the job"), *texts);
        }
    buf_release(&b);
}
