/* A link is one attempt to connect and, when it comes up, the connection. It lives until libuv has
 * called back for all it began, which may be after the client has dropped it: then link->r is NULL.
 */
#include "base/id.h"
#include "base/log.h"
#include "base/redis_inside.h"
#include "base/redis_reply.h"
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BACKOFF_MAX_MS = 2000,
    IDLE_MS = 1000, /* after it a PING looks whether the server is still there */
    READ_BYTES = 64 << 10,
    REPLY_MAX_BYTES = 64 << 20,
    KEPT_BYTES = 1 << 20, /* memory that a buffer may keep for the next time */
};

struct link {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } h;
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    uv_write_t write;
    struct buf writing; /* what `write` works on */
    struct redis_parser *parser;
    struct redis *r; /* NULL: dropped */
    int n_holds;     /* calls of libuv that will come back */
    char bytes[READ_BYTES];
};

static void release_link(struct link *l)
{
    if (--l->n_holds > 0)
        return;
    buf_release(&l->writing);
    parser_free(l->parser);
    free(l);
}

static void on_link_closed(uv_handle_t *handle)
{
    release_link(handle->data);
}

void link_drop(struct redis *r)
{
    struct link *l = r->link;

    if (!l)
        return;
    r->link = NULL;
    l->r = NULL;
    uv_cancel((uv_req_t *)&l->lookup);
    uv_close(&l->h.handle, on_link_closed);
}

/* Full jitter on the upper half: many clients of one server do not come back at once. */
static int64_t next_wait_ms(struct redis *r)
{
    int64_t wait_ms = r->backoff_ms;
    uint32_t random;

    id_random(&random, sizeof random);
    r->backoff_ms = 2 * wait_ms < BACKOFF_MAX_MS ? 2 * wait_ms : BACKOFF_MAX_MS;
    return wait_ms / 2 + (int64_t)(random % (uint32_t)(wait_ms / 2 + 1));
}

static void on_retry(uv_timer_t *timer)
{
    link_start(timer->data);
}

void link_fail(struct redis *r, int code, const char *whyz)
{
    bool was_up = r->step == STEP_UP;

    if (r->step == STEP_CLOSED || r->step == STEP_AWAY)
        return;
    redis_set_fault(r, code, whyz);
    if (!r->is_fault_logged)
        log_warn("redis_down", LZ("error", r->fault.msg));
    r->is_fault_logged = true;
    r->step = STEP_AWAY;
    link_drop(r);
    if (r->has_more_addresses && !was_up) {
        r->address++;
        uv_timer_start(&r->retry, on_retry, 0, 0);
    } else {
        r->address = 0;
        uv_timer_start(&r->retry, on_retry, (uint64_t)next_wait_ms(r), 0);
    }
    queue_drop(r);
}

static void fail_uv(struct redis *r, int status)
{
    link_fail(r, ERR_UNREACHABLE, uv_strerror(status));
}

/* ---- replies ---- */

/* What a subscriber is told is nobody's answer. */
static bool is_message(struct redis *r, const struct redis_reply *reply)
{
    if (!r->o.on_message || redis_count(reply) != 3 ||
        !str_eqz(redis_text(redis_item(reply, 0)), "message"))
        return false;
    r->o.on_message(r->o.data, redis_text(redis_item(reply, 1)), redis_text(redis_item(reply, 2)));
    return true;
}

static void answer(struct redis *r, const struct redis_reply *reply)
{
    bool is_late;
    struct command *c;

    if (is_message(r, reply))
        return;
    c = queue_take(r, &is_late);
    if (!c) {
        link_fail(r, ERR_CORRUPT,
                  reply_code(reply) ? redis_text(reply).p : "an answer that nobody asked for");
        return;
    }
    if (!is_late)
        c->fn(c->data, reply_code(reply), reply);
    free(c);
}

/* Answers as many as are whole. A callback may have closed the client, or lost the link. */
static void answer_all(struct link *l)
{
    struct redis_reply *reply;
    int rc = 0;

    while (l->r && (rc = parser_next(l->parser, &reply)) > 0) {
        answer(l->r, reply);
        reply_free(reply);
    }
    if (l->r && rc < 0)
        link_fail(l->r, rc, parser_why(l->parser));
    else if (l->r && parser_held(l->parser) > REPLY_MAX_BYTES)
        link_fail(l->r, ERR_TOO_LARGE, "an answer is too large");
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *bytes)
{
    struct link *l = handle->data;

    (void)wanted;
    *bytes = uv_buf_init(l->bytes, sizeof l->bytes);
}

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
    struct link *l = stream->data;

    if (!l->r || n == 0)
        return;
    if (n < 0) {
        link_fail(l->r, ERR_UNREACHABLE,
                  n == UV_EOF ? "it closed the connection" : uv_strerror((int)n));
        return;
    }
    l->n_holds++; /* a callback may close all */
    parser_feed(l->parser, bytes->base, (size_t)n);
    answer_all(l);
    release_link(l);
}

/* ---- sending ---- */

static void on_written(uv_write_t *write, int status)
{
    struct link *l = write->data;

    if (l->writing.room > KEPT_BYTES)
        buf_release(&l->writing);
    buf_clear(&l->writing);
    if (l->r && status < 0)
        fail_uv(l->r, status);
    release_link(l);
}

