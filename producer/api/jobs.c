/* /api/v1/jobs: asking for jobs, and cancelling one. Submitting: jobs_post.c. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/elsewhere.h"
#include "producer/api/routes.h"
#include "producer/cancel.h"
#include <stdlib.h>

#define LIST_MAX_BYTES ((size_t)256 << 20)
#define ACK_MAX_MS 30000
#define CATCH_UP_MS 10000   /* at the least … */
#define CATCH_UP_LOOK_MS 20 /* … looking so often, at first oftener: nobody tells */

/* ---- GET /api/v1/jobs/{id} ---- */

/* Who asks with after_position waits until this gateway's store has come so far. */
struct catching_up {
    struct position after;
    int64_t look_at_ms, deadline_ms; /* monotonic */
    int64_t look_ms;                 /* between the last two looks */
    int64_t wait_ms;                 /* for the job itself, afterwards */
    char tenant[ID_MAX + 1];
};

/* *after: topic -1 when the argument is absent. */
static bool read_position(struct request *q, struct position *after)
{
    struct str s = request_query(q, "after_position");

    *after = POSITION_NONE;
    if (!s.p || position_parse(q->gateway->topics, s, after))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "after_position",
                        "'after_position' must be the `position` of an earlier answer");
    return false;
}

static void free_data(struct request *q)
{
    free(q->data);
}

static void answer_job(struct request *q)
{
    struct catching_up c = *(struct catching_up *)q->data;

    free(q->data);
    q->data = NULL;
    q->on_end = NULL;
    q->is_late = false; /* it spoke of catch_up's own looks; a server that stops says so again */
    job_wait(q, str_z(c.tenant), q->vars[0], c.wait_ms, 200, "");
}

static void catch_up(struct request *q)
{
    struct catching_up *c = q->data;
    int64_t now_ms = clock_mono_ms();
    bool is_stopping = q->is_late && now_ms < c->look_at_ms;
    struct err e;
    int rc;

    if (q->is_gone)
        return;
    rc = reader_has_applied(request_reader(q), c->after, q->gateway->topics, &e);
    if (rc > 0) {
        answer_job(q);
    } else if (rc < 0) {
        request_reply_err(q, &e);
    } else if (is_stopping || now_ms >= c->deadline_ms) {
        request_reply_status(q, 503, REASON_INTERNAL, "unavailable", "after_position",
                             "this gateway has not read the log up to there yet");
    } else {
        c->look_ms = c->look_ms < CATCH_UP_LOOK_MS / 2 ? 2 * c->look_ms : CATCH_UP_LOOK_MS;
        c->look_at_ms = now_ms + c->look_ms;
        request_wait(q, c->look_at_ms, catch_up);
    }
}

void jobs_get(struct request *q)
{
    struct catching_up *c;
    struct position after;
    struct str tenant;
    int64_t wait_ms;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !api_wait_ms(q, &wait_ms) ||
        !read_position(q, &after))
        return;
    if (!id_is_valid(q->vars[0])) {
        api_reply_not_found(q, "job");
        return;
    }
    if (after.topic < 0) {
        job_wait(q, tenant, q->vars[0], wait_ms, 200, "");
        return;
    }
    c = xcalloc(1, sizeof *c);
    c->after = after;
    c->wait_ms = wait_ms;
    c->look_ms = 1;
    c->deadline_ms = clock_mono_ms() + (wait_ms > CATCH_UP_MS ? wait_ms : CATCH_UP_MS);
    str_copyz(c->tenant, sizeof c->tenant, tenant);
    q->data = c;
    q->on_end = free_data;
    catch_up(q);
}

/* ---- GET /api/v1/jobs ---- */

static bool read_status(struct request *q, int *state)
{
    struct str s = request_query(q, "status");
    enum job_state found;

    *state = -1;
    if (!s.p)
        return true;
    if (!state_parse(s, &found)) {
        request_reply_error(q, REASON_INVALID_REQUEST, "status",
                            "'status' must be scheduled, queued, running, succeeded, failed, "
                            "cancelled or expired");
        return false;
    }
    *state = (int)found;
    return true;
}

static bool read_filter(struct request *q, struct job_filter *f)
{
    f->model = request_query(q, "model");
    f->queue = request_query(q, "queue");
    return api_id(q, "tenant", &f->tenant) && api_id(q, "batch_id", &f->batch_id) &&
           read_status(q, &f->state) && api_time(q, "created_after", &f->created_after) &&
           api_time(q, "created_before", &f->created_before) &&
           api_cursor(q, "after", 0, &f->after) && api_limit(q, &f->limit);
}

