/* Which jobs are in flight, in a small mapped file, so that a job that kills its worker is known: a
 * slot is written (no fsync: it is for crashes of the process) before a request is sent and cleared
 * when the job's end is in the log or the job was handed back. Slots that are live at open are
 * crashes of their jobs. Loop thread only. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

/* Where a job stands; topics by a hash of their name, for their numbers depend on the config. */
struct journal_key {
    uint64_t topic;
    int64_t offset;
    int32_t partition;
};

uint64_t journal_topic(const char *namez);

/* Opens or makes the file. One that is damaged or of another version or size is started anew, with
 * a warning. ERR_IO, ERR_FULL. */
struct journal *journal_open(const char *pathz, struct err *e);
void journal_close(struct journal *j);

/* Crashes that job was in flight at. */
int journal_crashes(struct journal *j, const struct journal_key *key);
/* Attempts that it had before this process, the one of the crash among them; 0 when it has no
 * crash. */
int journal_attempts(struct journal *j, const struct journal_key *key);
/* The job is about to run, for the attempt-th time (from 1). Gives its slot, or -1 when the journal
 * is full (it then runs without). */
int journal_start(struct journal *j, const struct journal_key *key, int attempt);
/* The job ended (its crashes are forgotten), or waits again after so many attempts (they are kept).
 * -1 allowed. */
void journal_clear(struct journal *j, int slot);
void journal_hand_back(struct journal *j, int slot, int attempts);
/* The same for a job that did not start: it ended. */
void journal_forget(struct journal *j, const struct journal_key *key);
/* All that waits was delivered: forgets crashes of jobs nobody asked about. */
void journal_forget_unseen(struct journal *j);
