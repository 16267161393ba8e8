/* What the client's side of genq works with: made once by embedded.c, read by every handler. */
#pragma once
#include "broker-config/broker.h"
#include "store/claims.h"
#include "store/hot.h"
#include "store/live.h"
#include "store/nodes.h"
#include "store/writer.h"

struct gateway {
    const struct config *config;
    const struct topics *topics;
    struct broker *broker;
    struct live *live;
    struct nodes *nodes;
    struct store_writer *store; /* NULL in a process that serves no jobs */
    struct hot *hot;            /* NULL: no Redis */
    struct claims *claims;      /* NULL: no Redis, or no other gateway to have claims before */
};

/* Whether there is room for more jobs: 0, or ERR_FULL when the data directory's disk has less than
 * limits.disk_free_bytes left (looked at once a second at most) . Any thread. */
int gateway_has_room(const struct gateway *g, struct err *e);
