/* librdkafka's admin requests, one at a time. Its 2.0.2 has no IncrementalAlterConfigs (KIP-339),
 * so what others have set at a topic is sent along with ours; and a request that succeeded is not
 * seen by every other at once, so all that may pass is looked at again. */
#include "broker-config/kafka_topics.h"
#include "base/buf.h"
#include "base/clock.h"
#include "broker-config/kafka.h"
#include <assert.h>
#include <stdlib.h>

enum {
    CONNECT_MS = 5000,
    METADATA_MS = 500,
    REQUEST_MS = 10000,
    SETTLE_MS = 30000, /* for Kafka to show what was done */
    PAUSE_MS = 100,
    WHY_BYTES = 256,
};

struct admin {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    const struct config *config;
    const struct topics *topics;
    char trouble[WHY_BYTES]; /* what librdkafka complained of last */
};

/* ---- the client ---- */

static void on_error(rd_kafka_t *rk, int error, const char *reasonz, void *data)
{
    struct admin *a = data;

    (void)rk, (void)error;
    str_copyz(a->trouble, sizeof a->trouble, str_z(reasonz));
}

/* A consumer, without a group: it asks for nothing by itself. */
static int admin_open(struct admin *a, const struct config *c, const struct topics *t,
                      struct err *e)
{
    rd_kafka_conf_t *conf;

    *a = (struct admin){.config = c, .topics = t};
    conf = kafka_conf(c, KAFKA_CONSUMER, a, e);
    if (!conf)
        return e->code;
    rd_kafka_conf_set_error_cb(conf, on_error);
    a->rk = kafka_client_new(KAFKA_CONSUMER, conf, e);
    if (!a->rk)
        return e->code;
    a->queue = rd_kafka_queue_new(a->rk);
    return 0;
}

static void admin_close(struct admin *a)
{
    if (!a->rk)
        return;
    rd_kafka_queue_destroy(a->queue);
    rd_kafka_destroy(a->rk);
}

static void pause_for(struct admin *a, int ms)
{
    rd_kafka_poll(a->rk, ms); /* nothing comes there but errors, for on_error */
}

static rd_kafka_AdminOptions_t *options_for(struct admin *a, rd_kafka_admin_op_t op)
{
    rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(a->rk, op);
    bool makes = op == RD_KAFKA_ADMIN_OP_CREATETOPICS || op == RD_KAFKA_ADMIN_OP_CREATEPARTITIONS;

    rd_kafka_AdminOptions_set_request_timeout(o, REQUEST_MS, NULL, 0);
    if (makes) /* answered when the controller has done it, as far as it can in half the time */
        rd_kafka_AdminOptions_set_operation_timeout(o, REQUEST_MS / 2, NULL, 0);
    return o;
}

/* The request's result (rd_kafka_event_destroy), or NULL and *e. */
static rd_kafka_event_t *await(struct admin *a, const char *whatz, struct err *e)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(a->queue, REQUEST_MS * 2);

    if (!event) {
        err_set(e, ERR_TIMEOUT, "Kafka: %s: no answer", whatz);
        return NULL;
    }
    if (!rd_kafka_event_error(event))
        return event;
    err_set(e, kafka_code(rd_kafka_event_error(event)), "Kafka: %s: %s", whatz,
            rd_kafka_event_error_string(event));
    rd_kafka_event_destroy(event);
    return NULL;
}

/* Errors of one topic that another look may find gone: ours, or another process's change is on its
 * way. */
static bool is_passing(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
    case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS: /* there are as many already */
    case RD_KAFKA_RESP_ERR_REASSIGNMENT_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED:
        return true;
    default:
        return false;
    }
}

/* ---- reading what is there ---- */

static int fail_unreachable(struct admin *a, struct err *e)
{
    return err_set(e, ERR_UNREACHABLE, "Kafka cannot be reached at %s%s%s",
                   a->config->broker_servers, a->trouble[0] ? ": " : "", a->trouble);
}

