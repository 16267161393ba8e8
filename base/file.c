#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024 };

static int set_errno(struct err *e, const char *pathz)
{
    int code = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;

    return err_set(e, code, "%s: %s", pathz, strerror(errno));
}

static ssize_t read_some(int fd, char *p, size_t n)
{
    ssize_t got;

    do {
        got = read(fd, p, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Reads to the end of fd. At b's ceiling one byte more tells a file that just fits from one that
 * does not. */
static int read_rest(int fd, const char *pathz, struct buf *b, struct err *e)
{
    ssize_t got;
    size_t room;
    char extra;

    do {
        room = b->max - b->n < READ_BYTES ? b->max - b->n : READ_BYTES;
        got = room ? read_some(fd, buf_reserve(b, room), room) : read_some(fd, &extra, 1);
        if (got < 0)
            return set_errno(e, pathz);
        if (got > 0 && !room)
            return err_set(e, ERR_TOO_LARGE, "%s: more than %zu bytes", pathz, b->max);
        b->n += (size_t)got;
    } while (got > 0);
    if (b->p)
        b->p[b->n] = '\0';
    return 0;
}

int file_read(const char *pathz, struct buf *b, struct err *e)
{
    int fd = open(pathz, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return set_errno(e, pathz);
    rc = read_rest(fd, pathz, b, e);
    close(fd);
    return rc;
}

int file_sync_name(const char *pathz, struct err *e)
{
    char dir[PATH_MAX];
    size_t n = strlen(pathz);
    int fd, rc;

    while (n > 1 && pathz[n - 1] == '/')
        n--;
    while (n > 0 && pathz[n - 1] != '/')
        n--;
    if (!str_copyz(dir, sizeof dir, n > 0 ? str_of(pathz, n) : STR(".")))
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(ENAMETOOLONG));
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = fd < 0 ? -1 : fsync(fd);
    if (rc != 0)
        rc = errno == EINVAL ? 0 : err_set(e, ERR_IO, "%s: %s", dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

static int make_one_dir(const char *pathz, struct err *e)
{
    struct stat st;

    if (mkdir(pathz, 0700) == 0)
        return file_sync_name(pathz, e);
    if (errno == EEXIST && stat(pathz, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
}

int file_make_dir(const char *pathz, struct err *e)
{
    char part[PATH_MAX];
    size_t n = strlen(pathz), i;

    if (!str_copyz(part, sizeof part, str_of(pathz, n)))
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(ENAMETOOLONG));
    for (i = 1; i < n; i++) {
        if (part[i] != '/')
            continue;
        part[i] = '\0';
        if (make_one_dir(part, e))
            return ERR_IO;
        part[i] = '/';
    }
    return make_one_dir(part, e);
}

int file_lock(const char *pathz, int *fd, struct err *e)
{
    int opened = open(pathz, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc;

    if (opened < 0)
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    if (flock(opened, LOCK_EX | LOCK_NB) == 0) {
        *fd = opened;
        return 0;
    }
    rc = errno == EWOULDBLOCK ? err_set(e, ERR_BUSY, "%s: in use by another process", pathz)
                              : err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    close(opened);
    return rc;
}

int64_t file_disk_free(const char *pathz)
{
    struct statvfs fs;

    if (statvfs(pathz, &fs))
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    return (int64_t)((uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize);
}

int file_write_all(int fd, const void *p, size_t n)
{
    const char *at = p;
    ssize_t wrote;

    while (n > 0) {
        wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return ERR_IO;
        at += wrote;
        n -= (size_t)wrote;
    }
    return 0;
}
