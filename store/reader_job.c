/* The connection, and single jobs. */
#include "base/json.h"
#include "schema/migrate.h"
#include "store/reader_internal.h"
#include <stdlib.h>

enum { CACHE_KIB = 4096, STEP_LIMIT_MS = 2000, LINE_MAX_BYTES = 1 << 30 };

#define JOB_SQL \
    "SELECT " READER_COLUMNS ", j.digest FROM " READER_FROM " WHERE j.tenant=? AND j.id=?"

/* Only a log that is followed has positions; a partition without one was added a moment ago. */
#define APPLIED_SQL \
    "SELECT ifnull((SELECT next>?3 FROM position WHERE topic=?1 AND partition=?2)," \
    " NOT EXISTS (SELECT 1 FROM position))"

struct reader *reader_open(const char *dataz, struct live *live, struct err *e)
{
    struct reader *r = xcalloc(1, sizeof *r);
    struct buf path;
    int rc;

    buf_init(&path, 8192);
    buf_init(&r->line, LINE_MAX_BYTES);
    r->live = live;
    if (buf_addf(&path, "%s/" DB_FILE, dataz))
        rc = err_set(e, ERR_INVALID, "the data directory's path is too long");
    else
        rc = db_open(path.p, DB_READ, CACHE_KIB, &r->db, e);
    rc = rc ? rc : schema_check(r->db, e);
    buf_release(&path);
    if (rc) {
        reader_close(r);
        return NULL;
    }
    db_set_step_limit(r->db, STEP_LIMIT_MS);
    return r;
}

void reader_close(struct reader *r)
{
    if (!r)
        return;
    db_close(r->db);
    buf_release(&r->line);
    free(r);
}

int reader_stmt(struct reader *r, enum reader_stmt id, const char *sqlz, struct db_stmt **out,
                struct err *e)
{
    int rc = r->stmts[id] ? 0 : db_prepare(r->db, sqlz, &r->stmts[id], e);

    *out = r->stmts[id];
    return rc;
}

int reader_int(struct db_stmt *s, int64_t if_none, int64_t *out, struct err *e)
{
    int rc = db_step(s, e);

    *out = rc > 0 && !db_is_null(s, 0) ? db_int(s, 0) : if_none;
    db_reset(s);
    return rc < 0 ? rc : 0;
}

/* ---- a row's JSON ---- */

/* The row as a job; its strs are the row's. */
static void row_job(struct db_stmt *s, struct job *j)
{
    *j = (struct job){
        .state = (enum job_state)db_int(s, COL_STATE),
        .priority = (enum priority)db_int(s, COL_PRIORITY),
        .form = (enum line_form)db_int(s, COL_FORM),
        .id = db_text(s, COL_ID),
        .tenant = db_text(s, COL_TENANT),
        .model = db_text(s, COL_MODEL),
        .queue = db_text(s, COL_QUEUE),
        .batch_id = db_text(s, COL_BATCH_ID),
        .custom_id = db_text(s, COL_CUSTOM_ID),
        .session = db_text(s, COL_SESSION),
        .metadata = db_text(s, COL_METADATA),
        .redrive_of = db_text(s, COL_REDRIVE_OF),
        .created_at = db_int(s, COL_CREATED_AT),
        .not_before = db_int(s, COL_NOT_BEFORE),
        .deadline = db_int(s, COL_DEADLINE),
        .batch_line = db_is_null(s, COL_BATCH_LINE) ? -1 : db_int(s, COL_BATCH_LINE),
    };
}

void reader_set_seen(struct reader *r, const struct reader_seen *seen)
{
    r->seen = seen;
}

enum job_state reader_row_state(struct reader *r, struct db_stmt *s, struct live_view *live)
{
    enum job_state state = (enum job_state)db_int(s, COL_STATE);
    struct str tenant, id;

    *live = (struct live_view){.is_running = false};
    if (state_is_terminal(state))
        return state;
    tenant = db_text(s, COL_TENANT);
    id = db_text(s, COL_ID);
    if ((!r->live || !live_get(r->live, tenant, id, live)) && r->seen && state == STATE_QUEUED &&
        !r->seen->get(r->seen->data, tenant, id, live))
        *live = (struct live_view){.is_running = false};
    return live->is_running ? STATE_RUNNING : state;
}

enum job_state reader_put_job(struct reader *r, struct db_stmt *s, struct buf *b)
{
    struct str value = db_blob(s, COL_VALUE);
    struct completion c = {.reason = REASON_NONE,
                           .queue_ms = -1,
                           .engine_ms = -1,
                           .first_token_ms = -1,
                           .total_ms = -1};
    struct live_view live;
    struct job j;

    if (value.n) {
        buf_adds(b, value);
        return (enum job_state)db_int(s, COL_STATE);
    }
    row_job(s, &j);
    c.state = reader_row_state(r, s, &live);
    c.finished_at = db_int(s, COL_FINISHED_AT);
    c.attempts = live.attempts;
    c.started_at = live.started_at;
    c.node = live.node[0] ? str_z(live.node) : STR_NONE;
    completion_write(&j, &c, b);
    return c.state;
}

struct str reader_one_line(struct reader *r, struct str json)
{
    size_t i;

    if (!json.n || (!memchr(json.p, '\n', json.n) && !memchr(json.p, '\r', json.n)))
        return json;
    buf_clear(&r->line);
    if (buf_adds(&r->line, json))
        return json;
    for (i = 0; i < json.n; i++)
        if (r->line.p[i] == '\n' || r->line.p[i] == '\r')
            r->line.p[i] = ' '; /* inside a string it would be escaped */
    return buf_str(&r->line);
}

