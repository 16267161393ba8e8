/* POST /api/v1/batches: JSONL as it streams in, some hundred lines a publish, four publishes in
 * flight; past that the body is not read, so memory stays flat however long it is. The batch's
 * own record goes first, its seal last: what a cut leaves is a batch that is `receiving`, and
 * the same upload again adds what is missing. */
#include "producer/api/batch_upload.h"
#include "base/clock.h"
#include "broker-config/config.h"
#include "producer/api/routes.h"
#include "schema/batch.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BYTES_A_PUBLISH = 1 << 20,
    PUBLISHES_MAX = 4,
    ACK_MAX_MS = 30000,
    INPUT_SPARE_BYTES = 1 << 20,
    ERRORS_BYTES = 65536
};

static struct upload *upload_of(struct flight *f)
{
    return (struct upload *)(void *)f;
}

static void on_free(struct flight *f)
{
    struct upload *u = upload_of(f);
    struct piece *p;

    while ((p = u->landed)) {
        u->landed = p->next;
        piece_free(p);
    }
    piece_free(u->piece);
    buf_release(&u->input);
    buf_release(&u->errors);
    buf_release(&u->created.mem);
    buf_release(&u->sealed.mem);
    free(u);
}

static void on_end(struct request *q)
{
    flight_leave(q->data);
}

/* The upload has failed: the rest of the body is read and dropped, for only then can be
 * answered. */
static void fail(struct upload *u, int status, enum reason reason, const char *codez,
                 const char *messagez)
{
    if (u->status)
        return;
    u->status = status;
    u->reason = reason;
    u->codez = codez;
    str_copyz(u->message, sizeof u->message, str_z(messagez));
}

static void fail_full(struct upload *u, const struct gateway *g, int code)
{
    enum reason reason;
    const char *codez, *messagez;
    int status = api_full(g, code, LINES_A_PUBLISH, &reason, &codez, &messagez);

    fail(u, status, reason, codez, messagez);
}

/* ---- publishes ---- */

static void hold(struct upload *u)
{
    flight_hold(&u->flight);
    flight_lock(&u->flight);
    u->n_in_flight++;
    flight_unlock(&u->flight);
}

static void touch_down(struct flight *f)
{
    upload_of(f)->n_in_flight--;
}

/* On the broker's thread. */
static void land(struct upload *u, struct piece *p, int code)
{
    flight_lock(&u->flight);
    if (code < 0 && u->code == 0)
        u->code = code;
    if (p) {
        p->next = u->landed;
        u->landed = p;
    }
    flight_unlock(&u->flight);
    flight_land(&u->flight, touch_down);
}

void upload_lines_done(struct submission *s, int code)
{
    struct piece *p = s->data;

    p->code = code;
    land(p->upload, p, code);
}

static void on_meta_ack(struct publish *p, int code)
{
    struct meta *m = LIST_ENTRY(p, struct meta, publish);

    flight_lock(&m->upload->flight);
    m->is_acked = code == 0;
    flight_unlock(&m->upload->flight);
    land(m->upload, NULL, code);
}

static void send_meta(struct upload *u, const struct gateway *g, struct meta *m,
                      enum batch_state state)
{
    struct batch batch = {
        .id = str_z(u->id),
        .tenant = str_z(u->tenant),
        .state = state,
        .created_at = clock_wall_ms(),
        .n_lines = state == BATCH_SEALED ? u->n_lines : -1,
    };
    int rc;

    m->upload = u;
    m->is_sent = true;
    m->record = (struct record){
        .at = {TOPIC_META, 0, 0}, .ts_ms = batch.created_at, .source = POSITION_NONE};
    buf_init(&m->mem, 8192);
    rc = envelope_batch(&m->record, &batch, &m->mem);
    assert(rc == 0); /* both ids were checked */
    m->publish = (struct publish){.records = &m->record, .n = 1, .on_ack = on_meta_ack};
    hold(u);
    rc = broker_publish(g->broker, &m->publish);
    if (rc < 0)
        land(u, NULL, rc);
}

