/* One map of jobs, one lock. An entry is there while its job runs, waits for another attempt, or
 * is watched; so the count of entries tells, without the lock, that there is nobody to tell
 * anything. */
#include "store/live.h"
#include "base/id.h"
#include "base/map.h"
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { KEY_MAX = 2 * ID_MAX + 1, NODE_MAX = 64 };

struct entry {
    struct map_node node;
    struct list watchers;
    bool is_running, is_stream, has_ended; /* here */
    bool is_running_elsewhere;
    int attempts;
    int64_t started_at;
    struct stream stream;
    size_t n_tenant;
    char engine[NODE_MAX + 1];
    char key[]; /* tenant/id */
};

struct live {
    pthread_mutex_t lock;
    struct map jobs;
    struct list feed;             /* of struct watcher */
    atomic_size_t n_jobs, n_feed; /* read without the lock; changed under it */
    size_t stream_max_bytes;
    void (*on_stream)(void *data, struct str tenant, struct str id);
    void *on_stream_data;
};

struct live *live_new(size_t stream_max_bytes)
{
    struct live *l = xcalloc(1, sizeof *l);

    pthread_mutex_init(&l->lock, NULL);
    map_init(&l->jobs);
    list_init(&l->feed);
    l->stream_max_bytes = stream_max_bytes < UINT32_MAX ? stream_max_bytes : UINT32_MAX;
    return l;
}

static void free_entry(struct map_node *node, void *data)
{
    struct entry *entry = LIST_ENTRY(node, struct entry, node);

    (void)data;
    stream_release(&entry->stream);
    free(entry);
}

void live_free(struct live *l)
{
    map_each(&l->jobs, free_entry, NULL);
    map_release(&l->jobs);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- entries; under the lock ---- */

/* False when these can be no ids, and so no entry. */
static bool make_key(struct str tenant, struct str id, char dst[KEY_MAX], struct str *key)
{
    if (tenant.n > ID_MAX || id.n == 0 || id.n > ID_MAX)
        return false;
    if (tenant.n)
        memcpy(dst, tenant.p, tenant.n);
    dst[tenant.n] = '/';
    memcpy(dst + tenant.n + 1, id.p, id.n);
    *key = str_of(dst, tenant.n + 1 + id.n);
    return true;
}

static struct entry *find(const struct live *l, struct str tenant, struct str id)
{
    char bytes[KEY_MAX];
    struct str key;
    struct map_node *node = make_key(tenant, id, bytes, &key) ? map_get(&l->jobs, key) : NULL;

    return node ? LIST_ENTRY(node, struct entry, node) : NULL;
}

static struct entry *add(struct live *l, struct str tenant, struct str id)
{
    char bytes[KEY_MAX];
    struct str key;
    struct entry *entry;

    if (!make_key(tenant, id, bytes, &key))
        return NULL;
    entry = xcalloc(1, sizeof *entry + key.n);
    memcpy(entry->key, key.p, key.n);
    entry->n_tenant = tenant.n;
    list_init(&entry->watchers);
    stream_init(&entry->stream, l->stream_max_bytes);
    map_put(&l->jobs, &entry->node, str_of(entry->key, key.n));
    atomic_fetch_add(&l->n_jobs, 1);
    return entry;
}

/* Drops the entry when nothing holds it any more. */
static void release(struct live *l, struct entry *entry)
{
    bool is_alive = !entry->has_ended && entry->attempts > 0;

    if (is_alive || !list_is_empty(&entry->watchers))
        return;
    map_remove(&l->jobs, &entry->node);
    atomic_fetch_sub(&l->n_jobs, 1);
    free_entry(&entry->node, NULL);
}

static void wake(struct list *watchers)
{
    struct list *node;
    struct watcher *w;

    for (node = watchers->next; node != watchers; node = node->next) {
        w = LIST_ENTRY(node, struct watcher, node);
        w->on_wake(w);
    }
}

/* ---- the worker's side ---- */

void live_start(struct live *l, struct str tenant, struct str id, int attempt, struct str node,
                int64_t wall_ms, bool is_stream)
{
    struct entry *entry;

    assert(attempt > 0);
    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (!entry)
        entry = add(l, tenant, id);
    if (entry) {
        if (entry->attempts == 0 || entry->has_ended)
            entry->started_at = wall_ms;
        if (is_stream && !entry->is_stream && l->on_stream)
            l->on_stream(l->on_stream_data, tenant, id);
        entry->attempts = attempt;
        entry->is_running = true;
        entry->is_stream = is_stream;
        entry->has_ended = entry->is_running_elsewhere = false;
        str_copyz(entry->engine, sizeof entry->engine, node);
        stream_start(&entry->stream, attempt, str_z(entry->engine));
        wake(&entry->watchers);
    }
    pthread_mutex_unlock(&l->lock);
}

void live_requeue(struct live *l, struct str tenant, struct str id)
{
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry && entry->is_running) {
        entry->is_running = false;
        entry->engine[0] = '\0';
        stream_requeue(&entry->stream, entry->attempts);
        wake(&entry->watchers);
    }
    pthread_mutex_unlock(&l->lock);
}

void live_delta(struct live *l, struct str tenant, struct str id, struct str text)
{
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry && entry->is_running && entry->is_stream &&
        stream_delta(&entry->stream, entry->attempts, text))
        wake(&entry->watchers);
    pthread_mutex_unlock(&l->lock);
}

