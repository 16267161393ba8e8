#include "tests/broker-config/kafka_rig.h"
#include "base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LIMIT_MS = 30000 };

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *data)
{
    struct record *r = m->_private;

    (void)rk;
    (void)data;
    CHECK_INT(m->err, 0);
    if (r) {
        r->at.partition = m->partition;
        r->at.offset = m->offset;
    }
}

void kafka_rig_connect(struct kafka_rig *k)
{
    struct err e = {0};
    rd_kafka_conf_t *conf = kafka_conf(k->config, KAFKA_PRODUCER, NULL, &e);

    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    k->producer = kafka_client_new(KAFKA_PRODUCER, conf, &e);
    CHECK(k->producer);
    k->answers = rd_kafka_queue_new(k->producer);
}

void kafka_rig_open(struct kafka_rig *k, const char *extra_yamlz)
{
    const char *serversz = getenv("KAFKA_SERVERS");
    struct err e = {0};
    char yaml[1024];

    if (!serversz) {
        printf("# skipped: no KAFKA_SERVERS\n");
        exit(0);
    }
    snprintf(yaml, sizeof yaml,
             "broker: {kind: kafka, servers: unused, prefix: t%d-%lld}\ndata: .\n%s", (int)getpid(),
             (long long)clock_wall_ms(), extra_yamlz);
    k->config = config_parse(str_z(yaml), "test", &e);
    if (!k->config)
        test_fail(__FILE__, __LINE__, e.msg);
    config_set_text(&k->config->broker_servers, serversz);
    k->topics = topics_new(k->config);
    kafka_rig_connect(k);
    k->now_ms = 1000000;
}

void kafka_rig_disconnect(struct kafka_rig *k)
{
    rd_kafka_queue_destroy(k->answers);
    rd_kafka_destroy(k->producer);
}

void kafka_rig_close(struct kafka_rig *k)
{
    kafka_rig_disconnect(k);
    topics_free(k->topics);
    config_free(k->config);
}

/* ---- topics ---- */

static void await_answer(struct kafka_rig *k)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(k->answers, LIMIT_MS);

    CHECK(event);
    if (rd_kafka_event_error(event))
        test_fail(__FILE__, __LINE__, rd_kafka_event_error_string(event));
    rd_kafka_event_destroy(event);
}

void kafka_rig_make_topic(struct kafka_rig *k, const char *namez, int n)
{
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(namez, n, 1, NULL, 0);

    /* Records of 1970, as k->now_ms makes them, would go by age: half a minute after a broker's
     * start. */
    CHECK_INT(rd_kafka_NewTopic_set_config(topic, "retention.ms", "-1"), 0);
    rd_kafka_CreateTopics(k->producer, &topic, 1, NULL, k->answers);
    await_answer(k);
    rd_kafka_NewTopic_destroy(topic);
}

void kafka_rig_make_topics(struct kafka_rig *k, int n)
{
    int i;

    for (i = 0; i < (int)topics_count(k->topics); i++)
        kafka_rig_make_topic(k, topics_name(k->topics, i), topics_is_jobs(i) ? n : 1);
}

void kafka_rig_wait_topics(struct kafka_rig *k)
{
    const rd_kafka_metadata_t *meta;
    int i, n, tries;

    for (tries = 0; tries < 200; tries++) {
        CHECK_INT(rd_kafka_metadata(k->producer, 1, NULL, &meta, 10000), 0);
        for (i = n = 0; i < meta->topic_cnt; i++)
            n += meta->topics[i].err == 0 && meta->topics[i].partition_cnt > 0 &&
                 meta->topics[i].partitions[0].leader >= 0 &&
                 topics_find(k->topics, str_z(meta->topics[i].topic)) >= 0;
        rd_kafka_metadata_destroy(meta);
        if (n == (int)topics_count(k->topics))
            return;
        usleep(50000);
    }
    CHECK(!"the topics are not there");
}

void kafka_rig_delete_topic(struct kafka_rig *k, const char *namez)
{
    rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(namez);

    rd_kafka_DeleteTopics(k->producer, &topic, 1, NULL, k->answers);
    await_answer(k);
    rd_kafka_DeleteTopic_destroy(topic);
}