/* True when the lines in hand are on their way; false: no room now, or the upload has failed. */
static bool send_lines(struct upload *u, const struct gateway *g, struct reader *r)
{
    struct piece *p = u->piece;
    int n, rc;
    struct err e;

    flight_lock(&u->flight);
    n = u->n_in_flight;
    flight_unlock(&u->flight);
    if (n >= PUBLISHES_MAX)
        return false;
    if (gateway_has_room(g, &e) < 0) {
        fail(u, 503, REASON_INTERNAL, "unavailable", e.msg);
        return false;
    }
    hold(u);
    rc = submission_send(p->submission, g, r, &e);
    if (rc == 0) {
        u->piece = NULL;
        return true;
    }
    if (rc != ERR_FULL || n == 0)
        fail_full(u, g, rc);
    flight_land(&u->flight, touch_down);
    return false;
}

/* ---- what the log said ---- */

static void judge(struct upload *u, const struct piece *p)
{
    const struct submission *s = p->submission;

    for (size_t i = 0; i < s->n; i++) {
        int code = s->records[i].code;

        if (p->is_refused[i])
            continue;
        if (code == 0 || code == ERR_EXISTS)
            u->n_accepted++;
        else
            lines_add_error(u, p->numbers[i], s->jobs[i].id,
                            code == ERR_CONFLICT ? "the id was used for another job"
                                                 : "the log refused the job");
    }
}

static bool was_cancelled(const struct upload *u)
{
    const struct record *r = &u->created.record;

    return u->is_created && r->code == ERR_EXISTS && r->detail == BATCH_CANCELLED;
}

/* Takes in what has landed. Returns how many publishes are still out. */
static int reap(struct upload *u, const struct gateway *g)
{
    struct piece *p, *next;
    int code, n;

    flight_lock(&u->flight);
    p = u->landed;
    u->landed = NULL;
    code = u->code;
    n = u->n_in_flight;
    u->is_created = u->created.is_acked;
    flight_unlock(&u->flight);
    if (code < 0)
        fail_full(u, g, code);
    if (was_cancelled(u))
        fail(u, 409, REASON_INVALID_REQUEST, "batch_cancelled", "the batch was cancelled");
    for (; p; p = next) {
        next = p->next;
        if (p->code == 0)
            judge(u, p);
        piece_free(p);
    }
    return n;
}

/* ---- from body to log ---- */

static bool is_piece_full(const struct upload *u)
{
    return u->piece && (u->piece->submission->n == LINES_A_PUBLISH ||
                        u->piece->n_bytes >= BYTES_A_PUBLISH);
}

/* Sends the lines in hand, if there are any; false when they must wait, or the upload has
 * failed. */
static bool flush(struct upload *u, const struct gateway *g, struct reader *r)
{
    if (u->piece && u->piece->submission->n == 0) {
        piece_free(u->piece);
        u->piece = NULL;
    }
    if (!u->piece)
        return true;
    reap(u, g);
    return !u->status && u->is_created && send_lines(u, g, r);
}

/* Cuts the input into lines and sends them. True when all of it is on its way, or can wait for
 * more; false: blocked until a publish lands, or failed. */
static bool work(struct upload *u, struct request *q)
{
    struct str line;
    bool is_too_long, is_done = true;

    while (is_done && !u->status) {
        if (is_piece_full(u)) {
            is_done = flush(u, q->gateway, request_reader(q));
        } else if (lines_next(u, q->gateway->config->limits_body_bytes, &line, &is_too_long)) {
            if (lines_take(u, q, line, is_too_long) && !u->created.is_sent)
                send_meta(u, q->gateway, &u->created, BATCH_RECEIVING);
        } else if (u->is_input_over) {
            is_done = flush(u, q->gateway, request_reader(q));
            break;
        } else {
            /* Whoever sends slowly is not kept waiting for a full publish. */
            if (reap(u, q->gateway) == 0)
                flush(u, q->gateway, request_reader(q));
            break;
        }
    }
    buf_eat(&u->input, u->at);
    u->at = 0;
    return is_done && !u->status;
}

/* ---- the reply ---- */

