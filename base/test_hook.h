/* Seams for the chaos tests; nothing in a normal build. With -DGENQ_TEST_HOOKS:
 *
 * GENQ_CRASH_AT=<step>[:n]  the process kills itself the n-th time (default 1) it comes to a step:
 *     start_journalled called answered published acked due_read due_published cancel_seen
 *     routed
 * GENQ_SKIP=<step>          leaves a step out, so that a test can prove that it matters:
 *     journal source ack due_source cancel_abort finish_publish takeover resume; low_mark commits
 *     one past it */
#pragma once

#ifdef GENQ_TEST_HOOKS
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline void hook_crash(const char *stepz)
{
    static int n_seen;
    const char *at = getenv("GENQ_CRASH_AT");
    size_t n = strlen(stepz);

    if (!at || strncmp(at, stepz, n) != 0 || (at[n] != '\0' && at[n] != ':'))
        return;
    if (++n_seen >= (at[n] == ':' ? (int)strtol(at + n + 1, NULL, 10) : 1))
        raise(SIGKILL);
}

static inline bool hook_skip(const char *stepz)
{
    const char *skip = getenv("GENQ_SKIP");

    return skip && strcmp(skip, stepz) == 0;
}

#define HOOK_CRASH(step) hook_crash(step)
#define HOOK_SKIP(step) hook_skip(step)
#else
#define HOOK_CRASH(step) ((void)0)
#define HOOK_SKIP(step) false
#endif
