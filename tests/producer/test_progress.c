#include "base/clock.h"
#include "producer/cli/progress.h"
#include "tests/lib/test.h"
#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

static struct progress started(int64_t total)
{
    struct progress p;

    progress_init(&p, total);
    p.started_ms = p.sampled_ms = 0;
    return p;
}

static void check_line(const struct progress *p, int64_t now_ms, int width, bool is_end,
                       const char *wantz)
{
    struct buf b;

    buf_init(&b, 4096);
    progress_format(p, now_ms, width, is_end, &b);
    CHECK_STR(buf_str(&b), wantz);
    buf_release(&b);
}

TEST(counts_have_three_digits_and_a_unit)
{
    static const struct {
        int64_t n;
        const char *wantz;
    } rows[] = {
        {0, "0"},          {999, "999"},       {1000, "1.0k"},      {1234, "1.2k"},
        {12345, "12.3k"},  {99949, "99.9k"},   {99950, "100k"},     {123456, "123k"},
        {999499, "999k"},  {999500, "1.0M"},   {1234567, "1.2M"},   {-5, "0"},
        {INT64_MAX, "9223P"},
    };
    struct buf b;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf_init(&b, 100);
        progress_put_count(&b, rows[i].n);
        CHECK_STR(buf_str(&b), rows[i].wantz);
        buf_release(&b);
    }
}

TEST(times_are_short)
{
    static const struct {
        int64_t ms;
        const char *wantz;
    } rows[] = {
        {0, "0:00"},         {-7, "0:00"},          {499, "0:00"},          {500, "0:01"},
        {21000, "0:21"},     {59999, "1:00"},       {725000, "12:05"},      {3600000, "1:00:00"},
        {3723000, "1:02:03"}, {86400000, "1d 00:00"}, {273900000, "3d 04:05"},
    };
    struct buf b;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf_init(&b, 100);
        progress_put_time(&b, rows[i].ms);
        CHECK_STR(buf_str(&b), rows[i].wantz);
        buf_release(&b);
    }
}

TEST(a_line_on_a_terminal)
{
    struct progress p = started(1000);

    check_line(&p, 0, 79, false, "[..............................] 0/1000  0.0 jobs/s");
    p.done = 500;
    p.failed = 2;
    p.tokens = 12345;
    check_line(&p, 10000, 100, false,
               "[###############...............] 500/1000  50.0 jobs/s  12.3k tokens  2 failed"
               "  ETA 0:10");
    check_line(&p, 10000, 79, false,
               "[##########...........] 500/1000  50.0 jobs/s  12.3k tokens  2 failed  ETA 0:10");
    check_line(&p, 10000, 60, false, "500/1000  50.0 jobs/s  12.3k tokens  2 failed  ETA 0:10");
    check_line(&p, 10000, 20, false, "500/1000  50.0 jobs/");
    p.done = 1000;
    p.failed = 0;
    p.tokens = 0;
    check_line(&p, 20000, 79, true,
               "[##############################] 1000/1000  50.0 jobs/s  in 0:20");
}

TEST(a_plain_line)
{
    struct progress p = started(1000);

    p.done = 123;
    p.tokens = 999;
    check_line(&p, 10000, 0, false, "123/1000 (12%)  12.3 jobs/s  999 tokens  ETA 1:11");
    p.total = -1;
    check_line(&p, 10000, 0, false, "123 done  12.3 jobs/s  999 tokens");
    check_line(&p, 10000, 60, false, "123 done  12.3 jobs/s  999 tokens");
    p.unitz = "lines";
    check_line(&p, 100, 0, true, "123 done  1230 lines/s  999 tokens  in 0:00");
}

TEST(odd_totals_do_no_harm)
{
    struct progress p = started(0);

    check_line(&p, 0, 40, true, "[#########################] 0/0  in 0:00");
    check_line(&p, 0, 0, false, "0/0  0.0 jobs/s");
    p.total = 5;
    p.done = 7; /* more came than was told */
    check_line(&p, 1000, 40, false, "[######################] 7/5  7.0 jobs/s");
    check_line(&p, 1000, 1, false, "7");
}

TEST(what_was_done_before_is_not_in_the_rate)
{
    struct progress p = started(1000);

    p.done = p.n_before = 900;
    check_line(&p, 5000, 0, false, "900/1000 (90%)  0.0 jobs/s");
    p.done = 910;
    check_line(&p, 5000, 0, false, "910/1000 (91%)  2.0 jobs/s  ETA 0:45");
}

