/* A data directory with the store's writer on it and no broker: transactions by hand, as
 * broker_sqlite makes them. */
#pragma once
#include "broker-config/header_codec.h"
#include "schema/batch.h"
#include "schema/envelope.h"
#include "schema/migrate.h"
#include "store/reader.h"
#include "store/writer.h"
#include "tests/lib/test.h"
#include <stdlib.h>

enum { FX_TOPICS = 16, FX_MEMS = 4096 };

struct fixture {
    char *queues[3];
    struct config config;
    struct topics *topics;
    struct live *live;
    struct store_writer *writer;
    struct db *db;
    struct db_stmt *append;
    int64_t next[FX_TOPICS]; /* offsets */
    int64_t now_ms;          /* time of the records */
    struct buf mems[FX_MEMS]; /* of the records of a transaction */
    size_t n_mems;
};

static inline void fx_open_writer(struct fixture *fx, int64_t max_unfinished)
{
    struct err e = {0};

    fx->writer = store_writer_new(fx->topics, fx->live, max_unfinished);
    CHECK_INT(db_open(DB_FILE, DB_WRITE_NORMAL, 16384, &fx->db, &e), 0);
    CHECK_INT(schema_migrate(fx->db, &e), 0);
    CHECK_INT(db_exec(fx->db,
                      "CREATE TABLE IF NOT EXISTS \"genq.completions\"(off INTEGER PRIMARY KEY,"
                      " ts INTEGER NOT NULL, key TEXT, headers BLOB, value BLOB)",
                      &e),
              0);
    CHECK_INT(db_prepare(fx->db,
                         "INSERT INTO \"genq.completions\"(off, ts, key, headers, value)"
                         " VALUES(?,?,?,?,?)",
                         &fx->append, &e),
              0);
}

static inline struct fixture *fx_new(void)
{
    struct fixture *fx = xcalloc(1, sizeof *fx);

    fx->queues[0] = xstrdup(STR("default"));
    fx->queues[1] = xstrdup(STR("gpu"));
    fx->config.queues = fx->queues;
    fx->topics = topics_new(&fx->config);
    fx->live = live_new(1 << 16);
    fx->now_ms = 1000000;
    fx_open_writer(fx, 1000000);
    return fx;
}

static inline void fx_close_writer(struct fixture *fx)
{
    db_close(fx->db);
    store_writer_free(fx->writer);
}

static inline void fx_free(struct fixture *fx)
{
    size_t i;

    fx_close_writer(fx);
    for (i = 0; i < FX_MEMS; i++)
        buf_release(&fx->mems[i]);
    topics_free(fx->topics);
    live_free(fx->live);
    free(fx->queues[0]);
    free(fx->queues[1]);
    free(fx);
}

static inline struct buf *fx_mem(struct fixture *fx)
{
    struct buf *mem = &fx->mems[fx->n_mems++];

    CHECK(fx->n_mems <= FX_MEMS);
    buf_release(mem);
    buf_init(mem, 1 << 24);
    return mem;
}

static inline void fx_begin(struct fixture *fx)
{
    fx->n_mems = 0;
    CHECK_INT(db_begin(fx->db, NULL), 0);
}

static inline int fx_end(struct fixture *fx, bool is_ok)
{
    int rc = is_ok ? store_flush(fx->writer, fx->db) : ERR_IO;

    if (rc == 0)
        rc = db_commit(fx->db, NULL);
    if (rc)
        db_rollback(fx->db);
    store_committed(fx->writer, rc == 0);
    return rc;
}

/* Applies and appends, as the broker does. */
static inline int fx_apply(struct fixture *fx, struct record *r, int topic)
{
    struct buf headers;
    int rc;

    r->at = (struct position){topic, 0, fx->next[topic]};
    r->ts_ms = fx->now_ms;
    rc = store_apply(fx->writer, fx->db, r);
    if (rc)
        return rc;
    fx->next[topic]++;
    if (topic != TOPIC_COMPLETIONS)
        return 0;
    buf_init(&headers, 1 << 20);
    header_encode(r, &headers);
    db_bind_int(fx->append, 1, r->at.offset);
    db_bind_int(fx->append, 2, r->ts_ms);
    db_bind_text(fx->append, 3, r->key);
    db_bind_blob(fx->append, 4, buf_str(&headers));
    db_bind_blob(fx->append, 5, r->value);
    rc = db_run(fx->append, NULL);
    buf_release(&headers);
    return rc;
}

