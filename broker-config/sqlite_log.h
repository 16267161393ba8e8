/* The log's tables in SQLite: broker_sqlite's storage, without its thread and queues. A topic is a
 * table of its name, the offset is the rowid; log_topic remembers each topic's next offset, so that
 * none is given twice even when the newest rows are gone, and how many rows there are.
 *
 * One owner at a time: opened by one thread, then the writer thread's. Within begin … commit
 * or rollback the numbers below run ahead of the file; a rollback puts them back. */
#pragma once
#include "base/buf.h"
#include "base/db.h"
#include "broker-config/topics.h"

struct log_topic {
    int64_t next;   /* offset of the next record */
    int64_t first;  /* oldest kept; == next when there is none */
    int64_t n_rows;
    int64_t saved_next, saved_first, saved_rows; /* as before begin */
    bool is_touched;                             /* since begin */
    bool is_first_gone;                          /* `first` is to be looked up */
    struct db_stmt *insert, *remove, *scan, *range, *oldest;
};

struct sqlite_log {
    struct db *db;
    const struct topics *topics; /* borrowed */
    struct log_topic *topic;     /* by number */
    int *touched;                /* topics since begin */
    size_t n_touched;
    struct db_stmt *save, *drop_dead;
    struct buf headers;          /* encoding of the record in hand */
};

/* Rows that were read: copies in two growing arrays, to be used again and again. The records'
 * pointers are offsets into `bytes` until rows_pack. */
struct rows {
    struct record *records;
    size_t n, room;
    struct buf bytes;
};

/* Opens (creates) `pathz`; makes the tables of `topics`, and warns of others that still hold
 * records. */
int sqlite_log_open(struct sqlite_log *l, const char *pathz, bool is_full_sync,
                    const struct topics *topics, struct err *e);
void sqlite_log_close(struct sqlite_log *l);

/* Finished records of these topics stay: the feed of completions, and meta (compacted, not
 * consumed). */
bool sqlite_log_is_kept(int topic);

int sqlite_log_begin(struct sqlite_log *l, struct err *e);
/* Where the next record of the topic will stand. */
int64_t sqlite_log_next(const struct sqlite_log *l, int topic);
/* Appends r (r->at.topic says where); sets r->at. Negative as db_step. */
int sqlite_log_append(struct sqlite_log *l, struct record *r, struct err *e);
/* Deletes the finished records from `first` to `last`; nothing happens to those that are gone
 * already, or when their topic is a kept one. */
int sqlite_log_remove(struct sqlite_log *l, int topic, int64_t first, int64_t last, struct err *e);
/* Durable, or negative: then roll back. */
int sqlite_log_commit(struct sqlite_log *l, struct err *e);
void sqlite_log_rollback(struct sqlite_log *l);

void rows_init(struct rows *r);
void rows_release(struct rows *r);
void rows_clear(struct rows *r);
/* Adds up to max_rows of the topic from offset `from` on, stopping after max_bytes; *is_end: no
 * more are there. 0 or negative. */
int sqlite_log_scan(struct sqlite_log *l, int topic, int64_t from, size_t max_rows,
                    size_t max_bytes, struct rows *out, bool *is_end, struct err *e);
/* Adds the records from offset `first` to `last`, those that are there. */
int sqlite_log_range(struct sqlite_log *l, int topic, int64_t first, int64_t last,
                     struct rows *out, struct err *e);
/* One allocation: head_bytes (uninitialized) and, from there on, the records with their bytes. Free
 * with free(). */
void *rows_pack(const struct rows *r, size_t head_bytes, struct record **records);
