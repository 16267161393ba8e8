/* Completions: the job's hash ends, usage is counted, subscribers are told; all of it in one
 * script, with the place in the feed, so that it is done once. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metric.h"
#include "schema/completion.h"
#include "store/hot_internal.h"
#include "store/value.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum {
    ARGS_MAX = 48,
    NUMBER_BYTES = 24,
    JSON_MAX_BYTES = 4 << 20, /* what is larger would hold up what comes after it */
    LOOK_MAX = 1000,
    USAGE_MORE_DAYS = 2, /* counters outlive the ledger that they can be compared with */
};

/* ---- which log this is ---- */

/* Of an embedded log, a name that its data directory keeps; of Kafka's, the topics' prefix. */
static int read_name(const char *dataz, char name[ULID_LEN + 1], struct err *e)
{
    char path[4200];
    struct buf b;
    int fd, rc;

    snprintf(path, sizeof path, "%s/redis.log", dataz);
    buf_init(&b, 4096);
    rc = file_read(path, &b, e);
    if (rc == 0 && b.n >= ULID_LEN && id_is_valid(str_of(b.p, ULID_LEN))) {
        str_copyz(name, ULID_LEN + 1, str_of(b.p, ULID_LEN));
    } else if (rc == 0 || rc == ERR_NOT_FOUND) {
        id_ulid(clock_wall_ms(), name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        rc = fd >= 0 && file_write_all(fd, name, ULID_LEN) == 0 && fsync(fd) == 0
                 ? file_sync_name(path, e)
                 : err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    buf_release(&b);
    return rc;
}

int hot_set_feed_key(struct hot *h, struct err *e)
{
    char name[ULID_LEN + 1];
    int rc = 0;

    if (h->config->broker_kind == BROKER_KIND_KAFKA) {
        snprintf(h->feed_key, sizeof h->feed_key, "genq:feed:kafka.%s", h->config->broker_prefix);
        return 0;
    }
    rc = read_name(h->config->data, name, e);
    snprintf(h->feed_key, sizeof h->feed_key, "genq:feed:%s", name);
    return rc;
}

/* ---- usage ---- */

enum counter {
    COUNT_JOBS, /* named by how it ended */
    COUNT_CALLS,
    COUNT_PROMPT,
    COUNT_COMPLETION,
    COUNT_CACHED,
    COUNT_TOTAL,
    COUNT_WASTED,
    COUNT_COUNT_
};

static const char *const counter_names[COUNT_COUNT_] = {"",
                                                        "calls",
                                                        "prompt_tokens",
                                                        "completion_tokens",
                                                        "cached_tokens",
                                                        "total_tokens",
                                                        "wasted_tokens"};

struct usage_sums {
    int64_t n[COUNT_COUNT_];
    double cost;
};

/* The same as the ledger's rows of this completion (writer_end.c) add up to. */
static void add_call(struct usage_sums *u, struct str call)
{
    static const struct str names[] = {STR_INIT("prompt_tokens"), STR_INIT("completion_tokens"),
                                       STR_INIT("cached_tokens"), STR_INIT("outcome"),
                                       STR_INIT("cost")};
    enum call_outcome outcome = CALL_FAILED;
    struct str raw[5];
    int64_t prompt, completion;

    value_find(call, names, 5, raw);
    outcome_parse(value_text(raw[3]), &outcome);
    prompt = value_int(raw[0]);
    completion = value_int(raw[1]);
    u->n[COUNT_CALLS]++;
    u->n[COUNT_PROMPT] += prompt;
    u->n[COUNT_COMPLETION] += completion;
    u->n[COUNT_CACHED] += value_int(raw[2]);
    u->n[COUNT_TOTAL] += prompt + completion;
    u->n[COUNT_WASTED] += outcome == CALL_OK ? 0 : prompt + completion;
    u->cost += value_num(raw[4]);
}

static void add_calls(struct usage_sums *u, struct str calls)
{
    struct str call;
    size_t at = 0;

    while (value_next(calls, &at, &call))
        add_call(u, call);
}

/* ---- the command ---- */

/* Arguments, and the numbers and keys among them. */
struct end_command {
    struct str args[ARGS_MAX];
    size_t n;
    char numbers[ARGS_MAX][NUMBER_BYTES];
    char job_key[HOT_KEY_BYTES], usage_key[HOT_KEY_BYTES], cost[40];
};

static void add(struct end_command *c, struct str arg)
{
    c->args[c->n++] = arg;
}

static void add_number(struct end_command *c, int64_t v)
{
    snprintf(c->numbers[c->n], NUMBER_BYTES, "%lld", (long long)v);
    add(c, str_z(c->numbers[c->n]));
}

static void put_keys(struct hot *h, struct end_command *c, const struct ended_record *r)
{
    char day[32];

    clock_format_rfc3339(r->ts_ms, day);
    snprintf(c->job_key, sizeof c->job_key, "genq:job:%.*s/%.*s", STR_ARG(r->tenant),
             STR_ARG(r->id));
    snprintf(c->usage_key, sizeof c->usage_key, "genq:usage:%.*s:%.4s%.2s%.2s", STR_ARG(r->tenant),
             day, day + 5, day + 8);
    add(c, STR("3"));
    add(c, str_z(c->job_key));
    add(c, str_z(c->usage_key));
    add(c, str_z(h->feed_key));
}

static void put_counters(struct end_command *c, const struct usage_sums *u, enum job_state state)
{
    size_t i;

    for (i = 0; i < COUNT_COUNT_; i++) {
        if (u->n[i] == 0)
            continue;
        add(c, i == COUNT_JOBS ? str_z(state_name(state)) : str_z(counter_names[i]));
        add_number(c, u->n[i]);
    }
}

/* For how long: what has been over for that long already is not kept at all. */
static int64_t keep_ms(struct hot *h, const struct ended_record *r, struct str finished_at)
{
    int64_t ended_ms = value_int(finished_at), left_ms;

    left_ms = (ended_ms ? ended_ms : r->ts_ms) + 1000 * h->config->redis_hot_s - clock_wall_ms();
    if (left_ms > 1000 * h->config->redis_hot_s)
        return 1000 * h->config->redis_hot_s;
    return left_ms > 0 ? left_ms : 0;
}

static void fill(struct hot *h, struct end_command *c, const struct ended_record *r)
{
    static const struct str names[] = {STR_INIT("finished_at"), STR_INIT("calls")};
    struct usage_sums sums = {.n = {[COUNT_JOBS] = 1}};
    struct str raw[2], json = r->value;

    value_find(r->value, names, 2, raw);
    add_calls(&sums, raw[1]);
    if (json.n > JSON_MAX_BYTES) {
        metric_add(METRIC_REDIS_DROPPED, 1);
        log_warn("redis_too_large", LS("id", r->id), LI("bytes", json.n));
        json = STR("");
    }
    add(c, STR("EVALSHA"));
    add(c, str_z(h->sha[HOT_END]));
    put_keys(h, c, r);
    add_number(c, r->offset);
    add_number(c, h->batch_position);
    add_number(c, r->offset + 1);
    add(c, str_z(state_name(r->state)));
    add(c, json);
    add_number(c, keep_ms(h, r, raw[0]));
    add_number(c, (h->config->retention_jobs_days + USAGE_MORE_DAYS) * 86400);
    snprintf(c->cost, sizeof c->cost, "%.15g", sums.cost);
    add(c, str_z(c->cost));
    put_counters(c, &sums, r->state);
}

/* ---- its answer ---- */

static void on_end_written(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    if (hot_answered(h, code, reply)) {
        metric_add(METRIC_REDIS_COMPLETIONS, redis_int(reply) > 0);
        if (redis_int(reply) < 0) /* emptied */
            hot_fail(h, ERR_NOT_FOUND, STR("it has lost what was written"));
    }
    hot_go_on(h);
}

static bool on_end(void *data, const struct ended_record *r)
{
    struct end_command c = {.n = 0};
    struct hot *h = data;

    if (!hot_has_room(h))
        return false;
    fill(h, &c, r);
    hot_send(h, c.args, c.n, on_end_written);
    h->batch_position = r->offset + 1;
    return true;
}

void hot_send_ends(struct hot *h)
{
    struct err e = {0};

    if (reader_follow_ends(h->reader, h->position, LOOK_MAX, on_end, h, &e) < 0)
        log_error("redis_reads_store", LZ("error", e.msg));
}
