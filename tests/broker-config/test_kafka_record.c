#include "tests/broker-config/mock_kafka.h"

static rd_kafka_t *producer;

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *data)
{
    (void)rk;
    (void)data;
    CHECK_STR(str_z(rd_kafka_err2name(m->err)), "NO_ERROR");
    *(int64_t *)m->_private = m->offset;
}

static void open_all(struct mock *k)
{
    rd_kafka_conf_t *conf;
    struct err e;

    mock_open(k, "", "");
    conf = kafka_conf(k->config, KAFKA_PRODUCER, NULL, &e);
    CHECK(conf);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    producer = kafka_client_new(KAFKA_PRODUCER, conf, &e);
    CHECK(producer);
}

static void close_all(struct mock *k)
{
    rd_kafka_destroy(producer);
    mock_close(k);
}

static int64_t produce(struct mock *k, const struct record *r)
{
    int64_t offset = -1;

    CHECK(kafka_produce(producer, k->topics, r, false, &offset) == 0);
    CHECK(rd_kafka_flush(producer, 10000) == 0);
    return offset;
}

TEST(a_record_comes_back_as_it_went)
{
    struct mock k;
    struct record back, r = {.at = {TOPIC_COMPLETIONS, 0, 0},
                             .ts_ms = 1700000000123,
                             .key = STR("id-1"),
                             .value = STR("{\"a\":\0 1}"),
                             .source = {TOPIC_JOBS + 1, 3, 12345678901}};

    open_all(&k);
    r.headers[HEADER_TYPE] = STR("genq.completion.v1");
    r.headers[HEADER_TENANT] = STR("");
    CHECK_INT(produce(&k, &r), 0);
    mock_read_from(&k, TOPIC_COMPLETIONS, 0);
    back = mock_read(&k, TOPIC_COMPLETIONS);
    CHECK_INT(back.at.topic, TOPIC_COMPLETIONS);
    CHECK_INT(back.at.partition, 0);
    CHECK_INT(back.at.offset, 0);
    CHECK_INT(back.ts_ms, 1700000000123);
    CHECK(str_eq(back.key, r.key));
    CHECK(str_eq(back.value, r.value));
    CHECK_STR(back.headers[HEADER_TYPE], "genq.completion.v1");
    CHECK(back.headers[HEADER_TENANT].p && back.headers[HEADER_TENANT].n == 0);
    CHECK(!back.headers[HEADER_MODEL].p);
    CHECK_STR(back.headers[HEADER_SOURCE], "genq.jobs.default.normal/3/12345678901");
    CHECK_INT(back.source.topic, TOPIC_JOBS + 1);
    CHECK_INT(back.source.partition, 3);
    CHECK_INT(back.source.offset, 12345678901);
    close_all(&k);
}

TEST(no_value_is_a_tombstone_and_an_empty_one_is_not)
{
    struct mock k;
    struct record back, r = {.at = {TOPIC_SCHEDULED, 0, 0}, .key = STR("a")};

    open_all(&k);
    produce(&k, &r);
    r.value = STR("");
    produce(&k, &r);
    r.key = STR_NONE;
    produce(&k, &r);
    mock_read_from(&k, TOPIC_SCHEDULED, 0);
    back = mock_read(&k, TOPIC_SCHEDULED);
    CHECK(!back.value.p);
    CHECK(back.ts_ms > 1700000000000);
    CHECK_INT(back.source.topic, -1);
    back = mock_read(&k, TOPIC_SCHEDULED);
    CHECK(back.value.p && back.value.n == 0);
    CHECK_STR(back.key, "a");
    CHECK(!mock_read(&k, TOPIC_SCHEDULED).key.p);
    close_all(&k);
}

static void produce_with_headers(struct mock *k, const char *const *pairs)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(4);
    int64_t offset;

    for (; *pairs; pairs += 2)
        rd_kafka_header_add(headers, pairs[0], -1, pairs[1], -1);
    CHECK(rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(topics_name(k->topics, TOPIC_DEAD)),
                            RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(&offset),
                            RD_KAFKA_V_END) == 0);
    CHECK(rd_kafka_flush(producer, 10000) == 0);
}

TEST(headers_of_others_are_left_out)
{
    static const char *const foreign[] = {
        "x", "1", "ce_type", "first", "ce_type", "last", "genq_source", "elsewhere/0/1", NULL};
    static const char *const feed[] = {"genq_source", "genq.completions/0/1", NULL};
    struct mock k;
    struct record back;

    open_all(&k);
    produce_with_headers(&k, foreign);
    produce_with_headers(&k, feed);
    mock_read_from(&k, TOPIC_DEAD, 0);
    back = mock_read(&k, TOPIC_DEAD);
    CHECK_STR(back.headers[HEADER_TYPE], "last");
    CHECK_STR(back.headers[HEADER_SOURCE], "elsewhere/0/1");
    CHECK(!topics_is_source(back.source.topic));
    back = mock_read(&k, TOPIC_DEAD);
    CHECK(!topics_is_source(back.source.topic));
    close_all(&k);
}

TEST(a_source_header_that_is_there_stays)
{
    struct mock k;
    struct record r = {.at = {TOPIC_DEAD, 0, 0}, .source = {TOPIC_JOBS, 0, 7}};

    open_all(&k);
    r.headers[HEADER_SOURCE] = STR("genq.jobs.default.low/0/8");
    produce(&k, &r);
    mock_read_from(&k, TOPIC_DEAD, 0);
    CHECK_STR(mock_read(&k, TOPIC_DEAD).headers[HEADER_SOURCE], "genq.jobs.default.low/0/8");
    close_all(&k);
}

TEST(properties_of_the_config_win_and_wrong_ones_are_named)
{
    struct config *c;
    rd_kafka_conf_t *conf;
    struct err e;
    char value[32];
    size_t n = sizeof value;

    c = config_parse(STR("broker: {kind: kafka, servers: 'a:1', producer: {linger.ms: 7}}"), "t",
                     &e);
    CHECK(c);
    conf = kafka_conf(c, KAFKA_PRODUCER, NULL, &e);
    CHECK(rd_kafka_conf_get(conf, "linger.ms", value, &n) == RD_KAFKA_CONF_OK);
    CHECK_STR(str_z(value), "7");
    rd_kafka_conf_destroy(conf);
    config_free(c);
    c = config_parse(STR("broker: {kind: kafka, servers: 'a:1', properties: {no.such: 7}}"), "t",
                     &e);
    CHECK(c);
    CHECK(!kafka_conf(c, KAFKA_CONSUMER, NULL, &e));
    CHECK_INT(e.code, ERR_INVALID);
    CHECK(strstr(e.msg, "no.such"));
    config_free(c);
}
