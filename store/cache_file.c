/* What is damaged, or of another version, is thrown away. Rows are numbered in the order in which
 * they were kept, so the oldest go first. */
#include "store/cache_file.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_NAME "genq-cache.db"
#define VERSION "1"

enum {
    KIB = 2048,
    ROW_BYTES = 128,  /* of a row and its place in the index, besides the answer */
    RETRY_MS = 10000, /* a file that cannot be opened is tried again */
    DROPS = 256,      /* of old rows, for one that is kept: a lower max_bytes holds bit by bit */
};

enum stmt { S_GET, S_SIZE, S_PUT, S_OLDEST, S_DROP, S_TOTAL };

static const char *const texts[CACHE_FILE_STMTS] = {
    [S_GET] = "SELECT output FROM answer WHERE key=? AND at>? AND at<=?",
    [S_SIZE] = "SELECT bytes FROM answer WHERE key=?",
    [S_PUT] = "INSERT OR REPLACE INTO answer(key, at, bytes, output) VALUES(?,?,?,?)",
    [S_OLDEST] = "SELECT row, at, bytes FROM answer ORDER BY row LIMIT 1",
    [S_DROP] = "DELETE FROM answer WHERE row=?",
    [S_TOTAL] = "UPDATE total SET n=?, bytes=?",
};

/* ---- the file ---- */

static void close_file(struct cache_file *s)
{
    db_close(s->db);
    s->db = NULL;
    s->is_writing = false;
}

static int read_ints(struct db *db, const char *sqlz, int n, int64_t *out, struct err *e)
{
    struct db_stmt *q;
    int i, rc = db_prepare(db, sqlz, &q, e);

    rc = rc ? rc : db_step(q, e);
    for (i = 0; rc == 1 && i < n; i++)
        out[i] = db_int(q, i);
    if (rc >= 0)
        db_reset(q);
    return rc < 0 ? rc : rc == 1 ? 0 : err_set(e, ERR_CORRUPT, "a row is missing");
}

static int make_tables(struct db *db, struct err *e)
{
    int64_t version = 0;
    int rc = read_ints(db, "PRAGMA user_version", 1, &version, e);

    if (rc || version == atoll(VERSION))
        return rc;
    if (version)
        return err_set(e, ERR_CORRUPT, "another version's");
    return db_exec(db,
                   "BEGIN; CREATE TABLE answer(row INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,"
                   " at INTEGER NOT NULL, bytes INTEGER NOT NULL, output BLOB NOT NULL);"
                   "CREATE TABLE total(n INTEGER NOT NULL, bytes INTEGER NOT NULL);"
                   "INSERT INTO total VALUES(0, 0); PRAGMA user_version=" VERSION "; COMMIT",
                   e);
}

static void tell_totals(const struct cache_file *s)
{
    metric_set(METRIC_CACHE_ENTRIES, s->n);
    metric_set(METRIC_CACHE_BYTES, s->bytes);
}

static int read_totals(struct cache_file *s, struct err *e)
{
    int64_t all[2] = {0, 0};
    int rc = read_ints(s->db, "SELECT n, bytes FROM total", 2, all, e);

    s->n = all[0];
    s->bytes = all[1];
    tell_totals(s);
    return rc;
}

static int open_once(struct cache_file *s, struct err *e)
{
    int i, rc = db_open(s->path, DB_WRITE_NORMAL, KIB, &s->db, e);

    rc = rc ? rc : make_tables(s->db, e);
    for (i = 0; rc == 0 && i < CACHE_FILE_STMTS; i++)
        rc = db_prepare(s->db, texts[i], &s->stmts[i], e);
    rc = rc ? rc : read_totals(s, e);
    if (rc)
        close_file(s);
    return rc;
}

static void throw_away(struct cache_file *s, const struct err *why)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    char path[CACHE_FILE_PATH_BYTES + 8];
    size_t i;

    log_warn("cache_emptied", LZ("file", s->path), LZ("error", why->msg));
    close_file(s);
    for (i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        snprintf(path, sizeof path, "%s%s", s->path, ends[i]);
        unlink(path);
    }
}

static void note(struct cache_file *s, const struct err *e)
{
    if (!s->is_fault_logged)
        log_warn("cache_fails", LZ("file", s->path), LZ("error", e->msg));
    s->is_fault_logged = true;
}

static bool is_open(struct cache_file *s)
{
    struct err e = {0};
    int rc;

    if (s->db)
        return true;
    if (s->retry_ms > clock_mono_ms())
        return false;
    rc = open_once(s, &e);
    if (rc == ERR_CORRUPT || rc == ERR_INTERNAL) {
        throw_away(s, &e);
        rc = open_once(s, &e);
    }
    if (rc) {
        note(s, &e);
        s->retry_ms = clock_mono_ms() + RETRY_MS;
    }
    return rc == 0;
}

/* What is not durable then was kept for nothing. */
static void give_up(struct cache_file *s, const struct err *e)
{
    struct err again = {0};

    if (s->is_writing)
        db_rollback(s->db);
    s->is_writing = false;
    if (e->code == ERR_CORRUPT) {
        throw_away(s, e);
        return;
    }
    note(s, e);
    if (read_totals(s, &again) != 0)
        close_file(s);
}

