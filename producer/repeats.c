#include "producer/repeats.h"
#include "base/buf.h"
#include "base/db.h"
#include <stdlib.h>

#define CACHE_KIB 2048

struct repeats {
    struct db *db;
    struct db_stmt *add, *raise, *count;
};

struct repeats *repeats_new(struct err *e)
{
    struct repeats *r = xcalloc(1, sizeof *r);

    if (db_open("", DB_TEMP, CACHE_KIB, &r->db, e) == 0 &&
        db_exec(r->db, "CREATE TABLE line(hash INTEGER PRIMARY KEY, n INTEGER NOT NULL); BEGIN",
                e) == 0 &&
        db_prepare(r->db, "INSERT OR IGNORE INTO line VALUES(?1, 0)", &r->add, e) == 0 &&
        db_prepare(r->db, "UPDATE line SET n = n + 1 WHERE hash = ?1", &r->raise, e) == 0 &&
        db_prepare(r->db, "SELECT n FROM line WHERE hash = ?1", &r->count, e) == 0)
        return r;
    repeats_free(r);
    return NULL;
}

void repeats_free(struct repeats *r)
{
    db_close(r->db);
    free(r);
}

int64_t repeats_next(struct repeats *r, uint64_t hash, struct err *e)
{
    int64_t n;
    int rc;

    /* Nearly all lines are new: they cost this one statement. */
    db_bind_int(r->add, 1, (int64_t)hash);
    if ((rc = db_run(r->add, e)) < 0)
        return rc;
    if (db_changes(r->db) > 0)
        return 0;
    db_bind_int(r->raise, 1, (int64_t)hash);
    if ((rc = db_run(r->raise, e)) < 0)
        return rc;
    db_bind_int(r->count, 1, (int64_t)hash);
    n = db_step(r->count, e);
    if (n > 0)
        n = db_int(r->count, 0);
    db_reset(r->count);
    return n;
}
