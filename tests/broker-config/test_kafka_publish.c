#include "tests/broker-config/publish_rig.h"

TEST(a_publish_is_acknowledged_with_its_offsets)
{
    struct sent *s;

    open_with("", 0, false);
    s = add(TOPIC_META, STR("v"), 3, -1);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    CHECK_INT(s->records[0].at.offset, 0);
    CHECK_INT(s->records[2].at.offset, 2);
    CHECK_INT(s->records[2].code, 0);
    CHECK_INT(n_finished, 0);
    mock_read_from(&k, TOPIC_META, 0);
    CHECK_STR(mock_read(&k, TOPIC_META).value, "v");
    close_all();
}

TEST(a_publish_of_nothing_is_acknowledged)
{
    struct sent *s;

    open_with("", 0, false);
    s = add(TOPIC_META, STR(""), 0, -1);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    close_all();
}

TEST(sources_are_finished_in_offset_order_before_the_acknowledgement)
{
    enum { N = 1000 };
    struct position first = {TOPIC_JOBS, 1, 0};
    int i;

    open_with("", 0, false);
    warm_up();
    for (i = 0; i < N; i++)
        publish(TOPIC_COMPLETIONS, "{}", i);
    wait_for(&n_acks, N);
    wait_for(&n_finished, N);
    for (i = 0; i < N; i++) {
        CHECK_INT(finished[i], i);
        CHECK_INT(finished_by[i].topic, TOPIC_COMPLETIONS);
        CHECK_INT(finished_by[i].offset, i + 1);
    }
    CHECK(!kafka_publisher_owes(publisher, first));
    close_all();
}

TEST(a_source_is_owed_until_it_is_finished)
{
    struct position one = {TOPIC_JOBS, 1, 1}, other = {TOPIC_JOBS, 0, 1};

    open_with("", 0, false);
    CHECK(rd_kafka_mock_broker_set_rtt(k.cluster, BROKER_ID, 300) == 0);
    publish(TOPIC_COMPLETIONS, "{}", 1);
    publish(TOPIC_DEAD, "{}", 1);
    CHECK(kafka_publisher_owes(publisher, one));
    CHECK(!kafka_publisher_owes(publisher, other));
    wait_for(&n_finished, 2);
    wait_for(&n_acks, 2);
    CHECK(!kafka_publisher_owes(publisher, one));
    close_all();
}

TEST(an_error_that_passes_is_tried_again)
{
    rd_kafka_resp_err_t errs[] = {RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                  RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
                                  RD_KAFKA_RESP_ERR__TRANSPORT};
    int i;

    open_with("", 0, false);
    warm_up();
    publish(TOPIC_COMPLETIONS, "{}", 0);
    wait_for(&n_finished, 1);
    rd_kafka_mock_push_request_errors_array(k.cluster, MOCK_PRODUCE, 3, errs);
    for (i = 1; i < 20; i++)
        publish(TOPIC_COMPLETIONS, "{}", i);
    wait_for(&n_acks, 20);
    wait_for(&n_finished, 20);
    for (i = 0; i < 20; i++) {
        CHECK_INT(sent[i].code, 0);
        CHECK_INT(finished_by[i].offset, i + 1);
    }
    close_all();
}

TEST(what_is_too_large_fails_alone)
{
    static char large[70 << 10];
    struct sent *s;

    open_with("limits: {body_bytes: 1024, record_bytes: 65536}", 0, false);
    warm_up();
    memset(large, 'x', sizeof large);
    s = add(TOPIC_COMPLETIONS, STR("v"), 3, 4);
    s->records[1].value = str_of(large, sizeof large);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    CHECK_INT(s->records[0].code, 0);
    CHECK_INT(s->records[1].code, ERR_TOO_LARGE);
    CHECK_INT(s->records[2].at.offset, 2);
    CHECK_INT(n_finished, 2);
    CHECK(!kafka_publisher_owes(publisher, s->records[1].source));
    close_all();
}

