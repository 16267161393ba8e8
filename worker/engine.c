#include "worker/engine_util.h"

void engine_reply_init(struct engine_reply *r, enum job_kind kind, bool is_stream, size_t max_bytes)
{
    struct buf *bufs[] = {&r->raw, &r->text, &r->message, &r->embedding, &r->tool_calls,
                          &r->reasoning};

    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->is_stream = is_stream;
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_init(bufs[i], max_bytes);
}

void engine_reply_release(struct engine_reply *r)
{
    buf_release(&r->raw);
    buf_release(&r->text);
    buf_release(&r->message);
    buf_release(&r->embedding);
    buf_release(&r->tool_calls);
    buf_release(&r->reasoning);
}

const struct engine_ops *engine_by_api(enum engine_api api)
{
    for (size_t i = 0; engine_drivers[i]; i++) {
        if (engine_drivers[i]->api == api)
            return engine_drivers[i];
    }
    return NULL;
}

bool engine_next_line(const struct engine_reply *r, size_t *at, struct str *line)
{
    const char *start, *end;

    if (*at >= r->raw.n)
        return false;
    start = r->raw.p + *at;
    end = memchr(start, '\n', r->raw.n - *at);
    if (!end)
        return false;
    *line = str_of(start, (size_t)(end - start));
    *at += line->n + 1;
    if (line->n && line->p[line->n - 1] == '\r')
        line->n--;
    return true;
}

void engine_set_error_value(struct engine_reply *r, const struct json *error)
{
    struct str text = json_str(error);

    if (!text.p)
        text = json_str(json_get(error, "message"));
    if (!text.p)
        text = STR("the engine told an error without a message");
    str_copyz(r->error, sizeof r->error, text);
}

void engine_set_error(struct engine_reply *r, struct str body)
{
    struct err e;
    struct json *j = json_parse(body, &e);
    const struct json *error = json_get(j, "error");

    if (!error)
        error = json_get(j, "detail");
    if (!error)
        error = json_get(j, "message");
    if (error) {
        engine_set_error_value(r, error);
    } else {
        struct str text = str_of(body.p, body.n < 200 ? body.n : 200);

        text.n = str_utf8_bad(text);
        str_copyz(r->error, sizeof r->error, text.n ? text : STR("(no text)"));
    }
    json_free(j);
}

enum engine_class engine_class_of_status(struct engine_reply *r, int status, struct str body)
{
    engine_set_error(r, body);
    switch (status) {
    case 400:
    case 405:
    case 413:
    case 415:
    case 422:
    case 501:
        return ENGINE_INVALID;
    case 404:
        return ENGINE_NO_MODEL;
    case 401:
    case 403:
    case 407:
        return ENGINE_DENIED;
    case 429:
    case 503:
    case 529:
        return ENGINE_OVERLOADED;
    default:
        return status >= 300 && status < 400 ? ENGINE_DENIED : ENGINE_TRANSIENT;
    }
}

bool engine_option_is_set(const struct job *j, const char *namez)
{
    struct json_members m;
    bool is_set = false;

    if (j->options.n == 0)
        return false;
    json_members_init(&m, j->options);
    while (!is_set && json_members_next(&m, NULL) > 0)
        is_set = str_eqz(m.name, namez);
    json_members_release(&m);
    return is_set;
}

void engine_put_members(struct buf *b, struct str object, bool (*wanted)(struct str name))
{
    struct json_members m;

    if (object.n == 0)
        return;
    json_members_init(&m, object);
    while (json_members_next(&m, NULL) > 0) {
        if (wanted && !wanted(m.name))
            continue;
        buf_addc(b, ',');
        json_put_str(b, m.name);
        buf_addc(b, ':');
        buf_adds(b, m.raw);
    }
    json_members_release(&m);
}

void engine_make_message(struct engine_reply *r, const char *reasoning_namez, struct str tool_calls,
                         struct str logprobs)
{
    struct buf *b = &r->message;

    buf_clear(b);
    buf_addz(b, "{\"role\":\"assistant\",");
    json_put_member_str(b, "content", buf_str(&r->text));
    if (r->reasoning.n) {
        buf_addc(b, ',');
        json_put_member_str(b, reasoning_namez, buf_str(&r->reasoning));
    }
    if (tool_calls.n) {
        buf_addz(b, ",\"tool_calls\":[");
        buf_adds(b, tool_calls);
        buf_addc(b, ']');
    }
    if (logprobs.n) {
        buf_addz(b, ",\"logprobs\":[");
        buf_adds(b, logprobs);
        buf_addc(b, ']');
    }
    buf_addc(b, '}');
}

void engine_set_embeddings(struct engine_reply *r, const struct json *vectors)
{
    buf_clear(&r->embedding);
    if (json_type(vectors) != JSON_ARRAY || json_count(vectors) == 0)
        return;
    json_print(json_count(vectors) == 1 ? json_child(vectors) : vectors, &r->embedding);
}

int engine_read_names(struct str body, const char *listz, const char *namez, struct buf *names,
                      struct err *e)
{
    struct json *j = json_parse(body, e);
    const struct json *list = json_get(j, listz);

    if (!j)
        return e->code;
    for (const struct json *m = json_child(list); m; m = json_next(m)) {
        struct str name = json_str(json_get(m, namez));

        if (name.n)
            buf_add(names, name.p, name.n), buf_addc(names, 0);
    }
    json_free(j);
    return list ? 0 : err_set(e, ERR_INVALID, "the list of models has no member '%s'", listz);
}
