#include "broker-config/kafka_plan.h"
#include "tests/lib/test.h"

/* What is compared: a config, and topics as a test says they are. */
struct fixture {
    struct config *config;
    struct topics *topics;
    struct topic_shapes is;
    struct kafka_plan plan;
};

static void open_with(struct fixture *f, const char *yamlz, int n_brokers)
{
    struct err e;

    *f = (struct fixture){0};
    f->config = config_parse(str_z(yamlz), "t", &e);
    CHECK(f->config);
    f->topics = topics_new(f->config);
    f->is.n_brokers = n_brokers;
}

static void compare(struct fixture *f)
{
    struct err e = {0};

    kafka_plan_release(&f->plan);
    CHECK_INT(kafka_plan_make(f->config, f->topics, &f->is, &f->plan, &e), 0);
}

static void close_all(struct fixture *f)
{
    kafka_plan_release(&f->plan);
    topic_shapes_release(&f->is);
    topics_free(f->topics);
    config_free(f->config);
}

static const struct topic_plan *plan_of(const struct fixture *f, const char *namez)
{
    size_t i;

    for (i = 0; i < f->plan.n; i++)
        if (strcmp(f->plan.topics[i].namez, namez) == 0)
            return &f->plan.topics[i];
    test_fail(__FILE__, __LINE__, namez);
}

/* The value that a setting shall have; "" when nothing is wanted of it. */
static struct str wanted(const struct topic_plan *p, const char *namez)
{
    size_t i;

    for (i = 0; i < p->n_settings; i++)
        if (strcmp(p->settings[i].namez, namez) == 0)
            return str_z(p->settings[i].toz);
    return STR("");
}

/* Makes what a plan wants true, as Kafka would. */
static void make_true(struct fixture *f)
{
    const struct topic_plan *p;
    struct topic_shape *t;
    size_t i, at;

    topic_shapes_release(&f->is);
    f->is.n_brokers = 1;
    for (i = 0; i < f->plan.n; i++) {
        p = &f->plan.topics[i];
        t = topic_shapes_add(&f->is, p->namez);
        t->n_partitions = p->partitions_wanted;
        t->replication = p->replication_wanted;
        for (at = 0; at < p->n_settings; at++)
            topic_shape_set(t, p->settings[at].namez, p->settings[at].toz, true);
    }
    compare(f);
}

static struct topic_setting *setting_of(struct fixture *f, const char *topicz, const char *namez)
{
    struct topic_shape *t = topic_shapes_find(&f->is, topicz);
    size_t i;

    for (i = 0; i < t->n_settings; i++)
        if (strcmp(t->settings[i].namez, namez) == 0)
            return &t->settings[i];
    test_fail(__FILE__, __LINE__, namez);
}

static void set_value(struct topic_setting *s, const char *valuez)
{
    strncpy(s->valuez, valuez, strlen(s->valuez)); /* of the same length */
    CHECK_STR(str_z(s->valuez), valuez);
}

