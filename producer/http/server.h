/* The HTTP/1.1 server, on libmicrohttpd (server.c and request.c are its only users): four epoll
 * threads. A request belongs to its connection's thread until it is suspended; then whoever resumes
 * it hands it back to that thread. Waiting clients cost memory only: about 5 KiB each.
 *
 * libmicrohttpd neither notices a client that leaves while suspended, nor times it out, nor
 * refuses Content-Length beside Transfer-Encoding: a watch thread of our own (epoll on hang-ups,
 * a heap of deadlines) and a check of the headers do. Sources: RFC 9110, 9112; WHATWG
 * server-sent events. */
#pragma once
#include "base/heap.h"
#include "producer/gateway.h"
#include "schema/reason.h"
#include "store/reader.h"

struct server;
struct request;

/* Handlers run on the request's thread and must not block, but for point reads on
 * `request_reader`. A handler ends by exactly one of request_reply*, request_stream,
 * request_wait — or returns having called request_wait's partner later; see below. */
typedef void (*handler_fn)(struct request *q);

struct route {
    const char *methodz;
    const char *patternz; /* "/api/v1/jobs/{id}/events": {…} matches one segment */
    handler_fn handle;
    /* NULL: the body is gathered first (limits.body_bytes), then `handle` runs. Else `handle`
     * runs when the headers have come, and each piece of body is given here; after the last with
     * n == 0. Returns 0, or negative when the request has been replied to meanwhile and the rest
     * may be dropped. */
    int (*on_body)(struct request *q, struct str bytes);
    /* What it takes besides its body: names of query arguments and, with a capital first, of
     * headers; NULL-terminated. */
    const char *const *params;
    /* For /openapi.json: of success, its status and what its body is; one line on all of it. */
    int status;
    const char *replyz, *docz;
};

/* All routes, from producer/api/route.def, and those of a process that serves no jobs (health,
 * metrics); each ends with methodz == NULL. */
extern const struct route routes[], health_routes[];

#define REQUEST_VARS 3

struct request {
    const struct gateway *gateway;
    const struct route *route;
    const char *methodz, *pathz;
    struct str vars[REQUEST_VARS]; /* what the pattern's {…} matched, decoded */
    struct buf body;               /* gathered body; empty when the route streams it */
    bool is_gone;                  /* the client hung up: only clean up (any reply is dropped) */
    bool is_late;                  /* the deadline of request_wait passed */
    void *data;                    /* the handler's own */
    /* Set by the handler: the request is over, free q->data. Runs on the request's thread, exactly
     * once; nothing resumes it then. */
    void (*on_end)(struct request *q);
    struct server_connection *connection; /* private */
};

/* Starts to serve `served` on `listenz` ("127.0.0.1:7070", port 0: any free one; given back by
 * server_port). Refuses addresses that are not loopback. ERR_BUSY: the address is in use. */
struct server *server_start(const struct gateway *g, const struct route *served,
                            const char *listenz, struct err *e);
int server_port(const struct server *s);
/* Stops accepting, answers those that wait with 503, closes all. Blocks until its threads have
 * ended. */
void server_stop(struct server *s);

/* This thread's read connection to the store. */
struct reader *request_reader(struct request *q);
/* Query argument or header; STR_NONE when absent. Decoded. Valid while the request is. */
struct str request_query(struct request *q, const char *namez);
struct str request_header(struct request *q, const char *namez);
/* First query argument whose name is not among the route's params, or STR_NONE: handlers refuse
 * unknown arguments by name. */
struct str request_unknown_query(struct request *q);

/* Adds a header to the reply to come. */
void request_add_header(struct request *q, const char *namez, const char *valuez);
/* Replies. Takes b's bytes (b is then empty). */
void request_reply(struct request *q, int status, const char *content_typez, struct buf *b);
void request_reply_json(struct request *q, int status, struct buf *b);
/* Replies with OpenAI's error shape {"error":{"message","type","param","code"}}; status and type
 * by the reason. paramz may be NULL. Adds Retry-After: 1 to 429 and 503. */
void request_reply_error(struct request *q, enum reason reason, const char *paramz,
                         const char *fmtz, ...) __attribute__((format(printf, 4, 5)));
/* The same with another status than the reason's (405, 409, 410 …) and, when codez is given,
 * code. */
void request_reply_status(struct request *q, int status, enum reason reason, const char *codez,
                          const char *paramz, const char *fmtz, ...)
    __attribute__((format(printf, 6, 7)));
/* Maps one of our errors to a reply (FULL: 503, NOT_FOUND: 404, INVALID: 400, TOO_LARGE: 413 …). */
void request_reply_err(struct request *q, const struct err *e);

/* Waits: suspends the request; `then` runs on its thread after request_wake, at mono_deadline_ms
 * (q->is_late), or when the client hangs up (q->is_gone). A wake that came before the wait makes it
 * return at once; several wakes make one `then`. `then` may wait again. */
void request_wait(struct request *q, int64_t mono_deadline_ms, handler_fn then);
/* Any thread. Only while the caller knows the request to live: until its on_end ran. */
void request_wake(struct request *q);

/* Replies with a stream (SSE, NDJSON …): `pull` runs on the request's thread each time there is
 * room or the request was woken, and appends to b. Returns 1 when it appended something and
 * wants to be called again, 0 when there is nothing now (it sleeps until request_wake or
 * *mono_deadline_ms, then q->is_late), -1 when the stream is to end after b. */
void request_stream(struct request *q, int status, const char *content_typez,
                    int (*pull)(struct request *q, struct buf *b, int64_t *mono_deadline_ms));

/* For on_body: stop reading the body until request_wake (flow control). */
void request_pause_body(struct request *q);
