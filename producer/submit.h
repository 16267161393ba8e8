/* Jobs on their way into the log: checked jobs in, one publish, its acknowledgement back. Used by
 * every way in: HTTP, batches, `genq batch run`. Any thread. */
#pragma once
#include "producer/gateway.h"
#include "schema/job.h"

/* One publish of up to `room` jobs. Legal sequence: submission_new, submission_add…,
 * submission_send, then on_done once; submission_free. */
struct submission {
    struct job *jobs;       /* n of them, owned */
    struct record *records; /* n: after on_done each one's code, detail and position */
    size_t n, room;
    /* As publish's on_ack: on the broker's thread, may only hand over. */
    void (*on_done)(struct submission *s, int code);
    void *data;
    struct publish publish; /* private from here */
    struct buf *mems;
};

struct submission *submission_new(size_t room, void (*on_done)(struct submission *s, int code),
                                  void *data);
void submission_free(struct submission *s);

/* Adds a complete job (job_complete was called): finds its topic by queue, priority and not_before.
 * Takes j on success. ERR_INVALID: its queue is not in the config; ERR_TOO_LARGE: s is full. */
int submission_add(struct submission *s, const struct gateway *g, struct job *j, struct err *e);

/* Adds a job that was refused before it became one (a batch line that is wrong): it ends `failed`
 * with `reason` and `messagez` at once. id, tenant, batch_id, batch_line of j must be set. Takes
 * j. */
int submission_add_refused(struct submission *s, const struct gateway *g, struct job *j,
                           int reason, const char *messagez, struct err *e);

/* Sends it. 0: on_done will come. ERR_FULL (no room in the log; or, where it is shared, past
 * limits.queued_jobs), ERR_CLOSED: it will not; s may be sent again. */
int submission_send(struct submission *s, const struct gateway *g, struct err *e);
