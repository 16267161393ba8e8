/* A set of positions that counts: sources whose end is on its way to Kafka. Any thread. */
#pragma once
#include "base/map.h"
#include "schema/record.h"
#include <pthread.h>

struct kafka_owed {
    pthread_mutex_t lock;
    struct map map;
};

void kafka_owed_init(struct kafka_owed *o);
void kafka_owed_release(struct kafka_owed *o);
void kafka_owed_add(struct kafka_owed *o, struct position source);
void kafka_owed_remove(struct kafka_owed *o, struct position source); /* one of those added */
bool kafka_owed_has(struct kafka_owed *o, struct position source);
