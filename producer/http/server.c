/* The daemon, and a request's life: headers, body, handler, end. */
#include "base/log.h"
#include "producer/http/connection.h"
#include "producer/http/router.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IDLE_TIMEOUT_S 30
#define STOP_MAX_S 2 /* for the answers under way */
#define STREAM_MAX_BYTES ((size_t)64 << 20)
/* Descriptors kept back for the database, engines and files. */
#define FDS_KEPT 500
/* What is read and dropped of a body that was refused, so that the client sees the answer. */
#define DISCARD_MAX_BYTES ((size_t)16 << 20)

/* ---- a request's life ---- */
struct framing {
    int n_lengths, n_encodings;
};

static enum MHD_Result on_header(void *data, enum MHD_ValueKind kind, const char *namez,
                                 const char *valuez)
{
    struct framing *f = data;

    (void)kind, (void)valuez;
    f->n_lengths += strcasecmp(namez, "Content-Length") == 0;
    f->n_encodings += strcasecmp(namez, "Transfer-Encoding") == 0;
    return MHD_YES;
}

/* RFC 9112, 6.1: both, or two of one, is how requests are smuggled past a proxy. */
static bool is_smuggled(struct server_connection *c)
{
    struct framing f = {0, 0};

    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, on_header, &f);
    return f.n_lengths + f.n_encodings > 1;
}

/* A Host, or an Origin's authority: "localhost", "127.x.y.z" or "[::1]", with or without a port. */
static bool is_loopback_host(struct str host)
{
    char z[64];
    struct in_addr in4;
    size_t n = 0;

    if (str_eqz(host, "[::1]") || str_starts(host, STR("[::1]:")))
        return true;
    while (n < host.n && host.p[n] != ':')
        n++;
    host.n = n;
    if (str_eqz(host, "localhost"))
        return true;
    /* As a number: "127.0.0.1.example.org" is a name like any other. */
    return str_copyz(z, sizeof z, host) && inet_pton(AF_INET, z, &in4) == 1 &&
           ntohl(in4.s_addr) >> 24 == 127;
}

/* Without auth only programs of this machine may come in: a web page in a browser here carries
 * its own Origin, and a rebound name its own Host. */
static bool is_foreign(struct request *q)
{
    struct str host = request_header(q, "Host"), origin = request_header(q, "Origin");

    if (host.p && !is_loopback_host(host))
        return true;
    if (!origin.p)
        return false;
    if (str_starts(origin, STR("http://")))
        return !is_loopback_host(str_of(origin.p + 7, origin.n - 7));
    if (str_starts(origin, STR("https://")))
        return !is_loopback_host(str_of(origin.p + 8, origin.n - 8));
    return true;
}

static bool is_too_long(struct server_connection *c)
{
    int64_t n;

    return !c->request.route->on_body &&
           str_int(request_header(&c->request, "Content-Length"), &n) &&
           n > c->server->gateway->config->limits_body_bytes;
}

/* A reply before the body is read would close the connection under a client that still sends,
 * and it would never see why. So a body of a fair size is read and dropped first; a client that
 * asks (Expect: 100-continue) is told at once. */
static bool is_body_to_come(struct request *q)
{
    struct str length = request_header(q, "Content-Length");
    int64_t n = 0;

    if (request_header(q, "Expect").p)
        return false;
    if (length.p)
        return str_int(length, &n) && n > 0 && n <= (int64_t)DISCARD_MAX_BYTES;
    return request_header(q, "Transfer-Encoding").p != NULL;
}

static void reply_too_long(struct request *q)
{
    request_reply_error(q, REASON_TOO_LARGE, NULL,
                        "the body is larger than limits.body_bytes (%lld)",
                        (long long)q->gateway->config->limits_body_bytes);
}

/* The headers have come: finds the route, refuses what can be refused without the body. */
static void begin(struct server_connection *c)
{
    struct request *q = &c->request;
    char allow[64];
    unsigned mask;

    q->route = router_find(c->server->routes, str_z(q->methodz), str_z(q->pathz), q->vars, &mask);
    if (is_smuggled(c)) {
        c->is_refused = true; /* where this body ends nobody knows */
        request_add_header(q, "Connection", "close");
        request_reply_error(q, REASON_INVALID_REQUEST, NULL,
                            "the request has more than one Content-Length or Transfer-Encoding");
    } else if (is_foreign(q)) {
        request_reply_status(q, 403, REASON_INVALID_REQUEST, "forbidden", NULL,
                             "without keys only programs of this machine are served: Host "
                             "and Origin must be loopback");
    } else if (!q->route && mask) {
        router_allow(mask, allow);
        request_add_header(q, "Allow", allow);
        request_reply_status(q, 405, REASON_INVALID_REQUEST, "method_not_allowed", NULL,
                             "%s is not allowed here; allowed: %s", q->methodz, allow);
    } else if (!q->route) {
        request_reply_status(q, 404, REASON_INVALID_REQUEST, "not_found", NULL,
                             "no such path: %s %s", q->methodz, q->pathz);
    } else if (is_too_long(c)) {
        reply_too_long(q);
    } else if (q->route->on_body) {
        q->route->handle(q);
    }
}

