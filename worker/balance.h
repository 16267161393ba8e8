/* Which node gets a job: policies without state. Loop thread only. */
#pragma once
#include "worker/pool.h"

/* The open node with the least load for its weight, of those not marked in `tried` (one flag a
 * node); NULL when there is none. */
struct node *balance_least(const struct pool *p, const bool *tried);

/* The node that jobs of `session` prefer: highest random weight (rendezvous hashing, Thaler and
 * Ravishankar 1998) among open nodes that have the model, so that a session stays where its prompt
 * is cached, and only a busy or lost node's sessions move. A preference: nothing waits for it. */
struct node *balance_session(const struct pool *p, const struct model *m, struct str session);
