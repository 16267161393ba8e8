#include "tests/lib/test.h"
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CASE_LIMIT_S = 300, MAX_OPEN_DIRS = 16 }; /* a hang, not a slow machine */

/* Not initialised by main: constructors run before it. */
static struct test_case *first, **end = &first;

void test_add(struct test_case *c)
{
    *end = c;
    end = &c->next;
}

void test_fail(const char *filez, int line, const char *textz)
{
    fflush(stdout);
    fprintf(stderr, "# %s:%d: failed: %s\n", filez, line, textz);
    _exit(1);
}

void test_check_int(const char *filez, int line, const char *textz, int64_t got, int64_t want)
{
    if (got == want)
        return;
    fprintf(stderr, "# got  %" PRId64 "\n# want %" PRId64 "\n", got, want);
    test_fail(filez, line, textz);
}

static void print_str(const char *labelz, struct str s)
{
    size_t i;

    fprintf(stderr, "# %s \"", labelz);
    for (i = 0; i < s.n; i++) {
        if (s.p[i] >= ' ' && s.p[i] <= '~')
            fputc(s.p[i], stderr);
        else
            fprintf(stderr, "\\x%02x", (unsigned char)s.p[i]);
    }
    fprintf(stderr, "\"%s\n", s.p ? "" : " (NULL)");
}

void test_check_str(const char *filez, int line, const char *textz, struct str got, struct str want)
{
    if (str_eq(got, want))
        return;
    print_str("got ", got);
    print_str("want", want);
    test_fail(filez, line, textz);
}

static _Noreturn void die(const char *whatz)
{
    fprintf(stderr, "# %s: %s\n", whatz, strerror(errno));
    exit(2);
}

/* The child. Ends with exit(), so that leak checkers have their say. */
static _Noreturn void run_here(const struct test_case *c, const char *dirz)
{
    setpgid(0, 0); /* a group of its own, for the parent to kill what is left of it */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(dirz))
        die(dirz);
    alarm(CASE_LIMIT_S);
    c->run();
    exit(0);
}

static int remove_one(const char *pathz, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(pathz);
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    kill(-pid, SIGKILL);
    return status;
}

static bool run_case(const struct test_case *c, int number)
{
    const char *tmpz = getenv("TMPDIR");
    char dir[PATH_MAX];
    pid_t pid;
    int status;

    snprintf(dir, sizeof dir, "%s/genq-test-XXXXXX", tmpz ? tmpz : P_tmpdir);
    if (!mkdtemp(dir))
        die(dir);
    fflush(stdout); /* or the child prints it again */
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0)
        run_here(c, dir);
    status = wait_for(pid);
    if (status == 0) {
        printf("ok %d - %s\n", number, c->namez);
        nftw(dir, remove_one, MAX_OPEN_DIRS, FTW_DEPTH | FTW_PHYS);
        return true;
    }
    printf("not ok %d - %s # %s %d; see %s\n", number, c->namez,
           WIFSIGNALED(status) ? "signal" : "exit",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), dir);
    return false;
}

int main(int argc, char **argv)
{
    const struct test_case *c;
    int n_run = 0, n_failed = 0;

    for (c = first; c; c = c->next) {
        if (argc > 1 && strcmp(argv[1], c->namez) != 0)
            continue;
        n_failed += !run_case(c, ++n_run);
    }
    printf("1..%d\n", n_run);
    return n_run == 0 || n_failed > 0;
}
