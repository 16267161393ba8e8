/* Partial tokens of jobs that run elsewhere: read from Redis into `live`, where local watchers find
 * them as those of jobs that run here. A second connection is subscribed to the streams that are
 * watched; a message there only says that there is more: what there is, is read from the stream,
 * from where we are on. So whoever comes late, or was away, has all of it too. */
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_EVENTS = 500, DEADLINE_MS = 2000, RUN_BYTES = 24 };

struct hot_stream {
    struct map_node node; /* in watched */
    struct list link;     /* in watch_changes */
    size_t n_watchers;    /* under the lock, as what stands above */
    bool is_new;          /* its watchers have nothing yet: all is to be read */
    bool is_loaded;
    struct hot *h;
    struct list known;  /* hot's thread's alone, as what stands below; in known_streams */
    int n_commands;     /* on their way with this struct */
    bool is_reading;    /* one of them is for events … */
    bool is_reply_void; /* … that are asked for anew */
    bool has_more;
    int64_t after; /* id of the last event that was read; 0: none */
    char run[RUN_BYTES];
    size_t n_tenant;
    char key[]; /* tenant/id */
};

static const char prefix[] = "genq:stream:";

static struct str tenant_of(const struct hot_stream *s)
{
    return str_of(s->key, s->n_tenant);
}

static struct str id_of(const struct hot_stream *s)
{
    return str_z(s->key + s->n_tenant + 1);
}

static void mirror(struct hot_stream *s, const struct stream_part *p)
{
    live_mirror(s->h->live, tenant_of(s), id_of(s), p);
}

/* ---- reading a stream ---- */

static void read_more(struct hot_stream *s);
static void let_go(struct hot_stream *s);

static void set_loaded(struct hot_stream *s)
{
    bool was_loaded;

    pthread_mutex_lock(&s->h->lock);
    was_loaded = s->is_loaded;
    s->is_loaded = true;
    pthread_mutex_unlock(&s->h->lock);
    if (!was_loaded)
        mirror(s, NULL);
}

static bool read_event(const struct redis_reply *entry, struct stream_part *p, char run[RUN_BYTES])
{
    const struct redis_reply *fields = redis_item(entry, 1);
    struct str id = redis_text(redis_item(entry, 0));
    const char *dash = id.p ? memchr(id.p, '-', id.n) : NULL;
    int64_t attempt;

    if (!dash || !str_int(str_of(id.p, (size_t)(dash - id.p)), &p->last) ||
        !str_eqz(redis_text(redis_item(fields, 0)), "event") ||
        !str_int(redis_text(redis_item(fields, 3)), &attempt))
        return false;
    str_copyz(run, RUN_BYTES, redis_text(redis_item(fields, 7)));
    p->attempt = (int)attempt;
    p->data = redis_text(redis_item(fields, 5));
    return hot_stream_kind(redis_text(redis_item(fields, 1)), &p->kind);
}

/* What we have is void: it is not the beginning of what there is. */
static void begin_anew(struct hot_stream *s, int attempt)
{
    mirror(s, &(struct stream_part){.kind = STREAM_RESTART, .attempt = attempt});
    s->after = 0;
    s->run[0] = '\0';
    s->is_reply_void = s->is_reading;
}

/* False where it does not follow what we have. */
static bool take(struct hot_stream *s, const struct redis_reply *entry)
{
    struct stream_part p = {.first = 0};
    char run[RUN_BYTES];

    if (!read_event(entry, &p, run))
        return true;
    if (p.kind != STREAM_RESTART && s->after > 0 &&
        (p.last != s->after + 1 || strcmp(run, s->run) != 0)) {
        begin_anew(s, p.attempt);
        return false;
    }
    mirror(s, &p);
    s->after = p.last;
    str_copyz(s->run, RUN_BYTES, str_z(run));
    return true;
}

static void on_events(void *data, int code, const struct redis_reply *reply)
{
    struct hot_stream *s = data;
    bool is_whole = !s->is_reply_void;
    size_t i, n = code == 0 && is_whole ? redis_count(reply) : 0;

    s->n_commands--;
    s->is_reading = s->is_reply_void = false;
    for (i = 0; i < n && is_whole; i++)
        is_whole = take(s, redis_item(reply, i));
    if (code == 0 && (!is_whole || s->has_more || n == PAGE_EVENTS))
        read_more(s);
    else
        set_loaded(s);
    let_go(s);
}