/* ---- answers ---- */

static struct str key_of(const uint8_t key[SHA256_LEN])
{
    return str_of(key, SHA256_LEN);
}

struct str cache_file_get(struct cache_file *s, const uint8_t key[SHA256_LEN])
{
    struct db_stmt *q;
    struct str output = STR_NONE;
    struct err e = {0};
    int rc;

    if (!is_open(s))
        return STR_NONE;
    q = s->stmts[S_GET];
    db_bind_blob(q, 1, key_of(key));
    db_bind_int(q, 2, clock_wall_ms() - s->ttl_ms);
    db_bind_int(q, 3, clock_wall_ms());
    rc = db_step(q, &e);
    if (rc == 1)
        output = str_of(xstrdup(db_blob(q, 0)), db_blob(q, 0).n);
    db_reset(q);
    if (rc < 0)
        give_up(s, &e);
    return output;
}

/* What is of a time to come was kept by a clock that was wrong. */
static int drop_oldest(struct cache_file *s, int64_t now_ms, bool *is_done, struct err *e)
{
    struct db_stmt *q = s->stmts[S_OLDEST];
    int64_t row = 0, at = 0, bytes = 0;
    int rc = db_step(q, e);

    if (rc == 1) {
        row = db_int(q, 0);
        at = db_int(q, 1);
        bytes = db_int(q, 2);
    }
    db_reset(q);
    *is_done = rc != 1 || (s->bytes <= s->max_bytes && at > now_ms - s->ttl_ms && at <= now_ms);
    if (*is_done)
        return rc < 0 ? rc : 0;
    db_bind_int(s->stmts[S_DROP], 1, row);
    rc = db_run(s->stmts[S_DROP], e);
    s->n--;
    s->bytes -= bytes;
    return rc;
}

static int make_room(struct cache_file *s, struct err *e)
{
    int64_t now_ms = clock_wall_ms();
    bool is_done = false;
    int i, rc = 0;

    for (i = 0; rc == 0 && !is_done && i < DROPS; i++)
        rc = drop_oldest(s, now_ms, &is_done, e);
    return rc;
}

static int forget_older(struct cache_file *s, const uint8_t key[SHA256_LEN], struct err *e)
{
    struct db_stmt *q = s->stmts[S_SIZE];
    int rc;

    db_bind_blob(q, 1, key_of(key));
    rc = db_step(q, e);
    if (rc == 1) {
        s->bytes -= db_int(q, 0);
        s->n--;
    }
    db_reset(q);
    return rc < 0 ? rc : 0;
}

static int write_answer(struct cache_file *s, const uint8_t key[SHA256_LEN], struct str output,
                        struct err *e)
{
    struct db_stmt *q = s->stmts[S_PUT];
    int64_t bytes = (int64_t)output.n + ROW_BYTES;
    int rc = forget_older(s, key, e);

    if (rc)
        return rc;
    db_bind_blob(q, 1, key_of(key));
    db_bind_int(q, 2, clock_wall_ms());
    db_bind_int(q, 3, bytes);
    db_bind_blob(q, 4, output);
    rc = db_run(q, e);
    s->bytes += bytes;
    s->n++;
    return rc ? rc : make_room(s, e);
}

void cache_file_put(struct cache_file *s, const uint8_t key[SHA256_LEN], struct str output)
{
    struct err e = {0};
    int rc;

    if ((int64_t)output.n + ROW_BYTES > s->max_bytes || !is_open(s))
        return;
    rc = s->is_writing ? 0 : db_begin(s->db, &e);
    s->is_writing |= rc == 0;
    rc = rc ? rc : write_answer(s, key, output, &e);
    if (rc) {
        metric_add(METRIC_CACHE_DROPPED, 1);
        give_up(s, &e);
    }
}

void cache_file_commit(struct cache_file *s)
{
    struct err e = {0};
    int rc;

    if (!s->is_writing)
        return;
    db_bind_int(s->stmts[S_TOTAL], 1, s->n);
    db_bind_int(s->stmts[S_TOTAL], 2, s->bytes);
    rc = db_run(s->stmts[S_TOTAL], &e);
    rc = rc ? rc : db_commit(s->db, &e);
    if (rc) {
        give_up(s, &e);
        return;
    }
    s->is_writing = s->is_fault_logged = false;
    tell_totals(s);
}

/* ---- from outside ---- */

void cache_file_init(struct cache_file *s, const char *dataz, int64_t ttl_s, int64_t max_bytes)
{
    *s = (struct cache_file){.ttl_ms = ttl_s * 1000, .max_bytes = max_bytes};
    snprintf(s->path, sizeof s->path, "%s/" FILE_NAME, dataz);
}

bool cache_file_is_there(const struct cache_file *s)
{
    return access(s->path, F_OK) == 0;
}

void cache_file_open(struct cache_file *s)
{
    is_open(s);
}

void cache_file_close(struct cache_file *s)
{
    cache_file_commit(s);
    close_file(s);
}