/* ---- the store's side ---- */

void live_end(struct live *l, struct str tenant, struct str id)
{
    struct entry *entry;

    /* Who watches from now on looks into the store afterwards, where the end stands already. */
    if (atomic_load(&l->n_jobs) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry) {
        entry->is_running = entry->is_stream = false;
        entry->has_ended = true;
        wake(&entry->watchers);
        release(l, entry);
    }
    pthread_mutex_unlock(&l->lock);
}

void live_feed(struct live *l)
{
    if (atomic_load(&l->n_feed) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    wake(&l->feed);
    pthread_mutex_unlock(&l->lock);
}

/* ---- between processes ---- */

void live_tell_streams(struct live *l,
                       void (*on_stream)(void *data, struct str tenant, struct str id), void *data)
{
    l->on_stream = on_stream;
    l->on_stream_data = data;
}

void live_copy(struct live *l, struct str tenant, struct str id, int64_t after,
               bool (*fn)(void *data, const struct stream_part *p), void *data)
{
    struct stream_part p;
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    while (entry && stream_next(&entry->stream, after, &p) && fn(data, &p))
        after = p.last;
    pthread_mutex_unlock(&l->lock);
}

void live_mirror(struct live *l, struct str tenant, struct str id, const struct stream_part *p)
{
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry && entry->attempts == 0) {
        if (p)
            stream_mirror(&entry->stream, p);
        if (p && (p->kind == STREAM_RUNNING || p->kind == STREAM_QUEUED))
            entry->is_running_elsewhere = p->kind == STREAM_RUNNING;
        wake(&entry->watchers);
    }
    pthread_mutex_unlock(&l->lock);
}

void live_clear_mirror(struct live *l, struct str tenant, struct str id)
{
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry && entry->attempts == 0) {
        stream_release(&entry->stream);
        stream_init(&entry->stream, l->stream_max_bytes);
        entry->is_running_elsewhere = false;
    }
    pthread_mutex_unlock(&l->lock);
}

bool live_runs_elsewhere(struct live *l, struct str tenant, struct str id)
{
    struct entry *entry;
    bool is_so;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    is_so = entry && entry->is_running_elsewhere && !entry->has_ended;
    pthread_mutex_unlock(&l->lock);
    return is_so;
}

/* ---- the gateway's side ---- */

bool live_get(struct live *l, struct str tenant, struct str id, struct live_view *out)
{
    struct entry *entry;
    bool is_known;

    if (atomic_load(&l->n_jobs) == 0)
        return false;
    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    is_known = entry && entry->attempts > 0 && !entry->has_ended;
    if (is_known) {
        out->is_running = entry->is_running;
        out->attempts = entry->attempts;
        out->started_at = entry->started_at;
        memcpy(out->node, entry->engine, sizeof out->node);
    }
    pthread_mutex_unlock(&l->lock);
    return is_known;
}

struct visit {
    int64_t before_ms;
    void (*fn)(void *data, struct str tenant, struct str id);
    void *data;
};

static void visit_running(struct map_node *node, void *data)
{
    struct entry *entry = LIST_ENTRY(node, struct entry, node);
    struct visit *visit = data;
    size_t n = entry->n_tenant;

    if (entry->is_running && entry->started_at < visit->before_ms)
        visit->fn(visit->data, str_of(entry->key, n),
                  str_of(entry->key + n + 1, node->key.n - n - 1));
}

void live_each_running(struct live *l, int64_t wall_ms,
                       void (*fn)(void *data, struct str tenant, struct str id), void *data)
{
    struct visit visit = {wall_ms, fn, data};

    if (atomic_load(&l->n_jobs) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    map_each(&l->jobs, visit_running, &visit);
    pthread_mutex_unlock(&l->lock);
}

void live_watch(struct live *l, struct str tenant, struct str id, struct watcher *w)
{
    struct entry *entry;

    w->entry = NULL;
    w->node.prev = w->node.next = NULL;
    pthread_mutex_lock(&l->lock);
    if (tenant.n == 0 && id.n == 0) {
        list_push(&l->feed, &w->node);
        atomic_fetch_add(&l->n_feed, 1);
    } else {
        entry = find(l, tenant, id);
        if (!entry)
            entry = add(l, tenant, id);
        if (entry)
            list_push(&entry->watchers, &w->node);
        w->entry = entry;
    }
    pthread_mutex_unlock(&l->lock);
}

void live_unwatch(struct live *l, struct watcher *w)
{
    pthread_mutex_lock(&l->lock);
    if (list_is_linked(&w->node)) {
        list_remove(&w->node);
        if (w->entry)
            release(l, w->entry);
        else
            atomic_fetch_sub(&l->n_feed, 1);
    }
    w->entry = NULL;
    pthread_mutex_unlock(&l->lock);
}

int64_t live_events(struct live *l, struct str tenant, struct str id, int64_t after, struct buf *b)
{
    struct entry *entry;

    pthread_mutex_lock(&l->lock);
    entry = find(l, tenant, id);
    if (entry)
        after = stream_print(&entry->stream, after, b);
    pthread_mutex_unlock(&l->lock);
    return after;
}
