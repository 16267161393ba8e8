#include "base/buf.h"
#include "broker-config/kafka_outbox.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static struct config *config;
static struct topics *topics;
static struct kafka_outbox box;

static void make_topics(const char *yamlz)
{
    struct err e;

    config = config_parse(str_z(yamlz), "t", &e);
    CHECK(config);
    topics = topics_new(config);
}

static void free_topics(void)
{
    topics_free(topics);
    config_free(config);
}

static void open_box(const char *yamlz)
{
    struct err e;

    make_topics(yamlz);
    CHECK_INT(kafka_outbox_open(&box, OUTBOX_FILE, topics, &e), 0);
}

static void close_box(void)
{
    kafka_outbox_close(&box);
    free_topics();
}

static struct record record(const char *valuez, int64_t source)
{
    struct record r = {.at = {TOPIC_COMPLETIONS, 0, 0},
                       .ts_ms = 12,
                       .key = STR("key"),
                       .value = str_z(valuez),
                       .source = POSITION_NONE};

    r.headers[HEADER_TYPE] = STR("type");
    if (source >= 0)
        r.source = (struct position){topics_jobs(topics, STR("default"), PRIORITY_LOW), 2, source};
    return r;
}

static int64_t add(const struct record *r, int64_t *row)
{
    int64_t bytes;

    CHECK_INT(kafka_outbox_begin(&box, NULL), 0);
    CHECK_INT(kafka_outbox_add(&box, r, row, &bytes, NULL), 0);
    CHECK_INT(kafka_outbox_commit(&box, NULL), 0);
    return bytes;
}

static void remove_row(int64_t row, int64_t bytes)
{
    CHECK_INT(kafka_outbox_begin(&box, NULL), 0);
    CHECK_INT(kafka_outbox_remove(&box, row, bytes, NULL), 0);
    CHECK_INT(kafka_outbox_commit(&box, NULL), 0);
}

/* What the last read found: values, one letter each. */
static char found[64];
static size_t n_found, most_found;

static bool on_row(void *data, const struct kafka_outbox_row *row)
{
    (void)data;
    CHECK(row->record.value.n == 1);
    found[n_found++] = row->record.value.p[0];
    return n_found < most_found;
}

static struct str read_rows(int64_t from, int64_t to, size_t most)
{
    n_found = 0;
    most_found = most;
    CHECK_INT(kafka_outbox_read(&box, from, to, on_row, NULL, NULL), 0);
    return str_of(found, n_found);
}

static bool on_whole_row(void *data, const struct kafka_outbox_row *row)
{
    const struct record *r = &row->record;

    *(int64_t *)data = row->bytes;
    CHECK_INT(r->at.topic, TOPIC_COMPLETIONS);
    CHECK_INT(r->ts_ms, 12);
    CHECK_STR(r->key, "key");
    CHECK_STR(r->value, "v");
    CHECK_STR(r->headers[HEADER_TYPE], "type");
    CHECK(!r->headers[HEADER_MODEL].p);
    CHECK_STR(r->headers[HEADER_SOURCE], "genq.jobs.default.low/2/9");
    CHECK_INT(r->source.topic, topics_jobs(topics, STR("default"), PRIORITY_LOW));
    CHECK_INT(r->source.partition, 2);
    CHECK_INT(r->source.offset, 9);
    return true;
}

TEST(a_row_comes_back_after_a_restart)
{
    struct record r;
    int64_t row, bytes, read_bytes = 0;

    open_box("");
    r = record("v", 9);
    bytes = add(&r, &row);
    CHECK_INT(row, 1);
    CHECK_INT(box.n_rows, 1);
    CHECK_INT(box.bytes, bytes);
    close_box();
    open_box("queues: {another: {}}"); /* other numbers for topics */
    CHECK_INT(box.last, 1);
    CHECK_INT(box.n_rows, 1);
    CHECK_INT(box.bytes, bytes);
    CHECK_INT(kafka_outbox_read(&box, 0, box.last, on_whole_row, &read_bytes, NULL), 0);
    CHECK_INT(read_bytes, bytes);
    close_box();
}

TEST(rows_are_read_in_order_as_far_as_asked)
{
    struct record r;
    int64_t row, bytes, i;
    const char *valuez = "abcde";

    open_box("");
    for (i = 0; i < 5; i++) {
        r = record("", -1);
        r.value = str_of(valuez + i, 1);
        bytes = add(&r, &row);
    }
    CHECK_STR(read_rows(0, 5, 9), "abcde");
    CHECK_STR(read_rows(2, 4, 9), "bcd");
    CHECK_STR(read_rows(2, 4, 1), "b");
    remove_row(3, bytes);
    CHECK_STR(read_rows(2, 4, 9), "bd");
    CHECK_INT(box.n_rows, 4);
    close_box();
}