void reader_put_next(struct buf *b, bool has_more, int64_t next)
{
    buf_addz(b, "],");
    json_put_member_bool(b, "has_more", has_more);
    buf_addz(b, ",\"next\":");
    if (has_more)
        buf_addi(b, next);
    else
        buf_addz(b, "null");
    buf_addc(b, '}');
}

void reader_put_cost(struct buf *b, double cost)
{
    buf_addf(b, "%.15g", cost);
}

/* ---- single jobs ---- */

/* Steps to the job's row; afterwards db_reset(*out), also on failure when *out is set. */
static int find(struct reader *r, struct str tenant, struct str id, struct db_stmt **out,
                struct err *e)
{
    int rc = reader_stmt(r, Q_JOB, JOB_SQL, out, e);

    if (rc)
        return rc;
    db_bind_text(*out, 1, tenant);
    db_bind_text(*out, 2, id);
    rc = db_step(*out, e);
    if (rc == 0)
        rc = err_set(e, ERR_NOT_FOUND, "no job '%.*s'", STR_ARG(id));
    if (rc < 0)
        db_reset(*out);
    return rc < 0 ? rc : 0;
}

int reader_job(struct reader *r, struct str tenant, struct str id, struct buf *b,
               enum job_state *state, struct err *e)
{
    struct db_stmt *s;
    enum job_state shown;
    int rc = find(r, tenant, id, &s, e);

    if (rc)
        return rc;
    shown = reader_put_job(r, s, b);
    if (state)
        *state = shown;
    db_reset(s);
    return b->is_over ? err_set(e, ERR_TOO_LARGE, "the job is larger than its buffer") : 0;
}

int reader_has_job(struct reader *r, struct str tenant, struct str id, struct err *e)
{
    struct db_stmt *s;
    int rc = find(r, tenant, id, &s, e);

    if (rc == 0)
        db_reset(s);
    return rc;
}

int reader_has_applied(struct reader *r, struct position at, const struct topics *t, struct err *e)
{
    struct db_stmt *s;
    int64_t has = 0;
    int rc = reader_stmt(r, Q_APPLIED, APPLIED_SQL, &s, e);

    if (rc)
        return rc;
    db_bind_text(s, 1, str_z(topics_name(t, at.topic)));
    db_bind_int(s, 2, at.partition);
    db_bind_int(s, 3, at.offset);
    rc = reader_int(s, 0, &has, e);
    return rc ? rc : has != 0;
}

static bool is_same(struct db_stmt *s, const struct job *j)
{
    struct str known = db_blob(s, 0);
    uint8_t digest[SHA256_LEN];

    job_digest(j, digest);
    return known.n == SHA256_LEN && memcmp(known.p, digest, SHA256_LEN) == 0;
}

int reader_repeat(struct reader *r, const struct job *j, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_REPEAT, "SELECT digest, batch_line FROM job WHERE tenant=? AND id=?",
                         &s, e);

    if (rc)
        return rc;
    db_bind_text(s, 1, j->tenant);
    db_bind_text(s, 2, j->id);
    rc = db_step(s, e);
    if (rc > 0 && !is_same(s, j))
        rc = ERR_CONFLICT;
    else if (rc > 0) /* one that came before its batch is to be published on its line of it */
        rc = j->batch_line < 0 || db_int(s, 1) == j->batch_line ? ERR_EXISTS : 0;
    db_reset(s);
    return rc;
}

static int find_open(struct reader *r, struct str tenant, struct str id, struct db_stmt **out,
                     struct err *e)
{
    int rc = find(r, tenant, id, out, e);

    if (rc == 0 && state_is_terminal((enum job_state)db_int(*out, COL_STATE))) {
        rc = err_set(e, ERR_EXISTS, "job '%.*s' has ended", STR_ARG(id));
        db_reset(*out);
    }
    return rc;
}

/* Moves what the row lends into the job's own memory. */
static void own(struct job *j)
{
    struct str *texts[] = {&j->id,        &j->tenant,  &j->model,    &j->queue,     &j->batch_id,
                           &j->custom_id, &j->session, &j->metadata, &j->redrive_of};
    size_t i, at, room = 0;

    for (i = 0; i < sizeof texts / sizeof texts[0]; i++)
        room += texts[i]->n;
    buf_init(&j->extra, room + 1);
    buf_reserve(&j->extra, room + 1); /* at once: what stands there may not move */
    for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        at = j->extra.n;
        if (!texts[i]->p)
            continue;
        buf_adds(&j->extra, *texts[i]);
        texts[i]->p = j->extra.p + at;
    }
}

/* The row does not have all of the job. */
static void take_digest(struct db_stmt *s, struct job *j)
{
    struct str digest = db_blob(s, COL_COUNT_);

    j->is_partial = true;
    j->has_digest = digest.n == SHA256_LEN;
    if (j->has_digest)
        memcpy(j->digest, digest.p, SHA256_LEN);
}

int reader_job_head(struct reader *r, struct str tenant, struct str id, struct job *out,
                    struct position *at, const struct topics *t, struct err *e)
{
    struct db_stmt *s;
    int rc = find_open(r, tenant, id, &s, e);

    if (rc)
        return rc;
    row_job(s, out);
    take_digest(s, out);
    at->topic =
        out->state == STATE_SCHEDULED ? TOPIC_SCHEDULED : topics_jobs(t, out->queue, out->priority);
    at->partition = (int32_t)db_int(s, COL_PART);
    at->offset = db_int(s, COL_OFF);
    own(out);
    db_reset(s);
    return 0;
}
