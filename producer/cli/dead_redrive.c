/* `genq dead redrive`: dead letters as new jobs. */
#include "producer/cli/dead.h"
#include "producer/cli/table.h"
#include <stdio.h>

enum { BODY_MAX_BYTES = 1 << 20, LINE_MAX_BYTES = 1 << 20 };

struct redriving {
    bool is_json;
    int64_t n_redriven, n_already, n_refused;
};

/* ---- what is changed ---- */

static int put_option(const struct cli *c, struct buf *b, const char *textz)
{
    const char *equals = strchr(textz, '=');
    struct str name = str_of(textz, equals ? (size_t)(equals - textz) : 0), value;
    struct json *parsed;

    if (name.n == 0 || str_utf8_bad(str_z(textz)) < strlen(textz))
        return cli_usage(c, "--option: '%s' is not NAME=VALUE", textz);
    value = str_z(equals + 1);
    json_put_str(b, name);
    buf_addc(b, ':');
    parsed = json_parse(value, NULL); /* what is no JSON is a text */
    if (parsed)
        buf_adds(b, value);
    else
        json_put_str(b, value);
    json_free(parsed);
    return EXIT_WELL;
}

static int put_body(const struct cli *c, struct buf *b)
{
    const char *modelz = cli_get(c, "--set-model"), *textz;
    int code = EXIT_WELL;
    size_t i;

    if (modelz && str_utf8_bad(str_z(modelz)) < strlen(modelz))
        return cli_usage(c, "--set-model: not UTF-8");
    buf_addc(b, '{');
    if (modelz) {
        json_put_member_str(b, "model", str_z(modelz));
        buf_addc(b, ',');
    }
    buf_addz(b, "\"options\":{");
    for (i = 0; code == EXIT_WELL && (textz = cli_get_nth(c, "--option", i)); i++) {
        if (i > 0)
            buf_addc(b, ',');
        code = put_option(c, b, textz);
    }
    buf_addz(b, "}}");
    return code == EXIT_WELL && b->is_over ? cli_usage(c, "the options are too long") : code;
}

/* ---- what became of them ---- */

static void count(struct redriving *r, struct str result)
{
    if (str_eqz(result, "refused"))
        r->n_refused++;
    else if (str_eqz(result, "already"))
        r->n_already++;
    else
        r->n_redriven++;
}

static void put_line(struct buf *b, const struct json *letter, struct str result)
{
    struct str id = json_str(json_get(letter, "job_id"));

    table_put_clean(b, id.n > 0 ? id : json_str(json_get(letter, "position")));
    buf_addz(b, "  ");
    if (str_eqz(result, "refused")) {
        buf_addz(b, "refused: ");
        table_put_clean(b, json_str(json_get(letter, "error")));
        if (!json_is_true(json_get(letter, "can_redrive"))) {
            buf_addz(b, " (");
            table_put_clean(b, json_str(json_get(letter, "reason")));
            buf_addz(b, ", from ");
            table_put_clean(b, json_str(json_get(letter, "source")));
            buf_addc(b, ')');
        }
    } else {
        buf_addz(b, str_eqz(result, "would")     ? "would be "
                    : str_eqz(result, "already") ? "was redriven before, as "
                                                 : "redriven as ");
        table_put_clean(b, json_str(json_get(letter, "id")));
    }
    buf_addc(b, '\n');
}

static void on_letter(void *data, const struct json *letter)
{
    struct redriving *r = data;
    struct str result = json_str(json_get(letter, "result"));
    struct buf b;

    count(r, result);
    buf_init(&b, LINE_MAX_BYTES);
    if (r->is_json) {
        json_print(letter, &b);
        buf_addc(&b, '\n');
    } else {
        put_line(&b, letter, result);
    }
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
}

static void print_sum(const struct redriving *r, bool is_dry)
{
    if (r->n_redriven + r->n_already + r->n_refused == 0)
        cli_fail(0, "no dead letter matches");
    else
        cli_fail(0, "%lld %s, %lld before, %lld refused", (long long)r->n_redriven,
                 is_dry ? "would be redriven" : "redriven", (long long)r->n_already,
                 (long long)r->n_refused);
}

static int run(struct cli *c)
{
    struct redriving r = {.is_json = c->is_json};
    const char *limitz = cli_get(c, "--limit");
    int64_t limit = INT64_MAX, next;
    struct buf body;
    int code;

    if (limitz && (!str_int(str_z(limitz), &limit) || limit < 1))
        return cli_usage(c, "--limit: '%s' is not a number from 1 on", limitz);
    buf_init(&body, BODY_MAX_BYTES);
    code = put_body(c, &body);
    if (code == EXIT_WELL)
        code = dead_pages(c, "POST", "/api/v1/dead/redrive", buf_str(&body), limit, on_letter, &r,
                          &next);
    buf_release(&body);
    if (code == EXIT_WELL)
        print_sum(&r, cli_has(c, "--dry-run"));
    return code == EXIT_WELL && r.n_refused > 0 ? EXIT_SOME_FAILED : code;
}

static const struct cli_option options[] = {
    DEAD_FILTERS,
    {"--limit", 'n', "N", "at most this many (default: all)", false},
    {"--dry-run", 0, NULL, "only tell what would be done", false},
    {"--set-model", 0, "MODEL", "the new jobs' model", false},
    {"--option", 0, "NAME=VALUE", "set a field for the engine, e.g. max_tokens; null: none", true},
    {0},
};

const struct cli_command command_dead_redrive = {
    .namez = "dead redrive",
    .argumentsz = "[ID]",
    .summaryz = "make new jobs of jobs that failed",
    .detailsz =
        "Of those that `genq dead list` shows with the same filters. Each becomes one new job,\n"
        "however often: with an id of its own, and redrive_of. Exit code 1: some cannot be.",
    .options = options,
    .run = run,
    .examplez = "genq dead redrive --model small --code attempts_exhausted --set-model big",
    .is_client = true,
};
