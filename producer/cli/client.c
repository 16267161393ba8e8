#include "producer/cli/client.h"
#include "base/fetch.h"
#include "base/file.h"
#include "base/json.h"
#include "broker-config/config.h"
#include <assert.h>
#include <stdio.h>

enum { URL_MAX_BYTES = 64 * 1024, IDLE_MS = 60000 }; /* SSE has a heartbeat every 15 s */
#define ANSWER_MAX_BYTES ((size_t)1 << 40) /* the buffers have ceilings of their own */

/* ---- one call ---- */

struct transfer {
    struct client_call *call;
    int status;
    struct fetch_result result;
};

static void on_head(void *data, int status, struct str content_type)
{
    struct transfer *t = data;

    (void)content_type;
    t->status = status;
}

static int on_data(void *data, struct str bytes)
{
    struct transfer *t = data;
    struct client_call *call = t->call;
    bool is_good = t->status >= 200 && t->status < 300;
    int rc;

    if (call->on_data && is_good)
        rc = call->on_data(call->data, bytes);
    else
        rc = buf_adds(call->out, bytes);
    call->was_stopped = call->was_stopped || rc != 0;
    return rc;
}

static void on_done(void *data, const struct fetch_result *r)
{
    struct transfer *t = data;

    t->result = *r;
}

static int err_of(const struct transfer *t, struct err *e)
{
    static const int codes[] = {
        [FETCH_NO_CONNECT] = ERR_UNREACHABLE,    [FETCH_CUT] = ERR_CLOSED,
        [FETCH_TIMEOUT_CONNECT] = ERR_UNREACHABLE, [FETCH_TIMEOUT_TOTAL] = ERR_TIMEOUT,
        [FETCH_TIMEOUT_FIRST] = ERR_TIMEOUT,     [FETCH_TIMEOUT_IDLE] = ERR_CLOSED,
        [FETCH_TOO_LARGE] = ERR_TOO_LARGE,       [FETCH_BAD] = ERR_INVALID,
    };

    return err_set(e, codes[t->result.fault], "%s", t->result.message);
}

static int finish(struct transfer *t, struct err *e)
{
    struct client_call *call = t->call;

    if (call->was_stopped && !(call->on_data && t->status >= 200 && t->status < 300))
        return err_set(e, ERR_TOO_LARGE, "the answer is too large");
    if (call->was_stopped || t->result.fault == FETCH_OK)
        return t->status;
    return err_of(t, e);
}

/* Runs the loop until the call has ended and the pool is gone. */
static int run(const struct fetch_request *r, struct transfer *t, struct err *e)
{
    const struct fetch_handler handler = {on_head, on_data, on_done, t};
    struct fetch_pool *pool;
    uv_loop_t loop;
    int rc = 0;

    if (uv_loop_init(&loop) != 0)
        return err_set(e, ERR_INTERNAL, "no event loop");
    pool = fetch_pool_new(&loop, 1);
    if (!fetch_start(pool, r, &handler, e))
        rc = e->code;
    else
        uv_run(&loop, UV_RUN_DEFAULT);
    fetch_pool_free(pool);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return rc;
}

static void make_headers(const struct cli *c, const struct client_call *call, struct buf *mem,
                         const char *headers[4])
{
    size_t n = 0, key_at, type_at;

    key_at = mem->n;
    if (c->api_keyz)
        buf_addf(mem, "Authorization: Bearer %s", c->api_keyz);
    buf_addc(mem, '\0');
    type_at = mem->n;
    if (call->content_typez)
        buf_addf(mem, "Content-Type: %s", call->content_typez);
    if (c->api_keyz)
        headers[n++] = mem->p + key_at;
    if (call->content_typez)
        headers[n++] = mem->p + type_at;
    if (call->headerz)
        headers[n++] = call->headerz;
    headers[n] = NULL;
}

int client_send(const struct cli *c, struct client_call *call, struct err *e)
{
    struct transfer t = {.call = call};
    struct fetch_request r = {.methodz = call->methodz,
                              .body = call->body,
                              .total_ms = call->total_ms,
                              .idle_ms = call->idle_ms,
                              .max_body_bytes = ANSWER_MAX_BYTES};
    const char *headers[4];
    struct buf url, mem;
    struct err unused;
    int rc;

    assert(c->serverz);
    e = e ? e : &unused;
    call->was_stopped = false;
    buf_init(&url, URL_MAX_BYTES);
    buf_init(&mem, URL_MAX_BYTES);
    make_headers(c, call, &mem, headers);
    buf_addf(&url, "%s%s", c->serverz, call->pathz);
    r.urlz = url.p;
    r.headers = headers;
    if (url.is_over || mem.is_over)
        rc = err_set(e, ERR_TOO_LARGE, "the request is too large");
    else
        rc = run(&r, &t, e);
    if (rc == 0)
        rc = finish(&t, e);
    buf_release(&url);
    buf_release(&mem);
    return rc;
}

