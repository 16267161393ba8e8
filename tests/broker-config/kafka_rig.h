/* A Kafka for tests of the driver's parts: the one at $KAFKA_SERVERS (tests/lib/kafka.py run -- …),
 * with topics under a prefix of the case's own, and a producer that tells where each record stands.
 */
#pragma once
#include "broker-config/kafka.h"
#include "schema/envelope.h"
#include "tests/lib/test.h"

struct kafka_rig {
    struct config *config;
    struct topics *topics;
    rd_kafka_t *producer;
    rd_kafka_queue_t *answers;
    int64_t now_ms; /* time of the records */
};

/* Ends the case, and counts as passed, where there is no Kafka. */
void kafka_rig_open(struct kafka_rig *k, const char *extra_yamlz);
/* Without a producer, around a fork: its threads would stay behind; and with one again. */
void kafka_rig_disconnect(struct kafka_rig *k);
void kafka_rig_connect(struct kafka_rig *k);
void kafka_rig_close(struct kafka_rig *k);
/* Makes one topic, or all of the config: job topics with n partitions, the others with one. */
void kafka_rig_make_topic(struct kafka_rig *k, const char *namez, int n);
void kafka_rig_make_topics(struct kafka_rig *k, int n);
/* Topics that were made are not yet seen by every request: waits for all of the config. */
void kafka_rig_wait_topics(struct kafka_rig *k);
void kafka_rig_delete_topic(struct kafka_rig *k, const char *namez);
void kafka_rig_add_partitions(struct kafka_rig *k, const char *namez, int n);
/* Deletes the records before `before`. */
void kafka_rig_trim(struct kafka_rig *k, struct position before);

/* A record that is on its way: r->at is filled in once it is acknowledged. */
void kafka_rig_send(struct kafka_rig *k, struct record *r);
void kafka_rig_flush(struct kafka_rig *k);
/* Jobs and completions from the JSON of the job's record; acknowledged when they return. */
struct position kafka_rig_job(struct kafka_rig *k, const char *jsonz, struct position source);
struct position kafka_rig_end(struct kafka_rig *k, const char *jsonz, enum job_state state,
                              struct position source);
