/* The rig of the broker's conformance suite: a driver from the table, a loop, and what was
 * delivered. A new driver is one row in broker_rig.c; the cases in broker.c and broker_crash.c
 * run on all of them: where $KAFKA_SERVERS is set, on those that need it, else on the others. */
#pragma once
#include "broker-config/broker.h"
#include "broker-config/config.h"
#include "tests/lib/test.h"

struct driver {
    const char *namez;
    const char *configz; /* genq.yaml, but for `data` */
    bool has_hooks;      /* apply, flush and committed are called */
    bool has_local_disk; /* writes are this process's own, under its RLIMIT_FSIZE */
    bool needs_kafka;    /* at $KAFKA_SERVERS; topics of its own are made for each data directory */
    int n_kills;         /* of the case with the most, each at a random moment of this life: */
    uint32_t life_us;
};

extern const struct driver drivers[];
extern const size_t n_drivers;

bool driver_is_wanted(const struct driver *d);

/* A case for every driver. */
#define ON_DRIVERS(name) \
    static void name(const struct driver *d); \
    TEST(name) \
    { \
        for (size_t i = 0; i < n_drivers; i++) \
            if (driver_is_wanted(&drivers[i])) \
                name(&drivers[i]); \
    } \
    static void name(const struct driver *d)

struct seen {
    struct record r; /* its bytes are owned */
    struct seen *next;
};

struct rig {
    const struct driver *driver;
    struct config *config;
    struct topics *topics;
    uv_loop_t loop;
    struct broker *broker;
    struct broker_options options; /* hooks and max_pending_bytes may be set before rig_open */
    struct seen *seen, **seen_end;
    size_t n_seen;
    int n_caught_up;
    size_t finish_each; /* on_records finishes what it gets, when 1 */
};

#define JOBS TOPIC_JOBS /* a work topic */

void rig_init(struct rig *r, const struct driver *d);
void rig_open(struct rig *r);
void rig_close(struct rig *r);  /* the broker only; what was seen stays */
void rig_reopen(struct rig *r); /* closes, forgets what was seen, opens */
void rig_release(struct rig *r);
void rig_forget(struct rig *r);
void rig_subscribe(struct rig *r, int topic, size_t window);
/* Turns the loop until it is so, for 20 s at most. */
void rig_wait_seen(struct rig *r, size_t n);
void rig_wait_caught_up(struct rig *r, int n);
/* Turns the loop for a while: for what must not come. */
void rig_run_ms(struct rig *r, int ms);
const struct record *rig_seen(const struct rig *r, size_t i);

struct record rig_record(int topic, const char *keyz, const char *valuez);
/* Publishes and waits for the acknowledgement. */
int rig_publish(struct rig *r, struct record *records, size_t n);
/* One record; gives its offset. Must succeed. */
int64_t rig_put(struct rig *r, int topic, const char *keyz, const char *valuez);
/* One record that takes the place of `source`. */
int64_t rig_replace(struct rig *r, int topic, const char *keyz, struct position source);

/* A publish that can be waited for: broker_publish, then rig_wait_ack. */
struct waiting {
    struct publish p; /* first */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_done;
    int code;
};
void waiting_init(struct waiting *w, struct record *records, size_t n);
int waiting_wait(struct waiting *w);
