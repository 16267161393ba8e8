/* `genq submit`: one job, and its answer where that is waited for. */
#include "base/clock.h"
#include "base/id.h"
#include "producer/cli/follow.h"
#include "producer/cli/input.h"
#include "producer/cli/job_text.h"
#include "producer/cli/tokens.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ANSWER_MAX_BYTES ((size_t)256 << 20)
#define PROMPT_MAX_BYTES ((size_t)64 << 20)
enum { POST_MS = 60000, PATH_MAX_BYTES = 16384 };

/* ---- the job ---- */

/* The prompt: the argument, or stdin for "-" and where there is none but a pipe. */
static int read_prompt(const struct cli *c, struct buf *b)
{
    struct err e;

    if (c->n_args == 1 && strcmp(c->args[0], "-") != 0) {
        buf_addz(b, c->args[0]);
    } else if (c->n_args == 0 && isatty(STDIN_FILENO)) {
        return cli_usage(c, "'submit' needs PROMPT, or - to read it from stdin");
    } else {
        if (input_read_stdin(b, &e) != 0)
            return cli_fail(EXIT_USAGE, "%s", e.msg);
        while (b->n > 0 && b->p[b->n - 1] == '\n') /* as the shell's $(…) */
            b->n--;
    }
    if (b->is_over)
        return cli_fail(EXIT_USAGE, "the prompt is too large");
    if (b->n == 0)
        return cli_usage(c, "the prompt is empty");
    if (str_utf8_bad(buf_str(b)) != b->n || memchr(b->p, '\0', b->n))
        return cli_fail(EXIT_USAGE, "the prompt is not UTF-8 text");
    return EXIT_WELL;
}

/* The only model there is, where none was named. */
static int choose_model(const struct cli *c, struct buf *model)
{
    const struct json *node, *name;
    struct json *j;
    struct buf body, all;
    int status, code = EXIT_WELL;

    buf_init(&body, ANSWER_MAX_BYTES);
    buf_init(&all, 1024);
    status = cli_call(c, "GET", "/api/v1/nodes", STR_NONE, NULL, POST_MS, &body);
    if (status != 200) {
        code = status ? cli_print_error(status, buf_str(&body)) : EXIT_NO_SERVER;
        buf_release(&body);
        return code;
    }
    j = json_parse(buf_str(&body), NULL);
    for (node = json_child(json_get(j, "data")); node; node = json_next(node))
        for (name = json_child(json_get(node, "models")); name; name = json_next(name)) {
            if (model->n > 0 && !str_eq(buf_str(model), json_str(name)))
                code = EXIT_USAGE;
            buf_clear(model);
            buf_adds(model, json_str(name));
            if (!all.p || !memmem(all.p, all.n, model->p, model->n))
                buf_addf(&all, "%s%.*s", all.n ? ", " : "", STR_ARG(json_str(name)));
        }
    if (model->n == 0)
        code = cli_usage(c, "-m MODEL is needed; no engine lists a model now");
    else if (code)
        cli_usage(c, "-m MODEL is needed; there are: %.*s", STR_ARG(buf_str(&all)));
    json_free(j);
    buf_release(&body);
    buf_release(&all);
    return code;
}

static int put_text(const struct cli *c, struct buf *b, const char *optionz, const char *namez)
{
    const char *valuez = cli_get(c, optionz);

    if (!valuez)
        return EXIT_WELL;
    if (str_utf8_bad(str_z(valuez)) != strlen(valuez))
        return cli_usage(c, "%s is not UTF-8 text", optionz);
    buf_addc(b, ',');
    json_put_member_str(b, namez, str_z(valuez));
    return EXIT_WELL;
}

static int put_number(const struct cli *c, struct buf *b, const char *optionz, const char *namez)
{
    const char *valuez = cli_get(c, optionz);
    struct json *j = valuez ? json_parse(str_z(valuez), NULL) : NULL;
    bool is_number = j && json_type(j) == JSON_NUMBER;

    json_free(j);
    if (!valuez)
        return EXIT_WELL;
    if (!is_number)
        return cli_usage(c, "%s: '%s' is no number", optionz, valuez);
    buf_addc(b, ',');
    json_put_member_raw(b, namez, str_z(valuez));
    return EXIT_WELL;
}

