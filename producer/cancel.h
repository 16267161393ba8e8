/* Cancelling: the `cancelled` completion (whose source is the job's record, so that it is never
 * delivered again), and when the log has it, the order on the control topic for the worker that may
 * have the job: who reads an order may rely on the completion. What the log has first decides. */
#pragma once
#include "producer/gateway.h"
#include "store/reader.h"

struct cancellation {
    /* On the broker's thread, may only hand over. code 0: cancelled; ERR_EXISTS: it had ended
     * meanwhile; other: not done. */
    void (*on_done)(struct cancellation *c, int code);
    void *data;
    struct broker *broker; /* private from here */
    struct publish publish;
    struct job job;
    struct record records[2];
    struct buf mem[2];
};

/* Starts cancelling a job. 0: on_done will come; ERR_NOT_FOUND, ERR_EXISTS (it has ended), ERR_FULL
 * …: it will not. */
int cancellation_start(struct cancellation *c, const struct gateway *g, struct reader *r,
                 struct str tenant, struct str id, struct err *e);
void cancellation_release(struct cancellation *c);
