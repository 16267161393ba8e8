/* A job that parses is written, read back as a record, and is then the same job. */
#include "base/json.h"
#include "schema/job.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

static void check_round_trip(struct job *j)
{
    struct job back;
    struct buf one, two;
    uint8_t digests[2][SHA256_LEN];

    buf_init(&one, job_room(j));
    buf_init(&two, job_room(j) + 64);
    require(job_write(j, &one) == 0);
    require(job_parse(&back, buf_str(&one), true, NULL, NULL) == 0);
    require(job_write(&back, &two) == 0);
    require(str_eq(buf_str(&one), buf_str(&two)));
    job_digest(j, digests[0]);
    job_digest(&back, digests[1]);
    require(memcmp(digests[0], digests[1], SHA256_LEN) == 0);
    job_release(&back);
    buf_release(&one);
    buf_release(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct job_defaults d = {.model = STR("m"), .batch_line = 3, .wall_ms = 1};
    const char *param = NULL;
    struct job j;
    struct err e = {0};
    bool is_record = size % 2;

    if (job_parse(&j, str_of(data, size), is_record, &param, &e)) {
        require(param && e.code == ERR_INVALID && e.msg[0]);
        require(str_utf8_bad(str_z(e.msg)) == strlen(e.msg));
        return 0;
    }
    check_round_trip(&j);
    require(job_complete(&j, &d, &e) == 0);
    check_round_trip(&j);
    job_release(&j);
    return 0;
}
