/* The outbox at work: Kafka away, slow, or refusing; the process killed; the disk full. */
#include "broker-config/kafka_publish_inside.h"
#include "tests/broker-config/publish_rig.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct position source(int64_t offset)
{
    return (struct position){TOPIC_JOBS, 1, offset};
}

static void away(void)
{
    CHECK(rd_kafka_mock_broker_set_down(k.cluster, BROKER_ID) == 0);
}

static void back(void)
{
    CHECK(rd_kafka_mock_broker_set_up(k.cluster, BROKER_ID) == 0);
}

/* In the log, each once, in the order of their sources. */
static void check_log(int n)
{
    struct record r;
    int i;

    mock_read_from(&k, TOPIC_COMPLETIONS, 0);
    for (i = 0; i < n; i++) {
        r = mock_read(&k, TOPIC_COMPLETIONS);
        CHECK_INT(r.source.offset, i);
        CHECK_STR(r.key, "key");
    }
    mock_read_end(&k);
}

static int64_t rows_left(void)
{
    struct kafka_outbox box;
    int64_t n;

    CHECK_INT(kafka_outbox_open(&box, OUTBOX_FILE, k.topics, NULL), 0);
    n = box.n_rows;
    kafka_outbox_close(&box);
    return n;
}

/* Closes the publisher; the cluster stays. */
static void close_publisher_now(void)
{
    kafka_publisher_close(publisher);
    publisher = NULL;
}

TEST(while_kafka_is_away_results_go_to_disk)
{
    enum { N = 300 };
    int i;

    open_with("", 0, false);
    away();
    for (i = 0; i < N / 2; i++)
        publish(TOPIC_COMPLETIONS, "{}", i);
    wait_for(&n_acks, N / 2); /* written when late */
    CHECK_INT(n_finished, 0);
    CHECK_INT(sent[0].code, 0);
    CHECK_INT(sent[0].records[0].code, 0);
    CHECK_INT(sent[0].records[0].at.offset, -1);
    for (; i < N; i++)
        publish(TOPIC_COMPLETIONS, "{}", i); /* written at once */
    wait_for(&n_acks, N);
    CHECK(kafka_publisher_owes(publisher, source(0)));
    CHECK(kafka_publisher_owes(publisher, source(N - 1)));
    CHECK_INT(kafka_publisher_health(publisher, NULL), ERR_UNREACHABLE);
    back();
    wait_for(&n_finished, N);
    for (i = 0; i < N; i++) {
        CHECK_INT(finished[i], i);
        CHECK_INT(finished_by[i].offset, i);
    }
    CHECK(!kafka_publisher_owes(publisher, source(N - 1)));
    CHECK_INT(kafka_publisher_health(publisher, NULL), 0);
    publish(TOPIC_COMPLETIONS, "{}", N); /* the outbox is out of the way again */
    wait_for(&n_acks, N + 1);
    check_log(N + 1);
    close_publisher_now();
    CHECK_INT(rows_left(), 0);
    mock_close(&k);
}

TEST(more_than_the_window_is_sent_from_disk)
{
    enum { N = 400 };
    static char value[1000];
    struct sent *s;
    int i;

    memset(value, 'x', sizeof value);
    open_with("", 20000, false);
    away();
    for (i = 0; i < N; i++) {
        s = add(TOPIC_COMPLETIONS, str_of(value, sizeof value), 1, i);
        while (kafka_publisher_publish(publisher, &s->publish) == ERR_FULL)
            poll(NULL, 0, 1);
    }
    wait_for(&n_acks, N);
    CHECK_INT(n_finished, 0);
    back();
    wait_for(&n_finished, N);
    check_log(N);
    close_publisher_now();
    CHECK_INT(rows_left(), 0);
    mock_close(&k);
}

/* A process that publishes n to a Kafka that is not there, and is killed once they are
 * acknowledged. */
