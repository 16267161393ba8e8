/* A Kafka of its own is given by $KAFKA_SERVERS; here are topics of its own for each case, a plain
 * producer, and members: consuming halves of the driver on one loop, that run what they are given.
 */
#pragma once
#include "base/list.h"
#include "broker-config/config.h"
#include "broker-config/kafka.h"
#include "tests/lib/test.h"

enum { JOBS = TOPIC_JOBS, JOBS_MAX = 40000 };

/* What became of a job; the key of its record is its number. */
struct fate {
    int n_started, n_ended;
    int n_after_end; /* starts after its completion was acknowledged */
};

/* Shared with children. */
struct tally {
    struct fate fates[JOBS_MAX];
    int n_started, n_ended;
};

struct site {
    char prefix[32];
    struct config *config;
    struct topics *topics;
    uv_loop_t loop;
    rd_kafka_t *producer;
    struct tally *tally;
};

struct running {
    struct list node;
    uv_timer_t timer;
    struct member *member;
    struct position at;
    int job;
    bool is_forgotten; /* its member has gone */
};

struct member {
    struct site *site;
    struct kafka_group *group;
    size_t window;
    int run_ms;          /* a job's longest time; 0: never ends; -1: ends without a completion */
    struct list running; /* struct running */
    int n_seen, n_caught_up, n_revoked;
    struct position last; /* newest delivered */
    bool is_out_of_order;
    int64_t next[64]; /* by partition of JOBS */
};

/* `config` is added to genq.yaml. False: no Kafka here, the case is over. */
bool site_init(struct site *s, int n_partitions, const char *configz);
void site_release(struct site *s);
/* A producer of its own for a child: threads do not survive fork. */
void site_reconnect(struct site *s);
/* Produces `n` jobs from number `first` on, to all partitions of JOBS in turn. */
void site_put(struct site *s, int first, int n);
void site_put_to(struct site *s, int topic, int32_t partition, const char *keyz);
/* A completion of the record at `source`; `by` is where it stands. */
struct position site_complete(struct site *s, struct position source);
void site_flush(struct site *s);
/* Turns the loop for ms; or until it is so, for 30 s at most. */
void site_run(struct site *s, int ms);
#define SITE_UNTIL(s, cond) \
    do { \
        for (int turns_ = 0; !(cond) && turns_ < 3000; turns_++) \
            site_run((s), 10); \
        CHECK(cond); \
    } while (0)

void member_open(struct member *m, struct site *s, size_t window, int run_ms);
void member_subscribe(struct member *m, int topic);
/* Jobs that still run are forgotten. */
void member_close(struct member *m);

/* What kafka_publisher_owes answers. */
extern struct position owed;
