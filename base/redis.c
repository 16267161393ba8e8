/* A link is one attempt to connect and, when it comes up, the connection. It lives until libuv has
 * called back for all it began, which may be after the client has dropped it: then link->r is NULL.
 *
 * Commands wait in `unanswered`, in the order of their replies. Those that were told ERR_TIMEOUT go
 * on waiting in `late`, for their replies must be counted; deadlines being equal, all of these are
 * older.
 *
 * What is sent in one turn of the loop goes out in one write: a prepare handle flushes. */
#include "base/redis.h"
#include "base/buf.h"
#include "base/id.h"
#include "base/list.h"
#include "base/log.h"
#include "base/redis_url.h"
#include <assert.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_BYTES ((size_t)16 << 20)
enum {
    DEADLINE_MS = 500,
    MAX_COMMANDS = 16384,
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 2000,
    IDLE_MS = 1000, /* after it a PING looks whether the server is still there */
    STALL_DEADLINES = 4,
    READ_BYTES = 64 << 10,
    REPLY_MAX_BYTES = 64 << 20,
    KEPT_BYTES = 1 << 20,  /* memory that a buffer may keep for the next time */
    HEADER_MAX_BYTES = 32, /* of an argument: "$<length>\r\n" and the line's end behind it */
};

enum step {
    STEP_AWAY,       /* waits to try again */
    STEP_CONNECTING, /* looks the name up, connects */
    STEP_GREETING,   /* AUTH, SELECT, PING are on their way */
    STEP_UP,
    STEP_CLOSED,
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
    redisReader *reader;
    struct redis *r; /* NULL: dropped */
    int n_holds;     /* calls of libuv that will come back */
    char bytes[READ_BYTES];
};

struct command {
    struct list node;
    redis_fn fn;
    void *data;
    int64_t due_ms; /* loop's time */
    size_t n_bytes;
};

struct redis {
    struct redis_options o;
    struct redis_url url;
    enum step step;
    struct link *link; /* NULL while away */
    size_t address;    /* which of the name's addresses is next */
    bool has_more_addresses;
    int64_t backoff_ms;
    struct list late, unanswered; /* of struct command; late: fn was called */
    size_t n_waiting, n_bytes;    /* of both */
    struct buf out;               /* not given to libuv yet */
    uv_prepare_t flush;
    uv_timer_t retry;  /* away: tries again; connecting: gives up; up: looks */
    uv_timer_t limit;  /* the next deadline */
    bool is_limit_due; /* it has passed; what has come meanwhile is read first */
    int n_handles;     /* of these three, not yet closed */
    struct err fault;  /* code 0 while up */
    bool is_fault_logged;
};

static void connect_again(struct redis *r);

/* ---- links ---- */

static void release_link(struct link *l)
{
    if (--l->n_holds > 0)
        return;
    buf_release(&l->writing);
    redisReaderFree(l->reader);
    free(l);
}

static void on_link_closed(uv_handle_t *handle)
{
    release_link(handle->data);
}

static void drop_link(struct redis *r)
{
    struct link *l = r->link;

    if (!l)
        return;
    r->link = NULL;
    l->r = NULL;
    uv_cancel((uv_req_t *)&l->lookup);
    uv_close(&l->h.handle, on_link_closed);
}

/* ---- commands ---- */

static struct command *first_of(struct list *head)
{
    return list_is_empty(head) ? NULL : LIST_ENTRY(head->next, struct command, node);
}

static struct command *take_oldest(struct redis *r, bool *is_late)
{
    struct command *c = first_of(&r->late);

    *is_late = c != NULL;
    c = c ? c : first_of(&r->unanswered);
    if (!c)
        return NULL;
    list_remove(&c->node);
    r->n_waiting--;
    r->n_bytes -= c->n_bytes;
    return c;
}

static void drop_commands(struct redis *r)
{
    struct command *c;
    bool is_late;

    buf_clear(&r->out);
    uv_timer_stop(&r->limit);
    r->is_limit_due = false;
    while ((c = take_oldest(r, &is_late))) {
        if (!is_late)
            c->fn(c->data, ERR_CLOSED, NULL);
        free(c);
    }
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
    connect_again(timer->data);
}

