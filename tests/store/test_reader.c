#include "base/json.h"
#include "tests/store/fixture.h"
#include <stdio.h>

#define T STR("default")
#define JOB_A \
    "{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"hi\",\"custom_id\":\"c \\\"1\\\"\"," \
    "\"metadata\":{\"k\": 1.50},\"session\":\"s1\",\"created_at\":5}"
#define JOB_LATER \
    "{\"id\":\"s\",\"model\":\"m\",\"prompt\":\"hi\",\"not_before\":9000000," \
    "\"priority\":\"high\",\"queue\":\"gpu\",\"created_at\":6}"

static struct reader *open_reader(struct fixture *fx)
{
    struct err e = {0};
    struct reader *r = reader_open(".", fx->live, &e);

    CHECK_STR(str_z(e.msg), "");
    CHECK(r);
    return r;
}

static void submit(struct fixture *fx, const char *jsonz)
{
    fx_begin(fx);
    CHECK_INT(fx_job(fx, jsonz), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

static void finish(struct fixture *fx, const char *jsonz, enum job_state state)
{
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, jsonz, state, 1, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

static const char *line_json(char *dst, size_t room, const char *batchz, int line)
{
    snprintf(dst, room,
             "{\"id\":\"%s-%d\",\"model\":\"m\",\"prompt\":\"p%d\",\"batch_id\":\"%s\","
             "\"created_at\":%d,\"batch_line\":%d}",
             batchz, line, line, batchz, 10 + line, line);
    return dst;
}

/* What stands at a path of member names and list places ("data.0.id"): a string's text, or JSON. */
static const char *at(struct buf *b, const char *pathz)
{
    static char text[256];
    struct buf out;
    struct err e = {0};
    struct json *all = json_parse(buf_str(b), &e);
    const struct json *j = all;
    char name[64];
    int64_t i;
    size_t n;

    CHECK_STR(str_z(e.msg), "");
    for (; *pathz; pathz += n + (pathz[n] == '.')) {
        n = strcspn(pathz, ".");
        str_copyz(name, sizeof name, str_of(pathz, n));
        if (j && json_type(j) == JSON_ARRAY && str_int(str_z(name), &i))
            for (j = json_child(j); j && i > 0; i--)
                j = json_next(j);
        else
            j = json_get(j, name);
    }
    if (!j) {
        json_free(all);
        return "absent";
    }
    buf_init(&out, sizeof text - 1);
    if (json_type(j) == JSON_STRING)
        buf_adds(&out, json_str(j));
    else
        json_print(j, &out);
    str_copyz(text, sizeof text, buf_str(&out));
    buf_release(&out);
    json_free(all);
    return text;
}

#define CHECK_AT(b, path, want) CHECK_STR(str_z(at((b), (path))), (want))

static struct buf *get_job(struct reader *r, const char *idz, struct buf *b, enum job_state want)
{
    enum job_state state = STATE_COUNT_;

    buf_clear(b);
    CHECK_INT(reader_job(r, T, str_z(idz), b, &state, NULL), 0);
    CHECK_INT(state, want);
    return b;
}

TEST(job_is_read_in_every_state)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;

    buf_init(&b, 1 << 20);
    CHECK_INT(reader_job(r, T, STR("a"), &b, NULL, NULL), ERR_NOT_FOUND);
    submit(fx, JOB_A);
    get_job(r, "a", &b, STATE_QUEUED);
    CHECK_AT(&b, "status", "queued");
    CHECK_AT(&b, "custom_id", "c \"1\"");
    CHECK_AT(&b, "output", "null");
    CHECK_AT(&b, "created_at", "5");
    CHECK(memmem(b.p, b.n, "\"metadata\":{\"k\": 1.50}", 22));
    live_start(fx->live, T, STR("a"), 2, STR("gpu0"), 77, false);
    get_job(r, "a", &b, STATE_RUNNING);
    CHECK_AT(&b, "status", "running");
    CHECK_AT(&b, "node", "gpu0");
    CHECK_AT(&b, "attempts", "2");
    CHECK_AT(&b, "started_at", "77");
    live_requeue(fx->live, T, STR("a"));
    get_job(r, "a", &b, STATE_QUEUED);
    CHECK_AT(&b, "attempts", "2");
    CHECK_AT(&b, "node", "null");
    finish(fx, JOB_A, STATE_SUCCEEDED);
    get_job(r, "a", &b, STATE_SUCCEEDED);
    CHECK_AT(&b, "output.text", "hello, \"world\"\nline two");
    CHECK_AT(&b, "custom_id", "c \"1\"");
    CHECK_AT(&b, "usage.total_tokens", "15");
    submit(fx, JOB_LATER);
    get_job(r, "s", &b, STATE_SCHEDULED);
    CHECK_AT(&b, "queue", "gpu");
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(head_of_an_unfinished_job)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct record astray = {.source = POSITION_NONE,
                            .key = STR("w"),
                            .value = STR("{\"id\":\"w\",\"model\":\"m\",\"prompt\":\"p\","
                                         "\"queue\":\"gpu\",\"priority\":\"high\"}")};
    struct position pos;
    struct job j;
    uint8_t digest[SHA256_LEN];

    CHECK_INT(job_parse(&j, STR(JOB_A), true, NULL, NULL), 0);
    CHECK_INT(job_complete(&j, &(struct job_defaults){.batch_line = -1, .wall_ms = 1}, NULL), 0);
    job_digest(&j, digest);
    job_release(&j);
    submit(fx, JOB_A);
    submit(fx, JOB_LATER);
    CHECK_INT(reader_has_job(r, T, STR("s"), NULL), 0);
    CHECK_INT(reader_has_job(r, T, STR("x"), NULL), ERR_NOT_FOUND);
    CHECK_INT(reader_job_head(r, T, STR("s"), &j, &pos, fx->topics, NULL), 0);
    CHECK_INT(pos.topic, TOPIC_SCHEDULED);
    CHECK_INT(pos.offset, 0);
    CHECK_STR(j.queue, "gpu");
    CHECK_INT(j.priority, PRIORITY_HIGH);
    CHECK_INT(j.state, STATE_SCHEDULED);
    job_release(&j);
    CHECK_INT(reader_job_head(r, T, STR("a"), &j, &pos, fx->topics, NULL), 0);
    CHECK_INT(pos.topic, topics_jobs(fx->topics, STR("default"), PRIORITY_NORMAL));
    CHECK_INT(pos.offset, 0);
    CHECK_STR(j.custom_id, "c \"1\"");
    CHECK_STR(j.metadata, "{\"k\": 1.50}");
    CHECK_STR(j.session, "s1");
    CHECK(!j.batch_id.p);
    CHECK_INT(j.batch_line, -1);
    CHECK(job_knows_digest(&j) &&
          memcmp(j.digest, digest, sizeof digest) == 0); /* the whole job's */
    job_release(&j);
    fx_begin(fx); /* whatever it says, it stands where it is */
    CHECK_INT(fx_apply(fx, &astray, topics_jobs(fx->topics, STR("default"), PRIORITY_LOW)), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(reader_job_head(r, T, STR("w"), &j, &pos, fx->topics, NULL), 0);
    CHECK_INT(pos.topic, topics_jobs(fx->topics, STR("default"), PRIORITY_LOW));
    job_release(&j);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    CHECK_INT(reader_has_job(r, T, STR("a"), NULL), 0);
    CHECK_INT(reader_job_head(r, T, STR("a"), &j, &pos, fx->topics, NULL), ERR_EXISTS);
    CHECK_INT(reader_job_head(r, T, STR("x"), &j, &pos, fx->topics, NULL), ERR_NOT_FOUND);
    reader_close(r);
    fx_free(fx);
}

static void fill(struct fixture *fx, int n)
{
    char json[512];
    int i;

    fx_begin(fx);
    for (i = 0; i < n; i++) {
        snprintf(json, sizeof json,
                 "{\"id\":\"j%d\",\"model\":\"m%d\",\"prompt\":\"x\",\"created_at\":%d%s}", i,
                 i % 2, 1000 + i, i % 5 == 0 ? ",\"batch_id\":\"g\"" : "");
        CHECK_INT(fx_job(fx, json), 0);
        if (i % 3 == 0)
            CHECK_INT(fx_end_job(fx, json, i % 2 ? STATE_FAILED : STATE_SUCCEEDED, 1, NULL), 0);
    }
    CHECK_INT(fx_end(fx, true), 0);
}

static struct buf *list(struct reader *r, const struct job_filter *f, struct buf *b)
{
    struct err e = {0};

    buf_clear(b);
    reader_list(r, f, b, &e);
    CHECK_STR(str_z(e.msg), "");
    return b;
}

/* Ids of a list, in order, as "j9 j8 …". */
static const char *ids(struct buf *b)
{
    static char text[4096];
    struct json *all = json_parse(buf_str(b), NULL);
    const struct json *j;
    struct buf out;

    buf_init(&out, sizeof text - 1);
    for (j = json_child(json_get(all, "data")); j; j = json_next(j)) {
        if (out.n)
            buf_addc(&out, ' ');
        buf_adds(&out, json_str(json_get(j, "id")));
    }
    str_copyz(text, sizeof text, buf_str(&out));
    buf_release(&out);
    json_free(all);
    return text;
}

#define ANY (-1)
/* The ids that a filter gives; at most 100 where it has no limit. */
#define CHECK_LIST(want, state_, ...) \
    do { \
        struct job_filter f_ = {__VA_ARGS__}; \
        f_.state = (state_); \
        f_.limit = f_.limit ? f_.limit : 100; \
        CHECK_STR(str_z(ids(list(r, &f_, &b))), (want)); \
    } while (0)

TEST(lists_filter_and_page)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;

    buf_init(&b, 1 << 20);
    CHECK_LIST("", ANY, .tenant = T);
    CHECK_AT(&b, "has_more", "false");
    CHECK_AT(&b, "next", "null");
    fill(fx, 10);
    CHECK_LIST("j9 j8 j7 j6 j5 j4 j3 j2 j1 j0", ANY, .tenant = T);
    CHECK_LIST("j9 j8 j7", ANY, .limit = 3);
    CHECK_AT(&b, "has_more", "true");
    CHECK_AT(&b, "next", "8");
    CHECK_LIST("j6 j5 j4", ANY, .limit = 3, .after = 8);
    CHECK_LIST("j0", ANY, .limit = 3, .after = 2);
    CHECK_AT(&b, "has_more", "false");
    CHECK_LIST("", ANY, .tenant = STR("other"));
    CHECK_LIST("j9 j7 j5 j3 j1", ANY, .model = STR("m1"));
    CHECK_LIST("j9 j3", STATE_FAILED, .limit = 100);
    CHECK_LIST("j6 j0", STATE_SUCCEEDED, .limit = 100);
    CHECK_LIST("j8 j7 j5 j4 j2 j1", STATE_QUEUED, .limit = 100);
    CHECK_LIST("", STATE_SCHEDULED, .limit = 100);
    CHECK_LIST("j5 j0", ANY, .tenant = T, .batch_id = STR("g"));
    CHECK_LIST("j5 j0", ANY, .batch_id = STR("g"));
    CHECK_LIST("j6 j5", ANY, .created_after = 1004, .created_before = 1007);
    CHECK_LIST("j9 j8 j7 j6 j5 j4 j3 j2 j1 j0", ANY, .queue = STR("default"));
    CHECK_LIST("", ANY, .queue = STR("gpu"));
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(list_of_what_runs)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;

    buf_init(&b, 1 << 20);
    fill(fx, 10);
    CHECK_LIST("", STATE_RUNNING, .limit = 100);
    live_start(fx->live, T, STR("j4"), 1, STR("n"), 1, false);
    live_start(fx->live, T, STR("j8"), 1, STR("n"), 1, false);
    live_start(fx->live, T, STR("j5"), 1, STR("n"), 1, false);
    live_start(fx->live, T, STR("j0"), 1, STR("n"), 1, false); /* has ended already */
    CHECK_LIST("j8 j5 j4", STATE_RUNNING, .limit = 100);
    CHECK_AT(&b, "data.0.status", "running");
    CHECK_LIST("j8 j5", STATE_RUNNING, .limit = 2);
    CHECK_AT(&b, "has_more", "true");
    CHECK_LIST("j4", STATE_RUNNING, .limit = 2, .after = 6);
    CHECK_LIST("j5", STATE_RUNNING, .model = STR("m1"));
    CHECK_LIST("j7 j2 j1", STATE_QUEUED, .limit = 100);
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

/* Reads a list page by page, through a buffer that has no room for all of it. */
static int count_pages(struct reader *r, struct job_filter f)
{
    struct buf b;
    int n = 0;

    do {
        buf_init(&b, 1500);
        CHECK_INT(reader_list(r, &f, &b, NULL), 0);
        for (const char *p = ids(&b); *p; p++)
            n += *p == 'j';
        f.after = strtoll(at(&b, "next"), NULL, 10);
        buf_release(&b);
    } while (f.after);
    return n;
}

TEST(list_ends_before_its_buffer)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    char id[16];
    int i;

    fill(fx, 10);
    CHECK_INT(count_pages(r, (struct job_filter){.state = ANY, .limit = 100}), 10);
    for (i = 0; i < 10; i++) {
        snprintf(id, sizeof id, "j%d", i);
        live_start(fx->live, T, str_z(id), 1, STR("n"), 1, false);
    }
    /* Some have ended already. */
    CHECK_INT(count_pages(r, (struct job_filter){.state = STATE_RUNNING, .limit = 100}), 6);
    reader_close(r);
    fx_free(fx);
}

TEST(feed_resumes_and_filters)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    int64_t next = -1;
    struct buf b;

    buf_init(&b, 1 << 20);
    CHECK_INT(reader_feed_end(r, &next, NULL), 0);
    CHECK_INT(next, 0);
    CHECK_INT(reader_feed(r, 0, 10, STR_NONE, STR_NONE, false, &b, &next, NULL), 0);
    CHECK_INT(next, 0);
    fill(fx, 10); /* completions of j0 j3 j6 j9; j0 in group g */
    CHECK_INT(reader_feed_end(r, &next, NULL), 0);
    CHECK_INT(next, 4);
    CHECK_INT(reader_feed(r, 0, 3, STR_NONE, STR_NONE, false, &b, &next, NULL), 3);
    CHECK_INT(next, 3);
    CHECK_INT(reader_feed(r, 3, 3, T, STR_NONE, false, &b, &next, NULL), 1);
    CHECK_INT(next, 4);
    buf_clear(&b);
    CHECK_INT(reader_feed(r, 0, 3, T, STR("g"), true, &b, &next, NULL), 1);
    CHECK_INT(next, 4);
    CHECK(str_starts(buf_str(&b), STR("id: 1\nevent: completion\ndata: {\"id\":\"j0\"")));
    CHECK_STR(str_of(b.p + b.n - 3, 3), "}\n\n");
    CHECK_INT(reader_feed(r, 0, 3, STR("x"), STR_NONE, true, &b, &next, NULL), 0);
    CHECK_INT(next, 4);
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(feed_in_a_small_buffer_goes_on_where_it_stopped)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    int64_t next = 0, from;
    int n, sum = 0;
    struct buf b;

    fill(fx, 10);
    do {
        from = next;
        buf_init(&b, 1000);
        n = reader_feed(r, from, 100, STR_NONE, STR_NONE, false, &b, &next, NULL);
        CHECK(n >= 0);
        sum += n;
        buf_release(&b);
    } while (next > from);
    CHECK_INT(sum, 4);
    buf_init(&b, 100);
    CHECK_INT(reader_feed(r, 0, 100, STR_NONE, STR_NONE, false, &b, &next, NULL), ERR_TOO_LARGE);
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(cursor_older_than_the_feed_is_told_the_oldest)
{
    struct fixture *fx = fx_new();
    struct reader *r;
    int64_t next = -1;
    struct buf b;

    buf_init(&b, 1 << 20);
    store_set_retention(fx->writer, 1);
    fill(fx, 4); /* two completions */
    fx->now_ms += 2 * 86400000;
    submit(fx, JOB_A);
    r = open_reader(fx);
    CHECK_INT(reader_feed(r, 1, 9, STR_NONE, STR_NONE, false, &b, &next, NULL), ERR_NOT_FOUND);
    CHECK_INT(next, 2);
    CHECK_INT(reader_feed(r, 2, 9, STR_NONE, STR_NONE, false, &b, &next, NULL), 0);
    CHECK_INT(reader_feed_end(r, &next, NULL), 0);
    CHECK_INT(next, 2);
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

/* ---- batches ---- */

static void make_batch(struct fixture *fx, int n_lines)
{
    char json[512];
    int i;

    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    for (i = 0; i < n_lines; i++)
        CHECK_INT(fx_job(fx, line_json(json, sizeof json, "b", i)), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

static void end_line(struct fixture *fx, int line, enum job_state state)
{
    char json[512];

    finish(fx, line_json(json, sizeof json, "b", line), state);
}

static void seal(struct fixture *fx, int n_lines)
{
    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_SEALED, n_lines, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

TEST(batch_is_read_in_every_state)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;

    buf_init(&b, 1 << 16);
    CHECK_INT(reader_batch(r, T, STR("b"), &b, NULL), ERR_NOT_FOUND);
    make_batch(fx, 3);
    CHECK_INT(reader_batch(r, T, STR("b"), &b, NULL), 0);
    CHECK_AT(&b, "status", "receiving");
    CHECK_AT(&b, "counts.queued", "3");
    CHECK_AT(&b, "eta_ms", "null");
    seal(fx, 3);
    end_line(fx, 0, STATE_SUCCEEDED);
    buf_clear(&b);
    CHECK_INT(reader_batch(r, T, STR("b"), &b, NULL), 0);
    CHECK_AT(&b, "status", "running");
    CHECK_AT(&b, "object", "batch");
    CHECK_AT(&b, "finished_at", "null");
    CHECK(strtoll(at(&b, "eta_ms"), NULL, 10) > 0);
    end_line(fx, 1, STATE_FAILED);
    end_line(fx, 2, STATE_EXPIRED);
    buf_clear(&b);
    CHECK_INT(reader_batch(r, T, STR("b"), &b, NULL), 0);
    CHECK_STR(buf_str(&b),
              "{\"id\":\"b\",\"object\":\"batch\",\"status\":\"done\",\"created_at\":1000000,"
              "\"finished_at\":1000000,\"total\":3,\"counts\":{\"queued\":0,\"succeeded\":1,"
              "\"failed\":1,\"cancelled\":0,\"expired\":1},\"usage\":{\"prompt_tokens\":30,"
              "\"completion_tokens\":15,\"total_tokens\":45,\"cached_tokens\":6},\"cost\":0.75,"
              "\"eta_ms\":null}");
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(batches_page)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    char id[16];
    struct buf b;
    int i;

    buf_init(&b, 1 << 16);
    fx_begin(fx);
    for (i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "b%d", i);
        CHECK_INT(fx_batch(fx, id, BATCH_RECEIVING, -1, NULL), 0);
    }
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(reader_batches(r, T, 0, 2, &b, NULL), 0);
    CHECK_STR(str_z(ids(&b)), "b4 b3");
    CHECK_AT(&b, "next", "4");
    buf_clear(&b);
    CHECK_INT(reader_batches(r, STR_NONE, 4, 3, &b, NULL), 0);
    CHECK_STR(str_z(ids(&b)), "b2 b1 b0");
    CHECK_AT(&b, "has_more", "false");
    buf_clear(&b);
    CHECK_INT(reader_batches(r, STR("x"), 0, 3, &b, NULL), 0);
    CHECK_STR(str_z(ids(&b)), "");
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

struct lines {
    char text[256];
    int stop_after;
};

static int on_line(void *data, const struct result_line *l)
{
    struct lines *lines = data;
    size_t n = strlen(lines->text);

    CHECK(l->view.n > 10);
    snprintf(lines->text + n, sizeof lines->text - n, "%d%c ", (int)l->line,
             state_name(l->state)[0]);
    return --lines->stop_after == 0;
}

static const char *results(struct reader *r, int64_t from, int limit, bool skip, int64_t *next,
                           bool *is_end)
{
    static struct lines lines;

    lines = (struct lines){.stop_after = -1};
    CHECK(reader_results(r, T, STR("b"), from, limit, skip, on_line, &lines, next, is_end, NULL) >=
          0);
    return lines.text;
}

TEST(results_in_input_order)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct lines lines = {.stop_after = 1};
    int64_t next = -1;
    bool is_end = false;

    CHECK_INT(reader_results(r, T, STR("b"), 0, 1, false, on_line, &lines, &next, &is_end, NULL),
              ERR_NOT_FOUND);
    make_batch(fx, 6);
    end_line(fx, 4, STATE_SUCCEEDED);
    end_line(fx, 0, STATE_SUCCEEDED);
    end_line(fx, 1, STATE_FAILED);
    CHECK_STR(str_z(results(r, 0, 100, false, &next, &is_end)), "0s 1f ");
    CHECK_INT(next, 2);
    CHECK(!is_end);
    CHECK_STR(str_z(results(r, 0, 100, true, &next, &is_end)), "0s 1f 4s ");
    CHECK_INT(next, 6);
    CHECK(is_end);
    CHECK_STR(str_z(results(r, 0, 1, false, &next, &is_end)), "0s ");
    CHECK_INT(next, 1);
    CHECK_INT(reader_results(r, T, STR("b"), 0, 9, false, on_line, &lines, &next, &is_end, NULL),
              1);
    CHECK_INT(next, 1);
    end_line(fx, 2, STATE_SUCCEEDED);
    end_line(fx, 3, STATE_SUCCEEDED);
    end_line(fx, 5, STATE_SUCCEEDED);
    CHECK_STR(str_z(results(r, 2, 100, false, &next, &is_end)), "2s 3s 4s 5s ");
    CHECK_INT(next, 6);
    CHECK(is_end);
    seal(fx, 4); /* a shorter input was sent again */
    CHECK_STR(str_z(results(r, 2, 100, false, &next, &is_end)), "2s 3s ");
    CHECK(is_end);
    reader_close(r);
    fx_free(fx);
}

TEST(line_not_yet_there_holds_up_a_batch_that_is_received)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    int64_t next = -1;
    bool is_end = true;
    char json[512];

    make_batch(fx, 1);
    submit(fx, line_json(json, sizeof json, "b", 2));
    end_line(fx, 0, STATE_SUCCEEDED);
    end_line(fx, 2, STATE_SUCCEEDED);
    CHECK_STR(str_z(results(r, 0, 100, false, &next, &is_end)), "0s ");
    CHECK(!is_end);
    seal(fx, 3); /* an empty line was no job */
    CHECK_STR(str_z(results(r, next, 100, false, &next, &is_end)), "2s ");
    CHECK(is_end);
    reader_close(r);
    fx_free(fx);
}

/* The next two from *next on. */
static int completed(struct reader *r, struct lines *lines, int64_t *next, bool *is_end)
{
    return reader_results_completed(r, T, STR("b"), *next, 2, on_line, lines, next, is_end, NULL);
}

TEST(results_in_the_order_of_completion)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct lines lines = {.stop_after = -1};
    int64_t next = -1;
    bool is_end = false;

    fill(fx, 10);
    make_batch(fx, 4);
    CHECK_INT(reader_results_completed(r, T, STR("b"), 0, 9, on_line, &lines, &next, &is_end, NULL),
              0);
    CHECK(is_end);
    end_line(fx, 2, STATE_SUCCEEDED);
    submit(fx, JOB_A);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    end_line(fx, 0, STATE_EXPIRED);
    end_line(fx, 3, STATE_SUCCEEDED);
    CHECK_INT(completed(r, &lines, &next, &is_end), 2);
    CHECK(!is_end);
    CHECK_INT(completed(r, &lines, &next, &is_end), 1);
    CHECK(is_end);
    CHECK_STR(str_z(lines.text), "2s 0e 3s ");
    CHECK_INT(next, 8);
    reader_close(r);
    fx_free(fx);
}

static int on_id(void *data, struct str id)
{
    struct lines *lines = data;
    size_t n = strlen(lines->text);

    snprintf(lines->text + n, sizeof lines->text - n, "%.*s ", STR_ARG(id));
    return 0;
}

TEST(open_lines_of_a_batch)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct lines lines = {.stop_after = -1};
    int64_t next = -1;
    bool is_end = false;

    make_batch(fx, 4);
    end_line(fx, 1, STATE_SUCCEEDED);
    CHECK_INT(reader_batch_open(r, T, STR("b"), 0, 2, on_id, &lines, &next, &is_end, NULL), 2);
    CHECK(!is_end);
    CHECK_INT(reader_batch_open(r, T, STR("b"), next, 2, on_id, &lines, &next, &is_end, NULL), 1);
    CHECK(is_end);
    CHECK_STR(str_z(lines.text), "b-0 b-2 b-3 ");
    reader_close(r);
    fx_free(fx);
}

TEST(lines_of_a_batch_are_listed)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;

    buf_init(&b, 1 << 16);
    fill(fx, 5);
    make_batch(fx, 4);
    end_line(fx, 1, STATE_FAILED);
    CHECK_LIST("b-3 b-2 b-1 b-0", ANY, .tenant = T, .batch_id = STR("b"));
    CHECK_LIST("b-3 b-2 b-1", ANY, .tenant = T, .batch_id = STR("b"), .limit = 3);
    CHECK_AT(&b, "next", "1");
    CHECK_LIST("b-0", ANY, .tenant = T, .batch_id = STR("b"), .after = 1);
    CHECK_LIST("b-1", STATE_FAILED, .tenant = T, .batch_id = STR("b"));
    live_start(fx->live, T, STR("b-2"), 1, STR("n"), 1, false);
    CHECK_LIST("b-2", STATE_RUNNING, .tenant = T, .batch_id = STR("b"));
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

/* ---- usage ---- */

TEST(usage_is_summed_by_groups)
{
    struct fixture *fx = fx_new();
    struct reader *r = open_reader(fx);
    struct buf b;
    struct err e = {0};

    buf_init(&b, 1 << 16);
    CHECK_INT(reader_usage(r, STR(""), 0, 0, STR_NONE, false, &b, NULL), 0);
    CHECK_AT(&b, "data.0.calls", "0");
    fx->now_ms = 1700000000000; /* 2023-11-14T22:13:20Z */
    make_batch(fx, 2);
    end_line(fx, 0, STATE_SUCCEEDED);
    fx->now_ms += 2 * 3600000;
    end_line(fx, 1, STATE_SUCCEEDED);
    submit(fx, JOB_A);
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 3, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    buf_clear(&b);
    CHECK_INT(reader_usage(r, STR(""), 0, 0, STR_NONE, false, &b, NULL), 0);
    CHECK_STR(buf_str(&b), "{\"object\":\"list\",\"data\":[{\"calls\":5,\"jobs\":3,"
                           "\"prompt_tokens\":50,\"completion_tokens\":25,\"cached_tokens\":10,"
                           "\"total_tokens\":75,\"wasted_tokens\":30,\"cost\":1.25}],"
                           "\"has_more\":false,\"next\":null}");
    buf_clear(&b);
    CHECK_INT(reader_usage(r, STR("day,batch"), 0, 0, T, true, &b, NULL), 0);
    CHECK_STR(buf_str(&b), "day,batch,calls,jobs,prompt_tokens,completion_tokens,cached_tokens,"
                           "total_tokens,wasted_tokens,cost\r\n"
                           "2023-11-14,b,1,1,10,5,2,15,0,0.25\r\n"
                           "2023-11-15,,3,1,30,15,6,45,30,0.75\r\n"
                           "2023-11-15,b,1,1,10,5,2,15,0,0.25\r\n");
    buf_clear(&b);
    CHECK_INT(reader_usage(r, STR("hour,node,key"), 1700000000001, 0, T, false, &b, NULL), 0);
    CHECK_AT(&b, "data.0.hour", "2023-11-15T00:00:00Z");
    CHECK_AT(&b, "data.0.key", "null");
    CHECK_AT(&b, "data.0.calls", "4");
    CHECK_AT(&b, "data.1", "absent");
    buf_clear(&b);
    CHECK_INT(reader_usage(r, STR("model"), 0, 1700000000001, T, false, &b, NULL), 0);
    CHECK_AT(&b, "data.0.calls", "1");
    buf_clear(&b);
    CHECK_INT(reader_usage(r, STR("model"), 0, 0, STR("x"), false, &b, NULL), 0);
    CHECK_AT(&b, "data.0", "absent");
    CHECK_INT(reader_usage(r, STR("model,cake"), 0, 0, T, false, &b, &e), ERR_INVALID);
    CHECK(strstr(e.msg, "'cake'"));
    buf_release(&b);
    reader_close(r);
    fx_free(fx);
}

TEST(no_database_is_told)
{
    struct err e = {0};

    CHECK(!reader_open("nowhere", NULL, &e));
    CHECK_INT(e.code, ERR_NOT_FOUND);
}
