/* Private to the files of the Kafka driver, the ones that may include rdkafka.h: clients made from
 * the config, records to messages and back, and the seams between the driver's parts.
 *
 *     kafka_publish.c  records into topics, acknowledged: kafka_parcel.c (results), kafka_sender.c
 *                      (producers), kafka_keep.c (what must not be lost while Kafka is away),
 *                      kafka_outbox.c (its file), kafka_owed.c (the sources it finishes)
 *     kafka_group.c    subscriptions: the consumer group over job topics and `scheduled`, plain
 *                      readers of the others; kafka_member.c: rebalances; kafka_commit.c: commits;
 *                      kafka_gate.c: what librdkafka's threads tell of the membership
 *     kafka_feed.c     one partition to a subscription: window, order, offsets
 *     kafka_read.c     records looked up by offset, on a thread of its own, and there
 *                      kafka_check.c: what was finished before a partition came to this process
 *     kafka_follow.c   all topics into the store, on a thread of its own (where there are hooks);
 *                      kafka_tail.c its consumer, follow_store.c its database, follow_marks.c how
 *                      far it has come, and who waits for that
 *     broker_kafka.c   the driver: these parts behind broker.h */
#pragma once
#include "broker-config/broker.h"
#include <librdkafka/rdkafka.h>

/* ---- clients (kafka_client.c) ---- */

enum kafka_role { KAFKA_PRODUCER, KAFKA_CONSUMER };

/* Properties of the config for this role, ours under them; its log goes to ours, opaque is `data`.
 * NULL and *e naming the property that librdkafka refuses. Taken by kafka_client_new, else
 * rd_kafka_conf_destroy. */
rd_kafka_conf_t *kafka_conf(const struct config *c, enum kafka_role role, void *data,
                            struct err *e);
/* Sets a property that must hold, whatever the config says. ERR_INVALID. */
int kafka_conf_set(rd_kafka_conf_t *conf, const char *namez, const char *valuez, struct err *e);
/* Sets a consumer's property unless the config says it. ERR_INVALID. */
int kafka_conf_default(rd_kafka_conf_t *conf, const struct config *c, const char *namez,
                       const char *valuez, struct err *e);
/* Takes conf also on failure. */
rd_kafka_t *kafka_client_new(enum kafka_role role, rd_kafka_conf_t *conf, struct err *e);

/* Tells of a login that this librdkafka cannot make at newer Kafkas. Before the first client. */
void kafka_warn_of_scram(const struct config *c);

/* Largest record, in bytes: limits.record_bytes, or what it stands for. */
int64_t kafka_record_bytes(const struct config *c);

/* librdkafka's error as ours. */
int kafka_code(rd_kafka_resp_err_t err);
int kafka_fail(struct err *e, rd_kafka_resp_err_t err, const char *whatz);

/* ---- records and messages (kafka_record.c) ---- */

/* The message as a record of `topic`; its bytes are the message's. Of headers of one name the last
 * counts; others are left out. source is what the genq_source header says where that is a topic
 * of ours, else none. */
void kafka_record(const struct topics *t, int topic, const rd_kafka_message_t *m, struct record *r);
/* Hands r to the producer: r->at.topic, key, value, headers, ts_ms (0: now); genq_source is added
 * where r->source is one and the header is not there. The value's bytes must stay until the
 * delivery report, unless is_copy. `opaque` comes back in the report. */
rd_kafka_resp_err_t kafka_produce(rd_kafka_t *rk, const struct topics *t, const struct record *r,
                                  bool is_copy, void *opaque);
/* What a broker counts against its largest message, or some bytes more. */
size_t kafka_record_size(const struct topics *t, const struct record *r);

/* ---- publishing (kafka_publish.c) ---- */

struct kafka_publisher;
struct kafka_follow;

struct kafka_publisher_options {
    const struct config *config;
    const struct topics *topics;
    size_t max_pending_bytes;
    struct kafka_follow *follow; /* its verdicts become the records' codes; NULL: there is none */
    /* A source was finished: the record that takes its place is durable at `by`. In the order of
     * acknowledgement; on the publisher's thread, before the publish's on_ack. */
    void (*on_finished)(void *data, struct position source, struct position by);
    void *data;
};

