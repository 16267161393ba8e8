/* A Redis client on a libuv loop. This file's .c is the one includer of hiredis, of which it takes
 * the parser: the connection is libuv's. (hiredis' own asynchronous connection looks names up while
 * the loop waits, has no deadlines, and ends the process with an assert at a reply nobody asked
 * for.)
 *
 * It connects by itself, and again after a loss: 50 ms later at first, doubling to 2 s, with
 * jitter. Commands are pipelined and answered in their order. Each has a deadline of its own, for a
 * server that hangs; its reply, should one come later, is dropped. A connection that has been
 * silent for four deadlines while an answer is due is given up; one that is idle is asked each
 * second. Nothing is sent twice: what a lost connection left unanswered may or may not have been
 * done, and its sender is told so (ERR_CLOSED, ERR_TIMEOUT).
 *
 * Loop thread only. Sources: the protocol's specification (RESP2), the manual of AUTH and SELECT.
 */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <uv.h>

struct redis;
struct redis_reply;

struct redis_options {
    uv_loop_t *loop;
    const char *urlz;    /* see redis_url.h */
    int64_t deadline_ms; /* of each command, and of each step of connecting; 0: 500 */
    size_t max_commands; /* unanswered at one time; 0: 16384 */
    size_t max_bytes;    /* … and their size; 0: 16 MiB */
    /* Connected and logged in, for the first time or again: commands may be sent. NULL allowed. */
    void (*on_up)(void *data);
    /* What was published to a channel that this client has SUBSCRIBEd to, a command with one answer
     * for one channel. It sends no others afterwards: Redis refuses most. NULL: never subscribes.
     */
    void (*on_message)(void *data, struct str channel, struct str text);
    void *data;
};

/* A command's outcome, exactly once, on the loop, never inside redis_send.
 * 0: *reply is what Redis answered. ERR_TIMEOUT, ERR_CLOSED: reply is NULL, and the command may
 * have been done all the same. Else Redis refused, reply is its error: ERR_FULL (OOM), ERR_BUSY (it
 * cannot now: a read-only replica, loading, busy with a script, or unable to save), ERR_NOT_FOUND
 * (NOSCRIPT), ERR_INVALID (any other). The reply is valid during the call. */
typedef void (*redis_fn)(void *data, int code, const struct redis_reply *reply);

/* Starts to connect; an open client keeps the loop running. NULL and ERR_INVALID when the URL is
 * none. */
struct redis *redis_open(const struct redis_options *o, struct err *e);
/* Unanswered commands get ERR_CLOSED within this call. Freed once the loop has run its close
 * callbacks. May be called from any callback. */
void redis_close(struct redis *r);

/* Sends a command: args[0] its name. The bytes are copied. 0: fn comes. Else it does not:
 * ERR_UNREACHABLE (not connected), ERR_FULL (past max_commands or max_bytes). */
int redis_send(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data);

/* 0 while connected and logged in; else the last attempt's failure, with the address and why. */
int redis_health(const struct redis *r, struct err *e);

/* Replies. Text of a string, status or error; STR_NONE for anything else, NULL among it. */
struct str redis_text(const struct redis_reply *reply);
/* An integer; 0 for anything else. */
int64_t redis_int(const struct redis_reply *reply);
/* How many elements an array has; 0 for anything else. */
size_t redis_count(const struct redis_reply *reply);
/* Element i, or NULL. */
const struct redis_reply *redis_item(const struct redis_reply *reply, size_t i);
