/* Commands wait in `unanswered`, in the order of their replies. Those that were told ERR_TIMEOUT go
 * on waiting in `late`, for their replies must be counted; deadlines being equal, all of these are
 * older. */
#include "base/redis_inside.h"
#include <stdlib.h>

enum { HEADER_MAX_BYTES = 32 /* of an argument: "$<length>\r\n" and the line's end behind it */ };

static struct command *first_of(struct list *head)
{
    return list_is_empty(head) ? NULL : LIST_ENTRY(head->next, struct command, node);
}

struct command *queue_take(struct redis *r, bool *is_late)
{
    struct command *c = first_of(&r->late);

    *is_late = c != NULL;
    c = c ? c : first_of(&r->unanswered);
    if (!c)
        return NULL;
    list_remove(&c->node);
    r->n_waiting--;
    r->n_bytes -= c->n_bytes;
    return c;
}

void queue_drop(struct redis *r)
{
    struct command *c;
    bool is_late;

    buf_clear(&r->out);
    uv_timer_stop(&r->limit);
    r->is_limit_due = false;
    while ((c = queue_take(r, &is_late))) {
        if (!is_late)
            c->fn(c->data, ERR_CLOSED, NULL);
        free(c);
    }
}

/* ---- deadlines ---- */

static void on_limit(uv_timer_t *timer);

static void arm_limit(struct redis *r, int64_t due_ms)
{
    int64_t now_ms = (int64_t)uv_now(r->o.loop);

    uv_timer_start(&r->limit, on_limit, due_ms > now_ms ? (uint64_t)(due_ms - now_ms) : 0, 0);
}

/* Tells those whose time is over; one that is told may close the client. */
static void tell_late(struct redis *r, int64_t now_ms)
{
    struct command *c;

    while (r->link && (c = first_of(&r->unanswered)) && c->due_ms <= now_ms) {
        list_remove(&c->node);
        list_push(&r->late, &c->node);
        c->fn(c->data, ERR_TIMEOUT, NULL);
    }
}

/* Where the loop was kept busy past a deadline, the answers may be there, unread. So the loop first
 * turns once more. */
static void on_limit(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    int64_t now_ms = (int64_t)uv_now(r->o.loop), patience_ms;
    struct command *late, *next;

    r->is_limit_due = !r->is_limit_due;
    if (r->is_limit_due) {
        arm_limit(r, now_ms + 1);
        return;
    }
    tell_late(r, now_ms);
    if (!r->link)
        return;
    late = first_of(&r->late);
    next = first_of(&r->unanswered);
    patience_ms = late ? late->due_ms + (STALL_DEADLINES - 1) * r->o.deadline_ms : INT64_MAX;
    if (patience_ms <= now_ms)
        link_fail(r, ERR_TIMEOUT, "it does not answer");
    else if (late || next)
        arm_limit(r, next && next->due_ms < patience_ms ? next->due_ms : patience_ms);
}

/* ---- sending ---- */

size_t queue_bytes(const struct str *args, size_t n)
{
    size_t i, n_bytes = HEADER_MAX_BYTES;

    for (i = 0; i < n; i++)
        n_bytes += args[i].n + HEADER_MAX_BYTES;
    return n_bytes;
}

static void add_count(struct buf *b, char mark, size_t n) /* no printf: two dozen a command */
{
    buf_addc(b, mark);
    buf_addi(b, (int64_t)n);
    buf_addz(b, "\r\n");
}

void queue_add(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data)
{
    struct command *c = xmalloc(sizeof *c);
    size_t i;

    uv_update_time(r->o.loop); /* a turn that was long so far is not the server's fault */
    *c = (struct command){.fn = fn,
                          .data = data,
                          .due_ms = (int64_t)uv_now(r->o.loop) + r->o.deadline_ms,
                          .n_bytes = queue_bytes(args, n)};
    list_push(&r->unanswered, &c->node);
    r->n_waiting++;
    r->n_bytes += c->n_bytes;
    add_count(&r->out, '*', n);
    for (i = 0; i < n; i++) {
        add_count(&r->out, '$', args[i].n);
        buf_adds(&r->out, args[i]);
        buf_addz(&r->out, "\r\n");
    }
    if (!uv_is_active((uv_handle_t *)&r->limit))
        arm_limit(r, c->due_ms);
}
