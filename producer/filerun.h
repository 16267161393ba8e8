/* One run of a batch from a file to a file (`genq batch run`): a reader thread turns lines into
 * jobs and submits them, the embedded genq runs them, a writer thread puts results in input order.
 * The results table is the reorder buffer, so memory stays flat however long the input is.
 *
 * A line's job id is a hash of line, model and options with a count for repeats; so the same
 * command run again finds what is done, changed input runs what is new, and a line that failed gets
 * a new id (".r1", ".r2" …) and is tried again. */
#pragma once
#include "producer/embedded.h"
#include "producer/mark.h"
#include <pthread.h>

#define BATCH_ID "run"

struct filerun_options {
    const char *inz, *outz; /* "-": stdin, stdout */
    const char *statez;     /* directory for state: the mark; config->data is the same */
    const char *modelz;     /* for lines that name none; NULL: they are refused */
    const char *tenantz;
};

struct filerun_counts {
    int64_t n_lines;      /* read so far */
    int64_t n_total;      /* lines of the input, -1 while not known */
    int64_t n_refused;    /* lines that are no job */
    int64_t n_found;      /* lines whose job had ended in an earlier run */
    int64_t n_written;    /* result lines written, in order */
    int64_t n_bad;        /* of those in the output, how many did not succeed */
    char first_bad[200];  /* why the first of them did not; "" when not known */
    const char *notez;    /* what holds it up ("the disk is full …"), or ""; static */
};

struct filerun;

/* Starts the threads. on_ready runs on the loop once: the worker may start, for what the log still
 * has of an earlier run is known to be in the input, or cancelled. on_end runs on the loop once:
 * all lines are written and synced (code 0), or the run cannot go on (code < 0, *e as filerun_error
 * tells). */
struct filerun *filerun_start(struct embedded *m, const struct filerun_options *o,
                              void (*on_ready)(void *data), void (*on_end)(void *data, int code),
                              void *data, struct err *e);
void filerun_get_counts(struct filerun *f, struct filerun_counts *out); /* any thread */
/* The i-th line that was refused, "file:line: why"; false when there is none, or it is past the
 * first FILERUN_REFUSED_SHOWN. Any thread. */
#define FILERUN_REFUSED_SHOWN 10
bool filerun_refused(struct filerun *f, int i, char *dst, size_t room);
/* Stops reading more lines at once (Ctrl-C). */
void filerun_interrupt(struct filerun *f);
/* Stops reading; results that are there are still written and synced. Blocks until both threads
 * have ended. Call after the worker has stopped, before embedded_close. */
void filerun_stop(struct filerun *f);
/* After filerun_stop. Why the run could not go on (code 0: it could), and whether all lines were
 * read, and their results written. */
const struct err *filerun_error(const struct filerun *f);
bool filerun_is_complete(const struct filerun *f);
void filerun_free(struct filerun *f);
