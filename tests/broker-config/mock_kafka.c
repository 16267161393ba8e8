#include "tests/broker-config/mock_kafka.h"
#include <stdio.h>

enum { READ_MS = 10000, QUIET_MS = 200 };

static void make_topics(struct mock *k)
{
    int i, n = (int)topics_count(k->topics);

    for (i = 0; i < n; i++)
        CHECK(rd_kafka_mock_topic_create(k->cluster, topics_name(k->topics, i),
                                         topics_is_jobs(i) ? 4 : 1, 1) == 0);
}

void mock_open(struct mock *k, const char *brokerz, const char *yamlz)
{
    char text[2048], why[256];
    struct err e;

    *k = (struct mock){.rk = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why)};
    CHECK(k->rk);
    k->cluster = rd_kafka_mock_cluster_new(k->rk, 1);
    CHECK(k->cluster);
    snprintf(text, sizeof text, "data: .\nbroker: {kind: kafka, servers: \"%s\"%s}\n%s",
             rd_kafka_mock_cluster_bootstraps(k->cluster), brokerz, yamlz);
    k->config = config_parse(str_z(text), "test", &e);
    if (!k->config)
        fprintf(stderr, "%s\n", e.msg);
    CHECK(k->config);
    k->topics = topics_new(k->config);
    make_topics(k);
}

static void stop_reading(struct mock *k)
{
    if (k->m)
        rd_kafka_message_destroy(k->m);
    if (k->reader)
        rd_kafka_destroy(k->reader);
    k->m = NULL;
    k->reader = NULL;
}

void mock_close(struct mock *k)
{
    stop_reading(k);
    topics_free(k->topics);
    config_free(k->config);
    rd_kafka_mock_cluster_destroy(k->cluster);
    rd_kafka_destroy(k->rk);
}

void mock_read_from(struct mock *k, int topic, int32_t partition)
{
    struct err e;
    rd_kafka_conf_t *conf = kafka_conf(k->config, KAFKA_CONSUMER, NULL, &e);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

    CHECK(conf);
    stop_reading(k);
    CHECK_INT(kafka_conf_set(conf, "group.id", "test", &e), 0);
    k->reader = kafka_client_new(KAFKA_CONSUMER, conf, &e);
    CHECK(k->reader);
    rd_kafka_poll_set_consumer(k->reader);
    rd_kafka_topic_partition_list_add(list, topics_name(k->topics, topic), partition)->offset =
        RD_KAFKA_OFFSET_BEGINNING;
    CHECK(rd_kafka_assign(k->reader, list) == 0);
    rd_kafka_topic_partition_list_destroy(list);
}

static void read_one(struct mock *k, int ms)
{
    if (k->m)
        rd_kafka_message_destroy(k->m);
    k->m = rd_kafka_consumer_poll(k->reader, ms);
    if (k->m && k->m->err)
        fprintf(stderr, "consumer: %s\n", rd_kafka_message_errstr(k->m));
}

struct record mock_read(struct mock *k, int topic)
{
    struct record r;

    read_one(k, READ_MS);
    CHECK(k->m && k->m->err == 0);
    kafka_record(k->topics, topic, k->m, &r);
    return r;
}

void mock_read_end(struct mock *k)
{
    read_one(k, QUIET_MS);
    CHECK(!k->m);
}
