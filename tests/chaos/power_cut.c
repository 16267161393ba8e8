/* A disk that can lose its power, for tests/chaos/31_power_cut.py: preloaded into genq, it keeps beside
 * the directory $POWER_CUT_REAL a shadow of it, $POWER_CUT_DISK, that gets only what was made durable.
 * When genq was killed, the shadow is what a machine would find after a power cut.
 *
 *   - A file's bytes and length get there with fsync or fdatasync of it. Until then they are lost;
 *     with POWER_CUT_TORN=<percent>, that share of the written 512-byte sectors is there already, in
 *     any order, as a disk may do.
 *   - A name (made, renamed, removed) gets there with fsync of its directory alone. That is less than
 *     ext4 gives, and what POSIX promises.
 *   - Written through a mapping, or after a failed call: lost. What was there at the start is durable.
 *
 * The shadow: `objects/<inode>` holds the durable bytes of a file, `tree/` has hard links to them; a
 * directory in it whose own name is durable has a file in `dirs/`, named as its path with % for /.
 * System calls are made directly, so that a sanitizer's interceptors below do not matter. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 65536
#define MAX_FILES 256
#define SECTOR 512
#define EXPORT __attribute__((visibility("default")))

struct range {
    off_t at, end;
};

/* A file below the directory, by inode. */
struct file {
    ino_t inode;
    bool is_dir;
    char path[PATH_MAX]; /* a directory's, below `real` */
    struct range *dirty;
    size_t n_dirty, room;
};

static char real[PATH_MAX], disk[PATH_MAX];
static size_t real_n;
static bool is_on;
static int torn_percent;
static uint64_t random_state = 88172645463325252U;
static struct file files[MAX_FILES];
static size_t n_files;
static struct file *of_fd[MAX_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what)
{
    dprintf(2, "power_cut: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int sys_open(const char *path, int flags, int mode)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

/* ---- the shadow ---- */

static void object_path(ino_t inode, char *dst)
{
    if (snprintf(dst, PATH_MAX, "%s/objects/%llu", disk, (unsigned long long)inode) >= PATH_MAX)
        die("a path is too long");
}

static int open_object(ino_t inode)
{
    char path[PATH_MAX];
    int fd;

    object_path(inode, path);
    fd = sys_open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0)
        die(path);
    return fd;
}

static void copy_range(int from, int to, off_t at, off_t end)
{
    char bytes[65536];
    ssize_t n;

    while (at < end) {
        size_t want = (size_t)(end - at) < sizeof bytes ? (size_t)(end - at) : sizeof bytes;

        n = (ssize_t)syscall(SYS_pread64, from, bytes, want, at);
        if (n <= 0)
            return; /* cut off since */
        if (syscall(SYS_pwrite64, to, bytes, (size_t)n, at) != n)
            die("shadow");
        at += n;
    }
}

/* All that was written to f so far is durable. fd is any descriptor of it: its own may not read. */
static void make_durable(struct file *f, int fd)
{
    char self[64];
    struct stat st;
    int from, to;
    size_t i;

    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    from = sys_open(self, O_RDONLY, 0);
    if (from < 0 || fstat(from, &st) != 0)
        die("fsync");
    to = open_object(f->inode);
    if (syscall(SYS_ftruncate, to, st.st_size) != 0)
        die("shadow");
    for (i = 0; i < f->n_dirty; i++)
        copy_range(from, to, f->dirty[i].at, f->dirty[i].end);
    f->n_dirty = 0;
    syscall(SYS_close, from);
    syscall(SYS_close, to);
}

static void join(char dst[PATH_MAX], const char *a, const char *b, const char *c)
{
    if (snprintf(dst, PATH_MAX, "%s%s%s", a, b, c) >= PATH_MAX)
        die("a path is too long");
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_ino == y.st_ino;
}

/* At any moment the shadow's directory has the old name or the new one: we may be killed here. */
static void link_name(ino_t inode, const char *to)
{
    char object[PATH_MAX], fresh[PATH_MAX];

    syscall(SYS_close, open_object(inode));
    object_path(inode, object);
    if (is_same_file(object, to))
        return;
    join(fresh, disk, "/objects/fresh", "");
    unlink(fresh);
    if (link(object, fresh) != 0 || rename(fresh, to) != 0)
        die(to);
}

static void mark_dir(const char *sub)
{
    char path[PATH_MAX];
    size_t i;

    join(path, disk, "/dirs/", sub);
    for (i = strlen(disk) + 6; path[i]; i++)
        if (path[i] == '/')
            path[i] = '%';
    syscall(SYS_close, sys_open(path, O_CREAT | O_WRONLY, 0644));
}

static void copy_file(const char *from, const struct stat *st)
{
    struct range all = {0, st->st_size};
    struct file whole = {.inode = st->st_ino, .dirty = &all, .n_dirty = 1};
    int fd = sys_open(from, O_RDONLY, 0);

    if (fd < 0)
        die(from);
    make_durable(&whole, fd);
    syscall(SYS_close, fd);
}

static void add_names(const char *sub, bool is_deep)
{
    char from[PATH_MAX], to[PATH_MAX], below[PATH_MAX];
    struct dirent *entry;
    struct stat st;
    DIR *dir;

    join(from, real, sub, "");
    dir = opendir(from);
    while (dir && (entry = readdir(dir))) {
        join(below, sub, "/", entry->d_name);
        join(from, real, below, "");
        join(to, disk, "/tree", below);
        if (entry->d_name[0] == '.' || stat(from, &st) != 0)
            continue;
        if (!S_ISDIR(st.st_mode)) {
            if (is_deep)
                copy_file(from, &st);
            link_name(st.st_ino, to);
        } else {
            mkdir(to, 0755);
            mark_dir(below);
            if (is_deep)
                add_names(below, true);
        }
    }
    if (dir)
        closedir(dir);
}

/* The directory's names are durable: `sub` is its path below real, "" or "/…". */
static void make_names_durable(const char *sub)
{
    char from[PATH_MAX], to[PATH_MAX], below[PATH_MAX];
    struct dirent *entry;
    DIR *dir;

    join(to, disk, "/tree", sub);
    mkdir(to, 0755);
    add_names(sub, false);
    dir = opendir(to);
    while (dir && (entry = readdir(dir))) {
        join(below, sub, "/", entry->d_name);
        join(from, real, below, "");
        join(to, disk, "/tree", below);
        if (entry->d_type == DT_REG && access(from, F_OK) != 0)
            unlink(to);
    }
    if (dir)
        closedir(dir);
}

/* The file `ready` says that all that was there is in the shadow. */
__attribute__((constructor)) static void start(void)
{
    const char *r = getenv("POWER_CUT_REAL"), *d = getenv("POWER_CUT_DISK");
    const char *t = getenv("POWER_CUT_TORN"), *seed = getenv("POWER_CUT_SEED");
    char path[PATH_MAX];

    if (!r || !d || !realpath(r, real) || !realpath(d, disk))
        return;
    real_n = strlen(real);
    torn_percent = t ? (int)strtol(t, NULL, 10) : 0;
    random_state ^= seed ? strtoull(seed, NULL, 10) * 2654435761U : 0;
    join(path, disk, "/objects", "");
    mkdir(path, 0755);
    join(path, disk, "/tree", "");
    mkdir(path, 0755);
    join(path, disk, "/dirs", "");
    mkdir(path, 0755);
    add_names("", true);
    join(path, disk, "/ready", "");
    syscall(SYS_close, sys_open(path, O_CREAT | O_WRONLY, 0644));
    is_on = true;
}

/* ---- what genq does ---- */

static struct file *find_file(ino_t inode)
{
    size_t i;

