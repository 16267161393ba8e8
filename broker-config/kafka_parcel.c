/* What becomes of the records of a publish: each has one result, the last of them acknowledges. */
#include "base/clock.h"
#include "base/metric.h"
#include "broker-config/kafka_publish_inside.h"
#include <stdlib.h>

struct parcel *parcel_new(struct kafka_publisher *p, struct publish *publish)
{
    size_t n = publish ? publish->n : 1, i;
    struct parcel *c = xcalloc(1, sizeof *c + n * sizeof c->items[0]);

    c->p = p;
    c->publish = publish;
    c->n = n;
    c->is_kept = !publish || is_kept(publish);
    c->n_left = publish ? n + 1 : 0;
    c->n_held = publish ? n + 1 : 1;
    c->taken_us = clock_mono_us();
    for (i = 0; i < n; i++) {
        c->items[i] = (struct item){.parcel = c, .source = POSITION_NONE};
        if (!publish)
            continue;
        c->items[i].record = &publish->records[i];
        c->items[i].source = publish->records[i].source;
        c->items[i].topic = publish->records[i].at.topic;
        publish->records[i].detail = 0;
    }
    p->n_open += publish != NULL;
    return c;
}

static void drop(struct parcel *c)
{
    if (--c->n_held == 0)
        free(c);
}

static void acknowledge(struct parcel *c)
{
    struct kafka_publisher *p = c->p;
    struct publish *publish = c->publish;
    int code = c->code;
    size_t bytes = broker_publish_bytes(publish);

    metric_add(METRIC_KAFKA_PUBLISHES, 1);
    metric_add(METRIC_KAFKA_PUBLISH_US, clock_mono_us() - c->taken_us);
    if (list_is_linked(&c->node))
        list_remove(&c->node);
    p->n_open--;
    pthread_mutex_lock(&p->lock);
    p->pending_bytes -= bytes; /* first, so that who hears of it finds the room */
    p->kept_bytes -= c->is_kept ? (int64_t)bytes : 0;
    pthread_mutex_unlock(&p->lock);
    c->publish = NULL;
    drop(c);
    publish->on_ack(publish, code);
}

void parcel_release(struct parcel *c)
{
    if (--c->n_left == 0)
        acknowledge(c);
}

void item_settle(struct item *i, int code)
{
    i->record->code = code;
    i->record = NULL;
    parcel_release(i->parcel);
}

void item_end(struct item *i)
{
    drop(i->parcel);
}

static void pay(struct item *i)
{
    if (topics_is_source(i->source.topic))
        kafka_owed_remove(&i->parcel->p->owed, i->source);
}

void item_fail(struct item *i, int code, bool is_its_own)
{
    metric_add(METRIC_KAFKA_FAILED, 1);
    if (i->parcel->code == 0 && !is_its_own)
        i->parcel->code = code;
    i->is_over = true;
    pay(i);
    item_settle(i, code);
    item_end(i);
}

/* On the follow's thread, or in kafka_follow_wait. */
static void on_applied(struct kafka_waiter *w)
{
    struct kafka_publisher *p = ((struct item *)(void *)w)->parcel->p;
    bool is_first; /* else it is woken already */

    pthread_mutex_lock(&p->lock);
    is_first = !p->applied;
    w->next = p->applied;
    p->applied = w;
    pthread_mutex_unlock(&p->lock);
    if (is_first)
        publisher_wake(p);
}

void item_deliver(struct item *i, int32_t partition, int64_t offset)
{
    struct kafka_publisher *p = i->parcel->p;
    struct position at = {i->topic, partition, offset};

    i->is_over = true;
    metric_add(METRIC_KAFKA_RECORDS, 1);
    if (topics_is_source(i->source.topic))
        p->o.on_finished(p->o.data, i->source, at);
    pay(i); /* after it, so that the source's end is always known to somebody */
    if (!i->record) {
        item_end(i);
        return;
    }
    i->record->at = at;
    if (p->o.follow) {
        i->waiter = (struct kafka_waiter){.at = at, .on_applied = on_applied};
        kafka_follow_wait(p->o.follow, &i->waiter);
        return;
    }
    item_settle(i, 0);
    item_end(i);
}

void items_applied(struct kafka_waiter *w)
{
    struct kafka_waiter *next;
    struct item *i;

    for (; w; w = next) {
        next = w->next;
        i = (struct item *)(void *)w;
        i->record->detail = w->detail;
        item_settle(i, w->code);
        item_end(i);
    }
}
