#include "producer/http/watch.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLL_AFTER_MS 1000
#define EVENTS_MAX 64

struct watch {
    pthread_t thread;
    pthread_mutex_t lock;
    struct heap timers;
    struct watched **by_fd; /* whose descriptor is in the epoll set */
    size_t max_fds;
    int epoll_fd, wake_fd;
    int64_t sleeps_until_ms; /* INT64_MAX: for ever */
    bool is_stopping;
    void (*on_event)(struct watched *w, enum watch_event what);
};

/* Asks the kernel to tell once when the client hangs up. */
static void poll_fd(struct watch *w, struct watched *x)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.fd = x->fd};

    if (x->fd < 0 || (size_t)x->fd >= w->max_fds)
        return;
    w->by_fd[x->fd] = x;
    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, x->fd, &event) < 0 && errno == ENOENT)
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, x->fd, &event);
    x->has_fd = true;
    x->is_polled = true;
}

static void run_timers(struct watch *w, int64_t now_ms)
{
    struct heap_node *node;

    while ((node = heap_min(&w->timers)) && node->key <= now_ms) {
        struct watched *x = LIST_ENTRY(node, struct watched, timer);

        heap_remove(&w->timers, node);
        if (x->deadline_ms <= now_ms) {
            w->on_event(x, WATCH_LATE);
            continue;
        }
        poll_fd(w, x);
        heap_push(&w->timers, node, x->deadline_ms);
    }
}

/* The descriptor may have been closed and given to another connection since the kernel told. */
static bool has_hung_up(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void run_hang_up(struct watch *w, const struct epoll_event *event)
{
    int fd = event->data.fd;
    struct watched *x = w->by_fd[fd];
    /* Pipelined bytes may stand before the end of input: RDHUP alone says that no more will
     * come. */
    bool is_over = event->events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP);

    if (!x || !x->is_polled || !heap_has(&x->timer) || !(is_over || has_hung_up(fd)))
        return;
    heap_remove(&w->timers, &x->timer);
    x->is_polled = false;
    w->on_event(x, WATCH_GONE);
}

static int sleep_ms(struct watch *w)
{
    struct heap_node *node = heap_min(&w->timers);
    int64_t now_ms = clock_mono_ms();

    w->sleeps_until_ms = node ? node->key : INT64_MAX;
    if (!node)
        return -1;
    if (node->key <= now_ms)
        return 0;
    return node->key - now_ms > 60000 ? 60000 : (int)(node->key - now_ms);
}

static void *run(void *data)
{
    struct watch *w = data;
    struct epoll_event events[EVENTS_MAX];
    int timeout_ms;

    pthread_mutex_lock(&w->lock);
    while (!w->is_stopping) {
        timeout_ms = sleep_ms(w);
        pthread_mutex_unlock(&w->lock);
        int n = epoll_wait(w->epoll_fd, events, EVENTS_MAX, timeout_ms);
        pthread_mutex_lock(&w->lock);
        for (int i = 0; i < n; i++) {
            uint64_t count;

            if (events[i].data.fd != w->wake_fd)
                run_hang_up(w, &events[i]);
            else if (read(w->wake_fd, &count, sizeof count) < 0)
                continue;
        }
        run_timers(w, clock_mono_ms());
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void wake(struct watch *w)
{
    uint64_t one = 1;

    if (write(w->wake_fd, &one, sizeof one) < 0)
        return; /* the counter is full: it is awake */
}

struct watch *watch_start(size_t max_fds,
                          void (*on_event)(struct watched *w, enum watch_event what),
                          struct err *e)
{
    struct watch *w = xcalloc(1, sizeof *w);
    struct epoll_event event = {.events = EPOLLIN};

    pthread_mutex_init(&w->lock, NULL);
    heap_init(&w->timers);
    w->max_fds = max_fds;
    w->by_fd = xcalloc(max_fds, sizeof(struct watched *));
    w->on_event = on_event;
    w->sleeps_until_ms = INT64_MAX;
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event.data.fd = w->wake_fd;
    if (w->epoll_fd < 0 || w->wake_fd < 0 ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, &event) < 0 ||
        pthread_create(&w->thread, NULL, run, w) != 0) {
        err_set(e, ERR_IO, "cannot watch connections: %s", strerror(errno));
        free(w->by_fd);
        free(w);
        return NULL;
    }
    return w;
}

void watch_stop(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_stopping = true;
    pthread_mutex_unlock(&w->lock);
    wake(w);
    pthread_join(w->thread, NULL);
    close(w->epoll_fd);
    close(w->wake_fd);
    heap_release(&w->timers);
    pthread_mutex_destroy(&w->lock);
    free(w->by_fd);
    free(w);
}

void watch_add(struct watch *w, struct watched *x, int fd, int64_t deadline_ms)
{
    int64_t look_ms = clock_mono_ms() + POLL_AFTER_MS;
    bool is_sooner;

    pthread_mutex_lock(&w->lock);
    if (heap_has(&x->timer))
        heap_remove(&w->timers, &x->timer);
    x->fd = fd;
    x->deadline_ms = deadline_ms;
    x->is_polled = false;
    heap_push(&w->timers, &x->timer, deadline_ms < look_ms ? deadline_ms : look_ms);
    is_sooner = x->timer.key < w->sleeps_until_ms;
    if (is_sooner)
        w->sleeps_until_ms = x->timer.key;
    pthread_mutex_unlock(&w->lock);
    if (is_sooner)
        wake(w);
}

static void remove_locked(struct watch *w, struct watched *x)
{
    if (heap_has(&x->timer))
        heap_remove(&w->timers, &x->timer);
    x->is_polled = false;
}

void watch_remove(struct watch *w, struct watched *x)
{
    pthread_mutex_lock(&w->lock);
    remove_locked(w, x);
    pthread_mutex_unlock(&w->lock);
}

void watch_forget(struct watch *w, struct watched *x)
{
    pthread_mutex_lock(&w->lock);
    remove_locked(w, x);
    if (x->has_fd && w->by_fd[x->fd] == x) {
        w->by_fd[x->fd] = NULL;
        epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, x->fd, NULL);
    }
    x->has_fd = false;
    pthread_mutex_unlock(&w->lock);
}
