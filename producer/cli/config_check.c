/* `genq config check`: whether the settings are right, and what they come to. */
#include "base/json.h"
#include "base/yaml.h"
#include "broker-config/config.h"
#include "producer/cli/cli.h"
#include <stdio.h>

#define SETTINGS_MAX_BYTES ((size_t)4 << 20)

/* A scalar as config_print wrote it. */
static void put_scalar(struct buf *b, const struct yaml *y)
{
    struct json *j = y->is_quoted ? NULL : json_parse(y->scalar, NULL);

    if (j && json_type(j) != JSON_STRING)
        json_print(j, b);
    else
        json_put_str(b, y->scalar);
    json_free(j);
}

static void put_json(struct buf *b, const struct yaml *y)
{
    const struct yaml *child;

    if (y->type == YAML_SCALAR) {
        put_scalar(b, y);
        return;
    }
    buf_addc(b, y->type == YAML_LIST ? '[' : '{');
    for (child = y->child; child; child = child->next) {
        if (y->type == YAML_MAP) {
            json_put_str(b, child->name);
            buf_addc(b, ':');
        }
        put_json(b, child);
        if (child->next)
            buf_addc(b, ',');
    }
    buf_addc(b, y->type == YAML_LIST ? ']' : '}');
}

static int print_json(struct str settings)
{
    struct err e;
    struct yaml *y = yaml_parse(settings, "settings", &e);
    struct buf b;

    if (!y)
        return cli_fail(EXIT_SOME_FAILED, "%s", e.msg);
    buf_init(&b, SETTINGS_MAX_BYTES);
    put_json(&b, y);
    printf("%.*s\n", STR_ARG(buf_str(&b)));
    buf_release(&b);
    yaml_tree_free(y);
    return EXIT_WELL;
}

static int run(struct cli *c)
{
    struct config *config;
    struct buf b;
    int code = EXIT_WELL;

    if (c->n_args > 0 && c->configz)
        return cli_usage(c, "give FILE or --config, not both");
    if (c->n_args > 0)
        c->configz = c->args[0];
    config = cli_config(c);
    if (!config)
        return EXIT_USAGE;
    buf_init(&b, SETTINGS_MAX_BYTES);
    config_print(config, &b);
    if (c->is_json)
        code = print_json(buf_str(&b));
    else
        printf("# OK\n%.*s", STR_ARG(buf_str(&b)));
    buf_release(&b);
    config_free(config);
    return code;
}

const struct cli_command command_config_check = {
    .namez = "config check",
    .argumentsz = "[FILE]",
    .summaryz = "check the settings, print what holds",
    .detailsz = "Without FILE: the file that other commands would read, or the defaults where\n"
                "there is none. Prints all settings as YAML, secrets left out. What is wrong is\n"
                "told with file, line and column: exit code 2.",
    .run = run,
    .examplez = "genq config check genq.yaml",
};
