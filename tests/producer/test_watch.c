#include "base/buf.h"
#include "base/clock.h"
#include "producer/http/watch.h"
#include "tests/lib/test.h"
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { N = 100 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t told;
    int n_late, n_gone;
    struct watched *last;
    int64_t at_ms;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};

static void on_event(struct watched *w, enum watch_event what)
{
    pthread_mutex_lock(&seen.lock);
    if (what == WATCH_LATE)
        seen.n_late++;
    else
        seen.n_gone++;
    seen.last = w;
    seen.at_ms = clock_mono_ms();
    pthread_cond_signal(&seen.told);
    pthread_mutex_unlock(&seen.lock);
}

/* Waits until so many events have come. */
static void await(int n_late, int n_gone)
{
    struct timespec limit;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    pthread_mutex_lock(&seen.lock);
    while (rc == 0 && (seen.n_late < n_late || seen.n_gone < n_gone))
        rc = pthread_cond_timedwait(&seen.told, &seen.lock, &limit);
    pthread_mutex_unlock(&seen.lock);
    CHECK_INT(seen.n_late, n_late);
    CHECK_INT(seen.n_gone, n_gone);
}

static struct watch *start(void)
{
    struct err e;
    struct watch *w = watch_start(1024, on_event, &e);

    CHECK(w != NULL);
    return w;
}

TEST(a_deadline_is_told_once_and_not_early)
{
    struct watch *w = start();
    struct watched x = {.has_fd = false};
    int fds[2];
    int64_t deadline_ms = clock_mono_ms() + 50;

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    watch_add(w, &x, fds[0], deadline_ms);
    await(1, 0);
    CHECK(seen.last == &x);
    CHECK(seen.at_ms >= deadline_ms);
    watch_forget(w, &x);
    watch_stop(w);
    CHECK_INT(seen.n_late, 1);
}

TEST(a_removed_one_is_silent)
{
    struct watch *w = start();
    struct watched x = {.has_fd = false}, y = {.has_fd = false};
    int64_t now_ms = clock_mono_ms();

    watch_add(w, &x, -1, now_ms + 2000);
    watch_add(w, &y, -1, now_ms + 2050);
    watch_remove(w, &x);
    await(1, 0);
    CHECK(seen.last == &y);
    watch_stop(w);
}

TEST(a_second_add_moves_the_deadline)
{
    struct watch *w = start();
    struct watched x = {.has_fd = false};
    int64_t now_ms = clock_mono_ms();

    watch_add(w, &x, -1, now_ms + 100000);
    watch_add(w, &x, -1, now_ms + 20);
    await(1, 0);
    CHECK(seen.at_ms - now_ms < 50000);
    watch_add(w, &x, -1, INT64_MAX); /* and it may wait again */
    watch_forget(w, &x);
    watch_stop(w);
}

TEST(a_hang_up_is_noticed)
{
    struct watch *w = start();
    struct watched x = {.has_fd = false}, y = {.has_fd = false};
    int a[2], b[2];

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    watch_add(w, &x, a[0], INT64_MAX);
    watch_add(w, &y, b[0], INT64_MAX);
    CHECK_INT(write(b[1], "pipelined", 9), 9); /* bytes are no hang-up */
    close(a[1]);
    await(0, 1);
    CHECK(seen.last == &x);
    watch_forget(w, &x);
    watch_forget(w, &y);
    watch_stop(w);
    CHECK_INT(seen.n_gone, 1);
}

TEST(a_descriptor_used_again_is_the_new_owners)
{
    struct watch *w = start();
    struct watched x = {.has_fd = false}, y = {.has_fd = false};
    int a[2], b[2];

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    watch_add(w, &x, a[0], clock_mono_ms() + 1200); /* long enough to be looked at */
    await(1, 0);
    watch_forget(w, &x);
    close(a[0]);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    CHECK_INT(b[0], a[0]);
    watch_add(w, &y, b[0], INT64_MAX);
    close(b[1]);
    await(1, 1);
    CHECK(seen.last == &y);
    watch_forget(w, &y);
    watch_stop(w);
}

TEST(many_come_due_in_order)
{
    struct watch *w = start();
    static struct watched x[N];
    int64_t now_ms = clock_mono_ms();

    for (int i = 0; i < N; i++)
        watch_add(w, &x[i], -1, now_ms + 2000 + (i * 7919) % N);
    await(N, 0);
    CHECK(seen.last->deadline_ms == now_ms + 2000 + N - 1);
    watch_stop(w);
}
