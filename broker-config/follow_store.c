#include "broker-config/follow_store.h"
#include "base/clock.h"
#include "broker-config/header_codec.h"
#include "schema/migrate.h"

enum { CACHE_KIB = 16384, HEADERS_MAX = 1 << 26, PATH_BYTES = 1 << 16 };

/* These tables have their names whatever the topics' prefix is: the store reads them. */
#define FEED "\"genq.completions\""
#define DEAD "\"genq.dead\""
#define COLUMNS "(off INTEGER PRIMARY KEY, ts INTEGER NOT NULL, key TEXT, headers BLOB, value BLOB)"
#define DROP_OLD \
    "DELETE FROM " DEAD " WHERE off IN" \
    " (SELECT off FROM (SELECT off, ts FROM " DEAD " ORDER BY off LIMIT 2) WHERE ts<?)"
#define INSERT(table) "INSERT INTO " table "(off, ts, key, headers, value) VALUES(?,?,?,?,?)"

/* One number; `if_none` where there is no row, or NULL. Resets s. */
static int one_int(struct db_stmt *s, int64_t if_none, int64_t *out, struct err *e)
{
    int rc = db_step(s, e);

    *out = rc > 0 && !db_is_null(s, 0) ? db_int(s, 0) : if_none;
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int query(struct follow_store *s, const char *sqlz, int64_t *out, struct err *e)
{
    struct db_stmt *stmt;
    int rc = db_prepare(s->db, sqlz, &stmt, e);

    return rc ? rc : one_int(stmt, 0, out, e);
}

/* The offsets of a log of our own are not Kafka's. */
static int refuse_embedded(struct follow_store *s, struct err *e)
{
    int64_t n = 0;
    int rc = query(s, "SELECT count(*) FROM sqlite_schema WHERE name='log_topic'", &n, e);

    if (rc || n == 0)
        return rc;
    return err_set(e, ERR_INVALID,
                   "holds the log of an embedded genq: give `broker: {kind: kafka}`"
                   " a data directory of its own");
}

static int prepare(struct follow_store *s, struct err *e)
{
    int rc = refuse_embedded(s, e);

    rc = rc ? rc : db_exec(s->db, "CREATE TABLE IF NOT EXISTS " FEED COLUMNS, e);
    rc = rc ? rc : db_exec(s->db, "CREATE TABLE IF NOT EXISTS " DEAD COLUMNS, e);
    rc = rc ? rc : db_prepare(s->db, INSERT(FEED), &s->feed, e);
    rc = rc ? rc : db_prepare(s->db, INSERT(DEAD), &s->dead, e);
    rc = rc ? rc : db_prepare(s->db, DROP_OLD, &s->old, e);
    rc = rc ? rc
            : db_prepare(s->db, "SELECT next FROM position WHERE topic=? AND partition=?", &s->get,
                         e);
    return rc ? rc
              : db_prepare(s->db, "REPLACE INTO position(topic, partition, next) VALUES(?,?,?)",
                           &s->set, e);
}

int follow_store_open(struct follow_store *s, const char *dataz, const struct topics *t,
                      struct err *e)
{
    struct buf path;
    int rc;

    *s = (struct follow_store){.topics = t};
    buf_init(&s->headers, HEADERS_MAX);
    buf_init(&path, PATH_BYTES);
    if (buf_addf(&path, "%s/" DB_FILE, dataz))
        rc = err_set(e, ERR_INVALID, "the data directory's path is too long");
    else
        rc = schema_open(path.p, DB_WRITE_NORMAL, CACHE_KIB, &s->db, e);
    if (rc == 0 && (rc = prepare(s, e)) != 0)
        err_prefix(e, "%s", path.p);
    buf_release(&path);
    if (rc)
        follow_store_close(s);
    return rc;
}

void follow_store_close(struct follow_store *s)
{
    db_close(s->db);
    buf_release(&s->headers);
    *s = (struct follow_store){0};
}

/* ---- whose log it is ---- */

static int read_cluster(struct follow_store *s, char *dst, size_t room, struct err *e)
{
    struct db_stmt *stmt;
    int rc = db_prepare(s->db, "SELECT id FROM cluster", &stmt, e);

    if (rc)
        return rc;
    rc = db_step(stmt, e);
    str_copyz(dst, room, rc > 0 ? db_text(stmt, 0) : STR_NONE);
    db_reset(stmt);
    return rc < 0 ? rc : 0;
}

static int write_cluster(struct follow_store *s, const char *clusterz, struct err *e)
{
    struct db_stmt *stmt;
    int rc = db_prepare(s->db, "INSERT INTO cluster(id) VALUES(?)", &stmt, e);

    if (rc)
        return rc;
    db_bind_text(stmt, 1, str_z(clusterz));
    return db_run(stmt, e);
}

int follow_store_claim(struct follow_store *s, const char *clusterz, struct err *e)
{
    int64_t n_positions = 0, next = -1;
    char known[128];
    int rc = read_cluster(s, known, sizeof known, e);

    if (rc == 0 && known[0] == '\0')
        return write_cluster(s, clusterz, e);
    if (rc == 0 && strcmp(known, clusterz) != 0)
        return err_set(e, ERR_INVALID,
                       "the data directory is a copy of another Kafka's log (cluster %s, this is"
                       " %s): give it one of its own",
                       known, clusterz);
    rc = rc ? rc : query(s, "SELECT count(*) FROM position", &n_positions, e);
    rc = rc ? rc : follow_store_position(s, TOPIC_COMPLETIONS, 0, &next, e);
    if (rc || n_positions == 0 || next >= 0)
        return rc;
    return err_set(e, ERR_INVALID,
                   "the data directory is a copy of topics with another broker.prefix: give it"
                   " one of its own");
}

/* ---- positions ---- */

int follow_store_position(struct follow_store *s, int topic, int32_t partition, int64_t *next,
                          struct err *e)
{
    db_bind_text(s->get, 1, str_z(topics_name(s->topics, topic)));
    db_bind_int(s->get, 2, partition);
    return one_int(s->get, -1, next, e);
}

int follow_store_last_partition(struct follow_store *s, int topic, int64_t *last, struct err *e)
{
    struct db_stmt *stmt;
    int rc = db_prepare(s->db, "SELECT max(partition) FROM position WHERE topic=?", &stmt, e);

    if (rc)
        return rc;
    db_bind_text(stmt, 1, str_z(topics_name(s->topics, topic)));
    return one_int(stmt, -1, last, e);
}

int follow_store_save(struct follow_store *s, struct position next, struct err *e)
{
    db_bind_text(s->set, 1, str_z(topics_name(s->topics, next.topic)));
    db_bind_int(s->set, 2, next.partition);
    db_bind_int(s->set, 3, next.offset);
    return db_run(s->set, e);
}

/* ---- what is kept ---- */

static int add(struct follow_store *s, struct db_stmt *to, const struct record *r, struct err *e)
{
    buf_clear(&s->headers);
    if (header_encode(r, &s->headers) != 0)
        return err_set(e, ERR_TOO_LARGE, "a record's headers are larger than %d bytes",
                       (int)HEADERS_MAX);
    db_bind_int(to, 1, r->at.offset);
    db_bind_int(to, 2, r->ts_ms);
    db_bind_text(to, 3, r->key);
    db_bind_blob(to, 4, buf_str(&s->headers));
    db_bind_blob(to, 5, r->value);
    return db_run(to, e);
}

int follow_store_add(struct follow_store *s, const struct record *r, struct err *e)
{
    int64_t now_ms;

    if (r->at.topic == TOPIC_COMPLETIONS)
        return add(s, s->feed, r, e);
    if (r->at.topic != TOPIC_DEAD || r->at.partition != 0) /* both have one partition */
        return 0;
    now_ms = clock_wall_ms(); /* a record may say any time */
    db_bind_int(s->old, 1, (r->ts_ms < now_ms ? r->ts_ms : now_ms) - DEAD_KEEP_MS);
    return db_run(s->old, e) ? e->code : add(s, s->dead, r, e);
}