static void put_prompt(const struct cli *c, struct buf *b, struct str prompt)
{
    const char *systemz = cli_get(c, "--system");

    buf_addc(b, ',');
    if (!systemz) {
        json_put_member_str(b, "prompt", prompt);
        return;
    }
    json_put_name(b, "messages");
    buf_addz(b, "[{\"role\":\"system\",");
    json_put_member_str(b, "content", str_z(systemz));
    buf_addz(b, "},{\"role\":\"user\",");
    json_put_member_str(b, "content", prompt);
    buf_addz(b, "}]");
}

/* The id is always ours, so that a cut connection leaves something to ask for. */
static int write_job(const struct cli *c, struct str prompt, const char *idz, struct buf *b)
{
    const char *systemz = cli_get(c, "--system"), *modelz = cli_get(c, "--model");
    struct buf model;
    int code = EXIT_WELL;

    if (systemz && str_utf8_bad(str_z(systemz)) != strlen(systemz))
        return cli_usage(c, "--system is not UTF-8 text");
    if (modelz && str_utf8_bad(str_z(modelz)) != strlen(modelz))
        return cli_usage(c, "--model is not UTF-8 text");
    buf_init(&model, 4096);
    if (!modelz)
        code = choose_model(c, &model);
    buf_addc(b, '{');
    json_put_member_str(b, "id", str_z(idz));
    buf_addc(b, ',');
    json_put_member_str(b, "model", modelz ? str_z(modelz) : buf_str(&model));
    put_prompt(c, b, prompt);
    code = code ? code : put_text(c, b, "--priority", "priority");
    code = code ? code : put_text(c, b, "--tenant", "tenant");
    code = code ? code : put_number(c, b, "--max-tokens", "max_tokens");
    code = code ? code : put_number(c, b, "--temperature", "temperature");
    if (cli_has(c, "--stream"))
        buf_addz(b, ",\"stream\":true");
    buf_addc(b, '}');
    buf_release(&model);
    return code;
}

/* ---- sending ---- */

static int post(const struct cli *c, struct str job, const char *idz, struct buf *out)
{
    struct client_call call = {.methodz = "POST",
                               .pathz = "/api/v1/jobs",
                               .body = job,
                               .total_ms = POST_MS,
                               .out = out};
    struct err e = {0};
    int status = client_send(c, &call, &e);

    if (status >= 200 && status <= 299)
        return EXIT_WELL;
    if (status > 0)
        return cli_print_error(status, buf_str(out));
    client_explain(c, &e);
    if (e.code != ERR_UNREACHABLE && e.code != ERR_INVALID)
        cli_fail(0, "the job may have been accepted; ask with: genq get %s", idz);
    return e.code == ERR_INVALID ? EXIT_USAGE : EXIT_NO_SERVER;
}

static int print_end(const struct cli *c, const struct json *job, struct str text)
{
    struct buf b;
    int code = job_text_is_succeeded(job) ? EXIT_WELL : EXIT_SOME_FAILED;

    buf_init(&b, ANSWER_MAX_BYTES);
    if (c->is_json) {
        buf_adds(&b, text);
        buf_addc(&b, '\n');
    } else if (code == EXIT_WELL) {
        job_text_output(&b, job);
    }
    if (b.n > 0)
        fwrite(b.p, 1, b.n, stdout);
    buf_clear(&b);
    job_text_error(&b, job);
    if (code != EXIT_WELL)
        cli_fail(code, "job %.*s %.*s: %.*s", STR_ARG(json_str(json_get(job, "id"))),
                 STR_ARG(json_str(json_get(job, "status"))), STR_ARG(buf_str(&b)));
    buf_release(&b);
    return code;
}

