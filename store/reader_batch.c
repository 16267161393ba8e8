/* Batches: their JSON, and their lines' results in both orders. */
#include "base/clock.h"
#include "base/json.h"
#include "broker-config/header_codec.h"
#include "store/reader_internal.h"

enum { LOOK_MAX = 20000 }; /* rows that one call looks at and leaves out */

#define BATCH_COLUMNS \
    "seq, state, created_at, finished_at, n_lines, first_off, last_off, id, n_total, n_succeeded," \
    " n_failed, n_cancelled, n_expired, prompt_tokens, completion_tokens, cached_tokens, cost"
#define BATCH_SQL "SELECT " BATCH_COLUMNS " FROM batch WHERE tenant=? AND id=?"
#define BATCHES_SQL \
    "SELECT " BATCH_COLUMNS " FROM batch WHERE seq<?1 AND (?2 IS NULL OR tenant=?2)" \
    " ORDER BY seq DESC LIMIT ?3"
#define RESULTS_SQL \
    "SELECT l.line, j.form, j.state, c.value, j.id, j.digest" \
    " FROM batch_line l CROSS JOIN job j ON j.seq=l.job" \
    " LEFT JOIN \"genq.completions\" c ON c.off=j.completion_off" \
    " WHERE l.batch=? AND l.line>=? ORDER BY l.line"
#define OPEN_SQL \
    "SELECT l.line, j.id, j.state FROM batch_line l CROSS JOIN job j ON j.seq=l.job" \
    " WHERE l.batch=? AND l.line>=? ORDER BY l.line"
/* No index: few ask, and every job would pay for it. */
#define UNFINISHED_SQL \
    "SELECT id FROM job WHERE seq BETWEEN ? AND ? AND state<=1 AND tenant=? AND batch_id=?"
_Static_assert(STATE_SCHEDULED == 0 && STATE_QUEUED == 1, "as UNFINISHED_SQL has them");
#define UNFINISHED_STEP 100000 /* rows looked at in one statement */
#define FEED_SQL \
    "SELECT off, key, headers, value FROM \"genq.completions\" WHERE off BETWEEN ? AND ?" \
    " ORDER BY off"
#define MEMBER_SQL \
    "SELECT form, state, batch_line, digest FROM job" \
    " WHERE tenant=? AND id=? AND batch=? AND completion_off=?"

/* ---- the batch itself ---- */

static void read_row(struct db_stmt *s, struct batch_row *row)
{
    row->seq = db_int(s, 0);
    row->state = (enum batch_state)db_int(s, 1);
    row->created_at = db_int(s, 2);
    row->finished_at = db_int(s, 3);
    row->n_lines = db_is_null(s, 4) ? -1 : db_int(s, 4);
    row->first_off = db_int(s, 5);
    row->last_off = db_int(s, 6);
}

static const char *status_of(const struct batch_row *row)
{
    if (row->state == BATCH_CANCELLED)
        return "cancelled";
    if (row->state == BATCH_RECEIVING)
        return "receiving";
    return row->finished_at ? "done" : "running";
}

static void put_time(struct buf *b, const char *namez, int64_t ms)
{
    if (ms)
        json_put_member_int(b, namez, ms);
    else
        json_put_member_raw(b, namez, STR_NONE);
    buf_addc(b, ',');
}

/* At the rate of ends since the batch came; null where there is no end to come, or no rate yet. */
static void put_eta(struct buf *b, const struct batch_row *row, int64_t n_open, int64_t n_ended)
{
    int64_t ms = clock_wall_ms() - row->created_at;

    if (row->finished_at || n_ended == 0 || ms <= 0)
        json_put_member_raw(b, "eta_ms", STR_NONE);
    else
        json_put_member_int(b, "eta_ms", (int64_t)((double)ms / (double)n_ended * (double)n_open));
}

