/* Kafka's topics, read and made as the config wants them (kafka_plan.h): `genq topics`. Blocks; no
 * type of librdkafka. */
#pragma once
#include "broker-config/kafka_plan.h"

/* Whether all topics are there, whatever their settings. ERR_NOT_FOUND: one is not;
 * ERR_UNREACHABLE, ERR_TIMEOUT: Kafka is not there. */
int kafka_topics_check(const struct config *c, const struct topics *t, struct err *e);

/* Fills *out with what is to be done (kafka_plan_release, also after failure). ERR_UNREACHABLE,
 * ERR_TIMEOUT: Kafka is not there; ERR_INVALID: the config cannot be had. */
int kafka_topics_plan(const struct config *c, const struct topics *t, struct kafka_plan *out,
                      struct err *e);

/* Takes the steps until Kafka shows all that is wanted, 30 s at most; what another process does at
 * the same time is as good as done here. on_step is told each step that was taken here, once. *left
 * is then the plan of what cannot be done (kafka_plan_release, also after failure). Codes as
 * above. */
int kafka_topics_apply(const struct config *c, const struct topics *t,
                       void (*on_step)(void *data, const struct topic_plan *p,
                                       enum topic_step step),
                       void *data, struct kafka_plan *left, struct err *e);
