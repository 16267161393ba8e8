/* Deletes what ended longer ago than the config keeps it: completions, their jobs and batch
 * lines, calls and batches. In small steps inside transactions that are made anyway, at most one
 * a second, and only while the oldest completion is too old: a machine that stands still deletes
 * nothing. Unfinished jobs are never deleted. Writer thread. */
#pragma once
#include "base/db.h"

enum retention_stmt {
    R_OLDEST,
    R_GET_JOB,
    R_DROP_COMPLETION,
    R_DROP_JOB,
    R_DROP_LINE,
    R_DROP_CALLS,
    R_DROP_BATCHES,
    R_SET_OLDEST,
    R_COUNT_
};

struct retention {
    int64_t keep_ms; /* 0: for ever */
    int64_t next_ms; /* no step before this */
    struct db_stmt *stmts[R_COUNT_];
};

/* Zeroed memory, keep_ms apart, is ready for this. Needs the completions' table. */
int retention_prepare(struct retention *r, struct db *db, struct err *e);
/* A step if one is due at now_ms (wall). 0 or negative: roll back. */
int retention_step(struct retention *r, int64_t now_ms, struct err *e);
