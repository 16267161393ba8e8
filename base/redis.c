/* What is sent in one turn of the loop goes out in one write: a prepare handle flushes. */
#include "base/redis_inside.h"
#include <assert.h>
#include <stdlib.h>

#define MAX_BYTES ((size_t)16 << 20)
enum { DEADLINE_MS = 500, MAX_COMMANDS = 16384 };

void redis_set_fault(struct redis *r, int code, const char *whyz)
{
    err_set(&r->fault, code, "redis %s: %s", r->url.name, whyz);
}

int redis_send(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data)
{
    assert(n > 0);
    if (r->step != STEP_UP)
        return ERR_UNREACHABLE;
    if (r->n_waiting >= r->o.max_commands || r->n_bytes + queue_bytes(args, n) > r->o.max_bytes)
        return ERR_FULL;
    queue_add(r, args, n, fn, data);
    return 0;
}

static void on_flush(uv_prepare_t *prepare)
{
    link_flush(prepare->data);
}

static void init_handles(struct redis *r)
{
    uv_prepare_init(r->o.loop, &r->flush);
    uv_timer_init(r->o.loop, &r->retry);
    uv_timer_init(r->o.loop, &r->limit);
    r->flush.data = r->retry.data = r->limit.data = r;
    r->n_handles = 3;
    uv_prepare_start(&r->flush, on_flush);
}

struct redis *redis_open(const struct redis_options *o, struct err *e)
{
    struct redis *r = xcalloc(1, sizeof *r);

    if (redis_url_parse(&r->url, str_z(o->urlz), e)) {
        free(r);
        return NULL;
    }
    r->o = *o;
    r->o.deadline_ms = o->deadline_ms ? o->deadline_ms : DEADLINE_MS;
    r->o.max_commands = o->max_commands ? o->max_commands : MAX_COMMANDS;
    r->o.max_bytes = o->max_bytes ? o->max_bytes : MAX_BYTES;
    r->backoff_ms = BACKOFF_MIN_MS;
    list_init(&r->late);
    list_init(&r->unanswered);
    buf_init(&r->out, SIZE_MAX); /* bounded by max_bytes */
    redis_set_fault(r, ERR_UNREACHABLE, "connecting");
    init_handles(r);
    uv_update_time(o->loop); /* it may not have run yet, and deadlines count from its time */
    link_start(r);
    return r;
}

static void on_closed(uv_handle_t *handle)
{
    struct redis *r = handle->data;

    if (--r->n_handles > 0)
        return;
    buf_release(&r->out);
    redis_url_release(&r->url);
    free(r);
}

void redis_close(struct redis *r)
{
    assert(r->step != STEP_CLOSED);
    r->step = STEP_CLOSED;
    redis_set_fault(r, ERR_CLOSED, "closed");
    link_drop(r);
    queue_drop(r);
    uv_close((uv_handle_t *)&r->flush, on_closed);
    uv_close((uv_handle_t *)&r->retry, on_closed);
    uv_close((uv_handle_t *)&r->limit, on_closed);
}

int redis_health(const struct redis *r, struct err *e)
{
    if (r->fault.code && e)
        *e = r->fault;
    return r->fault.code;
}
