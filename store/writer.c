/* The hooks: which record goes where, what a transaction gathers, and what its end tells others. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "schema/migrate.h"
#include "store/writer_internal.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* In the order of writer_job.c's binders. */
#define JOB_COLUMNS \
    "state, priority, form, off, part, created_at, completion_off, finished_at, not_before," \
    " deadline, batch, batch_line, tenant, id, queue, model, batch_id, digest, session, " \
    "custom_id," \
    " metadata, redrive_of"
#define BATCH_COLUMNS \
    "state, created_at, finished_at, n_lines, n_total, n_succeeded, n_failed, n_cancelled," \
    " n_expired, prompt_tokens, completion_tokens, cached_tokens, cost, first_off, last_off," \
    " last_at"

enum { UNKNOWN = -1 }; /* unfinished, before it was read */

static const char *const sql[W_COUNT_] = {
    [W_ADD_JOB] = "INSERT INTO job(" JOB_COLUMNS ")"
                  " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
    [W_GET_JOB] = "SELECT seq, state, batch, batch_id, digest, completion_off, off, queue FROM job"
                  " WHERE tenant=? AND id=?",
    [W_FILL_JOB] =
        "UPDATE job SET (" JOB_COLUMNS ")=(?,?,?,?,?,?,ifnull(?, completion_off),"
        " ifnull(?, finished_at),?,?,ifnull(?, batch),?,?,?,?,?,?,?,?,?,?,?) WHERE seq=?",
    [W_DUE] = "UPDATE job SET state=1, off=?, part=?, not_before=NULL WHERE seq=?",
    [W_END] = "UPDATE job SET state=?, completion_off=?, finished_at=?, off=NULL, part=NULL,"
              " not_before=NULL, deadline=NULL, session=NULL, custom_id=NULL, metadata=NULL,"
              " redrive_of=NULL"
              " WHERE seq=? AND state<3 AND tenant=? AND id=? AND batch_id IS ?",
    [W_JOIN] = "UPDATE job SET batch=?, batch_line=? WHERE seq=?",
    [W_GET_EARLY] = "SELECT seq, state, batch_line, completion_off FROM job WHERE batch_id=?"
                    " AND tenant=? AND batch_line IS NOT NULL AND batch IS NULL LIMIT 1",
    [W_GET_END] = "SELECT ts, value FROM \"genq.completions\" WHERE off=?",
    [W_ADD_LINE] = "INSERT INTO batch_line(batch, line, job) VALUES(?,?,?)"
                   " ON CONFLICT DO UPDATE SET job=excluded.job WHERE job<>excluded.job",
    [W_ADD_CALL] = "INSERT INTO call(at, job, attempt, outcome, is_wasted, prompt_tokens,"
                   " completion_tokens, cached_tokens, ms, cost, tenant, model, node, batch, id)"
                   " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [W_GET_BATCH] = "SELECT seq, " BATCH_COLUMNS " FROM batch WHERE tenant=? AND id=?",
    [W_ADD_BATCH] = "INSERT INTO batch(tenant, id, " BATCH_COLUMNS ")"
                    " VALUES(?,?,?,?,NULL,NULL,0,0,0,0,0,0,0,0,0,9223372036854775807,-1,0)",
    [W_SAVE_BATCH] = "UPDATE batch SET state=?, finished_at=?, n_lines=?, n_total=?, n_succeeded=?,"
                     " n_failed=?, n_cancelled=?, n_expired=?, prompt_tokens=?,"
                     " completion_tokens=?, cached_tokens=?, cost=?,"
                     " first_off=min(first_off, ?), last_off=?, last_at=? WHERE seq=?",
    [W_GET_FACT] = "SELECT value FROM fact WHERE name=?",
    [W_SET_FACT] = "UPDATE fact SET value=? WHERE name=?",
};

struct store_writer *store_writer_new(const struct topics *t, struct live *live,
                                      int64_t max_unfinished)
{
    struct store_writer *w = xcalloc(1, sizeof *w);

    w->topics = t;
    w->live = live;
    w->unfinished = UNKNOWN;
    w->max_unfinished = max_unfinished ? max_unfinished : INT64_MAX;
    map_init(&w->tallies);
    w->recent = xcalloc(RECENT_JOBS, sizeof w->recent[0]);
    return w;
}

void store_writer_free(struct store_writer *w)
{
    if (!w)
        return;
    writer_forget_tallies(w);
    map_release(&w->tallies);
    free(w->ended);
    free(w->recent);
    free(w);
}

void store_set_retention(struct store_writer *w, int64_t days)
{
    w->retention.keep_ms = days * 86400000;
}

void store_set_on_commit(struct store_writer *w, void (*on_commit)(void *data), void *data)
{
    w->on_commit = on_commit;
    w->on_commit_data = data;
}

int64_t store_unfinished(const struct store_writer *w)
{
    int64_t n = atomic_load_explicit(&w->unfinished, memory_order_relaxed);

    return n == UNKNOWN ? 0 : n;
}

/* ---- statements ---- */

/* A failure of the database is no verdict on the record, even where one has that code: a
 * constraint that does not hold is our own fault. */
