#include "producer/cli/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker-config/config.h"
#include "producer/cli/client.h"
#include "producer/cli/help.h"
#include "producer/cli/parse.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HELP_MAX_BYTES = 1 << 20 };

/* ---- for commands ---- */

const char *cli_get(const struct cli *c, const char *namez)
{
    size_t i;

    for (i = c->n_given; i > 0; i--)
        if (strcmp(c->given[i - 1].option->namez, namez) == 0)
            return c->given[i - 1].valuez;
    return NULL;
}

bool cli_has(const struct cli *c, const char *namez)
{
    return cli_get(c, namez) != NULL;
}

const char *cli_get_nth(const struct cli *c, const char *namez, size_t i)
{
    size_t at;

    for (at = 0; at < c->n_given; at++)
        if (strcmp(c->given[at].option->namez, namez) == 0 && i-- == 0)
            return c->given[at].valuez;
    return NULL;
}

bool cli_duration(const struct cli *c, const char *namez, int64_t default_ms, int64_t *ms)
{
    const char *valuez = cli_get(c, namez);

    *ms = default_ms;
    if (!valuez || clock_parse_duration(str_z(valuez), ms))
        return true;
    cli_usage(c, "%s: '%s' is no duration; write 500ms, 30s, 5m or 1h", namez, valuez);
    return false;
}

__attribute__((format(printf, 1, 0))) static void print_message(const char *fmtz, va_list args)
{
    fflush(stdout); /* in the order it happened, when both go to one place */
    fputs("genq: ", stderr);
    vfprintf(stderr, fmtz, args);
    fputc('\n', stderr);
}

int cli_fail(int code, const char *fmtz, ...)
{
    va_list args;

    va_start(args, fmtz);
    print_message(fmtz, args);
    va_end(args);
    return code;
}

int cli_exit_err(const struct err *e)
{
    if (e->code == ERR_INVALID || e->code == ERR_NOT_FOUND)
        return EXIT_USAGE;
    return e->code == ERR_UNREACHABLE || e->code == ERR_TIMEOUT || e->code == ERR_CORRUPT
               ? EXIT_NO_SERVER
               : EXIT_SOME_FAILED;
}

static int print_try(const struct cli_command *command, const char *groupz)
{
    struct buf b;

    buf_init(&b, HELP_MAX_BYTES);
    help_print_try(&b, command, groupz);
    fputs(b.p, stderr);
    buf_release(&b);
    return EXIT_USAGE;
}

int cli_usage(const struct cli *c, const char *fmtz, ...)
{
    va_list args;

    va_start(args, fmtz);
    print_message(fmtz, args);
    va_end(args);
    return print_try(c->command, NULL);
}

/* --data, --listen and --engine over what the file says. */
static int override_config(const struct cli *c, struct config *config, struct err *e)
{
    const char *dataz = cli_get(c, "--data"), *listenz = cli_get(c, "--listen");
    const char *urls[sizeof c->given / sizeof c->given[0]];
    size_t n = 0;

    if (dataz && config_set_text(&config->data, dataz) != 0)
        return err_set(e, ERR_INVALID, "--data: '%s' is no directory name", dataz);
    if (listenz && config_set_text(&config->listen, listenz) != 0)
        return err_set(e, ERR_INVALID, "--listen: '%s' is no address", listenz);
    for (; n < sizeof urls / sizeof urls[0] && (urls[n] = cli_get_nth(c, "--engine", n)); n++)
        continue;
    return n > 0 ? config_set_engines(config, urls, n, e) : 0;
}

static void set_up_log(const struct config *config)
{
    bool is_json = config->log_format == LOG_FORMAT_JSON ||
                   (config->log_format == LOG_FORMAT_AUTO && !isatty(STDERR_FILENO));

    log_setup((enum log_level)config->log_level, is_json ? LOG_JSON : LOG_TEXT);
}

struct config *cli_config(const struct cli *c)
{
    struct err e = {0};
    struct config *config = config_load(c->configz, &e);

    if (config && override_config(c, config, &e) == 0) {
        set_up_log(config);
        return config;
    }
    cli_fail(EXIT_USAGE, "%s", e.msg);
    if (config)
        config_free(config);
    return NULL;
}

/* ---- dispatch ---- */

/* A pipe whose reader has left. */
static bool is_reader_gone(void)
{
    struct pollfd p = {STDOUT_FILENO, POLLOUT, 0};

    return poll(&p, 1, 0) > 0 && (p.revents & POLLERR) != 0;
}

/* What stdout did not take is a failure, but not where the reader had enough. */
static int end_output(int code)
{
    int rc = fflush(stdout), error = errno;

    if ((rc == 0 && !ferror(stdout)) || is_reader_gone())
        return code;
    return cli_fail(code ? code : EXIT_SOME_FAILED, "cannot write the output%s%s",
                    rc ? ": " : "", rc ? strerror(error) : "");
}

static int print_help(const struct cli_command *command, const char *groupz, FILE *to)
{
    struct buf b;

    buf_init(&b, HELP_MAX_BYTES);
    if (command)
        help_print_command(&b, command);
    else if (groupz)
        help_print_group(&b, groupz);
    else
        help_print_all(&b);
    fwrite(b.p, 1, b.n, to);
    buf_release(&b);
    return EXIT_WELL;
}

static const char *get_env(const char *namez)
{
    const char *z = getenv(namez);

    return z && *z ? z : NULL;
}

/* Runs c->command with the environment's and the config's values where no option was given. */
static int run_command(struct cli *c)
{
    struct buf server;
    struct err e = {0};
    int code;

    if (cli_check_args(c, &e) != 0)
        return cli_usage(c, "%s", e.msg);
    if (!c->serverz)
        c->serverz = get_env("GENQ_SERVER");
    if (!c->api_keyz)
        c->api_keyz = get_env("GENQ_API_KEY");
    buf_init(&server, 4096);
    code = client_find_server(c, &server);
    if (code == EXIT_WELL) {
        c->serverz = server.n > 0 ? server.p : NULL;
        code = end_output(c->command->run(c));
    }
    buf_release(&server);
    return code;
}

int cli_main(int argc, char **argv, const struct worker_side *side)
{
    struct cli c;
    struct cli_wish w;
    struct err e = {0};
    int code = EXIT_USAGE;

    if (cli_parse(&c, &w, argc, argv, &e) != 0) {
        cli_fail(EXIT_USAGE, "%s", e.msg);
        print_try(c.command, w.groupz);
    } else if (w.is_version) {
        printf("genq %s\n", GENQ_VERSION);
        code = end_output(EXIT_WELL);
    } else if (w.is_help) {
        code = end_output(print_help(c.command, w.groupz, stdout));
    } else if (!c.command) {
        print_help(NULL, w.groupz, stderr);
    } else {
        c.side = side;
        code = run_command(&c);
    }
    cli_release(&c);
    return code;
}
