/* What of genq is in this process: the client's side (log, store, live state), the worker, or both,
 * on one loop. `genq up` and `genq gateway` put the HTTP server on it, `genq batch run` a reader
 * and a writer of files; none takes a short cut past it. */
#pragma once
#include "producer/gateway.h"
#include <uv.h>

/* The worker, which the producer's side never sees: genq.c hands it in. */
struct worker_side {
    void *(*start)(const struct gateway *g, uv_loop_t *loop, struct err *e);
    void (*stop)(void *worker, int64_t drain_ms, void (*on_stopped)(void *data), void *data);
    void (*free)(void *worker);
    const char *(*trouble)(void *worker); /* worker_trouble() */
    int (*failure)(void *worker);         /* worker_failure() */
};

/* A mask. One alone is a process among others, which meet in Kafka. */
enum embedded_role { ROLE_GATEWAY = 1, ROLE_WORKER = 2, ROLE_BOTH = ROLE_GATEWAY | ROLE_WORKER };

struct embedded {
    struct gateway gateway; /* without ROLE_GATEWAY: no store */
    uv_loop_t *loop;
    const struct worker_side *side;
    unsigned roles;
    void *worker; /* NULL: without ROLE_WORKER */
    int lock_fd;
};

/* Locks and opens config->data (making it). The config must outlive it. ERR_BUSY: another genq has
 * it open; after any failure everything is closed again, but for the loop. */
int embedded_open(struct embedded *m, const struct config *c, uv_loop_t *loop,
                  const struct worker_side *side, unsigned roles, struct err *e);
/* Starts the worker, where it is a role; it takes jobs at once. On failure: embedded_close. */
int embedded_start(struct embedded *m, struct err *e);
/* Stops the worker (worker_stop, so the loop must run on), then calls on_stopped on the loop;
 * inside this call where none was started. A second call stops at once. */
void embedded_stop(struct embedded *m, int64_t drain_ms, void (*on_stopped)(void *data),
                   void *data);
/* What keeps jobs waiting now (worker_trouble()), or "". */
const char *embedded_trouble(const struct embedded *m);
/* Whether it can go on (loop's thread): 0, or ERR_CORRUPT when the database turned out to be
 * damaged. Then nothing is written any more: stop. */
int embedded_failure(const struct embedded *m, struct err *e);
/* After on_stopped: closes log and store, gives the lock back. */
void embedded_close(struct embedded *m);
/* At the very end: runs what is left on the loop (close callbacks), and closes it. */
void embedded_close_loop(uv_loop_t *loop);
