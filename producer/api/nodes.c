/* GET /api/v1/nodes: the engine nodes as this process' worker sees them and, with a Redis, those of
 * all other processes beside it. */
#include "base/clock.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include <stdlib.h>

#define REPLY_MAX_BYTES ((size_t)64 << 20)
enum { LOOK_MS = 1000 }; /* how long others are waited for */

struct look {
    struct hot_waiter waiter;
    struct request *q;
};

static void begin(struct buf *b)
{
    buf_init(b, REPLY_MAX_BYTES);
    buf_addz(b, "{\"object\":\"list\",\"data\":");
}

static void reply(struct request *q, struct buf *b)
{
    buf_addz(b, ",\"has_more\":false,\"next\":null}");
    request_reply_json(q, 200, b);
}

static void on_ready(struct hot_waiter *w)
{
    request_wake(LIST_ENTRY(w, struct look, waiter)->q);
}

static void on_end(struct request *q)
{
    struct look *look = q->data;

    hot_unwait_nodes(q->gateway->hot, &look->waiter);
    free(look);
}

/* Replies; false, when it must be `fresh` and is not. */
static bool reply_all(struct request *q, bool is_fresh_wanted)
{
    const struct gateway *g = q->gateway;
    struct buf b;

    begin(&b);
    buf_addc(&b, '[');
    hot_put_own_nodes(g->hot, g->nodes, &b);
    if (!hot_put_other_nodes(g->hot, &b) && is_fresh_wanted) {
        buf_release(&b);
        return false;
    }
    buf_addc(&b, ']');
    reply(q, &b);
    return true;
}

static void on_looked(struct request *q)
{
    if (!q->is_gone)
        reply_all(q, false);
}

static void look_around(struct request *q)
{
    struct look *look;

    if (reply_all(q, true))
        return;
    look = xcalloc(1, sizeof *look);
    look->q = q;
    look->waiter.on_ready = on_ready;
    q->data = look;
    q->on_end = on_end;
    hot_wait_nodes(q->gateway->hot, &look->waiter);
    request_wait(q, clock_mono_ms() + LOOK_MS, on_looked);
}

void nodes_get(struct request *q)
{
    int n_up, n_slots;
    struct buf b;

    if (!api_check_query(q))
        return;
    if (q->gateway->hot) {
        look_around(q);
        return;
    }
    begin(&b);
    nodes_print(q->gateway->nodes, &b, &n_up, &n_slots);
    reply(q, &b);
}