static struct server_connection *connection_new(struct server *s, struct MHD_Connection *mhd,
                                                const char *url, const char *method)
{
    struct server_connection *c = xcalloc(1, sizeof *c);

    c->server = s;
    c->mhd = mhd;
    pthread_mutex_init(&c->lock, NULL);
    buf_init(&c->out, STREAM_MAX_BYTES);
    c->request.connection = c;
    c->request.gateway = s->gateway;
    c->request.methodz = method;
    c->request.pathz = url;
    buf_init(&c->request.body, (size_t)s->gateway->config->limits_body_bytes);
    pthread_mutex_lock(&s->lock);
    s->n_requests++;
    pthread_mutex_unlock(&s->lock);
    return c;
}

/* A piece of body. MHD_NO closes the connection. */
static enum MHD_Result take_body(struct server_connection *c, struct str piece)
{
    struct request *q = &c->request;

    if (connection_has_reply(c)) {
        c->n_discarded += piece.n;
        return c->n_discarded > DISCARD_MAX_BYTES ? MHD_NO : MHD_YES;
    }
    if (q->route->on_body)
        q->route->on_body(q, piece);
    else if (buf_adds(&q->body, piece) < 0)
        reply_too_long(q);
    return MHD_YES;
}

static void end_body(struct server_connection *c)
{
    struct request *q = &c->request;

    c->is_body_over = true;
    if (connection_has_reply(c))
        return;
    if (q->route->on_body)
        q->route->on_body(q, STR_NONE);
    else
        q->route->handle(q);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *body,
                                  size_t *n_body, void **state)
{
    struct server_connection *c = *state;

    (void)version;
    if (!c) {
        *state = c = connection_new(cls, mhd, url, method);
        begin(c);
        c->is_first_call = c->is_refused || !is_body_to_come(&c->request);
        enum MHD_Result rc = connection_queue(c);
        c->is_first_call = false;
        return rc;
    }
    if (*n_body) {
        enum MHD_Result rc;

        connection_wake_up(c); /* after request_pause_body */
        rc = take_body(c, str_of(body, *n_body));
        *n_body = 0;
        return rc;
    }
    if (!c->is_body_over) {
        connection_wake_up(c);
        end_body(c);
    }
    connection_dispatch(c);
    /* Its handler has only cleaned up. Asked again and again for a reply that will not come, it would
     * take all of the thread. */
    if (c->request.is_gone && !connection_has_reply(c))
        return MHD_NO;
    return connection_queue(c);
}

static void count_down(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    if (--s->n_requests == 0)
        pthread_cond_signal(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **state,
                         enum MHD_RequestTerminationCode why)
{
    struct server_connection *c = *state;

    (void)cls, (void)mhd, (void)why;
    if (!c)
        return;
    connection_wake_up(c);
    watch_forget(c->server->watch, &c->watched);
    c->request.is_gone = true;
    if (c->request.on_end)
        c->request.on_end(&c->request);
    /* Nobody knows the request any more, but one last wake may still hold its lock. */
    pthread_mutex_lock(&c->lock);
    pthread_mutex_unlock(&c->lock);
    if (c->response)
        MHD_destroy_response(c->response);
    buf_release(&c->request.body);
    buf_release(&c->out);
    pthread_mutex_destroy(&c->lock);
    count_down(c->server);
    free(c);
    *state = NULL;
}

/* ---- starting and stopping ---- */

/* On the watch's thread. */
static void on_watch(struct watched *w, enum watch_event what)
{
    connection_nudge(LIST_ENTRY(w, struct server_connection, watched), what);
}


/* Parses "host:port" into a loopback address. */
static int parse_listen(const char *listenz, struct sockaddr_storage *out, struct err *e)
{
    char host[256];
    const char *colon = strrchr(listenz, ':');
    int64_t port;
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

    if (!colon || !str_int(str_z(colon + 1), &port) || port < 0 || port > 65535)
        return err_set(e, ERR_INVALID, "listen: '%s' is not host:port", listenz);
    str_copyz(host, sizeof host, str_of(listenz, (size_t)(colon - listenz)));
    memset(out, 0, sizeof *out);
    if (strcmp(host, "[::1]") == 0) {
        in6->sin6_family = AF_INET6;
        in6->sin6_addr = in6addr_loopback;
        in6->sin6_port = htons((uint16_t)port);
        return 0;
    }
    if (strcmp(host, "localhost") == 0)
        str_copyz(host, sizeof host, STR("127.0.0.1"));
    in4->sin_family = AF_INET;
    in4->sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &in4->sin_addr) != 1)
        return err_set(e, ERR_INVALID, "listen: '%s' is not an address", host);
    if (ntohl(in4->sin_addr.s_addr) >> 24 != 127)
        return err_set(e, ERR_INVALID,
                       "listen: %s is not loopback; without keys genq serves this machine only",
                       listenz);
    return 0;
}

