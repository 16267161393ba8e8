/* libcurl's multi_socket on libuv. What makes it cheap:
 *
 * - libcurl forgets a socket after every answer and asks for it again at the next request;
 *   fetch_sockets.c does not, and a request on a kept connection makes no epoll_ctl call at all.
 * - fetch_start only queues. One idle callback a turn gives all new calls to libcurl and lets it
 *   run them at once; this is also why on_done never comes inside fetch_start.
 * - Easy handles are kept and set anew only where a request differs from the one before.
 * - Limits of time (except connecting) are one heap with one lazy timer, not libcurl's.
 *
 * Inside curl_multi_socket_action libcurl may not be told anything about other handles: an abort
 * from there is noted in `doomed` and done when libcurl has returned. */
#include "base/fetch.h"
#include "base/buf.h"
#include "base/fetch_sockets.h"
#include "base/heap.h"
#include "base/list.h"
#include <assert.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define CONNECT_MS 5000
#define MAX_BODY_BYTES ((size_t)64 << 20)
#define ONE_SEND_BYTES 65000 /* below libcurl's 64 KiB: copied behind the headers, in one send */

enum step {
    STEP_FREE,    /* in pool->free */
    STEP_QUEUED,  /* in pool->queued */
    STEP_RUNNING, /* in pool->running, and libcurl's */
    STEP_DOOMED,  /* in pool->doomed: aborted while libcurl was at work */
    STEP_DONE,    /* in no list: on_done is being called */
};

struct fetch {
    struct list node;
    enum step step;
    struct fetch_pool *pool;
    CURL *easy;
    struct fetch_handler handler;
    struct str body;
    size_t n_read; /* of the body, when libcurl asks for it in pieces */

    /* What `easy` is set to, kept over calls. */
    char *urlz;
    char methodz[16];
    bool has_body;
    int64_t connect_ms;
    struct curl_slist *own_headers;       /* made from a caller's headers */
    const struct curl_slist *set_headers; /* own_headers or one of the pool's */
    bool is_own_json;

    /* Limits and course of this call; times are the loop's. */
    int64_t total_ms, first_byte_ms, idle_ms;
    size_t max_body_bytes;
    struct heap_node limit;
    int64_t started_at, first_at, last_at; /* -1: not yet */
    size_t n_body;
    bool is_head_told, has_retry_after;
    enum fetch_fault fault; /* ours, found before libcurl reports; FETCH_OK: none */
    char error[CURL_ERROR_SIZE];
};

struct fetch_pool {
    uv_loop_t *loop;
    CURLM *multi;
    uv_idle_t kick;         /* runs while something is queued or libcurl wants a call at once */
    uv_timer_t curl_timer;  /* libcurl's */
    uv_timer_t limit_timer; /* first of `limits`, or earlier */
    int64_t curl_due, limit_due; /* when they fire, while active */
    struct list queued, running, doomed, free;
    int n_free;
    struct heap limits;
    struct curl_slist *json_headers, *plain_headers;
    struct sockets sockets;
    int max_connections, set_connections;
    int n_handles;   /* libuv's three above, not yet closed */
    bool is_busy;    /* a callback of the pool is under way */
    bool is_in_curl; /* … and inside libcurl */
    bool is_closing;
};

/* ---- limits of time ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When f's time is over, and which limit that is; INT64_MAX when it has none. */
static int64_t deadline_of(const struct fetch *f, enum fetch_fault *fault)
{
    int64_t total = f->total_ms ? f->started_at + f->total_ms : INT64_MAX;
    int64_t next = INT64_MAX;

    if (f->first_at < 0 && f->first_byte_ms)
        next = f->started_at + f->first_byte_ms;
    else if (f->first_at >= 0 && f->idle_ms)
        next = f->last_at + f->idle_ms;
    if (total <= next)
        *fault = FETCH_TIMEOUT_TOTAL;
    else
        *fault = f->first_at < 0 ? FETCH_TIMEOUT_FIRST : FETCH_TIMEOUT_IDLE;
    return earlier(total, next);
}

static void on_limit(uv_timer_t *timer);

