/* Ollama's own API: /api/generate, /api/chat, /api/embed (docs/api.md of Ollama; behaviour checked
 * on 0.11.4 and 0.34.2). A body or a stream's end without "done":true is no success: Ollama answers
 * 200 with done:false when it gives up. */
#include "worker/engine_util.h"
#include "worker/ollama_messages.h"

enum place { OPTION, TOP, NOWHERE };

static const struct {
    const char *namez, *ollama_namez;
    enum place place;
} fields[] = {
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) {name, ollama_name, place},
#include "schema/job.def"
#undef SAMPLING
};

/* Members of a request that stand beside `options`; what else a job's options hold goes into
 * them. */
static bool is_top(struct str name)
{
    static const char *const names[] = {"options", "format",   "keep_alive", "think",
                                        "raw",     "template", "system",     "suffix",
                                        "images",  "context",  "truncate",   "shift",
                                        "tools",   "logprobs", "top_logprobs", "dimensions"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (str_eqz(name, names[i]))
            return true;
    }
    return false;
}

static bool is_option(struct str name)
{
    return !is_top(name);
}

/* OpenAI's response_format as Ollama's format. */
static void put_format(struct buf *b, struct str raw)
{
    struct json *format = json_parse(raw, NULL);
    struct str type = json_str(json_get(format, "type"));
    const struct json *schema = json_get(json_get(format, "json_schema"), "schema");

    if (schema) {
        buf_addz(b, ",\"format\":");
        json_print(schema, b);
    } else if (str_eqz(type, "json_object")) {
        buf_addz(b, ",\"format\":\"json\"");
    }
    json_free(format);
}

/* Ollama wants an array where OpenAI also takes a string. */
static void put_stop(struct buf *b, struct str raw)
{
    bool is_array = raw.p[0] == '[';

    buf_addz(b, is_array ? ",\"stop\":" : ",\"stop\":[");
    buf_adds(b, raw);
    if (!is_array)
        buf_addc(b, ']');
}

static void put_field(struct buf *b, const struct job *j, enum sampling s)
{
    struct str raw = j->sampling[s];

    if (raw.n == 0 || engine_option_is_set(j, fields[s].ollama_namez))
        return;
    if (s == SAMPLING_RESPONSE_FORMAT) {
        put_format(b, raw);
    } else if (s == SAMPLING_STOP) {
        put_stop(b, raw);
    } else {
        buf_addc(b, ',');
        json_put_member_raw(b, fields[s].ollama_namez, raw);
    }
}

static void put_fields(struct buf *b, const struct job *j, enum place place)
{
    for (size_t s = 0; s < SAMPLING_COUNT_; s++) {
        if (fields[s].place == place)
            put_field(b, j, (enum sampling)s);
    }
}

/* `"options":{…}`: the fields each put a comma first; the first one goes. */
static void put_options(struct buf *b, const struct job *j)
{
    size_t start;

    if (engine_option_is_set(j, "options")) /* given whole */
        return;
    buf_addz(b, ",\"options\":{");
    start = b->n;
    put_fields(b, j, OPTION);
    engine_put_members(b, j->options, is_option);
    if (b->n > start) {
        memmove(b->p + start, b->p + start + 1, b->n - start - 1);
        b->n--;
    }
    buf_addc(b, '}');
}

static int build(const struct job *j, struct str model, bool is_stream, struct engine_request *out,
                 struct err *e)
{
    static const char *const paths[] = {"/api/generate", "/api/chat", "/api/embed"};
    static const char *const bodies[] = {"prompt", "messages", "input"};
    struct buf *b = &out->body;

    out->pathz = paths[j->kind];
    buf_init(b, ENGINE_REQUEST_MAX_BYTES);
    buf_addc(b, '{');
    json_put_member_str(b, "model", model);
    buf_addc(b, ',');
    json_put_name(b, bodies[j->kind]);
    if (j->kind != JOB_CHAT)
        buf_adds(b, j->body);
    else if (ollama_messages(j->body, b, e) < 0)
        return e->code;
    if (j->kind != JOB_EMBEDDING) {
        buf_addc(b, ',');
        json_put_member_bool(b, "stream", is_stream);
    }
    put_fields(b, j, TOP);
    engine_put_members(b, j->options, is_top);
    put_options(b, j);
    buf_addc(b, '}');
    return b->is_over ? err_set(e, ERR_TOO_LARGE, "the engine's request is too large") : 0;
}