void client_explain(const struct cli *c, const struct err *e)
{
    if (e->code == ERR_UNREACHABLE)
        cli_fail(0, "cannot reach %s: %s; is `genq up` running?", c->serverz, e->msg);
    else if (e->code == ERR_CLOSED)
        cli_fail(0, "the connection to %s broke: %s", c->serverz, e->msg);
    else
        cli_fail(0, "%s: %s", c->serverz, e->msg);
}

/* ---- what most commands use ---- */

int cli_call(const struct cli *c, const char *methodz, const char *pathz, struct str body,
             const char *content_typez, int64_t timeout_ms, struct buf *out)
{
    struct client_call call = {.methodz = methodz,
                               .pathz = pathz,
                               .body = body,
                               .content_typez = content_typez,
                               .total_ms = timeout_ms,
                               .out = out};
    struct err e = {0};
    int status = client_send(c, &call, &e);

    if (status > 0)
        return status;
    client_explain(c, &e);
    return 0;
}

int cli_call_stream(const struct cli *c, const char *methodz, const char *pathz, struct str body,
                    int (*on_bytes)(void *data, struct str bytes), void *data)
{
    struct buf error;
    struct client_call call = {.methodz = methodz,
                               .pathz = pathz,
                               .body = body,
                               .idle_ms = IDLE_MS,
                               .on_data = on_bytes,
                               .data = data,
                               .out = &error};
    struct err e = {0};
    int status;

    buf_init(&error, (size_t)1 << 20);
    status = client_send(c, &call, &e);
    if (status <= 0)
        client_explain(c, &e);
    else if (status < 200 || status > 299)
        cli_print_error(status, buf_str(&error));
    buf_release(&error);
    return status > 0 ? status : 0;
}

int cli_exit_code(int status)
{
    switch (status) {
    case 400:
    case 401:
    case 403:
    case 405:
    case 411:
    case 413:
    case 415:
    case 422:
        return EXIT_USAGE;
    case 429:
    case 502:
    case 503:
        return EXIT_NO_SERVER;
    case 408:
    case 504:
        return EXIT_TIMED_OUT;
    default:
        return status >= 200 && status <= 299 ? EXIT_WELL : EXIT_SOME_FAILED;
    }
}

int cli_print_error(int status, struct str body)
{
    struct json *j = json_parse(body, NULL);
    struct str message = json_str(json_get(json_get(j, "error"), "message"));

    if (message.n > 0)
        cli_fail(0, "%.*s", STR_ARG(message));
    else
        cli_fail(0, "the server answered with status %d, and not as genq does", status);
    json_free(j);
    return cli_exit_code(status);
}

void cli_escape(struct buf *b, struct str s)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-._~";
    size_t i;

    for (i = 0; i < s.n; i++) {
        if (memchr(plain, s.p[i], sizeof plain - 1))
            buf_addc(b, s.p[i]);
        else
            buf_addf(b, "%%%02X", (unsigned char)s.p[i]);
    }
}

/* ---- where the server is ---- */

void client_make_url(struct buf *b, struct str given)
{
    bool has_scheme = str_starts(given, STR("http://")) || str_starts(given, STR("https://"));

    while (given.n > 0 && given.p[given.n - 1] == '/')
        given.n--;
    if (!has_scheme)
        buf_addz(b, "http://");
    buf_adds(b, given);
}

/* With port 0 the server chose one, and wrote down which. */
static void add_chosen_address(const struct config *config, struct buf *url)
{
    struct buf path, text;
    struct str line;

    buf_init(&path, 8192);
    buf_init(&text, 1024);
    buf_addf(&path, "%s/listen", config->data);
    if (file_read(path.p, &text, NULL) == 0 && text.n > 0) {
        line = str_of(text.p, strcspn(text.p, "\r\n"));
        client_make_url(url, line);
    }
    buf_release(&path);
    buf_release(&text);
}

/* Fit for a header or a URL. */
static bool is_printable(const char *z)
{
    for (; *z; z++)
        if ((unsigned char)*z <= ' ' || *z == 0x7F)
            return false;
    return true;
}

int client_find_server(const struct cli *c, struct buf *url)
{
    struct config *config;
    const char *portz;

    if (c->api_keyz && !is_printable(c->api_keyz))
        return cli_usage(c, "the API key has blanks or control characters");
    if (c->serverz) {
        if (!*c->serverz || !is_printable(c->serverz))
            return cli_usage(c, "--server: '%s' is no URL", c->serverz);
        client_make_url(url, str_z(c->serverz));
        return EXIT_WELL;
    }
    if (!c->command->is_client)
        return EXIT_WELL;
    config = cli_config(c);
    if (!config)
        return EXIT_USAGE;
    portz = strrchr(config->listen, ':');
    if (portz && strcmp(portz, ":0") == 0)
        add_chosen_address(config, url);
    if (url->n == 0)
        client_make_url(url, str_z(config->listen));
    config_free(config);
    return EXIT_WELL;
}
