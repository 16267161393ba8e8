/* broker_sqlite's way back to the loop: rows for the subscriptions, window by window, and
 * answers to reads. All calls are the writer thread's, but for what says otherwise. */
#pragma once
#include "base/inbox.h"
#include "broker-config/broker.h"
#include "broker-config/offsets.h"
#include "broker-config/sqlite_log.h"
#include <stdatomic.h>

/* One topic's deliveries. */
struct feed {
    struct subscription s;
    bool is_on, is_caught_up;
    int64_t cursor;      /* next offset to look at */
    int64_t target;      /* the topic's end when subscribed */
    int64_t retry_at_ms; /* after a failed read */
    struct offsets window;
    atomic_int n_out;    /* batches on their way; the loop counts them down */
};

struct feeds {
    struct sqlite_log *log;
    struct inbox *inbox;
    struct feed *feed; /* by topic */
    size_t n;
    struct rows rows;
    void (*nudge)(void *data); /* the loop's: a place for a batch that was missing is there */
    void *data;
    bool is_stopping; /* the loop's: deliveries are dropped from now on */
};

/* When feeds_deliver is worth another call. */
struct feeds_next {
    bool is_now;         /* more can be sent at once */
    size_t wake_after;   /* so many finishes make room in a full window; 0: none is full */
    int64_t retry_at_ms; /* a read failed, monotonic; 0: none did */
};

void feeds_init(struct feeds *f, struct sqlite_log *log, struct inbox *inbox,
                void (*nudge)(void *data), void *data);
void feeds_release(struct feeds *f);

/* Starts the topic's deliveries at its oldest record. */
void feeds_start(struct feeds *f, int topic, const struct subscription *s);
/* Sends at most a batch a topic, and says what comes next. */
struct feeds_next feeds_deliver(struct feeds *f);
/* A delivered record leaves its window. Others are ignored. */
void feeds_finish(struct feeds *f, struct position at);
/* Answers the list of reads. */
void feeds_read(struct feeds *f, struct broker_read *reads);
