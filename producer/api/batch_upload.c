/* POST /api/v1/batches: JSONL as it streams in, some hundred lines a publish, four publishes in
 * flight; past that the body is not read, so memory stays flat however long it is. The batch's
 * own record goes first, its seal last: what a cut leaves is a batch that is `receiving`, and
 * the same upload again adds what is missing. */
#include "base/clock.h"
#include "base/json.h"
#include "broker-config/config.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "producer/submit.h"
#include "schema/batch.h"
#include "schema/line.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LINES_A_PUBLISH = 256,
    BYTES_A_PUBLISH = 1 << 20,
    PUBLISHES_MAX = 4,
    ERRORS_MAX = 10,
    BATCH_ID_MAX = 52, /* a line's number must fit behind it in an id */
    ACK_MAX_MS = 30000,
    INPUT_SPARE_BYTES = 1 << 20,
    ERRORS_BYTES = 65536
};

/* One publish of lines. */
struct piece {
    struct piece *next; /* landed ones */
    struct upload *upload;
    struct submission *submission;
    size_t n_bytes;
    int code; /* of its publish */
    bool is_refused[LINES_A_PUBLISH]; /* recorded as failed */
    int64_t numbers[LINES_A_PUBLISH]; /* line numbers from 1, blank ones counted, for messages */
};

/* The batch's own record: made, or sealed. */
struct meta {
    struct publish publish;
    struct record record;
    struct buf mem;
    struct upload *upload;
    bool is_sent;
    bool is_acked; /* under the flight's lock */
};

struct upload {
    struct flight flight; /* first */
    /* under the flight's lock */
    struct piece *landed;
    int n_in_flight; /* publishes, the batch's own as well */
    int code;        /* what a publish failed with */
    /* the request's thread */
    char id[ID_MAX + 1], tenant[ID_MAX + 1];
    char model[JOB_NAME_MAX_BYTES + 1]; /* for lines that name none; "": they are refused */
    struct buf input; /* body that is not cut into lines yet */
    size_t at;        /* in it: where the next line begins */
    bool is_input_over, is_dropping; /* the rest of a line that is too long */
    struct piece *piece;             /* being filled */
    struct meta created, sealed;
    bool is_created; /* the log has the batch's record */
    int64_t n_lines, n_numbers, n_accepted, n_refused;
    int n_errors;
    struct buf errors; /* elements of the reply's `errors` */
    int status;        /* of a reply that is due as soon as the body is over; 0: none */
    enum reason reason;
    const char *codez;
    char message[sizeof(((struct err *)NULL)->msg)];
};

static struct upload *upload_of(struct flight *f)
{
    return (struct upload *)(void *)f;
}

