/* A queue of messages from any thread to the one thread that owns a libuv loop: the only place
 * where a lock is held between them, besides the db thread's own queue. Many posts wake the loop
 * once. Messages are handed over: whoever takes one owns it.
 *
 * Every message answers something: an acknowledgement its publish, rows their read or a
 * subscription's window. An answer cannot be refused, so the ceiling stands where it was asked for
 * (the broker's max_pending_bytes, a window, the loader's and due's counts), and none stands here.
 */
#pragma once
#include "base/err.h"
#include "base/list.h"
#include <uv.h>

struct inbox;

/* A message; embed it. on_receive runs on the loop, and owns the struct around it. */
struct message {
    struct list node;
    void (*on_receive)(struct message *m);
};

/* Makes an inbox on `loop` (call on its thread). */
struct inbox *inbox_new(uv_loop_t *loop);
/* Posts m: takes it. Any thread. */
void inbox_post(struct inbox *b, struct message *m);
/* Handles what is there now (loop's thread). A handler may post, drain, and free the inbox. */
void inbox_drain(struct inbox *b);
/* Closes it (loop's thread; no thread may be inside a post or post again: join them first).
 * Messages still there are dropped unhandled. Freed once the loop has run its close callback. */
void inbox_free(struct inbox *b);
