/* A small server, one thread a connection, whose answer the path chooses. */
#include "base/buf.h"
#include "base/fetch.h"
#include "tests/lib/test.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int n_accepted, n_requests, n_hangups;
static int port;

/* ---- server ---- */

static void say(int fd, const char *z)
{
    CHECK(send(fd, z, strlen(z), MSG_NOSIGNAL) >= 0);
}

static void say_body(int fd, struct str body)
{
    char head[128];

    snprintf(head, sizeof head,
             "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", body.n);
    say(fd, head);
    while (body.n > 0) {
        ssize_t n = send(fd, body.p, body.n, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        body = str_of(body.p + n, body.n - (size_t)n);
    }
}

static void wait_for_hangup(int fd)
{
    char c;

    while (recv(fd, &c, 1, 0) > 0)
        continue;
    n_hangups++;
}

/* One request into b; false when the client has gone. */
static bool hear(int fd, struct buf *b)
{
    const char *end, *length;
    size_t n = 0;

    buf_clear(b);
    for (;;) {
        ssize_t got = recv(fd, buf_reserve(b, 65536), 65536, 0);

        if (got <= 0)
            return false;
        b->n += (size_t)got;
        b->p[b->n] = 0;
        end = strstr(b->p, "\r\n\r\n");
        length = strstr(b->p, "Content-Length: ");
        if (length)
            n = strtoul(length + 16, NULL, 10);
        if (end && b->n >= (size_t)(end - b->p) + 4 + n)
            return true;
    }
}

static bool is_path(const struct buf *b, const char *pathz)
{
    const char *p = strchr(b->p, ' ');

    return p && strncmp(p + 1, pathz, strlen(pathz)) == 0 && p[1 + strlen(pathz)] == ' ';
}

/* Answers; false when the connection is to be closed. */
static bool answer(int fd, const struct buf *b)
{
    static const char big[1 << 20];

    if (is_path(b, "/busy")) {
        say(fd, "HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    } else if (is_path(b, "/chunked")) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        say(fd, "2\r\nde\r\n0\r\n\r\n");
    } else if (is_path(b, "/cut")) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
        return false;
    } else if (is_path(b, "/drop")) {
        return false;
    } else if (is_path(b, "/garbage")) {
        say(fd, "I speak no HTTP\r\n\r\n");
        return false;
    } else if (is_path(b, "/hang")) {
        wait_for_hangup(fd);
        return false;
    } else if (is_path(b, "/stall")) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n01234");
        wait_for_hangup(fd);
        return false;
    } else if (is_path(b, "/big")) {
        say_body(fd, str_of(big, sizeof big));
    } else {
        say_body(fd, buf_str(b));
        return !is_path(b, "/once"); /* closes without having said so */
    }
    return true;
}

static void serve(void *data)
{
    const struct linger reset = {.l_onoff = 1};
    int fd = (int)(intptr_t)data, n_heard = 0;
    struct buf b;

    buf_init(&b, 16 << 20);
    while (hear(fd, &b)) {
        n_requests++;
        if (++n_heard > 1 && is_path(&b, "/reset")) {
            CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
            break;
        }
        if (!answer(fd, &b))
            break;
    }
    buf_release(&b);
    close(fd);
}

