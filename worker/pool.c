#include "worker/pool.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "worker/check.h"
#include <stdio.h>
#include <stdlib.h>

enum { REPORT_MS = 200, FIRST_PAUSE_MS = 100, LAST_PAUSE_MS = 5000, LAST_DENIED_MS = 60000 };

/* ---- telling others ---- */

static void on_report(uv_timer_t *timer)
{
    struct pool *p = timer->data;
    size_t i;

    for (i = 0; i < p->n; i++)
        if (p->node[i].is_dirty)
            pool_report(&p->node[i]);
}

/* Soon: busy counts change with every call. */
static void report_soon(struct node *n)
{
    n->is_dirty = true;
    if (!uv_is_active((uv_handle_t *)&n->pool->report))
        uv_timer_start(&n->pool->report, on_report, REPORT_MS, 0);
}

/* Counts anew what hangs on nodes being up. */
void pool_recount(struct pool *p)
{
    struct node *n;
    size_t i, k;
    int n_up = 0;

    p->slots = 0;
    for (i = 0; i < p->n; i++)
        for (k = 0; k < p->node[i].has.n_models; k++)
            p->node[i].models[k]->n_nodes = 0;
    for (i = 0; i < p->n; i++) {
        n = &p->node[i];
        if (n->health.state != NODE_UP)
            continue;
        n_up++;
        p->slots += n->slots;
        for (k = 0; k < n->has.n_models; k++)
            n->models[k]->n_nodes++;
    }
    metric_set(METRIC_NODES_UP, n_up);
    metric_set(METRIC_SLOTS, p->slots);
    p->on_change(p->data);
}

static void set_error(struct node *n, const char *whyz)
{
    str_copyz(n->error, sizeof n->error, str_z(whyz));
}

/* ---- health ---- */

void pool_check_good(struct node *n)
{
    bool is_new = health_good(&n->health, n->pool->config->health_rise);

    n->checked_at = clock_wall_ms();
    if (n->health.state == NODE_UP && !n->is_denied)
        set_error(n, "");
    if (is_new)
        log_info("node_up", LZ("node", n->config->name), LZ("api", n->ops->namez),
                 LI("models", n->has.n_models), LI("slots", n->slots));
    if (is_new)
        pool_recount(n->pool);
    pool_report(n);
}

void pool_check_bad(struct node *n, bool is_refused, const char *whyz)
{
    bool is_new = health_bad(&n->health, n->pool->config->health_fall, is_refused);

    n->checked_at = clock_wall_ms();
    set_error(n, whyz);
    if (is_new)
        log_warn("node_down", LZ("node", n->config->name), LZ("url", n->config->url),
                 LZ("why", whyz));
    if (is_new)
        pool_recount(n->pool);
    pool_report(n);
}

void pool_refused(struct node *n, const char *whyz)
{
    if (n->health.state != NODE_UP)
        return; /* known already; the checks go on at their own pace */
    pool_check_bad(n, true, whyz);
    pool_suspect(n);
}

void pool_suspect(struct node *n)
{
    if (n->check.step != CHECK_IDLE)
        return;
    uv_timer_stop(&n->check.timer);
    check_now(n);
}

/* ---- pauses ---- */

static void end_pause(struct node *n)
{
    n->paused_until = 0;
    if (n->is_denied)
        set_error(n, "");
    n->is_denied = false;
    n->pool->on_change(n->pool->data);
}

static void on_resume(uv_timer_t *timer)
{
    end_pause(timer->data);
    report_soon(timer->data);
}

static void pause_for(struct node *n, int64_t ms)
{
    int64_t until = clock_mono_ms() + ms;

    if (until <= n->paused_until)
        return;
    n->paused_until = until;
    uv_update_time(n->pool->loop);
    uv_timer_start(&n->resume, on_resume, (uint64_t)ms, 0);
}

/* Calls that ran side by side fail side by side: they lengthen the pause once. */
static int64_t next_pause(struct node *n, int64_t most)
{
    if (n->paused_until == 0)
        n->pause_ms = n->pause_ms == 0 ? FIRST_PAUSE_MS : n->pause_ms * 2;
    if (n->pause_ms > most)
        n->pause_ms = most;
    return n->pause_ms;
}

void pool_pause(struct node *n, int64_t retry_after_ms)
{
    int64_t ms = next_pause(n, LAST_PAUSE_MS);

    if (retry_after_ms >= 0) /* 0 is no leave to ask in a tight loop */
        ms = retry_after_ms > FIRST_PAUSE_MS ? retry_after_ms : FIRST_PAUSE_MS;
    pause_for(n, ms);
}

void pool_deny(struct node *n, const char *whyz)
{
    int64_t ms = next_pause(n, LAST_DENIED_MS);

    if (!n->is_denied)
        log_warn("node_denied", LZ("node", n->config->name), LZ("why", whyz));
    n->is_denied = true;
    set_error(n, whyz);
    pause_for(n, ms);
    report_soon(n);
}

/* ---- slots ---- */

bool node_is_open(const struct node *n)
{
    return n->health.state == NODE_UP && n->paused_until == 0 && n->busy < n->slots;
}

void pool_take(struct node *n)
{
    n->busy++;
    n->pool->busy++;
    n->n_calls++;
    metric_set(METRIC_SLOTS_BUSY, n->pool->busy);
    report_soon(n);
}

