/* `genq dead list`: records that were no jobs, and jobs that failed. */
#include "base/clock.h"
#include "producer/cli/dead.h"
#include "producer/cli/table.h"
#include <stdio.h>

#define TEXT_MAX_BYTES ((size_t)256 << 20)
enum { REASON_WIDTH = 60 };

struct listing {
    bool is_json;
    int64_t n;
    struct table table;
};

static void print_json(const struct json *letter)
{
    struct buf b;

    buf_init(&b, TEXT_MAX_BYTES);
    json_print(letter, &b);
    printf("%.*s\n", STR_ARG(buf_str(&b)));
    buf_release(&b);
}

static void add_text(struct table *t, const struct json *letter, const char *namez)
{
    struct str s = json_str(json_get(letter, namez));

    table_add(t, s.n > 0 ? s : STR("-"));
}

/* What is to be done with it: nothing, or `redriven`, or that it cannot be. */
static const char *fate(const struct json *letter)
{
    if (json_str(json_get(letter, "redriven_as")).n > 0)
        return "redriven";
    return json_is_true(json_get(letter, "can_redrive")) ? "-" : "no job";
}

static void add_row(struct table *t, const struct json *letter)
{
    struct str reason = json_str(json_get(letter, "reason"));
    char at[32] = "";
    int64_t ms;

    if (json_int(json_get(letter, "at"), &ms)) {
        clock_format_rfc3339(ms, at);
        str_copyz(at + 19, sizeof at - 19, STR("Z")); /* whole seconds */
    }
    table_addz(t, at);
    add_text(t, letter, "job_id");
    add_text(t, letter, "tenant");
    add_text(t, letter, "model");
    add_text(t, letter, "code");
    table_addz(t, fate(letter));
    if (reason.n > REASON_WIDTH)
        reason.n = str_utf8_bad(str_of(reason.p, REASON_WIDTH));
    table_add(t, reason.n > 0 ? reason : STR("-"));
    add_text(t, letter, "source");
}

static void on_letter(void *data, const struct json *letter)
{
    struct listing *l = data;

    l->n++;
    if (l->is_json)
        print_json(letter);
    else
        add_row(&l->table, letter);
}

static void print_table(struct listing *l, int64_t next)
{
    struct buf b;

    buf_init(&b, TEXT_MAX_BYTES);
    table_print(&l->table, &b);
    if (l->n > 0)
        fwrite(b.p, 1, b.n, stdout);
    else
        cli_fail(0, "no dead letter matches");
    if (next >= 0)
        cli_fail(0, "there may be more: --after %lld", (long long)next);
    buf_release(&b);
}

static int run(struct cli *c)
{
    static const char *const heads[] = {"CAME", "JOB",     "TENANT", "MODEL",
                                        "CODE", "REDRIVE", "REASON", "SOURCE"};
    struct listing l = {.is_json = c->is_json};
    const char *limitz = cli_get(c, "--limit");
    int64_t limit = 100, next;
    size_t i;
    int code;

    if (limitz && (!str_int(str_z(limitz), &limit) || limit < 1))
        return cli_usage(c, "--limit: '%s' is not a number from 1 on", limitz);
    table_init(&l.table, "llllllll");
    for (i = 0; i < sizeof heads / sizeof heads[0]; i++)
        table_addz(&l.table, heads[i]);
    code = dead_pages(c, "GET", "/api/v1/dead", STR_NONE, limit, on_letter, &l, &next);
    if (code == EXIT_WELL && !c->is_json)
        print_table(&l, next);
    table_release(&l.table);
    return code;
}

static const struct cli_option options[] = {
    DEAD_FILTERS,
    {"--limit", 'n', "N", "at most this many (default 100)", false},
    {0},
};

const struct cli_command command_dead_list = {
    .namez = "dead list",
    .argumentsz = "[ID]",
    .summaryz = "list records that are no jobs, and jobs that failed",
    .detailsz = "Oldest first. With ID only letters of the job of that id.",
    .options = options,
    .run = run,
    .examplez = "genq dead list --code engine_error --since 2026-11-01",
    .is_client = true,
};
