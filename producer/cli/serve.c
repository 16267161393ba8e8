#include "producer/cli/serve.h"
#include "base/file.h"
#include "base/log.h"
#include "broker-config/kafka_topics.h"
#include "producer/http/server.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { N_SIGNALS = 3, LISTEN_PATH_BYTES = 4200, ADDRESS_BYTES = 300, LOOK_MS = 500 };

struct service {
    struct embedded embedded;
    const struct config *config;
    const char *rolez;
    uv_loop_t loop;
    uv_signal_t signals[N_SIGNALS];
    uv_timer_t look;
    struct server *server;
    bool is_stopping;
    struct err failure; /* why it could not go on */
};

static const char *const role_names[] = {
    [ROLE_GATEWAY] = "gateway",
    [ROLE_WORKER] = "worker",
    [ROLE_BOTH] = "up",
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
    struct service *v = data;

    for (int i = 0; i < N_SIGNALS; i++)
        uv_close((uv_handle_t *)&v->signals[i], NULL);
    uv_close((uv_handle_t *)&v->look, NULL);
    uv_stop(&v->loop);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct service *v = handle->data;
    bool is_second = v->is_stopping;
    int64_t drain_ms = is_second ? 0 : v->config->worker_drain_ms;

    if (number == SIGHUP) { /* asks to reload, and must not end a server */
        log_warn("reload_not_built", LZ("hint", "restart genq to read its config again"));
        return;
    }
    log_info("stopping", LI("signal", number), LI("drain_ms", drain_ms));
    v->is_stopping = true;
    embedded_stop(&v->embedded, drain_ms, on_stopped, v);
}

static void on_look(uv_timer_t *timer)
{
    struct service *v = timer->data;

    if (v->is_stopping || embedded_failure(&v->embedded, &v->failure) == 0)
        return;
    log_error("stopping", LZ("error", v->failure.msg));
    v->is_stopping = true;
    embedded_stop(&v->embedded, 0, on_stopped, v);
}

static void watch_failure(struct service *v)
{
    uv_timer_init(&v->loop, &v->look);
    v->look.data = v;
    uv_timer_start(&v->look, on_look, LOOK_MS, LOOK_MS);
}

static void on_early_signal(int number)
{
    (void)number;
    _exit(EXIT_WELL);
}

/* Until the loop watches them: opening the log waits for a Kafka that is away. Nothing was taken by
 * then that a kill could lose; but a container's first process has no default that ends it. */
static void end_at_signals(void)
{
    struct sigaction action = {.sa_handler = on_early_signal};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGHUP, SIG_IGN);
}

static void watch_signals(struct service *v)
{
    static const int numbers[N_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

    for (int i = 0; i < N_SIGNALS; i++) {
        uv_signal_init(&v->loop, &v->signals[i]);
        v->signals[i].data = v;
        uv_signal_start(&v->signals[i], on_signal, numbers[i]);
    }
}

/* A sentence at a terminal, an event in a log. */
static void tell_listening(const struct service *v, const char *addressz)
{
    const struct config *c = v->config;

    if (isatty(STDERR_FILENO))
        fprintf(stderr,
                "genq " GENQ_VERSION " (%s) listens on http://%s, data in %s; Ctrl-C stops it\n",
                v->rolez, addressz, c->data);
    else if (v->embedded.worker)
        log_info("listening", LI("port", server_port(v->server)), LZ("address", addressz),
                 LZ("data", c->data), LZ("role", v->rolez), LI("engines", c->n_engines),
                 LZ("first_engine", c->engines[0].url));
    else
        log_info("listening", LI("port", server_port(v->server)), LZ("address", addressz),
                 LZ("data", c->data), LZ("role", v->rolez));
}

static int listen_and_run(struct service *v, struct err *e)
{
    const struct config *c = v->config;
    const struct gateway *g = &v->embedded.gateway;
    const char *colon = strrchr(c->listen, ':');
    char address[ADDRESS_BYTES];

    remove_listen(c);
    v->server = server_start(g, g->store ? routes : health_routes, c->listen, e);
    if (!v->server)
        return e->code;
    snprintf(address, sizeof address, "%.*s:%d", (int)(colon - c->listen), c->listen,
             server_port(v->server));
    if (write_listen(c, address, e) < 0)
        return e->code;
    tell_listening(v, address);
    uv_run(&v->loop, UV_RUN_DEFAULT);
    remove_listen(c);
    return 0;
}

static int run_roles(struct service *v, const struct worker_side *side, unsigned roles,
                     struct err *e)
{
    int rc = embedded_open(&v->embedded, v->config, &v->loop, side, roles, e);

    if (rc < 0)
        return rc;
    if (embedded_start(&v->embedded, e) < 0) {
        embedded_close(&v->embedded);
        return e->code;
    }
    watch_signals(v);
    watch_failure(v);
    rc = listen_and_run(v, e);
    if (v->server)
        server_stop(v->server);
    if (rc < 0) {
        embedded_stop(&v->embedded, 0, on_stopped, v);
        uv_run(&v->loop, UV_RUN_DEFAULT);
    }
    embedded_close(&v->embedded);
    if (rc == 0 && v->failure.code)
        *e = v->failure;
    return rc < 0 ? rc : v->failure.code;
}

/* Without topics each publish would wait for them and fail. Kafka that is away is waited for. */
static int check_topics(const struct config *c, struct err *e)
{
    struct topics *t;
    int rc;

    if (c->broker_kind != BROKER_KIND_KAFKA)
        return 0;
    t = topics_new(c);
    rc = kafka_topics_check(c, t, e);
    topics_free(t);
    if (rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_INVALID)
        return rc;
    log_warn("topics_unknown", LZ("error", e->msg));
    return 0;
}

/* A worker's own address is another setting than the server's; --listen means either. */
static int set_listen(const struct cli *c, struct config *config, unsigned roles, struct err *e)
{
    if (roles & ROLE_GATEWAY || cli_has(c, "--listen"))
        return 0;
    if (config_set_text(&config->listen, config->worker_listen) == 0)
        return 0;
    return err_set(e, ERR_INVALID, "worker.listen: '%s' is no address", config->worker_listen);
}

int serve(struct cli *c, unsigned roles)
{
    struct config *config = cli_config(c);
    struct service v = {.config = config, .rolez = role_names[roles]};
    struct err e;
    int rc;

    if (!config)
        return EXIT_USAGE;
    if (roles != ROLE_BOTH && config->broker_kind != BROKER_KIND_KAFKA) {
        config_free(config);
        return cli_fail(EXIT_USAGE,
                        "'genq %s' meets other processes in Kafka, and the config has broker: "
                        "{kind: sqlite}; with that 'genq up' runs everything in one process",
                        v.rolez);
    }
    end_at_signals();
    uv_loop_init(&v.loop);
    rc = set_listen(c, config, roles, &e);
    if (rc == 0)
        rc = check_topics(config, &e);
    if (rc == 0)
        rc = run_roles(&v, c->side, roles, &e);
    embedded_close_loop(&v.loop);
    config_free(config);
    return rc < 0 ? cli_fail(cli_exit_err(&e), "%s", e.msg) : EXIT_WELL;
}