TEST(where_there_is_nothing_all_is_made)
{
    static const struct {
        const char *namez;
        int partitions;
        const char *cleanupz, *retentionz, *bytesz;
    } rows[] = {
        {"genq.completions", 1, "delete", "259200000", "-1"},
        {"genq.scheduled", 1, "compact", "", ""},
        {"genq.control", 1, "compact,delete", "259200000", "-1"},
        {"genq.meta", 1, "compact", "", ""},
        {"genq.dead", 1, "delete", "2592000000", "-1"},
        {"genq.jobs.default.high", 5, "delete", "-1", "-1"},
        {"genq.jobs.default.normal", 20, "delete", "-1", "-1"},
        {"genq.jobs.default.low", 5, "delete", "-1", "-1"},
    };
    const struct topic_plan *p;
    struct fixture f;
    size_t i;

    open_with(&f,
              "broker: {partitions: 20}\nretention: {jobs_days: 3}\n"
              "limits: {record_bytes: 5000}\n",
              1);
    compare(&f);
    CHECK_INT(f.plan.n, sizeof rows / sizeof rows[0]);
    CHECK_INT(kafka_plan_steps(&f.plan), f.plan.n);
    for (i = 0; i < f.plan.n; i++) {
        p = plan_of(&f, rows[i].namez);
        CHECK(topic_plan_has(p, TOPIC_STEP_CREATE));
        CHECK_INT(p->partitions_wanted, rows[i].partitions);
        CHECK_STR(wanted(p, "cleanup.policy"), rows[i].cleanupz);
        CHECK_STR(wanted(p, "retention.ms"), rows[i].retentionz);
        CHECK_STR(wanted(p, "retention.bytes"), rows[i].bytesz);
        CHECK_STR(wanted(p, "max.message.bytes"), "5000");
        CHECK_STR(wanted(p, "message.timestamp.type"), "LogAppendTime");
        CHECK_STR(wanted(p, "min.insync.replicas"), "1");
    }
    close_all(&f);
}

TEST(high_and_low_have_a_quarter_but_one_at_least)
{
    static const struct {
        const char *yamlz;
        int quarter;
    } rows[] = {{"broker: {partitions: 1}", 1},
                {"broker: {partitions: 7}", 1},
                {"broker: {partitions: 8}", 2},
                {"", 4}};
    struct fixture f;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        open_with(&f, rows[i].yamlz, 1);
        compare(&f);
        CHECK_INT(plan_of(&f, "genq.jobs.default.high")->partitions_wanted, rows[i].quarter);
        CHECK_INT(plan_of(&f, "genq.jobs.default.low")->partitions_wanted, rows[i].quarter);
        close_all(&f);
    }
}

TEST(copies_and_how_many_must_be_in_sync)
{
    static const struct {
        const char *yamlz;
        int n_brokers, copies;
        const char *in_syncz;
    } rows[] = {
        {"", 1, 1, "1"},
        {"", 2, 2, "1"},
        {"", 3, 3, "2"},
        {"", 9, 3, "2"},
        {"broker: {replication: 5}", 9, 5, "2"},
        {"broker: {replication: 2}", 9, 2, "1"},
        {"broker: {replication: 2, min_insync: 2}", 9, 2, "2"},
        {"broker: {min_insync: 1}", 3, 3, "1"},
    };
    const struct topic_plan *p;
    struct fixture f;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        open_with(&f, rows[i].yamlz, rows[i].n_brokers);
        compare(&f);
        p = plan_of(&f, "genq.dead");
        CHECK_INT(p->replication_wanted, rows[i].copies);
        CHECK_STR(wanted(p, "min.insync.replicas"), rows[i].in_syncz);
        close_all(&f);
    }
}

TEST(more_in_sync_than_copies_is_an_error_where_a_topic_is_new)
{
    struct fixture f;
    struct err e = {0};

    open_with(&f, "broker: {min_insync: 2}", 1);
    CHECK_INT(kafka_plan_make(f.config, f.topics, &f.is, &f.plan, &e), ERR_INVALID);
    CHECK_STR(str_z(e.msg), "broker.min_insync is 2, but a new topic has replication factor 1");
    close_all(&f);
}

