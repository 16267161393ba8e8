#include "schema/envelope.h"
#include "tests/lib/test.h"

static void make_job(struct job *j, const char *z)
{
    struct job_defaults d = {
        .model = STR("m"), .id = STR("id-1"), .batch_line = -1, .wall_ms = 1795255200123};

    CHECK_INT(job_parse(j, str_z(z), false, NULL, NULL), 0);
    CHECK_INT(job_complete(j, &d, NULL), 0);
}

static struct str header(const struct record *r, enum record_header h)
{
    return r->headers[h];
}

TEST(a_job_record)
{
    struct job j, back;
    struct record r = {.at = POSITION_NONE};
    struct buf mem;

    buf_init(&mem, 1 << 16);
    make_job(&j, "{\"prompt\":\"a\",\"batch_id\":\"b\"}");
    CHECK_INT(envelope_job(&r, &j, &mem, NULL), 0);
    CHECK(mem.n <= envelope_room(&j));
    CHECK_STR(r.key, "id-1");
    CHECK_STR(header(&r, HEADER_SPECVERSION), "1.0");
    CHECK_STR(header(&r, HEADER_EVENT_ID), "id-1.job");
    CHECK_STR(header(&r, HEADER_TYPE), "genq.job.v1");
    CHECK_STR(header(&r, HEADER_EVENT_SOURCE), "genq");
    CHECK_STR(header(&r, HEADER_TIME), "2026-11-21T10:00:00.123Z");
    CHECK_STR(header(&r, HEADER_CONTENT_TYPE), "application/json");
    CHECK_STR(header(&r, HEADER_TENANT), "default");
    CHECK_STR(header(&r, HEADER_MODEL), "m");
    CHECK_STR(header(&r, HEADER_BATCH), "b");
    CHECK_INT(header(&r, HEADER_DIGEST).n, 64);
    CHECK(!header(&r, HEADER_STATUS).p && !header(&r, HEADER_SOURCE).p);
    CHECK(!header(&r, HEADER_TRACEPARENT).p && !header(&r, HEADER_REASON).p);
    CHECK_INT(job_parse(&back, r.value, true, NULL, NULL), 0);
    CHECK_STR(back.id, "id-1");
    job_release(&back);
    job_release(&j);
    buf_release(&mem);
}

TEST(the_key_of_a_session)
{
    struct job j;
    struct record r;
    struct buf mem;

    buf_init(&mem, 1 << 16);
    make_job(&j, "{\"prompt\":\"a\",\"session\":\"s 1\"}");
    CHECK_INT(envelope_job(&r, &j, &mem, NULL), 0);
    CHECK_STR(r.key, "s 1");
    CHECK(!header(&r, HEADER_BATCH).p);
    CHECK_INT(job_step(&j, EVENT_SUBMIT_LATER), 0);
    buf_clear(&mem);
    CHECK_INT(envelope_job(&r, &j, &mem, NULL), 0);
    CHECK_STR(r.key, "id-1");
    job_release(&j);
    buf_release(&mem);
}

TEST(the_key_of_a_scheduled_job_is_its_own)
{
    struct str tenant, id;
    struct buf mem;

    buf_init(&mem, 64);
    CHECK_STR(scheduled_key(STR("default"), STR("a"), &mem), "a");
    CHECK_STR(scheduled_key(STR_NONE, STR("a"), &mem), "a");
    CHECK_STR(scheduled_key(STR("t"), STR("a"), &mem), "t/a");
    scheduled_name(STR("a"), &tenant, &id);
    CHECK_STR(tenant, "default");
    CHECK_STR(id, "a");
    scheduled_name(STR("t/a"), &tenant, &id);
    CHECK_STR(tenant, "t");
    CHECK_STR(id, "a");
    scheduled_name(STR_NONE, &tenant, &id);
    CHECK_INT(id.n, 0);
    buf_release(&mem);
}

