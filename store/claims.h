/* Ids that clients chose, claimed in Redis before their jobs are published, so that of several
 * gateways one takes an id and the others know what for (docs/redis.md). A claim holds for
 * CLAIM_MS, in which every gateway has read the job from the log, and knows by itself.
 *
 * Where Redis is away, or does not answer within CLAIM_WAIT_MS, what was asked is told so, and for
 * a second nobody else waits for it. */
#pragma once
#include "base/inbox.h"
#include "base/str.h"

#define CLAIM_MS 600000
#define CLAIM_WAIT_MS 100

struct config;
struct claims;

/* One id. Its strs are borrowed until on_done. */
struct claim {
    struct str tenant, id, digest; /* digest: that of its job, as text */
    bool is_conflict;              /* out: it is claimed for a job with another digest */
};

/* What is claimed at one time. Embed it. */
struct claim_order {
    struct message message; /* private, as are n_out and claims_ */
    struct claims *claims_;
    size_t n_out;
    struct claim *claims; /* borrowed until on_done */
    size_t n;
    bool is_unclaimed; /* out: of some ids Redis did not tell; these are no conflicts */
    /* Once, on the loop's thread. */
    void (*on_done)(struct claim_order *o);
};

/* On the loop's thread. NULL and ERR_INVALID when the config's URL is none. */
struct claims *claims_open(const struct config *c, uv_loop_t *loop, struct err *e);
/* on_done comes within this call for all that still wait. Freed once the loop has run its close
 * callbacks. */
void claims_close(struct claims *c);
/* Any thread. */
void claims_take(struct claims *c, struct claim_order *o);
