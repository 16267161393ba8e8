/* Cached answers in Redis, for all workers that write there: docs/redis.md. A connection of its
 * own, on the worker's loop. Each answer is a string that expires by itself; a list of them by age
 * and their sizes hold cache.max_bytes, for which the script that keeps one takes the oldest away.
 */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/redis.h"
#include "store/cache_internal.h"
#include <stdio.h>
#include <stdlib.h>

#define PREFIX "genq:cache:"
enum {
    KEY_BYTES = sizeof PREFIX + 2 * SHA256_LEN,
    NUMBER_BYTES = 24,
    DEADLINE_MS = 4 * CACHE_LOOK_MS, /* while one is overdue, cache.c asks no more */
};

/* KEYS: the answer, the list, the sizes. ARGV: the answer's digest, itself, ttl in ms, most bytes,
 * now in ms. Sizes without a list, which Redis may have evicted, are nobody's. Redis refuses a
 * script that writes more while its memory is used up, but not before it has written: so what goes
 * goes first. */
static const char script[] =
    "local n = #ARGV[2] + 200\n"
    "local function drop(d)\n"
    "  local size = redis.call('HGET', KEYS[3], d)\n"
    "  if size then\n"
    "    redis.call('ZREM', KEYS[2], d)\n"
    "    redis.call('HDEL', KEYS[3], d)\n"
    "    redis.call('HINCRBY', KEYS[3], 'total', -size)\n"
    "  end\n"
    "end\n"
    "drop(ARGV[1])\n"
    "for i = 1, 256 do\n"
    "  local old = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')\n"
    "  local total = tonumber(redis.call('HGET', KEYS[3], 'total') or 0)\n"
    "  if not old[1] then\n"
    "    if total ~= 0 then redis.call('DEL', KEYS[3]) end\n"
    "    break\n"
    "  end\n"
    "  if total + n <= tonumber(ARGV[4]) and tonumber(old[2]) > ARGV[5] - ARGV[3] then break end\n"
    "  redis.call('DEL', '" PREFIX "' .. old[1])\n"
    "  drop(old[1])\n"
    "  redis.call('ZREM', KEYS[2], old[1])\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\n"
    "redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])\n"
    "redis.call('HSET', KEYS[3], ARGV[1], n)\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[3])\n"
    "redis.call('PEXPIRE', KEYS[3], ARGV[3])\n"
    "return {redis.call('HINCRBY', KEYS[3], 'total', n), redis.call('ZCARD', KEYS[2])}\n";

struct store {
    struct redis *redis;
    int64_t ttl_ms, max_bytes;
    bool is_fault_logged;
};

static void *open_redis(const struct config *c, uv_loop_t *loop)
{
    struct store *s = xcalloc(1, sizeof *s);
    struct redis_options o = {.loop = loop, .urlz = c->redis_url, .deadline_ms = DEADLINE_MS};
    struct err e;

    s->ttl_ms = c->cache_ttl_s * 1000;
    s->max_bytes = c->cache_max_bytes;
    s->redis = redis_open(&o, &e);
    if (s->redis)
        return s;
    log_warn("cache_fails", LZ("error", e.msg));
    free(s);
    return NULL;
}

static void close_redis(void *driver)
{
    struct store *s = driver;

    redis_close(s->redis);
    free(s);
}

static void write_key(const uint8_t key[SHA256_LEN], char dst[KEY_BYTES])
{
    memcpy(dst, PREFIX, sizeof PREFIX);
    hex(key, SHA256_LEN, dst + sizeof PREFIX - 1);
}

/* ---- looking ---- */

/* What it says goes into a completion as it is, and others may write there. */
static bool is_output(struct str text)
{
    struct json *j = text.n > 0 ? json_parse(text, NULL) : NULL;
    bool is_object = j && json_type(j) == JSON_OBJECT;

    json_free(j);
    return is_object;
}

static void on_found(void *data, int code, const struct redis_reply *reply)
{
    struct str text = code == 0 ? redis_text(reply) : STR_NONE;

    cache_answer(data, is_output(text) ? text : STR_NONE);
}

static int look(void *driver, const uint8_t key[SHA256_LEN], struct cache_ask *a)
{
    struct store *s = driver;
    char name[KEY_BYTES];

    write_key(key, name);
    return redis_send(s->redis, (struct str[]){STR("GET"), str_z(name)}, 2, on_found, a);
}

/* ---- keeping ---- */

static void note(struct store *s, struct str why)
{
    char text[256];

    metric_add(METRIC_CACHE_DROPPED, 1);
    str_copyz(text, sizeof text, why);
    if (!s->is_fault_logged)
        log_warn("cache_fails", LZ("error", text));
    s->is_fault_logged = true;
}

static void on_kept(void *data, int code, const struct redis_reply *reply)
{
    struct store *s = data;

    if (code == ERR_CLOSED) /* maybe by close_redis */
        return;
    if (code != 0) {
        note(s, reply ? redis_text(reply) : STR("redis did not answer in time"));
        return;
    }
    s->is_fault_logged = false;
    metric_set(METRIC_CACHE_BYTES, redis_int(redis_item(reply, 0)));
    metric_set(METRIC_CACHE_ENTRIES, redis_int(redis_item(reply, 1)));
}

static void keep(void *driver, const uint8_t key[SHA256_LEN], struct str output)
{
    struct store *s = driver;
    char name[KEY_BYTES], ttl[NUMBER_BYTES], most[NUMBER_BYTES], now[NUMBER_BYTES];
    struct str args[] = {STR("EVAL"),
                         str_z(script),
                         STR("3"),
                         str_of(name, KEY_BYTES - 1),
                         STR("genq:cache-list"),
                         STR("genq:cache-sizes"),
                         str_of(name + sizeof PREFIX - 1, 2 * SHA256_LEN),
                         output,
                         STR_NONE,
                         STR_NONE,
                         STR_NONE};

    if ((int64_t)output.n > s->max_bytes)
        return;
    write_key(key, name);
    snprintf(ttl, sizeof ttl, "%lld", (long long)s->ttl_ms);
    snprintf(most, sizeof most, "%lld", (long long)s->max_bytes);
    snprintf(now, sizeof now, "%lld", (long long)clock_wall_ms());
    args[8] = str_z(ttl);
    args[9] = str_z(most);
    args[10] = str_z(now);
    if (redis_send(s->redis, args, sizeof args / sizeof args[0], on_kept, s) != 0)
        metric_add(METRIC_CACHE_DROPPED, 1);
}

const struct cache_ops cache_redis_ops = {open_redis, look, keep, close_redis};
