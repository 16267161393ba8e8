/* Private to redis.c, redis_link.c and redis_queue.c: one client in three nouns. */
#pragma once
#include "base/buf.h"
#include "base/list.h"
#include "base/redis.h"
#include "base/redis_url.h"

enum {
    BACKOFF_MIN_MS = 50,
    STALL_DEADLINES = 4, /* of silence end a connection, or an attempt */
};

enum step {
    STEP_AWAY,       /* waits to try again */
    STEP_CONNECTING, /* looks the name up, connects */
    STEP_GREETING,   /* AUTH, SELECT, PING are on their way */
    STEP_UP,
    STEP_CLOSED,
};

struct link;

struct command {
    struct list node;
    redis_fn fn;
    void *data;
    int64_t due_ms; /* loop's time */
    size_t n_bytes;
};

struct redis {
    struct redis_options o;
    struct redis_url url;
    enum step step;
    struct link *link; /* NULL while away */
    size_t address;    /* which of the name's addresses is next */
    bool has_more_addresses;
    int64_t backoff_ms;
    struct list late, unanswered; /* of struct command; late: fn was called */
    size_t n_waiting, n_bytes;    /* of both */
    struct buf out;               /* not given to libuv yet */
    uv_prepare_t flush;
    uv_timer_t retry;  /* away: tries again; connecting: gives up; up: looks */
    uv_timer_t limit;  /* the next deadline */
    bool is_limit_due; /* it has passed; what has come meanwhile is read first */
    int n_handles;     /* of these three, not yet closed */
    struct err fault;  /* code 0 while up */
    bool is_fault_logged;
};

/* ---- redis_link.c: an attempt to connect and, when it comes up, the connection ---- */

/* Begins an attempt: AUTH, SELECT and PING follow when it comes up. */
void link_start(struct redis *r);
/* Nothing happens where r->link is NULL. */
void link_drop(struct redis *r);
/* Writes what `out` holds, unless a write is under way. */
void link_flush(struct redis *r);
/* The connection, or the attempt, is over: all that wait are told ERR_CLOSED, and another attempt
 * follows after a while. */
void link_fail(struct redis *r, int code, const char *whyz);

/* ---- redis_queue.c: commands that wait for their replies ---- */

/* Puts a command into `out`, whatever the step and the limits. */
void queue_add(struct redis *r, const struct str *args, size_t n, redis_fn fn, void *data);
/* What queue_add takes of max_bytes. */
size_t queue_bytes(const struct str *args, size_t n);
/* Whose reply is next, or NULL; the caller's to free. *is_late: its fn was told ERR_TIMEOUT. */
struct command *queue_take(struct redis *r, bool *is_late);
/* Tells all that wait ERR_CLOSED. */
void queue_drop(struct redis *r);

/* ---- redis.c ---- */

void redis_set_fault(struct redis *r, int code, const char *whyz);
