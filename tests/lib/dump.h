/* All that the store's tables say, as text that does not depend on the numbers of rows: what
 * two databases made of the same records in another order have in common. */
#pragma once
#include "base/buf.h"
#include "base/db.h"
#include "tests/lib/test.h"

static inline void dump_rows(struct db *db, const char *sqlz, struct buf *out)
{
    struct err e = {0};
    struct db_stmt *s;
    int rc = db_prepare(db, sqlz, &s, &e);

    if (rc)
        test_fail(__FILE__, __LINE__, e.msg);
    while ((rc = db_step(s, &e)) > 0) {
        buf_adds(out, db_text(s, 0));
        buf_addc(out, '\n');
    }
    CHECK_INT(rc, 0);
    db_reset(s);
}

static inline void dump_tables(struct db *db, struct buf *out)
{
    static const char *const queries[] = {
        "SELECT 'job '||json_array(tenant, id, state, priority, form, off, part, created_at,"
        " completion_off, finished_at, not_before, deadline,"
        " (SELECT b.tenant||'/'||b.id FROM batch b WHERE b.seq=j.batch), batch_line, queue, model,"
        " batch_id, hex(digest), session, custom_id, metadata)"
        " FROM job j ORDER BY tenant, id",
        "SELECT 'batch '||json_array(tenant, id, state, created_at, finished_at, n_lines, n_total,"
        " n_succeeded, n_failed, n_cancelled, n_expired, prompt_tokens, completion_tokens,"
        " cached_tokens, cost, first_off, last_off) FROM batch ORDER BY tenant, id",
        "SELECT 'line '||json_array(b.tenant, b.id, l.line, j.tenant, j.id) FROM batch_line l"
        " LEFT JOIN batch b ON b.seq=l.batch LEFT JOIN job j ON j.seq=l.job ORDER BY 1",
        "SELECT 'call '||json_array(c.at, j.tenant, j.id, c.attempt, c.outcome, c.is_wasted,"
        " c.prompt_tokens, c.completion_tokens, c.cached_tokens, c.ms, c.cost, c.tenant, c.model,"
        " c.node, c.batch, c.id) FROM call c LEFT JOIN job j ON j.seq=c.job ORDER BY c.seq",
        "SELECT 'end '||json_array(off, ts, key, hex(headers), hex(value))"
        " FROM \"genq.completions\" ORDER BY off",
        "SELECT 'fact '||json_array(name, value) FROM fact ORDER BY name",
    };
    size_t i;

    buf_clear(out);
    for (i = 0; i < sizeof queries / sizeof queries[0]; i++)
        dump_rows(db, queries[i], out);
    CHECK(!out->is_over);
}
