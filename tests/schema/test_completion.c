#include "schema/completion.h"
#include "tests/lib/test.h"
#include <stdio.h>

static void make_job(struct job *j)
{
    struct job_defaults d = {.model = STR("m"),
                             .id = STR("id-1"),
                             .batch_id = STR("b"),
                             .batch_line = 4,
                             .wall_ms = 100};

    CHECK_INT(job_parse(j,
                        STR("{\"prompt\":\"a\",\"custom_id\":\"c\\n\",\"metadata\":{\"k\":[1]},"
                            "\"priority\":\"low\"}"),
                        false, NULL, NULL),
              0);
    CHECK_INT(job_complete(j, &d, NULL), 0);
}

static const struct call one_call = {
    .id = "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    .attempt = 2,
    .node = {"gpu0", 4},
    .model = {"m:1b", 4},
    .usage = {10, 20, 3},
    .outcome = CALL_TIMEOUT,
    .ms = 44,
    .cost = 0.25,
};

static struct completion succeeded(void)
{
    return (struct completion){
        .state = STATE_SUCCEEDED,
        .attempts = 2,
        .node = STR("gpu0"),
        .started_at = 110,
        .finished_at = 120,
        .text = STR("hi \"you\""),
        .finish_reason = STR("stop"),
        .reason = REASON_NONE,
        .usage = {10, 20, 3},
        .calls = &one_call,
        .n_calls = 1,
        .queue_ms = 10,
        .engine_ms = 9,
        .first_token_ms = -1,
        .total_ms = 20,
        .cost = 0.000125,
    };
}

static struct completion unfinished(enum job_state state)
{
    return (struct completion){.state = state,
                               .reason = REASON_NONE,
                               .queue_ms = -1,
                               .engine_ms = -1,
                               .first_token_ms = -1,
                               .total_ms = -1};
}

TEST(one_that_succeeded)
{
    struct job j;
    struct completion c = succeeded();
    struct buf b;

    buf_init(&b, 1 << 16);
    make_job(&j);
    CHECK_INT(completion_write(&j, &c, &b), 0);
    CHECK_STR(
        buf_str(&b),
        "{\"id\":\"id-1\",\"object\":\"job\",\"status\":\"succeeded\",\"model\":\"m\","
        "\"priority\":\"low\",\"queue\":\"default\",\"batch_id\":\"b\",\"custom_id\":\"c\\n\","
        "\"tenant\":\"default\",\"metadata\":{\"k\":[1]},\"created_at\":100,"
        "\"started_at\":110,\"finished_at\":120,\"attempts\":2,\"node\":\"gpu0\","
        "\"cached\":false,\"output\":{\"text\":\"hi \\\"you\\\"\",\"finish_reason\":\"stop\"},"
        "\"error\":null,\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":20,"
        "\"total_tokens\":30,\"cached_tokens\":3},\"calls\":[{\"id\":"
        "\"01ARZ3NDEKTSV4RRFFQ69G5FAV\",\"attempt\":2,\"node\":\"gpu0\",\"model\":\"m:1b\","
        "\"prompt_tokens\":10,\"completion_tokens\":20,\"cached_tokens\":3,\"outcome\":"
        "\"timeout\",\"ms\":44,\"cost\":0.25}],\"timing\":{\"queue_ms\":10,\"engine_ms\":9,"
        "\"first_token_ms\":null,\"total_ms\":20},\"cost\":0.000125,\"batch_line\":4,"
        "\"key_id\":null}");
    job_release(&j);
    buf_release(&b);
}

TEST(one_that_waits)
{
    struct job j;
    struct completion c = unfinished(STATE_QUEUED);
    struct buf b;

    buf_init(&b, 1 << 16);
    CHECK_INT(job_parse(&j, STR("{\"id\":\"i\",\"prompt\":\"a\"}"), false, NULL, NULL), 0);
    CHECK_INT(completion_write(&j, &c, &b), 0);
    CHECK_STR(buf_str(&b),
              "{\"id\":\"i\",\"object\":\"job\",\"status\":\"queued\",\"model\":null,\"priority\":"
              "\"normal\",\"queue\":null,\"batch_id\":null,\"custom_id\":null,\"tenant\":null,"
              "\"metadata\":null,\"created_at\":null,\"started_at\":null,\"finished_at\":null,"
              "\"attempts\":0,\"node\":null,\"cached\":false,\"output\":null,\"error\":null,"
              "\"usage\":null,\"calls\":[],\"timing\":null,\"cost\":0,\"batch_line\":null,"
              "\"key_id\":null}");
    job_release(&j);
    buf_release(&b);
}

static bool writes(const struct completion *c, const char *partz)
{
    struct job j;
    struct buf b;
    bool has_it;

    buf_init(&b, 1 << 16);
    make_job(&j);
    CHECK_INT(completion_write(&j, c, &b), 0);
    has_it = strstr(b.p, partz);
    if (!has_it)
        fprintf(stderr, "# %s\n", b.p);
    job_release(&j);
    buf_release(&b);
    return has_it;
}