static void listen_all(void *data)
{
    int listener = (int)(intptr_t)data;
    uv_thread_t thread;

    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            continue;
        n_accepted++;
        CHECK_INT(uv_thread_create(&thread, serve, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
}

static int bind_any(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK_INT(bind(fd, (struct sockaddr *)&a, n), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    port = ntohs(a.sin_port);
    return fd;
}

static void start_server(void)
{
    uv_thread_t thread;
    int fd = bind_any();

    CHECK_INT(listen(fd, 100), 0);
    CHECK_INT(uv_thread_create(&thread, listen_all, (void *)(intptr_t)fd), 0);
}

/* ---- client ---- */

struct seen {
    struct fetch_result r;
    int n_heads, head_status, n_data, n_done;
    char type[64];
    struct buf body;
    bool is_refusing;
    struct seen *victim; /* aborted when data, or the end, comes */
    struct fetch *fetch;
    struct fetch_pool *freed; /* freed then, too */
    struct seen *next;        /* started at the end of this one */
};

static uv_loop_t loop;
static struct fetch_pool *pool;

static struct fetch *go(struct seen *s, struct fetch_request r, const char *pathz);

static void on_head(void *data, int status, struct str content_type)
{
    struct seen *s = data;

    s->n_heads++;
    s->head_status = status;
    str_copyz(s->type, sizeof s->type, content_type);
}

static void strike(struct seen *s)
{
    if (s->victim)
        fetch_abort(s->victim->fetch);
    s->victim = NULL;
    if (s->freed)
        fetch_pool_free(s->freed);
    s->freed = NULL;
}

static int on_data(void *data, struct str bytes)
{
    struct seen *s = data;

    CHECK_INT(s->n_heads, 1);
    s->n_data++;
    buf_adds(&s->body, bytes);
    strike(s);
    return s->is_refusing;
}

static void on_done(void *data, const struct fetch_result *r)
{
    struct seen *s = data;

    s->n_done++;
    s->r = *r;
    fetch_abort(s->fetch); /* too late: does nothing */
    strike(s);
    if (s->next)
        go(s->next, (struct fetch_request){0}, "/ok");
}

static struct fetch *go(struct seen *s, struct fetch_request r, const char *pathz)
{
    struct fetch_handler h = {on_head, on_data, on_done, s};
    char url[64];
    struct err e = {0};

    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, pathz);
    r.urlz = r.urlz ? r.urlz : url;
    r.methodz = r.methodz ? r.methodz : "POST";
    buf_init(&s->body, 16 << 20);
    s->fetch = fetch_start(pool, &r, &h, &e);
    CHECK(s->fetch != NULL);
    CHECK_INT(s->n_done, 0);
    return s->fetch;
}

static void start(void)
{
    start_server();
    CHECK_INT(uv_loop_init(&loop), 0);
    pool = fetch_pool_new(&loop, 8);
}

static void finish(void)
{
    if (pool)
        fetch_pool_free(pool);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_close(&loop), 0);
}

static struct seen one(struct fetch_request r, const char *pathz)
{
    struct seen s = {0};

    go(&s, r, pathz);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(s.n_done, 1);
    CHECK((s.r.fault == FETCH_OK) == (s.r.message[0] == 0));
    return s;
}

static struct seen one_plain(const char *pathz)
{
    return one((struct fetch_request){.body = STR("{}")}, pathz);
}

static bool has(const struct seen *s, const char *z)
{
    return s->body.p && strstr(s->body.p, z);
}

TEST(whole_answer)
{
    struct seen s;

    start();
    s = one_plain("/echo");
    CHECK_INT(s.r.fault, FETCH_OK);
    CHECK_INT(s.r.status, 200);
    CHECK_INT(s.head_status, 200);
    CHECK_STR(str_z(s.type), "text/plain");
    CHECK(s.r.was_sent && s.r.retry_after_ms == -1 && s.r.first_byte_ms >= 0);
    CHECK(s.r.total_ms >= s.r.first_byte_ms);
    CHECK(has(&s, "POST /echo HTTP/1.1\r\n") && has(&s, "Content-Type: application/json\r\n"));
    CHECK(has(&s, "\r\n\r\n{}") && !has(&s, "Expect") && !has(&s, "Accept-Encoding"));
    buf_release(&s.body);
    finish();
}

TEST(methods_and_headers_follow_each_request)
{
    const char *mine[] = {"Authorization: Bearer a", "Content-Type: text/csv", NULL};
    struct fetch_request r = {.headers = mine, .body = STR("x")};
    struct seen s;

    start();
    s = one(r, "/echo");
    CHECK(has(&s, "Bearer a\r\n") && has(&s, "text/csv\r\n") && !has(&s, "application/json"));
    buf_release(&s.body);
    mine[0] = "Authorization: Bearer b"; /* same array, other words */
    mine[1] = NULL;
    s = one(r, "/echo");
    CHECK(has(&s, "Bearer b\r\n") && has(&s, "application/json\r\n") && !has(&s, "Bearer a"));
    buf_release(&s.body);
    s = one((struct fetch_request){.methodz = "GET"}, "/echo");
    CHECK(has(&s, "GET /echo") && !has(&s, "Bearer") && !has(&s, "json"));
    CHECK(!has(&s, "Content-Length"));
    buf_release(&s.body);
    s = one((struct fetch_request){.methodz = "DELETE"}, "/echo");
    CHECK(has(&s, "DELETE /echo") && !has(&s, "Content-Length"));
    buf_release(&s.body);
    s = one((struct fetch_request){0}, "/echo");
    CHECK(has(&s, "POST /echo") && has(&s, "Content-Length: 0"));
    buf_release(&s.body);
    s = one((struct fetch_request){.methodz = "PUT", .body = STR("xyz")}, "/echo");
    CHECK(has(&s, "PUT /echo") && has(&s, "\r\n\r\nxyz"));
    buf_release(&s.body);
    CHECK_INT(n_accepted, 1);
    finish();
}

TEST(wrong_requests_are_refused)
{
    const char *broken[] = {"X: a\r\nY: b", NULL};
    struct fetch_request r = {.methodz = "POST", .urlz = "http://127.0.0.1:1/", .headers = broken};
    struct fetch_handler h = {.on_done = on_done};
    struct err e = {0};
    struct seen s;

    start();
    CHECK(fetch_start(pool, &r, &h, &e) == NULL);
    CHECK_INT(e.code, ERR_INVALID);
    r.headers = NULL;
    r.methodz = "GET / HTTP/1.1";
    CHECK(fetch_start(pool, &r, &h, NULL) == NULL);
    s = one((struct fetch_request){.urlz = "ftp://127.0.0.1/"}, "");
    CHECK_INT(s.r.fault, FETCH_BAD);
    CHECK(!s.r.was_sent);
    s = one((struct fetch_request){.urlz = "http://"}, "");
    CHECK_INT(s.r.fault, FETCH_BAD);
    finish();
}

TEST(large_body_goes_in_pieces)
{
    char *p = xcalloc(1, 5 << 20);
    struct seen s;

    start();
    memset(p, 'a', 5 << 20);
    s = one((struct fetch_request){.body = str_of(p, 5 << 20)}, "/echo");
    CHECK_INT(s.r.fault, FETCH_OK);
    CHECK(s.body.n > 5 << 20 && memcmp(s.body.p + s.body.n - (5 << 20), p, 5 << 20) == 0);
    buf_release(&s.body);
    free(p);
    finish();
}

TEST(chunked_answer)
{
    struct seen s;

    start();
    s = one_plain("/chunked");
    CHECK_INT(s.r.fault, FETCH_OK);
    CHECK_STR(buf_str(&s.body), "abcde");
    CHECK_STR(str_z(s.type), "application/x-ndjson");
    buf_release(&s.body);
    finish();
}

TEST(answers_cut_short)
{
    struct seen s;

    start();
    s = one_plain("/cut");
    CHECK_INT(s.r.fault, FETCH_CUT);
    CHECK_INT(s.r.status, 200);
    CHECK(s.r.was_sent && s.body.n == 10);
    buf_release(&s.body);
    s = one_plain("/drop");
    CHECK_INT(s.r.fault, FETCH_CUT);
    CHECK(s.r.was_sent && s.n_heads == 0 && s.r.status == 0);
    s = one_plain("/garbage");
    CHECK_INT(s.r.fault, FETCH_BAD);
    CHECK(s.r.was_sent);
    finish();
}

TEST(limits_of_time)
{
    struct seen s;

    start();
    s = one((struct fetch_request){.first_byte_ms = 60, .idle_ms = 5000, .total_ms = 9000},
            "/hang");
    CHECK_INT(s.r.fault, FETCH_TIMEOUT_FIRST);
    CHECK(s.r.was_sent && s.r.total_ms >= 60 && s.r.total_ms < 4000 && s.r.first_byte_ms == -1);
    s = one((struct fetch_request){.first_byte_ms = 5000, .idle_ms = 60}, "/stall");
    CHECK_INT(s.r.fault, FETCH_TIMEOUT_IDLE);
    CHECK(s.r.total_ms >= 60 && s.r.total_ms < 4000 && s.body.n == 5);
    buf_release(&s.body);
    s = one((struct fetch_request){.first_byte_ms = 5000, .total_ms = 60}, "/stall");
    CHECK_INT(s.r.fault, FETCH_TIMEOUT_TOTAL);
    buf_release(&s.body);
    finish();
}

TEST(refused_connection)
{
    struct seen s;
    int fd;

    start();
    fd = bind_any(); /* bound, but nobody listens */
    s = one_plain("/ok");
    CHECK_INT(s.r.fault, FETCH_NO_CONNECT);
    CHECK(!s.r.was_sent && s.r.status == 0);
    close(fd);
    s = one((struct fetch_request){.urlz = "http://name.invalid/"}, "");
    CHECK_INT(s.r.fault, FETCH_NO_CONNECT);
    CHECK(!s.r.was_sent);
    finish();
}

TEST(connecting_takes_too_long)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct seen s;
    int fd, fill[4];

    start();
    fd = bind_any();
    CHECK_INT(listen(fd, 0), 0); /* a queue of one, which we fill */
    a.sin_port = htons((uint16_t)port);
    for (int i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], (struct sockaddr *)&a, sizeof a);
    }
    s = one((struct fetch_request){.connect_ms = 80}, "/ok");
    CHECK_INT(s.r.fault, FETCH_TIMEOUT_CONNECT);
    CHECK(!s.r.was_sent && s.r.total_ms < 4000);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    close(fd);
    finish();
}