/* One write at a time: what is sent meanwhile gathers in `out`. */
void link_flush(struct redis *r)
{
    struct link *l = r->link;
    struct buf empty;
    uv_buf_t bytes;
    int rc;

    if (!l || r->out.n == 0 || l->writing.n > 0)
        return;
    empty = l->writing;
    l->writing = r->out;
    r->out = empty;
    bytes = uv_buf_init(l->writing.p, (unsigned)l->writing.n);
    l->write.data = l;
    rc = uv_write(&l->write, &l->h.stream, &bytes, 1, on_written);
    if (rc == 0)
        l->n_holds++;
    else
        fail_uv(r, rc);
}

/* ---- logging in ---- */

static void on_greeted(void *data, int code, const struct redis_reply *reply)
{
    struct redis *r = data;
    char why[256];

    if (code == 0 || r->step != STEP_GREETING)
        return;
    str_copyz(why, sizeof why, code == ERR_TIMEOUT ? STR("it does not answer") : redis_text(reply));
    link_fail(r, code == ERR_INVALID ? ERR_INVALID : ERR_UNREACHABLE, why);
}

/* What comes of it is the connection's business: silence ends it. */
static void on_alive(void *data, int code, const struct redis_reply *reply)
{
    (void)data;
    (void)code;
    (void)reply;
}

static void on_idle(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    struct str ping = STR("PING");

    if (r->n_waiting == 0)
        queue_add(r, &ping, 1, on_alive, r);
}

/* The last of the greeting. */
static void on_pong(void *data, int code, const struct redis_reply *reply)
{
    struct redis *r = data;

    on_greeted(data, code, reply);
    if (r->step != STEP_GREETING)
        return;
    log_info("redis_up", LZ("redis", r->url.name));
    uv_timer_start(&r->retry, on_idle, IDLE_MS, IDLE_MS);
    r->step = STEP_UP;
    r->fault.code = 0;
    r->is_fault_logged = false;
    r->backoff_ms = BACKOFF_MIN_MS;
    if (r->o.on_up)
        r->o.on_up(r->o.data);
}

static void greet(struct redis *r)
{
    struct str auth[3] = {STR("AUTH")}, ping = STR("PING");
    char db[16];
    size_t n = 1;

    r->step = STEP_GREETING;
    if (r->url.user[0])
        auth[n++] = str_z(r->url.user);
    auth[n++] = str_z(r->url.password);
    if (r->url.password[0])
        queue_add(r, auth, n, on_greeted, r);
    snprintf(db, sizeof db, "%d", r->url.db);
    if (r->url.db)
        queue_add(r, (struct str[]){STR("SELECT"), str_z(db)}, 2, on_greeted, r);
    queue_add(r, &ping, 1, on_pong, r);
}

/* ---- connecting ---- */

static void on_connected(uv_connect_t *connect, int status)
{
    struct link *l = connect->data;
    int rc = status;

    if (l->r && rc == 0)
        rc = uv_read_start(&l->h.stream, on_alloc, on_bytes);
    if (l->r && rc < 0)
        fail_uv(l->r, rc);
    else if (l->r)
        greet(l->r);
    release_link(l);
}

static void connect_tcp(struct link *l, const struct addrinfo *first)
{
    const struct addrinfo *at = first;
    size_t i;
    int rc;

    for (i = 0; i < l->r->address && at->ai_next; i++)
        at = at->ai_next;
    l->r->has_more_addresses = at->ai_next != NULL;
    uv_tcp_nodelay(&l->h.tcp, 1);
    rc = uv_tcp_connect(&l->connect, &l->h.tcp, at->ai_addr, on_connected);
    if (rc == 0)
        l->n_holds++;
    else
        fail_uv(l->r, rc);
}

static void on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct link *l = lookup->data;

    if (l->r && status < 0)
        fail_uv(l->r, status);
    else if (l->r)
        connect_tcp(l, found);
    uv_freeaddrinfo(found);
    release_link(l);
}

static int start_tcp(struct redis *r, struct link *l)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char port[8];
    int rc;

    uv_tcp_init(r->o.loop, &l->h.tcp);
    snprintf(port, sizeof port, "%d", r->url.port);
    rc = uv_getaddrinfo(r->o.loop, &l->lookup, on_lookup, r->url.host, port, &hints);
    l->n_holds += rc == 0;
    return rc;
}

static int start_unix(struct redis *r, struct link *l)
{
    uv_pipe_init(r->o.loop, &l->h.pipe, 0);
    uv_pipe_connect(&l->connect, &l->h.pipe, r->url.path, on_connected);
    l->n_holds++;
    return 0;
}

static void on_too_slow(uv_timer_t *timer)
{
    link_fail(timer->data, ERR_TIMEOUT, "it does not answer");
}

void link_start(struct redis *r)
{
    struct link *l = xcalloc(1, sizeof *l);
    int rc;

    l->r = r;
    l->n_holds = 1; /* until it is closed */
    l->parser = parser_new();
    buf_init(&l->writing, SIZE_MAX); /* bounded by max_bytes */
    l->connect.data = l->lookup.data = l;
    r->link = l;
    r->step = STEP_CONNECTING;
    r->has_more_addresses = false;
    rc = r->url.host ? start_tcp(r, l) : start_unix(r, l);
    l->h.handle.data = l;
    /* The name, the connection and the greeting. */
    uv_timer_start(&r->retry, on_too_slow, (uint64_t)(STALL_DEADLINES * r->o.deadline_ms), 0);
    if (rc < 0)
        fail_uv(r, rc);
}
