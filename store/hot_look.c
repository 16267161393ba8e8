/* What Redis knows of jobs that run elsewhere, for who asks the API. Nothing here waits for long:
 * who asks has a deadline of his own, and leaves. */
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_ARG = 3 }; /* of the keys, in the command */

struct seen {
    char key[HOT_KEY_BYTES];
    bool is_known;
    struct live_view view;
};

struct hot_look {
    struct list link; /* in looks; under the lock, as the rest up to `jobs` */
    bool is_ready, is_left, is_sent;
    bool is_all; /* that run, whichever these are */
    void (*on_ready)(void *data);
    void *data;
    struct hot *h;
    struct seen *jobs;
    size_t n, room;
    size_t at; /* where the next one is looked for first: they are asked for in their order */
};

static const char prefix[] = "genq:job:";

static void free_look(struct hot_look *k)
{
    free(k->jobs);
    free(k);
}

/* ---- hot's thread ---- */

static void set_ready(struct hot_look *k)
{
    struct hot *h = k->h;
    bool is_left;

    pthread_mutex_lock(&h->lock);
    k->is_ready = true;
    is_left = k->is_left;
    if (!is_left)
        k->on_ready(k->data);
    pthread_mutex_unlock(&h->lock);
    if (is_left)
        free_look(k);
}

/* Cuts the next word, up to a space, off s. */
static struct str next_word(struct str *s)
{
    const char *space = s->n ? memchr(s->p, ' ', s->n) : NULL;
    struct str word = space ? str_of(s->p, (size_t)(space - s->p)) : *s;

    *s = space ? str_of(space + 1, s->n - word.n - 1) : STR("");
    return word;
}

/* "<runs> <attempts> <started_at> <node>", or "". */
static void read_view(struct str text, struct seen *j)
{
    int64_t attempts = 0;
    struct str runs = next_word(&text);

    j->is_known = str_int(next_word(&text), &attempts) && attempts > 0 && attempts <= INT16_MAX &&
                  str_int(next_word(&text), &j->view.started_at);
    j->view.attempts = (int)attempts;
    j->view.is_running = str_eqz(runs, "1");
    str_copyz(j->view.node, sizeof j->view.node, text);
}

/* Names and views in turn. */
static void read_all(struct hot_look *k, const struct redis_reply *reply)
{
    size_t i, n = redis_count(reply) / 2;

    k->n = n < HOT_LOOK_MAX ? n : HOT_LOOK_MAX;
    k->jobs = xcalloc(k->n + 1, sizeof k->jobs[0]);
    for (i = 0; i < k->n; i++) {
        snprintf(k->jobs[i].key, HOT_KEY_BYTES, "%s%.*s", prefix,
                 STR_ARG(redis_text(redis_item(reply, 2 * i))));
        read_view(redis_text(redis_item(reply, 2 * i + 1)), &k->jobs[i]);
    }
}

static void on_seen(void *data, int code, const struct redis_reply *reply)
{
    struct hot_look *k = data;
    struct hot *h = k->h;
    size_t i;

    if (code == 0 && k->is_all)
        read_all(k, reply);
    for (i = 0; code == 0 && !k->is_all && i < k->n; i++)
        read_view(redis_text(redis_item(reply, i)), &k->jobs[i]);
    set_ready(k);
    if (code == ERR_NOT_FOUND) /* its scripts */
        hot_sync(h);
}

static void ask(struct hot_look *k)
{
    size_t i, n_args = FIRST_ARG + k->n;
    struct str *args = xcalloc(n_args + 1, sizeof args[0]);
    char n[16], most[16];
    int rc;

    snprintf(n, sizeof n, "%zu", k->n);
    args[0] = STR("EVALSHA");
    args[1] = str_z(k->h->sha[HOT_LOOK]);
    args[2] = str_z(n);
    for (i = 0; i < k->n; i++)
        args[FIRST_ARG + i] = str_z(k->jobs[i].key);
    snprintf(most, sizeof most, "%d", HOT_LOOK_MAX);
    if (k->is_all)
        args[n_args++] = str_z(most);
    rc = args[1].n ? redis_send(k->h->redis, args, n_args, on_seen, k) : ERR_BUSY;
    free(args);
    if (rc)
        set_ready(k);
}