/* All topics: asked for by name, one that is not there might be made by the asking. */
static int get_metadata(struct admin *a, const struct rd_kafka_metadata **out, struct err *e)
{
    int64_t deadline_ms = clock_mono_ms() + CONNECT_MS;
    rd_kafka_resp_err_t err;
    int code;

    for (;;) {
        err = rd_kafka_metadata(a->rk, 1, NULL, out, METADATA_MS);
        code = kafka_code(err);
        if (code == 0)
            return 0;
        pause_for(a, 0);
        if (code != ERR_UNREACHABLE && code != ERR_TIMEOUT)
            return kafka_fail(e, err, "topics");
        if (clock_mono_ms() >= deadline_ms)
            return fail_unreachable(a, e);
    }
}

static int replication_of(const struct rd_kafka_metadata_topic *t)
{
    int i, n = t->partitions[0].replica_cnt;

    for (i = 1; i < t->partition_cnt; i++)
        if (t->partitions[i].replica_cnt < n)
            n = t->partitions[i].replica_cnt;
    return n;
}

/* Topics under our prefix. ERR_BUSY: one of them is just being made. */
static int read_metadata(struct admin *a, struct topic_shapes *out, struct err *e)
{
    size_t n_prefix = strlen(a->config->broker_prefix);
    const struct rd_kafka_metadata *m;
    const struct rd_kafka_metadata_topic *t;
    struct topic_shape *shape;
    int i, rc = get_metadata(a, &m, e);

    if (rc < 0)
        return rc;
    out->n_brokers = m->broker_cnt;
    for (i = 0; rc == 0 && i < m->topic_cnt; i++) {
        t = &m->topics[i];
        if (strncmp(t->topic, a->config->broker_prefix, n_prefix) != 0)
            continue;
        if (t->err || t->partition_cnt == 0) {
            rc = err_set(e, ERR_BUSY, "Kafka: topic %s: %s", t->topic,
                         t->err ? rd_kafka_err2str(t->err) : "has no partitions yet");
            continue;
        }
        shape = topic_shapes_add(out, t->topic);
        shape->n_partitions = t->partition_cnt;
        shape->replication = replication_of(t);
    }
    rd_kafka_metadata_destroy(m);
    return rc;
}

static int take_settings(const rd_kafka_ConfigResource_t *r, struct topic_shapes *out,
                         struct err *e)
{
    const char *namez = rd_kafka_ConfigResource_name(r), *valuez;
    rd_kafka_resp_err_t err = rd_kafka_ConfigResource_error(r);
    struct topic_shape *shape = topic_shapes_find(out, namez);
    const rd_kafka_ConfigEntry_t **entries;
    size_t i, n;

    entries = rd_kafka_ConfigResource_configs(r, &n);
    if (err && !is_passing(err))
        return err_set(e, kafka_code(err), "Kafka: settings of %s: %s", namez,
                       rd_kafka_ConfigResource_error_string(r));
    if (err || n == 0)
        return err_set(e, ERR_BUSY, "Kafka: topic %s is not to be seen by all brokers", namez);
    for (i = 0; i < n; i++) {
        valuez = rd_kafka_ConfigEntry_value(entries[i]);
        if (valuez)
            topic_shape_set(shape, rd_kafka_ConfigEntry_name(entries[i]), valuez,
                            rd_kafka_ConfigEntry_source(entries[i]) ==
                                RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG);
    }
    return 0;
}

