/* Brings jobs and free slots together: a node with room, the job that is next for it, and so on
 * until one of the two is used up. Jobs that no node can ever do leave here, too: to their model's
 * queue, or failed. */
#include "worker/balance.h"
#include "worker/inside.h"
#include <stdio.h>

enum {
    UNACKNOWLEDGED_LEAST = 1024,     /* completions on their way, past which no call is started, */
    UNACKNOWLEDGED_FAR = 4096,       /* the same where the log is across a network; */
    UNACKNOWLEDGED_BYTES = 64 << 20, /* and their bytes */
    ORPHANS_A_TURN = 1024,
    MODELS_TOLD = 8,
};

static void fail_orphan(struct worker *w, struct task *t)
{
    char message[900];
    struct buf models;

    buf_init(&models, 500);
    pool_list_models(w->pool, &models, MODELS_TOLD);
    snprintf(message, sizeof message, "no engine node has the model %s; there are: %.*s",
             t->flow->key.model->name, STR_ARG(models.n > 0 ? buf_str(&models) : STR("none")));
    finish_failed(w, t, STATE_FAILED, REASON_MODEL_NOT_FOUND, message);
    buf_release(&models);
}

/* What was delivered before a stall may be another worker's by now: the lease is looked at for each
 * call. */
static bool is_open(const struct worker *w)
{
    size_t least = broker_is_shared(w->broker) ? UNACKNOWLEDGED_FAR : UNACKNOWLEDGED_LEAST;
    size_t most = (size_t)w->pool->slots * 4 > least ? (size_t)w->pool->slots * 4 : least;

    return w->is_control_read && !w->is_stopping && outbox_count(&w->outbox) < most &&
           outbox_bytes(&w->outbox) < UNACKNOWLEDGED_BYTES && broker_has_lease(w->broker);
}

static void end_orphans(struct worker *w)
{
    struct task *t;
    int i;

    if (!pool_knows_all(w->pool))
        return;
    for (i = 0; i < ORPHANS_A_TURN && is_open(w); i++) {
        if (!(t = schedule_pick_orphan(w->schedule)))
            break;
        load_leave(w, t);
        load_flow(w, t->flow);
        if (route_is_open(w, t))
            route_away(w, t);
        else
            fail_orphan(w, t);
    }
}

void pump(struct worker *w)
{
    struct node *n;
    struct task *t;

    memset(w->tried, 0, w->pool->n * sizeof w->tried[0]);
    while (is_open(w) && (n = balance_least(w->pool, w->tried)) != NULL) {
        t = schedule_pick(w->schedule, &n->has);
        if (!t) {
            w->tried[n->at] = true;
            continue;
        }
        load_leave(w, t);
        load_flow(w, t->flow);
        run_start(w, t, n);
    }
    end_orphans(w);
    w->is_pump_due |= !broker_has_lease(w->broker); /* nothing else tells when it is back */
}
