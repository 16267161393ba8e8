/* Who is there: this process' heartbeat with its engine nodes, and those of all others for who
 * asks. */
#include "base/clock.h"
#include "base/json.h"
#include "base/metric.h"
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BEAT_MS = 5000,
    VIEW_AGE_MS = 1000,
    WORKER_MAX_BYTES = 1 << 20,
    VIEW_MAX_BYTES = 32 << 20,
    FORGET_MS = 3600000,
};

#define BEAT_KEPT STR("15000")

/* ---- what we say ---- */

void hot_name_worker(struct hot *h)
{
    char host[256] = "";
    struct buf b;

    gethostname(host, sizeof host - 1);
    id_ulid(clock_wall_ms(), h->id);
    h->started_at = clock_wall_ms();
    buf_init(&b, sizeof h->who);
    buf_addc(&b, ',');
    json_put_member_str(&b, "worker", str_z(h->id));
    buf_addc(&b, ',');
    json_put_member_str(&b, "host",
                        str_utf8_bad(str_z(host)) == strlen(host) ? str_z(host) : STR(""));
    str_copyz(h->who, sizeof h->who, buf_str(&b));
    buf_release(&b);
}

struct printing {
    struct hot *h;
    struct buf *b;
    const char *sepz;
};

static void put_node(struct printing *p, struct str json)
{
    buf_adds(p->b, str_of(json.p, json.n - 1)); /* without its } */
    buf_addz(p->b, p->h->who);
    buf_addc(p->b, '}');
}

static void put_listed(void *data, struct str name, struct str json)
{
    struct printing *p = data;

    (void)name;
    buf_addz(p->b, p->sepz);
    p->sepz = ",";
    put_node(p, json);
}

static void on_beat_written(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    hot_answered(h, code, reply);
    hot_go_on(h);
}

static void set_expiring(struct hot *h, const char *kindz, struct str name, struct str json)
{
    char key[HOT_KEY_BYTES];

    snprintf(key, sizeof key, "genq:%s:%.*s", kindz, STR_ARG(name));
    struct str args[] = {STR("SET"), str_z(key), json, STR("PX"), BEAT_KEPT};

    hot_send(h, args, sizeof args / sizeof args[0], on_beat_written);
}

static void send_node(void *data, struct str name, struct str json)
{
    struct printing *p = data;

    buf_clear(p->b);
    put_node(p, json);
    if (!p->b->is_over)
        set_expiring(p->h, "node", name, buf_str(p->b));
}

static void send_worker(struct hot *h, struct buf *b)
{
    struct printing p = {h, b, ""};

    buf_clear(b);
    buf_addc(b, '{');
    json_put_member_str(b, "id", str_z(h->id));
    buf_addf(b, ",\"pid\":%d,\"version\":\"" GENQ_VERSION "\",\"started_at\":%lld,\"at\":%lld",
             (int)getpid(), (long long)h->started_at, (long long)clock_wall_ms());
    buf_addf(b, ",\"running\":%lld,\"slots\":%lld", (long long)metric_get(METRIC_JOBS_RUNNING),
             (long long)metric_get(METRIC_SLOTS));
    buf_addz(b, h->who);
    buf_addz(b, ",\"nodes\":[");
    nodes_each(h->nodes, put_listed, &p);
    buf_addz(b, "]}");
    if (!b->is_over)
        set_expiring(h, "worker", str_z(h->id), buf_str(b));
}

/* A worker that is new there although it was there: Redis was emptied. */
static void on_member_written(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    if (hot_answered(h, code, reply)) {
        if (redis_int(reply) > 0 && h->is_member)
            hot_forget_running(h);
        h->is_member = true;
    }
    hot_go_on(h);
}

/* The list of all workers, since looking for keys by a pattern looks at every key there is. By the
 * time of day that Redis has, for that of a machine may be wrong. Gives whether it is new there. */
static void send_membership(struct hot *h)
{
    static const char script[] =
        "local t = redis.call('TIME') local ms = t[1] * 1000 + math.floor(t[2] / 1000) "
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms - ARGV[2]) "
        "return redis.call('ZADD', KEYS[1], ms, ARGV[1])";
    char forget[24];

    snprintf(forget, sizeof forget, "%d", FORGET_MS);
    hot_send(h,
             (struct str[]){STR("EVAL"), str_z(script), STR("1"), STR("genq:workers"), str_z(h->id),
                            str_z(forget)},
             6, on_member_written);
}

static void on_known(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    if (hot_answered(h, code, reply) && redis_int(reply) == 0)
        hot_fail(h, ERR_NOT_FOUND, STR("it has lost what was written"));
    hot_go_on(h);
}

/* Where no job ends, nothing else would notice that Redis was emptied. */
static void send_question(struct hot *h)
{
    hot_send(h, (struct str[]){STR("HEXISTS"), str_z(h->feed_key), STR("position")}, 3, on_known);
}

/* At once where nodes came or went. */
static bool is_due(struct hot *h)
{
    int64_t n_up = metric_get(METRIC_NODES_UP), n_slots = metric_get(METRIC_SLOTS);
    bool has_changed = n_up != h->beat_n_up || n_slots != h->beat_n_slots;

    if (!has_changed && h->beat_ms && clock_mono_ms() - h->beat_ms < BEAT_MS)
        return false;
    h->beat_ms = clock_mono_ms();
    h->beat_n_up = n_up;
    h->beat_n_slots = n_slots;
    return true;
}

