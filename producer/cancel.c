#include "producer/cancel.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "schema/envelope.h"

enum { ENVELOPE_BYTES = 16384 };

/* A worker that had the order at once may have said the same before us. */
static int verdict(const struct record *completion)
{
    bool is_done = completion->code == ERR_EXISTS && completion->detail == STATE_CANCELLED;

    return is_done ? 0 : completion->code;
}

/* Without its order the job is cancelled all the same: what its worker still says comes too late.
 */
static void on_ordered(struct publish *p, int code)
{
    struct cancellation *c = LIST_ENTRY(p, struct cancellation, publish);

    if (code < 0)
        log_warn("cancel_order_lost", LS("id", c->job.id), LI("code", code));
    c->on_done(c, 0);
}

static void on_ended(struct publish *p, int code)
{
    struct cancellation *c = LIST_ENTRY(p, struct cancellation, publish);

    if (code == 0)
        code = verdict(&c->records[0]);
    if (code < 0) {
        c->on_done(c, code);
        return;
    }
    job_step(&c->job, EVENT_CANCEL);
    c->publish = (struct publish){.records = &c->records[1], .n = 1, .on_ack = on_ordered};
    code = broker_publish(c->broker, &c->publish);
    if (code < 0)
        on_ordered(&c->publish, code);
}

/* The cancelled completion, which takes the job record's place in the log. */
static int make_completion(struct cancellation *c, const struct gateway *g, struct position at,
                           struct err *e)
{
    const struct job *j = &c->job;
    bool is_there = at.topic >= 0; /* else its queue left the config, and its record stays there */
    int64_t now_ms = clock_wall_ms();
    char source[POSITION_TEXT_MAX];
    struct live_view view = {.is_running = false};
    struct completion done = {
        .state = STATE_CANCELLED,
        .reason = REASON_CANCELLED,
        .error_message = STR("cancelled by its owner"),
        .finished_at = now_ms,
        .queue_ms = -1,
        .engine_ms = -1,
        .first_token_ms = -1,
        .total_ms = now_ms > j->created_at ? now_ms - j->created_at : 0,
    };

    if (live_get(g->live, j->tenant, j->id, &view)) {
        done.attempts = view.attempts;
        done.started_at = view.started_at;
        done.node = view.node[0] ? str_z(view.node) : STR_NONE;
    }
    if (is_there)
        position_format(g->topics, at, source);
    else
        at = POSITION_NONE;
    /* In a shared log the job's record is its worker's to finish; and what finishes none is never
     * acknowledged from the outbox, where nobody knows yet whether the job has ended otherwise. */
    c->records[0] = (struct record){.at = {TOPIC_COMPLETIONS, 0, 0},
                                    .ts_ms = now_ms,
                                    .source = broker_is_shared(g->broker) ? POSITION_NONE : at};
    buf_init(&c->mem[0], job_room(j) + ENVELOPE_BYTES);
    return envelope_completion(&c->records[0], j, &done, is_there ? source : NULL, &c->mem[0], e);
}

static int make_order(struct cancellation *c)
{
    c->records[1] = (struct record){
        .at = {TOPIC_CONTROL, 0, 0}, .ts_ms = c->records[0].ts_ms, .source = POSITION_NONE};
    buf_init(&c->mem[1], ENVELOPE_BYTES);
    return envelope_cancel(&c->records[1], c->job.tenant, c->job.id, &c->mem[1]);
}

int cancellation_start(struct cancellation *c, const struct gateway *g, struct reader *r,
                       struct str tenant, struct str id, struct err *e)
{
    struct position at;
    int rc = reader_job_head(r, tenant, id, &c->job, &at, g->topics, e);

    if (rc < 0)
        return rc;
    buf_init(&c->mem[1], ENVELOPE_BYTES);
    rc = make_completion(c, g, at, e);
    if (rc == 0 && (rc = make_order(c)) < 0)
        err_set(e, rc, "the cancel order cannot be written");
    if (rc == 0) {
        c->broker = g->broker;
        c->publish = (struct publish){.records = c->records, .n = 1, .on_ack = on_ended};
        rc = broker_publish(c->broker, &c->publish);
        if (rc < 0)
            err_set(e, rc,
                    rc == ERR_FULL ? "the log has no room for more at the moment"
                                   : "genq is stopping");
    }
    if (rc < 0)
        cancellation_release(c);
    return rc;
}

void cancellation_release(struct cancellation *c)
{
    job_release(&c->job);
    buf_release(&c->mem[0]);
    buf_release(&c->mem[1]);
}
