#include "store/claims.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/redis.h"
#include "broker-config/config.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    IDS_A_COMMAND = 256,
    REST_MS = 1000, /* after a silence, in which nothing is asked */
    FIXED_ARGS = 4, /* EVALSHA, script, how many, and how long a claim holds */
    NAME_BYTES = 160,
    PENDING_BYTES = 32 << 20,
    SHA_BYTES = 41,
};

/* KEYS: ids. ARGV: how long in ms, then each one's digest. Gives which of them are another job's.
 */
static const char script[] =
    "local others = {}\n"
    "for i = 1, #KEYS do\n"
    "  if not redis.call('SET', KEYS[i], ARGV[i + 1], 'NX', 'PX', ARGV[1]) then\n"
    "    local was = redis.pcall('GET', KEYS[i])\n"
    "    if type(was) == 'string' and was ~= ARGV[i + 1] then\n"
    "      others[#others + 1] = i\n"
    "    else\n"
    "      redis.call('PEXPIRE', KEYS[i], ARGV[1])\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return others\n";

struct claims {
    struct inbox *inbox;
    uv_loop_t *loop;
    struct redis *redis;
    char sha[SHA_BYTES]; /* of the script, where this Redis has it; "": not yet */
    int64_t rest_to_ms;  /* loop's time */
    bool is_fault_logged;
};

/* A part of an order, on its way. */
struct question {
    struct claim_order *order;
    size_t first, n;
};

static void on_loaded(void *data, int code, const struct redis_reply *reply)
{
    struct claims *c = data;

    if (code == 0)
        str_copyz(c->sha, sizeof c->sha, redis_text(reply));
}

static void load_script(struct claims *c)
{
    struct str load[] = {STR("SCRIPT"), STR("LOAD"), str_z(script)};

    c->sha[0] = '\0';
    redis_send(c->redis, load, 3, on_loaded, c);
}

static void on_up(void *data)
{
    struct claims *c = data;

    c->rest_to_ms = 0;
    load_script(c);
}

/* ---- answers ---- */

static void end_part(struct claim_order *o)
{
    if (--o->n_out == 0)
        o->on_done(o);
}

static void leave_unclaimed(struct claim_order *o, size_t n)
{
    o->is_unclaimed = true;
    metric_add(METRIC_IDS_UNCLAIMED, (int64_t)n);
}

static void note_failure(struct claims *c, int code, const struct redis_reply *reply)
{
    char why[256];

    if (code == ERR_TIMEOUT)
        c->rest_to_ms = (int64_t)uv_now(c->loop) + REST_MS;
    if (code == ERR_NOT_FOUND)
        load_script(c);
    if (c->is_fault_logged || code == ERR_CLOSED || code == ERR_NOT_FOUND)
        return;
    str_copyz(why, sizeof why, reply ? redis_text(reply) : STR("redis did not answer in time"));
    log_warn("ids_unclaimed", LZ("error", why));
    c->is_fault_logged = true;
}

static void on_claimed(void *data, int code, const struct redis_reply *reply)
{
    struct question *q = data;
    struct claim_order *o = q->order;
    size_t i;
    int64_t at;

    if (code == 0) {
        o->claims_->is_fault_logged = false;
    } else {
        note_failure(o->claims_, code, reply);
        leave_unclaimed(o, q->n);
    }
    for (i = 0; code == 0 && i < redis_count(reply); i++) {
        at = redis_int(redis_item(reply, i));
        if (at > 0 && (size_t)at <= q->n)
            o->claims[q->first + (size_t)at - 1].is_conflict = true;
    }
    free(q);
    end_part(o);
}

/* ---- questions ---- */

/* Names go to `names`, which has room for them: they may not move. */
static void put_ids(const struct claim *claims, size_t n, struct str *args, struct buf *names)
{
    size_t i, at;

    for (i = 0; i < n; i++) {
        at = names->n;
        buf_addz(names, "genq:idem:");
        buf_adds(names, claims[i].tenant);
        buf_addc(names, '/');
        buf_adds(names, claims[i].id);
        args[FIXED_ARGS - 1 + i] = str_of(names->p + at, names->n - at);
        args[FIXED_ARGS + n + i] = claims[i].digest;
    }
}

static int ask(struct claims *c, struct question *q)
{
    struct str *args = xcalloc(FIXED_ARGS + 2 * q->n, sizeof *args);
    char count[24], how_long[24];
    struct buf names;
    int rc;

    snprintf(count, sizeof count, "%zu", q->n);
    snprintf(how_long, sizeof how_long, "%d", CLAIM_MS);
    buf_init(&names, q->n * NAME_BYTES + 1);
    buf_reserve(&names, q->n * NAME_BYTES);
    args[0] = c->sha[0] ? STR("EVALSHA") : STR("EVAL");
    args[1] = str_z(c->sha[0] ? c->sha : script);
    args[2] = str_z(count);
    args[FIXED_ARGS - 1 + q->n] = str_z(how_long);
    put_ids(&q->order->claims[q->first], q->n, args, &names);
    rc = redis_send(c->redis, args, FIXED_ARGS + 2 * q->n, on_claimed, q);
    buf_release(&names);
    free(args);
    return rc;
}

static void on_receive(struct message *m)
{
    struct claim_order *o = LIST_ENTRY(m, struct claim_order, message);
    struct claims *c = o->claims_;
    bool is_resting = c->rest_to_ms > (int64_t)uv_now(c->loop);
    struct question *q;
    size_t at;

    o->n_out = 1; /* until all is asked */
    for (at = 0; at < o->n; at += IDS_A_COMMAND) {
        q = xcalloc(1, sizeof *q);
        *q = (struct question){o, at, o->n - at < IDS_A_COMMAND ? o->n - at : IDS_A_COMMAND};
        o->n_out++;
        if (!is_resting && ask(c, q) == 0)
            continue;
        leave_unclaimed(o, q->n);
        o->n_out--;
        free(q);
    }
    end_part(o);
}

void claims_take(struct claims *c, struct claim_order *o)
{
    o->claims_ = c;
    o->message.on_receive = on_receive;
    inbox_post(c->inbox, &o->message);
}

/* ---- the client ---- */

struct claims *claims_open(const struct config *config, uv_loop_t *loop, struct err *e)
{
    struct claims *c = xcalloc(1, sizeof *c);
    struct redis_options o = {.loop = loop,
                              .urlz = config->redis_url,
                              .deadline_ms = CLAIM_WAIT_MS,
                              .max_bytes = PENDING_BYTES,
                              .on_up = on_up,
                              .data = c};

    c->loop = loop;
    c->redis = redis_open(&o, e);
    if (!c->redis) {
        free(c);
        return NULL;
    }
    c->inbox = inbox_new(loop);
    return c;
}

void claims_close(struct claims *c)
{
    redis_close(c->redis);
    inbox_drain(c->inbox); /* what was not asked yet goes on without */
    inbox_free(c->inbox);
    free(c);
}
