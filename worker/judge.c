#include "base/metric.h"
#include "worker/answer.h"
#include "worker/run.h"
#include <stdio.h>

static double cost_of(const struct run *r)
{
    const struct config_engine *c = r->at->config;

    return ((double)r->reply.usage.prompt_tokens * c->cost_prompt +
            (double)r->reply.usage.completion_tokens * c->cost_completion) /
           1e6;
}

/* A node that refuses may be asked often: one row tells of it. */
static bool is_told(struct body *b, const struct call *c)
{
    struct call *last = b->n_calls > 0 ? &b->calls[b->n_calls - 1] : NULL;

    if (c->outcome != CALL_REFUSED || !last || last->outcome != CALL_REFUSED ||
        last->attempt != c->attempt || !str_eq(last->node, c->node))
        return false;
    last->ms = c->ms;
    return true;
}

void run_add_to_ledger(struct run *r, enum call_outcome outcome, int64_t ms)
{
    struct body *b = r->task->body;
    struct call c = {
        .attempt = body_attempts(b) + 1,
        .node = b->node,
        .model = str_z(r->task->flow->key.model->name),
        .usage = r->reply.usage,
        .outcome = outcome,
        .ms = ms,
        .cost = cost_of(r),
    };

    metric_add(METRIC_PROMPT_TOKENS, c.usage.prompt_tokens);
    metric_add(METRIC_COMPLETION_TOKENS, c.usage.completion_tokens);
    if (is_told(b, &c))
        return;
    id_ulid(worker_wall_ms(r->w), c.id);
    body_add_call(b, &c);
}

void run_tell_node(struct run *r)
{
    struct node *n = r->at;

    pool_called(n, r->verdict.action == RETRY_DONE, r->result.total_ms);
    switch (r->verdict.effect) {
    case NODE_FINE:
        break;
    case NODE_REFUSED:
        pool_refused(n, r->error);
        break;
    case NODE_SUSPECT:
        pool_suspect(n);
        break;
    case NODE_PAUSED:
        pool_pause(n, r->result.retry_after_ms);
        break;
    case NODE_DENIED:
        pool_deny(n, r->error);
        break;
    case NODE_NO_MODEL:
        pool_no_model(n, r->task->flow->key.model);
        break;
    }
}

struct verdict run_classify(struct run *r)
{
    enum fetch_fault fault = r->result.fault;
    enum engine_class class = ENGINE_TRANSIENT;
    struct verdict v;

    if (r->is_garbage) {
        fault = FETCH_OK;
        run_set_error(r, r->reply.error[0] ? r->reply.error : "the answer cannot be read");
    } else if (fault == FETCH_OK || (fault == FETCH_CUT && r->reply.is_done)) {
        fault = FETCH_OK; /* cut after its end is whole */
        class = r->at->ops->end(&r->reply, r->status, buf_str(&r->refusal));
        if (r->reply.error[0])
            run_set_error(r, r->reply.error);
        else if (class != ENGINE_OK)
            snprintf(r->error, sizeof r->error, "HTTP status %d", r->status);
    } else {
        run_set_error(r, r->result.message);
    }
    v = retry_judge(fault, class, r->result.was_sent);
    if (v.action != RETRY_DONE)
        return v;
    switch (answer_check(run_job(r), &r->reply, &r->json)) {
    case ANSWER_BLOCKED:
        run_set_error(r, "the engine's content filter stopped the answer");
        return (struct verdict){RETRY_FAIL, REASON_CONTENT_BLOCKED, CALL_FAILED, NODE_FINE};
    case ANSWER_NO_JSON:
        run_set_error(r, "the answer is not JSON, which response_format asked for");
        return (struct verdict){RETRY_AGAIN, REASON_SCHEMA_MISMATCH, CALL_FAILED, NODE_FINE};
    case ANSWER_FITS:
        break;
    }
    return v;
}