void hot_send_beat(struct hot *h)
{
    struct printing p;
    struct buf b;

    if (!is_due(h))
        return;
    if (h->reader)
        send_question(h);
    if (!h->nodes)
        return;
    buf_init(&b, WORKER_MAX_BYTES);
    p = (struct printing){h, &b, ""};
    send_membership(h);
    send_worker(h, &b);
    nodes_each(h->nodes, send_node, &p);
    buf_release(&b);
}

bool hot_send_farewell(struct hot *h)
{
    char key[HOT_KEY_BYTES];

    if (!h->nodes || !h->beat_ms)
        return false;
    h->beat_ms = 0;
    snprintf(key, sizeof key, "genq:worker:%s", h->id);
    hot_send(h, (struct str[]){STR("DEL"), str_z(key)}, 2, on_beat_written);
    hot_send(h, (struct str[]){STR("ZREM"), STR("genq:workers"), str_z(h->id)}, 3, on_beat_written);
    return true;
}

/* ---- what others say ---- */

/* b is empty where it could not be asked. */
static void finish_view(struct hot *h, struct buf *b)
{
    struct list *node;

    pthread_mutex_lock(&h->lock);
    buf_release(&h->view);
    h->view = *b;
    h->view_ms = clock_mono_ms();
    h->is_view_wanted = false;
    for (node = h->waiters.next; node != &h->waiters; node = node->next) {
        struct hot_waiter *w = LIST_ENTRY(node, struct hot_waiter, node);

        w->on_ready(w);
    }
    pthread_mutex_unlock(&h->lock);
    h->is_asking = false;
}

static void put_worker(struct hot *h, struct str text, struct buf *b)
{
    struct json *worker = text.n ? json_parse(text, NULL) : NULL;
    const struct json *node = json_child(json_get(worker, "nodes"));

    for (; node && !str_eqz(json_str(json_get(worker, "id")), h->id); node = json_next(node)) {
        buf_addz(b, b->n ? "," : "");
        json_print(node, b);
    }
    json_free(worker);
}

static void on_workers(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;
    struct buf b;
    size_t i, whole;

    (void)code;
    buf_init(&b, VIEW_MAX_BYTES);
    for (i = 0; i < redis_count(reply) && !b.is_over; i++) {
        whole = b.n;
        put_worker(h, redis_text(redis_item(reply, i)), &b);
        if (b.is_over)
            b.n = whole;
    }
    b.is_over = false;
    finish_view(h, &b);
}

static void on_members(void *data, int code, const struct redis_reply *reply)
{
    static const char prefix[] = "genq:worker:";
    size_t i, n = redis_count(reply);
    struct str *args = xcalloc(n + 1, sizeof args[0]);
    struct hot *h = data;
    struct buf keys, none;

    (void)code;
    buf_init(&none, VIEW_MAX_BYTES);
    buf_init(&keys, SIZE_MAX);
    buf_reserve(&keys, n * HOT_KEY_BYTES + 1); /* at once: what stands there may not move */
    args[0] = STR("MGET");
    for (i = 0; i < n; i++) {
        struct str id = redis_text(redis_item(reply, i));
        size_t from = keys.n;

        buf_addf(&keys, "%s%.*s", prefix, id_is_valid(id) ? (int)id.n : 0, id.p);
        args[i + 1] = str_of(keys.p + from, keys.n - from);
    }
    if (n == 0 || redis_send(h->redis, args, n + 1, on_workers, h) != 0)
        finish_view(h, &none);
    buf_release(&keys);
    free(args);
}

/* Outside of batches: these change nothing. */
void hot_look_around(struct hot *h)
{
    struct str args[] = {STR("ZREVRANGE"), STR("genq:workers"), STR("0"), STR("999")};
    struct buf none;
    bool is_wanted;

    pthread_mutex_lock(&h->lock);
    is_wanted = h->is_view_wanted;
    pthread_mutex_unlock(&h->lock);
    if (!is_wanted || h->is_asking)
        return;
    h->is_asking = true;
    if (redis_send(h->redis, args, sizeof args / sizeof args[0], on_members, h) == 0)
        return;
    buf_init(&none, VIEW_MAX_BYTES);
    finish_view(h, &none);
}

/* ---- for the API; any thread ---- */

void hot_put_own_nodes(struct hot *h, struct nodes *ns, struct buf *b)
{
    struct printing p = {h, b, ""};

    nodes_each(ns, put_listed, &p);
}

bool hot_put_other_nodes(struct hot *h, struct buf *b)
{
    bool is_fresh;

    pthread_mutex_lock(&h->lock);
    is_fresh = h->view_ms && clock_mono_ms() - h->view_ms < VIEW_AGE_MS;
    if (h->view.n > 0) {
        buf_addz(b, b->n && b->p[b->n - 1] == '}' ? "," : "");
        buf_adds(b, buf_str(&h->view));
    }
    pthread_mutex_unlock(&h->lock);
    return is_fresh;
}

void hot_wait_nodes(struct hot *h, struct hot_waiter *w)
{
    pthread_mutex_lock(&h->lock);
    list_push(&h->waiters, &w->node);
    h->is_view_wanted = true;
    pthread_mutex_unlock(&h->lock);
    uv_async_send(&h->wake);
}

void hot_unwait_nodes(struct hot *h, struct hot_waiter *w)
{
    pthread_mutex_lock(&h->lock);
    if (list_is_linked(&w->node))
        list_remove(&w->node);
    pthread_mutex_unlock(&h->lock);
}