static void arm_limits(struct fetch_pool *p)
{
    struct heap_node *min = heap_min(&p->limits);
    int64_t now = (int64_t)uv_now(p->loop);

    if (!min || (uv_is_active((uv_handle_t *)&p->limit_timer) && p->limit_due <= min->key))
        return; /* an early timer looks, and arms itself anew */
    p->limit_due = min->key;
    uv_timer_start(&p->limit_timer, on_limit, min->key > now ? (uint64_t)(min->key - now) : 0, 0);
}

static void clear_limit(struct fetch *f)
{
    if (heap_has(&f->limit))
        heap_remove(&f->pool->limits, &f->limit);
}

static void set_limit(struct fetch *f)
{
    enum fetch_fault unused;
    int64_t at = deadline_of(f, &unused);

    clear_limit(f);
    if (at == INT64_MAX)
        return;
    heap_push(&f->pool->limits, &f->limit, at);
    arm_limits(f->pool);
}

/* ---- libcurl's callbacks of one call ---- */

static void tell_head(struct fetch *f)
{
    char *typez = NULL;
    long status = 0;

    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    if (f->is_head_told || status < 200)
        return;
    f->is_head_told = true;
    if (!f->handler.on_head)
        return;
    curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &typez);
    f->handler.on_head(f->handler.data, (int)status, str_z(typez));
}

static size_t on_header(char *p, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    if (f->step != STEP_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    n *= size;
    if (n > 12 && (p[0] | 0x20) == 'r' && strncasecmp(p, "retry-after:", 12) == 0)
        f->has_retry_after = true;
    else if (n <= 2 && (p[0] == '\r' || p[0] == '\n'))
        tell_head(f);
    return n;
}

static size_t on_write(char *p, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    n *= size;
    if (f->step != STEP_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    f->last_at = (int64_t)uv_now(f->pool->loop);
    if (f->first_at < 0) {
        f->first_at = f->last_at;
        if (f->idle_ms) /* from here on its deadline only moves away: looked at when it fires */
            set_limit(f);
    }
    if (n > f->max_body_bytes - f->n_body) {
        f->fault = FETCH_TOO_LARGE;
        return CURL_WRITEFUNC_ERROR;
    }
    f->n_body += n;
    if (f->handler.on_data && f->handler.on_data(f->handler.data, str_of(p, n)) != 0) {
        f->fault = FETCH_CUT;
        return CURL_WRITEFUNC_ERROR;
    }
    return f->step == STEP_RUNNING ? n : CURL_WRITEFUNC_ERROR;
}

/* The body is the caller's only until fetch_abort: a doomed call must not read it. */
static int on_request(void *data, char *a, char *b, int c, int d)
{
    (void)a, (void)b, (void)c, (void)d;
    return ((struct fetch *)data)->step == STEP_RUNNING ? CURL_PREREQFUNC_OK
                                                        : CURL_PREREQFUNC_ABORT;
}

static size_t on_read(char *dst, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    if (f->step != STEP_RUNNING)
        return CURL_READFUNC_ABORT;
    n *= size;
    if (n > f->body.n - f->n_read)
        n = f->body.n - f->n_read;
    memcpy(dst, f->body.p + f->n_read, n);
    f->n_read += n;
    return n;
}

static int on_seek(void *data, curl_off_t offset, int origin)
{
    struct fetch *f = data;

    if (origin != SEEK_SET || offset < 0 || (size_t)offset > f->body.n)
        return CURL_SEEKFUNC_FAIL;
    f->n_read = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- sockets ---- */

static curl_socket_t on_open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct fetch_pool *p = data;
    int fd = sockets_open(&p->sockets, a->family, a->socktype, a->protocol);

    (void)purpose;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int on_close_socket(void *data, curl_socket_t fd)
{
    struct fetch_pool *p = data;

    return sockets_close(&p->sockets, fd);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *data, void *unused)
{
    struct fetch_pool *p = data;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);

    (void)easy, (void)unused;
    if (what != CURL_POLL_REMOVE)
        return sockets_watch(&p->sockets, fd, events);
    sockets_unwatch(&p->sockets, fd);
    return 0;
}

static void turn(struct fetch_pool *p, curl_socket_t fd, int events);

/* Of a broken socket libcurl is to hear the error itself, by reading: told CURL_CSELECT_ERR it ends
 * the call, while after a failed read it opens a kept connection anew that the server closed just
 * as the request went out. */
static void on_ready(void *data, int fd, bool is_broken, int events)
{
    int flags = is_broken ? CURL_CSELECT_IN | CURL_CSELECT_OUT : 0;

    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    turn(data, fd, flags);
}

/* ---- handles ---- */

static struct fetch *new_fetch(struct fetch_pool *p)
{
    struct fetch *f = xcalloc(1, sizeof *f);
    CURL *c = curl_easy_init();

    if (!c)
        abort(); /* no memory */
    f->pool = p;
    f->easy = c;
    f->connect_ms = -1;
    curl_easy_setopt(c, CURLOPT_PRIVATE, f);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->error);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(c, CURLOPT_PROXY, ""); /* not the environment's either */
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, p);
    curl_easy_setopt(c, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(c, CURLOPT_CLOSESOCKETDATA, p);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(c, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(c, CURLOPT_PREREQDATA, f);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, f);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, f);
    return f;
}