void kafka_rig_add_partitions(struct kafka_rig *k, const char *namez, int n)
{
    char why[256];
    rd_kafka_NewPartitions_t *parts = rd_kafka_NewPartitions_new(namez, (size_t)n, why, sizeof why);

    CHECK(parts);
    rd_kafka_CreatePartitions(k->producer, &parts, 1, NULL, k->answers);
    await_answer(k);
    rd_kafka_NewPartitions_destroy(parts);
}

void kafka_rig_trim(struct kafka_rig *k, struct position before)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_DeleteRecords_t *records;

    rd_kafka_topic_partition_list_add(list, topics_name(k->topics, before.topic), before.partition)
        ->offset = before.offset;
    records = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(k->producer, &records, 1, NULL, k->answers);
    await_answer(k);
    rd_kafka_DeleteRecords_destroy(records);
    rd_kafka_topic_partition_list_destroy(list);
}

/* ---- records ---- */

void kafka_rig_send(struct kafka_rig *k, struct record *r)
{
    rd_kafka_resp_err_t err;

    r->ts_ms = k->now_ms;
    do {
        err = kafka_produce(k->producer, k->topics, r, false, r);
        rd_kafka_poll(k->producer, err ? 10 : 0);
    } while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL);
    CHECK_INT(err, 0);
}

void kafka_rig_flush(struct kafka_rig *k)
{
    CHECK_INT(rd_kafka_flush(k->producer, LIMIT_MS), 0);
}

static void parse(struct kafka_rig *k, const char *jsonz, struct job *j)
{
    struct job_defaults d = {.tenant = STR("default"), .batch_line = -1, .wall_ms = k->now_ms};
    struct err e = {0};

    if (job_parse(j, str_z(jsonz), true, NULL, &e) != 0)
        test_fail(__FILE__, __LINE__, e.msg);
    CHECK_INT(job_complete(j, &d, &e), 0);
}

struct position kafka_rig_job(struct kafka_rig *k, const char *jsonz, struct position source)
{
    struct record r = {.source = source};
    struct buf mem;
    struct job j;

    parse(k, jsonz, &j);
    buf_init(&mem, 1 << 24);
    CHECK_INT(envelope_job(&r, &j, &mem, NULL), 0);
    r.at.topic = j.not_before && source.topic < 0 ? TOPIC_SCHEDULED
                                                  : topics_jobs(k->topics, j.queue, j.priority);
    kafka_rig_send(k, &r);
    kafka_rig_flush(k);
    job_release(&j);
    buf_release(&mem);
    return r.at;
}

struct position kafka_rig_end(struct kafka_rig *k, const char *jsonz, enum job_state state,
                              struct position source)
{
    struct call call = {.attempt = 1,
                        .node = STR("gpu0"),
                        .model = STR("m"),
                        .usage = {10, 5, 2},
                        .outcome = CALL_OK,
                        .ms = 7,
                        .cost = 0.25};
    struct completion c = {.state = state,
                           .attempts = 1,
                           .node = STR("gpu0"),
                           .finished_at = k->now_ms,
                           .text = STR("hello"),
                           .reason = REASON_NONE,
                           .usage = {10, 5, 2},
                           .calls = &call,
                           .n_calls = 1,
                           .queue_ms = -1,
                           .engine_ms = -1,
                           .first_token_ms = -1,
                           .total_ms = 3,
                           .cost = 0.25};
    struct record r = {.source = source};
    struct buf mem;
    struct job j;

    id_ulid(k->now_ms, call.id);
    parse(k, jsonz, &j);
    buf_init(&mem, 1 << 24);
    CHECK_INT(envelope_completion(&r, &j, &c, NULL, &mem, NULL), 0);
    r.at.topic = TOPIC_COMPLETIONS;
    kafka_rig_send(k, &r);
    kafka_rig_flush(k);
    job_release(&j);
    buf_release(&mem);
    return r.at;
}
