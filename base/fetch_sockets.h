/* The sockets of a fetch_pool on libuv. Whoever sends on them forgets a socket after every answer
 * and asks for it again at the next request; as they are opened and closed here, their uv_poll_t
 * stays armed for reading in between. Knows nothing of libcurl, fetch.c's alone. Loop's thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct sock;

struct sockets {
    uv_loop_t *loop;
    /* A watched socket is ready (UV_READABLE, UV_WRITABLE), or broken. May close, watch, unwatch.
     */
    void (*on_ready)(void *data, int fd, bool is_broken, int events);
    void (*on_gone)(void *data); /* one of n_polls is closed: may release the sockets */
    void *data;
    struct sock **by_fd;
    size_t n;       /* places in by_fd */
    size_t n_polls; /* libuv's handles, not yet closed */
};

void sockets_init(struct sockets *s, uv_loop_t *loop,
                  void (*on_ready)(void *data, int fd, bool is_broken, int events),
                  void (*on_gone)(void *data), void *data);
/* When all are closed and n_polls is 0. */
void sockets_release(struct sockets *s);

/* As socket(2) and close(2). */
int sockets_open(struct sockets *s, int family, int type, int protocol);
int sockets_close(struct sockets *s, int fd);

/* Wants on_ready for these events, of any descriptor: a resolver's is not opened here. 0, or -1
 * when libuv refuses. */
int sockets_watch(struct sockets *s, int fd, int events);
/* No on_ready until the next watch. A connection that was opened here does not keep uv_run running
 * from now on; any other descriptor is forgotten. */
void sockets_unwatch(struct sockets *s, int fd);
