#include "broker-config/kafka_outbox.h"
#include "base/log.h"
#include "broker-config/broker.h"
#include "broker-config/header_codec.h"

enum {
    VERSION = 1,
    CACHE_KIB = 2048,
    LARGE_BYTES = 64 << 20,
    HEADERS_MAX = 1 << 26
};

static int64_t bytes_of(const struct record *r)
{
    const struct publish one = {.records = (struct record *)(uintptr_t)r, .n = 1};

    return (int64_t)broker_publish_bytes(&one);
}

/* ---- opening ---- */

static int query_ints(struct db *db, const char *sqlz, size_t n, int64_t *out, struct err *e)
{
    struct db_stmt *s;
    size_t i;
    int rc = db_prepare(db, sqlz, &s, e);

    if (rc)
        return rc;
    rc = db_step(s, e);
    for (i = 0; rc > 0 && i < n; i++)
        out[i] = db_int(s, (int)i);
    db_reset(s);
    return rc < 0 ? rc : 0;
}

/* Refuses what is not ours before anything is written. */
static int check(struct db *db, struct err *e)
{
    int64_t version = 0, n_tables = 0;
    int rc = query_ints(db, "PRAGMA user_version", 1, &version, e);

    rc = rc ? rc : query_ints(db, "SELECT count(*) FROM sqlite_schema", 1, &n_tables, e);
    if (rc == 0 && (version > VERSION || (version == 0 && n_tables > 0)))
        return err_set(e, ERR_CORRUPT, "no outbox of this genq (version %lld)", (long long)version);
    return rc;
}

static int make_table(struct db *db, struct err *e)
{
    return db_exec(db,
                   "CREATE TABLE IF NOT EXISTS outbox(row INTEGER PRIMARY KEY AUTOINCREMENT, "
                   "bytes INTEGER NOT NULL, topic TEXT NOT NULL, source TEXT, ts INTEGER NOT NULL, "
                   "key BLOB, headers BLOB, value BLOB); PRAGMA user_version=1",
                   e);
}

static int prepare(struct kafka_outbox *o, struct err *e)
{
    int rc = db_prepare(o->db,
                        "INSERT INTO outbox(bytes, topic, source, ts, key, headers, value) "
                        "VALUES(?,?,?,?,?,?,?)",
                        &o->insert, e);

    rc = rc ? rc : db_prepare(o->db, "DELETE FROM outbox WHERE row=?", &o->remove, e);
    return rc ? rc
              : db_prepare(o->db,
                           "SELECT row, bytes, topic, source, ts, key, headers, value FROM outbox "
                           "WHERE row>=? AND row<=? ORDER BY row",
                           &o->scan, e);
}

static int count(struct kafka_outbox *o, struct err *e)
{
    int64_t n[2] = {0, 0};
    int rc = query_ints(o->db, "SELECT count(*), coalesce(sum(bytes), 0) FROM outbox", 2, n, e);

    o->n_rows = n[0];
    o->bytes = o->most_bytes = n[1];
    return rc ? rc
              : query_ints(o->db, "SELECT seq FROM sqlite_sequence WHERE name='outbox'", 1,
                           &o->last, e);
}

/* Opening for writing turns a file to WAL, which must not happen to another program's. */
static int refuse_foreign(const char *pathz, struct err *e)
{
    struct db *db = NULL;
    struct err why = {0};
    int rc = db_open(pathz, DB_READ, 0, &db, &why);

    if (rc == 0 && (rc = check(db, &why)) != 0)
        err_prefix(&why, "%s", pathz);
    db_close(db);
    if (rc == 0 || rc == ERR_NOT_FOUND || (rc == ERR_IO && db_is_newborn(pathz)))
        return 0;
    if (e)
        *e = why;
    return rc;
}

int kafka_outbox_open(struct kafka_outbox *o, const char *pathz, const struct topics *topics,
                      struct err *e)
{
    int rc;

    *o = (struct kafka_outbox){.topics = topics};
    rc = refuse_foreign(pathz, e);
    rc = rc ? rc : db_open(pathz, DB_WRITE, CACHE_KIB, &o->db, e);
    rc = rc ? rc : make_table(o->db, e);
    rc = rc ? rc : prepare(o, e);
    rc = rc ? rc : count(o, e);
    if (rc)
        kafka_outbox_close(o);
    return rc;
}

void kafka_outbox_close(struct kafka_outbox *o)
{
    db_close(o->db);
    *o = (struct kafka_outbox){0};
}

/* ---- writing ---- */

int kafka_outbox_begin(struct kafka_outbox *o, struct err *e)
{
    o->old_last = o->last;
    o->old_rows = o->n_rows;
    o->old_bytes = o->bytes;
    return db_begin(o->db, e);
}

