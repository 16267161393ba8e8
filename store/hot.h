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

/* ---- jobs that run in other processes; any thread ---- */

/* Has the partial tokens of a job put into `live`, for who watches it there: live_watch comes
 * before, live_unwatch after hot_unwatch. NULL where jobs run in no other process. */
struct hot_stream;
struct hot_stream *hot_watch(struct hot *h, struct str tenant, struct str id);
/* Whether all that stood in Redis is there, or cannot be had; `live`'s watchers are woken then. */
bool hot_is_loaded(struct hot *h, struct hot_stream *s);
void hot_unwatch(struct hot *h, struct hot_stream *s);

enum { HOT_LOOK_MAX = 4096 };
/* What Redis knows of n jobs that have not ended. hot_look gives who asks a struct of its own: add
 * names, then ask once, then read when on_ready came, and leave. */
struct hot_look;
struct hot_look *hot_look_new(struct hot *h, void (*on_ready)(void *data), void *data);
/* False when it takes no more; HOT_LOOK_MAX. */
bool hot_look_add(struct hot_look *k, struct str tenant, struct str id);
/* In place of names: all jobs that run, as many as it takes. */
void hot_look_all(struct hot_look *k);
/* on_ready comes once, on hot's thread under its lock, unless hot_look_leave was sooner: only wake.
 */
void hot_look_ask(struct hot_look *k);
/* Whether the answer is there; and what it says. False: nothing is known of the job. */
bool hot_look_is_ready(struct hot_look *k);
bool hot_look_get(struct hot_look *k, struct str tenant, struct str id, struct live_view *out);
/* Calls fn for each that runs. */
void hot_look_each(struct hot_look *k, void (*fn)(void *data, struct str tenant, struct str id),
                   void *data);
void hot_look_leave(struct hot_look *k);

/* Someone who waits until they were looked at; embed it, zeroed. */
struct hot_waiter {
    struct list node;
    void (*on_ready)(struct hot_waiter *w); /* hot's thread, under its lock: only wake */
};
/* Has them looked at now; on_ready comes once that is done or cannot be, and maybe again until
 * hot_unwait_nodes. */
void hot_wait_nodes(struct hot *h, struct hot_waiter *w);
void hot_unwait_nodes(struct hot *h, struct hot_waiter *w);
