/* What came and what ended, in the order of the log, for who keeps a copy of it. */
#include "broker-config/header_codec.h"
#include "store/reader_internal.h"

enum { VIEW_MAX_BYTES = 1 << 24 };

#define ENDS_SQL \
    "SELECT off, ts, key, headers, value FROM \"genq.completions\" WHERE off>=? ORDER BY off " \
    "LIMIT ?"
#define JOBS_SQL \
    "SELECT " READER_COLUMNS " FROM " READER_FROM \
    " WHERE j.seq>? AND j.seq<=? AND j.state<3 ORDER BY j.seq"
#define LAST_SQL "SELECT max(seq) FROM job"

static struct ended_record record_of(struct db_stmt *s)
{
    struct headers headers;
    struct ended_record r = {.offset = db_int(s, 0),
                             .ts_ms = db_int(s, 1),
                             .id = db_text(s, 2),
                             .value = db_blob(s, 4),
                             .state = STATE_FAILED};

    header_decode(db_blob(s, 3), &headers); /* of these, tenant and status are the row's */
    r.tenant = headers.all[HEADER_TENANT].p ? headers.all[HEADER_TENANT] : STR("default");
    state_parse(headers.all[HEADER_STATUS], &r.state); /* it is one: the writer has looked */
    return r;
}

int reader_follow_ends(struct reader *r, int64_t from, int limit,
                       bool (*on_end)(void *data, const struct ended_record *r), void *data,
                       struct err *e)
{
    struct ended_record record;
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_FOLLOW_ENDS, ENDS_SQL, &s, e);

    if (rc)
        return rc;
    db_bind_int(s, 1, from);
    db_bind_int(s, 2, limit);
    while ((rc = db_step(s, e)) > 0) {
        record = record_of(s);
        if (!on_end(data, &record))
            break;
    }
    db_reset(s);
    return rc < 0 ? rc : 0;
}

int reader_last_job(struct reader *r, int64_t *seq, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_FOLLOW_LAST, LAST_SQL, &s, e);

    return rc ? rc : reader_int(s, 0, seq, e);
}

int reader_follow_jobs(struct reader *r, int64_t *seq, int window,
                       bool (*on_job)(void *data, struct str tenant, struct str id,
                                      enum job_state state, struct str view),
                       void *data, struct err *e)
{
    int64_t last = 0;
    struct db_stmt *s;
    struct buf view;
    int rc = reader_last_job(r, &last, e);

    rc = rc ? rc : reader_stmt(r, Q_FOLLOW_JOBS, JOBS_SQL, &s, e);
    if (rc || last <= *seq)
        return rc;
    if (last > *seq + window)
        last = *seq + window;
    buf_init(&view, VIEW_MAX_BYTES);
    db_bind_int(s, 1, *seq);
    db_bind_int(s, 2, last);
    while ((rc = db_step(s, e)) > 0) {
        enum job_state state;

        buf_clear(&view);
        state = reader_put_job(r, s, &view);
        if (!on_job(data, db_text(s, COL_TENANT), db_text(s, COL_ID), state, buf_str(&view)))
            break;
        *seq = db_int(s, COL_SEQ);
    }
    if (rc == 0)
        *seq = last;
    db_reset(s);
    buf_release(&view);
    return rc < 0 ? rc : 0;
}