static int bind_record(struct kafka_outbox *o, const struct record *r,
                       char source[POSITION_TEXT_MAX], struct buf *headers, struct err *e)
{
    if (header_encode(r, headers) != 0)
        return err_set(e, ERR_TOO_LARGE, "a record's headers are larger than %d bytes",
                       HEADERS_MAX);
    if (topics_is_source(r->source.topic))
        position_format(o->topics, r->source, source);
    db_bind_int(o->insert, 1, bytes_of(r));
    db_bind_text(o->insert, 2, str_z(topics_name(o->topics, r->at.topic)));
    db_bind_text(o->insert, 3, source[0] ? str_z(source) : STR_NONE);
    db_bind_int(o->insert, 4, r->ts_ms);
    db_bind_blob(o->insert, 5, r->key);
    db_bind_blob(o->insert, 6, buf_str(headers));
    db_bind_blob(o->insert, 7, r->value);
    return 0;
}

int kafka_outbox_add(struct kafka_outbox *o, const struct record *r, int64_t *row, int64_t *bytes,
                     struct err *e)
{
    char source[POSITION_TEXT_MAX] = "";
    struct buf headers;
    int rc;

    buf_init(&headers, HEADERS_MAX);
    rc = bind_record(o, r, source, &headers, e);
    rc = rc ? rc : db_run(o->insert, e);
    buf_release(&headers);
    if (rc)
        return rc;
    *row = o->last = db_last_rowid(o->db);
    *bytes = bytes_of(r);
    o->n_rows++;
    o->bytes += *bytes;
    if (o->bytes > o->most_bytes)
        o->most_bytes = o->bytes;
    return 0;
}

int kafka_outbox_remove(struct kafka_outbox *o, int64_t row, int64_t bytes, struct err *e)
{
    int rc;

    db_bind_int(o->remove, 1, row);
    rc = db_run(o->remove, e);
    if (rc)
        return rc;
    o->n_rows--;
    o->bytes -= bytes;
    return 0;
}

int kafka_outbox_commit(struct kafka_outbox *o, struct err *e)
{
    return db_commit(o->db, e);
}

void kafka_outbox_rollback(struct kafka_outbox *o)
{
    db_rollback(o->db);
    o->last = o->old_last;
    o->n_rows = o->old_rows;
    o->bytes = o->old_bytes;
}

void kafka_outbox_tidy(struct kafka_outbox *o)
{
    struct err e;
    int rc;

    if (o->n_rows > 0 || o->most_bytes < LARGE_BYTES)
        return;
    o->most_bytes = 0;
    rc = db_exec(o->db, "VACUUM", &e);
    rc = rc ? rc : db_checkpoint(o->db, true, NULL, &e);
    if (rc)
        log_warn("outbox_not_tidied", LI("code", rc), LZ("error", e.msg));
}

/* ---- reading ---- */

static void read_row(struct kafka_outbox *o, struct kafka_outbox_row *row)
{
    struct record *r = &row->record;
    struct str source = db_text(o->scan, 3);

    row->row = db_int(o->scan, 0);
    row->bytes = db_int(o->scan, 1);
    *r = (struct record){.at = {topics_find(o->topics, db_text(o->scan, 2)), 0, -1},
                         .source = POSITION_NONE};
    r->ts_ms = db_int(o->scan, 4);
    r->key = db_blob(o->scan, 5);
    r->code = header_decode(db_blob(o->scan, 6), &row->headers);
    memcpy(r->headers, row->headers.all, sizeof r->headers);
    r->value = db_blob(o->scan, 7);
    if (!source.p)
        return;
    if (!position_parse(o->topics, source, &r->source))
        r->source = POSITION_NONE;
    if (!r->headers[HEADER_SOURCE].p)
        r->headers[HEADER_SOURCE] = source; /* also of a queue that the config has no more */
}

int kafka_outbox_read(struct kafka_outbox *o, int64_t from, int64_t to,
                      bool (*on_row)(void *data, const struct kafka_outbox_row *row), void *data,
                      struct err *e)
{
    struct kafka_outbox_row row;
    int rc;

    db_bind_int(o->scan, 1, from);
    db_bind_int(o->scan, 2, to);
    while ((rc = db_step(o->scan, e)) > 0) {
        read_row(o, &row);
        if (!on_row(data, &row))
            break;
    }
    db_reset(o->scan);
    return rc < 0 ? rc : 0;
}

int kafka_outbox_sources(struct kafka_outbox *o, void (*on_source)(void *data, struct position at),
                         void *data, struct err *e)
{
    struct position at;
    struct db_stmt *s;
    int rc = db_prepare(o->db, "SELECT source FROM outbox WHERE source IS NOT NULL", &s, e);

    if (rc)
        return rc;
    while ((rc = db_step(s, e)) > 0)
        if (position_parse(o->topics, db_text(s, 0), &at) && topics_is_source(at.topic))
            on_source(data, at);
    db_reset(s);
    return rc;
}
