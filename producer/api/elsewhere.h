/* What Redis knows of jobs that run in other processes, for a request that shows jobs: the first
 * look into the store finds which are asked about, the second one has the answers. Without a Redis,
 * where jobs run in this process alone, or when the answer does not come in time, they are shown as
 * queued. On the request's thread. */
#pragma once
#include "producer/http/server.h"

struct elsewhere { /* zeroed at first */
    struct request *q;
    bool is_all; /* set by the caller: also jobs that the store is not asked for by name */
    struct hot_look *look; /* NULL: nothing to ask */
    struct reader_seen seen;
    bool is_asked;
    int64_t deadline_ms; /* monotonic */
};

/* From now on looks into the store note jobs, or show what is known; until elsewhere_done. */
void elsewhere_begin(struct elsewhere *x, struct request *q);
void elsewhere_done(struct elsewhere *x);
/* True: the request waits, `then` is called to look again. False: there is no more to come. */
bool elsewhere_wait(struct elsewhere *x, handler_fn then);
/* At the request's end, or sooner. */
void elsewhere_release(struct elsewhere *x);