/* The settings of those topics that are the config's. */
static int read_settings(struct admin *a, struct topic_shapes *out, struct err *e)
{
    rd_kafka_ConfigResource_t **wanted = xcalloc(out->n + 1, sizeof wanted[0]);
    rd_kafka_AdminOptions_t *options = options_for(a, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    const rd_kafka_ConfigResource_t **got;
    rd_kafka_event_t *event = NULL;
    size_t i, n = 0;
    int rc = 0;

    for (i = 0; i < out->n; i++)
        if (topics_find(a->topics, str_z(out->shapes[i].namez)) >= 0)
            wanted[n++] =
                rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, out->shapes[i].namez);
    if (n > 0) {
        rd_kafka_DescribeConfigs(a->rk, wanted, n, options, a->queue);
        event = await(a, "settings of topics", e);
        rc = event ? 0 : e->code;
    }
    if (event) {
        got = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(event), &n);
        for (i = 0; rc == 0 && i < n; i++)
            rc = take_settings(got[i], out, e);
        rd_kafka_event_destroy(event);
    }
    for (i = 0; wanted[i]; i++)
        rd_kafka_ConfigResource_destroy(wanted[i]);
    free(wanted);
    rd_kafka_AdminOptions_destroy(options);
    return rc;
}

static int read_once(struct admin *a, struct topic_shapes *out, struct err *e)
{
    int rc;

    *out = (struct topic_shapes){0};
    rc = read_metadata(a, out, e);
    if (rc == 0)
        rc = read_settings(a, out, e);
    if (rc < 0)
        topic_shapes_release(out);
    return rc;
}

static int read_shapes(struct admin *a, struct topic_shapes *out, struct err *e)
{
    int64_t deadline_ms = clock_mono_ms() + SETTLE_MS;
    int rc = read_once(a, out, e);

    while (rc == ERR_BUSY && clock_mono_ms() < deadline_ms) {
        pause_for(a, PAUSE_MS);
        rc = read_once(a, out, e);
    }
    return rc;
}

int kafka_topics_check(const struct config *c, const struct topics *t, struct err *e)
{
    struct topic_shapes is = {0};
    struct admin a;
    int i, n = (int)topics_count(t), rc = admin_open(&a, c, t, e);

    if (rc == 0)
        rc = read_metadata(&a, &is, e);
    for (i = 0; rc == 0 && i < n; i++)
        if (!topic_shapes_find(&is, topics_name(t, i)))
            rc = err_set(e, ERR_NOT_FOUND, "Kafka has no topic %s; 'genq topics apply' makes it",
                         topics_name(t, i));
    topic_shapes_release(&is);
    admin_close(&a);
    return rc;
}

int kafka_topics_plan(const struct config *c, const struct topics *t, struct kafka_plan *out,
                      struct err *e)
{
    struct topic_shapes is;
    struct admin a;
    int rc = admin_open(&a, c, t, e);

    kafka_warn_of_scram(c);
    *out = (struct kafka_plan){0};
    if (rc == 0)
        rc = read_shapes(&a, &is, e);
    if (rc == 0) {
        rc = kafka_plan_make(c, t, &is, out, e);
        topic_shapes_release(&is);
    }
    admin_close(&a);
    return rc;
}

/* ---- taking the steps ---- */

struct run {
    struct admin *a;
    const struct topic_shapes *is;
    const struct kafka_plan *plan;
    bool (*taken)[TOPIC_STEPS_]; /* by topic: on_step was told */
    void (*on_step)(void *data, const struct topic_plan *p, enum topic_step step);
    void *data;
    struct err *e;
    int rc;              /* the first error that does not pass */
    char why[WHY_BYTES]; /* the last one that does */
};

static void note(struct run *r, const char *namez, enum topic_step step, rd_kafka_resp_err_t err,
                 const char *whyz)
{
    int topic = topics_find(r->a->topics, str_z(namez));

    assert(topic >= 0);
    if (is_passing(err)) {
        str_copyz(r->why, sizeof r->why, str_z(whyz ? whyz : rd_kafka_err2str(err)));
    } else if (err && r->rc == 0) {
        r->rc = err_set(r->e, kafka_code(err), "Kafka: topic %s: %s", namez,
                        whyz ? whyz : rd_kafka_err2str(err));
    } else if (!err && !r->taken[topic][step]) {
        r->taken[topic][step] = true;
        r->on_step(r->data, &r->plan->topics[topic], step);
    }
}

