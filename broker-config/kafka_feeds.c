/* The feeds of a group: found by their partition, their topic's window shared between them, started
 * when their check is done. */
#include "base/buf.h"
#include "broker-config/kafka_inside.h"
#include <assert.h>

struct kafka_feed *kafka_group_feed(const struct kafka_group *g, int topic, int32_t partition)
{
    const struct kafka_topic *t;

    if (topic < 0 || (size_t)topic >= g->n_topics || partition < 0)
        return NULL;
    t = &g->topic[topic];
    return (size_t)partition < t->room ? t->feeds[partition] : NULL;
}

/* Shares the topic's window between its partitions. */
static void share_window(struct kafka_topic *t)
{
    size_t i, share = t->n_feeds > 1 ? t->s.window / t->n_feeds : t->s.window;

    for (i = 0; i < t->room; i++)
        if (t->feeds[i])
            t->feeds[i]->window = share > 0 ? share : 1;
}

struct kafka_feed *kafka_group_add_feed(struct kafka_group *g, int topic, int32_t partition,
                                        bool is_plain, rd_kafka_queue_t *queue)
{
    struct kafka_feed *f = kafka_feed_new(topic, partition, is_plain, queue);
    struct kafka_topic *t = &g->topic[topic];
    size_t at = (size_t)partition;

    if (at >= t->room) {
        t->feeds = xrealloc(t->feeds, (at + 1) * sizeof(struct kafka_feed *));
        for (; t->room <= at; t->room++)
            t->feeds[t->room] = NULL;
    }
    assert(!t->feeds[at]);
    t->feeds[at] = f;
    t->n_feeds++;
    list_push(&g->feeds, &f->node);
    share_window(t);
    kafka_group_listen(g, queue);
    return f;
}

void kafka_group_remove_feed(struct kafka_group *g, struct kafka_feed *f)
{
    struct kafka_topic *t = &g->topic[f->topic];

    t->feeds[f->partition] = NULL;
    t->n_feeds--;
    list_remove(&f->node);
    kafka_feed_free(f);
    share_window(t);
}

static void start_feed(struct kafka_group *g, struct kafka_feed *f, struct kafka_start *s)
{
    struct kafka_topic *t = &g->topic[f->topic];
    rd_kafka_topic_t *reader = t->reader;
    int64_t low = s->low;

    kafka_feed_start(f, s);
    if (f->is_table) {
        t->is_caught_up = false;
        if (t->s.on_given)
            t->s.on_given(t->s.data, f->topic, f->partition);
    }
    if (f->is_plain && rd_kafka_consume_start_queue(reader, f->partition, low, f->queue) != 0)
        kafka_group_set_health(g, rd_kafka_last_error(), topics_name(g->topics, f->topic));
}

/* One subscription is told: the job topics' are one owner's. */
static void tell_ended(struct kafka_group *g, struct str names)
{
    const char *slash, *second, *end;
    size_t topic = 0;

    while (topic < g->n_topics && !(g->topic[topic].is_on && g->topic[topic].s.on_ended))
        topic++;
    while (topic < g->n_topics && names.n > 0) {
        slash = memchr(names.p, '/', names.n);
        end = memchr(names.p, '\n', names.n);
        second = memchr(slash + 1, '/', (size_t)(end - slash - 1));
        g->topic[topic].s.on_ended(g->topic[topic].s.data,
                                   str_of(names.p, (size_t)(slash - names.p)),
                                   str_of(slash + 1, (size_t)(second - slash - 1)),
                                   str_of(second + 1, (size_t)(end - second - 1)));
        names = str_of(end + 1, names.n - (size_t)(end + 1 - names.p));
    }
}

static void on_checked(struct message *m)
{
    struct kafka_check *check = (struct kafka_check *)(void *)m;
    struct kafka_group *g = check->data;
    struct kafka_feed *f;
    size_t i;

    if (check->is_found && !g->is_closing)
        tell_ended(g, buf_str(&check->ended));
    for (i = 0; i < check->n && check->is_found && !g->is_closing; i++) {
        f = kafka_group_feed(g, check->starts[i].topic, check->starts[i].partition);
        if (f && f->serial == check->serial && f->state == FEED_CHECKING)
            start_feed(g, f, &check->starts[i]);
    }
    kafka_check_free(check);
    if (!g->is_closing)
        kafka_group_again(g);
}

void kafka_group_check(struct kafka_group *g, struct kafka_check *check)
{
    size_t i;

    check->m.on_receive = on_checked;
    check->data = g;
    check->serial = ++g->serial;
    for (i = 0; i < check->n; i++)
        kafka_group_feed(g, check->starts[i].topic, check->starts[i].partition)->serial = g->serial;
    kafka_reader_check(g->reader, check);
}
