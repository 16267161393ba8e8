#include "schema/completion.h"
#include "base/json.h"
#include <assert.h>
#include <math.h>

static const char *const outcomes[] = {"ok", "failed", "timeout", "cut", "cancelled", "refused"};

const char *outcome_name(enum call_outcome o)
{
    assert(o <= CALL_REFUSED);
    return outcomes[o];
}

bool outcome_parse(struct str name, enum call_outcome *out)
{
    enum call_outcome o;

    for (o = 0; o <= CALL_REFUSED; o++)
        if (str_eqz(name, outcomes[o])) {
            *out = o;
            return true;
        }
    return false;
}

/* Writing: each of these appends one member, whose name has its comma before it. */

#define NAME(name) STR(",\"" name "\":")

static void put_raw(struct buf *b, struct str name, struct str raw)
{
    buf_adds(b, name);
    buf_adds(b, raw.n ? raw : STR("null"));
}

static void put_str(struct buf *b, struct str name, struct str s)
{
    if (!s.p) {
        put_raw(b, name, STR_NONE);
        return;
    }
    buf_adds(b, name);
    json_put_str(b, s);
}

static void put_int(struct buf *b, struct str name, int64_t v)
{
    buf_adds(b, name);
    buf_addi(b, v);
}

static void put_int_unless(struct buf *b, struct str name, int64_t v, int64_t absent)
{
    if (v == absent)
        put_raw(b, name, STR_NONE);
    else
        put_int(b, name, v);
}

static void put_cost(struct buf *b, double cost)
{
    if (!(cost > 0) || !isfinite(cost)) {
        put_int(b, NAME("cost"), 0);
        return;
    }
    buf_adds(b, NAME("cost"));
    buf_addf(b, "%.15g", cost);
}

/* Opens an object whose members put the comma in front: it is taken back by close_object. */
static size_t open_object(struct buf *b, struct str name)
{
    buf_adds(b, name);
    return b->n;
}

static void close_object(struct buf *b, size_t start)
{
    if (b->n == start)
        buf_addc(b, '{');
    buf_addc(b, '}');
    if (!b->is_over)
        b->p[start] = '{';
}

static void put_output(struct buf *b, const struct completion *c)
{
    size_t start;

    if (c->state != STATE_SUCCEEDED) {
        put_raw(b, NAME("output"), STR_NONE);
        return;
    }
    if (c->output.n) {
        put_raw(b, NAME("output"), c->output);
        return;
    }
    start = open_object(b, NAME("output"));
    if (c->text.p)
        put_str(b, NAME("text"), c->text);
    if (c->message.n)
        put_raw(b, NAME("message"), c->message);
    if (c->embedding.n)
        put_raw(b, NAME("embedding"), c->embedding);
    if (c->json.n)
        put_raw(b, NAME("json"), c->json);
    if (c->finish_reason.p)
        put_str(b, NAME("finish_reason"), c->finish_reason);
    close_object(b, start);
}

/* A job that was ended by its owner or its deadline says so also where nobody gave a reason. */
static enum reason reason_of(const struct completion *c)
{
    if (c->reason != REASON_NONE)
        return c->reason;
    return c->state == STATE_CANCELLED ? REASON_CANCELLED
           : c->state == STATE_EXPIRED ? REASON_DEADLINE_EXCEEDED
                                       : REASON_INTERNAL;
}

static void put_error(struct buf *b, const struct completion *c)
{
    size_t start;

    if (!state_is_terminal(c->state) || c->state == STATE_SUCCEEDED) {
        put_raw(b, NAME("error"), STR_NONE);
        return;
    }
    start = open_object(b, NAME("error"));
    put_str(b, NAME("code"), str_z(reason_code(reason_of(c))));
    put_str(b, NAME("message"), c->error_message.p ? c->error_message : STR(""));
    close_object(b, start);
}

static void put_usage(struct buf *b, const struct completion *c)
{
    size_t start;

    if (!state_is_terminal(c->state)) {
        put_raw(b, NAME("usage"), STR_NONE);
        return;
    }
    start = open_object(b, NAME("usage"));
    put_int(b, NAME("prompt_tokens"), c->usage.prompt_tokens);
    put_int(b, NAME("completion_tokens"), c->usage.completion_tokens);
    put_int(b, NAME("total_tokens"), c->usage.prompt_tokens + c->usage.completion_tokens);
    put_int(b, NAME("cached_tokens"), c->usage.cached_tokens);
    close_object(b, start);
}

static void put_call(struct buf *b, const struct call *call)
{
    size_t start = b->n;

    put_str(b, NAME("id"), str_z(call->id));
    put_int(b, NAME("attempt"), call->attempt);
    put_str(b, NAME("node"), call->node);
    put_str(b, NAME("model"), call->model);
    put_int(b, NAME("prompt_tokens"), call->usage.prompt_tokens);
    put_int(b, NAME("completion_tokens"), call->usage.completion_tokens);
    put_int(b, NAME("cached_tokens"), call->usage.cached_tokens);
    put_str(b, NAME("outcome"), str_z(outcome_name(call->outcome)));
    put_int(b, NAME("ms"), call->ms);
    put_cost(b, call->cost);
    close_object(b, start);
}