void pool_give(struct node *n)
{
    n->busy--;
    n->pool->busy--;
    metric_set(METRIC_SLOTS_BUSY, n->pool->busy);
    report_soon(n);
}

void pool_called(struct node *n, bool is_ok, int64_t ms)
{
    if (is_ok) {
        n->latencies[n->n_latencies++ % NODE_LATENCIES] = ms;
        n->pause_ms = 0;
    } else {
        n->n_failed++;
    }
}

void pool_set_slots(struct node *n, int slots)
{
    if (slots < 1 || slots == n->slots)
        return;
    n->slots = slots;
    fetch_pool_resize(n->fetches, slots + 1);
    pool_recount(n->pool);
    report_soon(n);
}

/* ---- questions ---- */

bool pool_knows_models(const struct pool *p)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        if (!p->node[i].is_built)
            return false;
    return true;
}

bool pool_knows_all(const struct pool *p)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        if (p->node[i].health.state != NODE_UP || p->node[i].has.has_any)
            return false;
    return true;
}

static bool is_listed_before(const struct pool *p, size_t end, const struct model *m)
{
    size_t i, k;

    for (i = 0; i < end; i++)
        for (k = 0; k < p->node[i].has.n_models; k++)
            if (p->node[i].models[k] == m && node_shows_model(&p->node[i], m))
                return true;
    return false;
}

void pool_list_models(const struct pool *p, struct buf *b, int max)
{
    size_t i, k;

    for (i = 0; i < p->n; i++)
        for (k = 0; k < p->node[i].has.n_models && max > 0; k++) {
            if (!node_shows_model(&p->node[i], p->node[i].models[k]) ||
                is_listed_before(p, i, p->node[i].models[k]))
                continue;
            buf_addz(b, b->n ? ", " : "");
            buf_addz(b, p->node[i].models[k]->name);
            max--;
        }
}

void pool_trouble(const struct pool *p, char *dst, size_t room)
{
    const struct node *n;
    size_t i;

    dst[0] = '\0';
    for (i = 0; i < p->n; i++) {
        n = &p->node[i];
        if (n->health.state == NODE_UP && !n->is_denied) {
            dst[0] = '\0';
            return;
        }
        if (dst[0] == '\0')
            snprintf(dst, room, "no engine node is up: %s: %s", n->config->url,
                     n->error[0] ? n->error : "being looked at");
    }
}

const char *const *node_headers(const struct node *n)
{
    char **headers = n->config->headers;

    return headers && headers[0] ? (const char *const *)headers : NULL;
}

void node_url(const struct node *n, const char *pathz, struct buf *b)
{
    struct str base = str_z(n->config->url), v1 = STR("/v1");

    /* ".../v1" is how OpenAI's own clients are told a base URL */
    if (base.n > v1.n && str_eq(str_of(base.p + base.n - v1.n, v1.n), v1) &&
        str_starts(str_z(pathz), STR("/v1/")))
        base.n -= v1.n;
    buf_adds(b, base);
    buf_addz(b, pathz);
}

/* ---- the beginning and the end ---- */

static void init_node(struct pool *p, size_t i)
{
    struct node *n = &p->node[i];

    n->pool = p;
    n->config = &p->config->engines[i];
    n->at = i;
    n->slots = n->config->slots > 0 ? n->config->slots : NODE_SLOTS_DEFAULT;
    n->fetches = fetch_pool_new(p->loop, n->slots + 1); /* one for the checks */
    buf_init(&n->listed, 8 << 20);
    uv_timer_init(p->loop, &n->resume);
    n->resume.data = n;
    check_init(n);
}

struct pool *pool_new(const struct pool_options *o)
{
    struct pool *p = xcalloc(1, sizeof *p);
    size_t i;

    p->config = o->config;
    p->schedule = o->schedule;
    p->nodes = o->nodes;
    p->loop = o->loop;
    p->on_change = o->on_change;
    p->data = o->data;
    p->n = o->config->n_engines;
    p->node = xcalloc(p->n, sizeof p->node[0]);
    uv_timer_init(p->loop, &p->report);
    p->report.data = p;
    for (i = 0; i < p->n; i++)
        init_node(p, i);
    for (i = 0; i < p->n; i++) {
        pool_report(&p->node[i]);
        check_now(&p->node[i]);
    }
    return p;
}

void pool_stop(struct pool *p)
{
    size_t i;

    uv_timer_stop(&p->report);
    for (i = 0; i < p->n; i++) {
        check_stop(&p->node[i]);
        uv_timer_stop(&p->node[i].resume);
        fetch_pool_free(p->node[i].fetches);
        p->node[i].fetches = NULL;
    }
}

void pool_each_handle(struct pool *p, void (*fn)(uv_handle_t *h, void *data), void *data)
{
    size_t i;

    fn((uv_handle_t *)&p->report, data);
    for (i = 0; i < p->n; i++) {
        fn((uv_handle_t *)&p->node[i].check.timer, data);
        fn((uv_handle_t *)&p->node[i].resume, data);
    }
}

void pool_drop_models(struct pool *p)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        node_drop_models(&p->node[i]);
}

void pool_free(struct pool *p)
{
    size_t i;

    for (i = 0; i < p->n; i++) {
        free(p->node[i].models);
        buf_release(&p->node[i].listed);
    }
    free(p->node);
    free(p);
}