static void free_fetch(struct fetch *f)
{
    curl_easy_cleanup(f->easy);
    curl_slist_free_all(f->own_headers);
    free(f->urlz);
    free(f);
}

static void recycle(struct fetch *f)
{
    struct fetch_pool *p = f->pool;

    if (p->is_closing || p->n_free >= p->max_connections) {
        free_fetch(f);
        return;
    }
    f->step = STEP_FREE;
    p->n_free++;
    list_push_front(&p->free, &f->node); /* the last used is the warmest */
}

static struct fetch *take_free(struct fetch_pool *p)
{
    struct list *node = list_pop(&p->free);

    if (!node)
        return new_fetch(p);
    p->n_free--;
    return LIST_ENTRY(node, struct fetch, node);
}

/* ---- a request told to a handle ---- */

static struct curl_slist *append(struct curl_slist *list, const char *linez)
{
    list = curl_slist_append(list, linez);
    if (!list)
        abort(); /* no memory */
    return list;
}

static struct curl_slist *append_defaults(struct curl_slist *list, bool is_json)
{
    if (is_json)
        list = append(list, "Content-Type: application/json");
    return append(list, "Expect:");
}

/* Whether own_headers was made from the same lines. */
static bool has_same_headers(const struct fetch *f, const char *const *headers, bool is_json)
{
    const struct curl_slist *own = f->own_headers;

    if (!own || f->is_own_json != is_json)
        return false;
    for (; *headers; headers++, own = own->next) {
        if (!own || strcmp(own->data, *headers) != 0)
            return false;
    }
    /* No caller's line is left over: what follows are the defaults. */
    return own && strcmp(own->data, is_json ? "Content-Type: application/json" : "Expect:") == 0 &&
           (is_json ? own->next && !own->next->next : !own->next);
}

static int set_headers(struct fetch *f, const char *const *headers, bool is_json, struct err *e)
{
    const struct curl_slist *list = is_json ? f->pool->json_headers : f->pool->plain_headers;
    bool is_same;

    for (const char *const *h = headers; h && *h; h++) {
        if ((*h)[strcspn(*h, "\r\n")] != 0)
            return err_set(e, ERR_INVALID, "a request header has a line break");
        if (strncasecmp(*h, "content-type:", 13) == 0)
            is_json = false;
    }
    if (headers && !has_same_headers(f, headers, is_json)) {
        curl_slist_free_all(f->own_headers);
        f->own_headers = NULL;
        f->set_headers = NULL;
        for (; *headers; headers++)
            f->own_headers = append(f->own_headers, *headers);
        f->own_headers = append_defaults(f->own_headers, is_json);
        f->is_own_json = is_json;
        list = f->own_headers;
    } else if (headers) {
        list = f->own_headers;
    }
    is_same = f->set_headers == list;
    f->set_headers = list;
    return is_same || curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, list) == CURLE_OK
               ? 0
               : err_set(e, ERR_INTERNAL, "curl: headers refused");
}

