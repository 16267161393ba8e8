/* All partitions of all topics from positions of our own, through one queue: the consumer behind
 * kafka_follow.c. No group, so nothing is ever rebalanced or committed to Kafka. Memory: librdkafka
 * holds 16 MiB of messages in the queue, and one fetch more of each broker. One thread, but for
 * tail_wake. */
#pragma once
#include "broker-config/follow_marks.h"
#include "broker-config/follow_store.h"

struct tail_part {
    struct position next; /* of the record that comes next */
    int64_t first, end;   /* as Kafka last said; -1: not known */
    bool is_touched;      /* the caller's: since its last commit */
    bool is_lost;         /* `next` is not in the log */
};

struct tail_topic {
    int topic;
    rd_kafka_topic_t *handle;
    struct tail_part **parts; /* by partition; each stays where it is */
    size_t n;
};

struct tail {
    rd_kafka_t *kafka;
    rd_kafka_queue_t *queue;
    const struct topics *topics; /* borrowed, as the next two */
    struct follow_store *store;
    struct marks *marks;
    struct tail_topic *topic; /* by number */
    size_t n_topics;
    int64_t look_at_ms; /* monotonic */
    struct err trouble; /* code 0 while Kafka answers and all positions are in the log */
};

/* Waits for Kafka, saying so. Reads the positions from the store, and saves those of partitions that
 * have none yet. ERR_NOT_FOUND: a topic is missing; ERR_INVALID: the positions are of another log.
 * Close it also then. */
int tail_open(struct tail *t, const struct config *c, struct err *e);
void tail_close(struct tail *t);

/* Fills `messages` with up to n, waiting up to wait_ms for the first; they are the caller's. */
size_t tail_take(struct tail *t, rd_kafka_message_t **messages, size_t n, int wait_ms);
struct tail_part *tail_part(const rd_kafka_message_t *m);
/* Where it is time: starts partitions that were added, and asks for the log's ends. May block for
 * seconds while Kafka is away, but for a fifth of the time at most. */
void tail_look(struct tail *t, int64_t mono_ms);
/* Any thread: ends a wait in tail_take. */
void tail_wake(struct tail *t);
