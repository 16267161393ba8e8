/* Subscriptions and what is delivered to them: of job topics and `scheduled` the partitions that
 * the consumer group gives this process, of the others all there is. librdkafka's queues wake the
 * loop through one descriptor; a turn then looks at all of them. Nothing is paused: a queue is read
 * while its window has room, a slice of time in each turn; librdkafka bounds what it fetches
 * ahead. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker-config/kafka_inside.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { TICK_MS = 500, SOON_MS = 25, SLICE_US = 300, N_HANDLES = 4 };

static bool is_plain(int topic)
{
    return !topics_is_jobs(topic) && topic != TOPIC_SCHEDULED;
}

/* ---- subscribing ---- */

void kafka_group_listen(struct kafka_group *g, rd_kafka_queue_t *queue)
{
    static const uint64_t one = 1;

    rd_kafka_queue_io_event_enable(queue, g->wake_fd, &one, sizeof one);
}

void kafka_group_again(struct kafka_group *g)
{
    uv_async_send(&g->again);
}

static int open_plain(struct kafka_group *g, struct err *e)
{
    rd_kafka_conf_t *conf = kafka_conf(g->config, KAFKA_CONSUMER, g, e);

    if (!conf)
        return e->code;
    if (kafka_conf_set(conf, "enable.partition.eof", "true", e) != 0) {
        rd_kafka_conf_destroy(conf);
        return e->code;
    }
    kafka_member_watch(g, conf);
    g->plain = kafka_client_new(KAFKA_CONSUMER, conf, e);
    return g->plain ? 0 : e->code;
}

static void start_plain(struct kafka_group *g, int topic)
{
    struct kafka_check *check = kafka_check_new(1);
    const char *namez = topics_name(g->topics, topic);

    g->topic[topic].reader = rd_kafka_topic_new(g->plain, namez, NULL);
    check->starts[0].topic = topic;
    kafka_group_add_feed(g, topic, 0, true, rd_kafka_queue_new(g->plain));
    kafka_group_check(g, check);
}

int kafka_group_subscribe(struct kafka_group *g, int topic, const struct subscription *s,
                          struct err *e)
{
    struct kafka_topic *t = &g->topic[topic];
    int rc = 0;

    assert(topic >= 0 && (size_t)topic < g->n_topics && s->window > 0);
    if (t->is_on)
        return err_set(e, ERR_EXISTS, "%s: is subscribed to", topics_name(g->topics, topic));
    t->is_plain = is_plain(topic);
    if (t->is_plain && !g->plain)
        rc = open_plain(g, e);
    else if (!t->is_plain && !g->member)
        rc = kafka_member_open(g, e);
    if (rc)
        return rc;
    t->is_on = true;
    t->s = *s;
    if (t->is_plain)
        start_plain(g, topic);
    else
        g->is_subscribe_due = true;
    kafka_group_again(g);
    return 0;
}

/* ---- finishing ---- */

void kafka_group_finish(struct kafka_group *g, struct position at)
{
    struct kafka_feed *f = kafka_group_feed(g, at.topic, at.partition);

    if (f && kafka_feed_finish(f, at.offset))
        kafka_group_again(g);
}

void kafka_group_note(struct kafka_group *g, struct position source, struct position by)
{
    struct kafka_notes *notes = &g->notes;
    bool is_first;

    uv_mutex_lock(&g->lock);
    if (notes->n == notes->room) {
        notes->room = notes->room ? notes->room * 2 : 64;
        notes->at = xrealloc(notes->at, notes->room * sizeof *notes->at);
    }
    notes->at[notes->n++] = (struct kafka_note){source, by};
    is_first = notes->n == 1;
    uv_mutex_unlock(&g->lock);
    if (is_first) /* later ones find the loop already woken */
        uv_async_send(&g->again);
}

static void apply_note(struct kafka_group *g, const struct kafka_note *n)
{
    struct kafka_feed *f = kafka_group_feed(g, n->source.topic, n->source.partition);

    if (n->by.topic == TOPIC_COMPLETIONS && n->by.offset >= g->feed_end)
        g->feed_end = n->by.offset + 1;
    if (f)
        kafka_feed_finish(f, n->source.offset);
}

void kafka_group_apply_notes(struct kafka_group *g)
{
    struct kafka_notes notes;
    size_t i;

    uv_mutex_lock(&g->lock);
    notes = g->notes;
    g->notes = g->spare;
    g->notes.n = 0;
    uv_mutex_unlock(&g->lock);
    for (i = 0; i < notes.n; i++)
        apply_note(g, &notes.at[i]);
    g->spare = notes;
}

/* ---- a turn ---- */

