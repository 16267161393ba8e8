#include "broker-config/kafka_wait.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

enum { SECOND_NS = 1000000000 };

/* glibc makes the one of the other, as do we. */
static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "a condition of C11 is one of POSIX");
static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "a mutex of C11 is one of POSIX");

#ifndef __SANITIZE_THREAD__ /* which sees these conditions, but not C11's locks around them */

/* The monotonic clock's time when the wall clock, as it stands now, will show `wall`. */
static struct timespec monotonic_of(const struct timespec *wall)
{
    struct timespec now, t;
    long ns;

    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_MONOTONIC, &t);
    ns = t.tv_nsec + wall->tv_nsec - now.tv_nsec; /* within one second below or two above */
    t.tv_sec += wall->tv_sec - now.tv_sec;
    for (; ns < 0; ns += SECOND_NS)
        t.tv_sec--;
    for (; ns >= SECOND_NS; ns -= SECOND_NS)
        t.tv_sec++;
    if (t.tv_sec < 0)
        t.tv_sec = 0;
    t.tv_nsec = ns;
    return t;
}

/* Called by librdkafka. */
int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict wall)
{
    struct timespec until = monotonic_of(wall);
    int rc = pthread_cond_clockwait((pthread_cond_t *)(void *)c, (pthread_mutex_t *)(void *)m,
                                    CLOCK_MONOTONIC, &until);

    return rc == 0 ? thrd_success : rc == ETIMEDOUT ? thrd_timedout : thrd_error;
}

#endif

void kafka_wait_link(void)
{
}
