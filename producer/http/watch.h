/* The watch over suspended requests: tells when a deadline has passed or the client has hung up.
 * One thread. A hang-up is looked for only once a request has waited a second, so that short
 * waits cost no system call. Sources: epoll(7), EPOLLRDHUP. */
#pragma once
#include "base/err.h"
#include "base/heap.h"
#include <stdlib.h>

struct watch;

enum watch_event { WATCH_LATE, WATCH_GONE };

/* One suspended request; embedded in it. */
struct watched {
    struct heap_node timer; /* private */
    int fd;
    int64_t deadline_ms;    /* monotonic */
    bool is_polled, has_fd;
};

/* on_event runs on the watch's thread, under its lock: it may resume the request, and must not call
 * watch_*. max_fds: descriptors are below it. */
struct watch *watch_start(size_t max_fds,
                          void (*on_event)(struct watched *w, enum watch_event what),
                          struct err *e);
void watch_stop(struct watch *w);

/* Any thread. Watches x until watch_remove; a second add moves its deadline. */
void watch_add(struct watch *w, struct watched *x, int fd, int64_t deadline_ms);
/* After it returns no event of x runs or comes; x may be added again. */
void watch_remove(struct watch *w, struct watched *x);
/* The connection of x is closing: forgets its descriptor as well. */
void watch_forget(struct watch *w, struct watched *x);