TEST(too_large_and_refused_by_the_receiver)
{
    struct seen s = {.is_refusing = true};

    start();
    go(&s, (struct fetch_request){0}, "/big");
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(s.r.fault, FETCH_CUT);
    CHECK_INT(s.n_data, 1);
    buf_release(&s.body);
    s = one((struct fetch_request){.max_body_bytes = 100000}, "/big");
    CHECK_INT(s.r.fault, FETCH_TOO_LARGE);
    CHECK(s.body.n <= 100000);
    buf_release(&s.body);
    s = one((struct fetch_request){.max_body_bytes = 1 << 20}, "/big");
    CHECK_INT(s.r.fault, FETCH_OK);
    CHECK_INT(s.body.n, 1 << 20);
    buf_release(&s.body);
    finish();
}

TEST(busy_tells_when_to_come_back)
{
    struct seen s;

    start();
    s = one_plain("/busy");
    CHECK_INT(s.r.fault, FETCH_OK);
    CHECK_INT(s.r.status, 503);
    CHECK_INT(s.n_heads, 1);
    CHECK_INT(s.r.retry_after_ms, 7000);
    CHECK_INT(s.r.first_byte_ms, -1);
    s = one_plain("/ok");
    CHECK_INT(s.r.retry_after_ms, -1);
    buf_release(&s.body);
    finish();
}

