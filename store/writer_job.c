/* Job records: a row for a new id; due, repeat or conflict for a known one. */
#include "schema/foreign.h"
#include "store/writer_internal.h"

int writer_get_job(struct store_writer *w, struct str tenant, struct str id, struct job_row *row)
{
    struct db_stmt *s = w->stmts[W_GET_JOB];
    struct str digest;
    int rc;

    db_bind_text(s, 1, tenant);
    db_bind_text(s, 2, id);
    rc = writer_step(w, s);
    if (rc < 0)
        return rc;
    if (rc > 0) {
        row->seq = db_int(s, 0);
        row->state = (enum job_state)db_int(s, 1);
        row->batch = db_int(s, 2); /* NULL gives 0 */
        str_copyz(row->batch_id, sizeof row->batch_id, db_text(s, 3));
        digest = db_blob(s, 4);
        row->has_digest = digest.n == SHA256_LEN;
        if (row->has_digest)
            memcpy(row->digest, digest.p, SHA256_LEN);
        row->completion_off = db_int(s, 5);
        str_copyz(row->queue, sizeof row->queue, db_text(s, 7));
        row->is_expected = state_is_terminal(row->state) && !row->has_digest && !db_is_null(s, 6);
    }
    db_reset(s);
    return rc;
}

static struct str or_none(struct str s)
{
    return s.n ? s : STR_NONE;
}

static void bind_numbers(struct binder *b, const struct new_job *n)
{
    const struct job *j = n->j;
    bool is_open = !state_is_terminal(n->state);

    put_int(b, n->state);
    put_int(b, j->priority);
    put_int(b, j->form);
    put_int_or_null(b, n->off, -1);
    put_int_or_null(b, is_open ? n->part : -1, -1);
    put_int(b, j->created_at);
    put_int_or_null(b, n->completion_off, -1);
    put_int_or_null(b, n->finished_at, 0);
    put_int_or_null(b, is_open ? j->not_before : 0, 0);
    put_int_or_null(b, is_open ? j->deadline : 0, 0);
    put_int_or_null(b, n->tally ? n->tally->seq : 0, 0);
    put_int_or_null(b, j->batch_line, -1);
}

static void bind_texts(struct binder *b, const struct new_job *n)
{
    const struct job *j = n->j;
    bool is_open = !state_is_terminal(n->state);

    put_text(b, j->tenant);
    put_text(b, j->id);
    put_text(b, j->queue);
    put_text(b, j->model);
    put_text(b, or_none(j->batch_id));
    db_bind_blob(b->s, ++b->at, n->digest ? str_of(n->digest, SHA256_LEN) : STR_NONE);
    put_text(b, is_open ? j->session : STR_NONE);
    put_text(b, is_open ? j->custom_id : STR_NONE);
    put_text(b, is_open ? or_none(j->metadata) : STR_NONE);
    put_text(b, is_open ? j->redrive_of : STR_NONE);
}

int writer_add_line(struct store_writer *w, int64_t batch, int64_t line, int64_t seq)
{
    struct binder b = {w->stmts[W_ADD_LINE], 0};

    put_int(&b, batch);
    put_int(&b, line);
    put_int(&b, seq);
    return writer_run(w, b.s);
}

int writer_add_job(struct store_writer *w, const struct new_job *n, int64_t *seq)
{
    struct binder b = {w->stmts[W_ADD_JOB], 0};
    int rc;

    bind_numbers(&b, n);
    bind_texts(&b, n);
    rc = writer_run(w, b.s);
    if (rc || db_changes(w->db) == 0)
        return rc;
    *seq = db_last_rowid(w->db);
    if (n->tally) {
        n->tally->n_total++;
        n->tally->is_dirty = true;
        rc = writer_add_line(w, n->tally->seq, n->j->batch_line, *seq);
    }
    return rc ? rc : 1;
}

/* ---- a known id ---- */

/* Puts a known job on its line of the batch; one that is no member yet becomes one. */
static int take_line(struct store_writer *w, const struct new_job *n, const struct job_row *row)
{
    int rc = writer_add_line(w, n->tally->seq, n->j->batch_line, row->seq);

    if (rc == 0 && row->batch == 0)
        rc = writer_join(w, n->tally, n->j->batch_line, row);
    return rc;
}

/* Its completion came first, over another partition, and made the row, or its copy in another
 * queue: what only the record knows is added. */
