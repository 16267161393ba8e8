#include "broker-config/kafka_sender.h"
#include "base/buf.h"
#include "base/log.h"
#include <assert.h>
#include <stdlib.h>

enum { PURGE_POLL_MS = 100, FLUSH_MS = 1, REASON_BYTES = 512 };

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *data)
{
    struct kafka_sender *s = data;

    (void)rk;
    assert(s->n_flying > 0);
    s->n_flying--;
    s->o.on_report(s->o.data, m, m->_private);
}

static void on_error(rd_kafka_t *rk, int code, const char *reasonz, void *data)
{
    struct kafka_sender *s = data;
    rd_kafka_resp_err_t err = (rd_kafka_resp_err_t)code;
    char why[REASON_BYTES];

    if (err == RD_KAFKA_RESP_ERR__FATAL) {
        err = rd_kafka_fatal_error(rk, why, sizeof why);
        reasonz = why;
        s->is_fatal = true;
        log_error("kafka_producer_failed", LZ("error", rd_kafka_err2name(err)), LZ("text", why));
    }
    s->o.on_error(s->o.data, err, reasonz);
}

/* What the guarantees stand on, whatever the config says. */
static int set_must(rd_kafka_conf_t *conf, bool is_patient, struct err *e)
{
    int rc = kafka_conf_set(conf, "delivery.report.only.error", "false", e);

    if (rc || !is_patient)
        return rc;
    rc = kafka_conf_set(conf, "message.timeout.ms", "0", e);
    rc = rc ? rc : kafka_conf_set(conf, "acks", "all", e);
    return rc ? rc : kafka_conf_set(conf, "enable.idempotence", "true", e);
}

static void wake_by(struct kafka_sender *s)
{
    static const uint64_t one = 1;
    rd_kafka_queue_t *q = rd_kafka_queue_get_main(s->rk);

    rd_kafka_queue_io_event_enable(q, s->o.wake_fd, &one, sizeof one);
    rd_kafka_queue_destroy(q);
}

/* librdkafka asks for what it knows when it connects. A topic that it hears of later waits for a
 * timer of one second. */
static void name_topics(struct kafka_sender *s)
{
    size_t n = topics_count(s->o.topics), i;

    s->known = xcalloc(n, sizeof s->known[0]);
    for (i = 0; i < n; i++)
        s->known[i] = rd_kafka_topic_new(s->rk, topics_name(s->o.topics, (int)i), NULL);
}

static void forget_topics(struct kafka_sender *s)
{
    size_t n = topics_count(s->o.topics), i;

    for (i = 0; i < n; i++)
        if (s->known[i])
            rd_kafka_topic_destroy(s->known[i]);
    free(s->known);
    s->known = NULL;
}

static int start(struct kafka_sender *s, struct err *e)
{
    rd_kafka_conf_t *conf = kafka_conf(s->o.config, KAFKA_PRODUCER, s, e);
    int rc;

    if (!conf)
        return ERR_INVALID;
    rc = set_must(conf, s->o.is_patient, e);
    if (rc) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_conf_set_error_cb(conf, on_error);
    s->rk = kafka_client_new(KAFKA_PRODUCER, conf, e);
    if (!s->rk)
        return ERR_INVALID;
    wake_by(s);
    name_topics(s);
    return 0;
}

int kafka_sender_open(struct kafka_sender *s, const struct kafka_sender_options *o, struct err *e)
{
    *s = (struct kafka_sender){.o = *o};
    return start(s, e);
}

int kafka_sender_send(struct kafka_sender *s, const struct record *r, void *opaque)
{
    rd_kafka_resp_err_t err;

    if (!s->rk || s->is_fatal)
        return ERR_UNREACHABLE;
    log_debug("append", LS("id", r->key), LZ("topic", topics_name(s->o.topics, r->at.topic)));
    err = kafka_produce(s->rk, s->o.topics, r, s->o.is_patient, opaque);
    if (err == RD_KAFKA_RESP_ERR__FATAL)
        return ERR_UNREACHABLE;
    s->n_flying += err == RD_KAFKA_RESP_ERR_NO_ERROR;
    s->n_gathered += err == RD_KAFKA_RESP_ERR_NO_ERROR;
    return kafka_code(err);
}

bool kafka_sender_probe(struct kafka_sender *s, const char *topicz, int ms)
{
    rd_kafka_topic_t *topic = s->rk && topicz ? rd_kafka_topic_new(s->rk, topicz, NULL) : NULL;
    const struct rd_kafka_metadata *found = NULL;
    bool is_there = s->rk && rd_kafka_metadata(s->rk, 0, topic, &found, ms) == 0 &&
                    (!topic || (found->topic_cnt == 1 && found->topics[0].err == 0));

    if (found)
        rd_kafka_metadata_destroy(found);
    if (topic)
        rd_kafka_topic_destroy(topic);
    return is_there;
}

void kafka_sender_purge(struct kafka_sender *s)
{
    while (s->n_flying > 0) {
        rd_kafka_purge(s->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_poll(s->rk, PURGE_POLL_MS);
    }
}

void kafka_sender_close(struct kafka_sender *s)
{
    assert(s->n_flying == 0);
    if (!s->rk)
        return;
    forget_topics(s);
    rd_kafka_destroy(s->rk);
    s->rk = NULL;
}

/* Were each record to go as it comes (linger.ms=0), librdkafka's thread would send the first few of
 * a partition alone, and poll without a pause until they have landed, as the rest may not follow
 * five or more in flight (rd_kafka_toppar_producer_serve, 2.0 to 2.12). */
bool kafka_sender_flush(struct kafka_sender *s)
{
    bool has_some = s->n_gathered > 0;

    s->n_gathered = 0;
    if (has_some && s->rk)
        rd_kafka_flush(s->rk, FLUSH_MS);
    return has_some;
}

static void start_again(struct kafka_sender *s)
{
    struct err e;

    kafka_sender_purge(s);
    kafka_sender_close(s);
    s->is_fatal = start(s, &e) != 0;
    if (s->is_fatal)
        log_error("kafka_producer_failed", LI("code", e.code), LZ("text", e.msg));
}

void kafka_sender_poll(struct kafka_sender *s)
{
    if (s->rk)
        rd_kafka_poll(s->rk, 0);
    if (s->is_fatal)
        start_again(s);
}
