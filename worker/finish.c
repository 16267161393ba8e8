/* The end of a job: its completion is published with the job's record as source, so that the log
 * has both in one step; when that is acknowledged, the job is forgotten here. */
#include "base/log.h"
#include "base/test_hook.h"
#include "schema/envelope.h"
#include "store/value.h"
#include "worker/inside.h"
#include <assert.h>
#include <stdlib.h>

enum { RECORD_EXTRA_BYTES = 64 << 10 };

struct result {
    struct outgoing out; /* first */
    struct worker *w;
    struct task *task;
    enum job_state state;
    bool is_kept; /* the answer, for others, under `key` */
    uint8_t key[SHA256_LEN];
    struct buf mem; /* the record's bytes */
};

static void forget_start(struct worker *w, struct task *t)
{
    struct journal_key key = worker_journal_key(w, t);

    if (t->body->slot >= 0)
        journal_clear(w->journal, t->body->slot);
    else
        journal_forget(w->journal, &key);
    t->body->slot = -1;
}

static void release(struct result *r)
{
    r->w->n_ending--;
    waiting_forget(r->w, r->task);
    buf_release(&r->mem);
    free(r);
}

/* Once it is the job's answer. */
static void keep_answer(struct result *r)
{
    static const struct str name = STR_INIT("output");
    struct str output;

    value_find(r->out.record.value, &name, 1, &output);
    cache_keep(r->w->cache, r->key, output);
}

static void on_sent(struct outgoing *o, int code)
{
    struct result *r = (struct result *)(void *)o;
    struct worker *w = r->w;

    w->is_pump_due = true;
    if (code == ERR_CLOSED) { /* given up at a stop: the job stays in the log */
        journal_hand_back(w->journal, r->task->body->slot, body_attempts(r->task->body));
        release(r);
        return;
    }
    log_debug("ended", LS("id", r->out.record.key), LI("code", code));
    if (code == 0 && broker_is_shared(w->broker))
        settled_add(&w->settled, r->task->id_hash, r->out.record.headers[HEADER_TENANT],
                    r->out.record.key, r->task->body->mark);
    if (!w->has_store)
        live_end(w->live, r->out.record.headers[HEADER_TENANT], r->out.record.key);
    if (code != 0 && code != ERR_EXISTS) /* it had ended already: the store counts that */
        log_error("completion_refused", LI("code", code), LI("offset", r->task->offset));
    if (code == 0 && r->is_kept && r->state == STATE_SUCCEEDED)
        keep_answer(r);
    forget_start(w, r->task);
    release(r);
}

/* ---- what the completion says ---- */

static double total_cost(const struct body *b)
{
    double cost = 0;
    size_t i;

    for (i = 0; i < b->n_calls; i++)
        cost += b->calls[i].cost;
    return cost;
}

static void fill_answer(struct completion *c, const struct ending *end, enum job_kind kind)
{
    const struct engine_reply *a = end->reply;

    if (kind == JOB_EMBEDDING) {
        c->embedding = buf_str(&a->embedding);
    } else {
        c->text = a->text.p ? buf_str(&a->text) : STR("");
        c->message = buf_str(&a->message);
        c->json = end->json;
    }
    if (a->finish_reason[0])
        c->finish_reason = str_z(a->finish_reason);
}

static void fill(struct worker *w, const struct task *t, const struct ending *end,
                 struct completion *c)
{
    const struct body *b = t->body;

    *c = (struct completion){
        .state = end->state,
        .attempts = body_attempts(b),
        .node = b->node,
        .started_at = b->started_at,
        .finished_at = worker_wall_ms(w),
        .reason = end->reason,
        .error_message = end->message,
        .calls = b->calls,
        .n_calls = b->n_calls,
        .queue_ms = -1,
        .engine_ms = end->engine_ms,
        .first_token_ms = end->first_token_ms,
        .total_ms = -1,
        .cost = total_cost(b),
    };
    if (end->cached.n > 0) {
        c->is_cached = true;
        c->output = end->cached;
        c->node = STR_NONE; /* of an attempt before, that failed */
        c->total_ms = c->finished_at > b->job->created_at ? c->finished_at - b->job->created_at : 0;
        c->queue_ms = c->total_ms;
    } else if (b->started_at) {
        c->queue_ms = b->started_at > b->job->created_at ? b->started_at - b->job->created_at : 0;
        c->total_ms = c->queue_ms + worker_mono_ms(w) - b->started_mono_ms;
    }
    if (end->reply)
        c->usage = end->reply->usage;
    if (end->reply && end->state == STATE_SUCCEEDED)
        fill_answer(c, end, b->job->kind);
}