TEST(more_in_sync_than_copies_is_left_where_a_topic_is_there)
{
    struct fixture f;

    open_with(&f, "broker: {min_insync: 2}", 3);
    compare(&f);
    make_true(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    topic_shapes_find(&f.is, "genq.meta")->replication = 1;
    compare(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    CHECK_INT(plan_of(&f, "genq.meta")->min_insync_left, 2);
    CHECK_STR(wanted(plan_of(&f, "genq.meta"), "min.insync.replicas"), "");
    CHECK_INT(plan_of(&f, "genq.dead")->min_insync_left, 0);
    close_all(&f);
}

TEST(what_is_as_wanted_needs_no_step)
{
    struct fixture f;
    enum topic_step step;

    open_with(&f, "", 1);
    compare(&f);
    make_true(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    for (step = TOPIC_STEP_CREATE; step < TOPIC_STEPS_; step++)
        CHECK(!kafka_plan_has(&f.plan, step));
    /* Kafka says it in either order; a setting of others, or of the brokers' own, is not ours. */
    set_value(setting_of(&f, "genq.control", "cleanup.policy"), "delete,compact");
    topic_shape_set(topic_shapes_find(&f.is, "genq.meta"), "segment.ms", "1000", true);
    setting_of(&f, "genq.dead", "retention.ms")->is_own = false;
    compare(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    close_all(&f);
}

TEST(one_setting_that_differs_is_one_step)
{
    const struct topic_plan *p;
    struct fixture f;
    size_t i, n = 0;

    open_with(&f, "", 1);
    compare(&f);
    make_true(&f);
    set_value(setting_of(&f, "genq.dead", "retention.ms"), "1234567890");
    compare(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 1);
    p = plan_of(&f, "genq.dead");
    CHECK(topic_plan_has(p, TOPIC_STEP_SETTINGS));
    CHECK(!topic_plan_has(p, TOPIC_STEP_CREATE));
    for (i = 0; i < p->n_settings; i++) {
        if (!p->settings[i].is_change)
            continue;
        n++;
        CHECK_STR(str_z(p->settings[i].namez), "retention.ms");
        CHECK_STR(str_z(p->settings[i].fromz), "1234567890");
        CHECK_STR(str_z(p->settings[i].toz), "2592000000");
    }
    CHECK_INT(n, 1);
    set_value(setting_of(&f, "genq.meta", "cleanup.policy"), "deleted");
    compare(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 2);
    close_all(&f);
}

TEST(partitions_are_added_and_never_taken_away)
{
    struct fixture f;

    open_with(&f, "broker: {partitions: 16}", 1);
    compare(&f);
    make_true(&f);
    topic_shapes_find(&f.is, "genq.jobs.default.normal")->n_partitions = 4;
    topic_shapes_find(&f.is, "genq.jobs.default.high")->n_partitions = 32;
    compare(&f);
    CHECK_INT(kafka_plan_steps(&f.plan), 1);
    CHECK(topic_plan_has(plan_of(&f, "genq.jobs.default.normal"), TOPIC_STEP_PARTITIONS));
    CHECK_INT(plan_of(&f, "genq.jobs.default.normal")->partitions, 4);
    CHECK(!topic_plan_has(plan_of(&f, "genq.jobs.default.high"), TOPIC_STEP_PARTITIONS));
    close_all(&f);
}

TEST(copies_are_told_and_no_step)
{
    struct fixture f;

    open_with(&f, "", 3);
    compare(&f);
    make_true(&f); /* three copies, and now there is one broker: two are away */
    CHECK_INT(plan_of(&f, "genq.meta")->replication_wanted, 3);
    topic_shapes_find(&f.is, "genq.meta")->replication = 1;
    set_value(setting_of(&f, "genq.meta", "min.insync.replicas"), "1");
    f.is.n_brokers = 3;
    compare(&f);
    CHECK_INT(plan_of(&f, "genq.meta")->replication_wanted, 3);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    close_all(&f);
}

TEST(a_queue_that_is_no_more_is_told)
{
    struct fixture f;

    open_with(&f, "", 1);
    compare(&f);
    make_true(&f);
    topic_shapes_add(&f.is, "genq.jobs.gone.high")->n_partitions = 4;
    topic_shapes_add(&f.is, "genq.other")->n_partitions = 1;
    topic_shapes_add(&f.is, "genqx.jobs.default.high")->n_partitions = 1;
    compare(&f);
    CHECK_INT(f.plan.n, topics_count(f.topics) + 1);
    CHECK(plan_of(&f, "genq.jobs.gone.high")->is_foreign);
    CHECK_INT(kafka_plan_steps(&f.plan), 0);
    close_all(&f);
}
