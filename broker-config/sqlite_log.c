#include "broker-config/sqlite_log.h"
#include "base/log.h"
#include "broker-config/header_codec.h"
#include "schema/migrate.h"
#include <assert.h>
#include <stdlib.h>

#define COLUMNS "off, ts, key, headers, value"

enum {
    CACHE_KIB = 16384,
    HEADERS_MAX = 1 << 26,
    COUNT_SPAN = 1 << 16, /* a topic no longer than this is counted at open, not trusted */
    KEEP_BYTES = 8 << 20  /* of scratch memory, between reads */
};

bool sqlite_log_is_kept(int topic)
{
    return topic == TOPIC_COMPLETIONS || topic == TOPIC_META;
}

/* ---- opening ---- */

/* sqlz holds one %s for the topic's name, which the config keeps free of quotes. */
static int prepare(struct sqlite_log *l, int topic, const char *sqlz, struct db_stmt **out,
                   struct err *e)
{
    const char *at = strstr(sqlz, "%s");
    struct buf b;
    int rc;

    buf_init(&b, 4096);
    buf_add(&b, sqlz, (size_t)(at - sqlz));
    buf_addf(&b, "\"%s\"%s", topics_name(l->topics, topic), at + 2);
    rc = out ? db_prepare(l->db, b.p, out, e) : db_exec(l->db, b.p, e);
    buf_release(&b);
    return rc;
}

static int make_table(struct sqlite_log *l, int topic, struct err *e)
{
    struct log_topic *t = &l->topic[topic];
    int rc = prepare(l, topic,
                     "CREATE TABLE IF NOT EXISTS %s(off INTEGER PRIMARY KEY, ts INTEGER NOT NULL, "
                     "key TEXT, headers BLOB, value BLOB)",
                     NULL, e);

    rc =
        rc ? rc : prepare(l, topic, "INSERT INTO %s(" COLUMNS ") VALUES(?,?,?,?,?)", &t->insert, e);
    rc = rc ? rc : prepare(l, topic, "DELETE FROM %s WHERE off BETWEEN ? AND ?", &t->remove, e);
    rc = rc ? rc
            : prepare(l, topic, "SELECT " COLUMNS " FROM %s WHERE off>=? ORDER BY off LIMIT ?",
                      &t->scan, e);
    rc = rc ? rc
            : prepare(l, topic, "SELECT " COLUMNS " FROM %s WHERE off BETWEEN ? AND ? ORDER BY off",
                      &t->range, e);
    return rc ? rc : prepare(l, topic, "SELECT min(off) FROM %s", &t->oldest, e);
}

