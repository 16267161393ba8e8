#include "worker/outbox.h"
#include "base/log.h"
#include "base/test_hook.h"
#include <stdlib.h>

enum { A_PUBLISH = 4096, FIRST_BACKOFF_MS = 50, LAST_BACKOFF_MS = 1000 };

struct shipment {
    struct publish publish; /* first */
    struct message m;
    struct outbox *b;
    int code;
    struct outgoing **items;
    struct record records[];
};

static void on_timer(uv_timer_t *timer)
{
    outbox_flush(timer->data, true);
}

void outbox_init(struct outbox *b, struct broker *broker, struct inbox *inbox, uv_loop_t *loop)
{
    *b = (struct outbox){.broker = broker, .inbox = inbox};
    list_init(&b->pending);
    uv_timer_init(loop, &b->timer);
    b->timer.data = b;
}

void outbox_add(struct outbox *b, struct outgoing *o)
{
    list_push(&b->pending, &o->node);
    b->n_pending++;
    b->n_bytes += o->record.value.n;
}

/* Gives it back to its owner, with what became of it. */
static void leave(struct outbox *b, struct outgoing *o, int code)
{
    b->n_bytes -= o->record.value.n;
    o->on_sent(o, code);
}

static void suspend(struct outbox *b, int code)
{
    if (b->backoff_ms == 0)
        log_warn("publish_failed", LI("code", code), LI("waiting", b->n_pending));
    b->failed_with = code;
    b->backoff_ms = b->backoff_ms == 0 ? FIRST_BACKOFF_MS : b->backoff_ms * 2;
    if (b->backoff_ms > LAST_BACKOFF_MS)
        b->backoff_ms = LAST_BACKOFF_MS;
    uv_update_time(b->timer.loop);
    uv_timer_start(&b->timer, on_timer, (uint64_t)b->backoff_ms, 0);
}

static void resume(struct outbox *b)
{
    if (b->backoff_ms > 0)
        log_info("publish_recovered", LI("waiting", b->n_pending));
    b->backoff_ms = 0;
    b->failed_with = 0;
}

/* Failed to be written, as opposed to turned away. */
static bool is_failure(int code)
{
    return code == ERR_FULL || code == ERR_IO || code == ERR_CLOSED || code == ERR_BUSY ||
           code == ERR_INTERNAL || code == ERR_TIMEOUT || code == ERR_CORRUPT ||
           code == ERR_UNREACHABLE;
}

static void keep(struct outbox *b, struct outgoing *o)
{
    list_push(&b->pending, &o->node);
    b->n_pending++;
}

/* Back on the loop: each record's own result. */
static void on_acknowledged(struct message *m)
{
    struct shipment *s = LIST_ENTRY(m, struct shipment, m);
    struct outbox *b = s->b;
    size_t i, n = s->publish.n;
    int code, failure = 0;

    HOOK_CRASH("acked");
    b->n_sent -= n;
    for (i = 0; i < n; i++) {
        code = s->code < 0 ? s->code : s->records[i].code;
        if (!is_failure(code)) {
            leave(b, s->items[i], code);
            continue;
        }
        failure = code;
        if (b->is_dropping || HOOK_SKIP("ack"))
            leave(b, s->items[i], ERR_CLOSED);
        else
            keep(b, s->items[i]);
    }
    if (failure)
        suspend(b, failure);
    else
        resume(b);
    free(s->items);
    free(s);
}

/* On the broker's thread. */
static void on_ack(struct publish *p, int code)
{
    struct shipment *s = (struct shipment *)(void *)p;

    s->code = code;
    inbox_post(s->b->inbox, &s->m);
}

static struct shipment *pack(struct outbox *b, size_t n, bool is_patient)
{
    struct shipment *s = xcalloc(1, sizeof *s + n * sizeof s->records[0]);
    size_t i;

    s->items = xmalloc(n * sizeof s->items[0]);
    for (i = 0; i < n; i++) {
        s->items[i] = LIST_ENTRY(list_pop(&b->pending), struct outgoing, node);
        s->records[i] = s->items[i]->record;
        log_debug("published", LS("id", s->records[i].key), LI("topic", s->records[i].at.topic));
    }
    s->b = b;
    s->m.on_receive = on_acknowledged;
    s->publish =
        (struct publish){.records = s->records, .n = n, .on_ack = on_ack, .is_patient = is_patient};
    return s;
}

static void unpack(struct outbox *b, struct shipment *s)
{
    size_t i;

    for (i = s->publish.n; i > 0; i--)
        list_push_front(&b->pending, &s->items[i - 1]->node);
    free(s->items);
    free(s);
}

void outbox_flush(struct outbox *b, bool is_patient)
{
    struct shipment *s;
    size_t n;
    int code;

    while (b->n_pending > 0 && !uv_is_active((uv_handle_t *)&b->timer)) {
        n = b->n_pending < A_PUBLISH ? b->n_pending : A_PUBLISH;
        s = pack(b, n, is_patient);
        code = broker_publish(b->broker, &s->publish);
        if (code < 0) {
            unpack(b, s);
            suspend(b, code);
            return;
        }
        b->n_pending -= n;
        b->n_sent += n;
        HOOK_CRASH("published");
    }
}

void outbox_drop(struct outbox *b)
{
    struct list *node;
    struct outgoing *o;

    b->is_dropping = true;
    while ((node = list_pop(&b->pending)) != NULL) {
        o = LIST_ENTRY(node, struct outgoing, node);
        b->n_pending--;
        leave(b, o, ERR_CLOSED);
    }
}
