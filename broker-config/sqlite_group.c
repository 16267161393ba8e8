#include "broker-config/sqlite_group.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdlib.h>

void positions_add(struct positions *p, struct position at)
{
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 64;
        p->at = xrealloc(p->at, p->room * sizeof *p->at);
    }
    p->at[p->n++] = at;
}

static int append_record(struct sqlite_group *g, struct record *r, int64_t wall_ms, struct err *e)
{
    int rc = 0;

    r->at.partition = 0;
    r->at.offset = sqlite_log_next(g->log, r->at.topic);
    r->ts_ms = r->ts_ms ? r->ts_ms : wall_ms;
    r->detail = 0;
    log_debug("append", LS("id", r->key), LI("topic", r->at.topic), LI("offset", r->at.offset));
    r->code = g->hooks.apply ? g->hooks.apply(g->hooks.data, g->log->db, r) : 0;
    if (r->code == 0)
        rc = sqlite_log_append(g->log, r, e);
    else if (!broker_is_verdict(r->code))
        rc = err_set(e, r->code, "the store could not take a record (%d)", r->code);
    if (rc == 0 && topics_is_source(r->source.topic))
        positions_add(&g->gone, r->source);
    return rc;
}

static int append_publish(struct sqlite_group *g, struct publish *p, int64_t wall_ms,
                          struct publish **culprit, struct err *e)
{
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < p->n; i++) {
        rc = append_record(g, &p->records[i], wall_ms, e);
        if (rc && (p->records[i].code || !broker_is_disk_failure(rc)))
            *culprit = p;
    }
    return rc;
}

static int by_place(const void *a, const void *b)
{
    const struct position *p = a, *q = b;

    if (p->topic != q->topic)
        return p->topic < q->topic ? -1 : 1;
    return p->offset < q->offset ? -1 : p->offset > q->offset;
}

/* One statement for each run of neighbours: jobs end nearly in the order they came in. */
static int remove_gone(struct sqlite_group *g, struct err *e)
{
    const struct position *at = g->gone.at;
    size_t i, n;
    int rc = 0;

    if (g->gone.n > 1)
        qsort(g->gone.at, g->gone.n, sizeof *at, by_place);
    for (i = 0; rc == 0 && i < g->gone.n; i += n) {
        for (n = 1; i + n < g->gone.n && at[i + n].topic == at[i].topic &&
                    at[i + n].offset <= at[i + n - 1].offset + 1;
             n++)
            ;
        rc = sqlite_log_remove(g->log, at[i].topic, at[i].offset, at[i + n - 1].offset, e);
    }
    return rc;
}

static int flush_hook(struct sqlite_group *g, struct err *e)
{
    int rc = g->hooks.flush ? g->hooks.flush(g->hooks.data, g->log->db) : 0;

    return rc ? err_set(e, rc, "the store could not write (%d)", rc) : 0;
}

/* One transaction: the publishes of [p, end), then the finishes. *culprit is the publish that
 * could not be appended, or NULL when it was the transaction that failed. */
static int write_once(struct sqlite_group *g, struct publish *p, const struct publish *end,
                      struct publish **culprit, struct err *e)
{
    int64_t wall_ms = clock_wall_ms();
    size_t i;
    int rc = g->damage.code ? g->damage.code : sqlite_log_begin(g->log, e);

    *culprit = NULL;
    g->gone.n = 0;
    if (g->damage.code)
        *e = g->damage; /* whatever else were written might be lost with it */
    for (; rc == 0 && p != end; p = p->next)
        rc = append_publish(g, p, wall_ms, culprit, e);
    for (i = 0; i < g->finished.n; i++)
        positions_add(&g->gone, g->finished.at[i]);
    rc = rc ? rc : remove_gone(g, e);
    rc = rc ? rc : flush_hook(g, e);
    rc = rc ? rc : sqlite_log_commit(g->log, e);
    if (rc)
        sqlite_log_rollback(g->log);
    else
        g->finished.n = 0;
    if (g->hooks.committed)
        g->hooks.committed(g->hooks.data, rc == 0);
    return rc;
}

/* The publishes of [p, end), which may be empty, in one transaction. */
static int write_span(struct sqlite_group *g, struct publish *p, const struct publish *end,
                      struct publish **culprit)
{
    struct err e;
    int rc = write_once(g, p, end, culprit, &e);

    if (rc == ERR_CORRUPT) {
        g->damage = e;
        *culprit = NULL;
    }
    /* A culprit's own failure is not the log's, but where its disk is at fault. (FULL may be the
     * store's ceiling.) */
    if (!*culprit || (broker_is_disk_failure(rc) && rc != ERR_FULL))
        g->on_written(g->data, rc, &e);
    if (rc == 0)
        g->on_result(g->data, p, end, 0);
    return rc;
}

/* Where one cannot be appended: first what stands before it, then that one alone, then the rest. */
int sqlite_group_write(struct sqlite_group *g, struct publish *p)
{
    struct publish *end = NULL, *culprit;
    int rc;

    do {
        rc = write_span(g, p, end, &culprit);
        if (rc == 0) {
            p = end;
            end = NULL;
        } else if (!culprit) {
            g->on_result(g->data, p, NULL, rc);
            return rc;
        } else if (culprit != p) {
            end = culprit;
        } else {
            p = culprit->next;
            g->on_result(g->data, culprit, p, rc);
        }
    } while (p);
    return 0;
}
