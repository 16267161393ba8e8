#include "broker-config/topics.h"
#include "tests/lib/test.h"

static struct config *config;

static struct topics *with_queues(const char *yamlz)
{
    struct err e;

    config = config_parse(str_z(yamlz), "t", &e);
    CHECK(config);
    return topics_new(config);
}

static void done(struct topics *t)
{
    topics_free(t);
    config_free(config);
}

TEST(fixed_topics_come_first)
{
    struct topics *t = with_queues("");

    CHECK_INT(topics_count(t), TOPIC_JOBS + PRIORITY_COUNT_);
    CHECK_STR(str_z(topics_name(t, TOPIC_COMPLETIONS)), "genq.completions");
    CHECK_STR(str_z(topics_name(t, TOPIC_DEAD)), "genq.dead");
    CHECK_STR(str_z(topics_name(t, TOPIC_JOBS)), "genq.jobs.default.high");
    CHECK(!topics_is_jobs(TOPIC_DEAD));
    CHECK(topics_is_jobs(TOPIC_JOBS + 2));
    done(t);
}

TEST(each_queue_has_three_topics)
{
    struct topics *t = with_queues("queues: {fast: {}, a.b: {}}");
    size_t i;
    int topic;

    CHECK_INT(topics_count(t), TOPIC_JOBS + 3 * PRIORITY_COUNT_);
    topic = topics_jobs(t, STR("a.b"), PRIORITY_LOW);
    CHECK_STR(str_z(topics_name(t, topic)), "genq.jobs.a.b.low");
    CHECK_INT(topics_priority(topic), PRIORITY_LOW);
    CHECK_INT(topics_jobs(t, STR("none"), PRIORITY_LOW), -1);
    CHECK(topics_jobs(t, STR("default"), PRIORITY_HIGH) >= TOPIC_JOBS);
    for (i = 0; i < topics_count(t); i++)
        CHECK_INT(topics_find(t, str_z(topics_name(t, (int)i))), i);
    CHECK_INT(topics_find(t, STR("genq.jobs.none.low")), -1);
    CHECK_INT(topics_find(t, STR_NONE), -1);
    done(t);
}

TEST(a_position_is_printed_and_read_back)
{
    static const char *const bad[] = {"", "/", "//", "genq.dead", "genq.dead/0", "genq.dead/0/",
                                      "genq.dead/0/-1", "genq.dead/-1/1", "genq.dead/0/01",
                                      "genq.dead/x/1", "genq.none/0/1", "genq.dead/4294967296/1",
                                      "genq.dead/0/99999999999999999999", "genq.dead/0/1 "};
    struct topics *t = with_queues("");
    struct position at = {TOPIC_JOBS + 1, 0, INT64_MAX}, back;
    char text[POSITION_TEXT_MAX];
    size_t i;

    position_format(t, at, text);
    CHECK_STR(str_z(text), "genq.jobs.default.normal/0/9223372036854775807");
    CHECK(position_parse(t, str_z(text), &back));
    CHECK_INT(back.topic, at.topic);
    CHECK_INT(back.partition, 0);
    CHECK_INT(back.offset, INT64_MAX);
    CHECK(position_parse(t, STR("genq.dead/3/0"), &back));
    CHECK_INT(back.partition, 3);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!position_parse(t, str_z(bad[i]), &back));
    done(t);
}
