/* One attempt of a job, as steps; each returns the next:
 *
 *     admit -> choose -> look -> call ~> judge -> answer | again | wait | fail
 *                         |       (stream)
 *                         `~> hit | call | put back
 *
 * Answers are streamed inside only where the job asked for a stream: plain answers are half the
 * work for both sides. So worker.first_token_ms and between_tokens_ms hold for streams; a plain
 * answer has the job's timeout_ms alone. */
#include "worker/run.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/test_hook.h"
#include "worker/balance.h"
#include <stdio.h>
#include <stdlib.h>

enum {
    REFUSAL_BYTES = 64 << 10, /* body of an error answer */
    ANSWER_BYTES = 64 << 20,
    ELSEWHERE_MORE = 3, /* times that a model may be missing, besides once a node */
};

enum run_step {
    RUN_ADMIT,
    RUN_CHOOSE,
    RUN_LOOK,
    RUN_CALL,
    RUN_JUDGE,
    RUN_ANSWER,
    RUN_AGAIN,
    RUN_WAIT,
    RUN_FAIL,
    RUN_STREAMING, /* on_done or on_looked goes on */
    RUN_OVER,
};

/* ---- before the call ---- */

static enum run_step admit(struct run *r)
{
    int64_t deadline = run_job(r)->deadline;

    if (deadline && deadline <= worker_wall_ms(r->w)) {
        finish_failed(r->w, r->task, STATE_EXPIRED, REASON_DEADLINE_EXCEEDED,
                      "the job's deadline passed before it ended");
        return RUN_OVER;
    }
    return RUN_CHOOSE;
}

static enum run_step choose(struct run *r)
{
    struct node *preferred = NULL;

    if (run_job(r)->session.p)
        preferred = balance_session(r->w->pool, r->task->flow->key.model, run_job(r)->session);
    if (preferred)
        r->at = preferred;
    return RUN_LOOK;
}

static void take_slot(struct run *r)
{
    pool_take(r->at);
    list_push(&r->w->runs, &r->node);
    r->w->n_runs++;
    r->is_stream = run_job(r)->is_stream && run_job(r)->kind != JOB_EMBEDDING;
    buf_init(&r->refusal, REFUSAL_BYTES);
    buf_init(&r->delta, ANSWER_BYTES);
    buf_init(&r->json, ANSWER_BYTES);
    engine_reply_init(&r->reply, run_job(r)->kind, r->is_stream, ANSWER_BYTES);
}

static void on_looked(void *data, struct str output);

/* The slot is taken from here on, though nothing has started. */
static enum run_step look(struct run *r)
{
    struct worker *w = r->w;

    take_slot(r);
    if (run_job(r)->cache == CACHE_BYPASS)
        return RUN_CALL;
    job_cache_key(run_job(r), str_z(r->task->flow->key.model->name), r->key);
    if (run_job(r)->cache == CACHE_USE)
        r->ask = cache_look(w->cache, r->key, on_looked, r);
    return r->ask ? RUN_STREAMING : RUN_CALL;
}

/* From here on a crash is this job's. */
static void note_start(struct run *r)
{
    struct worker *w = r->w;
    struct body *b = r->task->body;
    struct journal_key key = worker_journal_key(w, r->task);
    int attempt;

    if (b->started_at == 0)
        b->attempts_before = journal_attempts(w->journal, &key);
    attempt = body_attempts(b) + 1;
    if (!HOOK_SKIP("journal"))
        b->slot = journal_start(w->journal, &key, attempt);
    HOOK_CRASH("start_journalled");
    if (b->started_at == 0) {
        b->started_at = worker_wall_ms(w);
        b->started_mono_ms = worker_mono_ms(w);
    }
    b->node = str_z(r->at->config->name);
    job_step(b->job, EVENT_TAKE);
    log_debug("take", LS("id", b->job->id), LS("node", b->node), LI("attempt", attempt));
    live_start(w->live, b->job->tenant, b->job->id, attempt, b->node, worker_wall_ms(w),
               b->job->is_stream);
    r->started_ms = worker_mono_ms(w);
}

static void on_head(void *data, int status, struct str content_type)
{
    (void)content_type;
    ((struct run *)data)->status = status;
}

static int on_data(void *data, struct str bytes)
{
    struct run *r = data;
    int rc;

    if (r->status / 100 != 2) {
        buf_adds(&r->refusal, bytes); /* past its ceiling the rest is not needed */
        return 0;
    }
    rc = r->at->ops->feed(&r->reply, bytes, r->is_stream ? &r->delta : NULL);
    r->is_garbage = rc != 0;
    if (r->delta.n > 0)
        live_delta(r->w->live, run_job(r)->tenant, run_job(r)->id, buf_str(&r->delta));
    buf_clear(&r->delta);
    return rc;
}

