/* One idempotent producer, made again after an error that librdkafka calls fatal. The publisher has
 * two, for librdkafka times messages out by topic, not by message: one whose records fail after a
 * while (a client waits for the answer), and one whose records wait for Kafka however long (they
 * finish a source). So what finishes a source never has to be sent a second time while its first
 * copy may be in the log: acknowledgements to a partition stay in offset order, and a duplicate
 * needs a kill or a fatal error. One thread's. */
#pragma once
#include "broker-config/kafka.h"

struct kafka_sender_options {
    const struct config *config;
    const struct topics *topics;
    bool is_patient; /* records never time out, and are copied */
    int wake_fd;     /* eventfd, written when kafka_sender_poll has something to do */
    /* Both in kafka_sender_poll. on_report: once for each record sent; m is valid during the call.
     */
    void (*on_report)(void *data, const rd_kafka_message_t *m, void *opaque);
    void (*on_error)(void *data, rd_kafka_resp_err_t err, const char *reasonz);
    void *data;
};

struct kafka_sender {
    struct kafka_sender_options o;
    rd_kafka_topic_t **known; /* all topics of the config */
    rd_kafka_t *rk;           /* NULL: to be made again */
    size_t n_flying;          /* records sent, not reported yet */
    size_t n_gathered;        /* of these, may wait in librdkafka for a flush */
    bool is_fatal;
};

int kafka_sender_open(struct kafka_sender *s, const struct kafka_sender_options *o, struct err *e);
/* ERR_FULL and ERR_UNREACHABLE (after a fatal error, until the poll that makes the producer again):
 * try later; others, as kafka_code: for good. */
int kafka_sender_send(struct kafka_sender *s, const struct record *r, void *opaque);
void kafka_sender_poll(struct kafka_sender *s);
/* What was sent since the last flush goes now, in as few requests as can be. May report, and take 1
 * ms. False: there was nothing. */
bool kafka_sender_flush(struct kafka_sender *s);
/* Whether a broker answers within ms, and has the topic (NULL: any). */
bool kafka_sender_probe(struct kafka_sender *s, const char *topicz, int ms);
/* Reports what is flying as failed (ERR_CLOSED). */
void kafka_sender_purge(struct kafka_sender *s);
void kafka_sender_close(struct kafka_sender *s); /* nothing is flying */
