/* /api/v1/dead: dead letters, and making jobs of them again. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "producer/submit.h"
#include <stdlib.h>

#define ACK_MAX_MS 30000
#define LIST_MAX_BYTES ((size_t)256 << 20)
#define PREVIEW_BYTES 200

/* ---- arguments ---- */

/* A misspelled code would find nothing. */
static bool read_code(struct request *q, struct str *code)
{
    enum reason r = 0;

    *code = request_query(q, "code");
    while (r < REASON_COUNT_ && !str_eqz(*code, reason_code(r)))
        r++;
    if (!code->p || r < REASON_COUNT_ || str_eqz(*code, "malformed") ||
        str_eqz(*code, "id_conflict"))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "code",
                        "'code' must be a failed job's error code, malformed or id_conflict");
    return false;
}

static bool read_filter(struct request *q, struct dead_filter *f)
{
    f->model = request_query(q, "model");
    f->queue = request_query(q, "queue");
    return read_code(q, &f->code) && api_id(q, "tenant", &f->tenant) &&
           api_id(q, "batch_id", &f->batch_id) && api_id(q, "job_id", &f->job_id) &&
           api_time(q, "since", &f->since) && api_time(q, "until", &f->until) &&
           api_cursor(q, "after", 0, &f->after) && api_cursor(q, "before", 0, &f->before) &&
           api_limit(q, &f->limit);
}

/* ---- one letter ---- */

/* What a record that is no job begins with; nothing where it is no text. */
static struct str preview(const struct dead_letter *l)
{
    struct str s = str_of(l->value.p, l->value.n < PREVIEW_BYTES ? l->value.n : PREVIEW_BYTES);

    if (l->is_failed_job || s.n == 0)
        return STR_NONE;
    if (s.n < l->value.n)
        s.n = str_utf8_bad(s); /* not in the middle of a character */
    return s.n > 0 && str_utf8_bad(s) == s.n && !memchr(s.p, '\0', s.n) ? s : STR_NONE;
}

/* What others wrote into a record's headers may be no text at all: as far as it is one. */
static struct str text(struct str s)
{
    const char *nul = s.n ? memchr(s.p, '\0', s.n) : NULL;

    if (nul)
        s.n = (size_t)(nul - s.p);
    return str_of(s.p, s.p ? str_utf8_bad(s) : 0);
}

static void put_opt(struct buf *b, const char *namez, struct str s)
{
    json_put_member_opt(b, namez, text(s));
    buf_addc(b, ',');
}

/* Its members, without the braces. */
static void put_letter(struct buf *b, const struct topics *t, const struct dead_letter *l)
{
    char position[POSITION_TEXT_MAX];

    position_format(t, (struct position){TOPIC_DEAD, 0, l->offset}, position);
    buf_addz(b, "\"object\":\"dead\",");
    put_opt(b, "position", str_z(position));
    json_put_member_int(b, "at", l->at_ms);
    buf_addc(b, ',');
    put_opt(b, "code", l->code);
    put_opt(b, "reason", l->reason);
    put_opt(b, "source", l->source);
    put_opt(b, "job_id", l->id);
    put_opt(b, "tenant", l->tenant);
    put_opt(b, "model", l->model);
    put_opt(b, "queue", l->queue);
    put_opt(b, "batch_id", l->batch_id);
    json_put_member_int(b, "bytes", (int64_t)l->value.n);
    buf_addc(b, ',');
    put_opt(b, "preview", preview(l));
    json_put_member_bool(b, "can_redrive", l->can_redrive);
    buf_addc(b, ',');
    json_put_member_opt(b, "redriven_as", l->is_redriven ? str_z(l->redrive_id) : STR_NONE);
}

static void put_end(struct buf *b, const struct dead_page *page)
{
    buf_addz(b, "],");
    json_put_member_bool(b, "has_more", page->has_more);
    buf_addc(b, ',');
    if (page->has_more)
        json_put_member_int(b, "next", page->next);
    else
        buf_addz(b, "\"next\":null");
    buf_addc(b, ',');
    json_put_member_int(b, "end", page->end);
    buf_addc(b, '}');
}

/* ---- GET ---- */

struct listing {
    const struct topics *topics;
    struct buf b;
    int n;
};

static int add_to_list(void *data, const struct dead_letter *l)
{
    struct listing *list = data;

    buf_addz(&list->b, list->n++ ? ",{" : "{");
    put_letter(&list->b, list->topics, l);
    buf_addc(&list->b, '}');
    return 0;
}

