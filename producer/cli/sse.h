/* The client's side of server-sent events: bytes in, events out. No I/O. Source: WHATWG HTML,
 * "Server-sent events". */
#pragma once
#include "base/buf.h"

struct sse_event {
    struct str name; /* "message" where the stream gives none */
    struct str data; /* lines joined with a line feed */
    struct str id;   /* the last id of the stream so far */
};

struct sse {
    struct buf line, name, data, id; /* private */
    bool was_cr;
};

void sse_init(struct sse *s, size_t max_event_bytes);
void sse_release(struct sse *s);
/* A new connection: forgets what is half there; the last id stays. */
void sse_restart(struct sse *s);
/* Gives the events that `bytes` complete; an on_event that returns non-zero ends the feed with
 * that. ERR_TOO_LARGE for an event past the ceiling; else 0. */
int sse_feed(struct sse *s, struct str bytes,
             int (*on_event)(void *data, const struct sse_event *e), void *data);
