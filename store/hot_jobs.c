/* Jobs that have not ended: new ones, and those that run here. These are for looking at, so what is
 * lost is lost: a hash that is missing is asked from the API. */
#include "base/clock.h"
#include "base/metric.h"
#include "store/hot_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    WINDOW = 1000,
    WAITING_MAX = 100000, /* past it only what runs and ends is written: Redis is memory */
    RUNNING_MAX = 4096,
    KEEP_MIN_S = 86400, /* a job whose end never comes does not stay for ever */
    VIEW_MAX_BYTES = 1 << 20,
};

/* A job as Redis was told of it. */
struct told {
    struct map_node node;
    int attempts;
    bool is_running;
    int64_t seen; /* in which sweep */
    size_t n_tenant;
    char key[]; /* tenant/id */
};

/* ---- the command ---- */

static void on_state_written(void *data, int code, const struct redis_reply *reply)
{
    struct hot *h = data;

    hot_answered(h, code, reply);
    hot_go_on(h);
}

static void send_state(struct hot *h, struct str tenant, struct str id, enum job_state state,
                       struct str view, const struct live_view *live, bool is_new)
{
    char key[HOT_KEY_BYTES], attempts[16], keep_ms[24], started_at[24];
    int64_t keep_s = h->config->redis_hot_s > KEEP_MIN_S ? h->config->redis_hot_s : KEEP_MIN_S;

    snprintf(key, sizeof key, "genq:job:%.*s/%.*s", STR_ARG(tenant), STR_ARG(id));
    snprintf(attempts, sizeof attempts, "%d", live->attempts);
    snprintf(keep_ms, sizeof keep_ms, "%lld", (long long)keep_s * 1000);
    snprintf(started_at, sizeof started_at, "%lld", (long long)live->started_at);
    struct str args[] = {STR("EVALSHA"),
                         str_z(h->sha[HOT_STATE]),
                         STR("1"),
                         str_z(key),
                         str_z(state_name(state)),
                         view.n <= VIEW_MAX_BYTES ? view : STR(""),
                         str_z(attempts),
                         str_z(live->node),
                         str_z(keep_ms),
                         is_new ? STR("new") : STR(""),
                         h->nodes ? str_z(h->id) : STR(""),
                         str_z(started_at)};
    hot_send(h, args, sizeof args / sizeof args[0], on_state_written);
}

/* ---- new jobs ---- */

static bool on_job(void *data, struct str tenant, struct str id, enum job_state state,
                   struct str view)
{
    static const struct live_view none = {.attempts = 0};
    struct hot *h = data;

    if (!hot_has_room(h))
        return false;
    /* One that runs already is told by the sweep, if it runs for long. */
    send_state(h, tenant, id, state == STATE_RUNNING ? STATE_QUEUED : state, view, &none, true);
    return !h->failed.code;
}

void hot_send_jobs(struct hot *h)
{
    int64_t last = h->job_seq;

    if (store_unfinished(h->store) <= WAITING_MAX) {
        reader_follow_jobs(h->reader, &h->batch_job_seq, WINDOW, on_job, h, NULL);
        return;
    }
    if (reader_last_job(h->reader, &last, NULL) == 0 && last > h->job_seq) {
        metric_add(METRIC_REDIS_DROPPED, last - h->job_seq);
        h->batch_job_seq = last;
    }
}

/* ---- jobs that run here ---- */

struct running_job {
    char tenant[ID_MAX + 1], id[ID_MAX + 1];
};

struct gathering {
    struct running_job *jobs;
    size_t n, room;
};

static void gather(void *data, struct str tenant, struct str id)
{
    struct gathering *g = data;

    if (g->n == RUNNING_MAX)
        return;
    if (g->n == g->room) {
        g->room = g->room ? 2 * g->room : 64;
        g->jobs = xrealloc(g->jobs, g->room * sizeof g->jobs[0]);
    }
    str_copyz(g->jobs[g->n].tenant, ID_MAX + 1, tenant);
    str_copyz(g->jobs[g->n].id, ID_MAX + 1, id);
    g->n++;
}

static struct told *find_told(struct hot *h, struct str tenant, struct str id)
{
    char bytes[2 * ID_MAX + 2];
    size_t n = (size_t)snprintf(bytes, sizeof bytes, "%.*s/%.*s", STR_ARG(tenant), STR_ARG(id));
    struct map_node *node = map_get(&h->running, str_of(bytes, n));
    struct told *t;

    if (node)
        return LIST_ENTRY(node, struct told, node);
    t = xcalloc(1, sizeof *t + n);
    memcpy(t->key, bytes, n);
    t->n_tenant = tenant.n;
    map_put(&h->running, &t->node, str_of(t->key, n));
    return t;
}

static void tell(struct hot *h, struct str tenant, struct str id, const struct live_view *live)
{
    enum job_state state = live->is_running ? STATE_RUNNING : STATE_QUEUED;
    struct buf view;

    buf_init(&view, VIEW_MAX_BYTES);
    if (!h->reader ||
        (reader_job(h->reader, tenant, id, &view, &state, NULL) == 0 && !state_is_terminal(state)))
        send_state(h, tenant, id, state, buf_str(&view), live, false);
    buf_release(&view);
}

/* Those that were told as running, and are no more: they wait again, or have ended. */
static void look_after(struct map_node *node, void *data)
{
    struct told *t = LIST_ENTRY(node, struct told, node);
    struct str tenant = str_of(t->key, t->n_tenant);
    struct str id = str_of(t->key + t->n_tenant + 1, node->key.n - t->n_tenant - 1);
    struct live_view live;
    struct hot *h = data;

    if (t->seen == h->sweep_n)
        return;
    if (!live_get(h->live, tenant, id, &live)) {
        map_remove(&h->running, node);
        free(t);
    } else if (t->is_running && !live.is_running) {
        t->is_running = false;
        tell(h, tenant, id, &live);
    }
}

/* Only what has run for a sweep's time is told: most jobs are shorter. */
void hot_send_running(struct hot *h)
{
    struct gathering g = {.n = 0};
    struct live_view live;
    struct told *t;
    size_t i;

    h->sweep_n++;
    live_each_running(h->live, clock_wall_ms() - HOT_SWEEP_MS, gather, &g);
    for (i = 0; i < g.n; i++) {
        struct str tenant = str_z(g.jobs[i].tenant), id = str_z(g.jobs[i].id);

        if (!live_get(h->live, tenant, id, &live) || !live.is_running)
            continue;
        t = find_told(h, tenant, id);
        t->seen = h->sweep_n;
        if (!t->is_running || t->attempts != live.attempts) {
            t->is_running = true;
            t->attempts = live.attempts;
            tell(h, tenant, id, &live);
        }
    }
    map_each(&h->running, look_after, h);
    free(g.jobs);
}

static void forget(struct map_node *node, void *data)
{
    struct hot *h = data;

    map_remove(&h->running, node);
    free(LIST_ENTRY(node, struct told, node));
}

void hot_forget_running(struct hot *h)
{
    map_each(&h->running, forget, h);
}
