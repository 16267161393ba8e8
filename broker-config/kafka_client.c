/* librdkafka's clients: their properties, their log, their errors as ours. */
#include "base/log.h"
#include "broker-config/kafka.h"
#include "broker-config/kafka_wait.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    ERROR_BYTES = 512,
    NAME_BYTES = 256,
    RECORD_EXTRA_BYTES = 64 << 10,
    ANSWER_EXTRA_BYTES = 16 << 20, /* some hundred bytes for each of ten thousands of partitions */
    SCRAM_VERSION = 0x020601ff     /* the first librdkafka whose SCRAM is right */
};

struct property {
    const char *namez, *valuez;
};

/* What the driver is built on; the config may say otherwise. */
static const struct property any_properties[] = {{"client.id", "genq"},
                                                 {"socket.nagle.disable", "true"},
                                                 {"reconnect.backoff.ms", "50"},
                                                 {"reconnect.backoff.max.ms", "1000"},
                                                 {"topic.metadata.refresh.interval.ms", "30000"},
                                                 {NULL, NULL}};
static const struct property producer_properties[] = {
    {"acks", "all"},
    {"enable.idempotence", "true"},
    {"partitioner", "murmur2_random"}, /* as Java's clients do: one id, one partition */
    {"linger.ms", "5"},                /* at most: the sender flushes (kafka_sender.c) */
    {"message.timeout.ms", "30000"},
    {"topic.metadata.propagation.max.ms", "5000"}, /* then a topic that is not there is missing */
    {"queue.buffering.max.messages", "1000000"},
    {NULL, NULL}};
static const struct property consumer_properties[] = {{"auto.offset.reset", "earliest"},
                                                      {"fetch.wait.max.ms", "500"},
                                                      {"queued.min.messages", "4096"},
                                                      {"queued.max.messages.kbytes", "16384"},
                                                      {NULL, NULL}};

int kafka_conf_set(rd_kafka_conf_t *conf, const char *namez, const char *valuez, struct err *e)
{
    char why[ERROR_BYTES];

    if (rd_kafka_conf_set(conf, namez, valuez, why, sizeof why) == RD_KAFKA_CONF_OK)
        return 0;
    return err_set(e, ERR_INVALID, "Kafka property %s: %s", namez, why);
}

static bool is_named(char *const *pairs, const char *namez)
{
    size_t n = strlen(namez);

    for (; *pairs; pairs++)
        if (strncmp(*pairs, namez, n) == 0 && (*pairs)[n] == ':')
            return true;
    return false;
}

int kafka_conf_default(rd_kafka_conf_t *conf, const struct config *c, const char *namez,
                       const char *valuez, struct err *e)
{
    if (is_named(c->broker_properties, namez) || is_named(c->broker_consumer, namez))
        return 0;
    return kafka_conf_set(conf, namez, valuez, e);
}

static int set_all(rd_kafka_conf_t *conf, const struct property *p, struct err *e)
{
    int rc = 0;

    for (; rc == 0 && p->namez; p++)
        rc = kafka_conf_set(conf, p->namez, p->valuez, e);
    return rc;
}

/* "name: value", as config.h holds maps. */
static int set_pairs(rd_kafka_conf_t *conf, char *const *pairs, struct err *e)
{
    char name[NAME_BYTES + 1];
    size_t n;
    int rc = 0;

    for (; rc == 0 && *pairs; pairs++) {
        n = strcspn(*pairs, ":");
        str_copyz(name, sizeof name, str_of(*pairs, n));
        rc = kafka_conf_set(conf, name, *pairs + n + 2, e);
    }
    return rc;
}

int64_t kafka_record_bytes(const struct config *c)
{
    return c->limits_record_bytes ? c->limits_record_bytes
                                  : c->limits_body_bytes + RECORD_EXTRA_BYTES;
}

/* A fetch takes the largest record. Kafka's answer names each partition besides, and librdkafka
 * gives the connection up where it is longer than told, again and again. */
