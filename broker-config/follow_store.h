/* The database behind a follower of Kafka's log: the store's tables, the completions of the feed
 * and the dead letters (an offset is Kafka's own), and how far each partition has been applied, all
 * in one transaction.
 */
#pragma once
#include "base/buf.h"
#include "base/db.h"
#include "broker-config/topics.h"

struct follow_store {
    struct db *db;
    const struct topics *topics; /* borrowed */
    struct db_stmt *get, *set, *feed, *dead, *old;
    struct buf headers; /* of the record in hand */
};

/* Opens (creates) the database in the data directory. ERR_CORRUPT: a foreign, damaged or newer
 * file, left untouched; ERR_INVALID: it holds an embedded log. */
int follow_store_open(struct follow_store *s, const char *dataz, const struct topics *t,
                      struct err *e);
void follow_store_close(struct follow_store *s);
/* Remembers whose log it is. ERR_INVALID when it was another cluster's, or under another prefix. */
int follow_store_claim(struct follow_store *s, const char *clusterz, struct err *e);

/* *next: the partition's next record to apply; -1: none was saved. 0 or negative. */
int follow_store_position(struct follow_store *s, int topic, int32_t partition, int64_t *next,
                          struct err *e);
/* The highest partition of the topic that has a position, or -1. */
int follow_store_last_partition(struct follow_store *s, int topic, int64_t *last, struct err *e);

/* Inside a transaction: */
int follow_store_save(struct follow_store *s, struct position next, struct err *e);
/* Keeps a completion or a dead letter. */
int follow_store_add(struct follow_store *s, const struct record *r, struct err *e);