static int one_int(struct db_stmt *s, int64_t if_null, int64_t *out, struct err *e)
{
    int rc = db_step(s, e);

    if (rc > 0)
        *out = db_is_null(s, 0) ? if_null : db_int(s, 0);
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int query_int(struct sqlite_log *l, int topic, const char *sqlz, int64_t if_null,
                     int64_t *out, struct err *e)
{
    struct db_stmt *s;
    int rc = prepare(l, topic, sqlz, &s, e);

    return rc ? rc : one_int(s, if_null, out, e);
}

static int load_saved(struct sqlite_log *l, int topic, struct err *e)
{
    struct log_topic *t = &l->topic[topic];
    struct db_stmt *s;
    int rc = db_prepare(l->db, "SELECT next_off, n_rows FROM log_topic WHERE name=?", &s, e);

    if (rc)
        return rc;
    db_bind_text(s, 1, str_z(topics_name(l->topics, topic)));
    rc = db_step(s, e);
    if (rc > 0) {
        t->next = db_int(s, 0);
        t->n_rows = db_int(s, 1);
    }
    db_reset(s);
    return rc < 0 ? rc : 0;
}

static int load_topic(struct sqlite_log *l, int topic, struct err *e)
{
    struct log_topic *t = &l->topic[topic];
    int64_t newest = -1;
    int rc = make_table(l, topic, e);

    rc = rc ? rc : load_saved(l, topic, e);
    rc = rc ? rc : query_int(l, topic, "SELECT max(off) FROM %s", -1, &newest, e);
    if (rc)
        return rc;
    if (newest >= t->next)
        t->next = newest + 1;
    rc = one_int(t->oldest, t->next, &t->first, e);
    if (rc == 0 && t->next - t->first <= COUNT_SPAN)
        rc = query_int(l, topic, "SELECT count(*) FROM %s", 0, &t->n_rows, e);
    return rc;
}

/* A queue that was taken out of the config leaves its jobs waiting: say so. */
static int warn_of_others(struct sqlite_log *l, struct err *e)
{
    struct db_stmt *s;
    int rc = db_prepare(l->db, "SELECT name, n_rows FROM log_topic WHERE n_rows>0", &s, e);

    if (rc)
        return rc;
    while ((rc = db_step(s, e)) > 0)
        if (topics_find(l->topics, db_text(s, 0)) < 0)
            log_warn("topic_not_in_config", LS("topic", db_text(s, 0)),
                     LI("records", db_int(s, 1)));
    db_reset(s);
    return rc;
}

/* A copy of Kafka's log has its offsets, not ours. */
static int refuse_followed(struct sqlite_log *l, struct err *e)
{
    struct db_stmt *s;
    int rc = db_prepare(l->db, "SELECT 1 FROM position LIMIT 1", &s, e);

    if (rc)
        return rc;
    rc = db_step(s, e);
    db_reset(s);
    if (rc > 0)
        return err_set(e, ERR_INVALID,
                       "holds what was read from Kafka: give `broker: {kind: sqlite}`"
                       " a data directory of its own");
    return rc;
}

static int load(struct sqlite_log *l, struct err *e)
{
    size_t i, n = topics_count(l->topics);
    int rc = refuse_followed(l, e);

    rc = rc ? rc : db_begin(l->db, e);
    rc = rc ? rc
            : db_exec(l->db,
                      "CREATE TABLE IF NOT EXISTS log_topic(name TEXT PRIMARY KEY, "
                      "next_off INTEGER NOT NULL, n_rows INTEGER NOT NULL) WITHOUT ROWID",
                      e);
    for (i = 0; rc == 0 && i < n; i++)
        rc = load_topic(l, (int)i, e);
    rc = rc ? rc : warn_of_others(l, e);
    rc = rc ? rc
            : db_prepare(l->db, "REPLACE INTO log_topic(name, next_off, n_rows) VALUES(?,?,?)",
                         &l->save, e);
    rc = rc ? rc
            : prepare(l, TOPIC_DEAD, "DELETE FROM %s WHERE off>=? AND off<? AND ts<?",
                      &l->drop_dead, e);
    return rc ? rc : db_commit(l->db, e);
}

int sqlite_log_open(struct sqlite_log *l, const char *pathz, bool is_full_sync,
                    const struct topics *topics, struct err *e)
{
    size_t n = topics_count(topics);
    int rc;

    *l = (struct sqlite_log){.topics = topics};
    buf_init(&l->headers, HEADERS_MAX);
    l->topic = xcalloc(n, sizeof *l->topic);
    l->touched = xcalloc(n, sizeof *l->touched);
    rc = schema_open(pathz, is_full_sync ? DB_WRITE : DB_WRITE_NORMAL, CACHE_KIB, &l->db, e);
    if (rc == 0 && (rc = load(l, e)) != 0) {
        db_rollback(l->db);
        err_prefix(e, "%s", pathz);
    }
    if (rc)
        sqlite_log_close(l);
    return rc;
}

void sqlite_log_close(struct sqlite_log *l)
{
    db_close(l->db);
    buf_release(&l->headers);
    free(l->topic);
    free(l->touched);
    *l = (struct sqlite_log){0};
}

/* ---- writing ---- */

static struct log_topic *touch(struct sqlite_log *l, int topic)
{
    struct log_topic *t = &l->topic[topic];

    if (!t->is_touched) {
        t->is_touched = true;
        t->is_first_gone = sqlite_log_is_kept(topic); /* the store deletes old ones by itself */
        t->saved_next = t->next;
        t->saved_first = t->first;
        t->saved_rows = t->n_rows;
        l->touched[l->n_touched++] = topic;
    }
    return t;
}

static void untouch(struct sqlite_log *l)
{
    size_t i;

    for (i = 0; i < l->n_touched; i++)
        l->topic[l->touched[i]].is_touched = false;
    l->n_touched = 0;
}

int sqlite_log_begin(struct sqlite_log *l, struct err *e)
{
    assert(l->n_touched == 0);
    return db_begin(l->db, e);
}

int64_t sqlite_log_next(const struct sqlite_log *l, int topic)
{
    return l->topic[topic].next;
}

/* Letters older than they are kept go as new ones come. */
static int drop_old_letters(struct sqlite_log *l, int64_t now_ms, struct err *e)
{
    struct log_topic *t = touch(l, TOPIC_DEAD);
    int rc;

    db_bind_int(l->drop_dead, 1, t->first);
    db_bind_int(l->drop_dead, 2, t->first + 2 * (t->next - t->saved_next + 1));
    db_bind_int(l->drop_dead, 3, now_ms - DEAD_KEEP_MS);
    rc = db_run(l->drop_dead, e);
    if (rc || db_changes(l->db) == 0)
        return rc;
    t->n_rows -= db_changes(l->db);
    t->is_first_gone = true;
    return 0;
}

int sqlite_log_append(struct sqlite_log *l, struct record *r, struct err *e)
{
    struct log_topic *t = touch(l, r->at.topic);
    int rc = r->at.topic == TOPIC_DEAD ? drop_old_letters(l, r->ts_ms, e) : 0;

    if (rc)
        return rc;
    buf_clear(&l->headers);
    if (header_encode(r, &l->headers) != 0)
        return err_set(e, ERR_TOO_LARGE, "a record's headers are larger than %d bytes",
                       HEADERS_MAX);
    db_bind_int(t->insert, 1, t->next);
    db_bind_int(t->insert, 2, r->ts_ms);
    db_bind_text(t->insert, 3, r->key);
    db_bind_blob(t->insert, 4, buf_str(&l->headers));
    db_bind_blob(t->insert, 5, r->value);
    rc = db_run(t->insert, e);
    if (rc)
        return rc;
    r->at = (struct position){r->at.topic, 0, t->next++};
    t->n_rows++;
    return 0;
}

int sqlite_log_remove(struct sqlite_log *l, int topic, int64_t first, int64_t last, struct err *e)
{
    struct log_topic *t;
    int rc;

    if (sqlite_log_is_kept(topic))
        return 0;
    t = &l->topic[topic];
    db_bind_int(t->remove, 1, first);
    db_bind_int(t->remove, 2, last);
    rc = db_run(t->remove, e);
    if (rc || db_changes(l->db) == 0)
        return rc;
    touch(l, topic)->n_rows -= db_changes(l->db);
    t->is_first_gone |= first <= t->first;
    return 0;
}

static int save_topic(struct sqlite_log *l, int topic, struct err *e)
{
    struct log_topic *t = &l->topic[topic];

    if (t->n_rows == 0)
        t->first = t->next;
    else if (t->is_first_gone)
        return one_int(t->oldest, t->next, &t->first, e);
    return 0;
}

int sqlite_log_commit(struct sqlite_log *l, struct err *e)
{
    struct log_topic *t;
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < l->n_touched; i++) {
        rc = save_topic(l, l->touched[i], e);
        t = &l->topic[l->touched[i]];
        if (rc || (t->next == t->saved_next && t->n_rows == t->saved_rows))
            continue;
        db_bind_text(l->save, 1, str_z(topics_name(l->topics, l->touched[i])));
        db_bind_int(l->save, 2, t->next);
        db_bind_int(l->save, 3, t->n_rows);
        rc = db_run(l->save, e);
    }
    rc = rc ? rc : db_commit(l->db, e);
    if (rc == 0)
        untouch(l);
    return rc;
}

