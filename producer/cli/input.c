#include "producer/cli/input.h"
#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 64 * 1024 };

static ssize_t read_some(int fd, void *p, size_t n)
{
    ssize_t got;

    do {
        got = read(fd, p, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

int input_read_stdin(struct buf *b, struct err *e)
{
    char chunk[CHUNK_BYTES];
    ssize_t n;

    while ((n = read_some(STDIN_FILENO, chunk, sizeof chunk)) > 0)
        if (buf_add(b, chunk, (size_t)n) != 0)
            return err_set(e, ERR_TOO_LARGE, "stdin is larger than %zu bytes", b->max);
    return n < 0 ? err_set(e, ERR_IO, "stdin: %s", strerror(errno)) : 0;
}

/* Copies what comes to a file without a name; gives its descriptor. */
static int spool(int from, struct err *e)
{
    const char *dirz = getenv("TMPDIR");
    char chunk[CHUNK_BYTES];
    int fd = open(dirz && *dirz ? dirz : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    ssize_t n;

    if (fd < 0)
        return err_set(e, ERR_IO, "no temporary file: %s", strerror(errno));
    while ((n = read_some(from, chunk, sizeof chunk)) > 0)
        if (file_write_all(fd, chunk, (size_t)n) != 0)
            break;
    if (n == 0)
        return fd;
    err_set(e, ERR_IO, "copying stdin: %s", strerror(errno));
    close(fd);
    return e->code;
}

static int map_fd(struct input_map *m, int fd, const char *pathz, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s is a directory", pathz);
    m->n = (size_t)st.st_size;
    if (m->n == 0)
        return 0;
    m->p = mmap(NULL, m->n, PROT_READ, MAP_PRIVATE, fd, 0);
    if (m->p != MAP_FAILED)
        return 0;
    m->p = NULL;
    return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
}

static bool is_regular(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

int input_map(struct input_map *m, const char *pathz, struct err *e)
{
    bool is_stdin = strcmp(pathz, "-") == 0;
    int given = is_stdin ? STDIN_FILENO : open(pathz, O_RDONLY | O_CLOEXEC), fd, rc;

    memset(m, 0, sizeof *m);
    if (given < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", pathz,
                       strerror(errno));
    fd = is_regular(given) && !is_stdin ? given : spool(given, e);
    rc = fd < 0 ? fd : map_fd(m, fd, pathz, e);
    if (fd >= 0)
        close(fd);
    if (!is_stdin && given != fd)
        close(given);
    return rc;
}

void input_unmap(struct input_map *m)
{
    if (m->p)
        munmap(m->p, m->n);
    memset(m, 0, sizeof *m);
}
