/* Leaving a group at an awkward moment. */
#include "broker-config/kafka.h"
#include "tests/broker-config/mock_kafka.h"

enum { MOCK_SYNC_GROUP = 14, BROKER_ID = 1, JOINED_MS = 1500, AWAY_MS = 60000 };

static void on_records(void *data, const struct record *records, size_t n)
{
    (void)data, (void)records, (void)n;
}

static void on_timer(uv_timer_t *timer)
{
    kafka_group_close(timer->data);
    uv_close((uv_handle_t *)timer, NULL);
}

TEST(it_may_stop_between_joining_and_its_first_assignment)
{
    struct subscription s = {.on_records = on_records, .window = 10};
    struct kafka_group_options o = {0};
    struct kafka_group *g;
    uv_timer_t timer;
    uv_loop_t loop;
    struct mock k;
    struct err e;

    mock_open(&k, "", "");
    CHECK(rd_kafka_mock_broker_push_request_error_rtts(k.cluster, BROKER_ID, MOCK_SYNC_GROUP, 1,
                                                       RD_KAFKA_RESP_ERR_NO_ERROR, AWAY_MS) == 0);
    uv_loop_init(&loop);
    o = (struct kafka_group_options){.config = k.config, .topics = k.topics, .loop = &loop};
    g = kafka_group_open(&o, &e);
    CHECK(g);
    CHECK_INT(kafka_group_subscribe(g, TOPIC_JOBS, &s, &e), 0);
    uv_timer_init(&loop, &timer);
    timer.data = g;
    uv_timer_start(&timer, on_timer, JOINED_MS, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&loop), 0);
    mock_close(&k);
}
