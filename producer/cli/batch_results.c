/* `genq batch results`: the lines of a batch that have ended. A file appears when it is whole. */
#include "producer/cli/batch_text.h"
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 20)
enum { GET_MS = 60000, PATH_MAX_BYTES = 16384 };

struct results {
    FILE *out;
    int error; /* errno of a write */
};

static int on_data(void *data, struct str bytes)
{
    struct results *r = data;

    if (fwrite(bytes.p, 1, bytes.n, r->out) == bytes.n)
        return 0;
    r->error = errno;
    return 1;
}

/* Asks first how far the batch is: what is not there yet is told, and is in the exit code. */
static int check_batch(const struct cli *c, struct batch_counts *n)
{
    struct json *batch;
    struct buf text;
    int code;

    buf_init(&text, ANSWER_MAX_BYTES);
    code = batch_call(c, "GET", GET_MS, &text, &batch);
    if (code == EXIT_WELL)
        batch_text_counts(batch, n);
    json_free(batch);
    buf_release(&text);
    return code;
}

static int fetch(const struct cli *c, struct results *r)
{
    struct buf path;
    int status;

    buf_init(&path, PATH_MAX_BYTES);
    follow_put_path(&path, "batches", c->args[0]);
    buf_addz(&path, "/results");
    follow_put_query(&path, "order", cli_get(c, "--order"));
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = cli_call_stream(c, "GET", path.p, STR_NONE, on_data, r);
    buf_release(&path);
    if (status == 0)
        return EXIT_NO_SERVER;
    if (r->error && r->error != EPIPE)
        return cli_fail(EXIT_SOME_FAILED, "cannot write the results: %s", strerror(r->error));
    return cli_exit_code(status);
}

static bool is_special(const char *pathz)
{
    struct stat st;

    return stat(pathz, &st) == 0 && !S_ISREG(st.st_mode);
}

/* Into FILE.part, which becomes FILE when all is there; devices and pipes are written directly. */
static int fetch_to_file(const struct cli *c, const char *pathz)
{
    struct results r = {0};
    struct buf part;
    int code;

    buf_init(&part, PATH_MAX_BYTES);
    buf_addf(&part, "%s%s", pathz, is_special(pathz) ? "" : ".part");
    r.out = part.is_over ? NULL : fopen(part.p, "we");
    if (!r.out) {
        code = cli_fail(EXIT_USAGE, "%s: %s", pathz, strerror(errno));
        buf_release(&part);
        return code;
    }
    code = fetch(c, &r);
    if (fclose(r.out) != 0 && code == EXIT_WELL)
        code = cli_fail(EXIT_SOME_FAILED, "%s: %s", pathz, strerror(errno));
    if (!is_special(pathz) && code != EXIT_WELL)
        unlink(part.p);
    else if (!is_special(pathz) && rename(part.p, pathz) != 0)
        code = cli_fail(EXIT_SOME_FAILED, "%s: %s", pathz, strerror(errno));
    buf_release(&part);
    return code;
}

static int run(struct cli *c)
{
    const char *outz = cli_get(c, "--output"), *orderz = cli_get(c, "--order");
    struct results r = {.out = stdout};
    struct batch_counts n;
    int code;

    if (orderz && strcmp(orderz, "input") != 0 && strcmp(orderz, "completed") != 0)
        return cli_usage(c, "--order: '%s' is neither input nor completed", orderz);
    code = check_batch(c, &n);
    if (code != EXIT_WELL)
        return code;
    code = outz && strcmp(outz, "-") != 0 ? fetch_to_file(c, outz) : fetch(c, &r);
    if (code != EXIT_WELL)
        return code;
    if (!n.is_ended)
        cli_fail(0, "%lld of %lld jobs have not ended, and are not among the results",
                 (long long)n.queued, (long long)n.total);
    if (batch_text_n_bad(&n) > 0)
        cli_fail(0, "%lld of %lld jobs did not succeed", (long long)batch_text_n_bad(&n),
                 (long long)n.total);
    return n.is_ended && batch_text_n_bad(&n) == 0 ? EXIT_WELL : EXIT_SOME_FAILED;
}

static const struct cli_option options[] = {
    {"--output", 'o', "FILE", "write to FILE, which is replaced when all is there (default: -)",
     false},
    {"--order", 0, "ORDER", "input (default), or completed", false},
    {"--tenant", 0, "NAME", "whose batch it is (default: default)", false},
    {0},
};

const struct cli_command command_batch_results = {
    .namez = "batch results",
    .argumentsz = "ID",
    .summaryz = "print a batch's results as JSONL",
    .detailsz = "OpenAI's form for lines that came in it, else the job. Exit code 1: jobs have\n"
                "not ended yet, or did not succeed.",
    .options = options,
    .run = run,
    .examplez = "genq batch results 01JD3V0Y6ZC0R4M7H5Q8K2T9XW -o results.jsonl",
    .is_client = true,
};
