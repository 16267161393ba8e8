/* Cached answers in a file of the data directory, which a thread of its own reads and writes: what
 * is asked and kept is done in its order, and all that has gathered goes into one transaction. The
 * file is synced only where SQLite moves its log, so it costs jobs no wait. */
#include "base/inbox.h"
#include "base/metric.h"
#include "store/cache_file.h"
#include "store/cache_internal.h"
#include <pthread.h>
#include <stdlib.h>

/* What the thread is to do. */
struct order {
    struct message message; /* first; its node is in `orders`, then in the inbox */
    struct cache_ask *ask;  /* NULL: keep */
    uint8_t key[SHA256_LEN];
    struct str output; /* to be kept, or found; owned */
};

struct sqlite {
    struct inbox *inbox; /* to the loop */
    bool is_started;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct list orders; /* under lock, as are these: */
    size_t kept_bytes;
    bool is_closing;
    struct cache_file file; /* the thread's */
};

/* ---- the thread ---- */

static void free_order(struct order *o)
{
    free((char *)(uintptr_t)o->output.p);
    free(o);
}

static void on_receive(struct message *m)
{
    struct order *o = (struct order *)(void *)m;

    cache_answer(o->ask, o->output);
    free_order(o);
}

/* Asks are answered at once: they see what is not committed yet. */
static void do_order(struct sqlite *s, struct order *o)
{
    if (!o->ask) {
        cache_file_put(&s->file, o->key, o->output);
        free_order(o);
        return;
    }
    o->output = cache_file_get(&s->file, o->key);
    inbox_post(s->inbox, &o->message);
}

/* Waits for orders, and takes them all. False: there will be no more. */
static bool take_orders(struct sqlite *s, struct list *taken)
{
    struct list *node;

    pthread_mutex_lock(&s->lock);
    while (list_is_empty(&s->orders) && !s->is_closing)
        pthread_cond_wait(&s->wake, &s->lock);
    while ((node = list_pop(&s->orders)) != NULL)
        list_push(taken, node);
    s->kept_bytes = 0;
    pthread_mutex_unlock(&s->lock);
    return !list_is_empty(taken);
}

static void *run(void *data)
{
    struct sqlite *s = data;
    struct list taken, *node;

    list_init(&taken);
    cache_file_open(&s->file);
    while (take_orders(s, &taken)) {
        while ((node = list_pop(&taken)) != NULL)
            do_order(s, LIST_ENTRY(node, struct order, message.node));
        cache_file_commit(&s->file);
    }
    cache_file_close(&s->file);
    return NULL;
}

/* ---- the loop's side ---- */

static bool start(struct sqlite *s)
{
    if (!s->is_started)
        s->is_started = pthread_create(&s->thread, NULL, run, s) == 0;
    return s->is_started;
}

/* Without jobs that use a cache there is neither a thread nor a file. */
static void *open_sqlite(const struct config *c, uv_loop_t *loop)
{
    struct sqlite *s = xcalloc(1, sizeof *s);

    cache_file_init(&s->file, c->data, c->cache_ttl_s, c->cache_max_bytes);
    s->inbox = inbox_new(loop);
    list_init(&s->orders);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    if (cache_file_is_there(&s->file))
        start(s);
    return s;
}

static int give(struct sqlite *s, const uint8_t key[SHA256_LEN], struct cache_ask *a,
                struct str output)
{
    struct order *o = xcalloc(1, sizeof *o);
    bool has_room;

    o->message.on_receive = on_receive;
    o->ask = a;
    memcpy(o->key, key, sizeof o->key);
    pthread_mutex_lock(&s->lock);
    has_room = s->kept_bytes + output.n <= CACHE_KEPT_BYTES;
    if (has_room) {
        if (output.n > 0)
            o->output = str_of(xstrdup(output), output.n);
        s->kept_bytes += output.n;
        list_push(&s->orders, &o->message.node);
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (!has_room)
        free_order(o);
    return has_room ? 0 : ERR_FULL;
}

static int look(void *driver, const uint8_t key[SHA256_LEN], struct cache_ask *a)
{
    struct sqlite *s = driver;

    return start(s) ? give(s, key, a, STR_NONE) : ERR_IO;
}

static void keep(void *driver, const uint8_t key[SHA256_LEN], struct str output)
{
    struct sqlite *s = driver;

    if (!start(s) || give(s, key, NULL, output) != 0)
        metric_add(METRIC_CACHE_DROPPED, 1);
}

static void close_sqlite(void *driver)
{
    struct sqlite *s = driver;

    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (s->is_started)
        pthread_join(s->thread, NULL);
    inbox_drain(s->inbox);
    inbox_free(s->inbox);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct cache_ops cache_sqlite_ops = {open_sqlite, look, keep, close_sqlite};
