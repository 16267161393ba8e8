#include "store/retention.h"
#include "broker-config/header_codec.h"

enum { STEP_COMPLETIONS = 500, STEP_MS = 1000 };

/* A completion has one ledger row, sometimes more: calls may go twice as fast. Of the batches the
 * hundred oldest are looked at. */
static const char *const sql[R_COUNT_] = {
    [R_OLDEST] = "SELECT off, ts, key, headers FROM \"genq.completions\" ORDER BY off LIMIT 1",
    [R_GET_JOB] = "SELECT seq, batch, batch_line FROM job"
                  " WHERE tenant=? AND id=? AND completion_off=?",
    [R_DROP_COMPLETION] = "DELETE FROM \"genq.completions\" WHERE off=?",
    [R_DROP_JOB] = "DELETE FROM job WHERE seq=?",
    [R_DROP_LINE] = "DELETE FROM batch_line WHERE batch=? AND line=? AND job=?",
    [R_DROP_CALLS] = "DELETE FROM call WHERE seq<(SELECT min(seq)+1000 FROM call) AND at<?",
    [R_DROP_BATCHES] = "DELETE FROM batch"
                       " WHERE seq IN (SELECT seq FROM batch ORDER BY seq LIMIT 100)"
                       " AND created_at<?1 AND ifnull(finished_at, 0)<?1"
                       " AND n_succeeded+n_failed+n_cancelled+n_expired>=n_total",
    [R_SET_OLDEST] = "UPDATE fact SET value=? WHERE name='oldest'",
};

int retention_prepare(struct retention *r, struct db *db, struct err *e)
{
    size_t i;
    int rc = 0;

    for (i = 0; r->keep_ms && rc == 0 && i < R_COUNT_; i++)
        if (!r->stmts[i])
            rc = db_prepare(db, sql[i], &r->stmts[i], e);
    return rc;
}

static int run_with(struct db_stmt *s, int64_t v, struct err *e)
{
    db_bind_int(s, 1, v);
    return db_run(s, e);
}

/* s stands on the completion's row, whose bytes name the job. */
static int drop_job(struct retention *r, struct db_stmt *s, int64_t off, struct err *e)
{
    struct headers headers;
    struct db_stmt *get = r->stmts[R_GET_JOB], *line = r->stmts[R_DROP_LINE];
    int64_t seq = 0;
    int rc;

    header_decode(db_blob(s, 3), &headers);
    db_bind_text(get, 1, headers.all[HEADER_TENANT].p ? headers.all[HEADER_TENANT] : STR("default"));
    db_bind_text(get, 2, db_text(s, 2));
    db_bind_int(get, 3, off);
    rc = db_step(get, e);
    if (rc > 0) {
        seq = db_int(get, 0);
        db_bind_int(line, 1, db_int(get, 1));
        db_bind_int(line, 2, db_int(get, 2));
        db_bind_int(line, 3, seq);
        rc = db_is_null(get, 1) ? 0 : db_run(line, e);
    }
    db_reset(get);
    if (rc == 0 && seq)
        rc = run_with(r->stmts[R_DROP_JOB], seq, e);
    return rc;
}

/* 1 when the oldest completion was too old and is gone. */
static int drop_oldest(struct retention *r, int64_t before_ms, int64_t *off, struct err *e)
{
    struct db_stmt *s = r->stmts[R_OLDEST];
    int rc = db_step(s, e);

    if (rc > 0 && db_int(s, 1) >= before_ms)
        rc = 0;
    if (rc <= 0) {
        db_reset(s);
        return rc;
    }
    *off = db_int(s, 0);
    rc = drop_job(r, s, *off, e);
    db_reset(s);
    rc = rc ? rc : run_with(r->stmts[R_DROP_COMPLETION], *off, e);
    return rc ? rc : 1;
}

int retention_step(struct retention *r, int64_t now_ms, struct err *e)
{
    int64_t before_ms = now_ms - r->keep_ms, off = -1;
    int n, rc = 1;

    if (r->keep_ms == 0 || !r->stmts[0] || now_ms < r->next_ms)
        return 0;
    r->next_ms = now_ms + STEP_MS;
    for (n = 0; rc > 0 && n < STEP_COMPLETIONS; n++)
        rc = drop_oldest(r, before_ms, &off, e);
    if (rc < 0 || off < 0)
        return rc;
    rc = run_with(r->stmts[R_SET_OLDEST], off + 1, e);
    rc = rc ? rc : run_with(r->stmts[R_DROP_CALLS], before_ms, e);
    return rc ? rc : run_with(r->stmts[R_DROP_BATCHES], before_ms, e);
}
