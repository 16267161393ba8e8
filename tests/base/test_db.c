#include "base/db.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct db *open_ok(const char *pathz, enum db_mode mode)
{
    struct db *db = NULL;
    struct err e = {0};

    CHECK_INT(db_open(pathz, mode, 256, &db, &e), 0);
    CHECK_STR(str_z(e.msg), "");
    return db;
}

static struct db_stmt *prepare_ok(struct db *db, const char *sqlz)
{
    struct db_stmt *s = NULL;

    CHECK_INT(db_prepare(db, sqlz, &s, NULL), 0);
    return s;
}

static int64_t one_int(struct db *db, const char *sqlz)
{
    struct db_stmt *s = prepare_ok(db, sqlz);
    int64_t v;

    CHECK_INT(db_step(s, NULL), 1);
    v = db_int(s, 0);
    db_reset(s);
    return v;
}

static void write_file(const char *namez, const void *p, size_t n)
{
    int fd = open(namez, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    CHECK_INT(write(fd, p, n), (ssize_t)n);
    close(fd);
}

static size_t read_all(const char *namez, char *dst, size_t room)
{
    int fd = open(namez, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, dst, room);

    CHECK(n >= 0);
    close(fd);
    return (size_t)n;
}

static void check_refused(const char *namez, int code)
{
    static char before[1 << 20], after[1 << 20];
    size_t n = read_all(namez, before, sizeof before);
    struct db *db = NULL;
    struct err e = {0};

    CHECK_INT(db_open(namez, DB_WRITE, 0, &db, &e), code);
    CHECK(db == NULL);
    CHECK(strstr(e.msg, namez) != NULL);
    CHECK_INT(read_all(namez, after, sizeof after), n);
    CHECK(memcmp(before, after, n) == 0);
}

TEST(values_come_back_as_bound)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *put, *get;

    CHECK_INT(db_exec(db, "CREATE TABLE t(i, r, x, b, n, e)", NULL), 0);
    put = prepare_ok(db, "INSERT INTO t VALUES(?,?,?,?,?,?)");
    db_bind_int(put, 1, INT64_MIN);
    db_bind_real(put, 2, 0.5);
    db_bind_text(put, 3, STR("h\xc3\xa9"));
    db_bind_blob(put, 4, STR("a\0b"));
    db_bind_text(put, 5, STR_NONE);
    db_bind_blob(put, 6, STR(""));
    CHECK_INT(db_run(put, NULL), 0);
    CHECK_INT(db_changes(db), 1);
    CHECK_INT(db_last_rowid(db), 1);
    get = prepare_ok(db, "SELECT * FROM t");
    CHECK_INT(db_step(get, NULL), 1);
    CHECK(db_int(get, 0) == INT64_MIN);
    CHECK(db_real(get, 1) >= 0.5 && db_real(get, 1) <= 0.5);
    CHECK(str_eq(db_text(get, 2), STR("h\xc3\xa9")));
    CHECK(str_eq(db_blob(get, 3), STR("a\0b")));
    CHECK(db_is_null(get, 4) && db_text(get, 4).p == NULL && db_blob(get, 4).p == NULL);
    CHECK(!db_is_null(get, 5) && db_blob(get, 5).p != NULL && db_blob(get, 5).n == 0);
    CHECK_INT(db_step(get, NULL), 0);
    db_close(db);
}

TEST(settings_are_as_documented)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *s = prepare_ok(db, "PRAGMA journal_mode");

    CHECK_INT(db_step(s, NULL), 1);
    CHECK(str_eq(db_text(s, 0), STR("wal")));
    CHECK_INT(one_int(db, "PRAGMA synchronous"), 2);
    CHECK_INT(one_int(db, "PRAGMA page_size"), 8192);
    CHECK_INT(one_int(db, "PRAGMA cache_size"), -256);
    CHECK_INT(one_int(db, "PRAGMA journal_size_limit"), 64 << 20);
    CHECK_INT(one_int(db, "PRAGMA foreign_keys"), 0);
    CHECK_INT(one_int(db, "PRAGMA trusted_schema"), 0);
    db_close(db);
    db = open_ok("a.db", DB_WRITE_NORMAL);
    CHECK_INT(one_int(db, "PRAGMA synchronous"), 1);
    db_close(db);
    db_close(NULL);
}