    for (i = 0; i < n_files; i++)
        if (files[i].inode == inode)
            return &files[i];
    if (n_files == MAX_FILES)
        die("too many files");
    files[n_files].inode = inode;
    return &files[n_files++];
}

/* A new file may have the number of one that is gone: the shadow's names keep that one's bytes. */
static void forget_inode(ino_t inode)
{
    char path[PATH_MAX];

    object_path(inode, path);
    unlink(path);
    find_file(inode)->n_dirty = 0;
}

static void note_open(int fd, bool is_new)
{
    char self[64], path[PATH_MAX];
    struct stat st;
    ssize_t n;

    if (!is_on || fd < 0 || fd >= MAX_FDS)
        return;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    n = readlink(self, path, sizeof path - 1);
    pthread_mutex_lock(&lock);
    of_fd[fd] = NULL;
    if (n > 0 && (size_t)n >= real_n && memcmp(path, real, real_n) == 0 &&
        ((size_t)n == real_n || path[real_n] == '/') && fstat(fd, &st) == 0) {
        path[n] = '\0';
        if (is_new)
            forget_inode(st.st_ino);
        of_fd[fd] = find_file(st.st_ino);
        of_fd[fd]->is_dir = S_ISDIR(st.st_mode);
        snprintf(of_fd[fd]->path, PATH_MAX, "%s", path + real_n);
    }
    pthread_mutex_unlock(&lock);
}

static struct file *file_of(int fd)
{
    return is_on && fd >= 0 && fd < MAX_FDS ? of_fd[fd] : NULL;
}

/* Some sectors of a write reach the disk at once. */
static void tear(struct file *f, int fd, off_t at, off_t end)
{
    char self[64];
    off_t next;
    int from, to;

    if (torn_percent == 0)
        return;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    from = sys_open(self, O_RDONLY, 0);
    to = open_object(f->inode);
    for (; at < end; at = next) {
        next = (at / SECTOR + 1) * SECTOR;
        if ((int)(random_next() % 100) < torn_percent)
            copy_range(from, to, at, next < end ? next : end);
    }
    syscall(SYS_close, from);
    syscall(SYS_close, to);
}

static void add_range(struct file *f, off_t at, off_t end)
{
    if (f->n_dirty > 0 && f->dirty[f->n_dirty - 1].end == at) {
        f->dirty[f->n_dirty - 1].end = end;
        return;
    }
    if (f->n_dirty == f->room) {
        f->room = f->room ? 2 * f->room : 64;
        f->dirty = realloc(f->dirty, f->room * sizeof f->dirty[0]);
        if (!f->dirty)
            die("memory");
    }
    f->dirty[f->n_dirty++] = (struct range){at, end};
}

static void note_write(int fd, off_t at, ssize_t n)
{
    struct file *f = file_of(fd);

    if (!f || n <= 0)
        return;
    pthread_mutex_lock(&lock);
    add_range(f, at, at + n);
    tear(f, fd, at, at + n);
    pthread_mutex_unlock(&lock);
}

/* What was cut off and written over again with a hole must not show the old bytes. */
static void note_length(int fd, off_t before, off_t after)
{
    struct file *f = file_of(fd);

    if (!f || before == after)
        return;
    pthread_mutex_lock(&lock);
    add_range(f, before < after ? before : after, before < after ? after : before);
    pthread_mutex_unlock(&lock);
}

static off_t length_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_size : 0;
}

