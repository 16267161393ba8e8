/* The store's tables (DDL) and their migrations, in the one database file of a data directory. The
 * file is marked with application_id 0x67656e71 ("genq") and PRAGMA user_version. */
#pragma once
#include "base/db.h"

#define DB_FILE "genq.db" /* its name in the data directory */

/* Creates or upgrades the tables. ERR_CORRUPT, with the file untouched, when it is some other
 * program's database or from a newer genq. */
int schema_migrate(struct db *db, struct err *e);

/* Opens `pathz` for writing (mode DB_WRITE or DB_WRITE_NORMAL), made if it is not there, with its
 * tables up to date. A file that is not ours, or from a newer genq, stays as it is: ERR_CORRUPT. */
int schema_open(const char *pathz, enum db_mode mode, int cache_kib, struct db **out,
                struct err *e);

/* The same judgement alone; writes nothing. 0 when the file is empty or ours. For a look through a
 * DB_READ connection before DB_WRITE, which turns any SQLite file to WAL as it opens it. */
int schema_check(struct db *db, struct err *e);
