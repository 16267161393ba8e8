/* One partition to its subscription: what its queue has is taken in order while the window has
 * room, and what was finished before this process had it is not delivered. The same for the group's
 * partitions and for the plain readers'. The loop's thread. */
#pragma once
#include "base/list.h"
#include "broker-config/kafka.h"
#include "broker-config/offsets.h"
#include "broker-config/offsets_done.h"

enum { KAFKA_BATCH = 64 };

/* Where a partition's deliveries start: the take-over check's finding (kafka_read.h). */
struct kafka_start {
    int topic;
    int32_t partition;
    int64_t low;              /* oldest that may be unfinished */
    int64_t target;           /* the partition's end when it was looked at */
    int64_t feed_end;         /* completions below have been looked at */
    struct offsets_done done; /* finished at or above low */
};

enum kafka_feed_state {
    FEED_CHECKING, /* nothing is delivered yet */
    FEED_ON,
    FEED_DRAINING, /* revoked: nothing new is delivered, what runs may end */
    FEED_LEAVING   /* revoked: finishes do not count any more */
};

struct kafka_feed {
    struct list node; /* of the group's feeds */
    int topic;
    int32_t partition;
    bool is_plain;
    bool is_table; /* of `scheduled`: all of it is delivered, and none of it committed */
    enum kafka_feed_state state;
    uint64_t serial;         /* its check's: tells it from a feed that had the partition before */
    rd_kafka_queue_t *queue; /* of its messages alone */
    bool has_more;           /* the queue may hold more, and will not signal it */
    bool is_caught_up;
    size_t window;

    struct offsets offsets;
    struct offsets_done done; /* finished, but not taken yet */
    int64_t *early;           /* finished during the check */
    size_t n_early;
    int64_t target, feed_end; /* of its start */
    size_t n_running;         /* draining: how many are still worked on */

    uint64_t n_changes; /* of what a commit says */
    uint64_t n_sent;    /* of these, in the commit on its way; */
    bool is_sent;       /* there is one, of this partition too: */
    int64_t sent_low, sent_end;
    uint64_t n_committed;
    int64_t committed_low;              /* -1: this process has not committed */
    int64_t committed_end;              /* the feed_end that went with it */
    int64_t deleted_low, deleted_at_ms; /* DeleteRecords was last asked */
};

/* Messages on their way to on_records, and as records. One is enough for all feeds. */
struct kafka_batch {
    rd_kafka_message_t *messages[KAFKA_BATCH];
    struct record records[KAFKA_BATCH];
    bool is_owed[KAFKA_BATCH]; /* the outbox has what finishes it: taken, not delivered */
    size_t n, n_records;
};

/* Takes the queue. is_plain: it is not the group's, and nothing of it is committed. */
struct kafka_feed *kafka_feed_new(int topic, int32_t partition, bool is_plain,
                                  rd_kafka_queue_t *queue);
void kafka_feed_free(struct kafka_feed *f);
/* The check is done; takes s->done. */
void kafka_feed_start(struct kafka_feed *f, struct kafka_start *s);

/* How many more may be taken. */
size_t kafka_feed_room(const struct kafka_feed *f);
/* Fills the empty batch from the queue, as far as there is room. */
void kafka_feed_fetch(struct kafka_feed *f, const struct topics *t, struct kafka_batch *b);
/* Takes what the batch has; b->records[0..n_records) are then those to be delivered. */
void kafka_feed_take(struct kafka_feed *f, struct kafka_batch *b);
void kafka_batch_clear(struct kafka_batch *b);

/* Also of records that were not delivered yet. False: it was finished before, or does not count
 * any more. */
bool kafka_feed_finish(struct kafka_feed *f, int64_t offset);

static inline bool kafka_feed_is_dirty(const struct kafka_feed *f)
{
    return !f->is_plain && f->n_changes != f->n_committed;
}