static void set_fault(struct redis *r, int code, const char *whyz)
{
    err_set(&r->fault, code, "redis %s: %s", r->url.name, whyz);
}

/* The connection, or the attempt, is over. */
static void fail(struct redis *r, int code, const char *whyz)
{
    bool was_up = r->step == STEP_UP;

    if (r->step == STEP_CLOSED || r->step == STEP_AWAY)
        return;
    set_fault(r, code, whyz);
    if (!r->is_fault_logged)
        log_warn("redis_down", LZ("error", r->fault.msg));
    r->is_fault_logged = true;
    r->step = STEP_AWAY;
    drop_link(r);
    if (r->has_more_addresses && !was_up) {
        r->address++;
        uv_timer_start(&r->retry, on_retry, 0, 0);
    } else {
        r->address = 0;
        uv_timer_start(&r->retry, on_retry, (uint64_t)next_wait_ms(r), 0);
    }
    drop_commands(r);
}

static void fail_uv(struct redis *r, int status)
{
    fail(r, ERR_UNREACHABLE, uv_strerror(status));
}

/* ---- deadlines ---- */

static void on_limit(uv_timer_t *timer);

static void arm_limit(struct redis *r, int64_t due_ms)
{
    int64_t now_ms = (int64_t)uv_now(r->o.loop);

    uv_timer_start(&r->limit, on_limit, due_ms > now_ms ? (uint64_t)(due_ms - now_ms) : 0, 0);
}

/* Tells those whose time is over; one that is told may close the client. */
static void tell_late(struct redis *r, int64_t now_ms)
{
    struct command *c;

    while (r->link && (c = first_of(&r->unanswered)) && c->due_ms <= now_ms) {
        list_remove(&c->node);
        list_push(&r->late, &c->node);
        c->fn(c->data, ERR_TIMEOUT, NULL);
    }
}

/* Where the loop was kept busy past a deadline, the answers may be there, unread. So the loop first
 * turns once more. */
static void on_limit(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    int64_t now_ms = (int64_t)uv_now(r->o.loop), patience_ms;
    struct command *late, *next;

    r->is_limit_due = !r->is_limit_due;
    if (r->is_limit_due) {
        arm_limit(r, now_ms + 1);
        return;
    }
    tell_late(r, now_ms);
    if (!r->link)
        return;
    late = first_of(&r->late);
    next = first_of(&r->unanswered);
    patience_ms = late ? late->due_ms + (STALL_DEADLINES - 1) * r->o.deadline_ms : INT64_MAX;
    if (patience_ms <= now_ms)
        fail(r, ERR_TIMEOUT, "it does not answer");
    else if (late || next)
        arm_limit(r, next && next->due_ms < patience_ms ? next->due_ms : patience_ms);
}

/* ---- replies ---- */

static const redisReply *reply_of(const struct redis_reply *reply)
{
    return (const redisReply *)(const void *)reply;
}

/* The first word of an error is its kind, and part of the protocol. (Up to Redis 6, a command that
 * fails in a script has its own error inside the script's.) */
static int code_of(const redisReply *reply)
{
    static const struct {
        const char *wordz;
        int code;
    } kinds[] = {
        {"OOM ", ERR_FULL},         {"NOSCRIPT ", ERR_NOT_FOUND}, {"READONLY ", ERR_BUSY},
        {"LOADING ", ERR_BUSY},     {"BUSY ", ERR_BUSY},          {"MISCONF ", ERR_BUSY},
        {"MASTERDOWN ", ERR_BUSY},  {"TRYAGAIN ", ERR_BUSY},      {"NOREPLICAS ", ERR_BUSY},
        {"CLUSTERDOWN ", ERR_BUSY},
    };
    bool is_scripts;
    struct str text;
    size_t i;

    if (reply->type != REDIS_REPLY_ERROR)
        return 0;
    text = str_of(reply->str, reply->len);
    is_scripts = str_starts(text, STR("ERR Error running script"));
    for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (str_starts(text, str_z(kinds[i].wordz)) ||
            (is_scripts && strstr(text.p, kinds[i].wordz)))
            return kinds[i].code;
    return ERR_INVALID;
}

