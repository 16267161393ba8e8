/* Private to server.c and request.c, the two that include microhttpd.h: the server, and a
 * request with what libmicrohttpd knows of it. server.c leads a request from its headers to its
 * end; request.c is what handlers do with it: wait, reply, stream, ask. */
#pragma once
#include "base/list.h"
#include "producer/http/server.h"
#include "producer/http/watch.h"
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define SERVER_THREADS 4

struct server {
    struct MHD_Daemon *daemon;
    struct watch *watch;
    const struct gateway *gateway;
    const struct route *routes; /* served here */
    /* Read connections, opened before we listen: a request must not fail for want of a
     * descriptor. Each HTTP thread takes one with its first. */
    struct reader *readers[SERVER_THREADS];
    atomic_int n_readers_taken;
    pthread_key_t reader; /* the thread's */
    pthread_mutex_t lock; /* of the following */
    pthread_cond_t idle;  /* n_requests has become 0 */
    struct list waiting;  /* suspended connections, to be told when we stop */
    int n_requests;       /* whose headers have come, and that are not over */
    bool is_stopping;
    int port;
};

/* One request. Its fields belong to the connection's thread; those under `lock` to whoever holds
 * it. */
struct server_connection {
    struct request request;
    struct server *server;
    struct MHD_Connection *mhd;
    struct MHD_Response *response; /* made, waiting to be queued */
    unsigned status;
    bool is_first_call, is_body_over, is_queued;
    bool is_refused; /* as malformed: nothing more of it is read */
    size_t n_discarded;
    struct {
        const char *namez;
        char valuez[128];
    } headers[6];
    size_t n_headers;
    handler_fn then;
    int (*pull)(struct request *q, struct buf *b, int64_t *mono_deadline_ms);
    struct buf out; /* a stream's bytes not yet taken */
    bool is_last;   /* the stream ends after `out` */
    bool is_asleep; /* in server->waiting, watched */
    struct watched watched;
    struct list node; /* under the server's lock */
    pthread_mutex_t lock;
    bool is_suspended, is_woken, was_late, was_gone; /* under lock */
};

/* Tells a suspended request that its deadline has passed (also: that we stop) or its client has
 * left. Any thread. */
void connection_nudge(struct server_connection *c, enum watch_event what);
/* On the connection's thread, each time it runs again: takes what woke it into the request.
 * False while it is still suspended (libmicrohttpd may give body that it had read before). */
bool connection_wake_up(struct server_connection *c);
/* Runs what request_wait left to be run, until the request sleeps or is answered. */
void connection_dispatch(struct server_connection *c);
/* Queues the reply when libmicrohttpd allows it: in the first call, or when the body is over. */
enum MHD_Result connection_queue(struct server_connection *c);

static inline bool connection_has_reply(const struct server_connection *c)
{
    return c->response || c->is_queued;
}
