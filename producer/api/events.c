/* GET /api/v1/jobs/{id}/events: one job as server-sent events, from its first token to its end. The
 * tokens come from `live` alone, where hot puts those of jobs that run elsewhere: the completion
 * has all of the text, and is the truth. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include <stdlib.h>

#define VIEW_MAX_BYTES ((size_t)48 << 20)
enum { LOAD_MS = 500 }; /* how long the tokens so far are waited for */

struct follow {
    struct watcher watcher;
    struct request *q;
    struct str tenant; /* the request's bytes, as is its id */
    int64_t after;     /* last sequence number sent */
    int64_t sent_ms;   /* monotonic */
    int64_t load_by_ms;
    struct hot_stream *elsewhere; /* NULL: jobs run in no other process, or there is no Redis */
    bool is_started;
};

static void on_wake(struct watcher *w)
{
    request_wake(LIST_ENTRY(w, struct follow, watcher)->q);
}

static void on_end(struct request *q)
{
    struct follow *f = q->data;

    if (f->elsewhere) /* first: see hot_watch */
        hot_unwatch(q->gateway->hot, f->elsewhere);
    live_unwatch(q->gateway->live, &f->watcher);
    free(f);
}

static void put_first_status(struct buf *b, enum job_state state)
{
    char data[128];
    struct buf json;

    buf_init(&json, sizeof data);
    buf_addf(&json, "{\"status\":\"%s\",\"attempt\":0,\"node\":null}", state_name(state));
    api_put_event(b, "status", buf_str(&json));
    buf_release(&json);
}

/* What stands elsewhere is on its way. */
static bool is_loading(struct request *q, int64_t *deadline_ms)
{
    struct follow *f = q->data;

    if (f->is_started || !f->elsewhere || clock_mono_ms() >= f->load_by_ms ||
        hot_is_loaded(q->gateway->hot, f->elsewhere))
        return false;
    *deadline_ms = f->load_by_ms;
    return true;
}

/* A running job needs no look, but for now and then. */
static bool is_look_due(struct request *q)
{
    const struct follow *f = q->data;
    struct live_view view;

    if (q->is_late || !f->is_started)
        return true;
    if (live_get(q->gateway->live, f->tenant, q->vars[0], &view))
        return !view.is_running;
    return !live_runs_elsewhere(q->gateway->live, f->tenant, q->vars[0]);
}

/* The store is asked first: what stands in `live` then is all that came before the end. */
static int pull(struct request *q, struct buf *b, int64_t *deadline_ms)
{
    struct follow *f = q->data;
    enum job_state state = STATE_RUNNING;
    struct buf job;
    struct err e;

    if (is_loading(q, deadline_ms))
        return 0;
    buf_init(&job, VIEW_MAX_BYTES);
    if (is_look_due(q) &&
        reader_job(request_reader(q), f->tenant, q->vars[0], &job, &state, &e) < 0)
        state = STATE_FAILED;
    f->after = live_events(q->gateway->live, f->tenant, q->vars[0], f->after, b);
    if (state_is_terminal(state)) {
        if (job.n)
            api_put_event(b, "completion", buf_str(&job));
        buf_release(&job);
        return -1;
    }
    buf_release(&job);
    if (!f->is_started && f->after == 0)
        put_first_status(b, state);
    f->is_started = true;
    return api_pulse(b, &f->sent_ms, deadline_ms);
}

static bool read_last_id(struct request *q, int64_t *after)
{
    struct str s = request_header(q, "Last-Event-ID");

    *after = 0;
    if (!s.n || (str_int(s, after) && *after >= 0))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "Last-Event-ID",
                        "Last-Event-ID must be the id of an event of this stream");
    return false;
}

void events_get(struct request *q)
{
    struct str tenant;
    struct follow *f;
    struct buf b;
    struct err e;
    int64_t after;
    int rc;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !read_last_id(q, &after))
        return;
    buf_init(&b, VIEW_MAX_BYTES);
    rc = id_is_valid(q->vars[0]) ? reader_job(request_reader(q), tenant, q->vars[0], &b, NULL, &e)
                                 : err_set(&e, ERR_NOT_FOUND, "no such job");
    buf_release(&b);
    if (rc < 0) {
        request_reply_err(q, &e);
        return;
    }
    f = xcalloc(1, sizeof *f);
    *f = (struct follow){.q = q, .tenant = tenant, .after = after, .watcher.on_wake = on_wake};
    q->data = f;
    q->on_end = on_end;
    live_watch(q->gateway->live, tenant, q->vars[0], &f->watcher);
    f->load_by_ms = clock_mono_ms() + LOAD_MS;
    if (q->gateway->hot)
        f->elsewhere = hot_watch(q->gateway->hot, tenant, q->vars[0]);
    request_stream(q, 200, "text/event-stream", pull);
}
