#include "base/heap.h"
#include "base/buf.h"
#include <assert.h>
#include <stdlib.h>

void heap_init(struct heap *h)
{
    *h = (struct heap){NULL, 0, 0};
}

void heap_release(struct heap *h)
{
    free(h->nodes);
    heap_init(h);
}

static void put(struct heap *h, size_t i, struct heap_node *node)
{
    h->nodes[i] = node;
    node->at = i + 1;
}

/* Both move the hole at i to where node fits, and put it there. */

static void sift_up(struct heap *h, size_t i, struct heap_node *node)
{
    while (i > 0 && h->nodes[(i - 1) / 2]->key > node->key) {
        put(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(h, i, node);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *node)
{
    size_t child;

    while ((child = 2 * i + 1) < h->n) {
        if (child + 1 < h->n && h->nodes[child + 1]->key < h->nodes[child]->key)
            child++;
        if (h->nodes[child]->key >= node->key)
            break;
        put(h, i, h->nodes[child]);
        i = child;
    }
    put(h, i, node);
}

void heap_push(struct heap *h, struct heap_node *node, int64_t key)
{
    assert(!heap_has(node));
    if (h->n == h->room) {
        h->room = h->room ? 2 * h->room : 16;
        h->nodes = xrealloc(h->nodes, h->room * sizeof h->nodes[0]);
    }
    node->key = key;
    sift_up(h, h->n++, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    size_t i = node->at - 1;
    struct heap_node *last;

    assert(heap_has(node) && i < h->n && h->nodes[i] == node);
    node->at = 0;
    last = h->nodes[--h->n];
    if (last == node)
        return;
    if (i > 0 && h->nodes[(i - 1) / 2]->key > last->key)
        sift_up(h, i, last);
    else
        sift_down(h, i, last);
}

struct heap_node *heap_min(const struct heap *h)
{
    return h->n > 0 ? h->nodes[0] : NULL;
}
