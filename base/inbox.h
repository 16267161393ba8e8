/* A queue of messages from any thread to the one thread that owns a libuv loop: the only place
 * where a lock is held between them, besides the db thread's own queue. Many posts wake the loop
 * once. Messages are handed over: whoever takes one owns it. */
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

/* Makes an inbox on `loop` (call on its thread) that holds at most `max` messages. */
struct inbox *inbox_new(uv_loop_t *loop, size_t max);
/* Posts m: takes it and returns 0, or ERR_FULL (m stays the caller's). Any thread. */
int inbox_post(struct inbox *b, struct message *m);
/* Posts m past the ceiling: for acknowledgements of what was bounded when sent. Any thread. */
void inbox_post_reply(struct inbox *b, struct message *m);
/* Handles what is there now (loop's thread). A handler may post, drain, and free the inbox. */
void inbox_drain(struct inbox *b);
/* Closes it (loop's thread; no thread may be inside a post or post again: join them first).
 * Messages still there are dropped unhandled. Freed once the loop has run its close callback. */
void inbox_free(struct inbox *b);
