/* SQLite behind db.h. Nothing is changed in a file before it is known to be ours to change: its
 * header is read by hand first, then SQLite reads the schema with checkpoints on close off. */
#include "base/db.h"
#include "base/buf.h"
#include "base/clock.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_MS 5000
#define CHECKPOINT_BUSY_MS 100 /* a truncating checkpoint waits for readers: not for long */
#define JOURNAL_BYTES "67108864"
#define HEADER_BYTES 100
#define WAL_HEADER_BYTES 32
#define WAL_PAGES 1000 /* a commit that leaves more does a checkpoint */
#define PROGRESS_OPS 4096 /* virtual machine steps between two looks at the clock */

struct db_stmt {
    sqlite3_stmt *raw;
    struct db *db;
    struct db_stmt *next;
    int64_t deadline_ms; /* of the running statement, monotonic; 0: none */
    int bind_rc;         /* first failure of a bind since the last reset */
};

struct db {
    sqlite3 *raw;
    struct db_stmt *stmts;
    struct db_stmt *begin, *commit;
    int64_t limit_ms;    /* of a statement; 0: none */
    int64_t deadline_ms; /* of the statement that is being stepped; 0: none */
    int wal_pages;
};

/* ---- errors ---- */

static bool is_no_room(int os_errno)
{
    return os_errno == ENOSPC || os_errno == EDQUOT || os_errno == EFBIG;
}

/* SQLite notes the errno of some failures; saved_errno, cleared before the call, has the rest. */
static int code_of(sqlite3 *raw, int rc, int saved_errno)
{
    int os_errno = raw && sqlite3_system_errno(raw) ? sqlite3_system_errno(raw) : saved_errno;

    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_FULL;
    case SQLITE_IOERR:
        return is_no_room(os_errno) ? ERR_FULL : ERR_IO;
    case SQLITE_CANTOPEN:
        return is_no_room(os_errno) ? ERR_FULL : os_errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return ERR_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_CONSTRAINT:
        return ERR_CONFLICT;
    case SQLITE_INTERRUPT:
        return ERR_TIMEOUT;
    case SQLITE_TOOBIG:
        return ERR_TOO_LARGE;
    default:
        return ERR_INTERNAL;
    }
}

static int fail(sqlite3 *raw, int rc, struct err *e)
{
    int code = code_of(raw, rc, errno);

    if ((rc & 0xff) == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM)
        abort(); /* as everywhere: allocation failure ends the process */
    if (raw && (sqlite3_extended_errcode(raw) & 0xff) == (rc & 0xff))
        return err_set(e, code, "sqlite: %s (%d)", sqlite3_errmsg(raw), rc);
    return err_set(e, code, "sqlite: %s (%d)", sqlite3_errstr(rc), rc);
}

/* ---- looking at a file before opening it ---- */

