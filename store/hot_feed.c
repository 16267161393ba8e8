/* Completions: the job's hash ends, usage is counted, subscribers are told; all of it in one
 * script, with the place in the feed, so that it is done once. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "schema/completion.h"
#include "store/hot_internal.h"
#include "store/value.h"
#include <stdio.h>

enum {
    ARGS_MAX = 48,
    NUMBER_BYTES = 24,
    JSON_MAX_BYTES = 4 << 20, /* what is larger would hold up what comes after it */
    LOOK_MAX = 1000,
    USAGE_MORE_DAYS = 2, /* counters outlive the ledger that they can be compared with */
};

/* KEYS: job, usage, feed. ARGV: 1 offset, 2 offset of the one before + 1, 3 offset + 1, 4 status, 5
 * job, 6 how long to keep it (ms, 0: not at all), 7 how long to keep usage (s), 8 cost, 9…
 * counters. Gives 1 when it was new, 0 when Redis had it, -1 when others are missing before it. The
 * first write is the one that fails where Redis is full or may only be read; a key that somebody
 * made something else holds nothing up. */
#define END_SCRIPT \
    "local feed = redis.call('HMGET', KEYS[3], 'position', 'silent')\n" \
    "local position, offset = tonumber(feed[1] or -1), tonumber(ARGV[1])\n" \
    "if position < tonumber(ARGV[2]) then return -1 end\n" \
    "if position > offset then return 0 end\n" \
    "local was = redis.pcall('HGET', KEYS[1], 'job')\n" \
    "redis.call('HSET', KEYS[3], 'position', ARGV[3])\n" \
    "if was == ARGV[5] then return 0 end\n" \
    "if type(was) == 'table' then redis.call('DEL', KEYS[1]) end\n" \
    "if tonumber(ARGV[6]) > 0 then\n" \
    "  redis.call('HSET', KEYS[1], 'status', ARGV[4], 'job', ARGV[5])\n" \
    "  redis.call('HDEL', KEYS[1], 'attempts', 'node')\n" \
    "  redis.call('PEXPIRE', KEYS[1], ARGV[6])\n" \
    "else\n" \
    "  redis.call('DEL', KEYS[1])\n" \
    "end\n" \
    "for i = 9, #ARGV, 2 do redis.pcall('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end\n" \
    "if ARGV[8] ~= '0' then redis.pcall('HINCRBYFLOAT', KEYS[2], 'cost', ARGV[8]) end\n" \
    "redis.call('EXPIRE', KEYS[2], ARGV[7])\n" \
    "if offset >= tonumber(feed[2] or 0) and ARGV[5] ~= '' then\n" \
    "  redis.call('PUBLISH', 'genq:completions', ARGV[5])\n" \
    "end\n" \
    "return 1\n"

/* KEYS: job. ARGV: 1 status, 2 job or '', 3 attempts, 4 node or '', 5 how long to keep it (ms), 6
 * 'new' where anything that is known already is newer. Gives whether it was written. */
#define STATE_SCRIPT \
    "local was = redis.pcall('HGET', KEYS[1], 'status')\n" \
    "if type(was) == 'table' then return 0 end\n" \
    "if was == 'succeeded' or was == 'failed' or was == 'cancelled' or was == 'expired'\n" \
    "  or (was and ARGV[6] == 'new') then return 0 end\n" \
    "redis.call('HSET', KEYS[1], 'status', ARGV[1], 'attempts', ARGV[3])\n" \
    "if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'job', ARGV[2]) end\n" \
    "if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'node', ARGV[4])\n" \
    "else redis.call('HDEL', KEYS[1], 'node') end\n" \
    "redis.call('PEXPIRE', KEYS[1], ARGV[5])\n" \
    "return 1\n"

const char *const hot_scripts[HOT_SCRIPT_COUNT_] = {
    [HOT_END] = END_SCRIPT, [HOT_STATE] = STATE_SCRIPT};

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