/* Gives how many there were. */
static size_t deliver(struct kafka_group *g, struct kafka_feed *f)
{
    const struct subscription *s = &g->topic[f->topic].s;
    struct kafka_batch *b = g->batch;
    size_t i, n;

    kafka_feed_fetch(f, g->topics, b);
    for (i = 0; i < b->n && !f->is_plain && !f->is_table; i++)
        b->is_owed[i] = kafka_publisher_owes(g->publisher, b->records[i].at);
    kafka_group_apply_notes(g); /* after it: what is owed no more has been noted */
    kafka_feed_take(f, b);
    if (b->n_records > 0)
        s->on_records(s->data, b->records, b->n_records);
    n = b->n;
    kafka_batch_clear(b);
    return n;
}

static bool is_readable(const struct kafka_group *g, const struct kafka_feed *f)
{
    return kafka_feed_room(f) > 0 && (f->is_plain || kafka_gate_has_lease(g));
}

static size_t count_feeds(const struct kafka_group *g)
{
    const struct list *node;
    size_t n = 0;

    for (node = g->feeds.next; node != &g->feeds; node = node->next)
        n++;
    return n;
}

/* A batch of each in turn, so that none waits for another's backlog; and of all no more than a
 * slice of time in one go, so that a backlog does not keep the loop from the jobs that run. */
static void deliver_all(struct kafka_group *g)
{
    int64_t over_us = clock_mono_us() + SLICE_US;
    size_t n = count_feeds(g), n_idle = 0, n_come;
    struct kafka_feed *f;
    struct list *node;

    while (n_idle < n && !g->is_closed) {
        node = list_pop(&g->feeds);
        list_push(&g->feeds, node);
        f = LIST_ENTRY(node, struct kafka_feed, node);
        n_come = is_readable(g, f) ? deliver(g, f) : 0;
        n_idle = f->has_more && is_readable(g, f) ? 0 : n_idle + 1;
        if (n_come > 0 && clock_mono_us() >= over_us)
            break;
    }
    g->is_behind = n_idle < n && !g->is_closed;
    if (g->is_behind)
        kafka_group_again(g);
}

static bool is_caught_up(const struct kafka_topic *t)
{
    const struct kafka_feed *f;
    size_t i;

    for (i = 0; i < t->room; i++) {
        f = t->feeds[i];
        if (f &&
            (f->state == FEED_CHECKING || (f->offsets.end < f->target && kafka_feed_room(f) > 0)))
            return false;
    }
    return t->n_feeds > 0 || t->is_assigned;
}

static void tell_caught_up(struct kafka_group *g)
{
    struct kafka_topic *t;
    size_t i;

    for (i = 0; i < g->n_topics && !g->is_closed; i++) {
        t = &g->topic[i];
        if (!t->is_on || t->is_caught_up || !is_caught_up(t))
            continue;
        t->is_caught_up = true;
        if (t->s.on_caught_up)
            t->s.on_caught_up(t->s.data, (int)i);
    }
}

static bool is_any_dirty(const struct kafka_group *g)
{
    const struct list *node;

    for (node = g->feeds.next; node != &g->feeds; node = node->next)
        if (kafka_feed_is_dirty(LIST_ENTRY(node, struct kafka_feed, node)))
            return true;
    return false;
}

static void on_soon(uv_timer_t *timer);

static void turn(struct kafka_group *g)
{
    kafka_gate_renew(g);
    kafka_group_apply_notes(g);
    if (g->is_subscribe_due)
        kafka_member_subscribe(g);
    if (g->member) {
        kafka_member_serve(g);
        kafka_commit_serve(g, 0);
        kafka_member_progress(g);
    }
    if (!g->is_closed && !g->is_behind)
        deliver_all(g);
    if (!g->is_closed)
        tell_caught_up(g);
    if (!g->is_closed && is_any_dirty(g) && !uv_is_active((uv_handle_t *)&g->soon))
        uv_timer_start(&g->soon, on_soon, SOON_MS, 0);
}

/* ---- handles ---- */

static void on_soon(uv_timer_t *timer)
{
    struct kafka_group *g = timer->data;

    kafka_commit_send(g);
    kafka_group_store_stats(g);
    turn(g);
}

static void on_tick(uv_timer_t *timer)
{
    struct kafka_group *g = timer->data;

    if (g->member)
        kafka_commit_tick(g);
    if (g->plain)
        rd_kafka_poll(g->plain, 0);
    kafka_group_store_stats(g);
    turn(g);
    kafka_gate_tell(g);
}

/* Comes once in a round of the loop: so does a slice, while there is a backlog. */
static void on_again(uv_async_t *async)
{
    struct kafka_group *g = async->data;

    g->is_behind = false;
    turn(g);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct kafka_group *g = poll->data;
    uint64_t n;

    (void)status, (void)events;
    while (read(g->wake_fd, &n, sizeof n) > 0)
        ;
    turn(g);
}