/* Opens the outbox in the data directory, too. ERR_INVALID (a property), ERR_CORRUPT, ERR_IO,
 * ERR_FULL. */
struct kafka_publisher *kafka_publisher_open(const struct kafka_publisher_options *o,
                                             struct err *e);
/* From now on records are sent, those of the outbox first, and callbacks come. ERR_IO. */
int kafka_publisher_start(struct kafka_publisher *p, struct err *e);
/* Any thread; as broker.h says. A publish with a source never fails while its records can be kept:
 * a second after Kafka went silent they are written to the outbox and acknowledged (at.offset -1;
 * the follower is not waited for). ERR_FULL also when the outbox is at limits.outbox_bytes or its
 * disk refuses it. Others fail with ERR_TIMEOUT after 30 s (message.timeout.ms). */
int kafka_publisher_publish(struct kafka_publisher *p, struct publish *publish);
/* Whether the record that finishes `source` is on its way to Kafka, in memory or in the outbox: its
 * job must not run again. True until on_finished has returned. */
bool kafka_publisher_owes(struct kafka_publisher *p, struct position source); /* any thread */
int kafka_publisher_health(struct kafka_publisher *p, struct err *e);         /* any thread */
/* Waits for what is on its way (2 s at most; then what has a source goes to the outbox, and the
 * rest fails with ERR_CLOSED) and for the follower, which is still open; no callback comes after
 * it. */
void kafka_publisher_close(struct kafka_publisher *p);

/* ---- consuming (kafka_group.c) ---- */

struct kafka_group;

struct kafka_group_options {
    const struct config *config;
    const struct topics *topics;
    uv_loop_t *loop;
    struct kafka_publisher *publisher; /* asked whether it owes a source */
    int64_t *lease_ms;                 /* the broker's, kept up to date; NULL allowed */
};

/* Loop's thread, but where marked. The group is "<prefix>.workers". */
struct kafka_group *kafka_group_open(const struct kafka_group_options *o, struct err *e);
int kafka_group_subscribe(struct kafka_group *g, int topic, const struct subscription *s,
                          struct err *e);
void kafka_group_finish(struct kafka_group *g, struct position at);
/* Any thread: `source` is finished, by the record at `by`. */
void kafka_group_note(struct kafka_group *g, struct position source, struct position by);
int kafka_group_read(struct kafka_group *g, struct broker_read *r);
/* Any thread; summed over the partitions that this process has, half a second old at most. `first`
 * is of job topics the oldest unfinished. */
void kafka_group_stat(struct kafka_group *g, int topic, struct broker_stat *out);
int kafka_group_health(struct kafka_group *g, struct err *e); /* any thread */
void kafka_group_close(struct kafka_group *g);

/* ---- following (kafka_follow.c) ---- */

struct kafka_follow_options {
    const struct config *config;
    const struct topics *topics;
    struct broker_hooks hooks; /* apply is set */
};

/* Waits until one record has been applied to the store and committed there. */
struct kafka_waiter {
    struct position at;
    int code, detail; /* apply's verdict */
    void (*on_applied)(struct kafka_waiter *w);
    struct kafka_waiter *next; /* follow's */
    int64_t deadline_ms;       /* follow's */
};

/* Waits for Kafka, saying so. ERR_NOT_FOUND: a topic is missing. config->data must hold this log's
 * copy, or nothing: ERR_INVALID where it is another log's, or an embedded one; ERR_CORRUPT. Until
 * kafka_follow_close nobody else may write to the database there. */
struct kafka_follow *kafka_follow_open(const struct kafka_follow_options *o, struct err *e);
/* Any thread. on_applied comes once, in this call or on the follow's thread; when the store lags by
 * more than 10 s, or closes, with code 0: the record is in the log. */
void kafka_follow_wait(struct kafka_follow *f, struct kafka_waiter *w);
/* Any thread. Sums over the partitions; n_waiting: records that are not in the store yet, which is
 * this process' lag (how many jobs wait, the store knows: store_unfinished). */
void kafka_follow_stat(struct kafka_follow *f, int topic, struct broker_stat *out);
int kafka_follow_health(struct kafka_follow *f, struct err *e); /* any thread */
void kafka_follow_close(struct kafka_follow *f);