static void put_calls(struct buf *b, const struct completion *c)
{
    size_t i = c->n_calls > CALLS_MAX ? c->n_calls - CALLS_MAX : 0;

    buf_addz(b, ",\"calls\":[");
    for (; i < c->n_calls; i++) {
        put_call(b, &c->calls[i]);
        if (i + 1 < c->n_calls)
            buf_addc(b, ',');
    }
    buf_addc(b, ']');
}

static void put_timing(struct buf *b, const struct completion *c)
{
    size_t start;

    if (!state_is_terminal(c->state)) {
        put_raw(b, NAME("timing"), STR_NONE);
        return;
    }
    start = open_object(b, NAME("timing"));
    put_int_unless(b, NAME("queue_ms"), c->queue_ms, -1);
    put_int_unless(b, NAME("engine_ms"), c->engine_ms, -1);
    put_int_unless(b, NAME("first_token_ms"), c->first_token_ms, -1);
    put_int_unless(b, NAME("total_ms"), c->total_ms, -1);
    close_object(b, start);
}

/* What the client sent. */
static void put_job(struct buf *b, const struct job *j, enum job_state state)
{
    put_str(b, NAME("id"), j->id);
    put_str(b, NAME("object"), STR("job"));
    put_str(b, NAME("status"), str_z(state_name(state)));
    put_str(b, NAME("model"), j->model);
    put_str(b, NAME("priority"), str_z(priority_name(j->priority)));
    put_str(b, NAME("queue"), j->queue);
    put_str(b, NAME("batch_id"), j->batch_id);
    put_str(b, NAME("custom_id"), j->custom_id);
    put_str(b, NAME("tenant"), j->tenant);
    put_raw(b, NAME("metadata"), j->metadata);
}

int completion_write(const struct job *j, const struct completion *c, struct buf *b)
{
    size_t start = b->n;

    put_job(b, j, c->state);
    put_int_unless(b, NAME("created_at"), j->created_at, 0);
    put_int_unless(b, NAME("started_at"), c->started_at, 0);
    put_int_unless(b, NAME("finished_at"), c->finished_at, 0);
    put_int(b, NAME("attempts"), c->attempts);
    put_str(b, NAME("node"), c->node);
    put_raw(b, NAME("cached"), c->is_cached ? STR("true") : STR("false"));
    put_output(b, c);
    put_error(b, c);
    put_usage(b, c);
    put_calls(b, c);
    put_timing(b, c);
    put_cost(b, c->cost);
    put_int_unless(b, NAME("batch_line"), j->batch_line, -1);
    put_raw(b, NAME("key_id"), STR_NONE); /* nor are there keys */
    if (j->redrive_of.p)
        put_str(b, NAME("redrive_of"), j->redrive_of);
    close_object(b, start);
    return b->is_over ? ERR_TOO_LARGE : 0;
}

/* ---- reading ---- */

/* Both take null for an absent member, and leave *out as it is. */

static bool get_str(const struct json *all, const char *namez, struct str *out)
{
    const struct json *value = json_get(all, namez);

    if (json_type(value) == JSON_NULL)
        return true;
    *out = json_str(value);
    return out->p != NULL;
}

static bool get_int(const struct json *all, const char *namez, int64_t *out)
{
    const struct json *value = json_get(all, namez);

    return json_type(value) == JSON_NULL || json_int(value, out);
}

static bool read_view(struct completion_view *v)
{
    const struct json *all = v->owned;
    struct str priority = STR("normal");

    return get_str(all, "id", &v->id) && id_is_valid(v->id) && get_str(all, "tenant", &v->tenant) &&
           id_is_valid(v->tenant) && state_parse(json_str(json_get(all, "status")), &v->state) &&
           get_str(all, "model", &v->model) && get_str(all, "queue", &v->queue) &&
           get_str(all, "batch_id", &v->batch_id) && get_str(all, "priority", &priority) &&
           priority_parse(priority, &v->priority) && get_int(all, "created_at", &v->created_at) &&
           get_int(all, "batch_line", &v->batch_line);
}

int completion_read(struct completion_view *v, struct str value, struct err *e)
{
    *v = (struct completion_view){.batch_line = -1, .owned = json_parse(value, e)};
    if (!v->owned)
        return ERR_INVALID;
    if (read_view(v))
        return 0;
    completion_view_release(v);
    return err_set(e, ERR_INVALID, "completion: a member is missing or not valid");
}

void completion_view_release(struct completion_view *v)
{
    json_free(v->owned);
    v->owned = NULL;
}
