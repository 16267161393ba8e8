/* What the threads of a batch run share. */
#pragma once
#include "base/inbox.h"
#include "producer/filerun.h"
#include "producer/submit.h"
#include "schema/batch.h"

/* Unfinished jobs that a run keeps in the log, at most: enough to fill any worker, and what memory
 * and disk pay for. */
#define FILERUN_WINDOW 2048
#define FILERUN_GROUP 512 /* lines a publish */

enum filerun_thread { FILERUN_READER, FILERUN_WRITER, FILERUN_THREADS };

struct filerun {
    struct embedded *embedded;
    struct filerun_options options;
    struct inbox *inbox;
    struct message ready, ended; /* to the loop, once each */
    void (*on_ready)(void *data);
    void (*on_end)(void *data, int code);
    void *data;
    struct watcher feed; /* wakes both threads when completions are durable */
    pthread_t reader, writer;
    bool has_reader, has_writer;
    int wake_fd; /* an eventfd */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock: */
    struct filerun_counts counts; /* but for its note */
    const char *notes[FILERUN_THREADS]; /* what holds each of them up; NULL: nothing */
    char refused[FILERUN_REFUSED_SHOWN][700];
    bool is_batch_acked;       /* the log has answered to the batch's own record, */
    int batch_code;            /* with this */
    struct list acked;         /* of submissions whose ack came (struct group) */
    int64_t n_ready;           /* lines [0, n_ready) are in the log: the writer may look at them */
    bool is_read;              /* all lines are in the log */
    bool stops_reading;        /* no further lines */
    bool is_stopping;          /* no further results either */
    bool is_ended;             /* on_end is on its way: all is written, or `error` says why not */
    bool is_checked;           /* `start` is decided */
    uint64_t n_wakes;
    bool is_polling;           /* the reader sleeps in poll(), which wake_fd ends */
    struct mark_point start;   /* where the output goes on, once is_checked */
    struct mark_point resume;  /* where it could go on, if the input begins the same; set before the
                                * threads start */
    struct err error;
};

void *filerun_read(void *run);  /* the reader thread */
void *filerun_write(void *run); /* the writer thread */

/* Reads the mark of an earlier run and holds it against the output as it is: sets f->resume.
 * ERR_EXISTS: the output has bytes that no earlier run wrote. */
int filerun_load_mark(struct filerun *f, struct err *e);

/* A job's id without the ".r<n>" of its retries, and the id of its next try. */
struct str filerun_base_id(struct str id);
void filerun_next_id(struct str id, char dst[ID_MAX + 1]);

/* Puts the batch's own record into the log, so that lines find their batch; waits for the answer.
 * 0, or negative: nothing was written. Reader thread. */
int filerun_create_batch(struct filerun *f);

/* The worker may start. Reader thread, once. */
void filerun_tell_ready(struct filerun *f);
/* Any of the threads: the run cannot go on. */
void filerun_fail(struct filerun *f, const struct err *e);
/* The same, because the log failed with `code`; the message says why. */
void filerun_fail_log(struct filerun *f, int code);
/* Waits until something changed since *seen (a wake, an ack, a stop), at most ms. */
void filerun_wait_locked(struct filerun *f, uint64_t *seen, int64_t ms);
void filerun_wake(struct filerun *f);
void filerun_wake_locked(struct filerun *f);
/* Reader thread: a pause while the log's disk is full. False: no more is to be read. */
bool filerun_wait_for_room(struct filerun *f);
/* What holds the thread up, until it says NULL. textz is static. */
void filerun_note(struct filerun *f, enum filerun_thread who, const char *textz);