static int sync_fd(int fd)
{
    struct file *f = file_of(fd);

    if (f) {
        pthread_mutex_lock(&lock);
        if (f->is_dir)
            make_names_durable(f->path);
        else
            make_durable(f, fd);
        pthread_mutex_unlock(&lock);
    }
    return 0; /* the shadow is the disk: the real one may keep its own pace */
}

/* ---- the calls ---- */

static int do_open(int at, const char *path, int flags, int mode)
{
    bool is_new = is_on && (flags & O_CREAT) && syscall(SYS_faccessat, at, path, F_OK) != 0;
    struct stat st = {.st_size = 0};
    bool is_cut = is_on && (flags & O_TRUNC) && fstatat(at, path, &st, 0) == 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);

    note_open(fd, is_new);
    if (is_cut && fd >= 0)
        note_length(fd, st.st_size, 0);
    return fd;
}

#define OPEN(name, ...)                                                                            \
    EXPORT int name(__VA_ARGS__, int flags, ...);                                                  \
    EXPORT int name(__VA_ARGS__, int flags, ...)                                                   \
    {                                                                                              \
        va_list list;                                                                              \
        int mode = 0;                                                                              \
                                                                                                   \
        va_start(list, flags);                                                                     \
        if (flags & (O_CREAT | O_TMPFILE))                                                         \
            mode = va_arg(list, int);                                                              \
        va_end(list);

OPEN(open, const char *path) return do_open(AT_FDCWD, path, flags, mode); }
OPEN(open64, const char *path) return do_open(AT_FDCWD, path, flags, mode); }
OPEN(openat, int at, const char *path) return do_open(at, path, flags, mode); }
OPEN(openat64, int at, const char *path) return do_open(at, path, flags, mode); }

EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
    return do_open(AT_FDCWD, path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags)
{
    return do_open(AT_FDCWD, path, flags, 0);
}

EXPORT int close(int fd)
{
    if (is_on && fd >= 0 && fd < MAX_FDS) {
        pthread_mutex_lock(&lock);
        of_fd[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_close, fd);
}

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
    off_t at = file_of(fd) ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t rc = (ssize_t)syscall(SYS_write, fd, p, n);

    note_write(fd, at, rc);
    return rc;
}

EXPORT ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    ssize_t rc = (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);

    note_write(fd, at, rc);
    return rc;
}

EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return pwrite64(fd, p, n, at);
}

EXPORT ssize_t writev(int fd, const struct iovec *v, int n)
{
    off_t at = file_of(fd) ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t rc = (ssize_t)syscall(SYS_writev, fd, v, n);

    note_write(fd, at, rc);
    return rc;
}

EXPORT int ftruncate64(int fd, off_t length)
{
    off_t before = length_of(fd);
    int rc = (int)syscall(SYS_ftruncate, fd, length);

    if (rc == 0)
        note_length(fd, before, length);
    return rc;
}

EXPORT int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

EXPORT int fsync(int fd)
{
    return sync_fd(fd);
}

EXPORT int fdatasync(int fd)
{
    return sync_fd(fd);
}