TEST(many_records_in_one_memory)
{
    struct job j;
    struct record r[20];
    struct buf mem;
    int i;

    buf_init(&mem, 1 << 20);
    make_job(&j, "{\"prompt\":\"abc\",\"custom_id\":\"\\u0001\\u0002\"}");
    buf_reserve(&mem, 20 * envelope_room(&j));
    for (i = 0; i < 20; i++)
        CHECK_INT(envelope_job(&r[i], &j, &mem, NULL), 0);
    for (i = 0; i < 20; i++) {
        CHECK_STR(header(&r[i], HEADER_TENANT), "default");
        CHECK(str_eq(r[i].value, r[0].value));
    }
    job_release(&j);
    buf_release(&mem);
}

TEST(a_job_past_the_ceiling)
{
    struct job j;
    struct record r;
    struct buf mem;
    struct err e;

    buf_init(&mem, 100);
    make_job(&j,
             "{\"prompt\":\"a long prompt, longer than what the buffer is allowed to hold, and so "
             "refused by it\"}");
    CHECK_INT(envelope_job(&r, &j, &mem, &e), ERR_TOO_LARGE);
    job_release(&j);
    buf_release(&mem);
}

TEST(a_completion_record)
{
    struct job j;
    struct record r, again;
    struct buf mem, mem2;
    struct completion c = {.state = STATE_FAILED,
                           .reason = REASON_POISON,
                           .finished_at = 1795255201000,
                           .error_message = STR("x"),
                           .queue_ms = -1,
                           .engine_ms = -1,
                           .first_token_ms = -1,
                           .total_ms = -1};

    buf_init(&mem, 1 << 16);
    buf_init(&mem2, 1 << 16);
    make_job(&j, "{\"prompt\":\"a\",\"session\":\"s\"}");
    CHECK_INT(envelope_completion(&r, &j, &c, "genq.jobs.default.normal/0/17", &mem, NULL), 0);
    CHECK_STR(r.key, "id-1");
    CHECK_STR(header(&r, HEADER_EVENT_ID), "id-1.completion");
    CHECK_STR(header(&r, HEADER_TYPE), "genq.completion.v1");
    CHECK_STR(header(&r, HEADER_STATUS), "failed");
    CHECK_STR(header(&r, HEADER_TIME), "2026-11-21T10:00:01.000Z");
    CHECK_STR(header(&r, HEADER_SOURCE), "genq.jobs.default.normal/0/17");
    CHECK(str_starts(r.value, STR("{\"id\":\"id-1\",\"object\":\"job\",\"status\":\"failed\"")));
    CHECK_INT(envelope_job(&again, &j, &mem2, NULL), 0);
    CHECK(str_eq(header(&r, HEADER_DIGEST), header(&again, HEADER_DIGEST)));
    job_release(&j);
    buf_release(&mem);
    buf_release(&mem2);
}

TEST(a_cancel_order)
{
    struct record r;
    struct buf mem, read;
    struct str tenant, id;
    struct err e;

    buf_init(&mem, 1 << 12);
    buf_init(&read, 1 << 12);
    CHECK_INT(envelope_cancel(&r, STR("t"), STR("i"), &mem), 0);
    CHECK_STR(r.key, "i");
    CHECK_STR(r.value, "{\"tenant\":\"t\",\"id\":\"i\"}");
    CHECK_STR(header(&r, HEADER_TYPE), "genq.cancel.v1");
    CHECK_STR(header(&r, HEADER_TENANT), "t");
    CHECK_INT(cancel_read(r.value, &tenant, &id, &read, &e), 0);
    CHECK_STR(tenant, "t");
    CHECK_STR(id, "i");
    CHECK_INT(cancel_read(STR("{\"id\":\"i\"}"), &tenant, &id, &read, &e), ERR_INVALID);
    CHECK_INT(cancel_read(STR("{\"tenant\":\"t\",\"id\":\"a b\"}"), &tenant, &id, &read, &e),
              ERR_INVALID);
    CHECK_INT(cancel_read(STR("x"), &tenant, &id, &read, &e), ERR_INVALID);
    buf_release(&mem);
    buf_release(&read);
}

