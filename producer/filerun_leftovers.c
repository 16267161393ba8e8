/* Jobs of an earlier run that had not ended when it was stopped: those whose lines this input still
 * has go on as they are; the others are cancelled, before the worker starts. Which ones these are
 * is known when the input is over, or when nothing else can be waited for; a line that comes only
 * then runs under its next id. */
#include "base/clock.h"
#include "producer/cancel.h"
#include "producer/filerun_reading.h"
#include <stdlib.h>

#define CANCELS_MAX 256  /* at one time */
#define PATIENCE_MS 2000 /* for the lines of a pipe */

struct leftover {
    struct map_node node; /* first */
    bool is_cancelled;
    char id[ID_MAX + 1];
};

struct cancelling {
    struct cancellation c;
    struct leftover *leftover;
    struct cancels *all;
    bool is_started;
    int code;
};

struct cancels {
    struct filerun *run;
    size_t n, n_out; /* n_out: under the run's lock */
    struct cancelling each[CANCELS_MAX];
};

static void on_leftover(void *data, struct str id)
{
    struct leftovers *l = data;
    struct leftover *o = xcalloc(1, sizeof *o);

    str_copyz(o->id, sizeof o->id, id);
    map_put(&l->all, &o->node, str_z(o->id));
    l->n_loaded++;
    l->n_unmet++;
}

static void start_worker(struct reading *r)
{
    r->leftovers.is_decided = true;
    filerun_tell_ready(r->run);
}

int leftovers_load(struct reading *r, struct err *e)
{
    struct leftovers *l = &r->leftovers;
    const struct gateway *g = &r->run->embedded->gateway;
    int rc = 0;

    map_init(&l->all);
    l->patience_ms = clock_mono_ms() + PATIENCE_MS;
    if (store_unfinished(g->store) > 0) {
        l->reader = reader_open(g->config->data, NULL, e);
        rc = l->reader ? reader_unfinished(l->reader, str_z(r->run->options.tenantz), STR(BATCH_ID),
                                           on_leftover, l, e)
                       : e->code;
    }
    if (rc == 0 && l->n_unmet == 0)
        start_worker(r);
    return rc;
}

/* ---- cancelling ---- */

/* On the broker's thread. */
static void on_done(struct cancellation *c, int code)
{
    struct cancelling *one = c->data;
    struct filerun *f = one->all->run;

    one->code = code;
    pthread_mutex_lock(&f->lock);
    one->all->n_out--;
    filerun_wake_locked(f);
    pthread_mutex_unlock(&f->lock);
}

static void add(struct map_node *node, void *data)
{
    struct leftover *o = (struct leftover *)(void *)node;
    struct cancels *all = data;

    if (!o->is_cancelled && all->n < CANCELS_MAX)
        all->each[all->n++].leftover = o;
}

static void send_all(struct reading *r, struct cancels *all)
{
    const struct gateway *g = &r->run->embedded->gateway;
    struct err e;

    all->n_out = all->n;
    for (size_t i = 0; i < all->n; i++) {
        struct cancelling *one = &all->each[i];

        one->all = all;
        one->is_started = false;
        one->c = (struct cancellation){.on_done = on_done, .data = one};
        if (cancellation_start(&one->c, g, r->leftovers.reader, str_z(r->run->options.tenantz),
                               str_z(one->leftover->id), &e) < 0)
            on_done(&one->c, e.code);
        else
            one->is_started = true;
    }
}

/* Cancels a group of those that were not met. Gives the first failure that another try may help. */
static int cancel_some(struct reading *r, struct cancels *all)
{
    struct filerun *f = all->run;
    int rc = 0;

    all->n = 0;
    map_each(&r->leftovers.all, add, all);
    send_all(r, all);
    pthread_mutex_lock(&f->lock);
    while (all->n_out > 0)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < all->n; i++) {
        struct cancelling *one = &all->each[i];

        if (one->is_started)
            cancellation_release(&one->c);
        if (one->code == 0 || one->code == ERR_EXISTS || one->code == ERR_NOT_FOUND) {
            one->leftover->is_cancelled = true;
            r->leftovers.n_unmet--;
        } else if (rc == 0) {
            rc = one->code;
        }
    }
    return rc;
}

static int cancel_rest(struct reading *r)
{
    struct cancels *all = xcalloc(1, sizeof *all);
    int rc = 0;

    all->run = r->run;
    while (rc == 0 && r->leftovers.n_unmet > 0) {
        rc = cancel_some(r, all);
        if (rc == ERR_FULL)
            rc = filerun_wait_for_room(r->run) ? 0 : ERR_CLOSED;
        else if (rc < 0)
            filerun_fail_log(r->run, rc);
    }
    free(all);
    return rc;
}

/* ---- deciding ---- */

int leftovers_decide(struct reading *r)
{
    int rc;

    if (r->leftovers.is_decided)
        return 0;
    rc = cancel_rest(r);
    if (rc == 0)
        start_worker(r);
    return rc;
}

bool leftovers_meet(struct reading *r, struct str id)
{
    struct leftovers *l = &r->leftovers;
    struct map_node *node = map_get(&l->all, id);
    bool is_cancelled;

    if (!node)
        return false;
    is_cancelled = ((struct leftover *)(void *)node)->is_cancelled;
    map_remove(&l->all, node);
    free(node);
    if (is_cancelled)
        return true;
    if (--l->n_unmet == 0 && !l->is_decided)
        start_worker(r);
    return false;
}

static void forget(struct map_node *node, void *data)
{
    map_remove(data, node);
    free(node);
}

void leftovers_release(struct reading *r)
{
    struct leftovers *l = &r->leftovers;

    map_each(&l->all, forget, &l->all);
    map_release(&l->all);
    if (l->reader)
        reader_close(l->reader);
}
