/* A load of POSTs on many keep-alive connections, one request in flight on each: sends each line of a
 * file as a body. Links nothing of genq; cheap enough not to be what is measured.
 *
 *     post --port PORT --path /api/v1/jobs --in FILE [--connections 64]
 *
 * Prints one JSON line: sent, failed (answers that are not 2xx), wall_s. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define REPLY_MAX 65536

struct connection {
    int fd;
    size_t n; /* bytes of the reply so far */
    char reply[REPLY_MAX];
};

struct load {
    const char *path;
    int port;
    FILE *in;
    char *line;
    size_t room;
    long n_sent, n_failed, n_open;
};

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "post: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Sends the next line; 0 when there is none. */
static int send_next(struct load *l, struct connection *c)
{
    static char request[1 << 20];
    ssize_t n = getline(&l->line, &l->room, l->in);
    int head;

    if (n <= 0)
        return 0;
    head = snprintf(request, sizeof request,
                    "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                    "Content-Length: %zd\r\n\r\n",
                    l->path, n);
    if ((size_t)head + (size_t)n > sizeof request)
        die("a line is too long");
    memcpy(request + head, l->line, (size_t)n);
    if (write(c->fd, request, (size_t)head + (size_t)n) != head + n)
        die("write");
    c->n = 0;
    l->n_sent++;
    return 1;
}

/* 1 when a whole reply (with Content-Length) has come. */
static int is_whole(struct connection *c)
{
    char *body, *length;

    c->reply[c->n] = 0;
    body = strstr(c->reply, "\r\n\r\n");
    if (!body)
        return 0;
    length = strcasestr(c->reply, "content-length:");
    return length && c->n >= (size_t)(body + 4 - c->reply) + strtoul(length + 15, NULL, 10);
}

static void on_readable(struct load *l, struct connection *c)
{
    ssize_t n = read(c->fd, c->reply + c->n, REPLY_MAX - 1 - c->n);

    if (n <= 0)
        die("the server hung up");
    c->n += (size_t)n;
    if (!is_whole(c))
        return;
    if (strncmp(c->reply, "HTTP/1.1 2", 10) != 0 && l->n_failed++ == 0)
        fprintf(stderr, "post: %.300s\n", c->reply);
    if (!send_next(l, c)) {
        close(c->fd);
        l->n_open--;
    }
}

static void run(struct load *l, int n_connections)
{
    struct connection *all = calloc((size_t)n_connections, sizeof *all);
    struct epoll_event events[64];
    int epoll = epoll_create1(0);

    if (!all || epoll < 0)
        die("start");
    for (int i = 0; i < n_connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};

        all[i].fd = dial(l->port);
        if (!send_next(l, &all[i]))
            break;
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
        l->n_open++;
    }
    while (l->n_open > 0) {
        int n = epoll_wait(epoll, events, 64, 30000);

        if (n == 0)
            errno = ETIMEDOUT, die("wait");
        for (int i = 0; i < n; i++)
            on_readable(l, events[i].data.ptr);
    }
    free(all);
}

int main(int argc, char **argv)
{
    struct load l = {.path = "/api/v1/jobs"};
    const char *in = NULL;
    int n_connections = 64;
    double start;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            l.port = (int)strtol(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--path") == 0)
            l.path = argv[i + 1];
        else if (strcmp(argv[i], "--in") == 0)
            in = argv[i + 1];
        else if (strcmp(argv[i], "--connections") == 0)
            n_connections = (int)strtol(argv[i + 1], NULL, 10);
    }
    if (!in || !l.port || !(l.in = fopen(in, "r")))
        die("usage: post --port PORT --in FILE [--path PATH] [--connections N]");
    start = now_s();
    run(&l, n_connections);
    printf("{\"sent\":%ld,\"failed\":%ld,\"wall_s\":%.4f}\n", l.n_sent, l.n_failed, now_s() - start);
    return l.n_failed ? 1 : 0;
}
