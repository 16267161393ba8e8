/* Members: consuming halves of the driver on one loop, that run the jobs they are given; and what
 * became of each job. */
#pragma once
#include "base/list.h"
#include "broker-config/config.h"
#include "broker-config/kafka.h"
#include "tests/broker-config/kafka_rig.h"

enum { JOBS = TOPIC_JOBS, JOBS_MAX = 80000 };

/* What became of a job; the key of its record is its number. */
struct fate {
    int n_started, n_ended;
    int n_after_end;       /* starts after its completion was acknowledged */
    int first_by, last_by; /* processes that started it, */
    int n_moves;           /* and how often it was another than before */
};

/* Shared with children. */
struct tally {
    struct fate fates[JOBS_MAX];
    int n_started, n_ended;
};

struct site {
    struct kafka_rig k;
    int n_partitions; /* of JOBS */
    uv_loop_t loop;
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
    int n_calls, call_ms;           /* deliveries; how long each keeps the loop */
    struct position last; /* newest delivered */
    bool is_out_of_order;
    int64_t next[64]; /* by partition of JOBS */
};

/* configz is added to genq.yaml. Ends the case where there is no Kafka. */
void site_init(struct site *s, int n_partitions, const char *configz);
void site_release(struct site *s);
/* Produces `n` jobs from number `first` on, to all partitions of JOBS in turn. */
void site_put(struct site *s, int first, int n);
void site_put_to(struct site *s, int topic, int32_t partition, const char *keyz);
/* A completion of the record at `source`; `by` is where it stands. */
struct position site_complete(struct site *s, struct position source);
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
/* All that runs ends at once, without completions. */
void member_end_all(struct member *m);
/* Jobs that still run are forgotten. */
void member_close(struct member *m);

/* What kafka_publisher_owes answers. */
extern struct position owed;
