/* POST /api/v1/jobs: one job, or an array of them, in one publish. Answers once the log has
 * them. */
#include "base/clock.h"
#include "base/json.h"
#include "base/metric.h"
#include "broker-config/config.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "producer/submit.h"
#include "schema/completion.h"
#include <stdio.h>
#include <stdlib.h>

#define ARRAY_MAX 10000
#define ACK_MAX_MS 30000
#define REPLY_MAX_BYTES ((size_t)256 << 20)
#define ERROR_MAX_BYTES 4096

struct post {
    struct flight flight; /* first */
    struct submission *submission;
    bool is_array;
    char **errors; /* of each item: JSON, or NULL when it is in the submission, in this order */
    size_t n_items;
    int64_t wait_ms;
    int code;
    bool is_done; /* under the flight's lock */
};

static void free_post(struct flight *f)
{
    struct post *p = (struct post *)(void *)f;

    for (size_t i = 0; i < p->n_items; i++)
        free(p->errors[i]);
    free(p->errors);
    submission_free(p->submission);
    free(p);
}

static void on_end(struct request *q)
{
    flight_leave(q->data);
}

static void set_done(struct flight *f)
{
    ((struct post *)(void *)f)->is_done = true;
}

static void on_done(struct submission *s, int code)
{
    struct post *p = s->data;

    p->code = code;
    flight_land(&p->flight, set_done);
}

/* ---- reading the body ---- */

/* Parses, completes and adds one job. 0, or negative with *e and *paramz; the job is then
 * released. */
static int add_job(struct post *p, const struct gateway *g, struct str json, struct str id,
                   struct str tenant, const char **paramz, struct err *e)
{
    struct job j;
    int rc;

    if (job_parse(&j, json, false, paramz, e) < 0)
        return e->code;
    *paramz = "";
    rc = api_complete(g, &j, id, tenant, STR_NONE, STR_NONE, -1, e);
    if (rc < 0)
        *paramz = "model";
    else if ((rc = submission_add(p->submission, g, &j, e)) < 0)
        *paramz = rc == ERR_INVALID ? "queue" : "";
    if (rc < 0)
        job_release(&j);
    return rc;
}

static char *print_error(enum reason reason, const char *codez, const char *paramz,
                         const char *messagez)
{
    struct buf b;

    buf_init(&b, ERROR_MAX_BYTES);
    api_put_error(&b, reason, codez, paramz, messagez);
    return buf_take(&b, NULL);
}

/* Cuts the next element off an array's inside, which is well-formed JSON: to the comma that
 * stands in no string and no bracket. */
static struct str next_element(struct str *text)
{
    size_t i, depth = 0;
    bool is_quoted = false;
    struct str element;

    for (i = 0; i < text->n; i++) {
        char c = text->p[i];

        if (is_quoted && c == '\\')
            i++;
        else if (c == '"')
            is_quoted = !is_quoted;
        else if (!is_quoted && (c == '{' || c == '['))
            depth++;
        else if (!is_quoted && (c == '}' || c == ']'))
            depth--;
        else if (!is_quoted && c == ',' && depth == 0)
            break;
    }
    element = str_of(text->p, i);
    i += i < text->n;
    *text = str_of(text->p + i, text->n - i);
    return element;
}

static struct str trim(struct str s)
{
    while (s.n && strchr(" \t\r\n", s.p[0]))
        s.p++, s.n--;
    while (s.n && strchr(" \t\r\n", s.p[s.n - 1]))
        s.n--;
    return s;
}

/* How many elements; 0 when the body is no array, or not of a size that is taken: then *e. */
static size_t count_items(struct str body, struct err *e)
{
    struct json *whole = json_parse(body, e);
    size_t n = whole ? json_count(whole) : 0;

    json_free(whole);
    if (whole && n == 0)
        err_set(e, ERR_INVALID, "the array is empty");
    if (n > ARRAY_MAX)
        err_set(e, ERR_INVALID, "the array has %zu jobs, more than %d", n, ARRAY_MAX);
    return n > ARRAY_MAX ? 0 : n;
}