void hot_send_looks(struct hot *h)
{
    struct hot_look *k;
    struct list *link;

    for (;;) {
        pthread_mutex_lock(&h->lock);
        link = list_pop(&h->looks);
        k = link ? LIST_ENTRY(link, struct hot_look, link) : NULL;
        if (k)
            k->is_sent = true;
        pthread_mutex_unlock(&h->lock);
        if (!k)
            return;
        ask(k);
    }
}

/* ---- any thread ---- */

struct hot_look *hot_look_new(struct hot *h, void (*on_ready)(void *data), void *data)
{
    struct hot_look *k = xcalloc(1, sizeof *k);

    k->h = h;
    k->on_ready = on_ready;
    k->data = data;
    return k;
}

bool hot_look_add(struct hot_look *k, struct str tenant, struct str id)
{
    if (k->n == HOT_LOOK_MAX)
        return false;
    if (k->n == k->room) {
        k->room = k->room ? 2 * k->room : 1;
        k->jobs = xrealloc(k->jobs, k->room * sizeof k->jobs[0]);
    }
    k->jobs[k->n] = (struct seen){.is_known = false};
    snprintf(k->jobs[k->n].key, HOT_KEY_BYTES, "%s%.*s/%.*s", prefix, STR_ARG(tenant), STR_ARG(id));
    k->n++;
    return true;
}

void hot_look_all(struct hot_look *k)
{
    k->is_all = true;
}

void hot_look_ask(struct hot_look *k)
{
    pthread_mutex_lock(&k->h->lock);
    list_push(&k->h->looks, &k->link);
    pthread_mutex_unlock(&k->h->lock);
    uv_async_send(&k->h->wake);
}

bool hot_look_is_ready(struct hot_look *k)
{
    bool is_ready;

    pthread_mutex_lock(&k->h->lock);
    is_ready = k->is_ready;
    pthread_mutex_unlock(&k->h->lock);
    return is_ready;
}

bool hot_look_get(struct hot_look *k, struct str tenant, struct str id, struct live_view *out)
{
    char key[HOT_KEY_BYTES];
    struct seen *job;
    size_t i;

    if (!hot_look_is_ready(k))
        return false;
    snprintf(key, sizeof key, "%s%.*s/%.*s", prefix, STR_ARG(tenant), STR_ARG(id));
    for (i = 0; i < k->n; i++) {
        job = &k->jobs[(k->at + i) % k->n];
        if (strcmp(job->key, key) == 0) {
            k->at += i + 1;
            *out = job->view;
            return job->is_known;
        }
    }
    return false;
}

void hot_look_each(struct hot_look *k, void (*fn)(void *data, struct str tenant, struct str id),
                   void *data)
{
    const char *name, *slash;
    size_t i;

    if (!hot_look_is_ready(k))
        return;
    for (i = 0; i < k->n; i++) {
        name = k->jobs[i].key + sizeof prefix - 1;
        slash = strchr(name, '/');
        if (slash && k->jobs[i].is_known && k->jobs[i].view.is_running)
            fn(data, str_of(name, (size_t)(slash - name)), str_z(slash + 1));
    }
}

void hot_look_leave(struct hot_look *k)
{
    struct hot *h = k->h;
    bool is_free;

    pthread_mutex_lock(&h->lock);
    if (list_is_linked(&k->link))
        list_remove(&k->link);
    is_free = k->is_ready || !k->is_sent;
    k->is_left = true;
    pthread_mutex_unlock(&h->lock);
    if (is_free)
        free_look(k);
}