static int fill(struct store_writer *w, const struct new_job *n, const struct job_row *row)
{
    struct new_job known = {.j = n->j,
                            .state = row->state,
                            .off = state_is_terminal(row->state) ? -1 : n->off,
                            .part = n->part,
                            .completion_off = -1,
                            .digest = n->digest};
    struct binder b = {w->stmts[W_FILL_JOB], 0};
    int rc;

    bind_numbers(&b, &known);
    bind_texts(&b, &known);
    put_int(&b, row->seq);
    rc = writer_run(w, b.s);
    return rc == 0 && n->tally ? take_line(w, n, row) : rc;
}

static bool is_same(const struct new_job *n, const struct job_row *row)
{
    return row->has_digest && memcmp(row->digest, n->digest, SHA256_LEN) == 0;
}

static int mark_due(struct store_writer *w, struct record *r, const struct new_job *n,
                    const struct job_row *row)
{
    struct binder b = {w->stmts[W_DUE], 0};
    int rc = row->is_expected ? fill(w, n, row) : 0;

    if (rc || row->state != STATE_SCHEDULED) {
        r->detail = (int)row->state;
        return rc ? rc : ERR_EXISTS;
    }
    if (!is_same(n, row))
        return ERR_CONFLICT; /* due is another job of this id */
    put_int(&b, r->at.offset);
    put_int(&b, r->at.partition);
    put_int(&b, row->seq);
    return writer_run(w, b.s);
}

/* A worker that does not have the model sent the job to another queue (worker/route.c): the digest,
 * which the queue is part of, goes with it. */
static bool is_behind_its_copy(const struct record *r, const struct new_job *n,
                               const struct job_row *row)
{
    return topics_is_jobs(r->at.topic) && !topics_is_jobs(r->source.topic) && is_same(n, row) &&
           !str_eqz(n->j->queue, row->queue);
}

static int repeat(struct store_writer *w, struct record *r, const struct new_job *n,
                  const struct job_row *row)
{
    int rc = 0;

    if (row->is_expected || is_behind_its_copy(r, n, row))
        return fill(w, n, row);
    r->detail = (int)row->state;
    if (!is_same(n, row))
        return ERR_CONFLICT;
    if (n->tally && str_eqz(n->j->batch_id, row->batch_id))
        rc = take_line(w, n, row);
    return rc ? rc : ERR_EXISTS;
}

/* ---- the record ---- */

/* The id is there, or there is no room for a new one. */
static int apply_known(struct store_writer *w, struct record *r, struct new_job *n, bool is_due)
{
    struct job_row row;
    int64_t seq;
    int rc = writer_get_job(w, n->j->tenant, n->j->id, &row);

    if (rc > 0)
        return is_due ? mark_due(w, r, n, &row) : repeat(w, r, n, &row);
    if (rc < 0 || !is_due)
        return rc < 0 ? rc : ERR_FULL;
    rc = writer_add_job(w, n, &seq);
    w->delta += rc > 0;
    return rc < 0 ? rc : 0;
}

static int apply(struct store_writer *w, struct record *r, struct job *j)
{
    bool is_job_topic = topics_is_jobs(r->at.topic);
    bool is_full = store_unfinished(w) + w->delta >= w->max_unfinished;
    bool is_due = is_job_topic && r->source.topic == TOPIC_SCHEDULED;
    uint8_t digest[SHA256_LEN];
    struct new_job fresh = {.j = j,
                            .state = is_job_topic ? STATE_QUEUED : STATE_SCHEDULED,
                            .off = r->at.offset,
                            .part = r->at.partition,
                            .completion_off = -1,
                            .digest = digest};
    int64_t seq;
    int rc = 0;

    job_digest(j, digest);
    if (is_due)
        j->not_before = 0; /* it is over */
    if (j->batch_id.p && j->batch_line >= 0)
        rc = writer_tally(w, j->tenant, j->batch_id, &fresh.tally);
    if (rc == 0 && !is_full && !is_due)
        rc = writer_add_job(w, &fresh, &seq);
    if (rc == 0)
        return apply_known(w, r, &fresh, is_due);
    w->delta += rc > 0;
    if (rc > 0)
        recent_add(w, r->at, seq, fresh.tally ? fresh.tally->seq : 0);
    return rc < 0 ? rc : 0;
}

int writer_apply_job(struct store_writer *w, struct record *r)
{
    struct job j;
    int rc;

    if (r->value.n == 0 && r->at.topic == TOPIC_SCHEDULED)
        return 0; /* what compaction is to remove */
    if (job_parse(&j, r->value, true, NULL, NULL))
        return ERR_INVALID;
    job_take_digest(&j, r->headers[HEADER_DIGEST]);
    rc = foreign_complete(&j, r, topics_name(w->topics, r->at.topic),
                          topics_queue(w->topics, r->at.topic), topics_priority(r->at.topic), NULL);
    rc = rc ? rc : apply(w, r, &j);
    job_release(&j);
    return rc;
}
