/* The membership of the group: what this process is assigned, and what it must give up. Callbacks
 * of librdkafka only note; the subscriptions are told in the loop's turn.
 *
 * A revoked partition drains: its subscription drops what has not started, what runs may end for a
 * while, the finishes are committed, then it is given up. Meanwhile librdkafka gives this member
 * nothing of its other partitions either, and others wait: hence the bound. */
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "broker-config/kafka_inside.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    COMMIT_MS = 2000, /* for the commit of what is given up */
    FIND_MS = 1000,   /* closing: for the group to be found, */
    JOIN_MS = 5000,   /* and for the first assignment */
    LEAVE_MS = 5000,
    POLL_MS = 50
};

/* ---- giving up ---- */

static struct kafka_feed *feed_of(struct kafka_group *g, const rd_kafka_topic_partition_t *p)
{
    return kafka_group_feed(g, topics_find(g->topics, str_z(p->topic)), p->partition);
}

static void log_partitions(const char *eventz, const rd_kafka_topic_partition_list_t *list)
{
    int i;

    for (i = 0; i < list->cnt; i++)
        log_info(eventz, LZ("topic", list->elems[i].topic),
                 LI("partition", list->elems[i].partition));
}

static void log_error_of(const char *whatz, rd_kafka_error_t *error)
{
    if (error)
        log_error(whatz, LZ("error", rd_kafka_error_string(error)));
    rd_kafka_error_destroy(error);
}

static void give_up(struct kafka_group *g, const rd_kafka_topic_partition_list_t *list)
{
    struct kafka_feed *f;
    int i;

    for (i = 0; i < list->cnt && !g->is_closing; i++)
        if ((f = feed_of(g, &list->elems[i])))
            kafka_group_remove_feed(g, f);
    metric_add(METRIC_KAFKA_PARTITIONS, -list->cnt);
    g->is_unassigned = true;
    log_error_of("group_unassign", rd_kafka_incremental_unassign(g->member, list));
}

static void on_revoked(struct kafka_group *g, rd_kafka_topic_partition_list_t *list)
{
    bool is_lost = rd_kafka_assignment_lost(g->member);
    struct kafka_feed *f;
    int i;

    log_partitions(is_lost ? "group_lost" : "group_revoked", list);
    metric_add(METRIC_KAFKA_PARTITIONS_LOST, is_lost ? list->cnt : 0);
    if (g->is_closing || g->revoke.partitions) {
        give_up(g, list);
        return;
    }
    for (i = 0; i < list->cnt; i++)
        if ((f = feed_of(g, &list->elems[i])))
            f->state = f->state == FEED_ON ? FEED_DRAINING : FEED_LEAVING;
    g->revoke = (struct kafka_revoke){.partitions = rd_kafka_topic_partition_list_copy(list)};
    if (is_lost) /* another one may have them already */
        give_up(g, list);
    g->revoke.is_given_up = is_lost;
    kafka_group_again(g);
}

static int64_t drain_ms(const struct kafka_group *g)
{
    int64_t ms = g->config->worker_drain_ms;

    return ms < g->drain_max_ms ? ms : g->drain_max_ms;
}

/* Tells the subscriptions. False: one of them closed the group. */
static bool tell(struct kafka_group *g)
{
    const rd_kafka_topic_partition_list_t *list = g->revoke.partitions;
    const struct subscription *s;
    struct kafka_feed *f;
    int i, topic;
    size_t n;

    for (i = 0; i < list->cnt; i++) {
        topic = topics_find(g->topics, str_z(list->elems[i].topic));
        s = &g->topic[topic].s;
        n = s->on_revoked ? s->on_revoked(s->data, topic, list->elems[i].partition) : 0;
        if (g->is_closed)
            return false;
        if ((f = feed_of(g, &list->elems[i])))
            f->n_running = n;
    }
    g->revoke.is_told = true;
    g->revoke.over_ms = clock_mono_ms() + drain_ms(g);
    return true;
}

static void end_revoke(struct kafka_group *g)
{
    rd_kafka_topic_partition_list_t *list = g->revoke.partitions;

    if (!g->revoke.is_given_up)
        give_up(g, list);
    rd_kafka_topic_partition_list_destroy(list);
    g->revoke = (struct kafka_revoke){0};
}