TEST(a_dead_record_is_kept_whole)
{
    struct record r, bad = {.key = STR("k"), .value = STR("no JSON")};
    struct buf mem;

    buf_init(&mem, 1 << 12);
    bad.headers[HEADER_TRACEPARENT] = STR("00-ab");
    CHECK_INT(envelope_dead(&r, &bad, "malformed", "genq.jobs.default.low/0/3", &mem), 0);
    CHECK_STR(r.key, "k");
    CHECK_STR(r.value, "no JSON");
    CHECK_STR(header(&r, HEADER_TRACEPARENT), "00-ab");
    CHECK_STR(header(&r, HEADER_REASON), "malformed");
    CHECK_STR(header(&r, HEADER_SOURCE), "genq.jobs.default.low/0/3");
    CHECK(!header(&r, HEADER_TYPE).p);
    buf_clear(&mem);
    bad.key = STR_NONE;
    CHECK_INT(envelope_dead(&r, &bad, "malformed", NULL, &mem), 0);
    CHECK(!r.key.p && !header(&r, HEADER_SOURCE).p);
    buf_release(&mem);
    buf_init(&mem, 20); /* the reason alone would fit */
    CHECK_INT(envelope_dead(&r, &bad, "malformed", NULL, &mem), ERR_TOO_LARGE);
    buf_release(&mem);
}

TEST(a_failed_job_is_kept_to_be_made_again)
{
    struct record r;
    struct job j, again;
    struct buf mem;

    CHECK_INT(job_parse(&j, STR("{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"p\",\"tenant\":\"t\"}"),
                        true, NULL, NULL),
              0);
    buf_init(&mem, 1 << 12);
    CHECK_INT(envelope_failed(&r, &j, "poison", STR("why"), "genq.jobs.default.low/0/3", &mem), 0);
    CHECK_STR(r.key, "a");
    CHECK_STR(header(&r, HEADER_TYPE), DEAD_JOB_TYPE);
    CHECK_STR(header(&r, HEADER_EVENT_ID), "a.failed");
    CHECK_STR(header(&r, HEADER_REASON), "poison: why");
    CHECK_STR(header(&r, HEADER_STATUS), "failed");
    CHECK_STR(header(&r, HEADER_SOURCE), "genq.jobs.default.low/0/3");
    CHECK_STR(header(&r, HEADER_TENANT), "t");
    CHECK_INT(job_parse(&again, r.value, true, NULL, NULL), 0);
    CHECK_STR(again.body, "\"p\"");
    job_release(&again);
    buf_release(&mem);
    buf_init(&mem, 20);
    CHECK_INT(envelope_failed(&r, &j, "poison", STR("why"), "x", &mem), ERR_TOO_LARGE);
    buf_release(&mem);
    job_release(&j);
}

TEST(a_digest_that_is_not_known_is_not_told)
{
    struct job j;
    struct record r;
    struct buf mem;
    struct completion c = {.state = STATE_CANCELLED, .reason = REASON_CANCELLED};

    buf_init(&mem, 1 << 16);
    make_job(&j, "{\"prompt\":\"\"}");
    j.is_partial = true;
    CHECK_INT(envelope_completion(&r, &j, &c, "here", &mem, NULL), 0);
    CHECK(!header(&r, HEADER_DIGEST).p);
    j.has_digest = true; /* by its row, say */
    buf_clear(&mem);
    CHECK_INT(envelope_completion(&r, &j, &c, "here", &mem, NULL), 0);
    CHECK(!strncmp(header(&r, HEADER_DIGEST).p, "00000000", 8));
    job_release(&j);
    buf_release(&mem);
}

TEST(names_from_elsewhere_may_be_long) /* a foreign record's header becomes a tenant */
{
    struct job j;
    struct record r;
    struct buf mem;
    struct completion c = {.state = STATE_CANCELLED, .reason = REASON_CANCELLED};
    static char tenant[5000];

    memset(tenant, 't', sizeof tenant);
    buf_init(&mem, 1 << 16);
    make_job(&j, "{\"prompt\":\"a\"}");
    j.tenant = str_of(tenant, sizeof tenant);
    CHECK_INT(envelope_completion(&r, &j, &c, "here", &mem, NULL), 0);
    CHECK(r.value.p == mem.p);
    CHECK(str_eq(header(&r, HEADER_TENANT), j.tenant));
    job_release(&j);
    buf_release(&mem);
}
