/* What is going on now, in memory: the attempt a job is in, its partial tokens, and who wants to
 * be woken. The worker writes, the gateway reads; any thread, one lock, nothing done under it
 * but list work and copies. Bounded: tokens per job by limits.stream_bytes, jobs by the worker's
 * slots, watchers by the connections.
 *
 * A stream's events have sequence numbers from 1, for SSE ids and late joiners. */
#pragma once
#include "base/buf.h"
#include "base/list.h"
#include "schema/state.h"
#include "store/stream.h"

struct live;

struct live *live_new(size_t stream_max_bytes);
void live_free(struct live *l);

/* ---- written by the worker (loop thread) ---- */
/* Attempt `attempt` (from 1) of a job began on `node`. */
void live_start(struct live *l, struct str tenant, struct str id, int attempt, struct str node,
                int64_t wall_ms, bool is_stream);
/* The attempt is over and the job waits again (queued). */
void live_requeue(struct live *l, struct str tenant, struct str id);
/* Text (UTF-8) of a streamed job. Past stream_max_bytes the rest of the attempt's is dropped,
 * and readers get an empty delta with "is_cut":true: what they have is an exact beginning of the
 * completion's. */
void live_delta(struct live *l, struct str tenant, struct str id, struct str text);

/* ---- written by the store when a completion is durable (db thread) ---- */
/* Forgets the job's activity and wakes its watchers. (The worker calls it too, for a job that it
 * had started and drops because it has ended elsewhere: a cancelled one.) Its stream stays
 * readable as long as somebody watches it. */
void live_end(struct live *l, struct str tenant, struct str id);
/* Wakes the feed's watchers (once a transaction). */
void live_feed(struct live *l);

/* ---- between processes, whose jobs these are as well (hot's thread) ---- */
/* on_stream tells of each streamed job that begins here, on the worker's thread and under the lock:
 * copy and leave. Set before the first one begins. */
void live_tell_streams(struct live *l,
                       void (*on_stream)(void *data, struct str tenant, struct str id), void *data);
/* Calls fn with what comes after event number `after` of a job's stream until it returns false,
 * under the lock: copy and leave. */
void live_copy(struct live *l, struct str tenant, struct str id, int64_t after,
               bool (*fn)(void *data, const struct stream_part *p), void *data);
/* The other way round: an event (NULL: none) of a job that runs elsewhere; its watchers are woken.
 * Nothing happens where nobody watches it, or where it has run here. */
void live_mirror(struct live *l, struct str tenant, struct str id, const struct stream_part *p);
/* Forgets what was copied so of a job, for it is copied anew. */
void live_clear_mirror(struct live *l, struct str tenant, struct str id);
/* Whether such a job runs, as far as its stream says, and its end has not come. */
bool live_runs_elsewhere(struct live *l, struct str tenant, struct str id);

/* ---- read by the gateway (any thread) ---- */
struct live_view {
    bool is_running;
    int attempts;
    char node[65];
    int64_t started_at; /* wall ms of the first attempt; 0: none */
};
/* False when nothing is known of the job (never started here, or ended). */
bool live_get(struct live *l, struct str tenant, struct str id, struct live_view *out);

/* Calls fn for each job that is running now and whose first attempt began before wall_ms, under the
 * lock: copy and leave. */
void live_each_running(struct live *l, int64_t wall_ms,
                       void (*fn)(void *data, struct str tenant, struct str id), void *data);

/* Someone who waits. Embedded in the waiter; filled by live_watch. */
struct watcher {
    struct list node;
    void (*on_wake)(struct watcher *w); /* under the lock, any thread: set a flag, resume; may not
                                         * call live_* nor free w */
    void *entry;                        /* private */
};

/* Watches a job (or, with both strs empty, the feed) until live_unwatch. Watch first, then look
 * into the store: then nothing is missed. on_wake may come any number of times. */
void live_watch(struct live *l, struct str tenant, struct str id, struct watcher *w);
/* After it returns on_wake is not running and will not come. */
void live_unwatch(struct live *l, struct watcher *w);

/* Stream events of a job after sequence number `after`, appended to b as SSE frames:
 *     id: <seq>\nevent: status|restart|delta\ndata: {…}\n\n
 * delta's data: {"attempt","seq","text"}; restart's: {"attempt"}; status':
 * {"status","attempt","node"}. As many whole frames as b has room for; b->is_over only when not
 * even one fits. Returns the last sequence number written (or `after`); call again until it does
 * not move. */
int64_t live_events(struct live *l, struct str tenant, struct str id, int64_t after, struct buf *b);