static int set_method(struct fetch *f, const char *methodz, bool has_body, struct err *e)
{
    bool is_plain = strcmp(methodz, has_body ? "POST" : "GET") == 0;
    bool is_head = !has_body && strcmp(methodz, "HEAD") == 0;

    if (strcmp(f->methodz, methodz) == 0 && f->has_body == has_body)
        return 0;
    if (!*methodz || !str_copyz(f->methodz, sizeof f->methodz, str_z(methodz)) ||
        methodz[strspn(methodz, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != 0) {
        f->methodz[0] = 0;
        return err_set(e, ERR_INVALID, "not a request method");
    }
    f->has_body = has_body;
    curl_easy_setopt(f->easy, CURLOPT_HTTPGET, 1L); /* undoes HEAD and POST */
    if (has_body)
        curl_easy_setopt(f->easy, CURLOPT_POST, 1L);
    if (is_head)
        curl_easy_setopt(f->easy, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(f->easy, CURLOPT_CUSTOMREQUEST, is_plain || is_head ? NULL : methodz);
    return 0;
}

static void set_body(struct fetch *f, struct str body)
{
    bool is_in_pieces = body.n > ONE_SEND_BYTES;

    f->body = body;
    f->n_read = 0;
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDS, is_in_pieces ? NULL : body.n ? body.p : "");
}

static int set_up(struct fetch *f, const struct fetch_request *r, struct err *e)
{
    bool has_body = r->body.n > 0 || strcmp(r->methodz, "POST") == 0;
    int64_t connect_ms = r->connect_ms ? r->connect_ms : CONNECT_MS;
    int rc = set_method(f, r->methodz, has_body, e);

    rc = rc ? rc : set_headers(f, r->headers, has_body, e);
    if (rc)
        return rc;
    if (!f->urlz || strcmp(f->urlz, r->urlz) != 0) {
        free(f->urlz);
        f->urlz = xstrdup(str_z(r->urlz));
        if (curl_easy_setopt(f->easy, CURLOPT_URL, r->urlz) != CURLE_OK)
            return err_set(e, ERR_INVALID, "URL refused"); /* past curl's 8 MB */
    }
    if (connect_ms != f->connect_ms)
        curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    f->connect_ms = connect_ms;
    if (has_body)
        set_body(f, r->body);
    f->total_ms = r->total_ms;
    f->first_byte_ms = r->first_byte_ms;
    f->idle_ms = r->idle_ms;
    f->max_body_bytes = r->max_body_bytes ? r->max_body_bytes : MAX_BODY_BYTES;
    return 0;
}

/* ---- the end of a call ---- */

static enum fetch_fault fault_of(CURLcode code, bool was_sent)
{
    switch (code) {
    case CURLE_OK:
        return FETCH_OK;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return FETCH_BAD;
    case CURLE_FILESIZE_EXCEEDED:
        return FETCH_TOO_LARGE;
    case CURLE_OPERATION_TIMEDOUT:
        return was_sent ? FETCH_TIMEOUT_TOTAL : FETCH_TIMEOUT_CONNECT;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return FETCH_CUT;
    default: /* resolving, connecting, TLS: before the first byte; else the connection broke */
        return was_sent ? FETCH_CUT : FETCH_NO_CONNECT;
    }
}

static int64_t retry_after_ms(struct fetch *f)
{
    curl_off_t s = 0;

    if (!f->has_retry_after || curl_easy_getinfo(f->easy, CURLINFO_RETRY_AFTER, &s) != CURLE_OK)
        return -1;
    return s <= 0 ? 0 : s > INT32_MAX ? (int64_t)INT32_MAX * 1000 : (int64_t)s * 1000;
}

static void explain(struct fetch *f, CURLcode code, struct fetch_result *r)
{
    static const char *const ours[] = {
        [FETCH_CUT] = "ended by the receiver",
        [FETCH_TIMEOUT_TOTAL] = "the whole call took too long",
        [FETCH_TIMEOUT_FIRST] = "no byte of an answer in time",
        [FETCH_TIMEOUT_IDLE] = "the answer stopped",
        [FETCH_TOO_LARGE] = "the answer is too large",
    };
    const char *z = f->error[0] ? f->error : curl_easy_strerror(code);
    long reason = 0;

    /* "Connection refused", where libcurl repeats the address that all who tell it name already. */
    if (code == CURLE_COULDNT_CONNECT &&
        curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &reason) == CURLE_OK && reason > 0)
        z = strerror((int)reason);
    if (f->fault != FETCH_OK && ours[f->fault])
        z = ours[f->fault];
    if (r->fault != FETCH_OK)
        str_copyz(r->message, sizeof r->message, str_z(z));
}

/* Ends f with f->fault, or else libcurl's code: takes it from libcurl, tells, recycles. */
static void finish(struct fetch *f, CURLcode code)
{
    struct fetch_result r = {.retry_after_ms = retry_after_ms(f), .first_byte_ms = -1};
    long status = 0, sent_bytes = 0;

    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(f->easy, CURLINFO_REQUEST_SIZE, &sent_bytes);
    r.status = (int)status;
    r.was_sent = sent_bytes > 0 || code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR;
    r.fault = f->fault != FETCH_OK ? f->fault : fault_of(code, r.was_sent);
    if (f->first_at >= 0)
        r.first_byte_ms = f->first_at - f->started_at;
    r.total_ms = (int64_t)uv_now(f->pool->loop) - f->started_at;
    explain(f, code, &r);
    clear_limit(f);
    list_remove(&f->node);
    f->step = STEP_DONE;
    curl_multi_remove_handle(f->pool->multi, f->easy);
    f->handler.on_done(f->handler.data, &r);
    recycle(f);
}

/* ---- turns ---- */

static void close_pool(struct fetch_pool *p);

static void drop_running(struct fetch *f)
{
    clear_limit(f);
    list_remove(&f->node);
    curl_multi_remove_handle(f->pool->multi, f->easy);
    recycle(f);
}

static void reap(struct fetch_pool *p)
{
    struct CURLMsg *m;
    struct fetch *f;
    int n_left;

    while (!list_is_empty(&p->doomed))
        drop_running(LIST_ENTRY(p->doomed.next, struct fetch, node));
    while ((m = curl_multi_info_read(p->multi, &n_left))) {
        CURLcode code = m->data.result;

        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&f);
        finish(f, code);
    }
}