static int64_t size_beside(const char *pathz, const char *suffixz)
{
    struct buf b;
    struct stat st;
    int64_t size = 0;

    buf_init(&b, 1 << 16);
    if (buf_addf(&b, "%s%s", pathz, suffixz) == 0 && stat(b.p, &st) == 0)
        size = st.st_size;
    buf_release(&b);
    return size;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The 100-byte header of sqlite.org/fileformat2.html, section 1.3. */
static int64_t page_bytes(const unsigned char *h)
{
    int64_t page = h[16] << 8 | h[17];

    return page == 1 ? 65536 : page;
}

static bool is_header_sane(const unsigned char *h, int64_t file_bytes, bool has_log)
{
    int64_t page = page_bytes(h);

    if (memcmp(h, "SQLite format 3", 16) != 0)
        return false;
    if (page < 512 || (page & (page - 1)) != 0 || h[18] < 1 || h[18] > 2 || h[19] < 1 || h[19] > 2)
        return false;
    if (h[21] != 64 || h[22] != 32 || h[23] != 32 || file_bytes < page)
        return false;
    /* A log beside the file may still hold pages that the header counts. */
    return has_log || be32(h + 24) != be32(h + 92) || file_bytes >= page * (int64_t)be32(h + 28);
}

static int check_empty(const char *pathz, struct err *e)
{
    /* SQLite would delete a log beside an empty file, and with it what was committed there. */
    if (size_beside(pathz, "-wal") > WAL_HEADER_BYTES)
        return err_set(e, ERR_CORRUPT, "%s: empty, but its write-ahead log is not", pathz);
    return 0;
}

static int check_file(const char *pathz, bool must_exist, struct err *e)
{
    unsigned char header[HEADER_BYTES];
    struct stat st;
    ssize_t n;
    int fd = open(pathz, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && !must_exist)
        return check_empty(pathz, e);
    if (fd < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", pathz,
                       strerror(errno));
    n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? pread(fd, header, sizeof header, 0) : -1;
    close(fd);
    if (n < 0)
        return err_set(e, ERR_IO, "%s: not a readable file", pathz);
    if (st.st_size == 0)
        return check_empty(pathz, e);
    if (n < HEADER_BYTES ||
        !is_header_sane(header, st.st_size,
                        size_beside(pathz, "-wal") > 0 || size_beside(pathz, "-journal") > 0))
        return err_set(e, ERR_CORRUPT, "%s: not a SQLite database, or cut short", pathz);
    return 0;
}

bool db_is_newborn(const char *pathz)
{
    unsigned char header[HEADER_BYTES];
    struct stat st;
    int fd = open(pathz, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 && fstat(fd, &st) == 0 ? pread(fd, header, sizeof header, 0) : -1;

    if (fd >= 0)
        close(fd);
    return n >= 0 && (n < HEADER_BYTES || st.st_size <= page_bytes(header));
}

/* ---- opening ---- */

static void configure(struct db *db)
{
    sqlite3_extended_result_codes(db->raw, 1);
    sqlite3_busy_timeout(db->raw, BUSY_MS);
    sqlite3_db_config(db->raw, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db->raw, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db->raw, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    sqlite3_db_config(db->raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

static int set_wal(struct db *db, struct err *e)
{
    struct db_stmt *s;
    int rc = db_prepare(db, "PRAGMA journal_mode=WAL", &s, e);

    if (rc == 0 && (rc = db_step(s, e)) > 0)
        rc = str_eq(db_text(s, 0), STR("wal"))
                 ? 0
                 : err_set(e, ERR_IO, "sqlite: no write-ahead log in this place");
    if (rc == 0)
        db_reset(s);
    return rc;
}

static int on_commit(void *data, sqlite3 *raw, const char *namez, int n_pages)
{
    ((struct db *)data)->wal_pages = n_pages;
    if (n_pages >= WAL_PAGES)
        sqlite3_wal_checkpoint_v2(raw, namez, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    return SQLITE_OK;
}

/* The last settings; after them the connection may write, and checkpoint when it closes. */
static int apply_settings(struct db *db, enum db_mode mode, int cache_kib, struct err *e)
{
    static const char *const synchronous[] = {
        [DB_WRITE] = "PRAGMA synchronous=FULL",
        [DB_WRITE_NORMAL] = "PRAGMA synchronous=NORMAL",
        [DB_READ] = "PRAGMA query_only=ON",
        [DB_TEMP] = "PRAGMA synchronous=OFF",
    };
    struct buf b;
    int rc = 0;

    buf_init(&b, 256);
    buf_addf(&b, "PRAGMA mmap_size=0; PRAGMA foreign_keys=OFF; "
                 "PRAGMA journal_size_limit=" JOURNAL_BYTES "; %s; ",
             synchronous[mode]);
    if (cache_kib > 0)
        buf_addf(&b, "PRAGMA cache_size=-%d; ", cache_kib);
    if (mode == DB_WRITE || mode == DB_WRITE_NORMAL) {
        rc = db_exec(db, "PRAGMA page_size=8192", e);
        rc = rc ? rc : set_wal(db, e);
        sqlite3_wal_hook(db->raw, on_commit, db);
    }
    rc = rc ? rc : db_exec(db, b.p, e);
    buf_release(&b);
    if (rc == 0)
        sqlite3_db_config(db->raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return rc;
}

/* Memory statistics cost a lock at every allocation of every connection, and nobody reads them. */
static void set_up_library(void)
{
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static int open_raw(struct db *db, const char *pathz, enum db_mode mode, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int flags = mode == DB_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int rc;

    pthread_once(&once, set_up_library);
    rc = sqlite3_open_v2(mode == DB_TEMP ? "" : pathz, &db->raw, flags | SQLITE_OPEN_NOMUTEX,
                             NULL);

    if (rc != SQLITE_OK)
        return fail(db->raw, rc, e);
    configure(db);
    /* The first statements to touch the file only read it: page 1, then every schema row. */
    return db_exec(db, "PRAGMA schema_version; SELECT count(*) FROM sqlite_schema", e);
}

int db_open(const char *pathz, enum db_mode mode, int cache_kib, struct db **out, struct err *e)
{
    struct db *db = xcalloc(1, sizeof *db);
    const char *beginz = mode == DB_READ ? "BEGIN" : "BEGIN IMMEDIATE";
    int rc = mode == DB_TEMP ? 0 : check_file(pathz, mode == DB_READ, e);

    if (rc == 0 && (rc = open_raw(db, pathz, mode, e)) == 0)
        rc = apply_settings(db, mode, cache_kib, e);
    if (rc == 0)
        rc = db_prepare(db, beginz, &db->begin, e);
    if (rc == 0)
        rc = db_prepare(db, "COMMIT", &db->commit, e);
    if (rc == 0) {
        *out = db;
        return 0;
    }
    if (mode != DB_TEMP && e && !strstr(e->msg, pathz))
        err_prefix(e, "%s", pathz);
    db_close(db);
    return rc;
}

void db_close(struct db *db)
{
    sqlite3_stmt *raw;
    struct db_stmt *s;

    if (!db)
        return;
    while (db->raw && (raw = sqlite3_next_stmt(db->raw, NULL)))
        sqlite3_finalize(raw);
    while ((s = db->stmts)) {
        db->stmts = s->next;
        free(s);
    }
    sqlite3_close(db->raw);
    free(db);
}

/* ---- statements ---- */

int db_exec(struct db *db, const char *sqlz, struct err *e)
{
    int rc;

    db->deadline_ms = db->limit_ms ? clock_mono_ms() + db->limit_ms : 0;
    errno = 0;
    rc = sqlite3_exec(db->raw, sqlz, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(db->raw, rc, e);
}

int db_prepare(struct db *db, const char *sqlz, struct db_stmt **out, struct err *e)
{
    struct db_stmt *s;
    sqlite3_stmt *raw;
    int rc;

    errno = 0;
    rc = sqlite3_prepare_v3(db->raw, sqlz, -1, SQLITE_PREPARE_PERSISTENT, &raw, NULL);

    if (rc != SQLITE_OK)
        return fail(db->raw, rc, e);
    assert(raw); /* an empty statement is our bug */
    s = xcalloc(1, sizeof *s);
    s->raw = raw;
    s->db = db;
    s->next = db->stmts;
    db->stmts = s;
    *out = s;
    return 0;
}

/* A bind fails for a value above SQLite's limit, which the next step reports, or by our bug. */
static void note_bind(struct db_stmt *s, int rc)
{
    assert(rc == SQLITE_OK || rc == SQLITE_TOOBIG || rc == SQLITE_NOMEM);
    if (rc != SQLITE_OK && s->bind_rc == SQLITE_OK)
        s->bind_rc = rc;
}

void db_bind_int(struct db_stmt *s, int at, int64_t v)
{
    note_bind(s, sqlite3_bind_int64(s->raw, at, v));
}

void db_bind_real(struct db_stmt *s, int at, double v)
{
    note_bind(s, sqlite3_bind_double(s->raw, at, v));
}

void db_bind_text(struct db_stmt *s, int at, struct str v)
{
    note_bind(s, sqlite3_bind_text64(s->raw, at, v.p, v.n, SQLITE_STATIC, SQLITE_UTF8));
}

void db_bind_blob(struct db_stmt *s, int at, struct str v)
{
    note_bind(s, sqlite3_bind_blob64(s->raw, at, v.p, v.n, SQLITE_STATIC));
}

void db_bind_null(struct db_stmt *s, int at)
{
    note_bind(s, sqlite3_bind_null(s->raw, at));
}

int db_step(struct db_stmt *s, struct err *e)
{
    struct db *db = s->db;
    int rc;

    if (s->bind_rc != SQLITE_OK)
        return fail(NULL, s->bind_rc, e);
    if (!db->limit_ms)
        s->deadline_ms = 0;
    else if (!sqlite3_stmt_busy(s->raw))
        s->deadline_ms = clock_mono_ms() + db->limit_ms;
    db->deadline_ms = s->deadline_ms;
    errno = 0;
    rc = sqlite3_step(s->raw);
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : fail(db->raw, rc, e);
}

int db_run(struct db_stmt *s, struct err *e)
{
    int rc = db_step(s, e);

    db_reset(s);
    return rc > 0 ? err_set(e, ERR_INTERNAL, "sqlite: a row where none was expected") : rc;
}

void db_reset(struct db_stmt *s)
{
    sqlite3_reset(s->raw); /* repeats the step's error: told already */
    s->bind_rc = SQLITE_OK;
}

int64_t db_int(struct db_stmt *s, int at)
{
    return sqlite3_column_int64(s->raw, at);
}

double db_real(struct db_stmt *s, int at)
{
    return sqlite3_column_double(s->raw, at);
}

struct str db_text(struct db_stmt *s, int at)
{
    const unsigned char *p = sqlite3_column_text(s->raw, at);

    return p ? str_of(p, (size_t)sqlite3_column_bytes(s->raw, at)) : STR_NONE;
}

struct str db_blob(struct db_stmt *s, int at)
{
    const void *p = sqlite3_column_blob(s->raw, at);

    if (!p) /* SQLite gives NULL for an empty blob too */
        return db_is_null(s, at) ? STR_NONE : STR("");
    return str_of(p, (size_t)sqlite3_column_bytes(s->raw, at));
}

bool db_is_null(struct db_stmt *s, int at)
{
    return sqlite3_column_type(s->raw, at) == SQLITE_NULL;
}

/* ---- connections ---- */

int64_t db_changes(struct db *db)
{
    return sqlite3_changes64(db->raw);
}

int64_t db_last_rowid(struct db *db)
{
    return sqlite3_last_insert_rowid(db->raw);
}

int db_begin(struct db *db, struct err *e)
{
    return db_run(db->begin, e);
}

int db_commit(struct db *db, struct err *e)
{
    return db_run(db->commit, e);
}

void db_rollback(struct db *db)
{
    if (!sqlite3_get_autocommit(db->raw)) /* SQLite may have rolled back by itself */
        sqlite3_exec(db->raw, "ROLLBACK", NULL, NULL, NULL);
}

static int on_progress(void *data)
{
    struct db *db = data;

    return db->deadline_ms && clock_mono_ms() >= db->deadline_ms;
}

void db_set_step_limit(struct db *db, int64_t ms)
{
    db->limit_ms = ms;
    sqlite3_progress_handler(db->raw, ms ? PROGRESS_OPS : 0, ms ? on_progress : NULL, db);
}

int db_wal_pages(const struct db *db)
{
    return db->wal_pages;
}

int db_checkpoint(struct db *db, bool is_truncate, int64_t *wal_bytes, struct err *e)
{
    const char *namez = sqlite3_db_filename(db->raw, "main");
    int mode = is_truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
    int rc, n_pages = 0, n_moved = 0;

    if (wal_bytes)
        *wal_bytes = namez && *namez ? size_beside(namez, "-wal") : 0;
    sqlite3_busy_timeout(db->raw, CHECKPOINT_BUSY_MS);
    errno = 0;
    rc = sqlite3_wal_checkpoint_v2(db->raw, "main", mode, &n_pages, &n_moved);
    sqlite3_busy_timeout(db->raw, BUSY_MS);
    if (rc != SQLITE_OK)
        return fail(db->raw, rc, e);
    db->wal_pages = n_pages > n_moved ? n_pages - n_moved : 0;
    return 0;
}
