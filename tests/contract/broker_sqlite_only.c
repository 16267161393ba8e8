/* What broker_sqlite alone promises about its file. */
#include "base/buf.h"
#include "base/db.h"
#include "base/file.h"
#include "tests/contract/broker.h"
#include <stdlib.h>
#include <sys/stat.h>

static const struct driver *const sqlite_driver = &drivers[0];

static void make(const char *dirz, const char *sqlz)
{
    struct db *db;
    struct buf path;
    struct err e;

    CHECK_INT(file_make_dir(dirz, &e), 0);
    buf_init(&path, 1000);
    buf_addf(&path, "%s/genq.db", dirz);
    CHECK_INT(db_open(path.p, DB_WRITE, 0, &db, &e), 0);
    CHECK_INT(db_exec(db, sqlz, &e), 0);
    db_close(db);
    buf_release(&path);
}

static void read_all(const char *dirz, struct buf *b)
{
    struct buf path;
    struct err e;

    buf_init(&path, 1000);
    buf_addf(&path, "%s/genq.db", dirz);
    buf_init(b, 1 << 26);
    CHECK_INT(file_read(path.p, b, &e), 0);
    buf_release(&path);
}

static void check_refused(int want_code)
{
    struct buf before, after;
    struct rig r;
    struct err e;

    read_all("sqlite", &before);
    rig_init(&r, sqlite_driver);
    CHECK(!broker_open(&r.options, &e));
    CHECK_INT(e.code, want_code);
    CHECK(strstr(e.msg, "genq.db"));
    read_all("sqlite", &after);
    CHECK(str_eq(buf_str(&before), buf_str(&after)));
    buf_release(&before);
    buf_release(&after);
    rig_release(&r);
}

TEST(a_foreign_database_is_left_alone)
{
    make("sqlite", "PRAGMA journal_mode=DELETE; CREATE TABLE a(b); INSERT INTO a VALUES(1)");
    check_refused(ERR_CORRUPT);
}

TEST(a_database_of_another_application_is_left_alone)
{
    make("sqlite", "PRAGMA journal_mode=DELETE; PRAGMA application_id=77");
    check_refused(ERR_CORRUPT);
}

TEST(records_of_a_queue_that_left_the_config_stay)
{
    static const char with[] = "queues: {old: {}}";
    struct driver d = *sqlite_driver;
    struct rig r;
    int topic;

    d.configz = with;
    rig_init(&r, &d);
    rig_open(&r);
    topic = topics_jobs(r.topics, STR("old"), PRIORITY_NORMAL);
    rig_put(&r, topic, "k", "v");
    rig_release(&r);
    rig_init(&r, sqlite_driver);
    rig_open(&r); /* warns */
    rig_release(&r);
    rig_init(&r, &d);
    rig_open(&r);
    rig_subscribe(&r, topic, 1);
    rig_wait_seen(&r, 1);
    rig_release(&r);
}

/* So that neither a commit nor the close has much left to do. */
TEST(a_quiet_moment_moves_the_log_to_the_file)
{
    enum { VALUE_BYTES = 2000000, LIMIT_MS = 10000, STEP_MS = 20 };
    struct stat st = {.st_size = 0};
    struct rig r;
    char *valuez = xmalloc(VALUE_BYTES + 1);
    int ms;

    memset(valuez, 'v', VALUE_BYTES);
    valuez[VALUE_BYTES] = '\0';
    rig_init(&r, sqlite_driver);
    rig_open(&r);
    rig_put(&r, topics_jobs(r.topics, STR("default"), PRIORITY_NORMAL), "k", valuez);
    for (ms = 0; ms < LIMIT_MS && st.st_size < VALUE_BYTES; ms += STEP_MS) {
        rig_run_ms(&r, STEP_MS);
        CHECK_INT(stat("sqlite/genq.db", &st), 0);
    }
    CHECK(st.st_size > VALUE_BYTES);
    rig_release(&r);
    free(valuez);
}
