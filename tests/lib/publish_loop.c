/* A worker without engines: publishes completions of jobs 0 to N-1 of one partition through the
 * Kafka driver's publisher, and tells on stdout what came of each.
 *
 * Usage: publish_loop SERVERS DATA N PER_SECOND
 *
 *   owed N             of these sources, at the start: those of an earlier process's outbox
 *   acked I OFFSET     OFFSET -1: kept on disk
 *   refused I          the outbox has no room; it is tried again
 *   finished I OFFSET  the source's end is in the log
 *   drained            all is acknowledged, and nothing owed; it ends then */
#include "base/buf.h"
#include "base/clock.h"
#include "broker-config/kafka.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

struct one {
    struct publish publish; /* first */
    struct record record;
    char key[32];
    int i;
};

static _Atomic int n_acked;

static void on_ack(struct publish *p, int code)
{
    struct one *o = (struct one *)(void *)p;

    if (code || o->record.code)
        printf("failed %d %d %d\n", o->i, code, o->record.code);
    else
        printf("acked %d %lld\n", o->i, (long long)o->record.at.offset);
    free(o);
    n_acked++;
}

static void on_finished(void *data, struct position source, struct position by)
{
    (void)data;
    printf("finished %lld %lld\n", (long long)source.offset, (long long)by.offset);
}

static struct position source(int i)
{
    return (struct position){TOPIC_JOBS, 0, i};
}

static void publish(struct kafka_publisher *p, int i)
{
    struct one *o = xcalloc(1, sizeof *o);

    o->i = i;
    snprintf(o->key, sizeof o->key, "j%d", i);
    o->record = (struct record){.at = {TOPIC_COMPLETIONS, 0, 0},
                                .key = str_z(o->key),
                                .value = STR("{\"status\":\"succeeded\"}"),
                                .source = source(i)};
    o->publish = (struct publish){.records = &o->record, .n = 1, .on_ack = on_ack};
    while (kafka_publisher_publish(p, &o->publish) != 0) {
        printf("refused %d\n", i);
        poll(NULL, 0, 100);
    }
}

static int count_owed(struct kafka_publisher *p, int n)
{
    int i, owed = 0;

    for (i = 0; i < n; i++)
        owed += kafka_publisher_owes(p, source(i));
    return owed;
}

static void publish_all(struct kafka_publisher *p, int n, int per_second)
{
    int64_t start_ms = clock_mono_ms();
    int i;

    for (i = 0; i < n; i++) {
        while ((clock_mono_ms() - start_ms) * per_second < (int64_t)i * 1000)
            poll(NULL, 0, 1);
        publish(p, i);
    }
    while (n_acked < n || count_owed(p, n) > 0)
        poll(NULL, 0, 20);
    printf("drained\n");
}

static struct config *make_config(const char *serversz, const char *dataz, struct err *e)
{
    struct buf b;
    struct config *c;

    buf_init(&b, 1 << 16);
    buf_addf(&b, "data: '%s'\nbroker: {kind: kafka, servers: '%s'}\n", dataz, serversz);
    c = config_parse(buf_str(&b), "publish_loop", e);
    buf_release(&b);
    return c;
}

int main(int argc, char **argv)
{
    struct kafka_publisher_options o = {.on_finished = on_finished};
    struct config *config = NULL;
    struct kafka_publisher *p;
    struct err e = {0};

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 5 || (config = make_config(argv[1], argv[2], &e)) == NULL) {
        fprintf(stderr, "usage: publish_loop SERVERS DATA N PER_SECOND\n%s\n", e.msg);
        return 2;
    }
    o.config = config;
    o.topics = topics_new(config);
    p = kafka_publisher_open(&o, &e);
    if (p)
        printf("owed %d\n", count_owed(p, (int)strtol(argv[3], NULL, 10)));
    if (!p || kafka_publisher_start(p, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    publish_all(p, (int)strtol(argv[3], NULL, 10), (int)strtol(argv[4], NULL, 10));
    kafka_publisher_close(p);
    topics_free((struct topics *)(uintptr_t)o.topics);
    config_free(config);
    return 0;
}
