/* Status of the engine nodes, written by the worker's pool, read by the API. Any thread. */
#pragma once
#include "base/buf.h"

struct nodes;

struct node_status {
    const char *namez, *urlz, *apiz; /* api: "ollama", "openai", "unknown" */
    const char *statez;              /* "up", "down", "starting", "draining" */
    const char *errorz;              /* why it is down; "" when up */
    int slots, busy, weight;
    int64_t n_calls, n_failed;              /* since start */
    int64_t checked_at;                     /* wall ms of the last health check; 0: none yet */
    int64_t latency_ms_p50, latency_ms_p95; /* of the newest calls; -1: none yet */
    const char *const *models;              /* NULL-terminated */
};

struct nodes *nodes_new(size_t n);
void nodes_free(struct nodes *ns);
size_t nodes_count(const struct nodes *ns); /* n of nodes_new */
/* Copies the status of node i in [0, n). */
void nodes_put(struct nodes *ns, size_t i, const struct node_status *s);
/* Calls fn with the name and the JSON of each node (valid during the call), under the lock: copy
 * and leave. */
void nodes_each(struct nodes *ns, void (*fn)(void *data, struct str name, struct str json),
                void *data);
/* Appends a JSON array of all nodes. Gives how many are up and their slots. */
void nodes_print(struct nodes *ns, struct buf *b, int *n_up, int *n_slots);
