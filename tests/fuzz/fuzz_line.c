/* A line of any form: what parses is a job that can be written and read back; and as a completion's
 * JSON it gives a result line that is JSON. */
#include "base/json.h"
#include "schema/line.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

static void check_job(struct str line)
{
    const char *param = NULL;
    struct job j, back;
    struct err e = {0};
    struct buf b;

    if (line_parse(&j, line, &param, &e)) {
        require(param && e.code == ERR_INVALID && e.msg[0]);
        return;
    }
    buf_init(&b, job_room(&j));
    require(job_write(&j, &b) == 0);
    require(job_parse(&back, buf_str(&b), true, NULL, NULL) == 0);
    require(back.form == j.form && str_eq(back.options, j.options));
    job_release(&back);
    job_release(&j);
    buf_release(&b);
}

static void check_result(struct str view)
{
    struct json *line;
    struct err e;
    struct buf b;

    buf_init(&b, 64 * (view.n + 256));
    if (line_write_result(LINE_OPENAI, view, &b) == 0) {
        line = json_parse(buf_str(&b), &e);
        require(line || strstr(e.msg, "64 deep"));
        json_free(line);
    }
    buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_job(str_of(data, size));
    check_result(str_of(data, size));
    return 0;
}
