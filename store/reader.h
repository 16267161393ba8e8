/* The store's reading side: one connection, one thread at a time. Queries page by key in short
 * transactions; a statement over 2 s ends with ERR_TIMEOUT. JSON comes out as clients read it. */
#pragma once
#include "base/buf.h"
#include "base/db.h"
#include "broker-config/topics.h"
#include "schema/line.h"
#include "schema/redrive.h"
#include "store/live.h"

struct reader;

/* Opens the data directory's database for reading (it must be there: the broker has made it).
 * `live` fills in running, attempts and node of unfinished jobs; NULL allowed. */
struct reader *reader_open(const char *dataz, struct live *live, struct err *e);
void reader_close(struct reader *r);

/* Who knows of jobs that run in other processes: `get` is asked about queued jobs that `live` does
 * not know, `each` for all that run. The struct must stay until it is called with NULL. */
struct reader_seen {
    bool (*get)(void *data, struct str tenant, struct str id, struct live_view *out);
    void (*each)(void *data, void (*fn)(void *fn_data, struct str tenant, struct str id),
                 void *fn_data);
    void *data;
};
void reader_set_seen(struct reader *r, const struct reader_seen *seen);

/* Appends the job's JSON. *state (NULL allowed) its state. ERR_NOT_FOUND. */
int reader_job(struct reader *r, struct str tenant, struct str id, struct buf *b,
               enum job_state *state, struct err *e);

/* Whether a job has this id: 0, or ERR_NOT_FOUND. */
int reader_has_job(struct reader *r, struct str tenant, struct str id, struct err *e);

/* Whether the store knows all of the log up to the record at `at`: 1, 0 or negative. Of an embedded
 * log it always does. */
int reader_has_applied(struct reader *r, struct position at, const struct topics *t, struct err *e);

/* What the store would say to j's record: 0 when its id is free, ERR_EXISTS when it is a repeat
 * (the same digest, on its line of its batch if it is of one), ERR_CONFLICT when the id is another
 * job's. Other codes: it could not be looked up. */
int reader_repeat(struct reader *r, const struct job *j, struct err *e);

/* A stored job for building its cancelled completion: fills the struct job that completion_write
 * takes (release with job_release), its digest among it, and *at, where its record stands; topic
 * -1: in a queue that left the config. ERR_NOT_FOUND; ERR_EXISTS when it has ended. */
int reader_job_head(struct reader *r, struct str tenant, struct str id, struct job *out,
                    struct position *at, const struct topics *t, struct err *e);

struct job_filter {
    struct str tenant, model, batch_id, queue; /* p == NULL: any */
    int state;                                 /* enum job_state, or -1 */
    int64_t created_after, created_before;     /* wall ms, exclusive; 0: any */
    int64_t after; /* cursor: the `next` of the page before; 0: newest */
    int limit;     /* 1..1000 */
};
/* Appends {"object":"list","data":[…],"has_more","next"} (newest first; `next` is a number or
 * null). A page may hold fewer than limit, even none, and still have more: a filter that few
 * pass ends after a second of looking, and a full b ends a page early. */
int reader_list(struct reader *r, const struct job_filter *f, struct buf *b, struct err *e);

/* The feed: completions from offset `from` on (inclusive), at most limit, of one batch or tenant
 * when given. is_sse: as SSE frames (id: <offset + 1, i.e. the cursor that resumes after it>,
 * event: completion), else the comma-separated members of `data`. *next: the cursor after the
 * last record looked at, which may be short of the feed's end though nothing was appended: go on
 * from it while it moves. A full b ends a page early. Returns how many were appended, or
 * ERR_NOT_FOUND when `from` is older than the oldest record kept (*next is then the oldest). */
int reader_feed(struct reader *r, int64_t from, int limit, struct str tenant, struct str batch_id,
                bool is_sse, struct buf *b, int64_t *next, struct err *e);
/* Cursor of the feed's end now. */
int reader_feed_end(struct reader *r, int64_t *next, struct err *e);
/* Cursor of the oldest completion kept. */
int reader_feed_oldest(struct reader *r, int64_t *oldest, struct err *e);

/* Dead letters, oldest first: records that were no jobs, and jobs that failed, as long as the store
 * knows them as failed. strs are valid during the call. */
