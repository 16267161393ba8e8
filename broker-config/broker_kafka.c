/* The distributed broker: Kafka's log behind broker.h. Its parts are told in kafka.h; this file
 * puts them together. A publish that takes a record's place finishes its source in the group when
 * Kafka has acknowledged it; between the two steps the take-over check stands in. */
#include "broker-config/kafka.h"
#include <stdlib.h>

enum { PENDING_BYTES = 64 << 20 };

struct kafka_broker {
    struct broker head; /* first */
    struct broker_options options;
    struct kafka_follow *follow; /* NULL: no hooks */
    struct kafka_publisher *publisher;
    struct kafka_group *group;
};

extern const struct broker_ops broker_kafka; /* at the bottom; broker.c's table names it */

static struct kafka_broker *kafka_of(struct broker *b)
{
    return (struct kafka_broker *)(void *)b;
}

static void on_finished(void *data, struct position source, struct position by)
{
    struct kafka_broker *b = data;

    kafka_group_note(b->group, source, by);
}

static int open_follow(struct kafka_broker *b, struct err *e)
{
    struct kafka_follow_options o = {b->options.config, b->options.topics, b->options.hooks};

    if (!o.hooks.apply)
        return 0;
    b->follow = kafka_follow_open(&o, e);
    return b->follow ? 0 : e->code;
}

static int open_publisher(struct kafka_broker *b, struct err *e)
{
    struct kafka_publisher_options o = {
        .config = b->options.config,
        .topics = b->options.topics,
        .max_pending_bytes =
            b->options.max_pending_bytes ? b->options.max_pending_bytes : PENDING_BYTES,
        .follow = b->follow,
        .on_finished = on_finished,
        .data = b,
    };

    b->publisher = kafka_publisher_open(&o, e);
    return b->publisher ? 0 : e->code;
}

static int open_group(struct kafka_broker *b, struct err *e)
{
    struct kafka_group_options o = {.config = b->options.config,
                                    .topics = b->options.topics,
                                    .loop = b->options.loop,
                                    .publisher = b->publisher,
                                    .lease_ms = &b->head.lease_ms};

    b->group = kafka_group_open(&o, e);
    return b->group ? 0 : e->code;
}

static void kafka_close(struct broker *head)
{
    struct kafka_broker *b = kafka_of(head);

    /* The group's last commit wants all that the publisher was acknowledged. */
    if (b->publisher)
        kafka_publisher_close(b->publisher);
    if (b->group)
        kafka_group_close(b->group);
    if (b->follow)
        kafka_follow_close(b->follow);
    free(b);
}

static struct broker *kafka_open(const struct broker_options *o, struct err *e)
{
    struct kafka_broker *b = xcalloc(1, sizeof *b);

    kafka_warn_of_scram(o->config);
    b->head.ops = &broker_kafka;
    b->options = *o;
    if (open_follow(b, e) == 0 && open_publisher(b, e) == 0 && open_group(b, e) == 0 &&
        kafka_publisher_start(b->publisher, e) == 0)
        return &b->head;
    kafka_close(&b->head);
    return NULL;
}

static int kafka_publish(struct broker *head, struct publish *p)
{
    return kafka_publisher_publish(kafka_of(head)->publisher, p);
}

static int kafka_subscribe(struct broker *head, int topic, const struct subscription *s,
                           struct err *e)
{
    return kafka_group_subscribe(kafka_of(head)->group, topic, s, e);
}

static void kafka_finish(struct broker *head, struct position at)
{
    kafka_group_finish(kafka_of(head)->group, at);
}

static int kafka_read(struct broker *head, struct broker_read *r)
{
    return kafka_group_read(kafka_of(head)->group, r);
}

/* The follower sees every partition; a worker only those that are its own. */
static void kafka_stat(struct broker *head, int topic, struct broker_stat *out)
{
    struct kafka_broker *b = kafka_of(head);

    if (b->follow)
        kafka_follow_stat(b->follow, topic, out);
    else
        kafka_group_stat(b->group, topic, out);
}

static int kafka_health(struct broker *head, struct err *e)
{
    struct kafka_broker *b = kafka_of(head);
    int code = kafka_publisher_health(b->publisher, e);

    if (code == 0 && b->follow)
        code = kafka_follow_health(b->follow, e);
    return code ? code : kafka_group_health(b->group, e);
}

const struct broker_ops broker_kafka = {
    .namez = "kafka",
    .is_shared = true,
    .open = kafka_open,
    .publish = kafka_publish,
    .subscribe = kafka_subscribe,
    .finish = kafka_finish,
    .read = kafka_read,
    .stat = kafka_stat,
    .health = kafka_health,
    .close = kafka_close,
};
