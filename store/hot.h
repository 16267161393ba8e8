/* The store's copy in Redis, for hot reads and for other programs (docs/redis.md): jobs that wait,
 * run, or ended lately; completions, published; counters of usage. It follows the store on a
 * thread of its own with its own connections to both, so that a slow or absent Redis costs nobody
 * else anything. Nothing is ever only here, and nothing waits for it.
 *
 * How far Redis is stands in Redis itself, and moves in the same script that writes a completion:
 * so after a loss, a kill or a flush, whoever writes goes on from there, and of several gateways
 * each completion is written, counted and published by the first one. */
#pragma once
#include "base/list.h"
#include "store/live.h"
#include "store/nodes.h"
#include "store/writer.h"

struct config;
struct hot;

/* Before the log is opened: from then on hot_changed may be called. `store` is NULL in a worker
 * alone, `nodes` where there is none; these are this process' engine nodes, of which its heartbeat
 * tells. */
struct hot *hot_new(const struct config *c, struct live *live, struct store_writer *store,
                    struct nodes *nodes);
/* After it: connects and begins to follow. ERR_INVALID (the URL), or why the store cannot be read.
 */
int hot_start(struct hot *h, struct err *e);
/* There is something new in the store. Any thread; never blocks. `hot` is a struct hot. */
void hot_changed(void *hot);
/* 0 while Redis takes what it is given, else why not. Any thread. */
int hot_health(struct hot *h, struct err *e);
/* Writes what is there if Redis takes it within half a second, then ends the thread and frees h.
 * Once the log is closed. */
void hot_free(struct hot *h);

/* ---- engine nodes of all processes; any thread ---- */

/* Appends the JSON of these nodes, comma-separated, with the members worker and host. */
void hot_put_own_nodes(struct hot *h, struct nodes *ns, struct buf *b);
/* The same of all other processes', as last seen, behind a comma where b ends in an object. False
 * when that was longer than a second ago: see hot_wait_nodes. */
bool hot_put_other_nodes(struct hot *h, struct buf *b);

/* Someone who waits until they were looked at; embed it, zeroed. */
struct hot_waiter {
    struct list node;
    void (*on_ready)(struct hot_waiter *w); /* hot's thread, under its lock: only wake */
};
/* Has them looked at now; on_ready comes once that is done or cannot be, and maybe again until
 * hot_unwait_nodes. */
void hot_wait_nodes(struct hot *h, struct hot_waiter *w);
void hot_unwait_nodes(struct hot *h, struct hot_waiter *w);