static int await(const struct cli *c, const char *idz, int64_t timeout_ms)
{
    struct follow f;
    struct json *job;
    struct buf out;
    int code;

    buf_init(&out, ANSWER_MAX_BYTES);
    follow_init(&f, c, timeout_ms);
    f.was_reached = true;
    code = cli_has(c, "--stream") ? tokens_follow(&f, idz, cli_get(c, "--tenant"), &out, &job)
                                  : follow_job(&f, idz, cli_get(c, "--tenant"), &out, &job);
    if (code == EXIT_TIMED_OUT)
        cli_fail(code, "job %s has not ended in time; it goes on, wait with: genq wait %s", idz,
                 idz);
    else if (code == EXIT_WELL && cli_has(c, "--stream"))
        code = tokens_print_end(job);
    else if (code == EXIT_WELL)
        code = print_end(c, job, buf_str(&out));
    json_free(job);
    buf_release(&out);
    return code;
}

static int print_accepted(const struct cli *c, const char *idz, struct str answer)
{
    if (c->is_json)
        printf("%.*s\n", STR_ARG(answer));
    else
        printf("%s\n", idz);
    return EXIT_WELL;
}

static int run(struct cli *c)
{
    bool is_waiting = cli_has(c, "--wait") || cli_has(c, "--stream");
    char made_id[ULID_LEN + 1];
    const char *idz = cli_get(c, "--id");
    struct buf prompt, job, answer;
    int64_t timeout_ms;
    int code;

    if (!cli_duration(c, "--timeout", -1, &timeout_ms))
        return EXIT_USAGE;
    if (timeout_ms >= 0 && !is_waiting)
        return cli_usage(c, "--timeout goes with --wait or --stream");
    if (idz && !id_is_valid(str_z(idz)))
        return cli_usage(c, "--id: '%s' is not 1 to 64 of letters, digits, '.', '_' and '-'", idz);
    id_ulid(clock_wall_ms(), made_id);
    idz = idz ? idz : made_id;
    buf_init(&prompt, PROMPT_MAX_BYTES);
    buf_init(&job, PROMPT_MAX_BYTES * 7);
    buf_init(&answer, ANSWER_MAX_BYTES);
    code = read_prompt(c, &prompt);
    code = code ? code : write_job(c, buf_str(&prompt), idz, &job);
    code = code ? code : post(c, buf_str(&job), idz, &answer);
    if (code == EXIT_WELL)
        code = is_waiting ? await(c, idz, timeout_ms) : print_accepted(c, idz, buf_str(&answer));
    buf_release(&prompt);
    buf_release(&job);
    buf_release(&answer);
    return code;
}

static const struct cli_option options[] = {
    {"--model", 'm', "MODEL", "as the engine or the config names it; not needed where there is one",
     false},
    {"--wait", 0, NULL, "wait for the end and print the answer in place of the id", false},
    {"--stream", 0, NULL, "print the tokens as they come", false},
    {"--timeout", 0, "TIME", "give up waiting after 30s, 5m …; the job goes on", false},
    {"--system", 0, "TEXT", "a system message: makes the job a chat", false},
    {"--max-tokens", 0, "N", "at most this many completion tokens", false},
    {"--temperature", 0, "X", "0 (greedy) to 2", false},
    {"--priority", 0, "P", "high, normal or low", false},
    {"--id", 0, "ID", "the job's id; a repeat of id and job is accepted once", false},
    {"--tenant", 0, "NAME", "whose job it is (default: default)", false},
    {0},
};

const struct cli_command command_submit = {
    .namez = "submit",
    .argumentsz = "[PROMPT|-]",
    .summaryz = "submit a job; print its id, or with --wait the answer",
    .detailsz = "PROMPT may be -, or left out behind a pipe: then stdin is the prompt. Once the\n"
                "id is printed the job is kept, whatever happens to genq. With --json the job\n"
                "is printed; with --json --stream each event in a line.",
    .options = options,
    .run = run,
    .examplez = "genq submit -m llama3.2 --wait \"Why is the sky blue?\"",
    .is_client = true,
};
