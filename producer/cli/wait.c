/* `genq wait`: until jobs have ended. */
#include "base/clock.h"
#include "producer/cli/follow.h"
#include "producer/cli/job_text.h"
#include "producer/cli/progress.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)256 << 20)

static void print_end(const struct cli *c, const struct json *job, struct str text)
{
    struct buf b;

    buf_init(&b, ANSWER_MAX_BYTES);
    if (c->is_json) {
        buf_adds(&b, text);
        buf_addc(&b, '\n');
    } else {
        job_text_line(&b, job);
    }
    fwrite(b.p, 1, b.n, stdout);
    fflush(stdout);
    buf_release(&b);
}

/* One of many is shown as progress, where somebody looks. */
static void show(struct progress *p, const struct cli *c)
{
    if (c->n_args > 1 && p->is_terminal)
        progress_update(p, clock_mono_ms());
}

static int wait_for(struct follow *f, const char *idz, struct progress *p, struct buf *out)
{
    struct json *job;
    int64_t tokens;
    int code = follow_job(f, idz, cli_get(f->c, "--tenant"), out, &job);

    progress_clear(p);
    if (code == EXIT_WELL) {
        print_end(f->c, job, buf_str(out));
        code = job_text_is_succeeded(job) ? EXIT_WELL : EXIT_SOME_FAILED;
    }
    if (json_int(json_get(json_get(job, "usage"), "completion_tokens"), &tokens))
        p->tokens += tokens;
    p->done++;
    p->failed += code != EXIT_WELL;
    json_free(job);
    return code;
}

/* When the time is over those behind may still have ended. */
static bool is_to_go_on(int code)
{
    return code <= EXIT_SOME_FAILED || code == EXIT_TIMED_OUT;
}

static int run(struct cli *c)
{
    struct progress p;
    struct follow f;
    struct buf out;
    int64_t timeout_ms;
    size_t i;
    int one, code = EXIT_WELL;

    if (!cli_duration(c, "--timeout", -1, &timeout_ms))
        return EXIT_USAGE;
    buf_init(&out, ANSWER_MAX_BYTES);
    follow_init(&f, c, timeout_ms);
    progress_init(&p, (int64_t)c->n_args);
    for (i = 0; i < c->n_args && is_to_go_on(code) && !ferror(stdout); i++) {
        show(&p, c);
        one = wait_for(&f, c->args[i], &p, &out);
        if (one == EXIT_TIMED_OUT)
            cli_fail(0, "job %s has not ended in time; it goes on", c->args[i]);
        code = one > code ? one : code;
    }
    progress_clear(&p);
    buf_release(&out);
    return code;
}

static const struct cli_option options[] = {
    {"--timeout", 0, "TIME", "give up after 30s, 5m …; the jobs go on", false},
    {"--tenant", 0, "NAME", "whose jobs they are (default: default)", false},
    {0},
};

const struct cli_command command_wait = {
    .namez = "wait",
    .argumentsz = "ID…",
    .summaryz = "wait until jobs have ended",
    .detailsz = "Prints a line for each, in the order given. Exit code 1: one of them did not\n"
                "succeed; 4: not all ended in time.",
    .options = options,
    .run = run,
    .examplez = "genq wait --timeout 5m $(genq submit -m llama3.2 \"Say hello.\")",
    .is_client = true,
};
