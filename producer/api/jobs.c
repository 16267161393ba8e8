/* /api/v1/jobs: asking for jobs, and cancelling one. Submitting: jobs_post.c. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "producer/cancel.h"
#include <stdlib.h>

#define LIST_MAX_BYTES ((size_t)256 << 20)
#define ACK_MAX_MS 30000

/* ---- GET /api/v1/jobs/{id} ---- */

/* In one process every accepted job is in the store already: the position is only checked. */
static bool check_position(struct request *q)
{
    struct str s = request_query(q, "after_position");
    struct position at;

    if (!s.p || position_parse(q->gateway->topics, s, &at))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "after_position",
                        "'after_position' must be the `position` of an earlier answer");
    return false;
}

void jobs_get(struct request *q)
{
    struct str tenant;
    int64_t wait_ms;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !api_wait_ms(q, &wait_ms) ||
        !check_position(q))
        return;
    if (!id_is_valid(q->vars[0]))
        api_reply_not_found(q, "job");
    else
        job_wait(q, tenant, q->vars[0], wait_ms, 200, "");
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

void jobs_list(struct request *q)
{
    struct job_filter f;
    struct buf b;
    struct err e;

    if (!api_check_query(q) || !read_filter(q, &f))
        return;
    buf_init(&b, LIST_MAX_BYTES);
    if (reader_list(request_reader(q), &f, &b, &e) == 0) {
        request_reply_json(q, 200, &b);
        return;
    }
    buf_release(&b);
    request_reply_err(q, &e);
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
    rc = cancellation_start(&d->cancellation, q->gateway, request_reader(q), tenant,
                            q->vars[0], &e);
    d->is_sent = rc == 0;
    if (rc == 0) {
        answer_drop(q);
    } else {
        flight_land(&d->flight, NULL);
        reply_not_cancelled(q, rc);
    }
}
