/* Lists of jobs, newest first. There is no index for most filters, since every job would pay for
 * it: a list walks down the keys in windows, each a short statement, and after a second gives
 * what it has with `has_more` and the place to go on from. Keys are seqs, or lines when a batch
 * is listed.
 *
 * What is bad is few and has an index; what runs is known in memory. */
#include "base/clock.h"
#include "store/reader_internal.h"
#include <stdlib.h>

enum {
    WINDOW = 20000,
    BUDGET_MS = 1000,
    DISORDER_MS = 3600000,
    RUNNING_MAX_BYTES = 1 << 24,
    TAIL_BYTES = 64 /* of what closes the list */
};

/* Parameters 1 to 3 are the walk's: key below, key from, rows at most. */
#define FILTER \
    " AND (?4 IS NULL OR j.tenant=?4) AND (?5 IS NULL OR j.model=?5)" \
    " AND (?6 IS NULL OR j.batch_id=?6) AND (?7 IS NULL OR j.queue=?7)" \
    " AND (?8<0 OR j.state=?8) AND j.created_at>?9 AND j.created_at<?10"
#define BY_SEQ " AND j.seq<?1 AND j.seq>=?2" FILTER " ORDER BY j.seq DESC LIMIT ?3"
#define SELECT_JOBS "SELECT " READER_COLUMNS ", j.seq FROM " READER_FROM

static const char *const sql[] = {
    [Q_LIST_ALL] = SELECT_JOBS " WHERE true" BY_SEQ,
    [Q_LIST_BAD] = SELECT_JOBS " WHERE j.state=?8 AND j.state>=4" BY_SEQ,
    [Q_LIST_GROUP] = SELECT_JOBS " WHERE j.batch_id=?6 AND j.batch_id IS NOT NULL"
                                 " AND j.batch IS NULL" BY_SEQ,
    [Q_LIST_LINES] =
        "SELECT " READER_COLUMNS ", l.line FROM batch_line l"
        " CROSS JOIN job j ON j.seq=l.job"
        " LEFT JOIN \"genq.completions\" c ON c.off=j.completion_off"
        " WHERE l.batch=?11 AND l.line<?1 AND l.line>=?2" FILTER " ORDER BY l.line DESC LIMIT ?3",
    [Q_LIST_RUNNING] = "SELECT j.seq FROM job j WHERE j.tenant=?11 AND j.id=?12 AND j.state<3"
                       " AND j.seq<?1 AND j.seq>=?2" FILTER " LIMIT ?3",
    [Q_JOB_SEQ] = "SELECT " READER_COLUMNS " FROM " READER_FROM " WHERE j.seq=?",
    [Q_LIST_LAST] = "SELECT max(seq) FROM job",
    [Q_LIST_BISECT] = "SELECT seq, created_at FROM job WHERE seq>=? ORDER BY seq LIMIT 1",
};

struct walk {
    struct reader *r;
    const struct job_filter *f;
    struct buf *b;
    enum reader_stmt id;
    struct db_stmt *s;
    int64_t batch;       /* seq, for Q_LIST_LINES */
    int64_t below, from; /* keys left to look at: [from, below) */
    int n;
    bool has_more;
    int64_t next;
};

static int prepare(struct reader *r, enum reader_stmt id, struct db_stmt **s, struct err *e)
{
    return reader_stmt(r, id, sql[id], s, e);
}

static void bind_filter(struct db_stmt *s, const struct job_filter *f, int state)
{
    db_bind_text(s, 4, f->tenant);
    db_bind_text(s, 5, f->model);
    db_bind_text(s, 6, f->batch_id);
    db_bind_text(s, 7, f->queue);
    db_bind_int(s, 8, state);
    db_bind_int(s, 9, f->created_after);
    db_bind_int(s, 10, f->created_before ? f->created_before : INT64_MAX);
}

int reader_bisect(struct db_stmt *s, int64_t lo, int64_t hi, int64_t at_ms, int64_t *key,
                  struct err *e)
{
    int64_t mid;
    int rc = 0;