TEST(connections_are_kept)
{
    struct seen s[8] = {{.n_done = 0}};

    start();
    for (int round = 0; round < 20; round++) {
        memset(s, 0, sizeof s);
        for (int i = 0; i < 8; i++)
            go(&s[i], (struct fetch_request){.total_ms = 5000}, "/ok");
        uv_run(&loop, UV_RUN_DEFAULT);
        for (int i = 0; i < 8; i++) {
            CHECK_INT(s[i].r.fault, FETCH_OK);
            buf_release(&s[i].body);
        }
    }
    CHECK_INT(n_requests, 160);
    CHECK(n_accepted <= 8);
    finish();
}

TEST(connection_closed_while_kept_is_opened_anew)
{
    struct seen s;

    start();
    for (int i = 0; i < 5; i++) {
        s = one_plain("/once");
        CHECK_INT(s.r.fault, FETCH_OK);
        buf_release(&s.body);
        for (int turns = 0; turns < 3; turns++) /* let the loop see the close, or not */
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    CHECK_INT(n_accepted, 5);
    finish();
}

TEST(connection_reset_at_its_second_request_is_opened_anew)
{
    struct seen s;

    start();
    for (int i = 0; i < 4; i++) {
        s = one_plain("/reset");
        CHECK_STR(str_z(s.r.message), "");
        CHECK_INT(s.r.fault, FETCH_OK);
        buf_release(&s.body);
    }
    CHECK_INT(n_accepted, 4);
    finish();
}

static void wait_for_hangups(int n)
{
    for (int i = 0; i < 5000 && n_hangups < n; i++)
        uv_sleep(1);
    CHECK_INT(n_hangups, n);
}

TEST(abort_hangs_up_and_says_nothing)
{
    struct seen queued = {0}, running = {0}, other = {0};

    start();
    fetch_abort(go(&queued, (struct fetch_request){0}, "/hang"));
    go(&running, (struct fetch_request){.first_byte_ms = 5000}, "/hang");
    while (n_requests < 1)
        uv_run(&loop, UV_RUN_NOWAIT);
    fetch_abort(running.fetch);
    wait_for_hangups(1);
    go(&other, (struct fetch_request){0}, "/ok");
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(other.r.fault, FETCH_OK);
    CHECK_INT(queued.n_done + running.n_done, 0);
    buf_release(&other.body);
    finish();
}

TEST(abort_from_callbacks_of_others)
{
    struct seen v[2] = {{.n_done = 0}}, by_data = {.victim = &v[0]}, by_done = {.victim = &v[1]};
    struct seen after = {0};

    start();
    go(&v[0], (struct fetch_request){0}, "/hang");
    go(&v[1], (struct fetch_request){.total_ms = 5000}, "/stall");
    while (v[1].n_data < 1 || n_requests < 2)
        uv_run(&loop, UV_RUN_NOWAIT);
    go(&by_data, (struct fetch_request){0}, "/chunked");
    by_done.next = &after;
    go(&by_done, (struct fetch_request){0}, "/busy");
    uv_run(&loop, UV_RUN_DEFAULT);
    wait_for_hangups(2);
    CHECK_INT(v[0].n_done + v[1].n_done, 0);
    CHECK(by_data.n_done == 1 && by_done.n_done == 1 && after.n_done == 1);
    CHECK_INT(after.r.fault, FETCH_OK);
    buf_release(&v[1].body);
    buf_release(&by_data.body);
    buf_release(&after.body);
    finish();
}

TEST(pool_freed_while_busy)
{
    struct seen hung = {0}, queued = {0}, killer = {0};

    for (int in_data = 0; in_data < 2; in_data++) {
        if (in_data == 0)
            start();
        else
            pool = fetch_pool_new(&loop, 8);
        killer = (struct seen){.freed = pool};
        go(&hung, (struct fetch_request){.first_byte_ms = 5000}, "/hang");
        go(&killer, (struct fetch_request){0}, in_data ? "/ok" : "/busy");
        CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0); /* ends: all is closed */
        CHECK_INT(hung.n_done, 0);
        CHECK_INT(killer.n_done, !in_data); /* its own call is aborted, too */
        buf_release(&killer.body);
    }
    pool = fetch_pool_new(&loop, 8);
    go(&queued, (struct fetch_request){0}, "/ok");
    finish();
    CHECK_INT(queued.n_done, 0);
}

TEST(names_are_resolved)
{
    struct seen s;
    char url[64];

    start();
    snprintf(url, sizeof url, "http://localhost:%d/ok", port);
    for (int i = 0; i < 3; i++) {
        s = one((struct fetch_request){.urlz = url}, "");
        CHECK_INT(s.r.fault, FETCH_OK);
        buf_release(&s.body);
        s = one_plain("/ok"); /* another host: another connection */
        CHECK_INT(s.r.fault, FETCH_OK);
        buf_release(&s.body);
    }
    fetch_pool_resize(pool, 1);
    s = one_plain("/ok");
    CHECK_INT(s.r.fault, FETCH_OK);
    buf_release(&s.body);
    finish();
}