void dead_list(struct request *q)
{
    struct listing list = {.topics = q->gateway->topics};
    struct dead_filter f;
    struct dead_page page;
    struct err e;

    if (!api_check_query(q) || !read_filter(q, &f))
        return;
    buf_init(&list.b, LIST_MAX_BYTES);
    buf_addz(&list.b, "{\"object\":\"list\",\"data\":[");
    if (reader_dead(request_reader(q), list.topics, &f, add_to_list, &list, &page, &e)) {
        buf_release(&list.b);
        request_reply_err(q, &e);
        return;
    }
    put_end(&list.b, &page);
    request_reply_json(q, 200, &list.b);
}

/* ---- POST: a page of letters becomes one publish ---- */

struct redrive {
    struct flight flight; /* first */
    const struct gateway *gateway;
    struct submission *submission;
    struct redrive_edit edit;
    struct json *body; /* the request's; owns what edit borrows */
    struct buf options;
    bool is_dry;
    struct buf *items; /* of each letter: its members as JSON */
    int *of;           /* which job of the submission; -1: none */
    int n_items;
    struct dead_page page;
    int code;
    bool is_done; /* under the flight's lock */
};

static void free_redrive(struct flight *f)
{
    struct redrive *r = (struct redrive *)(void *)f;

    for (int i = 0; i < r->n_items; i++)
        buf_release(&r->items[i]);
    free(r->items);
    free(r->of);
    buf_release(&r->options);
    json_free(r->body);
    submission_free(r->submission);
    free(r);
}

static void on_end(struct request *q)
{
    flight_leave(q->data);
}

static void set_done(struct flight *f)
{
    ((struct redrive *)(void *)f)->is_done = true;
}

static void on_done(struct submission *s, int code)
{
    struct redrive *r = s->data;

    r->code = code;
    flight_land(&r->flight, set_done);
}

static void put_result(struct buf *b, const char *resultz, const char *idz, const char *errorz)
{
    buf_addc(b, ',');
    json_put_member_str(b, "result", str_z(resultz));
    buf_addc(b, ',');
    json_put_member_opt(b, "id", idz ? str_z(idz) : STR_NONE);
    buf_addc(b, ',');
    json_put_member_opt(b, "error", errorz ? str_z(errorz) : STR_NONE);
}

/* Whether a letter of this page becomes the same job: a job that was run twice, and failed twice.
 */
static bool is_in_page(const struct submission *s, const struct dead_letter *l)
{
    for (size_t i = 0; i < s->n; i++)
        if (str_eqz(s->jobs[i].id, l->redrive_id) && str_eq(s->jobs[i].tenant, l->tenant))
            return true;
    return false;
}

/* 0: the letter's job is in the submission; or negative and *e. */
static int make_job(struct redrive *r, const struct dead_letter *l, struct err *e)
{
    struct job j;
    int rc = redrive_parse(&j, l->value, &r->edit, str_z(l->redrive_id), e);

    if (rc)
        return rc;
    rc = api_complete(r->gateway, &j, STR_NONE, l->tenant, STR_NONE, STR_NONE, -1, e);
    rc = rc ? rc : submission_add(r->submission, r->gateway, &j, e);
    if (rc)
        job_release(&j);
    return rc;
}

static int add_letter(void *data, const struct dead_letter *l)
{
    struct redrive *r = data;
    struct buf *b = &r->items[r->n_items];
    struct err e = {0};

    buf_init(b, LIST_MAX_BYTES);
    put_letter(b, r->gateway->topics, l);
    r->of[r->n_items++] = -1;
    if (!l->can_redrive)
        put_result(b, "refused", NULL, "the record is no job: nothing to run again");
    else if (l->is_redriven || is_in_page(r->submission, l))
        put_result(b, "already", l->redrive_id, NULL);
    else if (make_job(r, l, &e) < 0)
        put_result(b, "refused", NULL, e.msg);
    else if (r->is_dry)
        put_result(b, "would", l->redrive_id, NULL);
    else
        r->of[r->n_items - 1] = (int)r->submission->n - 1;
    return 0;
}

static void settle(struct redrive *r, int item)
{
    const struct submission *s = r->submission;
    int code = s->records[r->of[item]].code;
    char id[ID_MAX + 1];

    str_copyz(id, sizeof id, s->jobs[r->of[item]].id);
    if (code == 0)
        put_result(&r->items[item], "redriven", id, NULL);
    else if (code == ERR_EXISTS || code == ERR_CONFLICT) /* another was faster */
        put_result(&r->items[item], "already", id, NULL);
    else
        put_result(&r->items[item], "refused", NULL, "the log did not take the job");
}

static void reply_results(struct request *q)
{
    struct redrive *r = q->data;
    struct buf b;

    buf_init(&b, LIST_MAX_BYTES);
    buf_addz(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < r->n_items; i++) {
        if (r->of[i] >= 0)
            settle(r, i);
        buf_addz(&b, i ? ",{" : "{");
        buf_adds(&b, buf_str(&r->items[i]));
        buf_addc(&b, '}');
    }
    put_end(&b, &r->page);
    request_reply_json(q, 200, &b);
}