TEST(transactions_commit_and_roll_back)
{
    struct db *db = open_ok("a.db", DB_WRITE);

    CHECK_INT(db_exec(db, "CREATE TABLE t(i INTEGER PRIMARY KEY)", NULL), 0);
    CHECK_INT(db_begin(db, NULL), 0);
    CHECK_INT(db_exec(db, "INSERT INTO t VALUES(1)", NULL), 0);
    CHECK_INT(db_commit(db, NULL), 0);
    CHECK_INT(db_begin(db, NULL), 0);
    CHECK_INT(db_exec(db, "INSERT INTO t VALUES(2)", NULL), 0);
    db_rollback(db);
    db_rollback(db); /* nothing to do is fine */
    db_close(db);
    db = open_ok("a.db", DB_READ);
    CHECK_INT(db_begin(db, NULL), 0);
    CHECK_INT(one_int(db, "SELECT count(*) FROM t"), 1);
    CHECK_INT(db_commit(db, NULL), 0);
    CHECK(db_exec(db, "INSERT INTO t VALUES(3)", NULL) < 0);
    db_close(db);
}

TEST(constraint_is_conflict)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *put;
    struct err e = {0};

    CHECK_INT(db_exec(db, "CREATE TABLE t(k TEXT UNIQUE)", NULL), 0);
    put = prepare_ok(db, "INSERT INTO t VALUES(?)");
    db_bind_text(put, 1, STR("k"));
    CHECK_INT(db_run(put, NULL), 0);
    db_bind_text(put, 1, STR("k"));
    CHECK_INT(db_run(put, &e), ERR_CONFLICT);
    CHECK(strstr(e.msg, "UNIQUE") != NULL);
    db_bind_text(put, 1, STR("l"));
    CHECK_INT(db_run(put, NULL), 0);
    db_close(db);
}

TEST(wrong_sql_is_an_error)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *s = NULL;

    CHECK_INT(db_prepare(db, "SELECT * FROM nothing_there", &s, NULL), ERR_INTERNAL);
    CHECK_INT(db_exec(db, "SELEC", NULL), ERR_INTERNAL);
    s = prepare_ok(db, "SELECT 1");
    CHECK_INT(db_run(s, NULL), ERR_INTERNAL); /* a row nobody wants */
    db_close(db);
}

TEST(value_above_the_limit_is_too_large)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *put;

    CHECK_INT(db_exec(db, "CREATE TABLE t(b)", NULL), 0);
    put = prepare_ok(db, "INSERT INTO t VALUES(?)");
    db_bind_blob(put, 1, str_of("", (size_t)3 << 30)); /* refused before it is read */
    CHECK_INT(db_run(put, NULL), ERR_TOO_LARGE);
    db_bind_blob(put, 1, STR("x"));
    CHECK_INT(db_run(put, NULL), 0);
    db_close(db);
}

TEST(missing_file)
{
    struct db *db = NULL;

    CHECK_INT(db_open("none.db", DB_READ, 0, &db, NULL), ERR_NOT_FOUND);
    CHECK_INT(db_open("no/dir/a.db", DB_WRITE, 0, &db, NULL), ERR_NOT_FOUND);
    CHECK_INT(db_open(".", DB_WRITE, 0, &db, NULL), ERR_IO);
    CHECK(access("none.db", F_OK) != 0);
}

TEST(empty_file_is_new)
{
    write_file("a.db", "", 0);
    db_close(open_ok("a.db", DB_WRITE));
}

TEST(foreign_and_short_files_are_left_alone)
{
    char text[9000];

    memset(text, 'x', sizeof text);
    write_file("text", text, sizeof text);
    check_refused("text", ERR_CORRUPT);
    write_file("short", "SQLite format 3", 16);
    check_refused("short", ERR_CORRUPT);
    memcpy(text, "SQLite format 3", 16);
    write_file("magic", text, sizeof text);
    check_refused("magic", ERR_CORRUPT);
}

static size_t make_db(const char *namez, char *dst, size_t room)
{
    struct db *db = open_ok(namez, DB_WRITE);

    CHECK_INT(db_exec(db, "CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(50000))", NULL), 0);
    db_close(db);
    return read_all(namez, dst, room);
}

TEST(damaged_databases_are_left_alone)
{
    static char bytes[1 << 20];
    size_t n = make_db("a.db", bytes, sizeof bytes);

    CHECK(n > 50000);
    write_file("cut.db", bytes, 8192);
    check_refused("cut.db", ERR_CORRUPT);
    memset(bytes + 100, 0xff, 8092); /* the schema's page */
    write_file("schema.db", bytes, n);
    check_refused("schema.db", ERR_CORRUPT);
}

TEST(log_without_its_database_is_kept)
{
    char wal[8192 + 56] = {0};

    write_file("a.db", "", 0);
    write_file("a.db-wal", wal, sizeof wal);
    check_refused("a.db", ERR_CORRUPT);
    CHECK_INT(unlink("a.db"), 0);
    CHECK_INT(db_open("a.db", DB_WRITE, 0, &(struct db *){NULL}, NULL), ERR_CORRUPT);
    CHECK_INT(access("a.db-wal", F_OK), 0);
}

