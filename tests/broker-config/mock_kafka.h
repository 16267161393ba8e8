/* librdkafka's mock cluster, in the test's own process, for the Kafka driver's parts: faults on
 * order, and what was produced read back. */
#pragma once
#include "broker-config/kafka.h"
#include "tests/lib/test.h"
#include <librdkafka/rdkafka_mock.h>

enum { MOCK_PRODUCE = 0 }; /* API key of ProduceRequest */

struct mock {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
    struct config *config;
    struct topics *topics;
    rd_kafka_t *reader;
    rd_kafka_message_t *m; /* the record that was read last */
};

/* The data directory is the case's own. One broker, with all topics of the config, of 4 partitions
 * where they are for jobs. brokerz (", …") is added to the broker's settings, yamlz to the config.
 */
void mock_open(struct mock *k, const char *brokerz, const char *yamlz);
void mock_close(struct mock *k);
/* Reads a partition from the beginning, until the next mock_read_from. */
void mock_read_from(struct mock *k, int topic, int32_t partition);
/* The next record; its bytes are valid until the one after it. */
struct record mock_read(struct mock *k, int topic);
/* Nothing more comes for 200 ms. */
void mock_read_end(struct mock *k);
