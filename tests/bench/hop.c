/* What a hop over Kafka takes by itself: hop SERVERS TOPIC N PAUSE_MS. N records, one at a time,
 * from produce to the consumer that waits for it, on an empty topic of one partition. Prints the
 * median in ms. */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 10000, RECORD_BYTES = 600 };

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static rd_kafka_t *client(rd_kafka_type_t type, const char *servers)
{
    static const char *const settings[][2] = {
        {"linger.ms", "0"}, {"acks", "all"}, {"enable.idempotence", "true"}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char why[512];
    size_t i;
    rd_kafka_t *rk;

    rd_kafka_conf_set(conf, "bootstrap.servers", servers, why, sizeof why);
    rd_kafka_conf_set(conf, "socket.nagle.disable", "true", why, sizeof why);
    for (i = 0; type == RD_KAFKA_PRODUCER && i < sizeof settings / sizeof settings[0]; i++)
        rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why);
    rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk) {
        fprintf(stderr, "hop: %s\n", why);
        exit(1);
    }
    return rk;
}

static double hop(rd_kafka_t *producer, rd_kafka_topic_t *out, rd_kafka_topic_t *in)
{
    char value[RECORD_BYTES] = "";
    rd_kafka_message_t *m;
    double start = now_ms();

    if (rd_kafka_produce(out, 0, RD_KAFKA_MSG_F_COPY, value, sizeof value, NULL, 0, NULL) != 0 ||
        !(m = rd_kafka_consume(in, 0, WAIT_MS)) || m->err) {
        fprintf(stderr, "hop: the record did not come\n");
        exit(1);
    }
    start = now_ms() - start;
    rd_kafka_message_destroy(m);
    rd_kafka_poll(producer, 0);
    return start;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    size_t n = argc == 5 ? strtoul(argv[3], NULL, 10) : 0, i;
    useconds_t pause_us = argc == 5 ? (useconds_t)strtoul(argv[4], NULL, 10) * 1000 : 0;
    double *ms = calloc(n ? n : 1, sizeof *ms);
    rd_kafka_t *producer, *consumer;
    rd_kafka_topic_t *out, *in;

    if (n == 0 || !ms) {
        fprintf(stderr, "usage: hop SERVERS TOPIC N PAUSE_MS\n");
        return 2;
    }
    producer = client(RD_KAFKA_PRODUCER, argv[1]);
    consumer = client(RD_KAFKA_CONSUMER, argv[1]);
    out = rd_kafka_topic_new(producer, argv[2], NULL);
    in = rd_kafka_topic_new(consumer, argv[2], NULL);
    rd_kafka_consume_start(in, 0, RD_KAFKA_OFFSET_BEGINNING);
    for (i = 0; i < n; i++) {
        ms[i] = hop(producer, out, in);
        usleep(pause_us);
    }
    qsort(ms, n, sizeof *ms, compare);
    printf("%.3f\n", ms[n / 2]);
    rd_kafka_consume_stop(in, 0);
    return 0; /* clients end with the process */
}
