#include "broker-config/kafka_plan.h"
#include "base/buf.h"
#include "broker-config/kafka.h"
#include <stdio.h>
#include <stdlib.h>

enum { COPIES_AUTO = 3, IN_SYNC_AUTO = 2, VALUE_BYTES = 32 };
#define DAY_MS INT64_C(86400000)

/* ---- what is there ---- */

struct topic_shape *topic_shapes_add(struct topic_shapes *s, const char *namez)
{
    struct topic_shape *t;

    s->shapes = xrealloc(s->shapes, (s->n + 1) * sizeof s->shapes[0]);
    t = &s->shapes[s->n++];
    *t = (struct topic_shape){.namez = xstrdup(str_z(namez))};
    return t;
}

struct topic_shape *topic_shapes_find(const struct topic_shapes *s, const char *namez)
{
    size_t i;

    for (i = 0; i < s->n; i++)
        if (strcmp(s->shapes[i].namez, namez) == 0)
            return &s->shapes[i];
    return NULL;
}

void topic_shape_set(struct topic_shape *t, const char *namez, const char *valuez, bool is_own)
{
    t->settings = xrealloc(t->settings, (t->n_settings + 1) * sizeof t->settings[0]);
    t->settings[t->n_settings++] =
        (struct topic_setting){xstrdup(str_z(namez)), xstrdup(str_z(valuez)), is_own};
}

void topic_shapes_release(struct topic_shapes *s)
{
    size_t i, at;

    for (i = 0; i < s->n; i++) {
        for (at = 0; at < s->shapes[i].n_settings; at++) {
            free(s->shapes[i].settings[at].namez);
            free(s->shapes[i].settings[at].valuez);
        }
        free(s->shapes[i].settings);
        free(s->shapes[i].namez);
    }
    free(s->shapes);
    *s = (struct topic_shapes){0};
}

static const char *value_of(const struct topic_shape *t, const char *namez)
{
    size_t i;

    for (i = 0; t && i < t->n_settings; i++)
        if (strcmp(t->settings[i].namez, namez) == 0)
            return t->settings[i].valuez;
    return NULL;
}

/* ---- what is wanted ---- */

enum keep { KEEP_LAST, KEEP_FOR_EVER, KEEP_JOBS_DAYS, KEEP_DEAD_DAYS }; /* the first: of each key */

static const struct {
    const char *cleanupz;
    enum keep keep;
} policies[] = {
    [TOPIC_COMPLETIONS] = {"delete", KEEP_JOBS_DAYS}, /* not compacted: the first of a key counts */
    [TOPIC_SCHEDULED] = {"compact", KEEP_LAST},
    [TOPIC_CONTROL] = {"compact,delete", KEEP_JOBS_DAYS},
    [TOPIC_META] = {"compact", KEEP_LAST},
    [TOPIC_DEAD] = {"delete", KEEP_DEAD_DAYS},
    [TOPIC_JOBS] = {"delete", KEEP_FOR_EVER}, /* all job topics; finished records are deleted */
};

static int partitions_wanted(const struct config *c, int topic)
{
    int n = (int)c->broker_partitions;

    if (!topics_is_jobs(topic))
        return 1;
    if (topics_priority(topic) == PRIORITY_NORMAL)
        return n;
    return n < 4 ? 1 : n / 4;
}

/* auto never wants fewer copies than there are: a broker may be away. */
static int replication_wanted(const struct config *c, int n_brokers, int replication)
{
    int n = n_brokers < COPIES_AUTO ? n_brokers : COPIES_AUTO;

    if (c->broker_replication)
        return (int)c->broker_replication;
    return n > replication ? n : replication;
}

static int64_t min_insync_wanted(const struct config *c, int replication)
{
    if (c->broker_min_insync)
        return c->broker_min_insync;
    return replication >= COPIES_AUTO ? IN_SYNC_AUTO : 1;
}

/* Kafka prints the words of cleanup.policy in an order of its own. */
static bool is_same(const char *namez, const char *a, const char *b)
{
    static const char *const both[] = {"compact,delete", "delete,compact"};
    bool is_both_a = strcmp(a, both[0]) == 0 || strcmp(a, both[1]) == 0;
    bool is_both_b = strcmp(b, both[0]) == 0 || strcmp(b, both[1]) == 0;

    if (strcmp(namez, "cleanup.policy") == 0 && is_both_a && is_both_b)
        return true;
    return strcmp(a, b) == 0;
}

static void want(struct topic_plan *p, const struct topic_shape *is, const char *namez,
                 const char *valuez)
{
    const char *fromz = value_of(is, namez);
    struct setting_plan *s;

    p->settings = xrealloc(p->settings, (p->n_settings + 1) * sizeof p->settings[0]);
    s = &p->settings[p->n_settings++];
    s->namez = xstrdup(str_z(namez));
    s->fromz = fromz ? xstrdup(str_z(fromz)) : NULL;
    s->toz = xstrdup(str_z(valuez));
    s->is_change = !fromz || !is_same(namez, fromz, valuez);
}

static void want_int(struct topic_plan *p, const struct topic_shape *is, const char *namez,
                     int64_t value)
{
    char text[VALUE_BYTES];

    snprintf(text, sizeof text, "%lld", (long long)value);
    want(p, is, namez, text);
}

