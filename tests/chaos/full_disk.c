/* A disk that is full for one write, for tests/chaos/33_full_once.py: preloaded into genq. While
 * the file $FULL_DISK is there, whoever writes to a file whose name ends in $FULL_DISK_NAME makes
 * $FULL_DISK.met, waits until $FULL_DISK is gone, and is then told that there is no room. So the
 * test says what else happens while that one write is on its way. System calls are made directly,
 * so that a sanitizer's interceptors do not matter. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LOOK_US 1000

static bool is_there(const char *path)
{
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static bool ends_in(int fd, const char *tail)
{
    char link[64], path[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path);
    return n >= (ssize_t)strlen(tail) &&
           memcmp(path + (size_t)n - strlen(tail), tail, strlen(tail)) == 0;
}

static bool is_full(int fd)
{
    const char *full = getenv("FULL_DISK"), *tail = getenv("FULL_DISK_NAME");
    char met[PATH_MAX];

    if (!full || !tail || !is_there(full) || !ends_in(fd, tail))
        return false;
    snprintf(met, sizeof met, "%s.met", full);
    syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, met, O_WRONLY | O_CREAT, 0600));
    while (is_there(full))
        usleep(LOOK_US);
    errno = ENOSPC;
    return true;
}

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
    return is_full(fd) ? -1 : (ssize_t)syscall(SYS_write, fd, p, n);
}

EXPORT ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return is_full(fd) ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);
}

EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return pwrite64(fd, p, n, at);
}
