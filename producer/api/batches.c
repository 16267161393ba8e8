/* /api/v1/batches: asking for batches, their results, and cancelling one. Submitting:
 * batch_upload.c. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "producer/cancel.h"
#include "schema/batch.h"
#include "schema/line.h"
#include <stdlib.h>

#define LIST_MAX_BYTES ((size_t)8 << 20)
#define PAGE_LINES 200
#define PAGE_BYTES ((size_t)1 << 20)
#define CANCELS_A_STEP 500
#define ACK_MAX_MS 30000

/* ---- GET ---- */

static void reply_list(struct request *q, int rc, struct buf *b, const struct err *e)
{
    if (rc >= 0) {
        request_reply_json(q, 200, b);
        return;
    }
    buf_release(b);
    request_reply_err(q, e);
}

void batches_list(struct request *q)
{
    struct str tenant;
    int64_t after;
    int limit;
    struct buf b;
    struct err e;
    int rc;

    if (!api_check_query(q) || !api_id(q, "tenant", &tenant) || !api_limit(q, &limit) ||
        !api_cursor(q, "after", 0, &after))
        return;
    buf_init(&b, LIST_MAX_BYTES);
    rc = reader_batches(request_reader(q), tenant, after, limit, &b, &e);
    reply_list(q, rc, &b, &e);
}

static void reply_batch(struct request *q, int status, struct str tenant)
{
    struct buf b;
    struct err e;
    int rc;

    buf_init(&b, LIST_MAX_BYTES);
    rc = reader_batch(request_reader(q), tenant, q->vars[0], &b, &e);
    if (rc == 0) {
        request_reply_json(q, status, &b);
        return;
    }
    buf_release(&b);
    request_reply_err(q, &e);
}

/* Whether the batch is there; else replies. */
static bool find_batch(struct request *q, struct str tenant)
{
    struct buf b;
    struct err e;
    int rc;

    buf_init(&b, LIST_MAX_BYTES);
    rc = id_is_valid(q->vars[0]) ? reader_batch(request_reader(q), tenant, q->vars[0], &b, &e)
                                 : err_set(&e, ERR_NOT_FOUND, "no such batch");
    buf_release(&b);
    if (rc < 0)
        request_reply_err(q, &e);
    return rc >= 0;
}

void batches_get(struct request *q)
{
    struct str tenant;

    if (api_check_query(q) && api_tenant(q, &tenant) && find_batch(q, tenant))
        reply_batch(q, 200, tenant);
}

/* ---- GET …/results ---- */

struct results {
    struct str tenant;
    bool is_completed_order;
    int64_t next; /* line, or cursor of the feed */
};

static void on_end(struct request *q)
{
    free(q->data);
}

/* Ends the page when it has grown long. */
static int on_line(void *data, const struct result_line *l)
{
    struct buf *b = data;
    size_t from = b->n;

    if (line_write_result(l->form, l->view, b) < 0) {
        b->n = from;
        return ERR_TOO_LARGE;
    }
    api_one_line(b, from);
    buf_addc(b, '\n');
    return b->n >= PAGE_BYTES;
}

static int pull(struct request *q, struct buf *b, int64_t *deadline_ms)
{
    struct results *s = q->data;
    struct reader *r = request_reader(q);
    bool is_end = false;
    struct err e;
    int rc;

    (void)deadline_ms;
    if (s->is_completed_order)
        rc = reader_results_completed(r, s->tenant, q->vars[0], s->next, PAGE_LINES, on_line, b,
                                      &s->next, &is_end, &e);
    else
        rc = reader_results(r, s->tenant, q->vars[0], s->next, PAGE_LINES, true, on_line, b,
                            &s->next, &is_end, &e);
    if (rc < 0)
        b->is_over = true; /* a cut stream, not one that seems whole */
    return rc < 0 || is_end ? -1 : 1;
}

static bool read_order(struct request *q, bool *is_completed)
{
    struct str s = request_query(q, "order");

    *is_completed = str_eqz(s, "completed");
    if (!s.p || *is_completed || str_eqz(s, "input"))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "order", "'order' must be input or completed");
    return false;
}

void batches_results(struct request *q)
{
    struct results *s;
    struct str tenant;
    bool is_completed;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !read_order(q, &is_completed) ||
        !find_batch(q, tenant))
        return;
    s = xcalloc(1, sizeof *s);
    *s = (struct results){.tenant = tenant, .is_completed_order = is_completed};
    q->data = s;
    q->on_end = on_end;
    request_stream(q, 200, "application/x-ndjson", pull);
}

/* ---- DELETE: the batch's record, then its open jobs, step by step ---- */

struct sweep {
    struct flight flight; /* first */
    int n_out, n_done, code; /* under the flight's lock; code: the first fault */
    char tenant[ID_MAX + 1], id[ID_MAX + 1]; /* the publish outlives the request */
    struct publish publish;
    struct record record;
    struct buf mem;
    struct cancellation *cancels; /* of this step */
    size_t n_cancels;
    char (*ids)[ID_MAX + 1];
    size_t n_ids;
    int64_t from, next; /* lines: where this step begins, and the one after it */
    bool is_last;       /* no open job after this step's */
    bool is_resting;    /* between two looks at many lines that have ended */
};

static struct sweep *sweep_of(struct flight *f)
{
    return (struct sweep *)(void *)f;
}

static void release_cancels(struct sweep *s)
{
    for (size_t i = 0; i < s->n_cancels; i++)
        cancellation_release(&s->cancels[i]);
    s->n_cancels = 0;
}

