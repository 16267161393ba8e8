/* What the resources of the API share: query arguments, checked; errors with one more member; and
 * flights, for requests that wait on the log. On the request's thread. */
#pragma once
#include "producer/http/server.h"
#include "schema/job.h"
#include <pthread.h>

/* Arguments. Each replies 400, naming the argument, and returns false when it is not valid. */
/* All query arguments are among those of the route. */
bool api_check_query(struct request *q);
/* `tenant`; "default" when absent. */
bool api_tenant(struct request *q, struct str *tenant);
/* An id such as batch_id or an optional tenant; p == NULL when absent. */
bool api_id(struct request *q, const char *namez, struct str *id);
/* `wait`, as clock_parse_duration, at most 120 s; 0 when absent. */
bool api_wait_ms(struct request *q, int64_t *wait_ms);
/* `limit`, 1–1000; 100 when absent. */
bool api_limit(struct request *q, int *limit);
/* A cursor: an integer from 0; `absent` when absent. */
bool api_cursor(struct request *q, const char *namez, int64_t absent, int64_t *out);
/* RFC 3339 or ms since the epoch; 0 when absent. */
bool api_time(struct request *q, const char *namez, int64_t *wall_ms);

/* The error shape with `"namez":<raw>` beside "error" (an id to repeat with, a cursor to go on
 * from). */
void api_reply_error(struct request *q, int status, enum reason reason, const char *codez,
                     const char *paramz, const char *messagez, const char *namez, struct str raw);
/* Appends {"error":{…}} alone, for one item of a list. */
void api_put_error(struct buf *b, enum reason reason, const char *codez, const char *paramz,
                   const char *messagez);
/* After ERR_FULL or ERR_CLOSED of a publish of n_jobs: too many jobs wait (429, quota_exceeded),
 * or the log or its disk has no room (503, unavailable). Gives the status; *codez and *messagez,
 * static. */
int api_full(const struct gateway *g, int code, size_t n_jobs, enum reason *reason,
             const char **codez, const char **messagez);
void api_reply_not_found(struct request *q, const char *whatz);

/* Makes blanks of the line breaks in JSON text from `from` on: they stand between tokens only, and
 * would end a line of JSONL or SSE. */
void api_one_line(struct buf *b, size_t from);
/* Appends "event: <name>\ndata: <json>\n\n". */
void api_put_event(struct buf *b, const char *namez, struct str json);
/* Ends a stream's pull: a heartbeat comment when nothing was sent for 15 s (*sent_ms: monotonic,
 * when something was; 0 at the start). What pull returns. */
int api_pulse(struct buf *b, int64_t *sent_ms, int64_t *deadline_ms);

/* A request and the log, which acknowledges on a thread of its own, maybe after the client has
 * left. Both hold the flight; the last one out calls on_free. */
struct flight {
    pthread_mutex_t lock;
    struct request *q; /* under lock; NULL once the request is over */
    int n_holders;     /* under lock */
    void (*on_free)(struct flight *f);
};

/* Held by the request alone. Embedded first in what on_free frees. */
void flight_init(struct flight *f, struct request *q, void (*on_free)(struct flight *f));
/* Before a publish is sent: the log holds it too. */
void flight_hold(struct flight *f);
/* The log lets go (any thread); wakes the request if it still waits. `touch` (NULL allowed) runs
 * under the lock. */
void flight_land(struct flight *f, void (*touch)(struct flight *f));
/* The request lets go: in its on_end, or when it needs the flight no more. */
void flight_leave(struct flight *f);
void flight_lock(struct flight *f);
void flight_unlock(struct flight *f);

/* Fills in what the client left out of a job: id (p == NULL: a ULID), tenant, model (p == NULL: it
 * must name one), the queue of its model in the config, batch and line (-1: none). */
int api_complete(const struct gateway *g, struct job *j, struct str id, struct str tenant,
                 struct str model, struct str batch_id, int64_t line, struct err *e);

/* Replies with the job: as soon as it has ended, or as it is after wait_ms. q->data must be
 * free. */
void job_wait(struct request *q, struct str tenant, struct str id, int64_t wait_ms, int status,
              const char *positionz);
