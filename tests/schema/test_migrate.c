#include "schema/migrate.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <unistd.h>

static struct db *open_db(enum db_mode mode)
{
    struct db *db = NULL;
    struct err e = {0};

    CHECK_INT(db_open(DB_FILE, mode, 256, &db, &e), 0);
    return db;
}

static int64_t one_int(struct db *db, const char *sqlz)
{
    struct db_stmt *s;
    int64_t v;

    CHECK_INT(db_prepare(db, sqlz, &s, NULL), 0);
    CHECK_INT(db_step(s, NULL), 1);
    v = db_int(s, 0);
    db_reset(s);
    return v;
}

TEST(new_file_gets_the_tables_and_the_mark)
{
    struct db *db = open_db(DB_WRITE);

    CHECK_INT(schema_check(db, NULL), 0);
    CHECK_INT(schema_migrate(db, NULL), 0);
    CHECK_INT(one_int(db, "PRAGMA application_id"), 0x67656e71);
    CHECK_INT(one_int(db, "PRAGMA user_version"), 2);
    CHECK_INT(one_int(db, "SELECT count(*) FROM job"), 0);
    CHECK_INT(one_int(db, "SELECT count(*) FROM fact"), 2);
    db_close(db);
}

TEST(second_time_changes_nothing)
{
    struct db *db = open_db(DB_WRITE);
    int64_t version;

    CHECK_INT(schema_migrate(db, NULL), 0);
    version = one_int(db, "PRAGMA schema_version");
    CHECK_INT(schema_migrate(db, NULL), 0);
    CHECK_INT(one_int(db, "PRAGMA schema_version"), version);
    db_close(db);
    db = open_db(DB_READ);
    CHECK_INT(schema_check(db, NULL), 0);
    CHECK_INT(schema_migrate(db, NULL), 0);
    db_close(db);
}

TEST(no_transaction_or_statement_is_left_open)
{
    struct db *db = open_db(DB_WRITE), *other;

    CHECK_INT(schema_migrate(db, NULL), 0);
    other = open_db(DB_WRITE);
    CHECK_INT(db_begin(other, NULL), 0);
    CHECK_INT(db_exec(other, "UPDATE fact SET value=1", NULL), 0);
    CHECK_INT(db_commit(other, NULL), 0);
    CHECK_INT(one_int(db, "SELECT sum(value) FROM fact"), 2);
    db_close(other);
    db_close(db);
}

TEST(foreign_database_is_refused_untouched)
{
    struct db *db = open_db(DB_WRITE);
    struct err e = {0};

    CHECK_INT(db_exec(db, "CREATE TABLE cake(n INT)", NULL), 0);
    CHECK_INT(schema_migrate(db, &e), ERR_CORRUPT);
    CHECK(strstr(e.msg, "another program"));
    CHECK_INT(one_int(db, "SELECT count(*) FROM sqlite_schema"), 1);
    CHECK_INT(one_int(db, "PRAGMA application_id"), 0);
    db_close(db);
}

TEST(foreign_mark_is_refused)
{
    struct db *db = open_db(DB_WRITE);

    CHECK_INT(db_exec(db, "PRAGMA application_id=77", NULL), 0);
    CHECK_INT(schema_check(db, NULL), ERR_CORRUPT);
    CHECK_INT(schema_migrate(db, NULL), ERR_CORRUPT);
    db_close(db);
}

TEST(newer_file_is_refused_untouched)
{
    struct db *db = open_db(DB_WRITE);
    struct err e = {0};

    CHECK_INT(schema_migrate(db, NULL), 0);
    CHECK_INT(db_exec(db, "PRAGMA user_version=1000", NULL), 0);
    CHECK_INT(schema_migrate(db, &e), ERR_CORRUPT);
    CHECK(strstr(e.msg, "newer"));
    CHECK_INT(one_int(db, "PRAGMA user_version"), 1000);
    db_close(db);
}

TEST(half_made_upgrade_leaves_nothing)
{
    struct db *db = open_db(DB_WRITE);

    /* Marked as ours, at version 0, with a table in the way of the first migration. */
    CHECK_INT(db_exec(db, "PRAGMA application_id=1734700657; CREATE TABLE call(n INT)", NULL), 0);
    CHECK(schema_migrate(db, NULL) < 0);
    CHECK_INT(one_int(db, "SELECT count(*) FROM sqlite_schema"), 1);
    CHECK_INT(one_int(db, "PRAGMA user_version"), 0);
    CHECK_INT(db_begin(db, NULL), 0);
    CHECK_INT(db_commit(db, NULL), 0);
    db_close(db);
}
