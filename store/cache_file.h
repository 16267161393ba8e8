/* The file of cached answers, and what it holds: at most max_bytes, each for ttl. Nothing here
 * fails: what cannot be read is not there, what cannot be written is dropped, and the log says so.
 * One thread.
 */
#pragma once
#include "base/db.h"
#include "base/sha256.h"

enum { CACHE_FILE_PATH_BYTES = 4200, CACHE_FILE_STMTS = 6 };

struct cache_file {
    char path[CACHE_FILE_PATH_BYTES];
    int64_t ttl_ms, max_bytes;
    struct db *db; /* NULL: not open */
    struct db_stmt *stmts[CACHE_FILE_STMTS];
    int64_t n, bytes; /* rows, and what they take */
    int64_t retry_ms; /* not to be opened before */
    bool is_writing;  /* in a transaction */
    bool is_fault_logged;
};

void cache_file_init(struct cache_file *s, const char *dataz, int64_t ttl_s, int64_t max_bytes);
bool cache_file_is_there(const struct cache_file *s);
/* Opens it now, or makes it; else the first of the next two does. */
void cache_file_open(struct cache_file *s);
/* Gives a copy (free p), or STR_NONE. Sees what is not committed yet. */
struct str cache_file_get(struct cache_file *s, const uint8_t key[SHA256_LEN]);
/* Keeps it with the next commit, and drops what is too old or too much for it. */
void cache_file_put(struct cache_file *s, const uint8_t key[SHA256_LEN], struct str output);
/* Ends the transaction that puts began. Not synced: a killed process loses nothing, a power cut
 * may take the last ones. */
void cache_file_commit(struct cache_file *s);
void cache_file_close(struct cache_file *s);