static void init_handles(struct kafka_group *g)
{
    g->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (g->wake_fd < 0 || uv_poll_init(g->loop, &g->wake, g->wake_fd) != 0 ||
        uv_async_init(g->loop, &g->again, on_again) != 0 || uv_mutex_init(&g->lock) != 0)
        abort(); /* no memory or no descriptors at start */
    uv_timer_init(g->loop, &g->tick);
    uv_timer_init(g->loop, &g->soon);
    g->wake.data = g->again.data = g->tick.data = g->soon.data = g;
    g->n_handles = N_HANDLES;
    uv_poll_start(&g->wake, UV_READABLE, on_wake);
    uv_timer_start(&g->tick, on_tick, TICK_MS, TICK_MS);
}

struct kafka_group *kafka_group_open(const struct kafka_group_options *o, struct err *e)
{
    struct kafka_group *g = xcalloc(1, sizeof *g);

    g->config = o->config;
    g->topics = o->topics;
    g->publisher = o->publisher;
    g->lease_told_ms = o->lease_ms;
    g->loop = o->loop;
    g->inbox = inbox_new(g->loop);
    g->reader = kafka_reader_open(o->config, o->topics, g->inbox, e);
    if (!g->reader) {
        inbox_free(g->inbox);
        free(g);
        return NULL;
    }
    g->n_topics = topics_count(o->topics);
    g->topic = xcalloc(g->n_topics, sizeof *g->topic);
    g->batch = xcalloc(1, sizeof *g->batch);
    list_init(&g->feeds);
    init_handles(g);
    return g;
}

int kafka_group_read(struct kafka_group *g, struct broker_read *r)
{
    kafka_reader_read(g->reader, r);
    return 0;
}

/* ---- closing ---- */

static void release_feeds(struct kafka_group *g)
{
    struct list *node;
    size_t i;

    while ((node = list_pop(&g->feeds)))
        kafka_feed_free(LIST_ENTRY(node, struct kafka_feed, node));
    for (i = 0; i < g->n_topics; i++) {
        if (g->topic[i].reader)
            rd_kafka_topic_destroy(g->topic[i].reader);
        free(g->topic[i].feeds);
    }
}

/* False: it was left to the process's end, which is near, as is one that is closed between
 * JoinGroup and its first assignment, where librdkafka 2.0.2 would abort. Its threads go on until
 * then, and find the gate where it was. */
static bool release_member(struct kafka_group *g)
{
    rd_kafka_queue_io_event_enable(g->main, -1, NULL, 0); /* its descriptor will be another's */
    rd_kafka_queue_io_event_enable(g->answers, -1, NULL, 0);
    rd_kafka_queue_destroy(g->main);
    rd_kafka_queue_destroy(g->answers);
    return (!g->is_subscribed || g->has_assignment) && kafka_part(g->member);
}

/* All that librdkafka counts must be released before its clients: else they wait for it. */
static void release(struct kafka_group *g)
{
    bool is_gone;

    release_feeds(g);
    is_gone = !g->member || release_member(g);
    if (g->plain)
        rd_kafka_destroy(g->plain);
    kafka_reader_free(g->reader);
    close(g->wake_fd);
    uv_mutex_destroy(&g->lock);
    free(g->notes.at);
    free(g->spare.at);
    free(g->topic);
    free(g->batch);
    if (is_gone)
        free(g);
}

static void on_closed(uv_handle_t *handle)
{
    struct kafka_group *g = handle->data;

    if (--g->n_handles == 0)
        release(g);
}

static void stop_plain(struct kafka_group *g)
{
    const struct kafka_feed *f;
    struct list *node;

    for (node = g->feeds.next; node != &g->feeds; node = node->next) {
        f = LIST_ENTRY(node, struct kafka_feed, node);
        if (f->is_plain && f->state == FEED_ON)
            rd_kafka_consume_stop(g->topic[f->topic].reader, f->partition);
    }
}

/* May be called from a callback of ours: what that one still uses goes with the handles. */
void kafka_group_close(struct kafka_group *g)
{
    g->is_closing = true;
    kafka_reader_stop(g->reader);
    inbox_drain(g->inbox);
    inbox_free(g->inbox);
    kafka_group_apply_notes(g);
    if (g->member)
        kafka_member_leave(g);
    stop_plain(g);
    g->is_closed = true;
    uv_close((uv_handle_t *)&g->wake, on_closed);
    uv_close((uv_handle_t *)&g->again, on_closed);
    uv_close((uv_handle_t *)&g->tick, on_closed);
    uv_close((uv_handle_t *)&g->soon, on_closed);
}