TEST(no_number_is_given_twice)
{
    struct record r;
    int64_t row, bytes;

    open_box("");
    r = record("a", -1);
    bytes = add(&r, &row);
    remove_row(row, bytes);
    CHECK_INT(box.bytes, 0);
    close_box();
    open_box("");
    CHECK_INT(box.last, 1);
    add(&r, &row);
    CHECK_INT(row, 2);
    close_box();
}

TEST(a_rollback_leaves_no_trace)
{
    struct record r;
    int64_t row, bytes;

    open_box("");
    r = record("a", -1);
    add(&r, &row);
    CHECK_INT(kafka_outbox_begin(&box, NULL), 0);
    CHECK_INT(kafka_outbox_add(&box, &r, &row, &bytes, NULL), 0);
    CHECK_INT(kafka_outbox_remove(&box, 1, bytes, NULL), 0);
    kafka_outbox_rollback(&box);
    CHECK_INT(box.last, 1);
    CHECK_INT(box.n_rows, 1);
    CHECK_INT(box.bytes, bytes);
    CHECK_STR(read_rows(0, 9, 9), "a");
    close_box();
}

static void on_source(void *data, struct position at)
{
    *(int64_t *)data = *(int64_t *)data * 10 + at.offset;
}

TEST(sources_are_listed)
{
    struct record r;
    int64_t row, offsets = 0;

    open_box("");
    r = record("a", 4);
    add(&r, &row);
    r = record("b", -1);
    add(&r, &row);
    r = record("c", 5);
    add(&r, &row);
    CHECK_INT(kafka_outbox_sources(&box, on_source, &offsets, NULL), 0);
    CHECK_INT(offsets, 45);
    close_box();
}

static bool on_strange_row(void *data, const struct kafka_outbox_row *row)
{
    bool *is_there = data;

    *is_there = true;
    CHECK_INT(row->record.at.topic, -1);
    CHECK(!topics_is_source(row->record.source.topic));
    CHECK_STR(row->record.headers[HEADER_SOURCE], "genq.jobs.gone.high/0/7");
    return true;
}

TEST(a_topic_that_the_config_has_no_more_is_none)
{
    struct record r;
    int64_t row;
    bool is_there = false;

    open_box("queues: {gone: {}}");
    r = record("v", 7);
    r.source = (struct position){topics_jobs(topics, STR("gone"), PRIORITY_HIGH), 0, 7};
    r.at.topic = r.source.topic;
    add(&r, &row);
    close_box();
    open_box("");
    CHECK_INT(kafka_outbox_read(&box, 0, 9, on_strange_row, &is_there, NULL), 0);
    CHECK(is_there);
    close_box();
}

TEST(a_file_that_is_not_ours_is_refused)
{
    struct db *db;
    struct err e;
    int fd;

    CHECK_INT(db_open(OUTBOX_FILE, DB_WRITE, 0, &db, &e), 0);
    CHECK_INT(db_exec(db, "CREATE TABLE other(a)", &e), 0);
    db_close(db);
    make_topics("");
    CHECK_INT(kafka_outbox_open(&box, OUTBOX_FILE, topics, &e), ERR_CORRUPT);
    CHECK_INT(unlink(OUTBOX_FILE), 0);
    fd = open(OUTBOX_FILE, O_WRONLY | O_CREAT, 0600);
    CHECK(write(fd, "no database, but a note of some length", 38) == 38);
    close(fd);
    CHECK_INT(kafka_outbox_open(&box, OUTBOX_FILE, topics, &e), ERR_CORRUPT);
    free_topics();
}

static int64_t file_bytes(void)
{
    int fd = open(OUTBOX_FILE, O_RDONLY);
    int64_t n = lseek(fd, 0, SEEK_END);

    close(fd);
    return n;
}

TEST(an_empty_file_is_made_small)
{
    enum { N = 70, BYTES = 1 << 20 };
    char *big = xcalloc(BYTES, 1);
    struct record r;
    int64_t row, bytes = 0, i;

    open_box("");
    r = record("", -1);
    r.value = str_of(big, BYTES);
    CHECK_INT(kafka_outbox_begin(&box, NULL), 0);
    for (i = 0; i < N; i++)
        CHECK_INT(kafka_outbox_add(&box, &r, &row, &bytes, NULL), 0);
    CHECK_INT(kafka_outbox_commit(&box, NULL), 0);
    CHECK_INT(kafka_outbox_begin(&box, NULL), 0);
    for (i = 1; i <= N; i++)
        CHECK_INT(kafka_outbox_remove(&box, i, bytes, NULL), 0);
    CHECK_INT(kafka_outbox_commit(&box, NULL), 0);
    kafka_outbox_tidy(&box);
    CHECK(file_bytes() < BYTES);
    add(&r, &row);
    CHECK_INT(row, N + 1);
    close_box();
    free(big);
}
