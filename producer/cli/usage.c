/* `genq usage`: calls, tokens and cost from the ledger. */
#include "base/json.h"
#include "producer/cli/follow.h"
#include "producer/cli/table.h"
#include <ctype.h>
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)256 << 20)
enum { GET_MS = 60000, PATH_MAX_BYTES = 16384, COLUMNS_MAX = 32 };

/* ---- the table ---- */

static void add_head(struct table *t, const struct json *row)
{
    const struct json *member;
    struct buf b;
    size_t i;

    for (member = json_child(row); member; member = json_next(member)) {
        buf_init(&b, 256);
        buf_adds(&b, json_name(member));
        for (i = 0; i < b.n; i++)
            b.p[i] = b.p[i] == '_' ? ' ' : (char)toupper((unsigned char)b.p[i]);
        table_add(t, buf_str(&b));
        buf_release(&b);
    }
}

static void add_row(struct table *t, const struct json *row)
{
    const struct json *member;
    struct buf b;

    for (member = json_child(row); member; member = json_next(member)) {
        buf_init(&b, 4096);
        if (json_type(member) == JSON_STRING)
            buf_adds(&b, json_str(member));
        else if (json_type(member) != JSON_NULL)
            json_print(member, &b);
        table_add(t, b.n > 0 ? buf_str(&b) : STR("-"));
        buf_release(&b);
    }
}

/* Numbers to the right. */
static void find_columns(const struct json *row, char align[COLUMNS_MAX + 1])
{
    const struct json *member;
    size_t n = 0;

    for (member = json_child(row); member && n < COLUMNS_MAX; member = json_next(member))
        align[n++] = json_type(member) == JSON_NUMBER ? 'r' : 'l';
    align[n] = '\0';
}

static void print_table(const struct json *list)
{
    const struct json *row = json_child(json_get(list, "data"));
    char align[COLUMNS_MAX + 1];
    struct table t;
    struct buf b;

    if (!row) {
        cli_fail(0, "no engine was called in this time");
        return;
    }
    find_columns(row, align);
    table_init(&t, align);
    add_head(&t, row);
    for (; row; row = json_next(row))
        add_row(&t, row);
    buf_init(&b, ANSWER_MAX_BYTES);
    table_print(&t, &b);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
    table_release(&t);
}

/* ---- the command ---- */

static void print_answer(const struct cli *c, struct str answer)
{
    struct json *list;

    if (answer.n == 0) {
        return;
    } else if (cli_has(c, "--csv")) {
        fwrite(answer.p, 1, answer.n, stdout);
    } else if (c->is_json) {
        printf("%.*s\n", STR_ARG(answer));
    } else {
        list = json_parse(answer, NULL);
        print_table(list);
        json_free(list);
    }
}

static int run(struct cli *c)
{
    struct buf path, answer;
    int status, code = EXIT_NO_SERVER;

    if (cli_has(c, "--csv") && c->is_json)
        return cli_usage(c, "--csv and --json exclude each other");
    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    buf_addf(&path, "/api/v1/usage?format=%s", cli_has(c, "--csv") ? "csv" : "json");
    follow_put_query(&path, "group_by", cli_get(c, "--by"));
    follow_put_time(&path, "from", cli_get(c, "--from"));
    follow_put_time(&path, "to", cli_get(c, "--to"));
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = path.is_over ? 0 : cli_call(c, "GET", path.p, STR_NONE, NULL, GET_MS, &answer);
    if (path.is_over) {
        code = cli_fail(EXIT_USAGE, "the filters are too long");
    } else if (status >= 200 && status <= 299) {
        print_answer(c, buf_str(&answer));
        code = EXIT_WELL;
    } else if (status > 0) {
        code = cli_print_error(status, buf_str(&answer));
    }
    buf_release(&path);
    buf_release(&answer);
    return code;
}

static const struct cli_option options[] = {
    {"--by", 0, "GROUPS", "tenant, key, model, node, batch, day, hour; some, with commas", false},
    {"--from", 0, "TIME", "2026-11-21, 2026-11-21T10:00:00Z, or ms since the epoch", false},
    {"--to", 0, "TIME", "likewise; not itself counted", false},
    {"--tenant", 0, "NAME", "only this tenant's", false},
    {"--csv", 0, NULL, "print CSV", false},
    {0},
};

const struct cli_command command_usage = {
    .namez = "usage",
    .summaryz = "calls, tokens and cost, summed up",
    .options = options,
    .run = run,
    .examplez = "genq usage --by tenant,model --from 2026-11-01",
    .is_client = true,
};