static void on_done(void *data, const struct fetch_result *result);

static int start_fetch(struct run *r, struct err *e)
{
    const struct config *c = r->w->config;
    struct fetch_handler h = {on_head, on_data, on_done, r};
    struct fetch_request q = {
        .methodz = "POST",
        .body = buf_str(&r->request.body),
        .headers = node_headers(r->at),
        .connect_ms = c->worker_connect_ms,
        .total_ms = run_job(r)->timeout_ms > 0 ? run_job(r)->timeout_ms : JOB_TIMEOUT_MS_DEFAULT,
        .first_byte_ms = r->is_stream ? c->worker_first_token_ms : 0,
        .idle_ms = r->is_stream ? c->worker_between_tokens_ms : 0,
    };
    struct buf url;

    buf_init(&url, 4096);
    node_url(r->at, r->request.pathz, &url);
    q.urlz = url.p;
    r->fetch = fetch_start(r->at->fetches, &q, &h, e);
    buf_release(&url);
    return r->fetch ? 0 : e->code;
}

static enum run_step call(struct run *r)
{
    struct err e = {0};

    note_start(r);
    if (r->at->ops->build(run_job(r), str_z(r->task->flow->key.model->name), r->is_stream,
                          &r->request, &e) != 0) {
        r->verdict = retry_judge(FETCH_OK, ENGINE_INVALID, false);
        run_set_error(r, e.msg);
        return RUN_FAIL;
    }
    if (start_fetch(r, &e) != 0) {
        r->verdict = retry_judge(FETCH_BAD, ENGINE_OK, false);
        run_set_error(r, e.msg);
        return RUN_AGAIN;
    }
    log_debug("call", LS("id", run_job(r)->id), LZ("path", r->request.pathz));
    metric_add(METRIC_CALLS, 1);
    HOOK_CRASH("called");
    return RUN_STREAMING;
}

/* ---- after it ---- */

/* Has the slot back, for the turn's end; the job is still ours. */
static void release_call(struct run *r)
{
    struct worker *w = r->w;

    list_remove(&r->node);
    w->n_runs--;
    r->task->body->run = NULL;
    r->task->place = TASK_NOWHERE;
    pool_give(r->at);
    w->is_pump_due = true;
}

static void free_run(struct run *r)
{
    buf_release(&r->request.body);
    engine_reply_release(&r->reply);
    buf_release(&r->refusal);
    buf_release(&r->delta);
    buf_release(&r->json);
    free(r);
}

static enum run_step judge(struct run *r)
{
    static const enum run_step next[] = {
        [RETRY_DONE] = RUN_ANSWER,    [RETRY_AGAIN] = RUN_AGAIN, [RETRY_WAIT] = RUN_WAIT,
        [RETRY_ELSEWHERE] = RUN_WAIT, [RETRY_FAIL] = RUN_FAIL,
    };

    r->verdict = run_classify(r);
    if (r->verdict.action != RETRY_DONE)
        metric_add(METRIC_CALLS_FAILED, 1);
    if (r->result.was_sent || r->verdict.outcome != CALL_REFUSED)
        run_add_to_ledger(r, r->verdict.outcome, r->result.total_ms);
    run_tell_node(r);
    if (r->verdict.action == RETRY_ELSEWHERE &&
        ++r->task->body->n_elsewhere > (int)r->w->pool->n + ELSEWHERE_MORE)
        return RUN_FAIL;
    return next[r->verdict.action];
}

static void finish(struct run *r, enum job_state state, enum reason reason, struct str message)
{
    struct ending end = {
        .state = state,
        .reason = reason,
        .message = message,
        .reply = &r->reply,
        .json = buf_str(&r->json),
        .engine_ms = r->result.was_sent ? r->result.total_ms : -1,
        .first_token_ms = r->is_stream ? r->result.first_byte_ms : -1,
        .cache_key = run_job(r)->cache == CACHE_BYPASS ? NULL : r->key,
    };

    r->task->body->attempts++;
    release_call(r);
    finish_task(r->w, r->task, &end);
}

/* The task is picked again: nothing was begun. */
static enum run_step put_back(struct run *r)
{
    release_call(r);
    waiting_again(r->w, r->task);
    return RUN_OVER;
}

static enum run_step hit(struct run *r, struct str output)
{
    struct ending end = {
        .state = STATE_SUCCEEDED, .cached = output, .engine_ms = -1, .first_token_ms = -1};

    log_debug("cached", LS("id", run_job(r)->id));
    release_call(r);
    finish_task(r->w, r->task, &end);
    return RUN_OVER;
}

