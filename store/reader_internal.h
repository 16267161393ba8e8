/* What the files of the store's reading side share. */
#pragma once
#include "schema/batch.h"
#include "schema/completion.h"
#include "store/reader.h"

enum reader_stmt {
    Q_JOB,
    Q_JOB_SEQ,
    Q_JOB_MEMBER,
    Q_APPLIED,
    Q_LIST_ALL,
    Q_LIST_BAD,
    Q_LIST_GROUP,
    Q_LIST_LINES,
    Q_LIST_RUNNING,
    Q_LIST_LAST,
    Q_LIST_LAST_LINE,
    Q_LIST_BISECT,
    Q_FEED,
    Q_FEED_SPAN,
    Q_FEED_OLDEST,
    Q_FEED_END,
    Q_BATCH,
    Q_BATCHES,
    Q_RESULTS,
    Q_OPEN,
    Q_UNFINISHED,
    Q_NEWEST,
    Q_USAGE,
    Q_USAGE_LAST,
    Q_USAGE_BISECT,
    Q_REPEAT,
    Q_FOLLOW_ENDS,
    Q_FOLLOW_JOBS,
    Q_FOLLOW_LAST,
    Q_DEAD,
    Q_DEAD_END,
    Q_DEAD_JOB,
    Q_COUNT_
};

struct reader {
    struct db *db;
    struct live *live;
    const struct reader_seen *seen;  /* NULL: nobody is asked */
    struct db_stmt *stmts[Q_COUNT_]; /* prepared at first use */
    struct buf line;                 /* of reader_one_line */
};

/* Gives the statement; sqlz is its text. 0 or negative. */
int reader_stmt(struct reader *r, enum reader_stmt id, const char *sqlz, struct db_stmt **out,
                struct err *e);
/* Runs a statement whose one row has one number; NULL, or no row, gives if_none. Resets it. */
int reader_int(struct db_stmt *s, int64_t if_none, int64_t *out, struct err *e);

/* The columns that reader_put_job takes, from column 0 on; j and c are the
 * aliases. */
#define READER_COLUMNS \
    "j.seq, j.state, j.priority, j.form, j.off, j.part, j.created_at, j.not_before, j.deadline," \
    " j.finished_at, j.batch_line, j.tenant, j.id, j.queue, j.model, j.batch_id, j.session," \
    " j.custom_id, j.metadata, j.redrive_of, c.value"
#define READER_FROM "job j LEFT JOIN \"genq.completions\" c ON c.off=j.completion_off"
enum reader_column {
    COL_SEQ,
    COL_STATE,
    COL_PRIORITY,
    COL_FORM,
    COL_OFF,
    COL_PART,
    COL_CREATED_AT,
    COL_NOT_BEFORE,
    COL_DEADLINE,
    COL_FINISHED_AT,
    COL_BATCH_LINE,
    COL_TENANT,
    COL_ID,
    COL_QUEUE,
    COL_MODEL,
    COL_BATCH_ID,
    COL_SESSION,
    COL_CUSTOM_ID,
    COL_METADATA,
    COL_REDRIVE_OF,
    COL_VALUE,
    COL_COUNT_ /* a statement's further columns start here */
};

/* Its state as clients read it: running, where live knows so. */
enum job_state reader_row_state(struct reader *r, struct db_stmt *s, struct live_view *live);
/* Appends the row's JSON; gives the state that it shows. */
enum job_state reader_put_job(struct reader *r, struct db_stmt *s, struct buf *b);

/* JSON without line breaks, for SSE and JSONL: itself, or a copy valid until the next call. (An
 * engine's own JSON, passed on as it came, may have some between its tokens.) */
struct str reader_one_line(struct reader *r, struct str json);
/* Closes a list's `data`: next 0 gives null. */
void reader_put_next(struct buf *b, bool has_more, int64_t next);
/* Takes back what was added after the first n bytes, and what could not be. */
static inline void reader_cut(struct buf *b, size_t n)
{
    b->n = n;
    b->is_over = false;
    if (b->p)
        b->p[n] = '\0';
}
void reader_put_cost(struct buf *b, double cost);

/* The first key >= lo of a table whose rows have times that grow with it, with a time >= at_ms;
 * hi + 1 when there is none up to hi. s selects key and time of the first row with key >= ?1.
 * Where the clock was put back the times overlap, and any place in the overlap may be given:
 * filter by time as well. */
int reader_bisect(struct db_stmt *s, int64_t lo, int64_t hi, int64_t at_ms, int64_t *key,
                  struct err *e);

/* A batch's row. */
struct batch_row {
    int64_t seq, created_at, finished_at, n_lines; /* 0, -1: NULL */
    enum batch_state state;
    int64_t first_off, last_off;
};
int reader_find_batch(struct reader *r, struct str tenant, struct str id, struct batch_row *out,
                      struct err *e);