static void end_turn(struct fetch_pool *p)
{
    p->is_busy = false;
    if (p->is_closing)
        close_pool(p);
}

static void turn(struct fetch_pool *p, curl_socket_t fd, int events)
{
    int n_running;

    p->is_busy = p->is_in_curl = true;
    curl_multi_socket_action(p->multi, fd, events, &n_running);
    p->is_in_curl = false;
    reap(p);
    end_turn(p);
}

static void begin(struct fetch *f)
{
    struct fetch_pool *p = f->pool;

    list_push(&p->running, &f->node);
    f->step = STEP_RUNNING;
    f->started_at = (int64_t)uv_now(p->loop);
    if (curl_multi_add_handle(p->multi, f->easy) != CURLM_OK)
        abort(); /* no memory, or our bug */
    set_limit(f);
}

static void on_kick(uv_idle_t *kick)
{
    struct fetch_pool *p = kick->data;
    struct list *node;

    if (p->set_connections != p->max_connections)
        curl_multi_setopt(p->multi, CURLMOPT_MAXCONNECTS, (long)p->max_connections);
    p->set_connections = p->max_connections;
    while ((node = list_pop(&p->queued)))
        begin(LIST_ENTRY(node, struct fetch, node));
    uv_idle_stop(kick); /* here: libcurl asked for it above, and has it below */
    turn(p, CURL_SOCKET_TIMEOUT, 0);
}