/* As many descriptors as we may have. */
static size_t raise_fds(void)
{
    struct rlimit limit = {1024, 1024};

    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max > 1048576 ? 1048576 : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur > 1048576 ? 1048576 : (size_t)limit.rlim_cur;
}

static unsigned connection_limit(const struct gateway *g, size_t n_fds)
{
    int64_t room = (int64_t)n_fds - FDS_KEPT;
    int64_t wanted = g->config->limits_connections;

    if (room < 16)
        room = 16;
    return (unsigned)(wanted < room ? wanted : room);
}

static int open_readers(struct server *s, struct err *e)
{
    for (int i = 0; s->gateway->store && i < SERVER_THREADS; i++) {
        s->readers[i] = reader_open(s->gateway->config->data, s->gateway->live, e);
        if (!s->readers[i])
            return e->code;
    }
    return 0;
}

static int start_daemon(struct server *s, const char *listenz, size_t n_fds, struct err *e)
{
    struct sockaddr_storage address;
    const union MHD_DaemonInfo *info;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;

    if (parse_listen(listenz, &address, e) < 0)
        return e->code;
    if (address.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    errno = 0;
    /* No MHD_OPTION_LISTENING_ADDRESS_REUSE: a second genq could take half of our connections
     * (SO_REUSEPORT). A restart at once is allowed without it. */
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)SERVER_THREADS, MHD_OPTION_CONNECTION_LIMIT,
        connection_limit(s->gateway, n_fds), MHD_OPTION_LISTEN_BACKLOG_SIZE, 4096u,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, s, MHD_OPTION_END);
    if (!s->daemon) {
        if (errno == EADDRINUSE)
            return err_set(e, ERR_BUSY, "%s is in use by another program", listenz);
        return err_set(e, ERR_IO, "cannot listen on %s: %s", listenz, strerror(errno));
    }
    info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : 0;
    return 0;
}

/* All but the threads. */
static void release(struct server *s)
{
    for (int i = 0; i < SERVER_THREADS; i++)
        if (s->readers[i])
            reader_close(s->readers[i]);
    pthread_key_delete(s->reader);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct server *server_start(const struct gateway *g, const struct route *served,
                            const char *listenz, struct err *e)
{
    struct server *s = xcalloc(1, sizeof *s);
    size_t n_fds = raise_fds();

    s->gateway = g;
    s->routes = served;
    list_init(&s->waiting);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    pthread_key_create(&s->reader, NULL);
    if (open_readers(s, e) == 0)
        s->watch = watch_start(n_fds, on_watch, e);
    if (s->watch && start_daemon(s, listenz, n_fds, e) == 0)
        return s;
    if (s->watch)
        watch_stop(s->watch);
    release(s);
    return NULL;
}

int server_port(const struct server *s)
{
    return s->port;
}

/* Wakes all that wait: their handlers see is_late, and streams end. Gives the answers time to
 * leave. */
static void wake_all(struct server *s)
{
    struct timespec limit;
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    for (struct list *node = s->waiting.next; node != &s->waiting; node = node->next)
        connection_nudge(LIST_ENTRY(node, struct server_connection, node), WATCH_LATE);
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += STOP_MAX_S;
    while (rc == 0 && s->n_requests > 0)
        rc = pthread_cond_timedwait(&s->idle, &s->lock, &limit);
    pthread_mutex_unlock(&s->lock);
}

/* No MHD_quiesce_daemon: in 0.9.75 it and the pool's threads race for the listener's place in their
 * epoll sets, and the loser aborts the process. Who comes meanwhile is answered, but may not
 * wait. */
void server_stop(struct server *s)
{
    wake_all(s);
    MHD_stop_daemon(s->daemon);
    watch_stop(s->watch);
    release(s);
}
