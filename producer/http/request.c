/* What handlers do with a request: wait and be woken, reply, stream, ask for its parts. */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metric.h"
#include "producer/http/connection.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define STREAM_BLOCK_BYTES 4096

static struct server_connection *of(struct request *q)
{
    return q->connection;
}

/* ---- suspending and resuming ---- */

static void resume_locked(struct server_connection *c)
{
    if (!c->is_suspended)
        return;
    c->is_suspended = false;
    MHD_resume_connection(c->mhd);
}

void request_wake(struct request *q)
{
    struct server_connection *c = of(q);

    pthread_mutex_lock(&c->lock);
    c->is_woken = true;
    resume_locked(c);
    pthread_mutex_unlock(&c->lock);
}

void connection_nudge(struct server_connection *c, enum watch_event what)
{
    pthread_mutex_lock(&c->lock);
    if (what == WATCH_GONE)
        c->was_gone = true;
    else
        c->was_late = true;
    resume_locked(c);
    pthread_mutex_unlock(&c->lock);
}

static int fd_of(struct server_connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

    return info ? info->connect_fd : -1;
}

static bool is_stopping(struct server *s)
{
    bool is;

    pthread_mutex_lock(&s->lock);
    is = s->is_stopping;
    pthread_mutex_unlock(&s->lock);
    return is;
}

/* Suspends unless it was woken already; true when it now sleeps. Watching begins after the lock is
 * left (the watch takes it); the connection cannot run on meanwhile: this is its thread. */
static bool sleep_until(struct server_connection *c, int64_t deadline_ms)
{
    struct server *s = c->server;
    bool sleeps;

    if (c->is_asleep)
        return true;
    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&c->lock);
    if (s->is_stopping)
        c->was_late = true;
    sleeps = !c->is_woken && !c->was_late && !c->was_gone;
    if (sleeps) {
        c->is_suspended = true;
        list_push(&s->waiting, &c->node);
        MHD_suspend_connection(c->mhd);
    }
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_unlock(&s->lock);
    c->is_asleep = sleeps;
    if (sleeps) {
        metric_add(METRIC_HTTP_WAITING, 1);
        watch_add(s->watch, &c->watched, fd_of(c), deadline_ms);
    }
    return sleeps;
}

bool connection_wake_up(struct server_connection *c)
{
    struct server *s = c->server;
    bool is_suspended;

    pthread_mutex_lock(&c->lock);
    is_suspended = c->is_suspended;
    pthread_mutex_unlock(&c->lock);
    if (is_suspended)
        return false;
    if (c->is_asleep) {
        c->is_asleep = false;
        watch_remove(s->watch, &c->watched);
        pthread_mutex_lock(&s->lock);
        list_remove(&c->node);
        pthread_mutex_unlock(&s->lock);
        metric_add(METRIC_HTTP_WAITING, -1);
    }
    pthread_mutex_lock(&c->lock);
    c->request.is_late = c->was_late;
    c->request.is_gone = c->request.is_gone || c->was_gone;
    c->is_woken = c->was_late = false;
    pthread_mutex_unlock(&c->lock);
    return true;
}

void request_wait(struct request *q, int64_t mono_deadline_ms, handler_fn then)
{
    of(q)->then = then;
    /* When it does not sleep, connection_dispatch() goes on at once. */
    sleep_until(of(q), mono_deadline_ms);
}

void connection_dispatch(struct server_connection *c)
{
    while (c->then && connection_wake_up(c)) {
        handler_fn then = c->then;

        c->then = NULL;
        then(&c->request);
    }
}

/* ---- replies ---- */

void request_add_header(struct request *q, const char *namez, const char *valuez)
{
    struct server_connection *c = of(q);

    assert(c->n_headers < sizeof c->headers / sizeof c->headers[0]);
    c->headers[c->n_headers].namez = namez;
    str_copyz(c->headers[c->n_headers].valuez, sizeof c->headers[0].valuez, str_z(valuez));
    c->n_headers++;
}

static void add_headers(struct server_connection *c, const char *content_typez)
{
    if (content_typez)
        MHD_add_response_header(c->response, "Content-Type", content_typez);
    for (size_t i = 0; i < c->n_headers; i++)
        MHD_add_response_header(c->response, c->headers[i].namez, c->headers[i].valuez);
    c->n_headers = 0;
}

enum MHD_Result connection_queue(struct server_connection *c)
{
    enum MHD_Result rc = MHD_YES;

    if (c->response && !c->is_queued && (c->is_first_call || c->is_body_over)) {
        c->is_queued = true;
        rc = MHD_queue_response(c->mhd, c->status, c->response);
        MHD_destroy_response(c->response);
        c->response = NULL;
        metric_add(METRIC_HTTP_REQUESTS, 1);
    }
    return rc;
}

void request_reply(struct request *q, int status, const char *content_typez, struct buf *b)
{
    struct server_connection *c = of(q);
    size_t n;
    char *p;

    if (connection_has_reply(c)) {
        buf_release(b);
        return;
    }
    p = buf_take(b, &n);
    c->response = MHD_create_response_from_buffer(n, p, MHD_RESPMEM_MUST_FREE);
    c->status = (unsigned)status;
    add_headers(c, n || status == 200 ? content_typez : NULL);
}

void request_reply_json(struct request *q, int status, struct buf *b)
{
    request_reply(q, status, "application/json", b);
}