static void on_curl_timer(uv_timer_t *timer)
{
    turn(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_wish(CURLM *multi, long ms, void *data)
{
    struct fetch_pool *p = data;
    int64_t due = (int64_t)uv_now(p->loop) + ms;

    (void)multi;
    if (ms == 0) {
        uv_idle_start(&p->kick, on_kick);
    } else if (ms < 0) {
        uv_timer_stop(&p->curl_timer);
    } else if (!uv_is_active((uv_handle_t *)&p->curl_timer) || p->curl_due > due) {
        p->curl_due = due; /* an earlier one may stand: libcurl then asks again */
        uv_timer_start(&p->curl_timer, on_curl_timer, (uint64_t)ms, 0);
    }
    return 0;
}

static void on_limit(uv_timer_t *timer)
{
    struct fetch_pool *p = timer->data;
    int64_t now = (int64_t)uv_now(p->loop);
    struct heap_node *min;

    p->is_busy = true;
    while ((min = heap_min(&p->limits)) && min->key <= now) {
        struct fetch *f = LIST_ENTRY(min, struct fetch, limit);
        enum fetch_fault fault;

        if (deadline_of(f, &fault) > now) {
            set_limit(f);
            continue;
        }
        f->fault = fault;
        finish(f, CURLE_OPERATION_TIMEDOUT);
    }
    arm_limits(p);
    end_turn(p);
}

/* ---- the pool ---- */

static void free_if_closed(void *data)
{
    struct fetch_pool *p = data;

    if (p->n_handles > 0 || p->sockets.n_polls > 0)
        return;
    sockets_release(&p->sockets);
    free(p);
    curl_global_cleanup();
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct fetch_pool *p = handle->data;

    p->n_handles--;
    free_if_closed(p);
}

struct fetch_pool *fetch_pool_new(uv_loop_t *loop, int max_connections)
{
    struct fetch_pool *p = xcalloc(1, sizeof *p);

    p->loop = loop;
    p->max_connections = max_connections;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(p->multi = curl_multi_init()))
        abort(); /* no memory */
    curl_multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p);
    curl_multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_timer_wish);
    curl_multi_setopt(p->multi, CURLMOPT_TIMERDATA, p);
    list_init(&p->queued);
    list_init(&p->running);
    list_init(&p->doomed);
    list_init(&p->free);
    heap_init(&p->limits);
    sockets_init(&p->sockets, loop, on_ready, free_if_closed, p);
    p->json_headers = append_defaults(NULL, true);
    p->plain_headers = append_defaults(NULL, false);
    uv_idle_init(loop, &p->kick);
    uv_timer_init(loop, &p->curl_timer);
    uv_timer_init(loop, &p->limit_timer);
    uv_unref((uv_handle_t *)&p->limit_timer); /* what it watches keeps the loop running */
    p->kick.data = p->curl_timer.data = p->limit_timer.data = p;
    p->n_handles = 3;
    return p;
}

void fetch_pool_resize(struct fetch_pool *p, int max_connections)
{
    p->max_connections = max_connections;
    uv_idle_start(&p->kick, on_kick); /* libcurl may be at work */
}

static void close_pool(struct fetch_pool *p)
{
    struct list *node;

    while ((node = list_pop(&p->free)))
        free_fetch(LIST_ENTRY(node, struct fetch, node));
    curl_multi_cleanup(p->multi); /* closes the connections, through on_close_socket */
    curl_slist_free_all(p->json_headers);
    curl_slist_free_all(p->plain_headers);
    heap_release(&p->limits);
    uv_close((uv_handle_t *)&p->kick, on_handle_closed);
    uv_close((uv_handle_t *)&p->curl_timer, on_handle_closed);
    uv_close((uv_handle_t *)&p->limit_timer, on_handle_closed);
}

static void abort_all(struct list *list)
{
    while (!list_is_empty(list))
        fetch_abort(LIST_ENTRY(list->next, struct fetch, node));
}

void fetch_pool_free(struct fetch_pool *p)
{
    assert(!p->is_closing);
    abort_all(&p->queued);
    abort_all(&p->running);
    p->is_closing = true;
    if (!p->is_busy) /* else at the end of the callback that is under way */
        close_pool(p);
}

/* ---- calls ---- */

struct fetch *fetch_start(struct fetch_pool *p, const struct fetch_request *r,
                          const struct fetch_handler *h, struct err *e)
{
    struct fetch *f;

    if (p->is_closing) {
        err_set(e, ERR_CLOSED, "the connections to this node are closed");
        return NULL;
    }
    f = take_free(p);
    if (set_up(f, r, e) != 0) {
        recycle(f);
        return NULL;
    }
    f->handler = *h;
    f->first_at = f->last_at = -1;
    f->n_body = 0;
    f->is_head_told = f->has_retry_after = false;
    f->fault = FETCH_OK;
    f->error[0] = 0;
    f->step = STEP_QUEUED;
    list_push(&p->queued, &f->node);
    uv_idle_start(&p->kick, on_kick);
    return f;
}

void fetch_abort(struct fetch *f)
{
    assert(f->step != STEP_FREE && f->step != STEP_DOOMED);
    if (f->step == STEP_DONE)
        return; /* from its own on_done */
    if (f->step == STEP_QUEUED) {
        list_remove(&f->node);
        recycle(f);
    } else if (f->pool->is_in_curl) {
        clear_limit(f);
        list_remove(&f->node);
        f->step = STEP_DOOMED;
        list_push(&f->pool->doomed, &f->node);
    } else {
        drop_running(f);
    }
}
