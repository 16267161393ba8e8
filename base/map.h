/* Intrusive hash map from bytes to nodes (chaining, power-of-two table, grows at load 1). The key's
 * bytes are borrowed from the element that holds the node and must not change while it is in the
 * map. Not thread safe. */
#pragma once
#include "base/str.h"

struct map_node {
    struct map_node *next;
    struct str key;
    uint64_t hash;
};

struct map {
    struct map_node **slots;
    size_t n_slots, n; /* n: elements */
    uint64_t seed[2];  /* random, so that clients cannot choose keys that collide */
};

void map_init(struct map *m);
void map_release(struct map *m); /* frees the table; the nodes are the caller's */
struct map_node *map_get(const struct map *m, struct str key);
/* Adds node under key, which must not be there yet. */
void map_put(struct map *m, struct map_node *node, struct str key);
void map_remove(struct map *m, struct map_node *node); /* must be in m */
/* Visits all nodes; fn may remove the node it is given. */
void map_each(struct map *m, void (*fn)(struct map_node *node, void *data), void *data);
