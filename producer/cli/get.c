/* `genq get`: one job as it is now. */
#include "producer/cli/follow.h"
#include "producer/cli/job_text.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)256 << 20)
enum { GET_MS = 60000, PATH_MAX_BYTES = 16384 };

static int print_job(const struct cli *c, struct str text)
{
    struct err e;
    struct json *job;
    struct buf b;

    if (c->is_json) {
        printf("%.*s\n", STR_ARG(text));
        return EXIT_WELL;
    }
    job = json_parse(text, &e);
    if (!job)
        return cli_fail(EXIT_SOME_FAILED, "the answer is no JSON: %s", e.msg);
    buf_init(&b, ANSWER_MAX_BYTES);
    job_text_details(&b, job);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
    json_free(job);
    return EXIT_WELL;
}

static int run(struct cli *c)
{
    struct buf path, answer;
    int status, code = EXIT_NO_SERVER;

    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    follow_put_path(&path, "jobs", c->args[0]);
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = cli_call(c, "GET", path.p, STR_NONE, NULL, GET_MS, &answer);
    if (status >= 200 && status <= 299)
        code = print_job(c, buf_str(&answer));
    else if (status > 0)
        code = cli_print_error(status, buf_str(&answer));
    buf_release(&path);
    buf_release(&answer);
    return code;
}

static const struct cli_option options[] = {
    {"--tenant", 0, "NAME", "whose job it is (default: default)", false},
    {0},
};

const struct cli_command command_get = {
    .namez = "get",
    .argumentsz = "ID",
    .summaryz = "show a job: its status, output, tokens",
    .options = options,
    .run = run,
    .examplez = "genq get 01JD3V0Y6ZC0R4M7H5Q8K2T9XW",
    .is_client = true,
};
