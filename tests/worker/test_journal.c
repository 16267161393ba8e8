#include "tests/lib/test.h"
#include "worker/journal.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH "starts.journal"

static const struct journal_key a = {11, 5, 0}, b = {11, 6, 0}, c = {12, 5, 0};

static struct journal *open_it(void)
{
    struct journal *j = journal_open(PATH, NULL);

    CHECK(j != NULL);
    return j;
}

/* As a crash leaves it: closing writes nothing. */
static struct journal *reopen(struct journal *j)
{
    journal_close(j);
    return open_it();
}

TEST(a_job_in_flight_at_a_crash_is_known)
{
    struct journal *j = open_it();

    CHECK_INT(journal_crashes(j, &a), 0);
    CHECK(journal_start(j, &a, 1) >= 0);
    CHECK(journal_start(j, &b, 1) >= 0);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 1);
    CHECK_INT(journal_crashes(j, &b), 1);
    CHECK_INT(journal_crashes(j, &c), 0);
    journal_close(j);
}

TEST(two_crashes_are_counted)
{
    struct journal *j = open_it();

    journal_start(j, &a, 1);
    j = reopen(j);
    journal_start(j, &a, 1);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 2);
    j = reopen(j); /* it did not run in between */
    CHECK_INT(journal_crashes(j, &a), 2);
    journal_forget(j, &a);
    CHECK_INT(journal_crashes(j, &a), 0);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 0);
    journal_close(j);
}

TEST(an_ended_job_is_forgotten)
{
    struct journal *j = open_it();

    journal_clear(j, journal_start(j, &a, 1));
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 0);
    journal_close(j);
}

TEST(a_job_handed_back_keeps_its_crashes)
{
    struct journal *j = open_it();

    journal_hand_back(j, journal_start(j, &a, 1), 0);
    journal_start(j, &b, 1);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 0);
    CHECK_INT(journal_attempts(j, &b), 1);
    journal_hand_back(j, journal_start(j, &b, 3), 2);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &b), 1);
    CHECK_INT(journal_attempts(j, &b), 2);
    CHECK_INT(journal_attempts(j, &a), 0);
    journal_close(j);
}

TEST(crashes_of_jobs_that_never_come_are_dropped)
{
    struct journal *j = open_it();

    journal_start(j, &a, 1);
    journal_start(j, &b, 1);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 1); /* seen */
    journal_forget_unseen(j);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &a), 1);
    CHECK_INT(journal_crashes(j, &b), 0);
    journal_close(j);
}

static void damage(off_t at)
{
    int fd = open(PATH, O_RDWR);
    char byte = 0;

    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte = (char)(byte ^ 0x5A);
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

TEST(a_half_written_slot_is_void)
{
    struct journal *j = open_it();

    journal_start(j, &a, 1);
    journal_close(j);
    damage(32); /* the first slot's first byte, behind the head */
    j = open_it();
    CHECK_INT(journal_crashes(j, &a), 0);
    CHECK(journal_start(j, &a, 1) >= 0);
    journal_close(j);
}

TEST(a_foreign_file_is_started_anew)
{
    struct journal *j = open_it();
    struct stat st;

    journal_start(j, &a, 1);
    journal_close(j);
    damage(0);
    j = open_it();
    CHECK_INT(journal_crashes(j, &a), 0);
    journal_close(j);
    CHECK(truncate(PATH, 100) == 0);
    j = open_it();
    CHECK_INT(journal_start(j, &b, 1) >= 0, 1);
    journal_close(j);
    CHECK(stat(PATH, &st) == 0 && st.st_size > 1 << 20);
}

TEST(a_full_journal_stops_nothing)
{
    struct journal *j = open_it();
    struct journal_key key = a;
    int i, slot, last = -1;

    for (i = 0; i < 65536; i++) {
        key.offset = i;
        slot = journal_start(j, &key, 1);
        CHECK(slot >= 0);
        last = slot;
    }
    key.offset = 65536;
    CHECK_INT(journal_start(j, &key, 1), -1);
    journal_clear(j, -1);
    journal_clear(j, last);
    CHECK_INT(journal_start(j, &key, 1), last);
    j = reopen(j);
    CHECK_INT(journal_crashes(j, &key), 1);
    key.offset = 7;
    CHECK_INT(journal_crashes(j, &key), 1);
    journal_close(j);
}

TEST(a_missing_directory_is_an_error)
{
    struct err e;

    CHECK(journal_open("nowhere/" PATH, &e) == NULL);
    CHECK_INT(e.code, ERR_IO);
}

TEST(topics_are_told_apart_by_name)
{
    CHECK(journal_topic("genq.jobs.default.high") != journal_topic("genq.jobs.default.low"));
}
