/* `genq nodes`: the engine nodes and what they do. */
#include "base/json.h"
#include "producer/cli/follow.h"
#include "producer/cli/job_text.h"
#include "producer/cli/table.h"
#include <stdio.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 20)
enum { GET_MS = 60000, MODELS_MAX_BYTES = 60 };

static void add_int(struct table *t, const struct json *node, const char *namez)
{
    int64_t v = 0;

    json_int(json_get(node, namez), &v);
    table_add_int(t, v);
}

static void add_latency(struct table *t, const struct json *node, const char *namez)
{
    struct buf b;
    int64_t ms;

    buf_init(&b, 64);
    if (json_int(json_get(json_get(node, "latency_ms"), namez), &ms))
        job_text_duration(&b, ms);
    else
        buf_addc(&b, '-');
    table_add(t, buf_str(&b));
    buf_release(&b);
}

static void add_busy(struct table *t, const struct json *node)
{
    struct buf b;
    int64_t busy = 0, slots = 0;

    json_int(json_get(node, "busy"), &busy);
    json_int(json_get(node, "slots"), &slots);
    buf_init(&b, 64);
    buf_addf(&b, "%lld/%lld", (long long)busy, (long long)slots);
    table_add(t, buf_str(&b));
    buf_release(&b);
}

/* The first models, as many as fit, and how many there are beside them; or why the node is down. */
static void add_models(struct table *t, const struct json *node)
{
    const struct json *model = json_child(json_get(node, "models"));
    struct str error = json_str(json_get(node, "error")), name;
    size_t n_left = json_count(json_get(node, "models"));
    struct buf b;

    buf_init(&b, 1 << 20);
    if (error.n > 0) {
        buf_addz(&b, "error: ");
        buf_adds(&b, error);
        n_left = 0;
    }
    for (; n_left > 0; model = json_next(model), n_left--) {
        name = json_str(model);
        if (b.n > 0 && b.n + name.n + 2 > MODELS_MAX_BYTES)
            break;
        buf_addz(&b, b.n > 0 ? ", " : "");
        buf_adds(&b, name);
    }
    if (n_left > 0)
        buf_addf(&b, " and %zu more", n_left);
    table_add(t, b.n > 0 ? buf_str(&b) : STR("-"));
    buf_release(&b);
}

/* Nodes of other machines are known where there is a Redis. */
static bool has_hosts(const struct json *list)
{
    const struct json *node = json_child(json_get(list, "data"));

    return json_str(json_get(node, "host")).p != NULL;
}

static void print_nodes(const struct json *list)
{
    static const char *const heads[] = {"HOST",   "NODE", "STATE", "API", "BUSY",  "CALLS",
                                        "FAILED", "P50",  "P95",   "URL", "MODELS"};
    bool shows_hosts = has_hosts(list);
    const struct json *node;
    struct table t;
    struct buf b;
    size_t i;

    table_init(&t, shows_hosts ? "llllrrrrrll" : "lllrrrrrll");
    for (i = !shows_hosts; i < sizeof heads / sizeof heads[0]; i++)
        table_addz(&t, heads[i]);
    for (node = json_child(json_get(list, "data")); node; node = json_next(node)) {
        if (shows_hosts)
            table_add(&t, json_str(json_get(node, "host")));
        table_add(&t, json_str(json_get(node, "name")));
        table_add(&t, json_str(json_get(node, "state")));
        table_add(&t, json_str(json_get(node, "api")));
        add_busy(&t, node);
        add_int(&t, node, "calls");
        add_int(&t, node, "failed");
        add_latency(&t, node, "p50");
        add_latency(&t, node, "p95");
        table_add(&t, json_str(json_get(node, "url")));
        add_models(&t, node);
    }
    buf_init(&b, ANSWER_MAX_BYTES);
    table_print(&t, &b);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
    table_release(&t);
}

static int run(struct cli *c)
{
    struct buf answer;
    struct json *list;
    int status, code = EXIT_NO_SERVER;

    buf_init(&answer, ANSWER_MAX_BYTES);
    status = cli_call(c, "GET", "/api/v1/nodes", STR_NONE, NULL, GET_MS, &answer);
    if (status >= 200 && status <= 299) {
        list = json_parse(buf_str(&answer), NULL);
        if (c->is_json)
            printf("%.*s\n", STR_ARG(buf_str(&answer)));
        else
            print_nodes(list);
        json_free(list);
        code = EXIT_WELL;
    } else if (status > 0) {
        code = cli_print_error(status, buf_str(&answer));
    }
    buf_release(&answer);
    return code;
}

const struct cli_command command_nodes = {
    .namez = "nodes",
    .summaryz = "show the engine nodes: health, load, models, latencies",
    .detailsz = "BUSY is calls now and at most; P50 and P95 are of the newest calls' times. With\n"
                "a Redis, nodes of all machines that write into it are shown, with their HOST.",
    .run = run,
    .examplez = "genq nodes --json | jq -r '.data[] | select(.state == \"up\") | .name'",
    .is_client = true,
};
