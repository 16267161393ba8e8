#include "base/file.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_file(const char *pathz, size_t n)
{
    static char data[300000];
    int fd = open(pathz, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    memset(data, 'd', sizeof data);
    CHECK_INT(file_write_all(fd, data, n), 0);
    close(fd);
}

TEST(reads_up_to_the_ceiling)
{
    struct buf b;
    struct err e;

    write_file("f", 200000);
    buf_init(&b, 200003);
    buf_addz(&b, "abc");
    CHECK_INT(file_read("f", &b, &e), 0);
    CHECK_INT(b.n, 200003);
    CHECK(b.p[2] == 'c' && b.p[3] == 'd' && b.p[200003] == '\0');
    buf_release(&b);
    buf_init(&b, 199999);
    CHECK_INT(file_read("f", &b, &e), ERR_TOO_LARGE);
    CHECK_STR(str_z(e.msg), "f: more than 199999 bytes");
    buf_release(&b);
}

TEST(reads_an_empty_file_and_misses)
{
    struct buf b;
    struct err e;

    buf_init(&b, 10);
    write_file("empty", 0);
    CHECK_INT(file_read("empty", &b, &e), 0);
    CHECK_INT(b.n, 0);
    CHECK_INT(file_read("nothing", &b, &e), ERR_NOT_FOUND);
    CHECK_STR(str_z(e.msg), "nothing: No such file or directory");
    CHECK_INT(file_read(".", &b, &e), ERR_IO);
    buf_release(&b);
}

TEST(makes_directories_with_their_parents)
{
    struct err e;
    struct stat st;

    CHECK_INT(file_make_dir("a/b//c/", &e), 0);
    CHECK_INT(file_make_dir("a/b/c", &e), 0);
    CHECK_INT(stat("a/b/c", &st), 0);
    CHECK_INT(st.st_mode & 0777, 0700);
    CHECK_INT(file_make_dir(".", &e), 0);
    write_file("a/f", 1);
    CHECK_INT(file_make_dir("a/f", &e), ERR_IO);
    CHECK_INT(file_make_dir("a/f/g", &e), ERR_IO);
    CHECK_INT(file_make_dir("", &e), ERR_IO);
}

TEST(lock_excludes_until_its_process_ends)
{
    struct err e;
    int fd, ready[2], go[2], status;
    char c = 'x';
    pid_t pid;

    CHECK_INT(pipe(ready) || pipe(go), 0);
    pid = fork();
    if (pid == 0) {
        CHECK_INT(file_lock("lock", &fd, &e), 0);
        CHECK_INT(write(ready[1], &c, 1), 1);
        CHECK_INT(read(go[0], &c, 1), 1);
        _exit(0);
    }
    CHECK_INT(read(ready[0], &c, 1), 1);
    CHECK_INT(file_lock("lock", &fd, &e), ERR_BUSY);
    CHECK(e.is_retriable);
    CHECK_INT(write(go[1], &c, 1), 1);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(file_lock("lock", &fd, &e), 0);
    CHECK_INT(file_lock("no/such", &fd, &e), ERR_IO);
}

TEST(disk_free_and_failing_writes)
{
    int fd;

    write_file("f", 1);
    CHECK(file_disk_free(".") > 0);
    CHECK_INT(file_disk_free("nothing"), ERR_NOT_FOUND);
    fd = open("f", O_RDONLY);
    CHECK_INT(file_write_all(fd, "x", 1), ERR_IO);
    CHECK_INT(file_write_all(fd, "", 0), 0);
}