static void publish_and_die(int n)
{
    int status, i;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        mock_open(&k, "", "");
        away();
        open_publisher(0, false);
        for (i = 0; i < n; i++)
            publish(TOPIC_COMPLETIONS, "{}", i);
        wait_for(&n_acks, n);
        kill(getpid(), SIGKILL);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(what_a_killed_process_left_is_sent_by_the_next)
{
    enum { N = 100 };

    publish_and_die(N);
    mock_open(&k, "", "");
    away();
    open_publisher(0, false);
    CHECK(kafka_publisher_owes(publisher, source(0)));
    CHECK(kafka_publisher_owes(publisher, source(N - 1)));
    CHECK(!kafka_publisher_owes(publisher, source(N)));
    publish(TOPIC_COMPLETIONS, "{}", N); /* goes behind them */
    wait_for(&n_acks, 1);
    CHECK_INT(n_finished, 0);
    back();
    wait_for(&n_finished, N + 1);
    CHECK(!kafka_publisher_owes(publisher, source(0)));
    check_log(N + 1);
    close_publisher_now();
    CHECK_INT(rows_left(), 0);
    mock_close(&k);
}

TEST(close_puts_on_disk_what_is_on_its_way)
{
    int64_t start_ms;
    int i;

    open_with("", 0, false);
    away();
    for (i = 0; i < 10; i++)
        publish(TOPIC_COMPLETIONS, "{}", i);
    start_ms = clock_mono_ms();
    close_publisher_now();
    CHECK(clock_mono_ms() - start_ms < 10000);
    CHECK_INT(n_acks, 10);
    for (i = 0; i < 10; i++)
        CHECK_INT(sent[i].code, 0);
    CHECK_INT(n_finished, 0);
    CHECK_INT(rows_left(), 10);
    back();
    open_publisher(0, false);
    wait_for(&n_finished, 10);
    check_log(10);
    close_all();
}

TEST(at_its_bound_nothing_more_is_taken)
{
    static char value[100000];
    struct sent *s;
    int n = 0, rc;

    memset(value, 'x', sizeof value);
    open_with("limits: {outbox_bytes: 1048576}", 0, false);
    away();
    do {
        s = add(TOPIC_COMPLETIONS, str_of(value, sizeof value), 1, n);
        rc = kafka_publisher_publish(publisher, &s->publish);
        n += rc == 0;
    } while (rc == 0);
    CHECK_INT(rc, ERR_FULL);
    CHECK_INT(n, 10);
    wait_for(&n_acks, n);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), ERR_FULL);
    CHECK_INT(kafka_publisher_publish(publisher, &add(TOPIC_META, STR("v"), 1, -1)->publish), 0);
    back();
    wait_for(&n_finished, n);
    while (kafka_publisher_publish(publisher, &s->publish) == ERR_FULL)
        poll(NULL, 0, 1);
    wait_for(&n_acks, n + 2);
    check_log(n + 1);
    close_all();
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    CHECK_INT(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST(on_a_full_disk_results_are_held_and_no_more_is_taken)
{
    static char value[100000];
    struct sent *s, *refused;
    int rc;

    signal(SIGXFSZ, SIG_IGN);
    open_with("", 0, false);
    away();
    limit_files(60000);
    s = add(TOPIC_COMPLETIONS, str_of(value, sizeof value), 1, 0);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    refused = add(TOPIC_COMPLETIONS, STR("{}"), 1, 1);
    while ((rc = kafka_publisher_publish(publisher, &refused->publish)) == 0) {
        poll(NULL, 0, 100);
        refused = add(TOPIC_COMPLETIONS, STR("{}"), 1, (int64_t)n_sent);
    }
    CHECK_INT(rc, ERR_FULL);
    CHECK_INT(count(&n_acks), 0);
    limit_files(RLIM_INFINITY);
    wait_for(&n_acks, (int)n_sent - 1);
    CHECK_INT(s->code, 0);
    back();
    wait_for(&n_finished, (int)n_sent - 1);
    check_log((int)n_sent - 1);
    close_all();
}

TEST(a_full_disk_does_not_matter_when_kafka_is_back)
{
    static char value[100000];
    struct sent *s;

    signal(SIGXFSZ, SIG_IGN);
    open_with("", 0, false);
    away();
    limit_files(60000);
    s = add(TOPIC_COMPLETIONS, str_of(value, sizeof value), 1, 0);
    CHECK_INT(kafka_publisher_publish(publisher, &s->publish), 0);
    poll(NULL, 0, 1500);
    CHECK_INT(count(&n_acks), 0);
    back();
    wait_for(&n_acks, 1);
    CHECK_INT(s->records[0].at.offset, 0);
    CHECK_INT(n_finished, 1);
    close_all();
}

TEST(what_a_topic_refuses_for_now_is_sent_again)
{
    struct sent *s;

    open_with("", 0, false);
    rd_kafka_mock_topic_set_error(k.cluster, topics_name(k.topics, TOPIC_DEAD),
                                  RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    s = publish(TOPIC_DEAD, "v", 0);
    wait_for(&n_acks, 1);
    CHECK_INT(s->code, 0);
    CHECK(kafka_publisher_owes(publisher, source(0)));
    publish(TOPIC_COMPLETIONS, "v", 1); /* nobody waits for it */
    wait_for(&n_finished, 1);
    CHECK_INT(finished[0], 1);
    rd_kafka_mock_topic_set_error(k.cluster, topics_name(k.topics, TOPIC_DEAD),
                                  RD_KAFKA_RESP_ERR_NO_ERROR);
    wait_for(&n_finished, 2);
    close_publisher_now();
    CHECK_INT(rows_left(), 0);
    mock_close(&k);
}

TEST(a_fatal_error_makes_a_new_producer)
{
    int i;

    open_with("", 0, false);
    publish(TOPIC_COMPLETIONS, "{}", 0);
    wait_for(&n_acks, 1);
    CHECK(rd_kafka_test_fatal_error(publisher->patient.rk, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
                                    "a test") == 0);
    for (i = 1; i < 20; i++)
        publish(TOPIC_COMPLETIONS, "{}", i);
    wait_for(&n_acks, 20);
    wait_for(&n_finished, 20);
    CHECK(!kafka_publisher_owes(publisher, source(19)));
    close_publisher_now();
    CHECK_INT(rows_left(), 0);
    mock_close(&k);
}

TEST(with_a_follower_what_goes_to_disk_does_not_wait_for_it)
{
    verdict = ERR_EXISTS;
    open_with("", 0, true);
    away();
    publish(TOPIC_COMPLETIONS, "{}", 0);
    wait_for(&n_acks, 1);
    CHECK_INT(sent[0].records[0].code, 0);
    back();
    wait_for(&n_finished, 1);
    publish(TOPIC_COMPLETIONS, "{}", 1);
    wait_for(&n_acks, 2);
    CHECK_INT(sent[1].records[0].code, ERR_EXISTS);
    close_all();
}
