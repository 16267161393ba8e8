/* What the worker publishes: completions, dead letters, jobs that became due. All of one turn of
 * the loop goes out as one publish, for acknowledgements and wake-ups cost. What could not be
 * written (the disk or a queue is full) is kept and tried again, after 50 ms, doubling to 1 s: a
 * result paid for is not lost. Loop thread only. */
#pragma once
#include "base/inbox.h"
#include "broker-config/broker.h"
#include <uv.h>

/* One record on its way; embed it. The outbox owns the struct around it until on_sent. */
struct outgoing {
    struct list node;
    struct record record; /* its bytes must stay until on_sent */
    /* Durable (code 0) or turned away for good (the store's code, e.g. ERR_EXISTS). */
    void (*on_sent)(struct outgoing *o, int code);
};

struct outbox {
    struct broker *broker;
    struct inbox *inbox;
    uv_timer_t timer;    /* runs while publishing is suspended after a failure */
    struct list pending; /* not handed to the broker */
    size_t n_pending, n_sent; /* n_sent: handed over, not acknowledged */
    size_t n_bytes;           /* of the values of both */
    int64_t backoff_ms;       /* 0: the last publish went well */
    bool is_dropping;
    int failed_with;          /* the last failure's code, while backoff_ms > 0 */
};

void outbox_init(struct outbox *b, struct broker *broker, struct inbox *inbox, uv_loop_t *loop);
void outbox_add(struct outbox *b, struct outgoing *o);
/* Publishes what is pending, unless suspended. Called at the end of each turn. is_patient: more is
 * to be expected soon, for which a busy log may let this wait. */
void outbox_flush(struct outbox *b, bool is_patient);
/* Gives up on what is not with the broker yet, and on failures from now on: on_sent(ERR_CLOSED). */
void outbox_drop(struct outbox *b);

static inline size_t outbox_count(const struct outbox *b)
{
    return b->n_pending + b->n_sent;
}

static inline size_t outbox_bytes(const struct outbox *b)
{
    return b->n_bytes;
}