static int note(struct store_writer *w, int rc, const struct err *e)
{
    if (rc >= 0)
        return rc;
    if (rc == ERR_CONFLICT || rc == ERR_TOO_LARGE || rc == ERR_NOT_FOUND)
        rc = ERR_INTERNAL;
    if (!w->broken)
        log_error("store_write", LI("code", rc), LZ("error", e->msg));
    w->broken = w->broken ? w->broken : rc;
    return rc;
}

int writer_step(struct store_writer *w, struct db_stmt *s)
{
    struct err e = {0};
    int rc = db_step(s, &e);

    if (rc < 0)
        db_reset(s);
    return note(w, rc, &e);
}

int writer_run(struct store_writer *w, struct db_stmt *s)
{
    struct err e = {0};

    return note(w, db_run(s, &e), &e);
}

static int read_unfinished(struct db_stmt *s, int64_t *n, struct err *e)
{
    int rc;

    db_bind_text(s, 1, STR("unfinished"));
    rc = db_step(s, e);
    *n = rc > 0 ? db_int(s, 0) : 0;
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int prepare(struct store_writer *w, struct db *db)
{
    struct err e = {0};
    int64_t unfinished = 0;
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < W_COUNT_; i++)
        if (!w->stmts[i])
            rc = db_prepare(db, sql[i], &w->stmts[i], &e);
    if (rc == 0)
        rc = retention_prepare(&w->retention, db, &e);
    if (rc == 0)
        rc = read_unfinished(w->stmts[W_GET_FACT], &unfinished, &e);
    if (rc)
        return note(w, rc, &e);
    atomic_store_explicit(&w->unfinished, unfinished, memory_order_relaxed);
    w->db = db;
    return 0;
}

int store_load(struct store_writer *w, const char *dataz, struct err *e)
{
    int64_t unfinished = 0, unknown = UNKNOWN;
    char path[4200];
    struct db *db;
    struct db_stmt *s;
    int rc;

    snprintf(path, sizeof path, "%s/" DB_FILE, dataz);
    rc = db_open(path, DB_READ, 0, &db, e);
    if (rc)
        return rc;
    rc = db_prepare(db, sql[W_GET_FACT], &s, e);
    if (rc == 0)
        rc = read_unfinished(s, &unfinished, e);
    db_close(db);
    if (rc)
        return err_prefix(e, "%s", path);
    /* Where an apply came first, the writer knows more. */
    atomic_compare_exchange_strong(&w->unfinished, &unknown, unfinished);
    return 0;
}

/* ---- the hooks ---- */

int store_apply(void *writer, struct db *db, struct record *r)
{
    struct store_writer *w = writer;

    if (!w->broken && !w->db)
        prepare(w, db);
    if (w->broken)
        return w->broken;
    assert(w->db == db);
    if (r->ts_ms > w->now_ms)
        w->now_ms = r->ts_ms;
    log_debug("apply", LS("id", r->key), LZ("topic", topics_name(w->topics, r->at.topic)));
    if (topics_is_jobs(r->at.topic) || r->at.topic == TOPIC_SCHEDULED)
        return writer_apply_job(w, r);
    if (r->at.topic == TOPIC_COMPLETIONS)
        return writer_apply_completion(w, r);
    return r->at.topic == TOPIC_META ? writer_apply_meta(w, r) : 0;
}

static int save_unfinished(struct store_writer *w)
{
    struct db_stmt *s = w->stmts[W_SET_FACT];

    if (w->delta == 0)
        return 0;
    db_bind_int(s, 1, store_unfinished(w) + w->delta);
    db_bind_text(s, 2, STR("unfinished"));
    return writer_run(w, s);
}

int store_flush(void *writer, struct db *db)
{
    struct store_writer *w = writer;
    struct err e = {0};
    int64_t now_ms;

    if (w->broken)
        return w->broken;
    if (!w->db)
        return 0;
    assert(w->db == db);
    (void)db; /* NDEBUG */
    if (writer_save_tallies(w) || save_unfinished(w))
        return w->broken;
    now_ms = clock_wall_ms(); /* others may write records of any time; and tests old ones */
    return note(w, retention_step(&w->retention, w->now_ms < now_ms ? w->now_ms : now_ms, &e), &e);
}

static void tell(struct store_writer *w)
{
    size_t i;

    atomic_fetch_add_explicit(&w->unfinished, w->delta, memory_order_relaxed);
    metric_add(METRIC_COMPLETIONS_LOST_RACE, w->n_late);
    if (w->on_commit)
        w->on_commit(w->on_commit_data);
    if (!w->live || w->n_ended == 0)
        return;
    for (i = 0; i < w->n_ended; i++) {
        log_debug("wake", LS("id", w->ended[i].id));
        live_end(w->live, w->ended[i].tenant, w->ended[i].id);
    }
    live_feed(w->live);
}

void store_committed(void *writer, bool is_ok)
{
    struct store_writer *w = writer;

    if (is_ok && !w->broken)
        tell(w);
    else
        recent_forget(w);
    writer_forget_tallies(w);
    w->broken = 0;
    w->delta = w->n_late = w->now_ms = 0;
    w->n_ended = 0;
}
