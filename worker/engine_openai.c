/* OpenAI-compatible engines (llama.cpp's server, vLLM, SGLang, clouds): /v1/chat/completions,
 * /v1/completions, /v1/embeddings (OpenAI's API reference). A stream is whole only with a finish
 * reason and [DONE]; usage comes when the engine gives it. */
#include "worker/engine_util.h"
#include <stdlib.h>

static const char *const sampling_names[] = {
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) name,
#include "schema/job.def"
#undef SAMPLING
};

static int build(const struct job *j, struct str model, bool is_stream, struct engine_request *out,
                 struct err *e)
{
    static const char *const paths[] = {"/v1/completions", "/v1/chat/completions",
                                        "/v1/embeddings"};
    static const char *const bodies[] = {"prompt", "messages", "input"};
    struct buf *b = &out->body;

    out->pathz = paths[j->kind];
    buf_init(b, ENGINE_REQUEST_MAX_BYTES);
    buf_addc(b, '{');
    json_put_member_str(b, "model", model);
    buf_addc(b, ',');
    json_put_member_raw(b, bodies[j->kind], j->body);
    if (j->kind != JOB_EMBEDDING) {
        buf_addc(b, ',');
        json_put_member_bool(b, "stream", is_stream);
        if (is_stream && !engine_option_is_set(j, "stream_options"))
            buf_addz(b, ",\"stream_options\":{\"include_usage\":true}");
    }
    for (size_t s = 0; s < SAMPLING_COUNT_; s++) {
        if (j->sampling[s].n == 0 || engine_option_is_set(j, sampling_names[s]))
            continue;
        buf_addc(b, ',');
        json_put_member_raw(b, sampling_names[s], j->sampling[s]);
    }
    engine_put_members(b, j->options, NULL);
    buf_addc(b, '}');
    return b->is_over ? err_set(e, ERR_TOO_LARGE, "the engine's request is too large") : 0;
}

/* ---- answers ---- */

static void take_usage(struct engine_reply *r, const struct json *usage)
{
    struct usage u = {0, 0, 0};

    if (json_type(usage) != JSON_OBJECT)
        return;
    json_int(json_get(usage, "prompt_tokens"), &u.prompt_tokens);
    json_int(json_get(usage, "completion_tokens"), &u.completion_tokens);
    json_int(json_get(json_get(usage, "prompt_tokens_details"), "cached_tokens"), &u.cached_tokens);
    /* Ollama sends a zero usage in each chunk before the real one. */
    if (u.prompt_tokens || u.completion_tokens || !r->has_usage)
        r->usage = u;
    r->has_usage = true;
}

static void take_finish(struct engine_reply *r, const struct json *choice)
{
    struct str reason = json_str(json_get(choice, "finish_reason"));

    if (reason.n)
        str_copyz(r->finish_reason, sizeof r->finish_reason, reason);
}

static void take_reasoning(struct engine_reply *r, const struct json *message)
{
    struct str text = json_str(json_get(message, "reasoning_content"));

    buf_adds(&r->reasoning, text.p ? text : json_str(json_get(message, "reasoning")));
}

/* The message as received, with the choice's log probabilities beside its members. */
static void put_message(struct engine_reply *r, const struct json *choice)
{
    const struct json *message = json_get(choice, "message");
    const struct json *logprobs = json_get(choice, "logprobs");

    if (json_type(logprobs) == JSON_NULL)
        logprobs = NULL;
    if (!message && !logprobs)
        return;
    buf_addc(&r->message, '{');
    for (const struct json *m = json_child(message); m; m = json_next(m)) {
        json_put_str(&r->message, json_name(m));
        buf_addc(&r->message, ':');
        json_print(m, &r->message);
        buf_addc(&r->message, ',');
    }
    if (logprobs) {
        json_put_name(&r->message, "logprobs");
        json_print(logprobs, &r->message);
        buf_addc(&r->message, ',');
    }
    r->message.p[r->message.n - 1] = '}'; /* the last comma, or an empty object's brace */
    if (r->message.n == 1)
        buf_clear(&r->message);
}

static void take_data(struct engine_reply *r, const struct json *data)
{
    struct buf b;
    struct json *vectors;

    buf_init(&b, r->embedding.max);
    buf_addc(&b, '[');
    for (const struct json *d = json_child(data); d; d = json_next(d)) {
        if (b.n > 1)
            buf_addc(&b, ',');
        json_print(json_get(d, "embedding"), &b);
    }
    buf_addc(&b, ']');
    vectors = json_parse(buf_str(&b), NULL);
    engine_set_embeddings(r, vectors);
    json_free(vectors);
    buf_release(&b);
}

static int take_plain(struct engine_reply *r, struct str text)
{
    struct json *j = json_parse(text, NULL);
    const struct json *choice = json_child(json_get(j, "choices"));
    const struct json *error = json_get(j, "error"), *message = json_get(choice, "message");
    struct str content;

    if (!j)
        return ERR_INVALID;
    if (error && json_type(error) != JSON_NULL)
        engine_set_error_value(r, error);
    content = json_str(json_get(message ? message : choice, message ? "content" : "text"));
    buf_adds(&r->text, content);
    if (choice) {
        take_finish(r, choice);
        put_message(r, choice);
    }
    if (json_get(j, "data"))
        take_data(r, json_get(j, "data"));
    take_usage(r, json_get(j, "usage"));
    str_copyz(r->model, sizeof r->model, json_str(json_get(j, "model")));
    r->is_done = choice || r->embedding.n;
    json_free(j);
    return 0;
}

