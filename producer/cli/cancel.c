/* `genq cancel`: jobs that need not run. */
#include "producer/cli/follow.h"
#include "producer/cli/job_text.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)256 << 20)
enum { CANCEL_MS = 60000, PATH_MAX_BYTES = 16384 };

static void print_cancelled(const struct cli *c, const char *idz, struct str text)
{
    if (c->is_json)
        printf("%.*s\n", STR_ARG(text));
    else
        printf("%s  cancelled\n", idz);
}

/* Names the job: there may be many. */
static int print_refusal(const char *idz, int status, struct str body)
{
    struct json *j = json_parse(body, NULL);
    struct str message = json_str(json_get(json_get(j, "error"), "message"));

    if (message.n > 0)
        cli_fail(0, "%s: %.*s", idz, STR_ARG(message));
    else
        cli_print_error(status, body);
    json_free(j);
    return cli_exit_code(status);
}

static int cancel_one(const struct cli *c, const char *idz)
{
    struct buf path, answer;
    int status, code = EXIT_NO_SERVER;

    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    follow_put_path(&path, "jobs", idz);
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = cli_call(c, "DELETE", path.p, STR_NONE, NULL, CANCEL_MS, &answer);
    if (status >= 200 && status <= 299) {
        print_cancelled(c, idz, buf_str(&answer));
        code = EXIT_WELL;
    } else if (status > 0) {
        code = print_refusal(idz, status, buf_str(&answer));
    }
    buf_release(&path);
    buf_release(&answer);
    return code;
}

static int run(struct cli *c)
{
    size_t i;
    int one, code = EXIT_WELL;

    for (i = 0; i < c->n_args && code <= EXIT_SOME_FAILED; i++) {
        one = cancel_one(c, c->args[i]);
        code = one > code ? one : code;
    }
    return code;
}

static const struct cli_option options[] = {
    {"--tenant", 0, "NAME", "whose jobs they are (default: default)", false},
    {0},
};

const struct cli_command command_cancel = {
    .namez = "cancel",
    .argumentsz = "ID…",
    .summaryz = "cancel jobs that have not ended",
    .detailsz = "A job that runs is aborted. One that has ended stays as it is: exit code 1.",
    .options = options,
    .run = run,
    .examplez = "genq cancel 01JD3V0Y6ZC0R4M7H5Q8K2T9XW",
    .is_client = true,
};