static void reply_error(struct request *q, int status, enum reason reason, const char *codez,
                        const char *paramz, const char *messagez)
{
    struct buf b;

    buf_init(&b, 65536);
    buf_addz(&b, "{\"error\":{");
    json_put_member_str(&b, "message", str_z(messagez));
    buf_addc(&b, ',');
    json_put_member_str(&b, "type", str_z(reason_openai_type(reason)));
    buf_addc(&b, ',');
    json_put_member_opt(&b, "param", paramz && *paramz ? str_z(paramz) : STR_NONE);
    buf_addc(&b, ',');
    json_put_member_str(&b, "code", str_z(codez ? codez : reason_code(reason)));
    buf_addz(&b, "}}\n");
    if (status == 429 || status == 503)
        request_add_header(q, "Retry-After", "1");
    request_reply_json(q, status, &b);
}

void request_reply_error(struct request *q, enum reason reason, const char *paramz,
                         const char *fmtz, ...)
{
    char message[2048];
    va_list args;

    va_start(args, fmtz);
    vsnprintf(message, sizeof message, fmtz, args);
    va_end(args);
    reply_error(q, reason_http_status(reason), reason, NULL, paramz, message);
}

void request_reply_status(struct request *q, int status, enum reason reason, const char *codez,
                          const char *paramz, const char *fmtz, ...)
{
    char message[2048];
    va_list args;

    va_start(args, fmtz);
    vsnprintf(message, sizeof message, fmtz, args);
    va_end(args);
    reply_error(q, status, reason, codez, paramz, message);
}

void request_reply_err(struct request *q, const struct err *e)
{
    switch (e->code) {
    case ERR_INVALID:
        reply_error(q, 400, REASON_INVALID_REQUEST, NULL, NULL, e->msg);
        break;
    case ERR_NOT_FOUND:
        reply_error(q, 404, REASON_INVALID_REQUEST, "not_found", NULL, e->msg);
        break;
    case ERR_EXISTS:
    case ERR_CONFLICT:
        reply_error(q, 409, REASON_INVALID_REQUEST, "conflict", NULL, e->msg);
        break;
    case ERR_TOO_LARGE:
        reply_error(q, 413, REASON_TOO_LARGE, NULL, NULL, e->msg);
        break;
    case ERR_FULL:
    case ERR_BUSY:
    case ERR_CLOSED:
        reply_error(q, 503, REASON_QUOTA_EXCEEDED, "unavailable", NULL, e->msg);
        break;
    case ERR_TIMEOUT:
        reply_error(q, 503, REASON_INTERNAL, "too_slow", NULL, e->msg);
        break;
    default:
        log_error("http_fault", LZ("path", q->pathz), LZ("error", e->msg));
        reply_error(q, 500, REASON_INTERNAL, NULL, NULL, e->msg);
    }
}

/* ---- streams ---- */

static ssize_t give_out(struct server_connection *c, char *to, size_t room)
{
    size_t n = c->out.n < room ? c->out.n : room;

    memcpy(to, c->out.p, n);
    buf_eat(&c->out, n);
    return (ssize_t)n;
}

/* libmicrohttpd wants bytes of the stream. */
static ssize_t on_stream_read(void *data, uint64_t at, char *to, size_t room)
{
    struct server_connection *c = data;

    (void)at;
    for (;;) {
        int64_t deadline_ms = INT64_MAX;

        if (c->out.n)
            return give_out(c, to, room);
        if (c->is_last)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!connection_wake_up(c))
            return 0;
        if (c->request.is_gone)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        int rc = c->pull(&c->request, &c->out, &deadline_ms);
        if (c->out.is_over)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        c->is_last = rc < 0;
        if (rc == 0 && c->out.n == 0 && sleep_until(c, deadline_ms))
            return 0;
        if (rc == 0 && c->out.n == 0 && is_stopping(c->server))
            return MHD_CONTENT_READER_END_OF_STREAM;
    }
}

void request_stream(struct request *q, int status, const char *content_typez,
                    int (*pull)(struct request *q, struct buf *b, int64_t *mono_deadline_ms))
{
    struct server_connection *c = of(q);

    if (connection_has_reply(c))
        return;
    c->pull = pull;
    c->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                                    on_stream_read, c, NULL);
    c->status = (unsigned)status;
    request_add_header(q, "Cache-Control", "no-cache");
    request_add_header(q, "X-Accel-Buffering", "no");
    add_headers(c, content_typez);
}

/* ---- reading requests ---- */

struct reader *request_reader(struct request *q)
{
    struct server *s = of(q)->server;
    struct reader *r = pthread_getspecific(s->reader);

    if (!r) {
        int i = atomic_fetch_add(&s->n_readers_taken, 1);

        assert(i < SERVER_THREADS);
        r = s->readers[i];
        pthread_setspecific(s->reader, r);
    }
    return r;
}

struct str request_query(struct request *q, const char *namez)
{
    return str_z(MHD_lookup_connection_value(of(q)->mhd, MHD_GET_ARGUMENT_KIND, namez));
}

struct str request_header(struct request *q, const char *namez)
{
    return str_z(MHD_lookup_connection_value(of(q)->mhd, MHD_HEADER_KIND, namez));
}

struct unknown_query {
    const char *const *params;
    struct str found;
};

static enum MHD_Result on_query(void *data, enum MHD_ValueKind kind, const char *namez,
                                const char *valuez)
{
    struct unknown_query *u = data;

    (void)kind, (void)valuez;
    for (const char *const *p = u->params; *p; p++) {
        bool is_header = **p >= 'A' && **p <= 'Z';

        if (!is_header && strcmp(*p, namez) == 0)
            return MHD_YES;
    }
    u->found = str_z(namez);
    return MHD_NO;
}

struct str request_unknown_query(struct request *q)
{
    struct unknown_query u = {q->route->params, STR_NONE};

    MHD_get_connection_values(of(q)->mhd, MHD_GET_ARGUMENT_KIND, on_query, &u);
    return u.found;
}

void request_pause_body(struct request *q)
{
    sleep_until(of(q), INT64_MAX);
}
