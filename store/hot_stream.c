/* Partial tokens of jobs that run here, for whoever watches them elsewhere. `live` has them all, up
 * to limits.stream_bytes a job: what is new goes into a batch, and stays new until Redis says that
 * it has it. So there is no queue here, what comes thick goes as one, and after any failure the
 * next batch goes on from where Redis is. */
#include "base/log.h"
#include "base/metric.h"
#include "base/sha256.h"
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    RUN_BYTES = 6,
    ARGS_MAX = 128,
    FIRST_ARG = 9, /* of the events, in the command */
    ARGS_EACH = 5,
    COMMAND_MAX_BYTES = 256 << 10,
    NUMBER_BYTES = 24,
    KEEP_MS = 3600000,     /* after the last token of a worker that was killed */
    KEEP_ENDED_MS = 60000, /* for who is still reading; the completion has all of it */
};

struct told_stream {
    struct map_node node;
    struct list link; /* in new_streams or changed_streams */
    struct watcher watcher;
    struct hot *h;
    int64_t copied; /* number of the last event that Redis has */
    int64_t top;    /* its id there; 0: none yet */
    bool is_sent;   /* a command is on its way */
    bool is_void;   /* somebody else's by now, or no stream: nothing more is written */
    char run[2 * RUN_BYTES + 1];
    size_t n_tenant;
    char key[]; /* tenant/id */
};

static struct str tenant_of(const struct told_stream *t)
{
    return str_of(t->key, t->n_tenant);
}

static struct str id_of(const struct told_stream *t)
{
    return str_z(t->key + t->n_tenant + 1);
}

/* ---- the worker's thread, under live's lock ---- */

static void on_stream(void *data, struct str tenant, struct str id)
{
    size_t n = tenant.n + 1 + id.n;
    struct told_stream *t = xcalloc(1, sizeof *t + n + 1);
    struct hot *h = data;

    t->h = h;
    t->n_tenant = tenant.n;
    snprintf(t->key, n + 1, "%.*s/%.*s", STR_ARG(tenant), STR_ARG(id));
    pthread_mutex_lock(&h->stream_lock);
    list_push(&h->new_streams, &t->link);
    pthread_mutex_unlock(&h->stream_lock);
    uv_async_send(&h->wake);
}

static void on_news(struct watcher *w)
{
    struct told_stream *t = LIST_ENTRY(w, struct told_stream, watcher);
    struct hot *h = t->h;

    pthread_mutex_lock(&h->stream_lock);
    if (!list_is_linked(&t->link))
        list_push(&h->changed_streams, &t->link);
    pthread_mutex_unlock(&h->stream_lock);
    uv_async_send(&h->wake);
}

void hot_tell_streams(struct hot *h)
{
    live_tell_streams(h->live, on_stream, h);
}

/* ---- which there are ---- */

static struct told_stream *pop(struct hot *h, struct list *head)
{
    struct list *link;

    pthread_mutex_lock(&h->stream_lock);
    link = list_pop(head);
    pthread_mutex_unlock(&h->stream_lock);
    return link ? LIST_ENTRY(link, struct told_stream, link) : NULL;
}

static void take_new(struct hot *h)
{
    struct told_stream *t;
    uint8_t run[RUN_BYTES];

    while ((t = pop(h, &h->new_streams))) {
        if (map_get(&h->told_streams, str_z(t->key))) { /* it goes on */
            free(t);
            continue;
        }
        id_random(run, sizeof run);
        hex(run, sizeof run, t->run);
        map_put(&h->told_streams, &t->node, str_z(t->key));
        t->watcher.on_wake = on_news;
        live_watch(h->live, tenant_of(t), id_of(t), &t->watcher);
        on_news(&t->watcher);
    }
}

static void forget(struct map_node *node, void *data)
{
    struct told_stream *t = LIST_ENTRY(node, struct told_stream, node);
    struct hot *h = data;

    live_unwatch(h->live, &t->watcher);
    pthread_mutex_lock(&h->stream_lock);
    if (list_is_linked(&t->link))
        list_remove(&t->link);
    pthread_mutex_unlock(&h->stream_lock);
    map_remove(&h->told_streams, node);
    free(t);
}

void hot_forget_streams(struct hot *h)
{
    struct told_stream *t;

    map_each(&h->told_streams, forget, h);
    while ((t = pop(h, &h->new_streams)))
        free(t);
}

static bool has_ended(const struct told_stream *t)
{
    struct live_view live;

    return !live_get(t->h->live, tenant_of(t), id_of(t), &live);
}

/* While Redis is away the tokens of jobs that have ended would stay for ever. */
static void drop_ended(struct map_node *node, void *data)
{
    struct told_stream *t = LIST_ENTRY(node, struct told_stream, node);
    struct hot *h = data;

    if (t->is_sent || !has_ended(t))
        return;
    metric_add(METRIC_REDIS_DROPPED, 1);
    if (!h->has_dropped)
        log_warn("redis_streams_dropped", LS("id", id_of(t)));
    h->has_dropped = true;
    forget(node, h);
}

void hot_drop_streams(struct hot *h)
{
    take_new(h);
    if (h->step != HOT_READY)
        map_each(&h->told_streams, drop_ended, h);
}

/* ---- the command ---- */

