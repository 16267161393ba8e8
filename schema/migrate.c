#include "schema/migrate.h"
#include "base/buf.h"
#include "schema/state.h"

#define APPLICATION_ID 0x67656e71 /* "genq" */

/* Numbers of states and priorities stand in the file: their order may not change. */
_Static_assert(STATE_SCHEDULED == 0 && STATE_QUEUED == 1 && STATE_RUNNING == 2 &&
                   STATE_SUCCEEDED == 3 && STATE_FAILED == 4 && STATE_CANCELLED == 5 &&
                   STATE_EXPIRED == 6,
               "job.state is stored by number");

/* Migration n takes a file from user_version n to n + 1; only add at the end.
 *
 * Every job pays for what stands here, so: one row and one unique index a job, a batch's job one
 * batch_line more, a call one row in the ledger. Whole numbers come first in a row: filters read
 * them without decoding the texts.
 *
 * job: `part` and `off` are its place in its job topic, or in the scheduled topic while scheduled;
 *   `batch` is the batch's seq, NULL where batch_id only groups; what only an unfinished job needs
 *   (session, custom_id, metadata, …) becomes NULL at its end, since the completion has it too.
 *   One that has ended and has an `off`, but no digest: its own record is yet to come. job_early:
 *   lines whose batch is yet to come.
 * batch: its completions lie in [first_off, last_off] of the feed (last_off -1: none yet); last_at:
 *   time of the newest of them, and of its seal: when it has ended, that is its end. No
 *   seq is given twice, or lines that retention has left would turn up in another batch.
 * call: the ledger. No index: `at` grows with seq, so a range is found by bisecting.
 * position: of a log that is followed (Kafka), what each partition's next record is: all before it
 *   are in these tables. cluster: whose log that is.
 * job.redrive_of: of a job that repeats another, its id; NULL at its end, like what stands above.
 * fact: single numbers. unfinished: jobs not ended; oldest: first offset of the feed that
 *   retention has left. */
static const char *const migrations[] = {
    "CREATE TABLE job("
    "seq INTEGER PRIMARY KEY, state INT NOT NULL, priority INT NOT NULL, form INT NOT NULL,"
    " off INT, part INT, created_at INT NOT NULL, completion_off INT, finished_at INT, not_before "
    "INT,"
    " deadline INT, batch INT, batch_line INT, tenant TEXT NOT NULL, id TEXT NOT NULL,"
    " queue TEXT NOT NULL, model TEXT NOT NULL, batch_id TEXT, digest BLOB, session TEXT,"
    " custom_id TEXT, metadata TEXT, UNIQUE(tenant, id));"
    "CREATE INDEX job_bad ON job(state) WHERE state >= 4;"
    "CREATE INDEX job_group ON job(batch_id) WHERE batch_id IS NOT NULL AND batch IS NULL;"
    "CREATE INDEX job_early ON job(batch_id, tenant) WHERE batch_line IS NOT NULL AND batch IS "
    "NULL;"
    "CREATE TABLE batch("
    "seq INTEGER PRIMARY KEY AUTOINCREMENT, state INT NOT NULL, created_at INT NOT NULL,"
    " finished_at INT, n_lines INT, n_total INT NOT NULL, n_succeeded INT NOT NULL, n_failed INT "
    "NOT NULL,"
    " last_at INT NOT NULL, n_cancelled INT NOT NULL, n_expired INT NOT NULL, prompt_tokens INT "
    "NOT NULL,"
    " completion_tokens INT NOT NULL, cached_tokens INT NOT NULL, cost REAL NOT NULL,"
    " first_off INT NOT NULL, last_off INT NOT NULL, tenant TEXT NOT NULL, id TEXT NOT NULL,"
    " UNIQUE(tenant, id));"
    "CREATE TABLE batch_line("
    "batch INT NOT NULL, line INT NOT NULL, job INT NOT NULL, PRIMARY KEY(batch, line))"
    " WITHOUT ROWID;"
    "CREATE TABLE call("
    "seq INTEGER PRIMARY KEY, at INT NOT NULL, job INT NOT NULL, attempt INT NOT NULL,"
    " outcome INT NOT NULL, is_wasted INT NOT NULL, prompt_tokens INT NOT NULL,"
    " completion_tokens INT NOT NULL, cached_tokens INT NOT NULL, ms INT NOT NULL,"
    " cost REAL NOT NULL, tenant TEXT NOT NULL, key TEXT, model TEXT, node TEXT, batch TEXT,"
    " id TEXT NOT NULL);"
    "CREATE TABLE position("
    "topic TEXT NOT NULL, partition INT NOT NULL, next INT NOT NULL, PRIMARY KEY(topic, partition))"
    " WITHOUT ROWID;"
    "CREATE TABLE cluster(id TEXT NOT NULL);"
    "CREATE TABLE fact(name TEXT PRIMARY KEY, value INT NOT NULL) WITHOUT ROWID;"
    "INSERT INTO fact VALUES('oldest', 0), ('unfinished', 0);",
    "ALTER TABLE job ADD COLUMN redrive_of TEXT;",
};

