/* What the end of an engine call means for its job: policy alone, pure functions over one table. */
#pragma once
#include "base/fetch.h"
#include "worker/engine.h"

enum retry_action {
    RETRY_DONE,      /* it is the answer */
    RETRY_AGAIN,     /* an attempt is spent; again after a backoff, or failed when none is left */
    RETRY_WAIT,      /* not about this job: again as soon as a node can, no attempt spent */
    RETRY_ELSEWHERE, /* this node does not have the model; no attempt spent */
    RETRY_FAIL,      /* will not get better */
};

/* What it means for the node. */
enum node_effect {
    NODE_FINE,
    NODE_REFUSED,   /* out at once */
    NODE_SUSPECT,   /* check it now */
    NODE_PAUSED,    /* give it nothing until Retry-After */
    NODE_DENIED,    /* its settings are wrong */
    NODE_NO_MODEL,
};

struct verdict {
    enum retry_action action;
    enum reason reason;        /* when it fails for good */
    enum call_outcome outcome; /* the ledger's */
    enum node_effect effect;
};

/* `fault` decides unless it is FETCH_OK; then `class`. */
struct verdict retry_judge(enum fetch_fault fault, enum engine_class class, bool was_sent);

/* Ceiling of the wait before attempt n + 1 (n >= 1): base * 2^(n - 1), at most cap; full jitter
 * takes `random` of it. */
int64_t retry_wait_ms(int64_t base_ms, int64_t cap_ms, int n, uint64_t random);
