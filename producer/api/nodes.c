/* GET /api/v1/nodes: the engine nodes as the worker sees them. */
#include "producer/api/api.h"
#include "producer/api/routes.h"

#define REPLY_MAX_BYTES ((size_t)64 << 20)

void nodes_get(struct request *q)
{
    int n_up, n_slots;
    struct buf b;

    if (!api_check_query(q))
        return;
    buf_init(&b, REPLY_MAX_BYTES);
    buf_addz(&b, "{\"object\":\"list\",\"data\":");
    nodes_print(q->gateway->nodes, &b, &n_up, &n_slots);
    buf_addz(&b, ",\"has_more\":false,\"next\":null}");
    request_reply_json(q, 200, &b);
}
