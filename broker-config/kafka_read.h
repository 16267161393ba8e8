/* A thread with a consumer of its own that may wait for Kafka: records by their offsets, and what a
 * partition's deliveries start from. Answers come on the loop's thread. */
#pragma once
#include "base/buf.h"
#include "base/inbox.h"
#include "broker-config/kafka_feed.h"

struct kafka_reader;

/* The take-over check of some partitions. Each start's topic and partition are given; the rest is
 * found out: of the group's partitions the last commit, and which records the completions since
 * then have finished. Nothing of a partition may run before it is known. */
struct kafka_check {
    struct message m;         /* first; its on_receive is called on the loop when all is found */
    struct kafka_check *next; /* the reader's */
    rd_kafka_t *member;       /* the group's consumer, asked for its commits; NULL: plain readers */
    bool is_found;            /* false: the reader was closed before */
    void *data;               /* the owner's, with serial */
    uint64_t serial;
    struct buf ended; /* names of jobs whose completion was read: tenant/id/digest and a line's end each */
    size_t n;
    struct kafka_start starts[];
};

struct kafka_check *kafka_check_new(size_t n);
void kafka_check_free(struct kafka_check *c);

/* Borrows all three. */
struct kafka_reader *kafka_reader_open(const struct config *c, const struct topics *t,
                                       struct inbox *inbox, struct err *e);
void kafka_reader_read(struct kafka_reader *r, struct broker_read *read);
void kafka_reader_check(struct kafka_reader *r, struct kafka_check *check); /* takes check */
/* Ends the thread, in about a second where Kafka is away. All that was asked is answered: the
 * answers are in the inbox then. */
void kafka_reader_stop(struct kafka_reader *r);
/* After the inbox has handled them. */
void kafka_reader_free(struct kafka_reader *r);

/* ---- between kafka_read.c and kafka_check.c; the reader's thread ---- */

/* Reading one partition from an offset on. */
struct kafka_scan {
    rd_kafka_topic_t *topic; /* NULL: none is open */
    int32_t partition;
};

bool kafka_reader_is_over(struct kafka_reader *r); /* closing, and no time is left */
void kafka_reader_pause(struct kafka_reader *r);   /* after a failure, before the next try */
int kafka_scan_open(struct kafka_reader *r, struct kafka_scan *s, int topic, int32_t partition,
                    int64_t from);
void kafka_scan_close(struct kafka_scan *s);
/* A partition's oldest kept offset, and the one past its newest. */
struct kafka_bounds {
    int topic;
    int32_t partition;
    int64_t first, end;
};

/* Asks for first and end of n partitions: in 2 s each, or the error. */
rd_kafka_resp_err_t kafka_reader_bounds(struct kafka_reader *r, struct kafka_bounds *b, size_t n);
/* False: the reader is over. */
bool kafka_check_run(struct kafka_reader *r, const struct topics *t, struct kafka_check *check);
