/* `genq batch list`: the newest batches. */
#include "base/clock.h"
#include "producer/cli/batch_text.h"
#include "producer/cli/table.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 20)
enum { GET_MS = 60000, PATH_MAX_BYTES = 16384, LIMIT_MAX = 1000 };

static void add_row(struct table *t, const struct json *batch)
{
    struct batch_counts n;
    char created[32] = "";
    int64_t ms;

    batch_text_counts(batch, &n);
    if (json_int(json_get(batch, "created_at"), &ms)) {
        clock_format_rfc3339(ms, created);
        str_copyz(created + 19, sizeof created - 19, STR("Z")); /* whole seconds */
    }
    table_add(t, json_str(json_get(batch, "id")));
    table_add(t, json_str(json_get(batch, "status")));
    table_add_int(t, n.total);
    table_add_int(t, n.total - n.queued);
    table_add_int(t, batch_text_n_bad(&n));
    table_add_count(t, n.tokens);
    table_addz(t, created);
}

static void print_list(const struct json *list)
{
    static const char *const heads[] = {"ID",  "STATUS", "JOBS",   "ENDED",
                                        "BAD", "TOKENS", "CREATED"};
    const struct json *batch = json_child(json_get(list, "data"));
    struct table t;
    struct buf b;
    size_t i;

    if (!batch) {
        cli_fail(0, "there are no batches");
        return;
    }
    table_init(&t, "llrrrrl");
    for (i = 0; i < sizeof heads / sizeof heads[0]; i++)
        table_addz(&t, heads[i]);
    for (; batch; batch = json_next(batch))
        add_row(&t, batch);
    buf_init(&b, ANSWER_MAX_BYTES);
    table_print(&t, &b);
    fwrite(b.p, 1, b.n, stdout);
    if (json_is_true(json_get(list, "has_more")))
        cli_fail(0, "there are more; --limit shows up to %d", LIMIT_MAX);
    buf_release(&b);
    table_release(&t);
}

static int run(struct cli *c)
{
    const char *limitz = cli_get(c, "--limit");
    struct buf path, answer;
    struct json *list;
    int64_t limit = 50;
    int status, code = EXIT_NO_SERVER;

    if (limitz && (!str_int(str_z(limitz), &limit) || limit < 1 || limit > LIMIT_MAX))
        return cli_usage(c, "--limit: '%s' is not a number from 1 to %d", limitz, LIMIT_MAX);
    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    buf_addf(&path, "/api/v1/batches?limit=%lld", (long long)limit);
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = cli_call(c, "GET", path.p, STR_NONE, NULL, GET_MS, &answer);
    if (status >= 200 && status <= 299) {
        list = json_parse(buf_str(&answer), NULL);
        if (c->is_json)
            printf("%.*s\n", STR_ARG(buf_str(&answer)));
        else
            print_list(list);
        json_free(list);
        code = EXIT_WELL;
    } else if (status > 0) {
        code = cli_print_error(status, buf_str(&answer));
    }
    buf_release(&path);
    buf_release(&answer);
    return code;
}

static const struct cli_option options[] = {
    {"--limit", 'n', "N", "at most this many, 1 to 1000 (default 50)", false},
    {"--tenant", 0, "NAME", "only batches of this tenant", false},
    {0},
};

const struct cli_command command_batch_list = {
    .namez = "batch list",
    .summaryz = "list the newest batches",
    .detailsz = "BAD counts failed, cancelled and expired jobs.",
    .options = options,
    .run = run,
    .examplez = "genq batch list -n 5",
    .is_client = true,
};
