#include "schema/foreign.h"
#include "tests/lib/test.h"

static struct record bare_record(void)
{
    return (struct record){.at = {7, 3, 42},
                           .ts_ms = 1700000000000,
                           .value = STR("{\"model\":\"m\",\"prompt\":\"p\"}")};
}

TEST(an_id_is_made_of_the_records_place)
{
    struct record r = bare_record();
    char a[FOREIGN_ID_LEN + 1], b[FOREIGN_ID_LEN + 1];

    foreign_id(&r, "genq.jobs.default.normal", a);
    foreign_id(&r, "genq.jobs.default.normal", b);
    CHECK_STR(str_z(a), b);
    CHECK_INT(strlen(a), FOREIGN_ID_LEN);
    CHECK_INT(a[0], 'k');
    /* printf genq.jobs.default.normal/3/42/1700000000000 | sha256sum */
    CHECK_STR(str_z(a), "kde0b64d0597cf3a9");
    foreign_id(&r, "genq.jobs.default.high", b);
    CHECK(strcmp(a, b) != 0);
    r.at.offset++;
    foreign_id(&r, "genq.jobs.default.normal", b);
    CHECK(strcmp(a, b) != 0);
}

TEST(a_bare_job_is_completed)
{
    struct record r = bare_record();
    struct job j;
    struct err e;

    CHECK_INT(job_parse(&j, r.value, true, NULL, &e), 0);
    CHECK_INT(foreign_complete(&j, &r, "genq.jobs.fast.normal", STR("fast"), PRIORITY_HIGH, &e), 0);
    CHECK_INT(j.id.n, FOREIGN_ID_LEN);
    CHECK_STR(j.tenant, "default");
    CHECK_STR(j.queue, "fast");
    CHECK_INT(j.priority, PRIORITY_HIGH);
    CHECK_INT(j.created_at, 1700000000000);
    job_release(&j);
}

TEST(what_the_job_says_itself_stays)
{
    struct record r = bare_record();
    struct job j;
    struct err e;

    r.value =
        STR("{\"id\":\"mine\",\"tenant\":\"t\",\"queue\":\"q\",\"model\":\"m\",\"prompt\":\"p\","
            "\"created_at\":5}");
    r.headers[HEADER_TENANT] = STR("other");
    CHECK_INT(job_parse(&j, r.value, true, NULL, &e), 0);
    CHECK_INT(foreign_complete(&j, &r, "genq.jobs.fast.normal", STR("fast"), PRIORITY_HIGH, &e), 0);
    CHECK_STR(j.id, "mine");
    CHECK_STR(j.tenant, "t");
    CHECK_STR(j.queue, "fast"); /* but for where it stands */
    CHECK_INT(j.created_at, 5);
    job_release(&j);
    CHECK_INT(job_parse(&j, r.value, true, NULL, &e), 0);
    CHECK_INT(foreign_complete(&j, &r, "genq.scheduled", STR("default"), PRIORITY_COUNT_, &e), 0);
    CHECK_STR(j.queue, "q");
    job_release(&j);
}

TEST(what_is_no_job_is_told)
{
    struct record r = bare_record();
    struct job j;
    struct err e;

    r.value = STR("{\"prompt\":\"p\"}");
    if (job_parse(&j, r.value, true, NULL, &e) == 0) {
        CHECK_INT(foreign_complete(&j, &r, "t", STR("default"), PRIORITY_COUNT_, &e), ERR_INVALID);
        job_release(&j);
    }
    CHECK(strstr(e.msg, "model"));
    r = bare_record();
    r.headers[HEADER_TENANT] = STR("no/tenant");
    CHECK_INT(job_parse(&j, r.value, true, NULL, &e), 0);
    CHECK_INT(foreign_complete(&j, &r, "t", STR("default"), PRIORITY_COUNT_, &e), ERR_INVALID);
    job_release(&j);
}
