/* Jobs on their way into the log: checked jobs in, one publish, its acknowledgement back. Used by
 * every way in: HTTP, batches, `genq batch run`. Any thread. */
#pragma once
#include "producer/gateway.h"
#include "schema/job.h"
#include "store/reader.h"

/* One publish of up to `room` jobs. Legal sequence: submission_new, submission_add…,
 * submission_send, then on_done once; submission_free. */
struct submission {
    struct job *jobs;       /* n of them, owned */
    struct record *records; /* n: after on_done each one's code, detail and position */
    size_t n, room;
    /* As publish's on_ack: on the broker's thread or the loop's, may only hand over. */
    void (*on_done)(struct submission *s, int code);
    void *data;
    struct publish publish; /* private from here */
    struct buf *mems;
    struct record *sent; /* of a shared log: those of `records` that were not known yet, */
    size_t *sent_of;     /* and which they are; NULL: all of them */
    struct claim_order order;
    struct claim *claims; /* of those of them whose id a client chose; */
    size_t *claim_of;     /* and which they are of `sent` */
    const struct gateway *gateway;
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
int submission_add_refused(struct submission *s, const struct gateway *g, struct job *j, int reason,
                           const char *messagez, struct err *e);

/* Sends it. Where the log is shared, what the store knows already (by r, of this thread) is not
 * published again: a repeat would stay in the log, and run; and ids that clients chose are claimed
 * where there are claims, so that of the same id elsewhere one is published. r may be NULL where it
 * is not. 0: on_done will come, maybe in this call, and after a claim with ERR_FULL, too, or
 * ERR_BUSY (limits.without_redis). ERR_FULL (no room in the log; or, where it is shared, past
 * limits.queued_jobs), ERR_CLOSED: it will not; s may be sent again. */
int submission_send(struct submission *s, const struct gateway *g, struct reader *r, struct err *e);
