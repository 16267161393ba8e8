/* Answers that were given before, by the key of what was asked (schema/job.h). Where a Redis is
 * configured they lie there, for all workers; else in a file of this process' data directory.
 *
 * A cache may forget anything at any time, and nothing waits for it: who looks has an answer
 * within CACHE_LOOK_MS or goes on without, what cannot be kept is dropped. Loop thread only; the
 * file is read and written by a thread of its own. */
#pragma once
#include "base/err.h"
#include "base/sha256.h"
#include "broker-config/config.h"
#include <uv.h>

#define CACHE_LOOK_MS 500
#define CACHE_ANSWER_MAX_BYTES ((size_t)4 << 20) /* longer ones are not kept */

struct cache;
struct cache_ask;

/* What was found: the JSON source text of a job's output, an object; p == NULL: nothing. Valid
 * during the call. */
typedef void (*cache_fn)(void *data, struct str output);

/* Never fails: a cache that cannot be opened finds nothing, and says so in the log. */
struct cache *cache_open(const struct config *c, uv_loop_t *loop);
/* What is being kept is kept first, unless it is Redis'. fn of those that still wait does not come.
 * Freed once the loop has run its close callbacks. */
void cache_close(struct cache *c);

/* Looks for an answer. NULL: there is none, fn does not come. Else it comes once, on the loop, not
 * inside this call, unless cache_leave was called. */
struct cache_ask *cache_look(struct cache *c, const uint8_t key[SHA256_LEN], cache_fn fn,
                             void *data);
/* Who asked does not wait any more. */
void cache_leave(struct cache_ask *a);
/* Keeps an answer (copied), in place of an older one. */
void cache_keep(struct cache *c, const uint8_t key[SHA256_LEN], struct str output);