static void add_array(struct post *p, const struct gateway *g, struct str body, struct str tenant)
{
    struct str rest = str_of(body.p + 1, body.n - 2);
    const char *paramz;
    struct err e;

    for (size_t i = 0; i < p->n_items; i++) {
        if (add_job(p, g, trim(next_element(&rest)), STR_NONE, tenant, &paramz, &e) == 0)
            continue;
        metric_add(METRIC_JOBS_REFUSED, 1);
        p->errors[i] = print_error(REASON_INVALID_REQUEST, NULL, paramz, e.msg);
    }
}

/* ---- answering ---- */

static void put_job(struct buf *b, const struct submission *s, size_t i, const char *positionz)
{
    struct completion c = {.state = s->jobs[i].state,
                           .reason = REASON_NONE,
                           .queue_ms = -1,
                           .engine_ms = -1,
                           .first_token_ms = -1,
                           .total_ms = -1};

    completion_write(&s->jobs[i], &c, b);
    if (b->is_over)
        return;
    b->n--; /* the closing brace */
    buf_addc(b, ',');
    json_put_member_str(b, "position", str_z(positionz));
    buf_addc(b, '}');
}

static const char conflictz[] = "the id was used for another job: a repeat must have the same body";

static void put_item(struct request *q, struct buf *b, const struct submission *s, size_t i)
{
    const struct record *r = &s->records[i];
    const struct job *j = &s->jobs[i];
    char position[POSITION_TEXT_MAX];
    size_t start = b->n;
    struct err e;

    if (r->code == 0) {
        position_format(q->gateway->topics, r->at, position);
        put_job(b, s, i, position);
    } else if (r->code != ERR_EXISTS) {
        api_put_error(b, REASON_INVALID_REQUEST, "id_conflict", "id", conflictz);
    } else if (reader_job(request_reader(q), j->tenant, j->id, b, NULL, &e) < 0) {
        b->n = start;
        api_put_error(b, REASON_INTERNAL, NULL, NULL, e.msg);
    }
}

static void reply_array(struct request *q)
{
    struct post *p = q->data;
    size_t n = 0;
    struct buf b;

    buf_init(&b, REPLY_MAX_BYTES);
    buf_addz(&b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < p->n_items; i++) {
        if (i)
            buf_addc(&b, ',');
        if (p->errors[i])
            buf_addz(&b, p->errors[i]);
        else
            put_item(q, &b, p->submission, n++);
    }
    buf_addz(&b, "]}");
    if (b.is_over) {
        buf_release(&b);
        request_reply_error(q, REASON_TOO_LARGE, NULL,
                            "the jobs are kept, but their list is longer than an answer may be");
        return;
    }
    request_reply_json(q, 200, &b);
}

/* May end the flight. */
static void reply_one(struct request *q)
{
    struct post *p = q->data;
    const struct submission *s = p->submission;
    char position[POSITION_TEXT_MAX] = "";
    struct buf b;

    if (s->records[0].code == 0)
        position_format(q->gateway->topics, s->records[0].at, position);
    if (s->records[0].code != 0 && s->records[0].code != ERR_EXISTS) {
        request_reply_status(q, 409, REASON_INVALID_REQUEST, "id_conflict", "id", "%s", conflictz);
    } else if (s->records[0].code == 0 && p->wait_ms == 0) {
        buf_init(&b, REPLY_MAX_BYTES);
        put_job(&b, s, 0, position);
        request_reply_json(q, 201, &b);
    } else {
        job_wait(q, s->jobs[0].tenant, s->jobs[0].id, p->wait_ms, position[0] ? 201 : 200,
                 position);
        flight_leave(&p->flight);
    }
}

