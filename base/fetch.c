/* libcurl's multi_socket on libuv. What makes it cheap:
 *
 * - libcurl forgets a socket after every answer and asks for it again at the next request;
 *   fetch_sockets.c does not, and a request on a kept connection makes no epoll_ctl call at all.
 * - fetch_start only queues. One idle callback a turn gives all new calls to libcurl and lets it
 *   run them at once; this is also why on_done never comes inside fetch_start.
 * - Easy handles are kept (fetch_easy.c).
 * - Limits of time (except connecting) are one heap with one lazy timer, not libcurl's.
 *
 * Inside curl_multi_socket_action libcurl may not be told anything about other handles: an abort
 * from there is noted in `doomed` and done when libcurl has returned. */
#include "base/buf.h"
#include "base/fetch_internal.h"
#include <assert.h>
#include <stdlib.h>

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

void fetch_set_limit(struct fetch *f)
{
    enum fetch_fault unused;
    int64_t at = deadline_of(f, &unused);

    clear_limit(f);
    if (at == INT64_MAX)
        return;
    heap_push(&f->pool->limits, &f->limit, at);
    arm_limits(f->pool);
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
    struct fetch *f = fetch_easy_new(p);

    curl_easy_setopt(f->easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(f->easy, CURLOPT_OPENSOCKETDATA, p);
    curl_easy_setopt(f->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(f->easy, CURLOPT_CLOSESOCKETDATA, p);
    return f;
}

static void recycle(struct fetch *f)
{
    struct fetch_pool *p = f->pool;

    if (p->is_closing || p->n_free >= p->max_connections) {
        fetch_easy_free(f);
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

/* ---- turns ---- */

/* Ends f: takes it from libcurl, tells, recycles. */
static void finish(struct fetch *f, CURLcode code)
{
    struct fetch_result r;

    fetch_easy_result(f, code, &r);
    clear_limit(f);
    list_remove(&f->node);
    f->step = STEP_DONE;
    curl_multi_remove_handle(f->pool->multi, f->easy);
    f->handler.on_done(f->handler.data, &r);
    recycle(f);
}

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
    fetch_set_limit(f);
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
            fetch_set_limit(f);
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
    p->json_headers = fetch_easy_headers(true);
    p->plain_headers = fetch_easy_headers(false);
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
        fetch_easy_free(LIST_ENTRY(node, struct fetch, node));
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
    if (fetch_easy_set(f, r, e) != 0) {
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