/* With acks=all a topic with fewer copies than min.insync.replicas takes no record at all. */
static void want_in_sync(const struct config *c, struct topic_plan *p, const struct topic_shape *is)
{
    int copies = is ? is->replication : p->replication_wanted;
    int64_t n = min_insync_wanted(c, copies);

    if (n > copies)
        p->min_insync_left = n;
    else
        want_int(p, is, "min.insync.replicas", n);
}

static void want_settings(const struct config *c, int topic, struct topic_plan *p,
                          const struct topic_shape *is)
{
    int kind = topics_is_jobs(topic) ? TOPIC_JOBS : topic;
    enum keep keep = policies[kind].keep;
    int64_t days = keep == KEEP_DEAD_DAYS ? DEAD_DAYS : c->retention_jobs_days;

    want(p, is, "cleanup.policy", policies[kind].cleanupz);
    if (keep != KEEP_LAST) {
        want_int(p, is, "retention.ms", keep == KEEP_FOR_EVER ? -1 : days * DAY_MS);
        want_int(p, is, "retention.bytes", -1);
    }
    want_int(p, is, "max.message.bytes", kafka_record_bytes(c));
    /* a client's clock may be wrong: Kafka refuses what is an hour ahead, and deletes by these
     * times */
    want(p, is, "message.timestamp.type", "LogAppendTime");
    want_in_sync(c, p, is);
}

/* ---- the plan ---- */

static struct topic_plan *add_plan(struct kafka_plan *out, const char *namez,
                                   const struct topic_shape *is)
{
    struct topic_plan *p;

    out->topics = xrealloc(out->topics, (out->n + 1) * sizeof out->topics[0]);
    p = &out->topics[out->n++];
    *p = (struct topic_plan){.namez = xstrdup(str_z(namez)), .is_there = is != NULL};
    if (is) {
        p->partitions = is->n_partitions;
        p->replication = is->replication;
    }
    return p;
}

static int plan_topic(const struct config *c, const struct topics *t, int topic,
                      const struct topic_shapes *is, struct kafka_plan *out, struct err *e)
{
    const char *namez = topics_name(t, topic);
    const struct topic_shape *shape = topic_shapes_find(is, namez);
    struct topic_plan *p = add_plan(out, namez, shape);

    p->partitions_wanted = partitions_wanted(c, topic);
    p->replication_wanted = replication_wanted(c, is->n_brokers, p->replication);
    want_settings(c, topic, p, shape);
    if (shape || p->min_insync_left == 0)
        return 0;
    return err_set(e, ERR_INVALID,
                   "broker.min_insync is %lld, but a new topic has replication factor %d",
                   (long long)p->min_insync_left, p->replication_wanted);
}

/* A queue that the config has no more. */
static bool is_foreign(const struct config *c, const struct topics *t, const char *namez)
{
    size_t n = strlen(c->broker_prefix);

    return strncmp(namez, c->broker_prefix, n) == 0 && strncmp(namez + n, ".jobs.", 6) == 0 &&
           topics_find(t, str_z(namez)) < 0;
}

int kafka_plan_make(const struct config *c, const struct topics *t, const struct topic_shapes *is,
                    struct kafka_plan *out, struct err *e)
{
    size_t i;
    int rc = 0;

    *out = (struct kafka_plan){0};
    for (i = 0; rc == 0 && i < topics_count(t); i++)
        rc = plan_topic(c, t, (int)i, is, out, e);
    for (i = 0; rc == 0 && i < is->n; i++)
        if (is_foreign(c, t, is->shapes[i].namez))
            add_plan(out, is->shapes[i].namez, &is->shapes[i])->is_foreign = true;
    return rc;
}

void kafka_plan_release(struct kafka_plan *p)
{
    size_t i, at;

    for (i = 0; i < p->n; i++) {
        for (at = 0; at < p->topics[i].n_settings; at++) {
            free(p->topics[i].settings[at].namez);
            free(p->topics[i].settings[at].fromz);
            free(p->topics[i].settings[at].toz);
        }
        free(p->topics[i].settings);
        free(p->topics[i].namez);
    }
    free(p->topics);
    *p = (struct kafka_plan){0};
}

/* ---- asking it ---- */

bool topic_plan_has(const struct topic_plan *p, enum topic_step step)
{
    size_t i;

    if (step == TOPIC_STEP_CREATE)
        return !p->is_there;
    if (!p->is_there)
        return false;
    if (step == TOPIC_STEP_PARTITIONS)
        return p->partitions < p->partitions_wanted;
    for (i = 0; i < p->n_settings; i++)
        if (p->settings[i].is_change)
            return true;
    return false;
}

bool kafka_plan_has(const struct kafka_plan *p, enum topic_step step)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        if (topic_plan_has(&p->topics[i], step))
            return true;
    return false;
}

size_t kafka_plan_steps(const struct kafka_plan *p)
{
    size_t i, n = 0;
    int step;

    for (i = 0; i < p->n; i++)
        for (step = 0; step < TOPIC_STEPS_; step++)
            n += topic_plan_has(&p->topics[i], (enum topic_step)step);
    return n;
}