void sqlite_log_rollback(struct sqlite_log *l)
{
    struct log_topic *t;
    size_t i;

    db_rollback(l->db);
    for (i = 0; i < l->n_touched; i++) {
        t = &l->topic[l->touched[i]];
        t->next = t->saved_next;
        t->first = t->saved_first;
        t->n_rows = t->saved_rows;
    }
    untouch(l);
}

/* ---- reading ---- */

void rows_init(struct rows *r)
{
    *r = (struct rows){0};
    buf_init(&r->bytes, SIZE_MAX - 1);
}

void rows_release(struct rows *r)
{
    free(r->records);
    buf_release(&r->bytes);
    rows_init(r);
}

void rows_clear(struct rows *r)
{
    r->n = 0;
    if (r->bytes.room > KEEP_BYTES)
        buf_release(&r->bytes);
    buf_clear(&r->bytes);
}

/* A place in `bytes` instead of an address, which moves as it grows; + 1 keeps NULL for absent. */
static struct str put(struct rows *r, struct str s)
{
    uintptr_t place = r->bytes.n + 1;

    if (!s.p)
        return STR_NONE;
    buf_adds(&r->bytes, s);
    return (struct str){(const char *)place, s.n};
}

static void resolve(struct str *s, const char *bytes)
{
    if (s->p)
        s->p = bytes + ((uintptr_t)s->p - 1);
}