static void put_counts(struct buf *b, struct db_stmt *s, int64_t n_open)
{
    int64_t prompt = db_int(s, 13), completion = db_int(s, 14);

    buf_addf(b,
             "\"total\":%lld,\"counts\":{\"queued\":%lld,\"succeeded\":%lld,\"failed\":%lld,"
             "\"cancelled\":%lld,\"expired\":%lld},\"usage\":{\"prompt_tokens\":%lld,"
             "\"completion_tokens\":%lld,\"total_tokens\":%lld,\"cached_tokens\":%lld},\"cost\":",
             (long long)db_int(s, 8), (long long)n_open, (long long)db_int(s, 9),
             (long long)db_int(s, 10), (long long)db_int(s, 11), (long long)db_int(s, 12),
             (long long)prompt, (long long)completion, (long long)(prompt + completion),
             (long long)db_int(s, 15));
    reader_put_cost(b, db_real(s, 16));
    buf_addc(b, ',');
}

static void put_batch(struct buf *b, struct db_stmt *s)
{
    struct batch_row row;
    int64_t n_ended = db_int(s, 9) + db_int(s, 10) + db_int(s, 11) + db_int(s, 12);
    int64_t n_open = db_int(s, 8) - n_ended;

    read_row(s, &row);
    buf_addc(b, '{');
    json_put_member_str(b, "id", db_text(s, 7));
    buf_addz(b, ",\"object\":\"batch\",");
    json_put_member_str(b, "status", str_z(status_of(&row)));
    buf_addc(b, ',');
    put_time(b, "created_at", row.created_at);
    put_time(b, "finished_at", row.finished_at);
    put_counts(b, s, n_open);
    put_eta(b, &row, n_open, n_ended);
    buf_addc(b, '}');
}

/* Steps to the batch's row; on success db_reset(*out) is due. */
static int find(struct reader *r, struct str tenant, struct str id, struct db_stmt **out,
                struct err *e)
{
    int rc = reader_stmt(r, Q_BATCH, BATCH_SQL, out, e);

    if (rc)
        return rc;
    db_bind_text(*out, 1, tenant);
    db_bind_text(*out, 2, id);
    rc = db_step(*out, e);
    if (rc > 0)
        return 0;
    db_reset(*out);
    return rc ? rc : err_set(e, ERR_NOT_FOUND, "no batch '%.*s'", STR_ARG(id));
}

int reader_find_batch(struct reader *r, struct str tenant, struct str id, struct batch_row *out,
                      struct err *e)
{
    struct db_stmt *s;
    int rc = find(r, tenant, id, &s, e);

    if (rc == 0) {
        read_row(s, out);
        db_reset(s);
    }
    return rc;
}

static int check_room(const struct buf *b, struct err *e)
{
    return b->is_over ? err_set(e, ERR_TOO_LARGE, "larger than the answer may be") : 0;
}

int reader_batch(struct reader *r, struct str tenant, struct str id, struct buf *b, struct err *e)
{
    struct db_stmt *s;
    int rc = find(r, tenant, id, &s, e);

    if (rc)
        return rc;
    put_batch(b, s);
    db_reset(s);
    return check_room(b, e);
}

int reader_batches(struct reader *r, struct str tenant, int64_t after, int limit, struct buf *b,
                   struct err *e)
{
    struct db_stmt *s;
    int64_t last = 0;
    int n = 0, rc = reader_stmt(r, Q_BATCHES, BATCHES_SQL, &s, e);

    if (rc)
        return rc;
    db_bind_int(s, 1, after ? after : INT64_MAX);
    db_bind_text(s, 2, tenant);
    db_bind_int(s, 3, limit + 1); /* one more tells whether there are more */
    buf_addz(b, "{\"object\":\"list\",\"data\":[");
    while ((rc = db_step(s, e)) > 0 && n < limit) {
        if (n++ > 0)
            buf_addc(b, ',');
        put_batch(b, s);
        last = db_int(s, 0);
    }
    db_reset(s);
    reader_put_next(b, rc > 0, last);
    return rc < 0 ? rc : check_room(b, e);
}

/* ---- lines ---- */

