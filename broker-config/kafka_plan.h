/* What the config wants of Kafka's topics, compared with what is there. Pure: knows neither Kafka
 * nor librdkafka; kafka_topics.h reads what is there, and carries a plan out. Source: contract, 5.
 */
#pragma once
#include "broker-config/topics.h"

struct topic_setting {
    char *namez, *valuez;
    bool is_own; /* set at the topic itself: not a default of the brokers' */
};

/* A topic as it is. */
struct topic_shape {
    char *namez;
    int n_partitions, replication;
    struct topic_setting *settings; /* all, or those that are known */
    size_t n_settings;
};

struct topic_shapes {
    struct topic_shape *shapes;
    size_t n;
    int n_brokers;
};

/* Gives the new last one, all zero but for its name; good until the next. */
struct topic_shape *topic_shapes_add(struct topic_shapes *s, const char *namez);
/* NULL: there is none. */
struct topic_shape *topic_shapes_find(const struct topic_shapes *s, const char *namez);
void topic_shape_set(struct topic_shape *t, const char *namez, const char *valuez, bool is_own);
void topic_shapes_release(struct topic_shapes *s);

/* A setting that we want: from NULL when it is not there. */
struct setting_plan {
    char *namez, *fromz, *toz;
    bool is_change;
};

struct topic_plan {
    char *namez;
    bool is_there;
    bool
        is_foreign; /* a job topic of no queue of the config: nothing is wanted, its records wait */
    int partitions, partitions_wanted;   /* the first one 0 when it is not there */
    int replication, replication_wanted; /* the same */
    int64_t min_insync_left; /* broker.min_insync, where the topic has not so many copies, else 0 */
    struct setting_plan *settings;
    size_t n_settings;
};

/* The three things that can be done; a topic that is made has all else with it. */
enum topic_step { TOPIC_STEP_CREATE, TOPIC_STEP_PARTITIONS, TOPIC_STEP_SETTINGS, TOPIC_STEPS_ };

struct kafka_plan {
    struct topic_plan *topics; /* those of the config, in its order, then foreign ones */
    size_t n;
};

/* Whether the step is to be taken. Fewer partitions than there are, and other numbers of copies,
 * are no steps: Kafka has no request for the first, and no simple one for the second. */
bool topic_plan_has(const struct topic_plan *p, enum topic_step step);
bool kafka_plan_has(const struct kafka_plan *p, enum topic_step step); /* any topic's */
size_t kafka_plan_steps(const struct kafka_plan *p);                   /* 0: nothing to do */

/* Fills *out (kafka_plan_release, also after failure). ERR_INVALID: broker.min_insync is more than
 * the copies that a new topic would get. */
int kafka_plan_make(const struct config *c, const struct topics *t, const struct topic_shapes *is,
                    struct kafka_plan *out, struct err *e);
void kafka_plan_release(struct kafka_plan *p);