static void free_sweep(struct flight *f)
{
    struct sweep *s = sweep_of(f);

    release_cancels(s);
    buf_release(&s->mem);
    free(s->cancels);
    free(s->ids);
    free(s);
}

static void on_sweep_end(struct request *q)
{
    flight_leave(q->data);
}

static void hold(struct sweep *s)
{
    flight_hold(&s->flight);
    flight_lock(&s->flight);
    s->n_out++;
    flight_unlock(&s->flight);
}

static void touch_down(struct flight *f)
{
    sweep_of(f)->n_out--;
}

/* Any thread. A job that had ended meanwhile needs no cancelling. */
static void land(struct sweep *s, int code)
{
    flight_lock(&s->flight);
    if (code == 0 || code == ERR_EXISTS || code == ERR_NOT_FOUND)
        s->n_done++;
    else if (s->code == 0)
        s->code = code;
    flight_unlock(&s->flight);
    flight_land(&s->flight, touch_down);
}

static void on_meta_ack(struct publish *p, int code)
{
    land(LIST_ENTRY(p, struct sweep, publish), code);
}

static void on_cancelled(struct cancellation *c, int code)
{
    land(c->data, code);
}

static int on_id(void *data, struct str id)
{
    struct sweep *s = data;

    str_copyz(s->ids[s->n_ids++], ID_MAX + 1, id);
    return 0;
}

static void cancel_one(struct sweep *s, struct request *q, struct str id)
{
    struct cancellation *c = &s->cancels[s->n_cancels];
    struct err e;
    int rc;

    *c = (struct cancellation){.on_done = on_cancelled, .data = s};
    hold(s);
    rc = cancellation_start(c, q->gateway, request_reader(q), str_z(s->tenant), id, &e);
    if (rc == 0)
        s->n_cancels++;
    else
        land(s, rc);
}

/* Starts the step at s->from. */
static int start_step(struct sweep *s, struct request *q, struct err *e)
{
    int rc;

    release_cancels(s);
    s->n_ids = 0;
    s->n_done = 0;
    rc = reader_batch_open(request_reader(q), str_z(s->tenant), str_z(s->id), s->from,
                           CANCELS_A_STEP, on_id, s, &s->next, &s->is_last, e);
    for (size_t i = 0; i < s->n_ids; i++)
        cancel_one(s, q, str_z(s->ids[i]));
    return rc;
}

static void reply_full(struct request *q, int code)
{
    enum reason reason;
    const char *codez, *messagez;
    int status = api_full(q->gateway, code, 0, &reason, &codez, &messagez);

    request_reply_status(q, status, reason, codez, NULL, "%s", messagez);
}

static void sweep(struct request *q);

/* Where the log had no room the step is repeated; it lists only what is still open. */
static void go_on(struct request *q, int code)
{
    struct sweep *s = q->data;
    struct err e;

    if (code == 0)
        s->from = s->next;
    if (start_step(s, q, &e) < 0) {
        request_reply_err(q, &e);
    } else if (s->n_ids > 0) {
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, sweep);
    } else if (s->is_last) {
        reply_batch(q, 202, str_z(s->tenant));
    } else {
        s->is_resting = true; /* others of this thread have their turn */
        request_wait(q, clock_mono_ms(), sweep);
    }
}

static void sweep(struct request *q)
{
    struct sweep *s = q->data;
    bool is_late = q->is_late && !s->is_resting;
    int n_out, code, n_done;

    flight_lock(&s->flight);
    n_out = s->n_out;
    n_done = s->n_done;
    code = s->code;
    if (n_out == 0)
        s->code = 0;
    flight_unlock(&s->flight);
    s->is_resting = false;
    if (q->is_gone)
        return;
    if (n_out > 0 && !is_late)
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, sweep);
    else if (n_out > 0 || (code < 0 && (code != ERR_FULL || n_done == 0)))
        reply_full(q, code ? code : ERR_TIMEOUT);
    else if (s->is_last && code == 0)
        reply_batch(q, 202, str_z(s->tenant));
    else
        go_on(q, code);
}

static void send_meta(struct request *q, struct sweep *s)
{
    struct batch batch = {
        .id = str_z(s->id),
        .tenant = str_z(s->tenant),
        .state = BATCH_CANCELLED,
        .created_at = clock_wall_ms(),
        .n_lines = -1,
    };
    int rc;

    s->record = (struct record){
        .at = {TOPIC_META, 0, 0}, .ts_ms = batch.created_at, .source = POSITION_NONE};
    buf_init(&s->mem, 8192);
    hold(s);
    rc = envelope_batch(&s->record, &batch, &s->mem);
    s->publish = (struct publish){.records = &s->record, .n = 1, .on_ack = on_meta_ack};
    if (rc == 0)
        rc = broker_publish(q->gateway->broker, &s->publish);
    if (rc < 0)
        land(s, rc);
}

void batches_delete(struct request *q)
{
    struct str tenant;
    struct sweep *s;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !find_batch(q, tenant))
        return;
    s = xcalloc(1, sizeof *s);
    flight_init(&s->flight, q, free_sweep);
    str_copyz(s->tenant, sizeof s->tenant, tenant);
    str_copyz(s->id, sizeof s->id, q->vars[0]);
    s->cancels = xcalloc(CANCELS_A_STEP, sizeof *s->cancels);
    s->ids = xcalloc(CANCELS_A_STEP, sizeof *s->ids);
    q->data = s;
    q->on_end = on_sweep_end;
    send_meta(q, s);
    sweep(q);
}