struct dead_letter {
    int64_t offset, at_ms;
    struct str code;   /* a failed job's error code, malformed or id_conflict */
    struct str reason; /* in words */
    struct str source; /* printed position of its record; p == NULL, like the others: not known */
    struct str tenant, id, model, queue, batch_id;
    struct str value; /* the job's record, whole */
    bool is_failed_job, can_redrive;
    bool is_redriven;                    /* a job of redrive_id is there */
    char redrive_id[REDRIVE_ID_LEN + 1]; /* where it can_redrive */
};
struct dead_filter {
    struct str tenant, model, queue, batch_id, code, job_id; /* p == NULL: any */
    int64_t since, until; /* wall ms, when it came; until is exclusive; 0: any */
    int64_t after;        /* cursor: the `next` of the page before */
    int64_t before;       /* cursor: none from there on; 0: any */
    int limit;
};
/* Gives on_letter at most limit letters, and about 8 MiB of records. It returns 0 to go on, or
 * negative to fail with that code. 0 or negative. */
struct dead_page {
    int64_t next;  /* cursor behind what was looked at */
    int64_t end;   /* … behind the newest letter as the page began */
    bool has_more; /* letters stand at `next`, though maybe none that match */
};
int reader_dead(struct reader *r, const struct topics *t, const struct dead_filter *f,
                int (*on_letter)(void *data, const struct dead_letter *l), void *data,
                struct dead_page *page, struct err *e);

/* For who keeps a copy (store/hot.h). Both callbacks get what is valid during the call, and return
 * true to go on, false to stop before this one. Both readers give 0, or negative. */
/* Completions from offset `from` on, at most limit. */
struct ended_record {
    int64_t offset, ts_ms;
    struct str tenant, id, value;
    enum job_state state;
};
int reader_follow_ends(struct reader *r, int64_t from, int limit,
                       bool (*on_end)(void *data, const struct ended_record *r), void *data,
                       struct err *e);
/* Jobs that came after number *seq (0: all) and have not ended, with their JSON, among the next
 * `window` numbers; *seq is then the last one looked at. */
int reader_follow_jobs(struct reader *r, int64_t *seq, int window,
                       bool (*on_job)(void *data, struct str tenant, struct str id,
                                      enum job_state state, struct str view),
                       void *data, struct err *e);
/* The newest job's number; 0 for none. */
int reader_last_job(struct reader *r, int64_t *seq, struct err *e);

/* Batches. */
int reader_batch(struct reader *r, struct str tenant, struct str id, struct buf *b, struct err *e);
int reader_batches(struct reader *r, struct str tenant, int64_t after, int limit, struct buf *b,
                   struct err *e);
/* Result lines of a batch, in input order from line `from`, up to `limit` lines; stops at the
 * first line whose job has not ended (or, while the batch is received, was not submitted) unless
 * skip_unfinished. Lines are given to on_line, which returns 0 to go on, above 0 to stop behind
 * this line, or negative to fail with that code. Returns how many were given, or negative;
 * *next: the next line to ask for; *is_end: no further line is known now. Lines of a view have
 * no line breaks. A line that was refused, and so never was a job record, has form LINE_JOB. */
struct result_line {
    int64_t line;
    enum line_form form;
    enum job_state state;
    struct str id;     /* the job's; valid during the call */
    struct str digest; /* of the job (schema/job.h), or none where it was refused; the same */
    struct str view;   /* the job's JSON; valid during the call */
};
int reader_results(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                   int limit, bool skip_unfinished,
                   int (*on_line)(void *data, const struct result_line *l), void *data,
                   int64_t *next, bool *is_end, struct err *e);
/* The same in the order of completion; from and *next are feed cursors. */
int reader_results_completed(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                             int limit, int (*on_line)(void *data, const struct result_line *l),
                             void *data, int64_t *next, bool *is_end, struct err *e);
/* Unfinished jobs of a batch from line `from`: ids given to on_id (for cancelling). Same
 * returns. */
int reader_batch_open(struct reader *r, struct str tenant, struct str batch_id, int64_t from,
                      int limit, int (*on_id)(void *data, struct str id), void *data, int64_t *next,
                      bool *is_end, struct err *e);

/* All unfinished jobs that name the batch, by whichever input they came; 0 or negative. */
int reader_unfinished(struct reader *r, struct str tenant, struct str batch_id,
                      void (*on_id)(void *data, struct str id), void *data, struct err *e);

/* Usage. group_by: a comma-separated list of tenant, key, model, node, batch, day, hour; from
 * and to in wall ms (0: any); is_csv: CSV with a header line, else {"object":"list","data":[…]}.
 * Each row: the groups, calls, jobs, prompt_tokens, completion_tokens, cached_tokens,
 * total_tokens, wasted_tokens, cost. ERR_INVALID names an unknown group. */
int reader_usage(struct reader *r, struct str group_by, int64_t from, int64_t to, struct str tenant,
                 bool is_csv, struct buf *b, struct err *e);