static void note_topics(struct run *r, enum topic_step step,
                        const rd_kafka_topic_result_t **results, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        note(r, rd_kafka_topic_result_name(results[i]), step,
             rd_kafka_topic_result_error(results[i]),
             rd_kafka_topic_result_error_string(results[i]));
}

static void fail_step(struct run *r)
{
    if (r->rc == 0)
        r->rc = r->e->code;
}

static rd_kafka_NewTopic_t *new_topic(const struct topic_plan *p)
{
    rd_kafka_NewTopic_t *t =
        rd_kafka_NewTopic_new(p->namez, p->partitions_wanted, p->replication_wanted, NULL, 0);
    size_t i;

    assert(t); /* the config bounds all three */
    for (i = 0; i < p->n_settings; i++)
        rd_kafka_NewTopic_set_config(t, p->settings[i].namez, p->settings[i].toz);
    return t;
}

static void create(struct run *r)
{
    rd_kafka_NewTopic_t **all = xcalloc(r->plan->n, sizeof all[0]);
    rd_kafka_AdminOptions_t *options = options_for(r->a, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    const rd_kafka_topic_result_t **results;
    rd_kafka_event_t *event;
    size_t i, n = 0;

    for (i = 0; i < r->plan->n; i++)
        if (topic_plan_has(&r->plan->topics[i], TOPIC_STEP_CREATE))
            all[n++] = new_topic(&r->plan->topics[i]);
    rd_kafka_CreateTopics(r->a->rk, all, n, options, r->a->queue);
    rd_kafka_NewTopic_destroy_array(all, n);
    event = await(r->a, "making topics", r->e);
    if (event) {
        results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
        note_topics(r, TOPIC_STEP_CREATE, results, n);
        rd_kafka_event_destroy(event);
    } else {
        fail_step(r);
    }
    rd_kafka_AdminOptions_destroy(options);
    free(all);
}

static void add_partitions(struct run *r)
{
    rd_kafka_NewPartitions_t **all = xcalloc(r->plan->n, sizeof all[0]);
    rd_kafka_AdminOptions_t *options = options_for(r->a, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS);
    const rd_kafka_topic_result_t **results;
    const struct topic_plan *p;
    rd_kafka_event_t *event;
    size_t i, n = 0;

    for (i = 0; i < r->plan->n; i++) {
        p = &r->plan->topics[i];
        if (topic_plan_has(p, TOPIC_STEP_PARTITIONS))
            all[n++] = rd_kafka_NewPartitions_new(p->namez, (size_t)p->partitions_wanted, NULL, 0);
    }
    rd_kafka_CreatePartitions(r->a->rk, all, n, options, r->a->queue);
    rd_kafka_NewPartitions_destroy_array(all, n);
    event = await(r->a, "adding partitions", r->e);
    if (event) {
        results = rd_kafka_CreatePartitions_result_topics(
            rd_kafka_event_CreatePartitions_result(event), &n);
        note_topics(r, TOPIC_STEP_PARTITIONS, results, n);
        rd_kafka_event_destroy(event);
    } else {
        fail_step(r);
    }
    rd_kafka_AdminOptions_destroy(options);
    free(all);
}

static bool is_ours(const struct topic_plan *p, const char *namez)
{
    size_t i;

    for (i = 0; i < p->n_settings; i++)
        if (strcmp(p->settings[i].namez, namez) == 0)
            return true;
    return false;
}

/* What others have set at the topic, and ours: each name once, as Kafka wants it. */
static rd_kafka_ConfigResource_t *altered(const struct topic_shape *is, const struct topic_plan *p)
{
    rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, p->namez);
    size_t i;

    for (i = 0; i < is->n_settings; i++)
        if (is->settings[i].is_own && !is_ours(p, is->settings[i].namez))
            rd_kafka_ConfigResource_set_config(r, is->settings[i].namez, is->settings[i].valuez);
    for (i = 0; i < p->n_settings; i++)
        rd_kafka_ConfigResource_set_config(r, p->settings[i].namez, p->settings[i].toz);
    return r;
}

