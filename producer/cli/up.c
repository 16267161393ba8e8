#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "producer/cli/cli.h"
#include "producer/http/server.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { N_SIGNALS = 3, LISTEN_PATH_BYTES = 4200, ADDRESS_BYTES = 300, LOOK_MS = 500 };

struct up {
    struct embedded embedded;
    uv_loop_t loop;
    uv_signal_t signals[N_SIGNALS];
    uv_timer_t look;
    struct server *server;
    bool is_stopping;
    struct err failure; /* why it could not go on */
};

/* The file that tells other programs the address, which `listen: …:0` leaves to the kernel. It is
 * there while we serve; one that a killed genq left behind goes at the next start. */
static void listen_path(const struct config *c, char *dst, size_t room)
{
    snprintf(dst, room, "%s/listen", c->data);
}

static void remove_listen(const struct config *c)
{
    char path[LISTEN_PATH_BYTES];

    listen_path(c, path, sizeof path);
    unlink(path);
}

static int write_listen(const struct config *c, const char *addressz, struct err *e)
{
    char path[LISTEN_PATH_BYTES], text[ADDRESS_BYTES + 1];
    int fd, rc;

    listen_path(c, path, sizeof path);
    snprintf(text, sizeof text, "%s\n", addressz);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    rc = fd < 0 ? -1 : file_write_all(fd, text, strlen(text));
    if (fd >= 0)
        close(fd);
    return rc == 0 ? 0 : err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
}

static void on_stopped(void *data)
{
    struct up *up = data;

    for (int i = 0; i < N_SIGNALS; i++)
        uv_close((uv_handle_t *)&up->signals[i], NULL);
    uv_close((uv_handle_t *)&up->look, NULL);
    uv_stop(&up->loop);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct up *up = handle->data;
    int64_t drain_ms = up->embedded.gateway.config->worker_drain_ms;

    if (number == SIGHUP) { /* asks to reload, and must not end a server */
        log_warn("reload_not_built", LZ("hint", "restart genq to read its config again"));
        return;
    }
    log_info("stopping", LI("signal", number), LI("drain_ms", up->is_stopping ? 0 : drain_ms));
    embedded_stop(&up->embedded, up->is_stopping ? 0 : drain_ms, on_stopped, up);
    up->is_stopping = true;
}

static void on_look(uv_timer_t *timer)
{
    struct up *up = timer->data;

    if (up->is_stopping || embedded_failure(&up->embedded, &up->failure) == 0)
        return;
    log_error("stopping", LZ("error", up->failure.msg));
    embedded_stop(&up->embedded, 0, on_stopped, up);
    up->is_stopping = true;
}

static void watch_failure(struct up *up)
{
    uv_timer_init(&up->loop, &up->look);
    up->look.data = up;
    uv_timer_start(&up->look, on_look, LOOK_MS, LOOK_MS);
}

static void watch_signals(struct up *up)
{
    static const int numbers[N_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

    for (int i = 0; i < N_SIGNALS; i++) {
        uv_signal_init(&up->loop, &up->signals[i]);
        up->signals[i].data = up;
        uv_signal_start(&up->signals[i], on_signal, numbers[i]);
    }
}

/* A sentence at a terminal, an event in a log. */
static void tell_listening(const struct config *c, int port, const char *addressz)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "genq " GENQ_VERSION " listens on http://%s, data in %s; Ctrl-C stops it\n",
                addressz, c->data);
    else
        log_info("listening", LI("port", port), LZ("address", addressz), LZ("data", c->data),
                 LI("engines", c->n_engines), LZ("first_engine", c->engines[0].url));
}

static int serve(struct up *up, const struct config *config, struct err *e)
{
    char address[ADDRESS_BYTES];
    const char *colon;

    remove_listen(config);
    up->server = server_start(&up->embedded.gateway, config->listen, e);
    if (!up->server)
        return e->code;
    colon = strrchr(config->listen, ':');
    snprintf(address, sizeof address, "%.*s:%d", (int)(colon - config->listen), config->listen,
             server_port(up->server));
    if (write_listen(config, address, e) < 0)
        return e->code;
    tell_listening(config, server_port(up->server), address);
    uv_run(&up->loop, UV_RUN_DEFAULT);
    remove_listen(config);
    return 0;
}

static int run_in(struct up *up, const struct config *config, const struct cli *c, struct err *e)
{
    int rc = embedded_open(&up->embedded, config, &up->loop, c->side, e);

    if (rc < 0)
        return rc;
    if (embedded_start(&up->embedded, e) < 0) {
        embedded_close(&up->embedded);
        return e->code;
    }
    watch_signals(up);
    watch_failure(up);
    rc = serve(up, config, e);
    if (up->server)
        server_stop(up->server);
    if (rc < 0) {
        embedded_stop(&up->embedded, 0, on_stopped, up);
        uv_run(&up->loop, UV_RUN_DEFAULT);
    }
    embedded_close(&up->embedded);
    if (rc == 0 && up->failure.code)
        *e = up->failure;
    return rc < 0 ? rc : up->failure.code;
}

static int run(struct cli *c)
{
    struct config *config = cli_config(c);
    struct up up = {.is_stopping = false};
    struct err e;
    int rc;

    if (!config)
        return EXIT_USAGE;
    uv_loop_init(&up.loop);
    rc = run_in(&up, config, c, &e);
    embedded_close_loop(&up.loop);
    config_free(config);
    if (rc == 0)
        return EXIT_WELL;
    return cli_fail(e.code == ERR_INVALID   ? EXIT_USAGE
                    : e.code == ERR_CORRUPT ? EXIT_NO_SERVER
                                            : EXIT_SOME_FAILED,
                    "%s", e.msg);
}

static const struct cli_option options[] = {
    {"--data", 0, "DIR", "data directory (default ./genq-data)", false},
    {"--listen", 0, "ADDR", "address to serve, host:port (default 127.0.0.1:7070)", false},
    {"--engine", 0, "URL", "an engine's base URL (default http://127.0.0.1:11434); may be repeated",
     true},
    {0},
};

const struct cli_command command_up = {
    .namez = "up",
    .argumentsz = "[--data DIR] [--listen ADDR] [--engine URL]…",
    .summaryz = "run everything in one process: queue, worker, results, HTTP",
    .detailsz = "Jobs posted to http://ADDR/api/v1/jobs are kept in DIR and run on the engines.\n"
                "Ctrl-C lets running calls end (worker.drain_ms); a second one stops at once.\n"
                "No job is lost either way.\n"
                "\n"
                "Example:\n"
                "  genq up --engine http://127.0.0.1:11434 &\n"
                "  genq submit -m llama3.2 --wait \"Why is the sky blue?\"\n",
    .options = options,
    .run = run,
};
