#include "producer/api/elsewhere.h"
#include "base/clock.h"
#include "broker-config/config.h"

enum { LOOK_MS = 100 };

static void on_ready(void *data)
{
    request_wake(data);
}

static struct hot_look *look_of(struct elsewhere *x)
{
    if (!x->look)
        x->look = hot_look_new(x->q->gateway->hot, on_ready, x->q);
    return x->look;
}

static bool see(void *data, struct str tenant, struct str id, struct live_view *out)
{
    struct elsewhere *x = data;

    if (x->is_asked)
        return x->look && hot_look_get(x->look, tenant, id, out);
    if (!x->is_all)
        hot_look_add(look_of(x), tenant, id);
    return false;
}

static void see_each(void *data, void (*fn)(void *fn_data, struct str tenant, struct str id),
                     void *fn_data)
{
    struct elsewhere *x = data;

    if (x->is_asked && x->look)
        hot_look_each(x->look, fn, fn_data);
}

void elsewhere_begin(struct elsewhere *x, struct request *q)
{
    const struct gateway *g = q->gateway;

    x->q = q;
    if (!x->is_asked)
        elsewhere_release(x); /* what was noted may have ended */
    if (!g->hot || g->config->broker_kind != BROKER_KIND_KAFKA)
        return;
    if (x->is_all && !x->is_asked)
        hot_look_all(look_of(x));
    x->seen = (struct reader_seen){see, see_each, x};
    reader_set_seen(request_reader(q), &x->seen);
}

void elsewhere_done(struct elsewhere *x)
{
    reader_set_seen(request_reader(x->q), NULL);
}

bool elsewhere_wait(struct elsewhere *x, handler_fn then)
{
    if (!x->look)
        return false;
    if (!x->is_asked) {
        x->is_asked = true;
        x->deadline_ms = clock_mono_ms() + LOOK_MS;
        hot_look_ask(x->look);
    } else if (x->q->is_late || hot_look_is_ready(x->look) || clock_mono_ms() >= x->deadline_ms) {
        return false;
    }
    request_wait(x->q, x->deadline_ms, then);
    return true;
}

void elsewhere_release(struct elsewhere *x)
{
    if (x->look)
        hot_look_leave(x->look);
    x->look = NULL;
}
