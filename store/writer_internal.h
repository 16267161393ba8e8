/* What the files of the store's writing side share. Writer thread only, but for `unfinished`. */
#pragma once
#include "base/map.h"
#include "schema/batch.h"
#include "schema/completion.h"
#include "store/retention.h"
#include "store/writer.h"
#include <stdatomic.h>

enum writer_stmt {
    W_ADD_JOB,
    W_GET_JOB,
    W_FILL_JOB,
    W_DUE,
    W_END,
    W_JOIN,
    W_GET_EARLY,
    W_GET_END,
    W_ADD_LINE,
    W_ADD_CALL,
    W_GET_BATCH,
    W_ADD_BATCH,
    W_SAVE_BATCH,
    W_GET_FACT,
    W_SET_FACT,
    W_COUNT_
};

/* A batch as this transaction has it: read at first use, written once before the commit. */
struct tally {
    struct map_node node;
    struct tally *next;
    int64_t seq; /* 0: there is no such batch; its id only groups */
    enum batch_state state;
    int64_t created_at, finished_at, n_lines; /* 0, -1: not yet */
    int64_t last_at; /* time of the newest record that moved it towards its end */
    int64_t n_total, n_ended[STATE_COUNT_]; /* jobs; ended ones by terminal state */
    struct usage usage;
    double cost;
    int64_t first_off, last_off; /* of its completions in the feed; INT64_MAX, -1: none */
    bool is_dirty;
    char key[]; /* tenant/id */
};

/* A job that ended in this transaction; strs are the record's. */
struct ended_job {
    struct str tenant, id;
};

/* A job whose record was applied not long ago, so that its end need not look its row up. A hint: the
 * statement that ends the row holds it against the row. */
struct recent_job {
    struct position at; /* of its record */
    int64_t seq, batch; /* seq 0: a free place */
};

enum { RECENT_JOBS = 8192 }; /* a power of two; more than a batch run has unfinished */

struct store_writer {
    const struct topics *topics;
    struct live *live;
    int64_t max_unfinished;
    struct db *db;
    struct db_stmt *stmts[W_COUNT_];
    struct retention retention;
    void (*on_commit)(void *data); /* NULL: none */
    void *on_commit_data;
    _Atomic int64_t unfinished; /* durable */
    /* of this transaction: */
    int broken;     /* a failure of the database: all of it is to be rolled back */
    int64_t delta;  /* of unfinished */
    int64_t now_ms; /* newest record's time */
    int64_t n_late;
    struct ended_job *ended;
    size_t n_ended, room;
    struct map tallies;
    struct tally *tally_list;
    struct recent_job *recent; /* RECENT_JOBS places, by offset */
};

/* The job's row, as far as writing needs it. */
struct job_row {
    int64_t seq;
    enum job_state state;
    int64_t batch; /* seq of its batch; 0: it is a member of none */
    int64_t completion_off;
    bool is_expected; /* a completion made it: its record is yet to come */
    bool has_digest;
    uint8_t digest[SHA256_LEN];
    char batch_id[ID_MAX + 1]; /* "" for none */
    char queue[JOB_NAME_MAX_BYTES + 1];
};

/* Binds a statement's parameters one after the other. */
struct binder {
    struct db_stmt *s;
    int at;
};

static inline void put_int(struct binder *b, int64_t v)
{
    db_bind_int(b->s, ++b->at, v);
}

static inline void put_int_or_null(struct binder *b, int64_t v, int64_t null)
{
    if (v == null)
        db_bind_null(b->s, ++b->at);
    else
        db_bind_int(b->s, ++b->at, v);
}

static inline void put_text(struct binder *b, struct str v)
{
    db_bind_text(b->s, ++b->at, v);
}

/* Runs the statement. A failure marks the transaction as broken. */
int writer_run(struct store_writer *w, struct db_stmt *s);
/* The same for one that may give a row: 1, 0 or negative. */
int writer_step(struct store_writer *w, struct db_stmt *s);

/* Job records and completions (writer_job.c, writer_end.c). */
int writer_apply_job(struct store_writer *w, struct record *r);
int writer_apply_completion(struct store_writer *w, struct record *r);
/* 1 and *row, 0 when there is none, or negative. */
int writer_get_job(struct store_writer *w, struct str tenant, struct str id, struct job_row *row);
/* A row to add; `tally` (NULL: none) is the batch that the job becomes a member of. */
struct new_job {
    const struct job *j;
    enum job_state state;
    int64_t off, completion_off, finished_at; /* -1, -1, 0: NULL */
    int32_t part;                             /* while it has not ended */
    const uint8_t *digest;                    /* NULL allowed */
    struct tally *tally;
};
/* 1 and *seq when it was added, 0 when the id is there, or negative. */
int writer_add_job(struct store_writer *w, const struct new_job *n, int64_t *seq);

/* Recently added jobs, by the place of their record (writer_recent.c). */
void recent_add(struct store_writer *w, struct position at, int64_t seq, int64_t batch);
/* Whether the job of the record at this place is known; sets row's seq and batch. */
bool recent_find(const struct store_writer *w, struct position at, struct job_row *row);
void recent_forget(struct store_writer *w);

/* What a batch wants to know of a member's completion. */
struct tally_end {
    int64_t off, ts_ms;
    struct str usage, cost; /* source text */
};

void tally_end(struct tally *tally, enum job_state state, const struct tally_end *end);
/* Puts job `seq` on its line of the batch. */
int writer_add_line(struct store_writer *w, int64_t batch, int64_t line, int64_t seq);
/* Makes a job that came before its batch a member, with its end if it has one. */
int writer_join(struct store_writer *w, struct tally *tally, int64_t line,
                const struct job_row *row);

/* Batches (writer_batch.c). */
int writer_apply_meta(struct store_writer *w, struct record *r);
/* The batch of this id, or *out NULL when it has no row; gives 0 or negative. */
int writer_tally(struct store_writer *w, struct str tenant, struct str id, struct tally **out);
int writer_save_tallies(struct store_writer *w);
void writer_forget_tallies(struct store_writer *w);
