/* The inside of struct kafka_group, for the files that are its roles: kafka_group.c (subscriptions,
 * deliveries, finishes), kafka_feeds.c (the partitions it has), kafka_member.c (the membership:
 * what it is assigned and must give up), kafka_gate.c (how long that is sure), kafka_commit.c (what
 * it has finished, told to Kafka) and kafka_report.c (what others may ask). One loop thread, but where marked. */
#pragma once
#include "base/inbox.h"
#include "broker-config/kafka_feed.h"
#include "broker-config/kafka_read.h"
#include <stdatomic.h>

/* Told by librdkafka's own threads. A commit that meets a rejoin is answered too late, and makes
 * 2.0.2 lose every partition (librdkafka issue 4059): none is sent from JoinGroup to SyncGroup. */
struct kafka_gate {
    atomic_bool is_joining;
    atomic_bool is_answered; /* a request was, after the last trouble */
    /* By clock_boot_ms: when the last SyncGroup or Heartbeat was sent; the newest of them that the
     * group's coordinator took for a member's, 0: none. */
    _Atomic int64_t beat_ms, proven_ms;
    atomic_bool is_beat_answered;
};

/* A topic of this process: by number. */
struct kafka_topic {
    struct subscription s;
    bool is_on, is_plain, is_caught_up;
    bool is_assigned;          /* an assignment has come since it was subscribed to */
    struct kafka_feed **feeds; /* by partition; NULL: not ours */
    size_t room, n_feeds;
    rd_kafka_topic_t *reader; /* of a plain reader */
    struct {
        _Atomic int64_t first, end, n_waiting;
    } stat;
};

/* A record was finished by another one. */
struct kafka_note {
    struct position source, by;
};

struct kafka_notes {
    struct kafka_note *at;
    size_t n, room;
};

/* Partitions that must be given up, while what runs of them ends. */
struct kafka_revoke {
    rd_kafka_topic_partition_list_t *partitions; /* NULL: none */
    bool is_told;     /* the subscriptions know, and what runs ends; then */
    bool is_leaving;  /* the rest is committed; then they are given up, */
    bool is_given_up; /* which lost ones are at once */
    int64_t over_ms;  /* monotonic: when no more is waited for */
};

struct kafka_group {
    const struct config *config;
    const struct topics *topics;
    struct kafka_publisher *publisher;
    uv_loop_t *loop;

    rd_kafka_t *member, *plain;       /* made when first needed */
    rd_kafka_queue_t *main, *answers; /* the member's: rebalances, errors; commits, deletions */
    struct kafka_topic *topic;        /* by topic */
    size_t n_topics;
    struct list feeds;
    struct kafka_batch *batch;
    struct kafka_reader *reader;
    struct inbox *inbox; /* the reader's answers */

    int wake_fd; /* written to when a queue of librdkafka's has something */
    uv_poll_t wake;
    uv_async_t again;      /* another turn, from any thread */
    uv_timer_t tick, soon; /* all the time; when there is something to commit */
    int n_handles;

    uint64_t serial;  /* of the last check */
    int64_t feed_end; /* after the last completion that was noted */
    bool is_behind;   /* a slice ended before all was delivered: the next one is on_again's */
    bool is_subscribe_due, is_subscribed;
    bool has_assignment; /* one has come since the start */
    bool is_unassigned;  /* partitions were given up; the next assignment has not come */
    bool is_closing, is_closed;
    struct kafka_revoke revoke;
    int64_t drain_max_ms; /* half of max.poll.interval.ms */

    struct kafka_gate gate;
    int64_t session_ms;
    int64_t lease_ms;       /* by clock_boot_ms: until when the partitions are surely ours, */
    bool is_sure;           /* as was logged */
    int64_t *lease_told_ms; /* as broker.h says; NULL: nobody asks */
    bool is_committing, is_deleting;
    int64_t commit_at_ms;           /* not before, monotonic */
    rd_kafka_resp_err_t commit_err; /* of the last one, once logged */

    struct kafka_notes spare; /* room for the next */
    uv_mutex_t lock;
    /* under lock */
    struct kafka_notes notes;
    struct err health;
    bool is_fatal; /* it stays so */
};

/* ---- kafka_group.c ---- */
void kafka_group_again(struct kafka_group *g); /* another turn; any thread */
/* The loop has a turn when the queue, which was empty, has something. */
void kafka_group_listen(struct kafka_group *g, rd_kafka_queue_t *queue);
void kafka_group_apply_notes(struct kafka_group *g);

/* ---- kafka_feeds.c ---- */
/* NULL: it is not ours. */
struct kafka_feed *kafka_group_feed(const struct kafka_group *g, int topic, int32_t partition);
/* Takes the queue. */
struct kafka_feed *kafka_group_add_feed(struct kafka_group *g, int topic, int32_t partition,
                                        bool is_plain, rd_kafka_queue_t *queue);
void kafka_group_remove_feed(struct kafka_group *g, struct kafka_feed *f);
/* Has the feeds' starts looked up; they are delivered then. Takes check. */
void kafka_group_check(struct kafka_group *g, struct kafka_check *check);

/* ---- kafka_report.c ---- */
void kafka_group_store_stats(struct kafka_group *g);
void kafka_group_set_health(struct kafka_group *g, rd_kafka_resp_err_t err, const char *whyz);
/* Of a silence from the very start librdkafka tells late. */
void kafka_group_await_answer(struct kafka_group *g);

/* ---- kafka_member.c ---- */
int kafka_member_open(struct kafka_group *g, struct err *e);
/* Errors of a client to be made come to kafka_group_set_health, what it sends to the gate. */
void kafka_member_watch(struct kafka_group *g, rd_kafka_conf_t *conf);
void kafka_member_subscribe(struct kafka_group *g);
/* Rebalances and errors that have come. */
void kafka_member_serve(struct kafka_group *g);
/* Goes on with a revocation. */
void kafka_member_progress(struct kafka_group *g);
/* Leaves the group; blocks for some seconds at most. */
void kafka_member_leave(struct kafka_group *g);

/* ---- kafka_part.c ---- */
/* Destroys a member, on a thread of its own: librdkafka waits there for its other threads, and one
 * that lost its group while the process was stopped has been seen to wait for ever. False: it was
 * not over after five seconds, and is left to the process's end, with all that its callbacks use. */
bool kafka_part(rd_kafka_t *member);

/* ---- kafka_gate.c ---- */
void kafka_gate_watch(struct kafka_gate *gate, rd_kafka_conf_t *conf);
/* Moves the lease on. Once a turn, at its start. */
void kafka_gate_renew(struct kafka_group *g);
/* Asked before each delivery. */
bool kafka_gate_has_lease(const struct kafka_group *g);
/* Logs that it began or ended. */
void kafka_gate_tell(struct kafka_group *g);

/* ---- kafka_commit.c ---- */
/* Sends what has changed, unless a commit is on its way or must not be sent now. */
void kafka_commit_send(struct kafka_group *g);
/* Takes answers that have come within ms. */
void kafka_commit_serve(struct kafka_group *g, int ms);
/* Commits idle partitions whose feed_end has become old, and deletes what no one needs. */
void kafka_commit_tick(struct kafka_group *g);
/* Commits what there is; blocks for two seconds at most. */
void kafka_commit_last(struct kafka_group *g);