    while (lo <= hi && rc >= 0) {
        mid = lo + (hi - lo) / 2;
        db_bind_int(s, 1, mid);
        rc = db_step(s, e);
        if (rc > 0 && db_int(s, 0) <= hi && db_int(s, 1) < at_ms)
            lo = db_int(s, 0) + 1;
        else
            hi = mid - 1;
        db_reset(s);
    }
    *key = lo;
    return rc < 0 ? rc : 0;
}

/* ---- where to look ---- */

static int choose(struct walk *k, struct err *e)
{
    struct batch_row batch;
    struct err why = {0};
    int rc;

    k->id = k->f->state >= STATE_FAILED ? Q_LIST_BAD : Q_LIST_ALL;
    if (!k->f->batch_id.p || !k->f->tenant.p || k->f->state == STATE_RUNNING)
        return 0;
    rc = reader_find_batch(k->r, k->f->tenant, k->f->batch_id, &batch, &why);
    if (rc == 0 || rc == ERR_NOT_FOUND) { /* where there is no batch, its id may still group */
        k->id = rc ? Q_LIST_GROUP : Q_LIST_LINES;
        k->batch = rc ? 0 : batch.seq;
        return 0;
    }
    return err_set(e, rc, "%s", why.msg);
}

/* Jobs come about in the order of created_at: an hour's disorder is allowed for. */
static int bound(struct walk *k, struct err *e)
{
    struct db_stmt *s;
    int64_t last = 0, key;
    int rc = prepare(k->r, Q_LIST_LAST, &s, e);

    rc = rc ? rc : reader_int(s, 0, &last, e);
    k->below = last + 1;
    rc = rc ? rc : prepare(k->r, Q_LIST_BISECT, &s, e);
    if (rc == 0 && k->f->created_before) {
        rc = reader_bisect(s, 1, last, k->f->created_before + DISORDER_MS, &key, e);
        k->below = key;
    }
    if (rc == 0 && k->f->created_after)
        rc = reader_bisect(s, 1, last, k->f->created_after - DISORDER_MS, &k->from, e);
    return rc;
}

static int bound_lines(struct walk *k, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(k->r, Q_LIST_LAST_LINE, "SELECT max(line)+1 FROM batch_line WHERE batch=?",
                         &s, e);

    if (rc)
        return rc;
    db_bind_int(s, 1, k->batch);
    return reader_int(s, 0, &k->below, e);
}

/* ---- walking ---- */

/* Adds the row that s stands on, whose cursor is `key`. False when the list is full; a page ends
 * before its buffer does. */
static bool put(struct walk *k, int64_t key)
{
    size_t whole = k->b->n;

    k->has_more = k->n == k->f->limit;
    if (k->has_more)
        return false;
    if (k->n > 0)
        buf_addc(k->b, ',');
    reader_put_job(k->r, k->s, k->b);
    k->has_more = k->n > 0 && (k->b->is_over || k->b->max - k->b->n < TAIL_BYTES);
    if (k->has_more) {
        reader_cut(k->b, whole);
        return false;
    }
    k->n++;
    k->next = key;
    return true;
}

/* s stands on a row. False when the list is full. */
static bool take(struct walk *k)
{
    struct live_view live;

    if (k->f->state == STATE_QUEUED && reader_row_state(k->r, k->s, &live) == STATE_RUNNING)
        return true;
    return put(k, db_int(k->s, COL_COUNT_));
}

/* One window: 1 when it had all of its rows taken, 0 when the list is full, or negative. */
static int walk_window(struct walk *k, int64_t from, struct err *e)
{
    bool is_open = true;
    int rc = 0;

    db_bind_int(k->s, 1, k->below);
    db_bind_int(k->s, 2, from);
    db_bind_int(k->s, 3, -1);
    while (is_open && (rc = db_step(k->s, e)) > 0)
        is_open = take(k);
    db_reset(k->s);
    return rc < 0 ? rc : is_open;
}

