/* What the two files of a batch run's reader share: filerun_reader.c makes lines into jobs, and
 * filerun_groups.c brings them into the log, a group of lines at a time. Reader thread only. */
#pragma once
#include "base/map.h"
#include "producer/filerun_internal.h"
#include "store/reader.h"

#define FILERUN_FULL_WAIT_MS 500

struct repeats;

/* Lines on their way into the log. */
struct group {
    struct list node; /* in `open`, in the order of lines */
    struct list acked_node;
    struct filerun *run;
    struct submission *submission;
    int64_t first_line;
    bool is_refused[FILERUN_GROUP]; /* the lines that are no jobs */
    int code;
};

/* What an earlier run left in the log: filerun_leftovers.c. */
struct leftovers {
    struct map all;  /* by id: not met in the input so far */
    size_t n_loaded; /* in all */
    size_t n_unmet;  /* in `all`, and not cancelled */
    bool is_decided; /* the worker was started */
    int64_t patience_ms;
    struct reader *reader;
};

struct reading {
    struct filerun *run;
    struct repeats *repeats;
    struct leftovers leftovers;
    int fd;
    bool is_regular;
    struct buf text; /* bytes read, not yet made into lines */
    size_t at;       /* start of the next line in it */
    bool is_at_end, skips_long;
    int64_t line;    /* number of the next line, from 0 */
    int64_t file_line; /* the same as editors count: with blank lines, from 1 */
    struct group *filling;
    size_t group_lines; /* lines of the next publish: few at first, so that engines start at once */
    size_t group_max;   /* no more than limits.queued_jobs lets in */
    struct list open;
    size_t n_open;
    uint64_t seen;
    uint8_t digest[SHA256_LEN]; /* of the ids of the lines so far */
    bool is_checked;
};

/* An empty group whose first line has this number. */
struct group *groups_new(struct reading *r, int64_t first_line);
/* Sends the group that is being filled, if any. Negative: the run is over. */
int groups_flush(struct reading *r);
/* Adds a line that is no job to g: it ends at once as failed. Takes j. */
int groups_refuse(struct reading *r, struct group *g, struct job *j, int reason,
                  const char *messagez);
/* Settles what was acknowledged: jobs that failed in an earlier run are sent again under their next
 * id. Negative: the run is over. */
int groups_take_acks(struct reading *r);
/* Tells the writer how far it may look. */
void groups_publish_ready(struct reading *r);
/* Waits until there is room for more lines: few publishes on their way, few jobs unfinished. */
int groups_wait(struct reading *r, size_t max_open, int64_t max_unfinished);
/* Finds what is unfinished, before the first line is read; where nothing is, the worker starts. */
int leftovers_load(struct reading *r, struct err *e);
/* A line's job is in the log, unfinished. True: but it was cancelled meanwhile, for it came too
 * late. */
bool leftovers_meet(struct reading *r, struct str id);
/* Nothing more can be learned without the worker: cancels what was not met, and starts it. Does
 * nothing when called again. Negative: the run is over. */
int leftovers_decide(struct reading *r);
void leftovers_release(struct reading *r);
/* At the end: waits for the publishes on their way, and frees all groups. */
void groups_drop(struct reading *r);