static void add_row(struct rows *r, int topic, struct db_stmt *s)
{
    struct headers headers;
    struct record *rec;
    int h;

    if (r->n == r->room) {
        r->room = r->room ? r->room * 2 : 16;
        r->records = xrealloc(r->records, r->room * sizeof *r->records);
    }
    rec = &r->records[r->n++];
    *rec = (struct record){.at = {topic, 0, db_int(s, 0)}, .source = POSITION_NONE};
    rec->ts_ms = db_int(s, 1);
    rec->key = put(r, db_text(s, 2));
    rec->code = header_decode(db_blob(s, 3), &headers);
    for (h = 0; h < HEADER_COUNT_; h++)
        rec->headers[h] = put(r, headers.all[h]);
    rec->value = put(r, db_blob(s, 4));
    if (rec->code)
        log_error("record_headers_broken", LI("topic", topic), LI("offset", rec->at.offset));
}

int sqlite_log_scan(struct sqlite_log *l, int topic, int64_t from, size_t max_rows,
                    size_t max_bytes, struct rows *out, bool *is_end, struct err *e)
{
    struct db_stmt *s = l->topic[topic].scan;
    int rc = 0;

    db_bind_int(s, 1, from);
    db_bind_int(s, 2, (int64_t)max_rows);
    while (out->bytes.n < max_bytes && (rc = db_step(s, e)) > 0)
        add_row(out, topic, s);
    db_reset(s);
    *is_end = rc == 0 && out->n < max_rows && out->bytes.n < max_bytes;
    return rc < 0 ? rc : 0;
}

int sqlite_log_range(struct sqlite_log *l, int topic, int64_t first, int64_t last, struct rows *out,
                     struct err *e)
{
    struct db_stmt *s = l->topic[topic].range;
    int rc;

    db_bind_int(s, 1, first);
    db_bind_int(s, 2, last);
    while ((rc = db_step(s, e)) > 0)
        add_row(out, topic, s);
    db_reset(s);
    return rc;
}

void *rows_pack(const struct rows *r, size_t head_bytes, struct record **records)
{
    size_t list_bytes = r->n * sizeof *r->records, i;
    char *block, *bytes;
    int h;

    head_bytes = (head_bytes + _Alignof(struct record) - 1) & ~(_Alignof(struct record) - 1);
    block = xmalloc(head_bytes + list_bytes + r->bytes.n);
    bytes = block + head_bytes + list_bytes;
    *records = (struct record *)(void *)(block + head_bytes);
    if (r->n)
        memcpy(*records, r->records, list_bytes);
    if (r->bytes.n)
        memcpy(bytes, r->bytes.p, r->bytes.n);
    for (i = 0; i < r->n; i++) {
        resolve(&(*records)[i].key, bytes);
        resolve(&(*records)[i].value, bytes);
        for (h = 0; h < HEADER_COUNT_; h++)
            resolve(&(*records)[i].headers[h], bytes);
    }
    return block;
}