enum { NEWEST = sizeof migrations / sizeof migrations[0] };

static int read_int(struct db *db, const char *sqlz, int64_t *out, struct err *e)
{
    struct db_stmt *s;
    int rc = db_prepare(db, sqlz, &s, e);

    if (rc)
        return rc;
    rc = db_step(s, e);
    if (rc > 0)
        *out = db_int(s, 0);
    db_reset(s);
    if (rc == 0)
        return err_set(e, ERR_INTERNAL, "sqlite: no answer to %s", sqlz);
    return rc < 0 ? rc : 0;
}

/* Gives the file's version: 0 while it has no tables. */
static int read_version(struct db *db, int64_t *version, struct err *e)
{
    int64_t application = 0, n_tables = 0;
    int rc = read_int(db, "PRAGMA application_id", &application, e);

    rc = rc ? rc : read_int(db, "PRAGMA user_version", version, e);
    rc = rc ? rc : read_int(db, "SELECT count(*) FROM sqlite_schema", &n_tables, e);
    if (rc)
        return rc;
    if (application != APPLICATION_ID && (application != 0 || *version != 0 || n_tables != 0))
        return err_set(e, ERR_CORRUPT, "another program's database");
    if (*version < 0 || *version > NEWEST)
        return err_set(e, ERR_CORRUPT, "written by a newer genq (format %lld, this one knows %d)",
                       (long long)*version, (int)NEWEST);
    return 0;
}

static int upgrade(struct db *db, int64_t version, struct err *e)
{
    struct buf b;
    int rc = 0;

    for (; rc == 0 && version < NEWEST; version++)
        rc = db_exec(db, migrations[version], e);
    buf_init(&b, 256);
    buf_addf(&b, "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID, (int)NEWEST);
    rc = rc ? rc : db_exec(db, b.p, e);
    buf_release(&b);
    return rc;
}

int schema_check(struct db *db, struct err *e)
{
    int64_t version = 0;

    return read_version(db, &version, e);
}

int schema_migrate(struct db *db, struct err *e)
{
    int64_t version = 0;
    int rc = read_version(db, &version, e);

    if (rc || version == NEWEST)
        return rc;
    rc = db_begin(db, e);
    rc = rc ? rc : upgrade(db, version, e);
    rc = rc ? rc : db_commit(db, e);
    if (rc)
        db_rollback(db);
    return rc;
}

/* Opening for writing turns a file to WAL, which must not happen to another program's. */
static int refuse_foreign(const char *pathz, struct err *e)
{
    struct db *db = NULL;
    struct err why = {0};
    int rc = db_open(pathz, DB_READ, 0, &db, &why);

    if (rc == ERR_NOT_FOUND || (rc == ERR_IO && db_is_newborn(pathz)))
        return 0;
    if (rc == 0 && (rc = schema_check(db, &why)) != 0)
        err_prefix(&why, "%s", pathz);
    db_close(db);
    if (rc && e)
        *e = why;
    return rc;
}

int schema_open(const char *pathz, enum db_mode mode, int cache_kib, struct db **out, struct err *e)
{
    int rc = refuse_foreign(pathz, e);

    rc = rc ? rc : db_open(pathz, mode, cache_kib, out, e);
    if (rc || (rc = schema_migrate(*out, e)) == 0)
        return rc;
    err_prefix(e, "%s", pathz);
    db_close(*out);
    *out = NULL;
    return rc;
}