TEST(log_is_recovered_after_a_kill)
{
    static char bytes[1 << 20];
    struct db *db = open_ok("a.db", DB_WRITE);
    size_t n, n_wal;

    CHECK_INT(db_exec(db, "CREATE TABLE t(i); INSERT INTO t VALUES(7)", NULL), 0);
    n = read_all("a.db", bytes, sizeof bytes);
    write_file("b.db", bytes, n); /* as a kill would leave both */
    n_wal = read_all("a.db-wal", bytes, sizeof bytes);
    CHECK(n_wal > 8192);
    write_file("b.db-wal", bytes, n_wal);
    db_close(db);
    db = open_ok("b.db", DB_WRITE);
    CHECK_INT(one_int(db, "SELECT i FROM t"), 7);
    db_close(db);
}

TEST(full_disk_is_full_and_heals)
{
    struct rlimit limit = {300000, RLIM_INFINITY};
    struct db *db;
    struct db_stmt *put;
    int rc = 0;

    signal(SIGXFSZ, SIG_IGN);
    db = open_ok("a.db", DB_WRITE);
    CHECK_INT(db_exec(db, "CREATE TABLE t(b)", NULL), 0);
    put = prepare_ok(db, "INSERT INTO t VALUES(zeroblob(20000))");
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 100 && rc == 0; i++)
        rc = db_run(put, NULL);
    CHECK_INT(rc, ERR_FULL);
    limit.rlim_cur = RLIM_INFINITY;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_INT(db_run(put, NULL), 0);
    CHECK_INT(db_begin(db, NULL), 0);
    CHECK_INT(db_exec(db, "PRAGMA max_page_count=100", NULL), 0);
    while ((rc = db_run(put, NULL)) == 0)
        continue;
    CHECK_INT(rc, ERR_FULL);
    db_rollback(db);
    db_close(db);
}

TEST(step_limit_ends_a_long_statement)
{
    struct db *db = open_ok("a.db", DB_WRITE);
    struct db_stmt *s = prepare_ok(
        db, "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT sum(i) FROM c");

    db_set_step_limit(db, 30);
    CHECK_INT(db_step(s, NULL), ERR_TIMEOUT);
    db_reset(s);
    CHECK_INT(one_int(db, "SELECT 5"), 5);
    db_set_step_limit(db, 0);
    CHECK_INT(one_int(db, "SELECT 6"), 6);
    db_close(db);
}

TEST(checkpoint_empties_the_log)
{
    struct db *db = open_ok("a.db", DB_WRITE), *reader;
    int64_t before = 0, after = -1;
    struct stat st;

    CHECK_INT(db_exec(db, "CREATE TABLE t(b); INSERT INTO t VALUES(zeroblob(100000))", NULL), 0);
    reader = open_ok("a.db", DB_READ);
    CHECK_INT(db_begin(reader, NULL), 0);
    CHECK_INT(one_int(reader, "SELECT count(*) FROM t"), 1);
    CHECK_INT(db_exec(db, "INSERT INTO t VALUES(1)", NULL), 0);
    CHECK_INT(db_checkpoint(db, true, &before, NULL), ERR_BUSY);
    CHECK(before > 100000);
    CHECK(db_wal_pages(db) > 12);
    CHECK_INT(db_checkpoint(db, false, NULL, NULL), 0);
    CHECK_INT(db_wal_pages(db), 1); /* which the reader may not see yet */
    db_close(reader);
    CHECK_INT(db_checkpoint(db, true, NULL, NULL), 0);
    CHECK_INT(db_wal_pages(db), 0);
    CHECK_INT(stat("a.db-wal", &st), 0);
    CHECK_INT(st.st_size, 0);
    CHECK_INT(db_checkpoint(db, false, &after, NULL), 0);
    CHECK_INT(after, 0);
    db_close(db);
}

TEST(temp_database_leaves_nothing)
{
    struct db *db = open_ok(NULL, DB_TEMP);

    CHECK_INT(db_exec(db, "CREATE TABLE t(b)", NULL), 0);
    CHECK_INT(db_begin(db, NULL), 0);
    for (int i = 0; i < 50; i++)
        CHECK_INT(db_exec(db, "INSERT INTO t VALUES(zeroblob(40000))", NULL), 0);
    db_rollback(db);
    CHECK_INT(one_int(db, "SELECT count(*) FROM t"), 0);
    db_close(db);
}