TEST(the_rate_follows_the_last_seconds)
{
    struct progress p = started(100000);
    int64_t ms;

    for (ms = 0; ms <= 100000; ms += 250) { /* 10/s */
        p.done = ms / 100;
        progress_sample(&p, ms);
    }
    CHECK(p.rate > 9.5 && p.rate < 10.5);
    for (; ms <= 200000; ms += 250) { /* then 100/s */
        p.done += 25;
        progress_sample(&p, ms);
    }
    CHECK(p.rate > 95 && p.rate < 105);
    for (; ms <= 400000; ms += 250) /* then none */
        progress_sample(&p, ms);
    CHECK(p.rate < 1);
}

/* ---- output ---- */

static struct str read_all(int fd, char *dst, size_t room)
{
    ssize_t n = read(fd, dst, room);

    return str_of(dst, n > 0 ? (size_t)n : 0);
}

/* What a terminal got until now: it may hand it over in pieces, so a mark is sent after it. */
static struct str read_terminal(int master, int slave, char *dst, size_t room)
{
    size_t at = 0;
    ssize_t n;

    CHECK(write(slave, "$", 1) == 1);
    do {
        n = read(master, dst + at, room - at);
        CHECK(n > 0);
        at += (size_t)n;
    } while (dst[at - 1] != '$');
    return str_of(dst, at - 1);
}

TEST(plain_output_comes_every_10_s_and_at_the_end)
{
    struct progress p = started(10);
    char text[4096];
    int fds[2];
    int64_t ms;

    CHECK(pipe(fds) == 0);
    p.fd = fds[1];
    p.is_terminal = false;
    progress_note(&p, "waiting: no engine node is up");
    for (ms = 0; ms <= 25000; ms += 50) {
        p.done = ms / 5000;
        progress_update(&p, ms);
    }
    progress_clear(&p); /* nothing to take off */
    p.done = 10;
    progress_end(&p, 30000);
    CHECK_STR(read_all(fds[0], text, sizeof text), "2/10 (20%)  0.2 jobs/s  ETA 0:40\n"
                                                   "waiting: no engine node is up\n"
                                                   "4/10 (40%)  0.2 jobs/s  ETA 0:29\n"
                                                   "10/10 (100%)  0.3 jobs/s  in 0:30\n");
}

TEST(a_terminal_is_drawn_at_most_10_times_a_second)
{
    struct winsize size = {.ws_row = 24, .ws_col = 41};
    struct progress p;
    char text[8192];
    struct str got;
    size_t i, n = 0;
    int64_t ms;
    int master, slave;

    CHECK(openpty(&master, &slave, NULL, NULL, &size) == 0);
    p = started(10);
    p.fd = slave;
    p.is_terminal = true;
    for (ms = 0; ms < 1000; ms += 10)
        progress_update(&p, ms);
    got = read_terminal(master, slave, text, sizeof text);
    for (i = 0; i < got.n; i++)
        n += got.p[i] == '\033';
    CHECK_INT(n, 10);
    progress_note(&p, "waiting");
    progress_update(&p, 2000);
    CHECK_STR(read_terminal(master, slave, text, sizeof text),
              "\r\033[J[.....................] 0/10  0.0 jobs/s\r\nwaiting\r\033[A");
    progress_clear(&p);
    CHECK_STR(read_terminal(master, slave, text, sizeof text), "\r\033[J");
    progress_clear(&p);
    p.done = 10;
    progress_end(&p, 10000);
    CHECK_STR(read_terminal(master, slave, text, sizeof text),
              "\r\033[J[###########] 10/10  1.0 jobs/s  in 0:10\r\n");
}

TEST(a_note_is_never_cut_in_a_character)
{
    struct progress p = started(1);
    char long_note[400];
    size_t i;

    for (i = 0; i + 2 < sizeof long_note; i += 2)
        memcpy(long_note + i, "\xc3\xbc", 2);
    long_note[i] = '\0';
    progress_note(&p, long_note);
    CHECK(str_utf8_bad(str_z(p.note)) == strlen(p.note));
    CHECK(strlen(p.note) > 100);
    progress_note(&p, NULL);
    CHECK_INT(strlen(p.note), 0);
}