TEST(what_the_broker_finds_too_large_fails_alone)
{
    struct sent *s;

    open_with("", 0, false);
    warm_up();
    rd_kafka_mock_push_request_errors(k.cluster, MOCK_PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    s = publish(TOPIC_COMPLETIONS, "v", 1);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    CHECK_INT(s->records[0].code, ERR_TOO_LARGE);
    close_all();
}

TEST(past_its_room_a_publish_is_refused)
{
    struct sent *s;
    struct err e;

    open_with("", 1000, false);
    CHECK(rd_kafka_mock_broker_set_down(k.cluster, BROKER_ID) == 0);
    s = add(TOPIC_META, STR("12345678901234567890123456789012"), 4, -1);
    s->records[0].value.n = 0;
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    s = add(TOPIC_META, STR("12345678901234567890123456789012"), 4, -1);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    s = add(TOPIC_META, STR("12345678901234567890123456789012"), 4, -1);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), ERR_FULL);
    CHECK(rd_kafka_mock_broker_set_up(k.cluster, BROKER_ID) == 0);
    wait_for(&n_acks, 2);
    memset(&e, 0, sizeof e);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    wait_for(&n_acks, 3);
    close_all();
}

TEST(without_a_source_it_times_out)
{
    struct sent *s;

    mock_open(&k, ", producer: {message.timeout.ms: 1000}", "");
    CHECK(rd_kafka_mock_broker_set_down(k.cluster, BROKER_ID) == 0);
    open_publisher(0, false);
    s = publish(TOPIC_META, "v", -1);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, ERR_TIMEOUT);
    CHECK_INT(kafka_publisher_health(publisher, NULL), ERR_UNREACHABLE);
    close_all();
}

TEST(health_comes_back_by_itself)
{
    struct err e;

    open_with("", 0, false);
    publish(TOPIC_META, "v", -1);
    wait_for(&n_acks, 1);
    CHECK_INT(kafka_publisher_health(publisher, NULL), 0);
    CHECK(rd_kafka_mock_broker_set_down(k.cluster, BROKER_ID) == 0);
    wait_for_health(ERR_UNREACHABLE);
    CHECK_INT(kafka_publisher_health(publisher, &e), ERR_UNREACHABLE);
    CHECK(strstr(e.msg, "Kafka"));
    CHECK(rd_kafka_mock_broker_set_up(k.cluster, BROKER_ID) == 0);
    wait_for_health(0);
    close_all();
}

TEST(a_verdict_becomes_the_records_code)
{
    struct sent *s;

    verdict = ERR_EXISTS;
    open_with("", 0, true);
    s = publish(TOPIC_JOBS, "v", -1);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    CHECK_INT(s->records[0].code, ERR_EXISTS);
    CHECK_INT(s->records[0].detail, 7);
    close_all();
}

static void *give_back(void *data)
{
    struct kafka_waiter *w;

    (void)data;
    poll(NULL, 0, 100);
    while ((w = __atomic_load_n(&held, __ATOMIC_ACQUIRE)) == NULL)
        poll(NULL, 0, 1);
    w->on_applied(w);
    return NULL;
}

TEST(close_waits_for_the_follower)
{
    pthread_t thread;

    open_with("", 0, true);
    warm_up();
    is_holding = true;
    publish(TOPIC_COMPLETIONS, "v", 5);
    wait_for(&n_finished, 1);
    CHECK_INT(count(&n_acks), 0);
    CHECK_INT(pthread_create(&thread, NULL, give_back, NULL), 0);
    close_all();
    CHECK_INT(n_acks, 1);
    CHECK_INT(sent[0].code, 0);
    pthread_join(thread, NULL);
}

TEST(closing_gives_up_after_a_while)
{
    int64_t start_ms;

    open_with("", 0, false);
    CHECK(rd_kafka_mock_broker_set_down(k.cluster, BROKER_ID) == 0);
    publish(TOPIC_META, "v", -1);
    start_ms = clock_mono_ms();
    close_all();
    CHECK(clock_mono_ms() - start_ms < 10000);
    CHECK_INT(n_acks, 1);
    CHECK_INT(sent[0].code, ERR_CLOSED);
}
