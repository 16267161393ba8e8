/* The handlers of route.def, one file a resource; routes.c makes the table. */
#pragma once
#include "producer/http/server.h"

#define ROUTE(method, pattern, handler, on_body, params, status, reply, doc)                       \
    void handler(struct request *q);
#include "producer/api/route.def"
#undef ROUTE

int batches_on_body(struct request *q, struct str bytes);
