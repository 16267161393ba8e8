/* The feed of completions: the topic's own table, read from a cursor. */
#include "base/json.h"
#include "broker-config/header_codec.h"
#include "store/reader_internal.h"

enum { LOOK_MAX = 20000 }; /* records that one call looks at for those of a batch or tenant */

#define FEED_SQL "SELECT off, headers, value FROM \"genq.completions\" WHERE off>=? ORDER BY off"
#define OLDEST_SQL "SELECT value FROM fact WHERE name='oldest'"
#define END_SQL "SELECT max(off)+1 FROM \"genq.completions\""

struct feed {
    struct reader *r;
    struct str tenant, batch_id;
    bool is_sse;
    int limit, n;
    struct buf *b;
};

/* s stands on a record. */
static bool matches(const struct feed *f, struct db_stmt *s)
{
    struct headers headers;

    if (!f->tenant.p && !f->batch_id.p)
        return true;
    header_decode(db_blob(s, 1), &headers);
    return (!f->tenant.p || str_eq(headers.all[HEADER_TENANT], f->tenant)) &&
           (!f->batch_id.p || str_eq(headers.all[HEADER_BATCH], f->batch_id));
}

/* Appends the record, or nothing when b has no room for all of it. */
static bool put(const struct feed *f, struct db_stmt *s)
{
    struct buf *b = f->b;
    size_t whole = b->n;
    struct str value = reader_one_line(f->r, db_blob(s, 2));

    if (f->is_sse)
        buf_addf(b, "id: %lld\nevent: completion\ndata: ", (long long)db_int(s, 0) + 1);
    else if (f->n > 0)
        buf_addc(b, ',');
    buf_adds(b, value);
    if (f->is_sse)
        buf_addz(b, "\n\n");
    if (!b->is_over)
        return true;
    reader_cut(b, whole);
    return false;
}

static int read_feed(struct feed *f, struct db_stmt *s, int64_t from, int64_t *next, struct err *e)
{
    int n_looked = 0, rc = 0;

    *next = from;
    db_bind_int(s, 1, from);
    while (f->n < f->limit && n_looked++ < LOOK_MAX && (rc = db_step(s, e)) > 0) {
        if (matches(f, s)) {
            if (!put(f, s)) {
                if (f->n == 0)
                    rc = err_set(e, ERR_TOO_LARGE, "a completion is larger than the answer may be");
                break;
            }
            f->n++;
        }
        *next = db_int(s, 0) + 1;
    }
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int check_cursor(struct reader *r, int64_t from, int64_t *next, struct err *e)
{
    struct db_stmt *s;
    int64_t oldest = 0;
    int rc = reader_stmt(r, Q_FEED_OLDEST, OLDEST_SQL, &s, e);

    rc = rc ? rc : reader_int(s, 0, &oldest, e);
    if (rc || from >= oldest)
        return rc;
    *next = oldest;
    return err_set(e, ERR_NOT_FOUND, "the oldest completion kept is %lld", (long long)oldest);
}

int reader_feed(struct reader *r, int64_t from, int limit, struct str tenant, struct str batch_id,
                bool is_sse, struct buf *b, int64_t *next, struct err *e)
{
    struct feed f = {r, tenant, batch_id, is_sse, limit, 0, b};
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_FEED, FEED_SQL, &s, e);

    /* One snapshot: retention may not come between the check and the reading. */
    rc = rc ? rc : db_begin(r->db, e);
    if (rc)
        return rc;
    rc = check_cursor(r, from, next, e);
    rc = rc ? rc : read_feed(&f, s, from, next, e);
    db_commit(r->db, NULL); /* nothing was written: it only ends the snapshot */
    return rc ? rc : f.n;
}

int reader_feed_oldest(struct reader *r, int64_t *oldest, struct err *e)
{
    struct db_stmt *s;
    int rc = reader_stmt(r, Q_FEED_OLDEST, OLDEST_SQL, &s, e);

    return rc ? rc : reader_int(s, 0, oldest, e);
}

int reader_feed_end(struct reader *r, int64_t *next, struct err *e)
{
    struct db_stmt *s;
    int64_t oldest = 0;
    int rc = reader_feed_oldest(r, &oldest, e);

    rc = rc ? rc : reader_stmt(r, Q_FEED_END, END_SQL, &s, e);
    return rc ? rc : reader_int(s, oldest, next, e);
}
