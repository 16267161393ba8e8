#include "producer/api/routes.h"

#define NO_PARAMS ((const char *const[]){NULL})
/* The filters of dead letters. */
#define DEAD_PARAMS \
    "model", "code", "tenant", "queue", "batch_id", "job_id", "since", "until", "after", "before", \
        "limit"
#define PARAMS(...) ((const char *const[]){__VA_ARGS__, NULL})

const struct route routes[] = {
#define ROUTE(method, pattern, handler, on_body, params, status, reply, doc)                       \
    {method, pattern, handler, on_body, params, status, reply, doc},
#include "producer/api/route.def"
#undef ROUTE
    {NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL},
};

const struct route health_routes[] = {
#define ROUTE(...)
#define HEALTH_ROUTE(method, pattern, handler, on_body, params, status, reply, doc)                \
    {method, pattern, handler, on_body, params, status, reply, doc},
#include "producer/api/route.def"
#undef ROUTE
    {NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL},
};
