#include "base/fetch_sockets.h"
#include "base/buf.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_PLACES = 64 };

struct sock {
    uv_poll_t poll;
    struct sockets *all;
    int fd;
    int events;     /* uv_poll's, as armed */
    bool has_poll;  /* `poll` is initialized */
    bool is_opened; /* by sockets_open: not the resolver's */
    bool is_kept;   /* opened and connected: we are told when it closes, so it may stay armed */
    bool is_watched;
};

void sockets_init(struct sockets *s, uv_loop_t *loop,
                  void (*on_ready)(void *data, int fd, bool is_broken, int events),
                  void (*on_gone)(void *data), void *data)
{
    *s = (struct sockets){.loop = loop, .on_ready = on_ready, .on_gone = on_gone, .data = data};
}

void sockets_release(struct sockets *s)
{
    free(s->by_fd);
    s->by_fd = NULL;
    s->n = 0;
}

static struct sock *find(const struct sockets *s, int fd)
{
    return (size_t)fd < s->n ? s->by_fd[fd] : NULL;
}

static struct sock *add(struct sockets *s, int fd)
{
    struct sock *sock = xcalloc(1, sizeof *sock);
    size_t n = s->n ? s->n : FIRST_PLACES;

    while (n <= (size_t)fd)
        n *= 2;
    if (n > s->n) {
        s->by_fd = xrealloc(s->by_fd, n * sizeof s->by_fd[0]);
        memset(s->by_fd + s->n, 0, (n - s->n) * sizeof s->by_fd[0]);
        s->n = n;
    }
    sock->all = s;
    sock->fd = fd;
    s->by_fd[fd] = sock;
    return sock;
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct sock *sock = handle->data;
    struct sockets *s = sock->all;

    free(sock);
    s->n_polls--;
    s->on_gone(s->data);
}

static void drop(struct sock *sock)
{
    sock->all->by_fd[sock->fd] = NULL;
    if (sock->has_poll)
        uv_close((uv_handle_t *)&sock->poll, on_poll_closed);
    else
        free(sock);
}

int sockets_open(struct sockets *s, int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC, protocol);
    struct sock *stale;

    if (fd < 0)
        return fd;
    stale = find(s, fd); /* closed in silence, and its number is used again */
    if (stale)
        drop(stale);
    add(s, fd)->is_opened = true;
    return fd;
}

int sockets_close(struct sockets *s, int fd)
{
    struct sock *sock = find(s, fd);

    if (sock)
        drop(sock);
    return close(fd);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct sock *sock = poll->data;

    if (status < 0)
        sock->events = 0;    /* libuv has stopped it */
    if (!sock->is_watched) { /* the other side closed a kept connection: its owner will see that */
        uv_poll_stop(poll);
        sock->events = 0;
        return;
    }
    sock->all->on_ready(sock->all->data, sock->fd, status < 0, events);
}

static int arm(struct sock *sock, int events)
{
    if (!sock->has_poll) {
        if (uv_poll_init_socket(sock->all->loop, &sock->poll, sock->fd) != 0)
            return -1;
        sock->poll.data = sock;
        sock->has_poll = true;
        sock->all->n_polls++;
    }
    if (sock->events == events)
        return 0;
    sock->events = events;
    return uv_poll_start(&sock->poll, events, on_poll) == 0 ? 0 : -1;
}

int sockets_watch(struct sockets *s, int fd, int events)
{
    struct sock *sock = find(s, fd);

    if (!sock)
        sock = add(s, fd);
    if (arm(sock, events) != 0)
        return -1;
    if (!sock->is_watched)
        uv_ref((uv_handle_t *)&sock->poll);
    sock->is_watched = true;
    return 0;
}

/* libcurl 7.88 closes sockets that never connected, and its resolver's, without a word to us, and
 * before it says that it is done with them: only a connected one may be touched after that. */
static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;

    return getpeername(fd, (struct sockaddr *)&peer, &n) == 0;
}

void sockets_unwatch(struct sockets *s, int fd)
{
    struct sock *sock = find(s, fd);

    if (!sock)
        return;
    sock->is_watched = false;
    if (!sock->is_kept) /* asked once in the life of a connection */
        sock->is_kept = sock->is_opened && is_connected(fd);
    if (!sock->is_kept) {
        drop(sock);
        return;
    }
    if (sock->events & UV_WRITABLE)
        arm(sock, UV_READABLE);
    if (sock->has_poll)
        uv_unref((uv_handle_t *)&sock->poll); /* a kept connection does not keep the loop running */
}