static void alter_settings(struct run *r)
{
    rd_kafka_ConfigResource_t **all = xcalloc(r->plan->n, sizeof all[0]);
    rd_kafka_AdminOptions_t *options = options_for(r->a, RD_KAFKA_ADMIN_OP_ALTERCONFIGS);
    const rd_kafka_ConfigResource_t **results;
    const struct topic_plan *p;
    rd_kafka_event_t *event;
    size_t i, n = 0;

    for (i = 0; i < r->plan->n; i++) {
        p = &r->plan->topics[i];
        if (topic_plan_has(p, TOPIC_STEP_SETTINGS))
            all[n++] = altered(topic_shapes_find(r->is, p->namez), p);
    }
    rd_kafka_AlterConfigs(r->a->rk, all, n, options, r->a->queue);
    rd_kafka_ConfigResource_destroy_array(all, n);
    event = await(r->a, "altering topics", r->e);
    if (event) {
        results =
            rd_kafka_AlterConfigs_result_resources(rd_kafka_event_AlterConfigs_result(event), &n);
        for (i = 0; i < n; i++)
            note(r, rd_kafka_ConfigResource_name(results[i]), TOPIC_STEP_SETTINGS,
                 rd_kafka_ConfigResource_error(results[i]),
                 rd_kafka_ConfigResource_error_string(results[i]));
        rd_kafka_event_destroy(event);
    } else {
        fail_step(r);
    }
    rd_kafka_AdminOptions_destroy(options);
    free(all);
}

static void take_steps(struct run *r)
{
    static void (*const steps[TOPIC_STEPS_])(struct run *) = {
        [TOPIC_STEP_CREATE] = create,
        [TOPIC_STEP_PARTITIONS] = add_partitions,
        [TOPIC_STEP_SETTINGS] = alter_settings,
    };
    int step;

    for (step = 0; step < TOPIC_STEPS_; step++)
        if (r->rc == 0 && kafka_plan_has(r->plan, (enum topic_step)step))
            steps[step](r);
}

/* Reads, plans into *plan, takes the plan's steps. 1: there were some, look again; 0: none. */
static int turn(struct run *r, struct kafka_plan *plan)
{
    struct topic_shapes is;
    int rc = read_shapes(r->a, &is, r->e);

    if (rc < 0)
        return rc;
    kafka_plan_release(plan);
    rc = kafka_plan_make(r->a->config, r->a->topics, &is, plan, r->e);
    if (rc == 0 && kafka_plan_steps(plan) > 0) {
        r->is = &is;
        r->plan = plan;
        take_steps(r);
        rc = r->rc < 0 ? r->rc : 1;
    }
    topic_shapes_release(&is);
    return rc;
}

int kafka_topics_apply(const struct config *c, const struct topics *t,
                       void (*on_step)(void *data, const struct topic_plan *p,
                                       enum topic_step step),
                       void *data, struct kafka_plan *left, struct err *e)
{
    struct admin a;
    struct run r = {.a = &a, .on_step = on_step, .data = data, .e = e};
    int64_t deadline_ms = clock_mono_ms() + SETTLE_MS;
    int rc = admin_open(&a, c, t, e);

    kafka_warn_of_scram(c);
    *left = (struct kafka_plan){0};
    r.taken = xcalloc(topics_count(t), sizeof r.taken[0]);
    if (rc == 0)
        rc = turn(&r, left);
    while (rc > 0 && clock_mono_ms() < deadline_ms) {
        pause_for(&a, PAUSE_MS);
        rc = turn(&r, left);
    }
    if (rc > 0)
        rc = err_set(e, ERR_TIMEOUT, "Kafka does not show all changes after %d s%s%s",
                     SETTLE_MS / 1000, r.why[0] ? ": " : "", r.why);
    free(r.taken);
    admin_close(&a);
    return rc;
}
