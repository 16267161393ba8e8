/* Records that Kafka could not take in time, on disk (guarantee 3): "outbox.db" in the data
 * directory, synchronous FULL. A row is a record; rows are numbered in the order they came, and no
 * number is given twice. Topics stand there by name, for their numbers depend on the config. The
 * publisher's thread only. */
#pragma once
#include "broker-config/header_codec.h"
#include "base/db.h"
#include "broker-config/topics.h"

#define OUTBOX_FILE "outbox.db" /* its name in the data directory */

struct kafka_outbox {
    struct db *db;
    const struct topics *topics; /* borrowed */
    struct db_stmt *insert, *remove, *scan;
    int64_t last;                          /* newest row's number; 0: there never was one */
    int64_t n_rows, bytes;                 /* what stands there, as broker_publish_bytes counts */
    int64_t old_last, old_rows, old_bytes; /* before begin */
    int64_t most_bytes;                    /* since the file was made small */
};

/* Opens (creates) pathz. ERR_CORRUPT (no outbox of ours, or from a newer genq), ERR_IO, ERR_FULL.
 */
int kafka_outbox_open(struct kafka_outbox *o, const char *pathz, const struct topics *topics,
                      struct err *e);
void kafka_outbox_close(struct kafka_outbox *o); /* also of zeros */

/* A transaction. After a failure: rollback. */
int kafka_outbox_begin(struct kafka_outbox *o, struct err *e);
int kafka_outbox_add(struct kafka_outbox *o, const struct record *r, int64_t *row, int64_t *bytes,
                     struct err *e);
int kafka_outbox_remove(struct kafka_outbox *o, int64_t row, int64_t bytes, struct err *e);
int kafka_outbox_commit(struct kafka_outbox *o, struct err *e);
void kafka_outbox_rollback(struct kafka_outbox *o);

struct kafka_outbox_row {
    int64_t row, bytes;
    struct record record; /* topic (-1: the config has none of its name), source, key, value,
                           * headers, ts_ms; code below 0: its headers are broken */
    struct headers headers; /* what the record's borrow */
};

/* Calls on_row for the rows from `from` to `to`, in their order, until it returns false. A row is
 * valid during the call. 0 or negative. */
int kafka_outbox_read(struct kafka_outbox *o, int64_t from, int64_t to,
                      bool (*on_row)(void *data, const struct kafka_outbox_row *row), void *data,
                      struct err *e);
/* Calls on_source for each row that has a source in the config. */
int kafka_outbox_sources(struct kafka_outbox *o, void (*on_source)(void *data, struct position at),
                         void *data, struct err *e);
/* Makes the file small when nothing stands in it and much did. */
void kafka_outbox_tidy(struct kafka_outbox *o);
