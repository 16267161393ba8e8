/* Dead letters: the topic's own table, read from a cursor. A page looks at a bounded number of them
 * and holds a bounded number of bytes, whatever stands there. */
#include "broker-config/header_codec.h"
#include "schema/envelope.h"
#include "store/reader_internal.h"

enum { LOOK_MAX = 20000, PAGE_BYTES = 8 << 20 };

#define DEAD_SQL \
    "SELECT off, ts, key, headers, value FROM \"genq.dead\" WHERE off>=? AND off<? ORDER BY off"
#define END_SQL "SELECT max(off)+1 FROM \"genq.dead\""
#define STATE_SQL "SELECT state FROM job WHERE tenant=? AND id=?"

/* *state: the job's, or -1 when it is not known here. */
static int find_state(struct reader *r, struct str tenant, struct str id, int *state, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_DEAD_JOB, STATE_SQL, &s, e);

    if (rc)
        return rc;
    db_bind_text(s, 1, tenant);
    db_bind_text(s, 2, id);
    rc = db_step(s, e);
    *state = rc > 0 ? (int)db_int(s, 0) : -1;
    db_reset(s);
    return rc < 0 ? rc : 0;
}

/* ---- one letter ---- */

static struct str or_none(struct str s)
{
    return s.n ? s : STR_NONE;
}

/* The queue of a source; its topic may be none of the config's by now. */
static struct str queue_of(const struct topics *t, struct str source)
{
    struct position at;

    return position_parse(t, source, &at) && topics_is_jobs(at.topic) ? topics_queue(t, at.topic)
                                                                      : STR_NONE;
}

/* "code: message". */
static void split_reason(struct dead_letter *l, struct str reason)
{
    const char *colon = reason.n ? memchr(reason.p, ':', reason.n) : NULL;
    size_t n = colon ? (size_t)(colon - reason.p) : reason.n;

    l->code = str_of(reason.p, n);
    l->reason = colon && reason.n > n + 2 ? str_of(colon + 2, reason.n - n - 2) : STR("");
}

/* Its key may be a session. */
static struct str event_job(struct str event)
{
    struct str end = STR(".job");

    if (event.n <= end.n || !str_eq(str_of(event.p + event.n - end.n, end.n), end))
        return STR_NONE;
    event.n -= end.n;
    return id_is_valid(event) ? event : STR_NONE;
}

/* A record that is no job, or, where two jobs have one id, the later one. */
static void judge_record(struct dead_letter *l, struct str reason, struct str event)
{
    bool is_conflict = str_eqz(reason, "id_conflict");

    if (event_job(event).p)
        l->id = event_job(event);
    l->code = is_conflict ? STR("id_conflict") : STR("malformed");
    l->reason = is_conflict ? STR("the id was used for another job") : reason;
    l->can_redrive = is_conflict;
}

/* s stands on the record; the value is left for later. */
static void read_letter(const struct topics *t, struct db_stmt *s, const struct headers *h,
                        struct dead_letter *l)
{
    struct str tenant = h->all[HEADER_TENANT];

    *l = (struct dead_letter){.offset = db_int(s, 0),
                              .at_ms = db_int(s, 1),
                              .id = id_is_valid(db_text(s, 2)) ? db_text(s, 2) : STR_NONE,
                              .tenant = id_is_valid(tenant) ? tenant : STR("default"),
                              .model = or_none(h->all[HEADER_MODEL]),
                              .batch_id = or_none(h->all[HEADER_BATCH]),
                              .source = or_none(h->all[HEADER_SOURCE])};
    l->queue = queue_of(t, l->source);
    l->is_failed_job = str_eqz(h->all[HEADER_TYPE], DEAD_JOB_TYPE) && l->id.p;
    if (l->is_failed_job) {
        split_reason(l, h->all[HEADER_REASON]);
        l->can_redrive = true;
    } else {
        judge_record(l, h->all[HEADER_REASON], h->all[HEADER_EVENT_ID]);
    }
    if (l->can_redrive)
        redrive_id(l->tenant, l->is_failed_job ? l->id : l->source, l->redrive_id);
}

static bool is_wanted(struct str want, struct str has)
{
    return !want.p || str_eq(want, has);
}

static bool matches(const struct dead_filter *f, const struct dead_letter *l)
{
    return is_wanted(f->tenant, l->tenant) && is_wanted(f->model, l->model) &&
           is_wanted(f->queue, l->queue) && is_wanted(f->batch_id, l->batch_id) &&
           is_wanted(f->code, l->code) && is_wanted(f->job_id, l->id) &&
           (!f->since || l->at_ms >= f->since) && (!f->until || l->at_ms < f->until);
}

/* 1: it is one to show; 0: its job did not fail after all (it was cancelled before, or ran again
 * and went well, or has yet to fail here), or is no longer known; or negative. */
static int look_up(struct reader *r, struct dead_letter *l, struct err *e)
{
    int state = -1, rc;

    if (l->is_failed_job) {
        rc = find_state(r, l->tenant, l->id, &state, e);
        if (rc || state != STATE_FAILED)
            return rc;
    }
    if (!l->can_redrive)
        return 1;
    rc = find_state(r, l->tenant, str_of(l->redrive_id, REDRIVE_ID_LEN), &state, e);
    l->is_redriven = state >= 0;
    return rc ? rc : 1;
}

/* ---- a page ---- */

struct page {
    struct reader *r;
    const struct topics *topics;
    const struct dead_filter *f;
    int (*on_letter)(void *data, const struct dead_letter *l);
    void *data;
    int n, n_looked;
    size_t n_bytes;
    int64_t next;
};

static bool is_full(const struct page *p)
{
    return p->n == p->f->limit || p->n_looked == LOOK_MAX || p->n_bytes >= PAGE_BYTES;
}

/* s stands on a record. */
static int take(struct page *p, struct db_stmt *s, struct err *e)
{
    struct dead_letter l;
    struct headers h;
    int rc;

    p->n_looked++;
    p->next = db_int(s, 0) + 1;
    header_decode(db_blob(s, 3), &h);
    read_letter(p->topics, s, &h, &l);
    rc = matches(p->f, &l) ? look_up(p->r, &l, e) : 0;
    if (rc <= 0)
        return rc;
    l.value = db_blob(s, 4);
    p->n++;
    p->n_bytes += l.value.n + db_blob(s, 3).n;
    return p->on_letter(p->data, &l);
}

int reader_dead(struct reader *r, const struct topics *t, const struct dead_filter *f,
                int (*on_letter)(void *data, const struct dead_letter *l), void *data,
                struct dead_page *page, struct err *e)
{
    struct page p = {r, t, f, on_letter, data, 0, 0, 0, f->after};
    struct db_stmt *s;
    int taken = 0, rc = reader_stmt(r, Q_DEAD_END, END_SQL, &s, e);

    rc = rc ? rc : reader_int(s, 0, &page->end, e);
    rc = rc ? rc : reader_stmt(r, Q_DEAD, DEAD_SQL, &s, e);
    if (rc)
        return rc;
    db_bind_int(s, 1, f->after);
    db_bind_int(s, 2, f->before ? f->before : INT64_MAX);
    while ((rc = db_step(s, e)) > 0 && !is_full(&p) && taken == 0)
        taken = take(&p, s, e);
    page->has_more = rc > 0;
    page->next = p.next;
    db_reset(s);
    return rc < 0 ? rc : taken;
}