static int set_sizes(rd_kafka_conf_t *conf, const struct config *c, enum kafka_role role,
                     struct err *e)
{
    char bytes[32];
    int rc;

    snprintf(bytes, sizeof bytes, "%lld", (long long)kafka_record_bytes(c));
    rc = kafka_conf_set(conf, "message.max.bytes", bytes, e);
    if (rc || role != KAFKA_CONSUMER)
        return rc;
    snprintf(bytes, sizeof bytes, "%lld", (long long)kafka_record_bytes(c) + 1024);
    rc = kafka_conf_set(conf, "fetch.max.bytes", bytes, e);
    snprintf(bytes, sizeof bytes, "%lld", (long long)kafka_record_bytes(c) + ANSWER_EXTRA_BYTES);
    return rc ? rc : kafka_conf_set(conf, "receive.message.max.bytes", bytes, e);
}

/* On a thread of librdkafka's. Its levels are syslog's. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    log_at(level <= 3   ? LOG_WARN
           : level <= 6 ? LOG_INFO
                        : LOG_DEBUG,
           "kafka", LZ("what", facility), LZ("text", text));
}

rd_kafka_conf_t *kafka_conf(const struct config *c, enum kafka_role role, void *data, struct err *e)
{
    bool is_producer = role != KAFKA_CONSUMER;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int rc = set_all(conf, any_properties, e);

    if (rc == 0)
        rc = set_all(conf, is_producer ? producer_properties : consumer_properties, e);
    if (rc == 0)
        rc = set_sizes(conf, c, role, e);
    if (rc == 0)
        rc = set_pairs(conf, c->broker_properties, e);
    if (rc == 0)
        rc = set_pairs(conf, is_producer ? c->broker_producer : c->broker_consumer, e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "bootstrap.servers", c->broker_servers, e);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_opaque(conf, data);
    if (rc == 0)
        return conf;
    rd_kafka_conf_destroy(conf);
    return NULL;
}

void kafka_warn_of_scram(const struct config *c)
{
    struct err e;
    rd_kafka_conf_t *conf = kafka_conf(c, KAFKA_PRODUCER, NULL, &e);
    char mechanism[64] = "";
    size_t n = sizeof mechanism;

    if (!conf)
        return; /* told by who needs it */
    rd_kafka_conf_get(conf, "sasl.mechanisms", mechanism, &n);
    if (strncmp(mechanism, "SCRAM", 5) == 0 && rd_kafka_version() < SCRAM_VERSION)
        log_warn("kafka_scram", LZ("librdkafka", rd_kafka_version_str()),
                 LZ("text", "before 2.6.1 it cannot log in by SCRAM at Kafka 4 and later: use "
                            "PLAIN over TLS, or a newer librdkafka"));
    rd_kafka_conf_destroy(conf);
}

rd_kafka_t *kafka_client_new(enum kafka_role role, rd_kafka_conf_t *conf, struct err *e)
{
    char why[ERROR_BYTES];
    rd_kafka_t *rk = rd_kafka_new(role == KAFKA_CONSUMER ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER,
                                  conf, why, sizeof why);

    kafka_wait_link();
    if (rk)
        return rk;
    rd_kafka_conf_destroy(conf);
    err_set(e, ERR_INVALID, "Kafka: %s", why);
    return NULL;
}

int kafka_code(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return 0;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return ERR_FULL;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return ERR_TOO_LARGE;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
        return ERR_TIMEOUT;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE: /* these pass, as elections do */
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
        return ERR_UNREACHABLE;
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        return ERR_NOT_FOUND;
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
    case RD_KAFKA_RESP_ERR__DESTROY:
        return ERR_CLOSED;
    default:
        return ERR_IO;
    }
}

int kafka_fail(struct err *e, rd_kafka_resp_err_t err, const char *whatz)
{
    return err_set(e, kafka_code(err), "Kafka: %s: %s", whatz, rd_kafka_err2str(err));
}