static enum run_step answer(struct run *r)
{
    HOOK_CRASH("answered");
    finish(r, STATE_SUCCEEDED, REASON_NONE, STR_NONE);
    return RUN_OVER;
}

/* The job is queued again; what its start left behind is taken back. */
static void hand_back(struct run *r)
{
    struct body *b = r->task->body;

    release_call(r);
    journal_hand_back(r->w->journal, b->slot, body_attempts(b));
    b->slot = -1;
    job_step(b->job, EVENT_RETRY);
    live_requeue(r->w->live, b->job->tenant, b->job->id);
}

static enum run_step fail(struct run *r)
{
    if (r->verdict.reason == REASON_MODEL_NOT_FOUND && route_is_open(r->w, r->task)) {
        hand_back(r);
        route_away(r->w, r->task);
        return RUN_OVER;
    }
    finish(r, STATE_FAILED, r->verdict.reason, str_z(r->error));
    return RUN_OVER;
}

static enum run_step again(struct run *r)
{
    const struct config *c = r->w->config;
    struct body *b = r->task->body;
    int most = b->job->max_attempts > 0 ? b->job->max_attempts : (int)c->retry_attempts;
    char message[600];

    if (b->attempts + 1 >= most) {
        snprintf(message, sizeof message, "%d of %d attempts failed; the last: %s", b->attempts + 1,
                 most, r->error);
        finish(r, STATE_FAILED, r->verdict.reason, str_z(message));
        return RUN_OVER;
    }
    log_info("retry", LS("id", b->job->id), LS("node", b->node),
             LI("attempt", body_attempts(b) + 1), LZ("why", r->error));
    metric_add(METRIC_RETRIES, 1);
    b->attempts++;
    hand_back(r);
    waiting_later(
        r->w, r->task,
        retry_wait_ms(c->retry_base_ms, c->retry_cap_ms, b->attempts, worker_random(r->w)));
    return RUN_OVER;
}

static enum run_step wait_for_node(struct run *r)
{
    hand_back(r);
    waiting_again(r->w, r->task);
    return RUN_OVER;
}

static void go(struct run *r, enum run_step step)
{
    static enum run_step (*const steps[])(struct run *) = {
        [RUN_ADMIT] = admit, [RUN_CHOOSE] = choose,      [RUN_LOOK] = look,
        [RUN_CALL] = call,   [RUN_JUDGE] = judge,        [RUN_ANSWER] = answer,
        [RUN_AGAIN] = again, [RUN_WAIT] = wait_for_node, [RUN_FAIL] = fail,
    };

    while (step < RUN_STREAMING)
        step = steps[step](r);
    if (step == RUN_OVER)
        free_run(r);
}

static void on_done(void *data, const struct fetch_result *result)
{
    struct run *r = data;

    r->fetch = NULL;
    r->result = *result;
    if (r->status == 0)
        r->status = result->status;
    log_debug("answered", LS("id", run_job(r)->id), LI("status", r->status),
              LI("ms", result->total_ms));
    go(r, RUN_JUDGE);
}

/* Meanwhile the worker may have been told to stop, or the job may be another one's. */
static void on_looked(void *data, struct str output)
{
    struct run *r = data;
    enum run_step step = RUN_CALL;

    r->ask = NULL;
    if (!broker_has_lease(r->w->broker))
        step = put_back(r);
    else if (output.p)
        step = hit(r, output);
    else if (r->w->is_stopping)
        step = put_back(r);
    go(r, step);
}

/* ---- from outside ---- */

/* Breaks off a look, before which nothing has begun. */
static void leave_look(struct run *r)
{
    cache_leave(r->ask);
    release_call(r);
    free_run(r);
}

void run_start(struct worker *w, struct task *t, struct node *n)
{
    struct run *r = xcalloc(1, sizeof *r);

    r->w = w;
    r->task = t;
    r->at = n;
    r->result.retry_after_ms = -1;
    t->place = TASK_RUNNING;
    t->body->run = r;
    go(r, RUN_ADMIT);
}

void run_abort(struct worker *w, struct task *t, enum call_outcome outcome)
{
    struct run *r = t->body->run;

    if (r->ask) {
        leave_look(r);
        return;
    }
    fetch_abort(r->fetch);
    run_add_to_ledger(r, outcome, worker_mono_ms(w) - r->started_ms);
    t->body->attempts++;
    release_call(r);
    free_run(r);
}

void run_abort_all(struct worker *w)
{
    struct list *node, *next;
    struct run *r;

    for (node = w->runs.next; node != &w->runs; node = next) {
        next = node->next;
        r = LIST_ENTRY(node, struct run, node);
        if (r->ask) {
            leave_look(r);
            continue;
        }
        fetch_abort(r->fetch);
        hand_back(r);
        free_run(r);
    }
}
