/* `genq batch submit`: a file of JSONL lines to the server, in one streamed request. */
#include "base/clock.h"
#include "base/id.h"
#include "producer/cli/batch_text.h"
#include "producer/cli/input.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 20)
enum { PATH_MAX_BYTES = 16384 };

/* What was wrong with lines: they count as failed jobs. */
static int print_refused(const struct json *batch)
{
    const struct json *line;
    int64_t n = 0;

    for (line = json_child(json_get(batch, "errors")); line; line = json_next(line))
        cli_fail(0, "%.*s", STR_ARG(json_str(json_get(line, "message"))));
    json_int(json_get(batch, "refused"), &n);
    if (n > 0)
        cli_fail(0, "%lld of the lines are wrong and count as failed", (long long)n);
    return n > 0 ? EXIT_SOME_FAILED : EXIT_WELL;
}

static int print_kept(const struct cli *c, const char *idz, struct str answer)
{
    struct json *batch = json_parse(answer, NULL);
    int code = print_refused(batch);

    if (c->is_json && !cli_has(c, "--wait"))
        printf("%.*s\n", STR_ARG(answer));
    else if (!c->is_json)
        printf("%s\n", idz);
    fflush(stdout);
    json_free(batch);
    return code;
}

/* Lines that came before the fault are kept: the id makes a repeat of the rest. */
static int print_not_kept(const struct cli *c, int status, const struct err *e, const char *idz,
                          struct str answer)
{
    struct json *j = status > 0 ? json_parse(answer, NULL) : NULL;
    int64_t n_accepted = 0;
    int code = EXIT_NO_SERVER;

    if (status > 0)
        code = cli_print_error(status, answer);
    else
        client_explain(c, e);
    if (e->code == ERR_INVALID)
        code = EXIT_USAGE;
    json_int(json_get(j, "accepted"), &n_accepted);
    if (n_accepted > 0 || (status <= 0 && e->code != ERR_UNREACHABLE && e->code != ERR_INVALID))
        cli_fail(0, "a part of the lines may be kept; with --id %s the same command adds the rest",
                 idz);
    json_free(j);
    return code;
}

static int send_lines(const struct cli *c, const char *idz, const struct input_map *lines)
{
    struct buf path, answer;
    struct client_call call = {.methodz = "POST",
                               .body = str_of(lines->p, lines->n),
                               .content_typez = "application/x-ndjson",
                               .out = &answer};
    struct err e = {0};
    int status, code;

    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    buf_addz(&path, "/api/v1/batches");
    follow_put_query(&path, "id", idz);
    follow_put_query(&path, "model", cli_get(c, "--model"));
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    call.pathz = path.p;
    status = client_send(c, &call, &e);
    if (status >= 200 && status <= 299)
        code = print_kept(c, idz, buf_str(&answer));
    else
        code = print_not_kept(c, status, &e, idz, buf_str(&answer));
    buf_release(&path);
    buf_release(&answer);
    return code;
}

static int run(struct cli *c)
{
    char made_id[ULID_LEN + 1];
    const char *idz = cli_get(c, "--id");
    struct input_map lines;
    struct err e;
    int64_t timeout_ms;
    int code;

    if (!cli_duration(c, "--timeout", -1, &timeout_ms))
        return EXIT_USAGE;
    if (timeout_ms >= 0 && !cli_has(c, "--wait"))
        return cli_usage(c, "--timeout goes with --wait");
    if (input_map(&lines, c->args[0], &e) != 0)
        return cli_fail(EXIT_USAGE, "%s", e.msg);
    id_ulid(clock_wall_ms(), made_id);
    idz = idz ? idz : made_id;
    if (lines.n == 0)
        code = cli_fail(EXIT_USAGE, "%s is empty", c->args[0]);
    else
        code = send_lines(c, idz, &lines);
    input_unmap(&lines);
    if (code <= EXIT_SOME_FAILED && cli_has(c, "--wait"))
        code = batch_await_and_print(c, idz, timeout_ms);
    return code;
}

static const struct cli_option options[] = {
    {"--model", 'm', "MODEL", "the model of lines that name none", false},
    {"--id", 0, "ID", "the batch's id; a repeat adds only what is missing", false},
    {"--wait", 0, NULL, "wait for the end, with progress", false},
    {"--timeout", 0, "TIME", "give up waiting after 30s, 5m …; the batch goes on", false},
    {"--tenant", 0, "NAME", "whose batch it is (default: default)", false},
    {0},
};

const struct cli_command command_batch_submit = {
    .namez = "batch submit",
    .argumentsz = "FILE|-",
    .summaryz = "send a file of JSONL lines to the server; print the batch's id",
    .detailsz = "A line is {\"prompt\":…}, {\"messages\":…}, a job, or an OpenAI batch line.\n"
                "Lines that are wrong count as failed jobs (exit code 1). To do it all in one\n"
                "process without a server, see 'genq batch run'.",
    .options = options,
    .run = run,
    .examplez = "genq batch submit prompts.jsonl -m llama3.2 --wait",
    .is_client = true,
};
