#include "schema/batch.h"
#include "base/json.h"
#include "tests/lib/test.h"

static struct batch sample(enum batch_state state)
{
    return (struct batch){STR("nightly-1"), STR("acme"), state, 1700000000123, 42};
}

TEST(writes_a_cloud_event)
{
    struct batch b = sample(BATCH_RECEIVING);
    struct record r = {.code = 0};
    struct buf mem;

    buf_init(&mem, 4096);
    b.n_lines = -1;
    CHECK_INT(envelope_batch(&r, &b, &mem), 0);
    CHECK_STR(r.key, "batch/acme/nightly-1");
    CHECK_STR(r.value, "{\"id\":\"nightly-1\",\"tenant\":\"acme\",\"state\":\"receiving\","
                       "\"created_at\":1700000000123,\"n_lines\":-1}");
    CHECK_STR(r.headers[HEADER_SPECVERSION], "1.0");
    CHECK_STR(r.headers[HEADER_TYPE], "genq.batch.v1");
    CHECK_STR(r.headers[HEADER_EVENT_ID], "nightly-1/receiving");
    CHECK_STR(r.headers[HEADER_TIME], "2023-11-14T22:13:20.123Z");
    CHECK_STR(r.headers[HEADER_TENANT], "acme");
    CHECK_STR(r.headers[HEADER_BATCH], "nightly-1");
    CHECK(!r.headers[HEADER_STATUS].p);
    buf_release(&mem);
}

TEST(reads_back_every_state)
{
    enum batch_state state;

    for (state = BATCH_RECEIVING; state <= BATCH_CANCELLED; state++) {
        struct batch b = sample(state), got;
        struct record r;
        struct json *owned = NULL;
        struct buf mem;

        buf_init(&mem, 4096);
        CHECK_INT(envelope_batch(&r, &b, &mem), 0);
        CHECK_INT(batch_read(&got, r.value, &owned, NULL), 0);
        CHECK_STR(got.id, "nightly-1");
        CHECK_STR(got.tenant, "acme");
        CHECK_INT(got.state, state);
        CHECK_INT(got.created_at, 1700000000123);
        CHECK_INT(got.n_lines, 42);
        json_free(owned);
        buf_release(&mem);
    }
}

TEST(bytes_do_not_move_in_a_buffer_that_has_some)
{
    struct batch b = sample(BATCH_SEALED);
    struct record r;
    struct buf mem;

    buf_init(&mem, 1 << 16);
    buf_addz(&mem, "before");
    CHECK_INT(envelope_batch(&r, &b, &mem), 0);
    CHECK(r.value.p == mem.p + 6);
    CHECK(r.key.p > mem.p && r.key.p < mem.p + mem.n);
    buf_release(&mem);
}

TEST(too_small_a_buffer_is_told)
{
    struct batch b = sample(BATCH_SEALED);
    struct record r;
    struct buf mem;

    buf_init(&mem, 100);
    CHECK_INT(envelope_batch(&r, &b, &mem), ERR_TOO_LARGE);
    buf_release(&mem);
}

TEST(refuses_what_is_no_batch)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"state\":\"sealed\",\"created_at\":1}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"state\":\"open\",\"created_at\":1,\"n_lines\":1}",
        "{\"id\":\"a/b\",\"tenant\":\"t\",\"state\":\"sealed\",\"created_at\":1,\"n_lines\":1}",
        "{\"id\":\"a\",\"tenant\":7,\"state\":\"sealed\",\"created_at\":1,\"n_lines\":1}",
        "{\"id\":\"a\",\"tenant\":\"t\",\"state\":\"sealed\",\"created_at\":1.5,\"n_lines\":1}",
    };
    struct json *owned = NULL;
    struct batch got;
    struct err e;
    size_t i;

    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(batch_read(&got, str_z(bad[i]), &owned, &e), ERR_INVALID);
        CHECK_INT(batch_read(&got, str_z(bad[i]), &owned, NULL), ERR_INVALID);
    }
    CHECK(!owned);
}
