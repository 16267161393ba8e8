#include "worker/check.h"
#include "base/json.h"
#include "worker/pool.h"
#include <stdio.h>

enum { BODY_BYTES = 8 << 20 };

static void ask(struct node *n, enum check_step step, const char *pathz);

static void on_timer(uv_timer_t *timer)
{
    check_now(timer->data);
}

void check_init(struct node *n)
{
    uv_timer_init(n->pool->loop, &n->check.timer);
    n->check.timer.data = n;
    buf_init(&n->check.body, BODY_BYTES);
}

void check_stop(struct node *n)
{
    if (n->check.fetch)
        fetch_abort(n->check.fetch);
    n->check.fetch = NULL;
    n->check.step = CHECK_IDLE;
    buf_release(&n->check.body);
    uv_timer_stop(&n->check.timer);
}

static void end_check(struct node *n)
{
    struct check *c = &n->check;
    int64_t wait = health_wait_ms(&n->health, n->pool->config->health_interval_ms);

    c->step = CHECK_IDLE;
    buf_clear(&c->body);
    if (c->is_wanted)
        wait = 0;
    c->is_wanted = false;
    uv_update_time(n->pool->loop);
    uv_timer_start(&c->timer, on_timer, (uint64_t)wait, 0);
}

static void fail(struct node *n, bool is_refused, const char *whyz)
{
    pool_check_bad(n, is_refused, whyz);
    end_check(n);
}

static void succeed(struct node *n)
{
    pool_check_good(n);
    if (n->config->slots == 0 && !n->has_asked_slots && n->ops->slots_pathz)
        ask(n, CHECK_SLOTS, n->ops->slots_pathz);
    else
        end_check(n);
}

static int on_data(void *data, struct str bytes)
{
    struct node *n = data;

    return buf_adds(&n->check.body, bytes);
}

/* ---- the steps, by what was asked ---- */

static bool is_2xx(const struct fetch_result *r)
{
    return r->fault == FETCH_OK && r->status / 100 == 2;
}

/* No such page, as opposed to trouble. */
static bool is_unlisted(const struct fetch_result *r)
{
    return r->fault == FETCH_OK && (r->status == 404 || r->status == 405 || r->status == 501);
}

static void fail_result(struct node *n, const struct fetch_result *r)
{
    char why[200];

    if (r->fault != FETCH_OK) {
        fail(n, r->fault == FETCH_NO_CONNECT, r->message);
        return;
    }
    snprintf(why, sizeof why, "the health check was answered with HTTP %d", r->status);
    fail(n, false, why);
}

static bool has_member(const struct buf *body, const char *namez)
{
    struct json *j = json_parse(buf_str(body), NULL);
    bool is_there = json_get(j, namez) != NULL;

    json_free(j);
    return is_there;
}

static void on_models(struct node *n, const struct fetch_result *r)
{
    struct buf names;
    struct err e;

    if (is_unlisted(r)) {
        pool_set_models(n, NULL);
        succeed(n);
        return;
    }
    if (!is_2xx(r)) {
        fail_result(n, r);
        return;
    }
    buf_init(&names, BODY_BYTES);
    if (n->ops->read_models(buf_str(&n->check.body), &names, &e) != 0) {
        fail(n, false, e.msg);
    } else {
        pool_set_models(n, &names);
        succeed(n);
    }
    buf_release(&names);
}

static void on_health(struct node *n, const struct fetch_result *r)
{
    if (!is_2xx(r))
        fail_result(n, r);
    else if (strcmp(n->ops->health_pathz, n->ops->models_pathz) == 0)
        on_models(n, r);
    else
        ask(n, CHECK_MODELS, n->ops->models_pathz);
}

/* Ollama tells its version; whatever lists models OpenAI's way speaks that. */
static void on_probe(struct node *n, const struct fetch_result *r)
{
    const struct engine_ops *openai = engine_by_api(ENGINE_API_OPENAI);

    if (r->fault != FETCH_OK) {
        fail_result(n, r);
    } else if (n->check.trying->api == ENGINE_API_OLLAMA) {
        if (is_2xx(r) && has_member(&n->check.body, "version")) {
            n->ops = n->check.trying;
            ask(n, CHECK_MODELS, n->ops->models_pathz);
        } else {
            n->check.trying = openai;
            ask(n, CHECK_PROBE, openai->models_pathz);
        }
    } else if (is_2xx(r) && has_member(&n->check.body, "data")) {
        n->ops = openai;
        on_models(n, r);
    } else if (is_2xx(r) || is_unlisted(r)) {
        fail(n, false, "neither Ollama nor an OpenAI-compatible engine answers there");
    } else {
        fail_result(n, r);
    }
}

static void on_slots(struct node *n, const struct fetch_result *r)
{
    n->has_asked_slots = true;
    if (is_2xx(r))
        pool_set_slots(n, n->ops->read_slots(buf_str(&n->check.body)));
    end_check(n);
}

static void on_done(void *data, const struct fetch_result *r)
{
    struct node *n = data;
    void (*const steps[])(struct node *, const struct fetch_result *) = {
        [CHECK_PROBE] = on_probe,
        [CHECK_HEALTH] = on_health,
        [CHECK_MODELS] = on_models,
        [CHECK_SLOTS] = on_slots,
    };

    n->check.fetch = NULL;
    steps[n->check.step](n, r);
}

static void ask(struct node *n, enum check_step step, const char *pathz)
{
    struct fetch_handler h = {NULL, on_data, on_done, n};
    struct fetch_request r = {
        .methodz = "GET",
        .headers = node_headers(n),
        .connect_ms = n->pool->config->health_timeout_ms,
        .total_ms = n->pool->config->health_timeout_ms,
        .max_body_bytes = BODY_BYTES,
    };
    struct buf url;
    struct err e;

    buf_init(&url, 4096);
    node_url(n, pathz, &url);
    r.urlz = url.p;
    buf_clear(&n->check.body);
    n->check.step = step;
    n->check.fetch = fetch_start(n->fetches, &r, &h, &e);
    buf_release(&url);
    if (!n->check.fetch)
        fail(n, false, e.msg);
}

void check_now(struct node *n)
{
    struct check *c = &n->check;

    if (c->step != CHECK_IDLE) {
        c->is_wanted = true;
        return;
    }
    uv_timer_stop(&c->timer);
    if (!n->ops && n->config->api != ENGINE_API_AUTO)
        n->ops = engine_by_api(n->config->api);
    if (n->ops) {
        ask(n, CHECK_HEALTH, n->ops->health_pathz);
        return;
    }
    c->trying = engine_by_api(ENGINE_API_OLLAMA);
    ask(n, CHECK_PROBE, c->trying->health_pathz);
}