/* The log did not say yes: the ids to repeat with go along, for some may have been kept. */
static void reply_not_kept(struct request *q, int code)
{
    struct post *p = q->data;
    const struct submission *s = p->submission;
    enum reason reason;
    const char *codez, *messagez;
    int status = api_full(q->gateway, code, s->n, &reason, &codez, &messagez);
    struct buf ids;

    buf_init(&ids, s->n * (ID_MAX + 4) + 2);
    if (p->is_array)
        buf_addc(&ids, '[');
    for (size_t i = 0; i < s->n; i++) {
        if (i)
            buf_addc(&ids, ',');
        json_put_str(&ids, s->jobs[i].id);
    }
    if (p->is_array)
        buf_addc(&ids, ']');
    metric_add(METRIC_JOBS_REFUSED, (int64_t)s->n);
    api_reply_error(q, status, reason, codez, NULL, messagez, p->is_array ? "ids" : "id",
                    buf_str(&ids));
    buf_release(&ids);
}

static void answer(struct request *q)
{
    struct post *p = q->data;
    bool is_done;

    flight_lock(&p->flight);
    is_done = p->is_done;
    flight_unlock(&p->flight);
    if (q->is_gone)
        return;
    if (!is_done && !q->is_late)
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, answer);
    else if (!is_done || p->code < 0)
        reply_not_kept(q, is_done ? p->code : ERR_TIMEOUT);
    else if (p->is_array)
        reply_array(q);
    else
        reply_one(q);
}

/* ---- the request ---- */

static struct post *post_new(struct request *q, size_t n_items, int64_t wait_ms)
{
    struct post *p = xcalloc(1, sizeof *p);

    flight_init(&p->flight, q, free_post);
    p->submission = submission_new(n_items, on_done, p);
    p->errors = xcalloc(n_items, sizeof *p->errors);
    p->n_items = n_items;
    p->wait_ms = wait_ms;
    q->data = p;
    q->on_end = on_end;
    return p;
}

static void send_all(struct request *q)
{
    struct post *p = q->data;
    struct err e;

    if (gateway_has_room(q->gateway, &e) < 0) {
        request_reply_status(q, 503, REASON_INTERNAL, "unavailable", NULL, "%s", e.msg);
        return;
    }
    flight_hold(&p->flight);
    if (submission_send(p->submission, q->gateway, request_reader(q), &e) == 0) {
        answer(q);
    } else {
        flight_land(&p->flight, NULL);
        reply_not_kept(q, e.code);
    }
}

static void post_one(struct request *q, struct str body, struct str tenant, int64_t wait_ms)
{
    struct str key = request_header(q, "Idempotency-Key");
    struct post *p = post_new(q, 1, wait_ms);
    const char *paramz;
    struct err e;

    if (key.p && !id_is_valid(key)) {
        request_reply_error(q, REASON_INVALID_REQUEST, "Idempotency-Key",
                            "Idempotency-Key must be 1 to 64 of letters, digits, '.', '_' and '-'");
    } else if (add_job(p, q->gateway, body, key, tenant, &paramz, &e) < 0) {
        metric_add(METRIC_JOBS_REFUSED, 1);
        request_reply_error(q, REASON_INVALID_REQUEST, paramz, "%s", e.msg);
    } else {
        send_all(q);
    }
}

static void post_array(struct request *q, struct str body, struct str tenant, int64_t wait_ms)
{
    struct post *p;
    struct err e;
    size_t n;

    if (request_header(q, "Idempotency-Key").p || wait_ms > 0) {
        request_reply_error(q, REASON_INVALID_REQUEST, wait_ms > 0 ? "wait" : "Idempotency-Key",
                            "'wait' and Idempotency-Key are for a single job; give each job of an "
                            "array its id");
        return;
    }
    n = count_items(body, &e);
    if (n == 0) {
        request_reply_error(q, REASON_INVALID_REQUEST, NULL, "%s", e.msg);
        return;
    }
    p = post_new(q, n, 0);
    p->is_array = true;
    add_array(p, q->gateway, body, tenant);
    if (p->submission->n == 0)
        reply_array(q);
    else
        send_all(q);
}

void jobs_post(struct request *q)
{
    struct str body = trim(buf_str(&q->body)), tenant;
    int64_t wait_ms;

    if (!api_check_query(q) || !api_wait_ms(q, &wait_ms) || !api_id(q, "tenant", &tenant))
        return;
    if (body.n && body.p[0] == '[')
        post_array(q, body, tenant, wait_ms);
    else
        post_one(q, body, tenant, wait_ms);
}