struct listing {
    struct job_filter filter;
    struct elsewhere elsewhere;
};

static void end_list(struct request *q)
{
    struct listing *l = q->data;

    elsewhere_release(&l->elsewhere);
    free(l);
}

static void list(struct request *q)
{
    struct listing *l = q->data;
    struct buf b;
    struct err e;
    int rc;

    if (q->is_gone)
        return;
    buf_init(&b, LIST_MAX_BYTES);
    elsewhere_begin(&l->elsewhere, q);
    rc = reader_list(request_reader(q), &l->filter, &b, &e);
    elsewhere_done(&l->elsewhere);
    if (rc == 0 && !elsewhere_wait(&l->elsewhere, list)) {
        request_reply_json(q, 200, &b);
        return;
    }
    buf_release(&b);
    if (rc)
        request_reply_err(q, &e);
}

void jobs_list(struct request *q)
{
    struct listing *l;
    struct job_filter f;

    if (!api_check_query(q) || !read_filter(q, &f))
        return;
    l = xcalloc(1, sizeof *l);
    l->filter = f;
    l->elsewhere.is_all = f.state == STATE_RUNNING;
    q->data = l;
    q->on_end = end_list;
    list(q);
}

/* ---- DELETE /api/v1/jobs/{id} ---- */

struct drop {
    struct flight flight; /* first */
    struct cancellation cancellation;
    bool is_sent;
    int code;
    bool is_done; /* under the flight's lock */
    char tenant[ID_MAX + 1], id[ID_MAX + 1];
};

static void free_drop(struct flight *f)
{
    struct drop *d = (struct drop *)(void *)f;

    if (d->is_sent)
        cancellation_release(&d->cancellation);
    free(d);
}

static void set_done(struct flight *f)
{
    ((struct drop *)(void *)f)->is_done = true;
}

static void on_cancelled(struct cancellation *c, int code)
{
    struct drop *d = c->data;

    d->code = code;
    flight_land(&d->flight, set_done);
}

static void on_drop_end(struct request *q)
{
    flight_leave(q->data);
}

static void reply_not_cancelled(struct request *q, int code)
{
    enum reason reason;
    const char *codez, *messagez;

    if (code == ERR_NOT_FOUND) {
        api_reply_not_found(q, "job");
    } else if (code == ERR_EXISTS) {
        request_reply_status(q, 409, REASON_INVALID_REQUEST, "already_terminal", NULL,
                             "the job has already ended");
    } else {
        int status = api_full(q->gateway, code, 0, &reason, &codez, &messagez);

        request_reply_status(q, status, reason, codez, NULL, "%s", messagez);
    }
}

static void answer_drop(struct request *q)
{
    struct drop *d = q->data;
    bool is_done;

    flight_lock(&d->flight);
    is_done = d->is_done;
    flight_unlock(&d->flight);
    if (q->is_gone)
        return;
    if (!is_done && !q->is_late) {
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, answer_drop);
    } else if (is_done && d->code == 0) {
        job_wait(q, str_z(d->tenant), str_z(d->id), 0, 202, "");
        flight_leave(&d->flight);
    } else {
        reply_not_cancelled(q, is_done ? d->code : ERR_TIMEOUT);
    }
}

void jobs_delete(struct request *q)
{
    struct str tenant;
    struct drop *d;
    struct err e;
    int rc;

    if (!api_check_query(q) || !api_tenant(q, &tenant))
        return;
    if (!id_is_valid(q->vars[0])) {
        api_reply_not_found(q, "job");
        return;
    }
    d = xcalloc(1, sizeof *d);
    flight_init(&d->flight, q, free_drop);
    q->data = d;
    q->on_end = on_drop_end;
    str_copyz(d->tenant, sizeof d->tenant, tenant);
    str_copyz(d->id, sizeof d->id, q->vars[0]);
    d->cancellation.on_done = on_cancelled;
    d->cancellation.data = d;
    flight_hold(&d->flight);
    rc =
        cancellation_start(&d->cancellation, q->gateway, request_reader(q), tenant, q->vars[0], &e);
    d->is_sent = rc == 0;
    if (rc == 0) {
        answer_drop(q);
    } else {
        flight_land(&d->flight, NULL);
        reply_not_cancelled(q, rc);
    }
}
