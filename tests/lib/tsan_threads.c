/* C11's threads by POSIX': ThreadSanitizer sees only the latter, and dies in threads that
 * librdkafka makes by the former. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

struct start {
    thrd_start_t run;
    void *data;
};

static void *run(void *data)
{
    struct start s = *(struct start *)data;

    free(data);
    return (void *)(intptr_t)s.run(s.data);
}

int thrd_create(thrd_t *t, thrd_start_t fn, void *data)
{
    struct start *s = malloc(sizeof *s);

    if (!s)
        return thrd_nomem;
    *s = (struct start){fn, data};
    if (pthread_create(t, NULL, run, s) == 0)
        return thrd_success;
    free(s);
    return thrd_error;
}

int thrd_join(thrd_t t, int *result)
{
    void *got;

    if (pthread_join(t, &got) != 0)
        return thrd_error;
    if (result)
        *result = (int)(intptr_t)got;
    return thrd_success;
}