static int make_record(struct result *r, const struct ending *end, size_t max_bytes)
{
    char source[POSITION_TEXT_MAX];
    struct completion c;
    struct err e = {0};
    int rc;

    r->state = end->state;
    position_format(r->w->topics, task_at(r->task), source);
    fill(r->w, r->task, end, &c);
    buf_init(&r->mem, max_bytes);
    rc = envelope_completion(&r->out.record, r->task->body->job, &c, source, &r->mem, &e);
    return rc == 0 && r->mem.is_over ? ERR_TOO_LARGE : rc;
}

/* An answer that is too long for a record becomes a failure that keeps its usage. */
static void make_short_record(struct result *r, const struct ending *end)
{
    struct ending failed = {.state = STATE_FAILED,
                            .reason = REASON_TOO_LARGE,
                            .message = STR("the answer is too long for a record"),
                            .reply = end->reply,
                            .engine_ms = end->engine_ms,
                            .first_token_ms = end->first_token_ms};
    int rc;

    buf_release(&r->mem);
    r->out.record = (struct record){.at = POSITION_NONE};
    rc = make_record(r, &failed, SIZE_MAX);
    assert(rc == 0);
    (void)rc;
}

/* What a failed job was asked, so that it can be made again: its record leaves the log with its
 * end. In the log no later than that end; which letters are of jobs that did fail, the store knows.
 */
static void keep_letter(struct worker *w, const struct task *t, const struct ending *end)
{
    char source[POSITION_TEXT_MAX];

    position_format(w->topics, task_at(t), source);
    intake_keep(w, t->body->job, reason_code(end->reason), end->message, source);
}

static void tell(const struct task *t, const struct ending *end)
{
    if (end->state == STATE_SUCCEEDED)
        log_debug("finish", LS("id", t->body->job->id), LZ("status", state_name(end->state)),
                  LS("node", t->body->node), LI("ms", end->engine_ms));
    else
        log_info("finish", LS("id", t->body->job->id), LZ("status", state_name(end->state)),
                 LZ("why", reason_code(end->reason)), LI("attempts", body_attempts(t->body)));
}

void finish_task(struct worker *w, struct task *t, const struct ending *end)
{
    struct result *r = xcalloc(1, sizeof *r);
    struct journal_key key = worker_journal_key(w, t);

    if (t->body->started_at == 0)
        t->body->attempts_before = journal_attempts(w->journal, &key);
    if (end->cache_key) {
        r->is_kept = true;
        memcpy(r->key, end->cache_key, sizeof r->key);
    }
    tell(t, end);
    t->place = TASK_ENDING;
    w->n_ending++;
    r->w = w;
    r->task = t;
    if (make_record(r, end, (size_t)w->config->limits_body_bytes + RECORD_EXTRA_BYTES) != 0)
        make_short_record(r, end);
    if (r->state == STATE_FAILED)
        keep_letter(w, t, end);
    job_step(t->body->job, state_end_event(r->state));
    if (broker_is_shared(w->broker) && job_knows_digest(t->body->job))
        t->body->mark = settled_mark_of(t->body->job);
    body_drop_job(t->body);
    r->out.record.at.topic = TOPIC_COMPLETIONS;
    r->out.record.ts_ms = worker_wall_ms(w);
    r->out.record.source = HOOK_SKIP("source") ? POSITION_NONE : task_at(t);
    r->out.on_sent = on_sent;
    if (HOOK_SKIP("finish_publish")) {
        broker_finish(w->broker, task_at(t));
        on_sent(&r->out, 0);
        return;
    }
    outbox_add(&w->outbox, &r->out);
}

void finish_failed(struct worker *w, struct task *t, enum job_state state, enum reason reason,
                   const char *messagez)
{
    finish_task(w, t,
                &(struct ending){.state = state,
                                 .reason = reason,
                                 .message = str_z(messagez),
                                 .engine_ms = -1,
                                 .first_token_ms = -1});
}