/* A job from the JSON of its record; its topic follows from it. `source` as in a record. */
static inline int fx_job_from(struct fixture *fx, const char *jsonz, struct position source,
                              int *detail)
{
    struct record r = {.source = source};
    struct err e = {0};
    struct job j;
    struct job_defaults d = {.tenant = STR("default"), .batch_line = -1, .wall_ms = fx->now_ms};
    int topic, rc;

    CHECK_INT(job_parse(&j, str_z(jsonz), true, NULL, &e), 0);
    CHECK_INT(job_complete(&j, &d, &e), 0);
    CHECK_INT(envelope_job(&r, &j, fx_mem(fx), &e), 0);
    topic = j.not_before && source.topic < 0 ? TOPIC_SCHEDULED
                                             : topics_jobs(fx->topics, j.queue, j.priority);
    rc = fx_apply(fx, &r, topic);
    if (detail)
        *detail = r.detail;
    job_release(&j);
    return rc;
}

static inline int fx_job(struct fixture *fx, const char *jsonz)
{
    return fx_job_from(fx, jsonz, POSITION_NONE, NULL);
}

/* The completion of the job with this record JSON. One call of 10 + 5 tokens unless n_calls says
 * else. `source` as in a record. */
static inline int fx_end_job_from(struct fixture *fx, const char *jsonz, enum job_state state,
                                  size_t n_calls, struct position source, int *detail)
{
    struct record r = {.source = POSITION_NONE};
    struct call calls[4] = {{.attempt = 0}};
    struct completion c = {.state = state,
                           .attempts = (int)n_calls,
                           .node = STR("gpu0"),
                           .started_at = fx->now_ms - 5,
                           .finished_at = fx->now_ms,
                           .text = STR("hello, \"world\"\nline two"),
                           .finish_reason = STR("stop"),
                           .reason = REASON_NONE,
                           .usage = {10, 5, 2},
                           .calls = calls,
                           .n_calls = n_calls,
                           .queue_ms = 1,
                           .engine_ms = 2,
                           .first_token_ms = -1,
                           .total_ms = 3,
                           .cost = 0.25};
    struct err e = {0};
    struct job j;
    struct job_defaults d = {.tenant = STR("default"), .batch_line = -1, .wall_ms = fx->now_ms};
    size_t i;
    int rc;

    for (i = 0; i < n_calls; i++) {
        calls[i] = (struct call){.attempt = (int)i + 1,
                                 .node = STR("gpu0"),
                                 .model = STR("m"),
                                 .usage = {10, 5, 2},
                                 .outcome = i + 1 == n_calls ? CALL_OK : CALL_CUT,
                                 .ms = 7,
                                 .cost = 0.25};
        id_ulid(fx->now_ms, calls[i].id);
    }
    CHECK_INT(job_parse(&j, str_z(jsonz), true, NULL, &e), 0);
    CHECK_INT(job_complete(&j, &d, &e), 0);
    CHECK_INT(envelope_completion(&r, &j, &c, NULL, fx_mem(fx), &e), 0);
    r.source = source;
    rc = fx_apply(fx, &r, TOPIC_COMPLETIONS);
    if (detail)
        *detail = r.detail;
    job_release(&j);
    return rc;
}

static inline int fx_end_job(struct fixture *fx, const char *jsonz, enum job_state state,
                             size_t n_calls, int *detail)
{
    return fx_end_job_from(fx, jsonz, state, n_calls, POSITION_NONE, detail);
}

static inline int fx_batch(struct fixture *fx, const char *idz, enum batch_state state,
                           int64_t n_lines, int *detail)
{
    struct record r = {.source = POSITION_NONE};
    struct batch batch = {str_z(idz), STR("default"), state, fx->now_ms, n_lines};
    int rc;

    CHECK_INT(envelope_batch(&r, &batch, fx_mem(fx)), 0);
    rc = fx_apply(fx, &r, TOPIC_META);
    if (detail)
        *detail = r.detail;
    return rc;
}

/* One number of the database. */
static inline int64_t fx_int(struct fixture *fx, const char *sqlz)
{
    struct err e = {0};
    struct db_stmt *s;
    int64_t v;

    CHECK_INT(db_prepare(fx->db, sqlz, &s, &e), 0);
    CHECK_INT(db_step(s, &e), 1);
    v = db_int(s, 0);
    db_reset(s);
    return v;
}