/* A walk over a batch's lines: where it is, and what it may still do. */
struct walk {
    struct batch_row batch;
    int limit, n_given, n_left_out;
    int64_t *next;
    bool *is_end;
};

/* Stands the walk on the next line: 1, 0 at the end or negative. */
static int step_line(struct walk *k, struct db_stmt *s, struct err *e)
{
    int rc = db_step(s, e);

    /* A shorter input, sent again, leaves lines behind its end. */
    if (rc > 0 && k->batch.n_lines >= 0 && db_int(s, 0) >= k->batch.n_lines)
        rc = 0;
    *k->is_end = rc == 0;
    return rc;
}

static bool may_go_on(const struct walk *k)
{
    return k->n_given < k->limit && k->n_left_out < LOOK_MAX;
}

static int start_walk(struct reader *r, struct walk *k, struct str tenant, struct str batch_id,
                      int64_t from, struct db_stmt *s, struct err *e)
{
    int rc = reader_find_batch(r, tenant, batch_id, &k->batch, e);

    *k->next = from;
    *k->is_end = false;
    if (rc)
        return rc;
    db_bind_int(s, 1, k->batch.seq);
    db_bind_int(s, 2, from);
    return 0;
}

typedef int line_fn(void *data, const struct result_line *l);

/* What the caller of a results function asked to have done with each line. */
struct giver {
    struct reader *r;
    line_fn *fn;
    void *data;
};

static int give(const struct giver *g, int64_t line, int64_t form, int64_t state, struct str id,
                struct str digest, struct str value)
{
    struct result_line l = {line,   (enum line_form)form,        (enum job_state)state, id,
                            digest, reader_one_line(g->r, value)};

    return g->fn(g->data, &l);
}

static int walk_results(struct walk *k, struct db_stmt *s, bool skip_unfinished,
                        const struct giver *g, struct err *e)
{
    struct str value;
    int64_t line;
    int rc = 0, told = 0;

    while (told == 0 && may_go_on(k) && (rc = step_line(k, s, e)) > 0) {
        line = db_int(s, 0);
        value = db_blob(s, 3);
        if (!skip_unfinished &&
            (!value.n || (k->batch.state == BATCH_RECEIVING && line != *k->next)))
            break;
        *k->next = line + 1;
        if (!value.n) {
            k->n_left_out++;
            continue;
        }
        told = give(g, line, db_int(s, 1), db_int(s, 2), db_text(s, 4), db_blob(s, 5), value);
        k->n_given++;
    }
    db_reset(s);
    return rc < 0 ? rc : told < 0 ? told : k->n_given;
}

int reader_results(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                   int limit, bool skip_unfinished,
                   int (*on_line)(void *data, const struct result_line *l), void *data,
                   int64_t *next, bool *is_end, struct err *e)
{
    struct walk k = {.limit = limit, .next = next, .is_end = is_end};
    struct giver g = {r, on_line, data};
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_RESULTS, RESULTS_SQL, &s, e);

    rc = rc ? rc : start_walk(r, &k, tenant, batch_id, from, s, e);
    return rc ? rc : walk_results(&k, s, skip_unfinished, &g, e);
}

int reader_batch_open(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                      int limit, int (*on_id)(void *data, struct str id), void *data, int64_t *next,
                      bool *is_end, struct err *e)
{
    struct walk k = {.limit = limit, .next = next, .is_end = is_end};
    struct db_stmt *s;
    int told = 0, rc = reader_stmt(r, Q_OPEN, OPEN_SQL, &s, e);

    rc = rc ? rc : start_walk(r, &k, tenant, batch_id, from, s, e);
    if (rc)
        return rc;
    k.batch.n_lines = -1; /* also those that a shorter input has left behind */
    while (told == 0 && may_go_on(&k) && (rc = step_line(&k, s, e)) > 0) {
        *next = db_int(s, 0) + 1;
        if (state_is_terminal((enum job_state)db_int(s, 2))) {
            k.n_left_out++;
            continue;
        }
        told = on_id(data, db_text(s, 1));
        k.n_given++;
    }
    db_reset(s);
    return rc < 0 ? rc : told < 0 ? told : k.n_given;
}