TEST(outputs)
{
    struct completion c = succeeded();

    c.message = STR("{\"role\":\"assistant\"}");
    c.json = STR("{\"a\":1}");
    CHECK(writes(&c, "\"output\":{\"text\":\"hi \\\"you\\\"\",\"message\":{\"role\":\"assistant\"},"
                     "\"json\":{\"a\":1},\"finish_reason\":\"stop\"}"));
    c = succeeded();
    c.text = c.finish_reason = STR_NONE;
    c.embedding = STR("[0.5]");
    CHECK(writes(&c, "\"output\":{\"embedding\":[0.5]}"));
    c.embedding = STR_NONE;
    CHECK(writes(&c, "\"output\":{}"));
    c.text = STR("");
    CHECK(writes(&c, "\"output\":{\"text\":\"\"}"));
}

TEST(errors)
{
    struct completion c = unfinished(STATE_FAILED);

    c.reason = REASON_ENGINE_ERROR;
    c.error_message = STR("engine said \"no\"");
    c.text = STR("not shown");
    CHECK(writes(&c, "\"output\":null,\"error\":{\"code\":\"engine_error\",\"message\":"
                     "\"engine said \\\"no\\\"\"},\"usage\":{\"prompt_tokens\":0,"
                     "\"completion_tokens\":0,\"total_tokens\":0,\"cached_tokens\":0},\"calls\":[],"
                     "\"timing\":{\"queue_ms\":null"));
    c = unfinished(STATE_CANCELLED);
    CHECK(writes(&c, "\"error\":{\"code\":\"cancelled\",\"message\":\"\"}"));
    c = unfinished(STATE_EXPIRED);
    CHECK(writes(&c, "\"error\":{\"code\":\"deadline_exceeded\""));
    c = unfinished(STATE_FAILED);
    CHECK(writes(&c, "\"error\":{\"code\":\"internal\""));
}

TEST(past_the_ceiling)
{
    struct job j;
    struct completion c = succeeded();
    struct buf b;

    buf_init(&b, 50);
    make_job(&j);
    CHECK_INT(completion_write(&j, &c, &b), ERR_TOO_LARGE);
    job_release(&j);
    buf_release(&b);
}

TEST(read_back)
{
    struct job j;
    struct completion c = succeeded();
    struct completion_view v;
    struct buf b;

    buf_init(&b, 1 << 16);
    make_job(&j);
    CHECK_INT(completion_write(&j, &c, &b), 0);
    CHECK_INT(completion_read(&v, buf_str(&b), NULL), 0);
    job_release(&j);
    buf_release(&b);
    CHECK_STR(v.id, "id-1");
    CHECK_STR(v.tenant, "default");
    CHECK_STR(v.model, "m");
    CHECK_STR(v.batch_id, "b");
    CHECK_STR(v.queue, "default");
    CHECK_INT(v.priority, PRIORITY_LOW);
    CHECK_INT(v.state, STATE_SUCCEEDED);
    CHECK_INT(v.created_at, 100);
    CHECK_INT(v.batch_line, 4);
    completion_view_release(&v);
}

TEST(read_back_one_with_little_in_it)
{
    struct completion_view v;

    CHECK_INT(completion_read(&v,
                              STR("{\"id\":\"a\",\"tenant\":\"t\",\"status\":\"failed\","
                                  "\"batch_id\":null,\"batch_line\":null}"),
                              NULL),
              0);
    CHECK(!v.model.p && !v.queue.p && !v.batch_id.p);
    CHECK_INT(v.priority, PRIORITY_NORMAL);
    CHECK_INT(v.created_at, 0);
    CHECK_INT(v.batch_line, -1);
    completion_view_release(&v);
}

TEST(of_many_calls_the_oldest_are_left_out)
{
    struct job j;
    struct completion c = succeeded();
    struct call calls[CALLS_MAX + 3];
    struct buf b;
    int i;

    for (i = 0; i < CALLS_MAX + 3; i++) {
        calls[i] = one_call;
        calls[i].attempt = i + 1;
    }
    c.calls = calls;
    c.n_calls = CALLS_MAX + 3;
    buf_init(&b, 1 << 16);
    make_job(&j);
    CHECK_INT(completion_write(&j, &c, &b), 0);
    CHECK(!strstr(b.p, "\"attempt\":3,"));
    CHECK(strstr(b.p, "\"calls\":[{\"id\":\"01ARZ3NDEKTSV4RRFFQ69G5FAV\",\"attempt\":4,"));
    CHECK(strstr(b.p, "\"attempt\":35,"));
    job_release(&j);
    buf_release(&b);
}

TEST(outcomes_have_names)
{
    enum call_outcome o = CALL_OK;

    CHECK(outcome_parse(STR("cut"), &o));
    CHECK_INT(o, CALL_CUT);
    CHECK(!outcome_parse(STR("x"), &o));
    CHECK_INT(o, CALL_CUT);
}

TEST(what_is_no_completion)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"id\":\"a\",\"status\":\"failed\"}",
        "{\"id\":\"a\",\"tenant\":\"t\"}",
        "{\"id\":\"a b\",\"tenant\":\"t\",\"status\":\"failed\"}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"status\":\"done\"}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"status\":\"failed\",\"priority\":\"x\"}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"status\":\"failed\",\"created_at\":\"x\"}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"status\":\"failed\",\"model\":1}",
    };
    struct completion_view v;
    struct err e;
    size_t i;

    for (i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK_INT(completion_read(&v, str_z(texts[i]), &e), ERR_INVALID);
    CHECK_INT(completion_read(&v,
                              STR("{\"id\":\"a\",\"new\":{},\"tenant\":\"t\",\"status\":"
                                  "\"failed\"}"),
                              &e),
              0); /* a later version's */
    completion_view_release(&v);
}