/* Its arguments, of which `bytes` has those of the events: these may not move. */
struct stream_command {
    struct str args[ARGS_MAX];
    size_t n;
    struct buf bytes;
    int first_attempt;
    bool is_all; /* that there are */
    char key[HOT_KEY_BYTES], top[NUMBER_BYTES], keep[NUMBER_BYTES], attempt[NUMBER_BYTES];
};

static const char *const kind_names[STREAM_KIND_COUNT] = {[STREAM_RUNNING] = "running",
                                                          [STREAM_QUEUED] = "queued",
                                                          [STREAM_TEXT] = "delta",
                                                          [STREAM_CUT] = "cut",
                                                          [STREAM_RESTART] = "restart"};

bool hot_stream_kind(struct str name, enum stream_kind *kind)
{
    for (int i = 0; i < STREAM_KIND_COUNT; i++)
        if (str_eqz(name, kind_names[i])) {
            *kind = (enum stream_kind)i;
            return true;
        }
    return false;
}

static void add(struct stream_command *c, struct str s)
{
    size_t from = c->bytes.n;

    buf_adds(&c->bytes, s);
    c->args[c->n++] = str_of(c->bytes.p + from, s.n);
}

static void add_number(struct stream_command *c, int64_t v)
{
    char digits[NUMBER_BYTES];

    snprintf(digits, sizeof digits, "%lld", (long long)v);
    add(c, str_z(digits));
}

static bool on_part(void *data, const struct stream_part *p)
{
    struct stream_command *c = data;

    if (c->n + ARGS_EACH > ARGS_MAX ||
        c->bytes.n + p->data.n + ARGS_EACH * NUMBER_BYTES > COMMAND_MAX_BYTES)
        return false;
    if (c->n == FIRST_ARG) {
        c->is_all = p->is_first;
        c->first_attempt = p->attempt;
    }
    add_number(c, p->first);
    add_number(c, p->last);
    add(c, str_z(kind_names[p->kind]));
    add_number(c, p->attempt);
    add(c, p->data);
    return true;
}

static void on_written(void *data, int code, const struct redis_reply *reply)
{
    struct told_stream *t = data;
    struct hot *h = t->h;
    int64_t copied = redis_int(redis_item(reply, 0));

    t->is_sent = false;
    if (hot_answered(h, code, reply)) {
        t->is_void = copied < 0;
        t->copied = copied;
        t->top = redis_int(redis_item(reply, 1));
    }
    on_news(&t->watcher); /* there may be more, or its end has come */
    hot_go_on(h);
}

static void put_head(struct stream_command *c, const struct told_stream *t)
{
    snprintf(c->key, sizeof c->key, "genq:stream:%s", t->key);
    snprintf(c->top, sizeof c->top, "%lld", (long long)t->top);
    snprintf(c->keep, sizeof c->keep, "%d", KEEP_MS);
    snprintf(c->attempt, sizeof c->attempt, "%d", c->first_attempt);
    c->args[0] = STR("EVALSHA");
    c->args[1] = str_z(t->h->sha[HOT_STREAM]);
    c->args[2] = STR("1");
    c->args[3] = str_z(c->key);
    c->args[4] = str_z(t->run);
    c->args[5] = str_z(c->top);
    c->args[6] = c->is_all ? STR("1") : STR("0");
    c->args[7] = str_z(c->keep);
    c->args[8] = str_z(c->attempt);
}

/* False when there is nothing new. */
static bool send_news(struct told_stream *t, struct stream_command *c)
{
    c->n = FIRST_ARG;
    buf_clear(&c->bytes);
    live_copy(t->h->live, tenant_of(t), id_of(t), t->copied, on_part, c);
    if (c->n == FIRST_ARG)
        return false;
    put_head(c, t);
    t->is_sent = hot_send_to(t->h, c->args, c->n, on_written, t);
    if (!t->is_sent)
        on_news(&t->watcher);
    return true;
}

static void on_expiry_set(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    hot_answered(h, code, reply);
    hot_go_on(h);
}

static void end(struct told_stream *t)
{
    char key[HOT_KEY_BYTES], keep[NUMBER_BYTES];
    struct hot *h = t->h;

    snprintf(key, sizeof key, "genq:stream:%s", t->key);
    snprintf(keep, sizeof keep, "%d", KEEP_ENDED_MS);
    if (t->top > 0 && !t->is_void)
        hot_send(h, (struct str[]){STR("PEXPIRE"), str_z(key), str_z(keep)}, 3, on_expiry_set);
    h->has_dropped = false;
    forget(&t->node, h);
}

void hot_send_streams(struct hot *h)
{
    struct stream_command *c = NULL;
    struct told_stream *t;
    bool is_over;

    take_new(h);
    while (hot_has_room(h) && (t = pop(h, &h->changed_streams))) {
        if (t->is_sent) /* its answer looks again */
            continue;
        if (!c) {
            c = xmalloc(sizeof *c);
            buf_init(&c->bytes, COMMAND_MAX_BYTES);
            buf_reserve(&c->bytes, COMMAND_MAX_BYTES);
        }
        is_over = has_ended(t); /* before the look: nothing comes after it */
        if ((t->is_void || !send_news(t, c)) && is_over)
            end(t);
    }
    if (c)
        buf_release(&c->bytes);
    free(c);
}
