/* Private to kafka_publish.c, kafka_parcel.c and kafka_keep.c: one publisher, in three nouns. All
 * of it is the publisher's thread's, but what stands under `lock`. */
#pragma once
#include "base/list.h"
#include "broker-config/kafka_outbox.h"
#include "broker-config/kafka_owed.h"
#include "broker-config/kafka_sender.h"
#include "broker-config/pace.h"

struct parcel;

/* One record on its way. */
struct item {
    struct kafka_waiter waiter; /* first */
    struct list node;           /* in flying or waiting, when its parcel is kept */
    struct parcel *parcel;
    struct record *record; /* NULL: its owner has its result, or was another process */
    struct position source;
    int topic;
    int64_t row, bytes; /* in the outbox; row 0: not there */
    int64_t sent_ms;
    bool is_over; /* Kafka has it, or refused it */
};

/* A publish on its way, or what is left of one; or a row of the outbox. */
struct parcel {
    struct list node;        /* in unsent or kept, while a kept one is not acknowledged */
    struct publish *publish; /* NULL: acknowledged */
    struct kafka_publisher *p;
    size_t n, n_left; /* items; those without a result, and one while they are handed over */
    size_t n_held;    /* items that are not at their end, and one for the publish */
    int code;         /* first failure of the publish */
    bool is_kept;
    int64_t taken_us;
    struct item items[];
};

struct gone {
    int64_t row, bytes;
};

/* What finishes a source (kafka_keep.c). */
struct keep {
    struct kafka_outbox outbox;
    struct list unsent;  /* parcels not sent yet */
    struct list kept;    /* parcels sent, not acknowledged to their owner */
    struct list flying;  /* items with the sender, oldest first */
    struct list waiting; /* items that failed, to be sent again at retry_ms */
    int64_t cursor;      /* rows up to this one were sent, or are about to be sent again */
    int64_t held_bytes;  /* of rows that are flying or waiting */
    struct gone *gone;   /* rows that Kafka has, to be deleted */
    size_t n_gone, gone_room;
    int64_t retry_ms, disk_retry_ms; /* monotonic */
    bool is_closing, is_purging;
    bool is_disk_bad;
};

struct kafka_publisher {
    struct kafka_publisher_options o;
    size_t max_pending;
    int64_t record_bytes;
    int wake_fd;
    bool is_started;
    struct kafka_owed owed; /* sources whose records are not in Kafka yet */

    pthread_mutex_t lock;
    /* under lock */
    struct publish *arrived, **arrived_end;
    int64_t
        ready_us; /* monotonic: when those that arrived are sent; patient ones wait for company */
    struct pace pace;
    struct kafka_waiter *applied; /* came back from the follower */
    size_t pending_bytes;
    int64_t kept_bytes, stored_bytes; /* of what may need the outbox, and of what stands there */
    bool is_closing, is_outbox_bad;
    struct err health;

    /* the thread's */
    pthread_t thread;
    struct kafka_sender brief, patient;
    struct keep keep;
    int64_t sent_us;         /* when the last group was sent */
    size_t n_open;           /* publishes without their acknowledgement */
    int64_t success_ms;      /* when the last record was delivered */
    int64_t probe_at_ms;     /* while health is bad */
    int64_t look_at_ms;      /* when those that wait for company are ready; 0: none does */
    const char *lost_topicz; /* what health is bad for; NULL: all of Kafka */
};

/* ---- kafka_publish.c ---- */

void publisher_wake(struct kafka_publisher *p);                             /* any thread */
void publisher_note_health(struct kafka_publisher *p, const struct err *e); /* NULL: good */
void publisher_note_failure(struct kafka_publisher *p, int topic, rd_kafka_resp_err_t err);

/* ---- kafka_parcel.c: what becomes of records ---- */

struct parcel *parcel_new(struct kafka_publisher *p,
                          struct publish *publish); /* NULL: of one row */
void parcel_release(struct parcel *c);              /* all its items were handed over */
/* The record has its result. */
void item_settle(struct item *i, int code);
/* Nobody holds the item any more. */
void item_end(struct item *i);
void item_deliver(struct item *i, int32_t partition, int64_t offset);
/* For good. is_its_own: the record failed, not the publish. */
void item_fail(struct item *i, int code, bool is_its_own);
void items_applied(struct kafka_waiter *w);

/* ---- kafka_keep.c ---- */

bool is_kept(const struct publish *p);
int keep_open(struct kafka_publisher *p, struct err *e);
void keep_close(struct kafka_publisher *p);
void keep_add(struct kafka_publisher *p, struct parcel *c);
void keep_turn(struct kafka_publisher *p);
int64_t keep_deadline(const struct kafka_publisher *p); /* monotonic ms; 0: none */
void keep_on_report(struct kafka_publisher *p, struct item *i, const rd_kafka_message_t *m);
/* Writes what is kept to the outbox, whatever Kafka does; what cannot be written fails. */
void keep_give_up(struct kafka_publisher *p);
