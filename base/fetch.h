/* HTTP client calls on a libuv loop, through libcurl's multi_socket (fetch_internal.h is curl's
 * only includer). One fetch_pool per engine node: libcurl searches its connections linearly per
 * multi, and a pool of its own keeps a node's connections warm and bounded. Loop thread only.
 *
 * Legal sequence: fetch_start, then on_head (once, when a status line came), on_data (any number),
 * on_done (exactly once, never inside fetch_start). fetch_abort: no callback comes any more. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <uv.h>

struct fetch_pool;
struct fetch;

struct fetch_request {
    const char *methodz;  /* "GET", "POST", … */
    const char *urlz;     /* copied */
    struct str body;      /* borrowed until on_done or fetch_abort */
    const char *const *headers; /* NULL-terminated "Name: value" strings, borrowed until on_done or
                                 * fetch_abort; NULL allowed. Content-Type is JSON by default for
                                 * POST. "Expect:" is never sent */
    int64_t connect_ms;   /* time to connect; 0: 5000 */
    int64_t total_ms;     /* time for all of it; 0: none */
    int64_t first_byte_ms; /* from request to the first body byte; 0: none */
    int64_t idle_ms;      /* between two pieces of body; 0: none */
    size_t max_body_bytes; /* of the answer; past it the call ends with ERR_TOO_LARGE; 0: 64 MiB */
};

enum fetch_fault {
    FETCH_OK,          /* a whole answer came, whatever its status */
    FETCH_NO_CONNECT,  /* refused, unreachable, name not found, TLS refused: nothing was sent */
    FETCH_CUT,         /* the connection broke after sending began, or the answer was cut short */
    FETCH_TIMEOUT_CONNECT,
    FETCH_TIMEOUT_TOTAL,
    FETCH_TIMEOUT_FIRST,
    FETCH_TIMEOUT_IDLE,
    FETCH_TOO_LARGE,
    FETCH_BAD,         /* not HTTP, or a URL that is none */
};

struct fetch_result {
    enum fetch_fault fault;
    int status;              /* HTTP status, 0 when none came */
    int64_t retry_after_ms;  /* from Retry-After (seconds or date), -1 when absent */
    int64_t first_byte_ms;   /* from start to first body byte, -1 when none came */
    int64_t total_ms;
    bool was_sent;           /* the request, or part of it, may have reached the server */
    char message[160];       /* for people; empty when FETCH_OK */
};

struct fetch_handler {
    /* NULL allowed. The status line and headers have come. */
    void (*on_head)(void *data, int status, struct str content_type);
    /* Bytes of the body, valid during the call. Returns non-zero to end its own call (on_done then
     * comes with FETCH_CUT). Others may be started and aborted from here and from on_done. */
    int (*on_data)(void *data, struct str bytes);
    void (*on_done)(void *data, const struct fetch_result *r);
    void *data;
};

/* A pool with at most max_connections kept open (raised later with fetch_pool_resize). */
struct fetch_pool *fetch_pool_new(uv_loop_t *loop, int max_connections);
void fetch_pool_resize(struct fetch_pool *p, int max_connections);
/* Aborts what runs, closes all; from any callback, too. Freed once the loop has run its close
 * callbacks. Kept connections that nobody uses do not keep uv_run running. */
void fetch_pool_free(struct fetch_pool *p);

/* Starts a call, at the loop's next turn, from which its times count; gives its handle (valid until
 * on_done returns or fetch_abort), or NULL with *e: ERR_INVALID (method, header line), ERR_CLOSED
 * (the pool is freed). A URL that is none is told by on_done. */
struct fetch *fetch_start(struct fetch_pool *p, const struct fetch_request *r,
                          const struct fetch_handler *h, struct err *e);
void fetch_abort(struct fetch *f);