/* What a subscriber is told is nobody's answer. */
static bool is_message(struct redis *r, const redisReply *reply)
{
    const struct redis_reply *all = (const struct redis_reply *)(const void *)reply;

    if (!r->o.on_message || redis_count(all) != 3 ||
        !str_eqz(redis_text(redis_item(all, 0)), "message"))
        return false;
    r->o.on_message(r->o.data, redis_text(redis_item(all, 1)), redis_text(redis_item(all, 2)));
    return true;
}

static void answer(struct redis *r, const redisReply *reply)
{
    bool is_late;
    struct command *c;

    if (is_message(r, reply))
        return;
    c = take_oldest(r, &is_late);
    if (!c) {
        fail(r, ERR_CORRUPT,
             reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer that nobody asked for");
        return;
    }
    if (!is_late)
        c->fn(c->data, code_of(reply), (const struct redis_reply *)(const void *)reply);
    free(c);
}

/* Answers as many as are whole. A callback may have closed the client, or lost the link. */
static void answer_all(struct link *l)
{
    void *reply = NULL;

    while (l->r) {
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK) {
            fail(l->r, ERR_CORRUPT, l->reader->errstr);
            return;
        }
        if (!reply)
            break;
        answer(l->r, reply);
        freeReplyObject(reply);
    }
    if (l->r && l->reader->len > REPLY_MAX_BYTES)
        fail(l->r, ERR_TOO_LARGE, "an answer is too large");
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
        fail(l->r, ERR_UNREACHABLE, n == UV_EOF ? "it closed the connection" : uv_strerror((int)n));
        return;
    }
    l->n_holds++; /* a callback may close all */
    redisReaderFeed(l->reader, bytes->base, (size_t)n);
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
static void flush(struct redis *r)
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

static void on_flush(uv_prepare_t *prepare)
{
    flush(prepare->data);
}

static size_t size_of(const struct str *args, size_t n)
{
    size_t i, n_bytes = HEADER_MAX_BYTES;

    for (i = 0; i < n; i++)
        n_bytes += args[i].n + HEADER_MAX_BYTES;
    return n_bytes;
}

static void add_count(struct buf *b, char mark, size_t n) /* no printf: two dozen a command */
{
    buf_addc(b, mark);
    buf_addi(b, (int64_t)n);
    buf_addz(b, "\r\n");
}

static void put(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data)
{
    struct command *c = xmalloc(sizeof *c);
    size_t i;

    uv_update_time(r->o.loop); /* a turn that was long so far is not the server's fault */
    *c = (struct command){.fn = fn,
                          .data = data,
                          .due_ms = (int64_t)uv_now(r->o.loop) + r->o.deadline_ms,
                          .n_bytes = size_of(args, n)};
    list_push(&r->unanswered, &c->node);
    r->n_waiting++;
    r->n_bytes += c->n_bytes;
    add_count(&r->out, '*', n);
    for (i = 0; i < n; i++) {
        add_count(&r->out, '$', args[i].n);
        buf_adds(&r->out, args[i]);
        buf_addz(&r->out, "\r\n");
    }
    if (!uv_is_active((uv_handle_t *)&r->limit))
        arm_limit(r, c->due_ms);
}

int redis_send(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data)
{
    assert(n > 0);
    if (r->step != STEP_UP)
        return ERR_UNREACHABLE;
    if (r->n_waiting >= r->o.max_commands || r->n_bytes + size_of(args, n) > r->o.max_bytes)
        return ERR_FULL;
    put(r, args, n, fn, data);
    return 0;
}

/* ---- logging in ---- */