static void read_more(struct hot_stream *s)
{
    char key[HOT_KEY_BYTES], from[32], count[16];

    s->has_more = s->is_reading;
    if (s->is_reading)
        return;
    snprintf(key, sizeof key, "%s%s", prefix, s->key);
    snprintf(from, sizeof from, "%lld-0", (long long)s->after + 1);
    snprintf(count, sizeof count, "%d", PAGE_EVENTS);
    struct str args[] = {STR("XRANGE"), str_z(key),   str_z(from),
                         STR("+"),      STR("COUNT"), str_z(count)};

    s->is_reading = redis_send(s->h->redis, args, sizeof args / sizeof args[0], on_events, s) == 0;
    s->n_commands += s->is_reading;
    if (!s->is_reading)
        set_loaded(s);
}

/* ---- the subscriber ---- */

static struct hot_stream *find(struct hot *h, struct str key)
{
    struct map_node *node;

    pthread_mutex_lock(&h->lock);
    node = map_get(&h->watched, key);
    pthread_mutex_unlock(&h->lock);
    return node ? LIST_ENTRY(node, struct hot_stream, node) : NULL;
}

/* The text is the highest id, and whose it is. Where that is less than we have, and not by him whom
 * we read, Redis has lost the stream, and it begins anew. */
static void on_message(void *data, struct str channel, struct str text)
{
    const char *space = text.n ? memchr(text.p, ' ', text.n) : NULL;
    size_t n_top = space ? (size_t)(space - text.p) : 0;
    struct hot_stream *s;
    int64_t top;

    if (!space || !str_int(str_of(text.p, n_top), &top) || !str_starts(channel, str_z(prefix)))
        return;
    s = find(data, str_of(channel.p + sizeof prefix - 1, channel.n - sizeof prefix + 1));
    if (!s || top == s->after)
        return;
    if (top < s->after && !str_eqz(str_of(text.p + n_top + 1, text.n - n_top - 1), s->run))
        begin_anew(s, 1);
    if (top > s->after)
        read_more(s);
}

static void on_subscribed(void *data, int code, const struct redis_reply *reply)
{
    struct hot_stream *s = data;

    (void)code, (void)reply;
    s->n_commands--;
    read_more(s); /* where it could not be done, on_up does it again */
    let_go(s);
}

static void on_unsubscribed(void *data, int code, const struct redis_reply *reply)
{
    (void)data, (void)code, (void)reply;
}

static void subscribe(struct hot_stream *s)
{
    char key[HOT_KEY_BYTES];

    snprintf(key, sizeof key, "%s%s", prefix, s->key);
    if (redis_send(s->h->messages, (struct str[]){STR("SUBSCRIBE"), str_z(key)}, 2, on_subscribed,
                   s) == 0)
        s->n_commands++;
    else
        read_more(s);
}

static void each_known(struct hot *h, void (*fn)(struct hot_stream *s))
{
    struct list *known;

    for (known = h->known_streams.next; known != &h->known_streams; known = known->next)
        fn(LIST_ENTRY(known, struct hot_stream, known));
}

static void on_messages_up(void *data)
{
    each_known(data, subscribe);
}

void hot_read_watched(struct hot *h)
{
    each_known(h, read_more);
}

static void open_messages(struct hot *h)
{
    struct redis_options o = {.loop = &h->loop,
                              .urlz = h->config->redis_url,
                              .deadline_ms = DEADLINE_MS,
                              .on_up = on_messages_up,
                              .on_message = on_message,
                              .data = h};

    if (!h->messages && !atomic_load(&h->is_closing))
        h->messages = redis_open(&o, NULL);
}

/* ---- what is watched ---- */