/* Some may be in the log all the same; whoever repeats the request is told `already` of those. */
static void reply_not_kept(struct request *q, int code)
{
    struct redrive *r = q->data;
    enum reason reason;
    const char *codez, *messagez;
    int status = api_full(q->gateway, code, r->submission->n, &reason, &codez, &messagez);

    request_reply_status(q, status, reason, codez, NULL, "%s", messagez);
}

static void answer(struct request *q)
{
    struct redrive *r = q->data;
    bool is_done;

    flight_lock(&r->flight);
    is_done = r->is_done;
    flight_unlock(&r->flight);
    if (q->is_gone)
        return;
    if (!is_done && !q->is_late)
        request_wait(q, clock_mono_ms() + ACK_MAX_MS, answer);
    else if (!is_done || r->code < 0)
        reply_not_kept(q, is_done ? r->code : ERR_TIMEOUT);
    else
        reply_results(q);
}

static void send_all(struct request *q)
{
    struct redrive *r = q->data;
    struct err e;

    if (gateway_has_room(q->gateway, &e) < 0) {
        request_reply_status(q, 503, REASON_INTERNAL, "unavailable", NULL, "%s", e.msg);
        return;
    }
    flight_hold(&r->flight);
    if (submission_send(r->submission, q->gateway, request_reader(q), &e) == 0) {
        answer(q);
    } else {
        flight_land(&r->flight, NULL);
        reply_not_kept(q, e.code);
    }
}

/* ---- what is to be changed ---- */

static bool refuse(struct request *q, const char *paramz, const struct err *e)
{
    request_reply_error(q, REASON_INVALID_REQUEST, paramz && *paramz ? paramz : NULL, "%s", e->msg);
    return false;
}

static int take_member(struct redrive *r, const struct json *member, const char **paramz,
                       struct err *e)
{
    if (str_eqz(json_name(member), "model")) {
        *paramz = "model";
        r->edit.model = json_str(member);
        return r->edit.model.p ? 0 : err_set(e, ERR_INVALID, "'model' must be a string");
    }
    if (str_eqz(json_name(member), "options")) {
        json_print(member, &r->options);
        r->edit.options = buf_str(&r->options);
        return 0;
    }
    return err_set(e, ERR_INVALID, "unknown field '%.*s': a redrive changes 'model' and 'options'",
                   (int)(json_name(member).n < 64 ? json_name(member).n : 64), json_name(member).p);
}

static bool read_edit(struct request *q, struct redrive *r)
{
    const struct json *member;
    const char *paramz = NULL;
    struct err e = {0};
    int rc = 0;

    if (q->body.n == 0)
        return true;
    r->body = json_parse(buf_str(&q->body), &e);
    if (!r->body)
        return refuse(q, NULL, &e);
    if (json_type(r->body) != JSON_OBJECT)
        rc = err_set(&e, ERR_INVALID, "the body must be an object");
    for (member = json_child(r->body); rc == 0 && member; member = json_next(member))
        rc = take_member(r, member, &paramz, &e);
    rc = rc ? rc : redrive_check(&r->edit, &paramz, &e);
    return rc == 0 || refuse(q, paramz, &e);
}

static bool read_dry_run(struct request *q, bool *is_dry)
{
    struct str s = request_query(q, "dry_run");

    *is_dry = str_eqz(s, "true");
    if (!s.p || *is_dry || str_eqz(s, "false"))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "dry_run", "'dry_run' must be true or false");
    return false;
}

static struct redrive *redrive_new(struct request *q)
{
    struct redrive *r = xcalloc(1, sizeof *r);

    flight_init(&r->flight, q, free_redrive);
    r->gateway = q->gateway;
    buf_init(&r->options, LIST_MAX_BYTES);
    q->data = r;
    q->on_end = on_end;
    return r;
}

void dead_redrive(struct request *q)
{
    struct redrive *r = redrive_new(q);
    struct dead_filter f;
    struct err e;

    if (!api_check_query(q) || !read_filter(q, &f) || !read_dry_run(q, &r->is_dry) ||
        !read_edit(q, r))
        return;
    r->items = xcalloc((size_t)f.limit, sizeof *r->items);
    r->of = xcalloc((size_t)f.limit, sizeof *r->of);
    r->submission = submission_new((size_t)f.limit, on_done, r);
    if (reader_dead(request_reader(q), q->gateway->topics, &f, add_letter, r, &r->page, &e))
        request_reply_err(q, &e);
    else if (r->is_dry || r->submission->n == 0)
        reply_results(q);
    else
        send_all(q);
}
