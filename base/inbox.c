/* A mutex, a list and a uv_async_t. The loop takes the whole list under one lock and handles it
 * outside, so posting threads never wait for a handler. */
#include "base/inbox.h"
#include "base/buf.h"
#include <assert.h>
#include <stdlib.h>

struct inbox {
    uv_async_t async;
    uv_mutex_t lock;
    struct list posted; /* under lock */
    struct list taken;  /* loop's thread only, with is_closing: what drain works on */
    bool is_closing;
};

static void on_async(uv_async_t *async)
{
    inbox_drain(async->data);
}

struct inbox *inbox_new(uv_loop_t *loop)
{
    struct inbox *b = xcalloc(1, sizeof *b);

    list_init(&b->posted);
    list_init(&b->taken);
    if (uv_mutex_init(&b->lock) != 0 || uv_async_init(loop, &b->async, on_async) != 0)
        abort(); /* no memory or no descriptors at start */
    b->async.data = b;
    return b;
}

void inbox_post(struct inbox *b, struct message *m)
{
    bool is_first;

    uv_mutex_lock(&b->lock);
    is_first = list_is_empty(&b->posted);
    list_push(&b->posted, &m->node);
    uv_mutex_unlock(&b->lock);
    if (is_first) /* later ones find the loop already woken */
        uv_async_send(&b->async);
}

static void take_posted(struct inbox *b)
{
    uv_mutex_lock(&b->lock);
    if (!list_is_empty(&b->posted)) {
        b->posted.next->prev = b->taken.prev;
        b->taken.prev->next = b->posted.next;
        b->posted.prev->next = &b->taken;
        b->taken.prev = b->posted.prev;
        list_init(&b->posted);
    }
    uv_mutex_unlock(&b->lock);
}

/* A handler may drain or free the inbox: the list is in *b, which lives until it is closed. */
void inbox_drain(struct inbox *b)
{
    struct list *node;

    if (!b->is_closing)
        take_posted(b);
    while (!b->is_closing && (node = list_pop(&b->taken))) {
        struct message *m = LIST_ENTRY(node, struct message, node);

        m->on_receive(m);
    }
}

static void on_close(uv_handle_t *handle)
{
    struct inbox *b = handle->data;

    uv_mutex_destroy(&b->lock);
    free(b);
}

void inbox_free(struct inbox *b)
{
    assert(!b->is_closing);
    b->is_closing = true;
    uv_close((uv_handle_t *)&b->async, on_close);
}