static void reply_failed(struct request *q)
{
    struct upload *u = q->data;
    char raw[24];

    snprintf(raw, sizeof raw, "%lld", (long long)u->n_accepted);
    api_reply_error(q, u->status, u->reason, u->codez, NULL, u->message, "accepted", str_z(raw));
}

static void reply_batch(struct request *q)
{
    struct upload *u = q->data;
    struct buf b;
    struct err e;

    buf_init(&b, ERRORS_BYTES * 2);
    if (reader_batch(request_reader(q), str_z(u->tenant), str_z(u->id), &b, &e) < 0) {
        buf_release(&b);
        request_reply_err(q, &e);
        return;
    }
    b.n--; /* the closing brace */
    buf_addf(&b, ",\"refused\":%lld,\"errors\":[", (long long)u->n_refused);
    buf_adds(&b, buf_str(&u->errors));
    buf_addz(&b, "]}");
    request_reply_json(q, u->created.record.code == ERR_EXISTS ? 200 : 201, &b);
}

/* The body is over: sends what is left, seals, replies. */
static void finish(struct request *q)
{
    struct upload *u = q->data;
    bool is_done;
    int n_out;

    if (q->is_gone)
        return;
    if (q->is_late)
        fail(u, 503, REASON_INTERNAL, "unavailable", "the log is too slow at the moment");
    do {
        is_done = work(u, q);
        n_out = reap(u, q->gateway);
    } while (!is_done && !u->status && n_out == 0);
    if (is_done && u->n_lines == 0)
        fail(u, 400, REASON_INVALID_REQUEST, NULL, "the body has no lines");
    if (is_done && !u->status && n_out == 0 && !u->sealed.is_sent) {
        send_meta(u, q->gateway, &u->sealed, BATCH_SEALED);
        n_out = 1;
    }
    if (n_out > 0 && !q->is_late)
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, finish);
    else if (u->status)
        reply_failed(q);
    else
        reply_batch(q);
}

int batches_on_body(struct request *q, struct str bytes)
{
    struct upload *u = q->data;

    if (bytes.n == 0) {
        u->is_input_over = true;
        finish(q);
        return 0;
    }
    reap(u, q->gateway);
    if (u->status || q->is_gone)
        return 0;
    if (buf_adds(&u->input, bytes) < 0)
        fail(u, 503, REASON_INTERNAL, "unavailable", "the log is too slow at the moment");
    else if (!work(u, q) && !u->status)
        request_pause_body(q);
    return 0;
}

/* ---- the request ---- */

static bool read_id(struct request *q, char dst[ID_MAX + 1])
{
    struct str key = request_header(q, "Idempotency-Key"), id = request_query(q, "id");

    if (!id.p)
        id = key;
    if (!id.p) {
        id_ulid(clock_wall_ms(), dst);
        return true;
    }
    str_copyz(dst, ID_MAX + 1, id);
    if (id_is_valid(id) && id.n <= BATCH_ID_MAX)
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "id",
                        "a batch's id must be 1 to %d of letters, digits, '.', '_' and '-'",
                        (int)BATCH_ID_MAX);
    return false;
}

void batches_post(struct request *q)
{
    char id[ID_MAX + 1];
    struct str tenant;
    struct upload *u;
    struct err e;

    if (!api_check_query(q) || !api_tenant(q, &tenant) || !read_id(q, id))
        return;
    if (gateway_has_room(q->gateway, &e) < 0) {
        request_reply_status(q, 503, REASON_INTERNAL, "unavailable", NULL, "%s", e.msg);
        return;
    }
    u = xcalloc(1, sizeof *u);
    flight_init(&u->flight, q, on_free);
    str_copyz(u->id, sizeof u->id, str_z(id));
    u->is_id_made = !request_query(q, "id").p && !request_header(q, "Idempotency-Key").p;
    str_copyz(u->tenant, sizeof u->tenant, tenant);
    str_copyz(u->model, sizeof u->model, request_query(q, "model"));
    buf_init(&u->input,
             (size_t)q->gateway->config->limits_body_bytes + (size_t)INPUT_SPARE_BYTES);
    buf_init(&u->errors, ERRORS_BYTES);
    q->data = u;
    q->on_end = on_end;
}
