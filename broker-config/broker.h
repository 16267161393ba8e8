/* The broker: an append-only log with topics, partitions and offsets; Kafka's model, and the same in
 * SQLite (one partition a topic). No type of a library crosses this interface; every driver passes
 * tests/contract/broker.
 *
 * Finishing. Records of a work topic (jobs.*, scheduled, control) are delivered to the one
 * subscription until they are finished. What takes a record's place names it as its `source`: when
 * the publish is durable, the source is finished and never delivered again, also after kill -9
 * between any two steps (SQLite: one transaction; Kafka: the take-over check). A record that nothing
 * takes the place of is finished with broker_finish. Records of completions and meta stay: finishing
 * one only opens the window; records of dead go when finished.
 *
 * `scheduled` in a shared log is a table: a record holds until a later one of its key, and one
 * without a value takes it away. Nobody counts who finished what there: whoever gets a partition is
 * given all of it, from the oldest record on and without a window, and finishing does nothing.
 *
 * The hook. Where store and log share one database (embedded), the driver calls `apply` for every
 * record inside the append's transaction. */
#pragma once
#include "base/clock.h"
#include "base/err.h"
#include "broker-config/topics.h"
#include <uv.h>

struct broker;
struct db;

/* Called on the driver's writer thread, in this order for each transaction: apply for each record,
 * flush once, then committed once. */
struct broker_hooks {
    /* The record is about to be appended at r->at. 0: append it. A verdict (ERR_EXISTS, ERR_CONFLICT,
     * ERR_INVALID, ERR_NOT_FOUND, ERR_TOO_LARGE): do not append; this code (and r->detail, if set) is
     * the record's result, whatever else was written to `db` stays, and its source is finished all
     * the same. Any other code: it could not be judged, and its whole publish fails with that code;
     * others of the transaction are applied again in another one. */
    int (*apply)(void *data, struct db *db, struct record *r);
    /* Last chance to write before COMMIT. 0, or negative: roll back. */
    int (*flush)(void *data, struct db *db);
    /* is_ok: all of it is durable; else nothing of it is there. */
    void (*committed)(void *data, bool is_ok);
    void *data;
};

/* Whether apply's code turns the record away. */
static inline bool broker_is_verdict(int code)
{
    return code == ERR_EXISTS || code == ERR_CONFLICT || code == ERR_INVALID ||
           code == ERR_NOT_FOUND || code == ERR_TOO_LARGE;
}

/* A disk that is full or broken is no record's own fault. */
static inline bool broker_is_disk_failure(int code)
{
    return code == ERR_FULL || code == ERR_IO || code == ERR_CORRUPT || code == ERR_BUSY;
}

/* One publish: n records, appended in this order, all or nothing but for records that `apply`
 * turned away. Owned by the broker from broker_publish until on_ack. With Kafka it is not all or
 * nothing: one that failed may be there in part, or whole (publish again with the same ids); a
 * record too large for it fails alone; and one that finishes a source may be durable in this
 * process's outbox instead of the log: code 0, at.offset -1. */
struct publish {
    struct record *records; /* the bytes in them must stay until on_ack */
    size_t n;
    /* Exactly once, on a thread of the broker, once durable (code 0; see each record's code and
     * at.offset) or failed (code < 0, nothing was appended). May only hand over: post to an inbox,
     * resume a connection, publish. Owns p again. */
    void (*on_ack)(struct publish *p, int code);
    bool is_patient; /* a busy log may let it wait 5 ms for company (a lone one never waits) */
    struct publish *next; /* the broker's */
};

struct subscription {
    /* Records in offset order per partition, on the loop's thread. Bytes are valid during the call. */
    void (*on_records)(void *data, const struct record *records, size_t n);
    /* All that was in the topic at the time of subscribing has been delivered (or the window is
     * full). Once a topic; of a table (`scheduled` in a shared log) also after each on_given. NULL
     * allowed. */
    void (*on_caught_up)(void *data, int topic);
    /* Records cannot be read; the driver goes on trying, and tells each time. ERR_CORRUPT: they
     * never will be. NULL allowed. */
    void (*on_failed)(void *data, int code);
    void *data;
    size_t window; /* deliver no more while this many of a topic are delivered and unfinished */
    /* The partition goes to another process: forget what has not started; gives how many of its
     * records are still being worked on, and may be finished for a while. They may come again,
     * here too. NULL: none ever are. */
    size_t (*on_revoked)(void *data, int topic, int partition);
    /* A table's partition comes to this process: all of it follows. NULL allowed. */
    void (*on_given)(void *data, int topic, int partition);
    /* In a shared log, before records of a partition come that another process may have had: a job
     * that ended lately, which may come again, under its name, from a client that repeated it.
     * `digest`: the job's in hex, or "" where its completion does not tell. One subscription of those
     * that ask for it is told. NULL allowed. */
    void (*on_ended)(void *data, struct str tenant, struct str id, struct str digest);
};

