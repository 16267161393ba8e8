/* Intrusive binary min-heap by a 64-bit key; push, pop and remove are O(log n). Not thread safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t key;
    size_t at; /* 1 + index in the heap, 0 while in none */
};

struct heap {
    struct heap_node **nodes;
    size_t n, room;
};

void heap_init(struct heap *h);
void heap_release(struct heap *h); /* the nodes are the caller's */
void heap_push(struct heap *h, struct heap_node *node, int64_t key);
void heap_remove(struct heap *h, struct heap_node *node); /* must be in h */
struct heap_node *heap_min(const struct heap *h);         /* NULL when empty */

static inline bool heap_has(const struct heap_node *node)
{
    return node->at != 0;
}