static void on_greeted(void *data, int code, const struct redis_reply *reply)
{
    struct redis *r = data;
    char why[256];

    if (code == 0 || r->step != STEP_GREETING)
        return;
    str_copyz(why, sizeof why, code == ERR_TIMEOUT ? STR("it does not answer") : redis_text(reply));
    fail(r, code == ERR_INVALID ? ERR_INVALID : ERR_UNREACHABLE, why);
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
        put(r, &ping, 1, on_alive, r);
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
        put(r, auth, n, on_greeted, r);
    snprintf(db, sizeof db, "%d", r->url.db);
    if (r->url.db)
        put(r, (struct str[]){STR("SELECT"), str_z(db)}, 2, on_greeted, r);
    put(r, &ping, 1, on_pong, r);
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
    fail(timer->data, ERR_TIMEOUT, "it does not answer");
}

static void connect_again(struct redis *r)
{
    struct link *l = xcalloc(1, sizeof *l);
    int rc;

    l->r = r;
    l->n_holds = 1; /* until it is closed */
    l->reader = redisReaderCreate();
    if (!l->reader)
        abort();
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

/* ---- the client ---- */

static void init_handles(struct redis *r)
{
    uv_prepare_init(r->o.loop, &r->flush);
    uv_timer_init(r->o.loop, &r->retry);
    uv_timer_init(r->o.loop, &r->limit);
    r->flush.data = r->retry.data = r->limit.data = r;
    r->n_handles = 3;
    uv_prepare_start(&r->flush, on_flush);
}

struct redis *redis_open(const struct redis_options *o, struct err *e)
{
    struct redis *r = xcalloc(1, sizeof *r);

    if (redis_url_parse(&r->url, str_z(o->urlz), e)) {
        free(r);
        return NULL;
    }
    r->o = *o;
    r->o.deadline_ms = o->deadline_ms ? o->deadline_ms : DEADLINE_MS;
    r->o.max_commands = o->max_commands ? o->max_commands : MAX_COMMANDS;
    r->o.max_bytes = o->max_bytes ? o->max_bytes : MAX_BYTES;
    r->backoff_ms = BACKOFF_MIN_MS;
    list_init(&r->late);
    list_init(&r->unanswered);
    buf_init(&r->out, SIZE_MAX); /* bounded by max_bytes */
    set_fault(r, ERR_UNREACHABLE, "connecting");
    init_handles(r);
    uv_update_time(o->loop); /* it may not have run yet, and deadlines count from its time */
    connect_again(r);
    return r;
}

static void on_closed(uv_handle_t *handle)
{
    struct redis *r = handle->data;

    if (--r->n_handles > 0)
        return;
    buf_release(&r->out);
    redis_url_release(&r->url);
    free(r);
}

void redis_close(struct redis *r)
{
    assert(r->step != STEP_CLOSED);
    r->step = STEP_CLOSED;
    set_fault(r, ERR_CLOSED, "closed");
    drop_link(r);
    drop_commands(r);
    uv_close((uv_handle_t *)&r->flush, on_closed);
    uv_close((uv_handle_t *)&r->retry, on_closed);
    uv_close((uv_handle_t *)&r->limit, on_closed);
}

int redis_health(const struct redis *r, struct err *e)
{
    if (r->fault.code && e)
        *e = r->fault;
    return r->fault.code;
}

/* ---- reading replies ---- */

struct str redis_text(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    if (!own || (own->type != REDIS_REPLY_STRING && own->type != REDIS_REPLY_STATUS &&
                 own->type != REDIS_REPLY_ERROR))
        return STR_NONE;
    return str_of(own->str, own->len);
}

int64_t redis_int(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    return own && own->type == REDIS_REPLY_INTEGER ? own->integer : 0;
}

size_t redis_count(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    return own && own->type == REDIS_REPLY_ARRAY ? own->elements : 0;
}

const struct redis_reply *redis_item(const struct redis_reply *reply, size_t i)
{
    if (i >= redis_count(reply))
        return NULL;
    return (const struct redis_reply *)(const void *)reply_of(reply)->element[i];
}
