/* A wall clock that jumps, for tests/lib/clock.py: preloaded into genq, it adds to
 * CLOCK_REALTIME the milliseconds that stand in the file $WALL_CLOCK (an int64_t, mapped: a change
 * holds at once), and leaves the other clocks alone. Whoever sleeps until a time of that clock
 * sleeps by it: after a jump back an hour longer, as the kernel has it. The time that a condition
 * is awaited for is one of the wall clock's if it is later than 2001. System calls are made
 * directly, so that nothing here calls itself. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { SLICE_NS = 20000000, WALL_S = 1000000000 };

static const volatile int64_t *offset_ms;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WALL_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset_ms, PROT_READ, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED)
        abort();
    offset_ms = p;
    close(fd);
}

static void add_ns(struct timespec *t, int64_t ns)
{
    int64_t all = t->tv_nsec + ns % 1000000000;

    t->tv_sec += ns / 1000000000 + (all >= 1000000000) - (all < 0);
    t->tv_nsec = all + (all < 0 ? 1000000000 : 0) - (all >= 1000000000 ? 1000000000 : 0);
}

static void read_clock(clockid_t id, struct timespec *t)
{
    syscall(SYS_clock_gettime, id, t);
    if ((id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) && offset_ms)
        add_ns(t, *offset_ms * 1000000);
}

EXPORT int clock_gettime(clockid_t id, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, id, t);

    if (rc == 0)
        read_clock(id, t);
    return (int)rc;
}

EXPORT int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;

    (void)zone;
    read_clock(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

EXPORT time_t time(time_t *out)
{
    struct timespec t;

    read_clock(CLOCK_REALTIME, &t);
    if (out)
        *out = t.tv_sec;
    return t.tv_sec;
}

EXPORT int timespec_get(struct timespec *t, int base)
{
    if (base != TIME_UTC)
        return 0;
    read_clock(CLOCK_REALTIME, t);
    return base;
}

static int is_over(const struct timespec *until)
{
    struct timespec now;

    read_clock(CLOCK_REALTIME, &now);
    return now.tv_sec > until->tv_sec ||
           (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m,
                                  const struct timespec *restrict until)
{
    struct timespec slice;
    int rc = ETIMEDOUT;

    if (until->tv_sec < WALL_S)
        return pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, until);
    while (rc == ETIMEDOUT && !is_over(until)) {
        read_clock(CLOCK_MONOTONIC, &slice);
        add_ns(&slice, SLICE_NS);
        rc = pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &slice);
    }
    return rc;
}

/* glibc's are the same two under other names. */
EXPORT int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m,
                         const struct timespec *restrict until)
{
    int rc = pthread_cond_timedwait((pthread_cond_t *)c, (pthread_mutex_t *)m, until);

    return rc == 0 ? thrd_success : rc == ETIMEDOUT ? thrd_timedout : thrd_error;
}
