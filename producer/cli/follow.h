/* Waiting on the server: calls that outlive its restart. Once it has been reached, a server that
 * goes away is waited for (FOLLOW_LOST_MS), with one message; one that was never there is an error
 * at once. */
#pragma once
#include "base/json.h"
#include "producer/cli/client.h"

#define FOLLOW_LOST_MS 30000

struct follow {
    const struct cli *c;
    int64_t deadline_ms; /* monotonic; INT64_MAX: none */
    bool was_reached;
    int64_t lost_ms;     /* monotonic: since when it is away; 0: it is there */
};

/* timeout_ms from now on; negative: none. */
void follow_init(struct follow *f, const struct cli *c, int64_t timeout_ms);
int64_t follow_left_ms(const struct follow *f); /* until the deadline, from 0 */
/* GET pathz into *out (emptied first). EXIT_WELL: a 2xx; EXIT_TIMED_OUT without a message; or
 * another exit code after a message. */
int follow_get(struct follow *f, const char *pathz, struct buf *out);
/* After client_send failed (e filled) or answered 502, 503: whether to try again — has then slept
 * for a moment — or else the exit code, after a message but for EXIT_TIMED_OUT. */
int follow_is_lost(struct follow *f, int status, const struct err *e);

/* Waits for a job's end. As follow_get; *job: the job parsed, caller frees, and its text in
 * *out. */
int follow_job(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
               struct json **job);

/* Appends "/api/v1/<kind>/<id>", escaped. */
void follow_put_path(struct buf *b, const char *kindz, const char *idz);
/* Appends "?name=value" (or "&…" where there is a query already); nothing when valuez is NULL. */
void follow_put_query(struct buf *b, const char *namez, const char *valuez);
/* The same with a time; a date alone is its first moment, UTC. */
void follow_put_time(struct buf *b, const char *namez, const char *valuez);