/* How many of its partitions still have something to do in this state. */
static int count_busy(struct kafka_group *g, enum kafka_feed_state state)
{
    const rd_kafka_topic_partition_list_t *list = g->revoke.partitions;
    const struct kafka_feed *f;
    int i, n = 0;

    for (i = 0; i < list->cnt; i++)
        if ((f = feed_of(g, &list->elems[i])) && f->state == state)
            n += state == FEED_DRAINING ? f->n_running > 0 : kafka_feed_is_dirty(f);
    return n;
}

static void start_leaving(struct kafka_group *g)
{
    const rd_kafka_topic_partition_list_t *list = g->revoke.partitions;
    struct kafka_feed *f;
    int i;

    for (i = 0; i < list->cnt; i++)
        if ((f = feed_of(g, &list->elems[i])))
            f->state = FEED_LEAVING;
    g->revoke.is_leaving = true;
    g->revoke.over_ms = clock_mono_ms() + COMMIT_MS;
}

void kafka_member_progress(struct kafka_group *g)
{
    struct kafka_revoke *r = &g->revoke;

    if (!r->partitions || (!r->is_told && !tell(g)))
        return;
    if (r->is_given_up || rd_kafka_assignment_lost(g->member)) {
        end_revoke(g);
        return;
    }
    if (!r->is_leaving) {
        if (count_busy(g, FEED_DRAINING) > 0 && clock_mono_ms() < r->over_ms)
            return;
        start_leaving(g);
    }
    kafka_commit_send(g);
    if ((!g->is_committing && count_busy(g, FEED_LEAVING) == 0) || clock_mono_ms() >= r->over_ms)
        end_revoke(g);
}

/* ---- being given ---- */

static void add_feed(struct kafka_group *g, rd_kafka_topic_partition_t *p, struct kafka_start *s)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(g->member, p->topic, p->partition);

    rd_kafka_queue_forward(queue, NULL); /* before the assign, so that nothing slips into `main` */
    s->topic = topics_find(g->topics, str_z(p->topic));
    s->partition = p->partition;
    if (s->topic == TOPIC_SCHEDULED)
        p->offset = RD_KAFKA_OFFSET_BEGINNING; /* whatever is committed */
    kafka_group_add_feed(g, s->topic, s->partition, false, queue);
}

static void on_assigned(struct kafka_group *g, rd_kafka_topic_partition_list_t *list)
{
    struct kafka_check *check = NULL;
    size_t topic;
    int i;

    log_partitions("group_assigned", list);
    metric_add(METRIC_KAFKA_PARTITIONS, list->cnt);
    if (list->cnt > 0 && !g->is_closing)
        check = kafka_check_new((size_t)list->cnt);
    for (i = 0; check && i < list->cnt; i++)
        add_feed(g, &list->elems[i], &check->starts[i]);
    log_error_of("group_assign", rd_kafka_incremental_assign(g->member, list));
    g->has_assignment = true;
    g->is_unassigned = false;
    for (topic = 0; topic < topics_count(g->topics); topic++)
        g->topic[topic].is_assigned = g->topic[topic].is_on && !g->is_subscribe_due;
    if (check) {
        check->member = g->member;
        kafka_group_check(g, check);
    }
    kafka_group_again(g);
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                         rd_kafka_topic_partition_list_t *list, void *data)
{
    struct kafka_group *g = data;

    if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        on_assigned(g, list);
    } else if (err == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        on_revoked(g, list);
    } else {
        log_error("group_rebalance", LZ("error", rd_kafka_err2str(err)));
        rd_kafka_assign(rk, NULL);
    }
}

static void on_error(rd_kafka_t *rk, int err, const char *whyz, void *data)
{
    (void)rk;
    kafka_group_set_health(data, (rd_kafka_resp_err_t)err, whyz);
}

void kafka_member_serve(struct kafka_group *g)
{
    rd_kafka_message_t *m;

    while ((m = rd_kafka_consumer_poll(g->member, 0))) {
        assert(m->err); /* partitions have queues of their own */
        kafka_group_set_health(g, m->err, rd_kafka_message_errstr(m));
        rd_kafka_message_destroy(m);
    }
}

/* ---- coming and going ---- */

void kafka_member_watch(struct kafka_group *g, rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_error_cb(conf, on_error);
    kafka_gate_watch(&g->gate, conf);
    kafka_group_await_answer(g);
}