static int newest_job(struct reader *r, int64_t *seq, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_NEWEST, "SELECT max(seq) FROM job", &s, e);

    return rc ? rc : reader_int(s, 0, seq, e);
}

int reader_unfinished(struct reader *r, struct str tenant, struct str batch_id,
                      void (*on_id)(void *data, struct str id), void *data, struct err *e)
{
    struct db_stmt *s;
    int64_t newest, from;
    int rc = newest_job(r, &newest, e);

    rc = rc ? rc : reader_stmt(r, Q_UNFINISHED, UNFINISHED_SQL, &s, e);
    for (from = 1; rc == 0 && from <= newest; from += UNFINISHED_STEP) {
        db_bind_int(s, 1, from);
        db_bind_int(s, 2, from + UNFINISHED_STEP - 1);
        db_bind_text(s, 3, tenant);
        db_bind_text(s, 4, batch_id);
        while ((rc = db_step(s, e)) > 0)
            on_id(data, db_text(s, 0));
        db_reset(s);
    }
    return rc;
}

/* ---- in the order of completion ---- */

/* s stands on a completion: whether it is of the batch, by its headers. */
static bool is_of(struct db_stmt *s, struct str tenant, struct str batch_id)
{
    struct headers headers;

    header_decode(db_blob(s, 2), &headers);
    return str_eq(headers.all[HEADER_BATCH], batch_id) && str_eq(headers.all[HEADER_TENANT], tenant);
}

/* Gives the completion s stands on, if its job is a line of the batch: 1, 0 or negative; *told is
 * the callback's answer. */
static int give_member(const struct giver *g, struct db_stmt *s, struct str tenant, int64_t batch,
                       int *told, struct err *e)
{
    struct db_stmt *job;
    int rc = reader_stmt(g->r, Q_JOB_MEMBER, MEMBER_SQL, &job, e);

    if (rc)
        return rc;
    db_bind_text(job, 1, tenant);
    db_bind_text(job, 2, db_text(s, 1));
    db_bind_int(job, 3, batch);
    db_bind_int(job, 4, db_int(s, 0));
    rc = db_step(job, e);
    if (rc > 0)
        *told = give(g, db_int(job, 2), db_int(job, 0), db_int(job, 1), db_text(s, 1),
                     db_blob(job, 3), db_blob(s, 3));
    db_reset(job);
    return rc;
}

static int walk_feed(struct walk *k, struct db_stmt *s, struct str tenant, struct str batch_id,
                     const struct giver *g, struct err *e)
{
    int rc = 1, told = 0, is_member;

    while (told == 0 && may_go_on(k) && (rc = db_step(s, e)) > 0) {
        is_member = 0;
        if (is_of(s, tenant, batch_id))
            is_member = give_member(g, s, tenant, k->batch.seq, &told, e);
        if (is_member < 0) {
            rc = is_member;
            break;
        }
        k->n_given += is_member;
        k->n_left_out += 1 - is_member;
        *k->next = db_int(s, 0) + 1;
    }
    db_reset(s);
    *k->is_end = rc == 0;
    return rc < 0 ? rc : told < 0 ? told : k->n_given;
}

int reader_results_completed(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                             int limit, int (*on_line)(void *data, const struct result_line *l),
                             void *data, int64_t *next, bool *is_end, struct err *e)
{
    struct walk k = {.limit = limit, .next = next, .is_end = is_end};
    struct giver g = {r, on_line, data};
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_FEED_SPAN, FEED_SQL, &s, e);

    rc = rc ? rc : reader_find_batch(r, tenant, batch_id, &k.batch, e);
    if (rc)
        return rc;
    *next = k.batch.last_off >= 0 && k.batch.first_off > from ? k.batch.first_off : from;
    db_bind_int(s, 1, *next);
    db_bind_int(s, 2, k.batch.last_off);
    return walk_feed(&k, s, tenant, batch_id, &g, e);
}