static void piece_free(struct piece *p)
{
    if (!p)
        return;
    submission_free(p->submission);
    free(p);
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

static void on_lines_done(struct submission *s, int code)
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
static bool send_lines(struct upload *u, const struct gateway *g)
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
    rc = submission_send(p->submission, g, &e);
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

static void add_error(struct upload *u, int64_t number, struct str id, const char *messagez)
{
    struct buf *b = &u->errors;

    u->n_refused++;
    if (u->n_errors == ERRORS_MAX)
        return;
    if (u->n_errors++)
        buf_addc(b, ',');
    buf_addf(b, "{\"line\":%lld,", (long long)number);
    json_put_member_str(b, "id", id);
    buf_addc(b, ',');
    json_put_member_str(b, "message", str_z(messagez));
    buf_addc(b, '}');
}

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
            add_error(u, p->numbers[i], s->jobs[i].id,
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

/* ---- lines ---- */

static struct piece *piece_of(struct upload *u)
{
    if (!u->piece) {
        u->piece = xcalloc(1, sizeof *u->piece);
        u->piece->upload = u;
        u->piece->submission = submission_new(LINES_A_PUBLISH, on_lines_done, u->piece);
    }
    return u->piece;
}

static bool is_piece_full(const struct upload *u)
{
    return u->piece && (u->piece->submission->n == LINES_A_PUBLISH ||
                        u->piece->n_bytes >= BYTES_A_PUBLISH);
}

static struct str or_none(const char *z)
{
    return *z ? str_z(z) : STR_NONE;
}

/* A job of the line's place, with what can be told of it, to be recorded as failed. */
static struct job bare_job(const struct upload *u, struct str id, struct str line)
{
    struct err e;
    struct json *value = json_parse(line, &e);
    struct str custom_id = json_str(json_get(value, "custom_id"));
    struct str model = json_str(json_get(value, "model"));
    struct job j = {
        .state = STATE_NEW,
        .priority = PRIORITY_NORMAL,
        .form = json_get(value, "body") ? LINE_OPENAI : LINE_JOB,
        .queue = STR("default"),
        .tenant = str_z(u->tenant),
        .batch_id = str_z(u->id),
        .created_at = clock_wall_ms(),
        .batch_line = u->n_lines,
        .timeout_ms = JOB_TIMEOUT_MS_DEFAULT,
    };
    struct str *texts[] = {&j.id, &j.model, &j.custom_id};

    if (!model.p)
        model = json_str(json_get(json_get(value, "body"), "model"));
    j.id = id;
    j.model = model.n && model.n <= JOB_NAME_MAX_BYTES ? model : STR_NONE;
    j.custom_id = custom_id.n <= 512 ? custom_id : STR_NONE;
    buf_init(&j.extra, 2048);
    buf_reserve(&j.extra, 2048); /* at once: what stands there may not move */
    for (size_t i = 0; i < 3; i++) {
        size_t at = j.extra.n;

        if (!texts[i]->p)
            continue;
        buf_adds(&j.extra, *texts[i]);
        texts[i]->p = j.extra.p + at;
    }
    json_free(value);
    return j;
}

/* The line is wrong: counts it, and records it as failed, unless a job has its id already (an
 * upload that was right before). */
static void refuse_line(struct upload *u, struct request *q, struct str id, struct str line,
                        const char *whyz)
{
    struct piece *p = piece_of(u);
    char message[sizeof(((struct err *)NULL)->msg) + 32];
    struct err e;
    struct job j;

    snprintf(message, sizeof message, "line %lld: %s", (long long)u->n_numbers, whyz);
    add_error(u, u->n_numbers, id, message);
    if (reader_has_job(request_reader(q), str_z(u->tenant), id, &e) != ERR_NOT_FOUND)
        return;
    j = bare_job(u, id, line);
    p->numbers[p->submission->n] = u->n_numbers;
    p->is_refused[p->submission->n] = true;
    if (submission_add_refused(p->submission, q->gateway, &j, REASON_INVALID_REQUEST, message,
                               &e) < 0)
        job_release(&j);
}

/* The line as a job of this batch, complete. */
static int read_line(struct upload *u, const struct gateway *g, struct str id, struct str line,
                     struct job *j, struct err *e)
{
    int rc = line_parse(j, line, NULL, e);

    if (rc < 0)
        return rc;
    if (j->batch_id.p && !str_eqz(j->batch_id, u->id))
        rc = err_set(e, ERR_INVALID, "'batch_id' is another batch's");
    else if (j->tenant.p && !str_eqz(j->tenant, u->tenant))
        rc = err_set(e, ERR_INVALID, "'tenant' is not the batch's");
    else
        rc = api_complete(g, j, id, str_z(u->tenant), or_none(u->model), str_z(u->id), u->n_lines,
                          e);
    if (rc < 0)
        job_release(j);
    return rc;
}

static void take_line(struct upload *u, struct request *q, struct str line, bool is_too_long)
{
    char idz[BATCH_ID_MAX + 24];
    struct piece *p;
    struct job j;
    struct err e;

    u->n_numbers++;
    while (line.n && strchr(" \t\r", line.p[line.n - 1]))
        line.n--;
    if (line.n == 0 && !is_too_long)
        return;
    if (!u->created.is_sent)
        send_meta(u, q->gateway, &u->created, BATCH_RECEIVING);
    snprintf(idz, sizeof idz, "%s-%lld", u->id, (long long)u->n_lines);
    p = piece_of(u);
    p->n_bytes += line.n;
    if (is_too_long) {
        refuse_line(u, q, str_z(idz), STR_NONE, "longer than limits.body_bytes");
    } else if (read_line(u, q->gateway, str_z(idz), line, &j, &e) < 0) {
        refuse_line(u, q, str_z(idz), line, e.msg);
    } else {
        p->numbers[p->submission->n] = u->n_numbers;
        if (submission_add(p->submission, q->gateway, &j, &e) < 0) {
            job_release(&j);
            refuse_line(u, q, str_z(idz), line, e.msg);
        }
    }
    u->n_lines++;
}

/* The next line of the input; false when it is not all there. */
static bool next_line(struct upload *u, int64_t max_bytes, struct str *line, bool *is_too_long)
{
    size_t n = u->input.n - u->at;
    const char *p = n ? u->input.p + u->at : NULL;
    const char *end = n ? memchr(p, '\n', n) : NULL;
    size_t length = end ? (size_t)(end - p) : n;

    if (!end && (int64_t)n > max_bytes) {
        u->is_dropping = true;
        u->at += n;
        return false;
    }
    if (!end && !u->is_input_over)
        return false;
    if (!end && n == 0 && !u->is_dropping)
        return false;
    *is_too_long = u->is_dropping || (int64_t)length > max_bytes;
    *line = *is_too_long ? STR_NONE : str_of(p, length);
    u->is_dropping = false;
    u->at += length + (end != NULL);
    return true;
}

/* Sends the lines in hand, if there are any; false when they must wait, or the upload has
 * failed. */
static bool flush(struct upload *u, const struct gateway *g)
{
    if (u->piece && u->piece->submission->n == 0) {
        piece_free(u->piece);
        u->piece = NULL;
    }
    if (!u->piece)
        return true;
    reap(u, g);
    return !u->status && u->is_created && send_lines(u, g);
}

/* Cuts the input into lines and sends them. True when all of it is on its way, or can wait for
 * more; false: blocked until a publish lands, or failed. */
static bool work(struct upload *u, struct request *q)
{
    struct str line;
    bool is_too_long, is_done = true;

    while (is_done && !u->status) {
        if (is_piece_full(u)) {
            is_done = flush(u, q->gateway);
        } else if (next_line(u, q->gateway->config->limits_body_bytes, &line, &is_too_long)) {
            take_line(u, q, line, is_too_long);
        } else if (u->is_input_over) {
            is_done = flush(u, q->gateway);
            break;
        } else {
            /* Whoever sends slowly is not kept waiting for a full publish. */
            if (reap(u, q->gateway) == 0)
                flush(u, q->gateway);
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
    str_copyz(u->tenant, sizeof u->tenant, tenant);
    str_copyz(u->model, sizeof u->model, request_query(q, "model"));
    buf_init(&u->input,
             (size_t)q->gateway->config->limits_body_bytes + (size_t)INPUT_SPARE_BYTES);
    buf_init(&u->errors, ERRORS_BYTES);
    q->data = u;
    q->on_end = on_end;
}