static int set_group(rd_kafka_conf_t *conf, const struct config *c, struct err *e)
{
    char group[128];
    int rc;

    snprintf(group, sizeof group, "%s.workers", c->broker_prefix);
    rc = kafka_conf_set(conf, "group.id", group, e);
    if (rc == 0 && c->worker_name[0])
        rc = kafka_conf_set(conf, "group.instance.id", c->worker_name, e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "partition.assignment.strategy", "cooperative-sticky", e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "enable.auto.commit", "false", e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "enable.auto.offset.store", "false", e);
    if (rc == 0)
        rc = kafka_conf_set(conf, "enable.partition.eof", "true", e);
    if (rc == 0)
        rc = kafka_conf_default(conf, c, "session.timeout.ms", "10000", e);
    if (rc == 0)
        rc = kafka_conf_default(conf, c, "heartbeat.interval.ms", "500", e);
    if (rc == 0) /* a partition whose queue was full waits for the idle ones' request to end */
        rc = kafka_conf_default(conf, c, "fetch.wait.max.ms", "100", e);
    return rc ? rc : kafka_conf_default(conf, c, "queued.max.messages.kbytes", "2048", e);
}

static int64_t get_ms(const rd_kafka_conf_t *conf, const char *namez)
{
    char text[32] = "";
    size_t n = sizeof text;
    int64_t ms = 0;

    rd_kafka_conf_get(conf, namez, text, &n);
    str_int(str_z(text), &ms);
    return ms;
}

int kafka_member_open(struct kafka_group *g, struct err *e)
{
    rd_kafka_conf_t *conf = kafka_conf(g->config, KAFKA_CONSUMER, g, e);

    if (!conf)
        return e->code;
    if (set_group(conf, g->config, e) != 0) {
        rd_kafka_conf_destroy(conf);
        return e->code;
    }
    g->drain_max_ms = get_ms(conf, "max.poll.interval.ms") / 2;
    g->session_ms = get_ms(conf, "session.timeout.ms");
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    kafka_member_watch(g, conf);
    g->member = kafka_client_new(KAFKA_CONSUMER, conf, e);
    if (!g->member)
        return e->code;
    rd_kafka_poll_set_consumer(g->member);
    g->main = rd_kafka_queue_get_consumer(g->member);
    g->answers = rd_kafka_queue_new(g->member);
    kafka_group_listen(g, g->main);
    kafka_group_listen(g, g->answers);
    return 0;
}

void kafka_member_subscribe(struct kafka_group *g)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    rd_kafka_resp_err_t err;
    size_t i;

    for (i = 0; i < topics_count(g->topics); i++)
        if (g->topic[i].is_on && !g->topic[i].is_plain)
            rd_kafka_topic_partition_list_add(list, topics_name(g->topics, (int)i),
                                              RD_KAFKA_PARTITION_UA);
    err = rd_kafka_subscribe(g->member, list);
    if (err)
        kafka_group_set_health(g, err, rd_kafka_err2str(err));
    rd_kafka_topic_partition_list_destroy(list);
    g->is_subscribe_due = false;
    g->is_subscribed = true;
}

/* librdkafka 2.0.2 aborts when it is closed between JoinGroup and the first assignment (its pull
 * request 4381). */
static void wait_assignment(struct kafka_group *g)
{
    int64_t now_ms = clock_mono_ms(), began_ms = now_ms;
    rd_kafka_message_t *m;

    while (g->is_subscribed && !g->has_assignment &&
           now_ms - began_ms < (atomic_load(&g->gate.is_joining) ? JOIN_MS : FIND_MS)) {
        m = rd_kafka_consumer_poll(g->member, POLL_MS);
        if (m)
            rd_kafka_message_destroy(m);
        now_ms = clock_mono_ms();
    }
}

/* As rd_kafka_consumer_close, but for a bound. */
static void close_consumer(struct kafka_group *g)
{
    int64_t over_ms = clock_mono_ms() + LEAVE_MS;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(g->member);
    rd_kafka_message_t *m;

    log_error_of("group_leave", rd_kafka_consumer_close_queue(g->member, queue));
    while (!rd_kafka_consumer_closed(g->member) && clock_mono_ms() < over_ms) {
        m = rd_kafka_consume_queue(queue, POLL_MS); /* calls on_rebalance */
        if (m)
            rd_kafka_message_destroy(m);
    }
    rd_kafka_queue_destroy(queue);
}

void kafka_member_leave(struct kafka_group *g)
{
    wait_assignment(g);
    kafka_commit_last(g);
    if (g->revoke.partitions)
        end_revoke(g);
    if (g->has_assignment) /* else it goes without a word, after its session's time */
        close_consumer(g);
}
