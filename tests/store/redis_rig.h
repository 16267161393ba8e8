/* A redis-server in the test's folder, and what redis-cli says of it. */
#pragma once
#include "base/clock.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 30000 };

/* What redis-cli prints, without the line's end. */
static inline struct str ask(const char *wordsz)
{
    static char text[4000];
    char command[400];
    size_t n;
    FILE *f;

    snprintf(command, sizeof command, "redis-cli -s r %s 2>&1", wordsz);
    f = popen(command, "r");
    CHECK(f);
    n = fread(text, 1, sizeof text - 1, f);
    pclose(f);
    return str_of(text, n && text[n - 1] == '\n' ? n - 1 : n);
}

static inline void await(const char *wordsz, const char *wantz)
{
    int64_t until_ms = clock_mono_ms() + LIMIT_MS;

    while (!str_eqz(ask(wordsz), wantz)) {
        CHECK(clock_mono_ms() < until_ms);
        usleep(10000);
    }
}

static inline pid_t start_program(const char *programz, const char *const *args, const char *outz)
{
    pid_t pid = fork();
    int out;

    if (pid == 0) {
        out = open(outz, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(out, 1);
        execvp(programz, (char *const *)(uintptr_t)args);
        _exit(127);
    }
    CHECK(pid > 0);
    return pid;
}

/* Its socket is "r"; *urlz is for genq. */
static inline pid_t start_redis(char **urlz)
{
    static char url[4200], here[4000];
    const char *const args[] = {"redis-server", "--port", "0", "--unixsocket", "r",
                                "--save",       "",       NULL};
    pid_t pid = start_program("redis-server", args, "redis.log.txt");

    await("PING", "PONG");
    CHECK(getcwd(here, sizeof here));
    snprintf(url, sizeof url, "unix:%s/r", here);
    *urlz = url;
    return pid;
}

static inline void end_redis(pid_t pid)
{
    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}