static int walk(struct walk *k, struct err *e)
{
    int64_t until_ms = clock_mono_ms() + BUDGET_MS, from;
    int rc = prepare(k->r, k->id, &k->s, e);

    if (rc)
        return rc;
    bind_filter(k->s, k->f, k->f->state);
    if (k->id == Q_LIST_LINES)
        db_bind_int(k->s, 11, k->batch);
    for (rc = 1; rc > 0 && k->below > k->from; k->below = from) {
        if (clock_mono_ms() > until_ms) {
            k->has_more = true;
            k->next = k->below;
            return 0;
        }
        from = k->below - WINDOW > k->from ? k->below - WINDOW : k->from;
        rc = walk_window(k, from, e);
    }
    return rc < 0 ? rc : 0;
}

/* ---- what runs ---- */

/* data: a buf of "tenant NUL id NUL …", of whole pairs. */
static void on_running(void *data, struct str tenant, struct str id)
{
    struct buf *ids = data;

    if (!buf_reserve(ids, tenant.n + id.n + 2))
        return;
    buf_adds(ids, tenant);
    buf_addc(ids, '\0');
    buf_adds(ids, id);
    buf_addc(ids, '\0');
}

static int compare_down(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x < y) - (x > y);
}

/* Gives the seqs of those that pass the filter, newest first. */
static int find_running(struct walk *k, const struct buf *ids, int64_t *seqs, size_t *n,
                        struct err *e)
{
    struct db_stmt *s;
    struct str tenant, id;
    size_t at;
    int rc = prepare(k->r, Q_LIST_RUNNING, &s, e);

    for (at = 0; rc == 0 && at < ids->n; at += tenant.n + id.n + 2) {
        tenant = str_z(ids->p + at);
        id = str_z(ids->p + at + tenant.n + 1);
        bind_filter(s, k->f, -1);
        db_bind_int(s, 1, k->below);
        db_bind_int(s, 2, k->from);
        db_bind_int(s, 3, 1);
        db_bind_text(s, 11, tenant);
        db_bind_text(s, 12, id);
        rc = db_step(s, e);
        if (rc > 0)
            seqs[(*n)++] = db_int(s, 0);
        db_reset(s);
        rc = rc < 0 ? rc : 0;
    }
    qsort(seqs, *n, sizeof seqs[0], compare_down);
    return rc;
}

static int put_running(struct walk *k, const int64_t *seqs, size_t n, struct err *e)
{
    struct live_view live;
    size_t i;
    int rc = prepare(k->r, Q_JOB_SEQ, &k->s, e);

    for (i = 0; rc >= 0 && i < n && !k->has_more; i++) {
        if (i > 0 && seqs[i] == seqs[i - 1]) /* known here and elsewhere */
            continue;
        db_bind_int(k->s, 1, seqs[i]);
        rc = db_step(k->s, e);
        if (rc > 0 && reader_row_state(k->r, k->s, &live) == STATE_RUNNING)
            put(k, seqs[i]);
        db_reset(k->s);
    }
    return rc < 0 ? rc : 0;
}

static int list_running(struct walk *k, struct err *e)
{
    struct buf ids;
    int64_t *seqs;
    size_t n = 0;
    int rc;

    buf_init(&ids, RUNNING_MAX_BYTES);
    if (k->r->live)
        live_each_running(k->r->live, INT64_MAX, on_running, &ids);
    if (k->r->seen)
        k->r->seen->each(k->r->seen->data, on_running, &ids);
    seqs = xcalloc(ids.n / 2 + 1, sizeof seqs[0]);
    rc = find_running(k, &ids, seqs, &n, e);
    rc = rc ? rc : put_running(k, seqs, n, e);
    free(seqs);
    buf_release(&ids);
    return rc;
}

int reader_list(struct reader *r, const struct job_filter *f, struct buf *b, struct err *e)
{
    struct walk k = {.r = r, .f = f, .b = b};
    int rc = choose(&k, e);

    rc = rc ? rc : k.id == Q_LIST_LINES ? bound_lines(&k, e) : bound(&k, e);
    if (rc)
        return rc;
    if (f->after && f->after < k.below)
        k.below = f->after;
    buf_addz(b, "{\"object\":\"list\",\"data\":[");
    rc = f->state == STATE_RUNNING ? list_running(&k, e) : walk(&k, e);
    reader_put_next(b, k.has_more, k.next);
    if (rc == 0 && b->is_over)
        rc = err_set(e, ERR_TOO_LARGE, "larger than the answer may be");
    return rc;
}
