/* SQLite (this file's .c is the only includer of sqlite3.h): connections, prepared statements, and
 * error text. A connection belongs to one thread at a time. */
#pragma once
#include "base/err.h"
#include "base/str.h"

struct db;
struct db_stmt;

enum db_mode {
    DB_WRITE,       /* creates the file; WAL; synchronous FULL */
    DB_WRITE_NORMAL, /* the same with synchronous NORMAL: safe against crashes, not power cuts */
    DB_READ,        /* read only; the file must be there */
    DB_TEMP,        /* a private file that goes with the connection; path unused */
};

/* Opens pathz. Settings: WAL, busy timeout 5 s, cache_kib of page cache, journal_size_limit 64 MiB,
 * foreign keys off, trusted_schema off. A file of no bytes counts as new. ERR_CORRUPT when the
 * file is no SQLite database, fails its header checks, or is empty beside a write-ahead log that is
 * not (all left untouched), ERR_NOT_FOUND (its directory; DB_READ: itself), ERR_BUSY, ERR_IO,
 * ERR_FULL (no room). */
int db_open(const char *pathz, enum db_mode mode, int cache_kib, struct db **out, struct err *e);
/* Has the file no more than its first page, which holds no table? One whose maker was killed has a
 * journal too, that DB_READ may not roll back (ERR_IO). */
bool db_is_newborn(const char *pathz);
void db_close(struct db *db); /* finalizes what db_prepare gave; NULL allowed */

/* Runs statements that return no rows. */
int db_exec(struct db *db, const char *sqlz, struct err *e);

/* Prepares a statement that lives until db_close. Wrong SQL, or a file without our tables, is
 * ERR_INTERNAL. */
int db_prepare(struct db *db, const char *sqlz, struct db_stmt **out, struct err *e);

/* Binding, from 1. Bytes are borrowed until db_reset. A str with p == NULL binds NULL. */
void db_bind_int(struct db_stmt *s, int at, int64_t v);
void db_bind_real(struct db_stmt *s, int at, double v);
void db_bind_text(struct db_stmt *s, int at, struct str v);
void db_bind_blob(struct db_stmt *s, int at, struct str v);
void db_bind_null(struct db_stmt *s, int at);

/* 1: a row stands ready; 0: done; negative: ERR_FULL (disk or quota), ERR_IO, ERR_CORRUPT,
 * ERR_BUSY, ERR_CONFLICT (constraint), ERR_TIMEOUT (a reader's step limit), ERR_TOO_LARGE (a value
 * bound). After an error db_reset, as always. */
int db_step(struct db_stmt *s, struct err *e);
/* Steps a statement that returns no row, then resets it. 0 or negative. */
int db_run(struct db_stmt *s, struct err *e);
void db_reset(struct db_stmt *s);

/* Columns of the row, from 0; text and blobs are valid until the next step or reset. */
int64_t db_int(struct db_stmt *s, int at);
double db_real(struct db_stmt *s, int at);
struct str db_text(struct db_stmt *s, int at); /* NULL gives STR_NONE */
struct str db_blob(struct db_stmt *s, int at);
bool db_is_null(struct db_stmt *s, int at);

int64_t db_changes(struct db *db);
int64_t db_last_rowid(struct db *db);
/* BEGIN IMMEDIATE (readers: BEGIN), COMMIT (durable as the mode says), ROLLBACK. */
int db_begin(struct db *db, struct err *e);
int db_commit(struct db *db, struct err *e);
void db_rollback(struct db *db);
/* Ends a statement that runs longer than ms (0: no limit) with ERR_TIMEOUT. For readers. */
void db_set_step_limit(struct db *db, int64_t ms);
/* Pages in the write-ahead log that a checkpoint has not moved yet, as of this connection's last
 * commit. */
int db_wal_pages(const struct db *db);
/* PASSIVE or, when is_truncate, TRUNCATE checkpoint of the WAL. Gives the WAL file's size in bytes
 * before (NULL allowed). ERR_BUSY when readers were in its way for 100 ms; try later. */
int db_checkpoint(struct db *db, bool is_truncate, int64_t *wal_bytes, struct err *e);