/* Forgets it, if nobody and nothing needs it any more. */
static void let_go(struct hot_stream *s)
{
    struct hot *h = s->h;
    char key[HOT_KEY_BYTES];
    bool is_needed;

    pthread_mutex_lock(&h->lock);
    is_needed = s->n_watchers > 0 || s->n_commands > 0 || list_is_linked(&s->link);
    if (!is_needed)
        map_remove(&h->watched, &s->node);
    pthread_mutex_unlock(&h->lock);
    if (is_needed)
        return;
    snprintf(key, sizeof key, "%s%s", prefix, s->key);
    if (list_is_linked(&s->known)) {
        list_remove(&s->known);
        redis_send(h->messages, (struct str[]){STR("UNSUBSCRIBE"), str_z(key)}, 2, on_unsubscribed,
                   h);
    }
    free(s);
}

/* Subscribes first, then reads: so nothing is missed. */
static void begin(struct hot_stream *s)
{
    struct hot *h = s->h;

    live_clear_mirror(h->live, tenant_of(s), id_of(s));
    s->after = 0;
    s->run[0] = '\0';
    s->is_reply_void = s->is_reading;
    open_messages(h);
    if (list_is_linked(&s->known)) {
        read_more(s);
    } else if (h->messages) {
        list_push(&h->known_streams, &s->known);
        subscribe(s);
    }
}

void hot_look_at_watched(struct hot *h)
{
    struct hot_stream *s;
    struct list *link;
    bool is_new;

    for (;;) {
        pthread_mutex_lock(&h->lock);
        link = list_pop(&h->watch_changes);
        s = link ? LIST_ENTRY(link, struct hot_stream, link) : NULL;
        is_new = s && s->is_new && s->n_watchers > 0;
        if (is_new)
            s->is_new = false;
        pthread_mutex_unlock(&h->lock);
        if (!s)
            return;
        if (is_new)
            begin(s);
        let_go(s);
    }
}

static void forget(struct map_node *node, void *data)
{
    struct hot *h = data;

    map_remove(&h->watched, node);
    free(LIST_ENTRY(node, struct hot_stream, node));
}

void hot_forget_watched(struct hot *h)
{
    map_each(&h->watched, forget, h);
}

/* ---- any thread ---- */

static struct hot_stream *add(struct hot *h, struct str tenant, struct str id)
{
    size_t n = tenant.n + 1 + id.n;
    struct hot_stream *s = xcalloc(1, sizeof *s + n + 1);

    s->h = h;
    s->n_tenant = tenant.n;
    snprintf(s->key, n + 1, "%.*s/%.*s", STR_ARG(tenant), STR_ARG(id));
    map_put(&h->watched, &s->node, str_z(s->key));
    return s;
}

static void note_change(struct hot_stream *s)
{
    if (!list_is_linked(&s->link))
        list_push(&s->h->watch_changes, &s->link);
}

struct hot_stream *hot_watch(struct hot *h, struct str tenant, struct str id)
{
    char bytes[2 * ID_MAX + 2];
    struct map_node *node;
    struct hot_stream *s;
    size_t n;

    if (h->config->broker_kind != BROKER_KIND_KAFKA || tenant.n > ID_MAX || id.n > ID_MAX)
        return NULL;
    n = (size_t)snprintf(bytes, sizeof bytes, "%.*s/%.*s", STR_ARG(tenant), STR_ARG(id));
    pthread_mutex_lock(&h->lock);
    node = map_get(&h->watched, str_of(bytes, n));
    s = node ? LIST_ENTRY(node, struct hot_stream, node) : add(h, tenant, id);
    if (s->n_watchers++ == 0) {
        s->is_new = true;
        s->is_loaded = false;
        note_change(s);
    }
    pthread_mutex_unlock(&h->lock);
    uv_async_send(&h->wake);
    return s;
}

bool hot_is_loaded(struct hot *h, struct hot_stream *s)
{
    bool is_loaded;

    pthread_mutex_lock(&h->lock);
    is_loaded = s->is_loaded;
    pthread_mutex_unlock(&h->lock);
    return is_loaded;
}

void hot_unwatch(struct hot *h, struct hot_stream *s)
{
    pthread_mutex_lock(&h->lock);
    if (--s->n_watchers == 0)
        note_change(s);
    pthread_mutex_unlock(&h->lock);
    uv_async_send(&h->wake);
}