struct broker_read {
    const int64_t *offsets; /* increasing; borrowed until on_read */
    size_t n;
    int topic;
    int32_t partition;
    /* On the loop's thread, once; records that are not there any more are left out. Bytes are valid
     * during the call. */
    void (*on_read)(struct broker_read *r, const struct record *records, size_t n);
    int code;                 /* in on_read: 0, or why nothing could be read (n is 0) */
    struct broker_read *next; /* the broker's */
};

struct broker_stat {
    int64_t first, end;  /* offsets: oldest kept, one past the newest */
    int64_t n_waiting;   /* records not finished yet; of a follower of Kafka: not applied yet */
};

struct broker_options {
    const struct config *config;
    const struct topics *topics;
    struct broker_hooks hooks; /* apply == NULL: none */
    uv_loop_t *loop;           /* deliveries come on this loop's thread */
    size_t max_pending_bytes;  /* of publishes not yet durable; past it: ERR_FULL. 0: 64 MiB */
};

struct broker_ops {
    const char *namez;
    /* Others publish to this log too, and what `apply` turned away stays in it: a job may come
     * twice, and a job that has ended may come. */
    bool is_shared;
    /* Opens the log in config->data (which the caller has locked). ERR_CORRUPT: a foreign or damaged
     * file, left untouched; ERR_IO; ERR_FULL. */
    struct broker *(*open)(const struct broker_options *o, struct err *e);
    /* Any thread. 0: taken, on_ack will come; ERR_FULL or ERR_CLOSED: not taken, no on_ack. */
    int (*publish)(struct broker *b, struct publish *p);
    /* Loop's thread; at most one subscription a topic. Deliveries start at the oldest unfinished. */
    int (*subscribe)(struct broker *b, int topic, const struct subscription *s, struct err *e);
    /* Loop's thread. Finishes a delivered record without putting anything in its place. Durable soon
     * (within 50 ms), not at once. */
    void (*finish)(struct broker *b, struct position at);
    /* Loop's thread. */
    int (*read)(struct broker *b, struct broker_read *r);
    /* Any thread; from memory. */
    void (*stat)(struct broker *b, int topic, struct broker_stat *out);
    /* Any thread: code 0 while the last write went well, else what it failed with. ERR_CORRUPT
     * stays: nothing is written to a damaged log. */
    int (*health)(struct broker *b, struct err *e);
    /* Loop's thread: makes durable what was published, acknowledges it, stops. Callbacks may still
     * come until it returns; none after. */
    void (*close)(struct broker *b);
};

/* Every driver's struct broker starts with this. */
struct broker {
    const struct broker_ops *ops;
    /* Of a shared log, by clock_boot_ms: until then what was delivered is this process's to start.
     * The driver moves it on while it knows so; past it another process may have it. Loop's
     * thread. */
    int64_t lease_ms;
};

/* Opens the driver that config->broker_kind names. */
struct broker *broker_open(const struct broker_options *o, struct err *e);

static inline bool broker_is_shared(const struct broker *b)
{
    return b->ops->is_shared;
}

/* Ask before each start, not once for many: the process may have been stopped in between. */
static inline bool broker_has_lease(const struct broker *b)
{
    return !b->ops->is_shared || clock_boot_ms() < b->lease_ms;
}

static inline int broker_publish(struct broker *b, struct publish *p)
{
    return b->ops->publish(b, p);
}

static inline int broker_subscribe(struct broker *b, int topic, const struct subscription *s,
                                   struct err *e)
{
    return b->ops->subscribe(b, topic, s, e);
}

static inline void broker_finish(struct broker *b, struct position at)
{
    b->ops->finish(b, at);
}

static inline int broker_read(struct broker *b, struct broker_read *r)
{
    return b->ops->read(b, r);
}

static inline void broker_stat(struct broker *b, int topic, struct broker_stat *out)
{
    b->ops->stat(b, topic, out);
}

static inline int broker_health(struct broker *b, struct err *e)
{
    return b->ops->health(b, e);
}

static inline void broker_close(struct broker *b)
{
    b->ops->close(b);
}

/* What a publish counts against max_pending_bytes: its bytes, and some for each record. For the
 * drivers. */
static inline size_t broker_publish_bytes(const struct publish *p)
{
    enum { RECORD_BYTES = 64 };
    size_t bytes = 0, i;
    int h;

    for (i = 0; i < p->n; i++) {
        bytes += RECORD_BYTES + p->records[i].key.n + p->records[i].value.n;
        for (h = 0; h < HEADER_COUNT_; h++)
            bytes += p->records[i].headers[h].n;
    }
    return bytes;
}