/* ---- answers ---- */

static void take_int(struct json_members *m, int64_t *to)
{
    int64_t v;

    if (json_members_int(m, &v))
        *to = v;
}

static void take_message(struct engine_reply *r, const struct json *message, struct str raw)
{
    const struct json *calls = json_get(message, "tool_calls");
    struct str content = json_str(json_get(message, "content"));

    buf_adds(&r->text, content);
    buf_adds(&r->reasoning, json_str(json_get(message, "thinking")));
    if (!r->is_stream) {
        buf_clear(&r->message);
        buf_adds(&r->message, raw);
    }
    for (const struct json *c = json_child(calls); c && r->is_stream; c = json_next(c)) {
        if (r->tool_calls.n)
            buf_addc(&r->tool_calls, ',');
        json_print(c, &r->tool_calls);
    }
}

/* One member of a plain answer or of a stream's line. */
static void take_member(struct engine_reply *r, struct json_members *m)
{
    struct str name = m->name;

    if (str_eqz(name, "response")) {
        buf_adds(&r->text, json_members_str(m));
    } else if (str_eqz(name, "thinking")) {
        buf_adds(&r->reasoning, json_members_str(m));
    } else if (str_eqz(name, "message")) {
        take_message(r, json_members_value(m), m->raw);
    } else if (str_eqz(name, "embeddings")) {
        engine_set_embeddings(r, json_members_value(m));
        r->is_done = r->embedding.n > 0;
    } else if (str_eqz(name, "done")) {
        r->is_done = r->is_done || json_members_is_true(m);
    } else if (str_eqz(name, "done_reason")) {
        str_copyz(r->finish_reason, sizeof r->finish_reason, json_members_str(m));
    } else if (str_eqz(name, "model")) {
        str_copyz(r->model, sizeof r->model, json_members_str(m));
    } else if (str_eqz(name, "error")) {
        engine_set_error_value(r, json_members_value(m));
    } else if (str_eqz(name, "prompt_eval_count")) {
        take_int(m, &r->usage.prompt_tokens);
        r->has_usage = true;
    } else if (str_eqz(name, "eval_count")) {
        take_int(m, &r->usage.completion_tokens);
    } else if (str_eqz(name, "prompt_eval_cached_count")) {
        take_int(m, &r->usage.cached_tokens);
    }
}

static int take_object(struct engine_reply *r, struct str text)
{
    struct json_members m;
    struct err e;
    int rc;

    json_members_init(&m, text);
    while ((rc = json_members_next(&m, &e)) > 0)
        take_member(r, &m);
    json_members_release(&m);
    return rc;
}

static int feed(struct engine_reply *r, struct str bytes, struct buf *delta)
{
    size_t at = 0, had = r->text.n;
    struct str line;

    if (buf_adds(&r->raw, bytes) < 0)
        return ERR_TOO_LARGE;
    if (!r->is_stream)
        return 0;
    while (engine_next_line(r, &at, &line)) {
        if (line.n && take_object(r, line) < 0)
            return ERR_INVALID;
    }
    buf_eat(&r->raw, at);
    if (delta && r->text.n > had)
        buf_add(delta, r->text.p + had, r->text.n - had);
    return 0;
}

static enum engine_class end(struct engine_reply *r, int status, struct str body)
{
    if (status < 200 || status > 299)
        return engine_class_of_status(r, status, body);
    if (r->raw.n && take_object(r, buf_str(&r->raw)) < 0)
        str_copyz(r->error, sizeof r->error, STR("the engine's answer is not whole JSON"));
    if (r->error[0])
        return ENGINE_TRANSIENT;
    if (!r->is_done) {
        str_copyz(r->error, sizeof r->error, STR("the engine's answer ended before it was done"));
        return ENGINE_TRANSIENT;
    }
    if (r->kind == JOB_CHAT && r->is_stream)
        engine_make_message(r, "thinking", buf_str(&r->tool_calls), STR_NONE);
    return ENGINE_OK;
}

static int read_models(struct str body, struct buf *names, struct err *e)
{
    return engine_read_names(body, "models", "name", names, e);
}

const struct engine_ops engine_ollama = {
    .namez = "ollama",
    .api = ENGINE_API_OLLAMA,
    .build = build,
    .feed = feed,
    .end = end,
    .health_pathz = "/api/version",
    .models_pathz = "/api/tags",
    .read_models = read_models,
};