/* A chunk's tool calls are kept as they came, one a line; make_calls puts them together. */
static void take_call_deltas(struct engine_reply *r, const struct json *calls)
{
    for (const struct json *c = json_child(calls); c; c = json_next(c)) {
        json_print(c, &r->tool_calls);
        buf_addc(&r->tool_calls, '\n');
    }
}

static int take_chunk(struct engine_reply *r, struct str text)
{
    struct json *j;
    const struct json *choice, *delta, *error;

    if (str_eqz(text, "[DONE]")) {
        r->is_done = r->finish_reason[0] != 0;
        return 0;
    }
    j = json_parse(text, NULL);
    if (!j)
        return ERR_INVALID;
    choice = json_child(json_get(j, "choices"));
    delta = json_get(choice, "delta");
    error = json_get(j, "error");
    if (error && json_type(error) != JSON_NULL)
        engine_set_error_value(r, error);
    buf_adds(&r->text, json_str(json_get(delta ? delta : choice, delta ? "content" : "text")));
    take_reasoning(r, delta);
    take_call_deltas(r, json_get(delta, "tool_calls"));
    take_finish(r, choice);
    take_usage(r, json_get(j, "usage"));
    if (!r->model[0])
        str_copyz(r->model, sizeof r->model, json_str(json_get(j, "model")));
    json_free(j);
    return 0;
}

static int feed(struct engine_reply *r, struct str bytes, struct buf *delta)
{
    size_t at = 0, had = r->text.n;
    struct str line;
    int rc = 0;

    if (buf_adds(&r->raw, bytes) < 0)
        return ERR_TOO_LARGE;
    if (!r->is_stream)
        return 0;
    while (rc == 0 && engine_next_line(r, &at, &line)) {
        if (!str_starts(line, STR("data:")))
            continue; /* comments, event names, blank lines */
        line.p += 5, line.n -= 5;
        while (line.n && *line.p == ' ')
            line.p++, line.n--;
        rc = take_chunk(r, line);
    }
    buf_eat(&r->raw, at);
    if (delta && r->text.n > had)
        buf_add(delta, r->text.p + had, r->text.n - had);
    return rc;
}

/* ---- tool calls of a stream ---- */

#define TOOL_CALLS_MAX 64

/* All chunks of tool call `index` as one call; false when there is none. */
static bool put_call(const struct engine_reply *r, int64_t index, struct buf *out)
{
    struct engine_reply lines = {.raw = r->tool_calls};
    struct buf id, name, arguments;
    struct str line;
    size_t at = 0;
    bool is_there = false;

    buf_init(&id, 1024);
    buf_init(&name, 1024);
    buf_init(&arguments, r->tool_calls.max);
    while (engine_next_line(&lines, &at, &line)) {
        struct json *j = json_parse(line, NULL);
        const struct json *function = json_get(j, "function");
        int64_t i = 0;

        json_int(json_get(j, "index"), &i);
        if (i == index) {
            is_there = true;
            buf_adds(&id, json_str(json_get(j, "id")));
            buf_adds(&name, json_str(json_get(function, "name")));
            buf_adds(&arguments, json_str(json_get(function, "arguments")));
        }
        json_free(j);
    }
    if (is_there) {
        buf_addz(out, index ? ",{" : "{");
        json_put_member_str(out, "id", buf_str(&id));
        buf_addz(out, ",\"type\":\"function\",\"function\":{");
        json_put_member_str(out, "name", buf_str(&name));
        buf_addc(out, ',');
        json_put_member_str(out, "arguments", buf_str(&arguments));
        buf_addz(out, "}}");
    }
    buf_release(&id);
    buf_release(&name);
    buf_release(&arguments);
    return is_there;
}

static void make_stream_message(struct engine_reply *r)
{
    struct buf calls;

    buf_init(&calls, r->message.max);
    for (int64_t i = 0; i < TOOL_CALLS_MAX && put_call(r, i, &calls); i++)
        ;
    engine_make_message(r, "reasoning_content", buf_str(&calls), STR_NONE);
    buf_release(&calls);
}

static enum engine_class end(struct engine_reply *r, int status, struct str body)
{
    if (status < 200 || status > 299)
        return engine_class_of_status(r, status, body);
    if (!r->is_stream && take_plain(r, buf_str(&r->raw)) < 0)
        str_copyz(r->error, sizeof r->error, STR("the engine's answer is not whole JSON"));
    if (r->error[0])
        return ENGINE_TRANSIENT;
    if (!r->is_done) {
        str_copyz(r->error, sizeof r->error, STR("the engine's answer ended before it was done"));
        return ENGINE_TRANSIENT;
    }
    if (r->kind == JOB_CHAT && r->is_stream)
        make_stream_message(r);
    return ENGINE_OK;
}

static int read_models(struct str body, struct buf *names, struct err *e)
{
    return engine_read_names(body, "data", "id", names, e);
}

/* llama.cpp's server tells its slots at /props. */
static int read_slots(struct str body)
{
    struct json *j = json_parse(body, NULL);
    int64_t n = 0;

    json_int(json_get(j, "total_slots"), &n);
    json_free(j);
    return n > 0 && n <= 10000 ? (int)n : 0;
}

const struct engine_ops engine_openai = {
    .namez = "openai",
    .api = ENGINE_API_OPENAI,
    .build = build,
    .feed = feed,
    .end = end,
    .health_pathz = "/v1/models",
    .models_pathz = "/v1/models",
    .read_models = read_models,
    .slots_pathz = "/props",
    .read_slots = read_slots,
};
