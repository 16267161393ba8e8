#include "worker/ollama_messages.h"
#include "base/json.h"

/* Only string contents and no tool calls: nothing to change. */
static bool is_plain(const struct json *messages)
{
    for (const struct json *m = json_child(messages); m; m = json_next(m)) {
        if (json_type(json_get(m, "content")) != JSON_STRING || json_get(m, "tool_calls") ||
            json_get(m, "tool_call_id"))
            return false;
    }
    return true;
}

static int put_image(const struct json *part, struct buf *images, struct err *e)
{
    struct str url = json_str(json_get(json_get(part, "image_url"), "url"));
    const char *comma = url.n ? memchr(url.p, ',', url.n) : NULL;

    if (!str_starts(url, STR("data:")) || !comma)
        return err_set(e, ERR_INVALID, "messages: Ollama takes images as data: URLs only");
    if (images->n)
        buf_addc(images, ',');
    json_put_str(images, str_of(comma + 1, (size_t)(url.p + url.n - comma - 1)));
    return 0;
}

static int put_parts(const struct json *parts, struct buf *text, struct buf *images, struct err *e)
{
    for (const struct json *p = json_child(parts); p; p = json_next(p)) {
        struct str type = json_str(json_get(p, "type"));

        if (str_eqz(type, "text"))
            buf_adds(text, json_str(json_get(p, "text")));
        else if (!str_eqz(type, "image_url"))
            return err_set(e, ERR_INVALID, "messages: Ollama cannot take a part of type '%.*s'",
                           STR_ARG(type));
        else if (put_image(p, images, e) < 0)
            return e->code;
    }
    return 0;
}

static void put_call(const struct json *call, struct buf *b)
{
    const struct json *function = json_get(call, "function"), *arguments;
    struct str text;

    arguments = json_get(function, "arguments");
    text = json_str(arguments);
    buf_addz(b, "{\"function\":{");
    json_put_member_str(b, "name", json_str(json_get(function, "name")));
    buf_addz(b, ",\"arguments\":");
    if (text.n)
        buf_adds(b, text); /* OpenAI: an object as text */
    else if (!arguments || json_print(arguments, b) < 0)
        buf_addz(b, "{}");
    buf_addz(b, "}}");
}

static void put_calls(const struct json *calls, struct buf *b)
{
    buf_addz(b, ",\"tool_calls\":[");
    for (const struct json *c = json_child(calls); c; c = json_next(c)) {
        if (c != json_child(calls))
            buf_addc(b, ',');
        put_call(c, b);
    }
    buf_addc(b, ']');
}

/* Members that are the same in both. */
static void put_rest(const struct json *message, struct buf *b)
{
    for (const struct json *m = json_child(message); m; m = json_next(m)) {
        struct str name = json_name(m);

        if (str_eqz(name, "content") || str_eqz(name, "tool_calls"))
            continue;
        buf_addc(b, ',');
        json_put_str(b, name);
        buf_addc(b, ':');
        json_print(m, b);
    }
}

static int put_message(const struct json *message, struct buf *b, struct err *e)
{
    const struct json *content = json_get(message, "content");
    const struct json *calls = json_get(message, "tool_calls");
    struct buf text, images;
    int rc = 0;

    buf_init(&text, b->max);
    buf_init(&images, b->max);
    if (json_type(content) == JSON_ARRAY)
        rc = put_parts(content, &text, &images, e);
    else
        buf_adds(&text, json_str(content));
    buf_addc(b, '{');
    json_put_member_str(b, "content", buf_str(&text));
    if (images.n) {
        buf_addz(b, ",\"images\":[");
        buf_adds(b, buf_str(&images));
        buf_addc(b, ']');
    }
    if (json_type(calls) == JSON_ARRAY)
        put_calls(calls, b);
    put_rest(message, b);
    buf_addc(b, '}');
    buf_release(&text);
    buf_release(&images);
    return rc;
}

int ollama_messages(struct str messages, struct buf *b, struct err *e)
{
    struct json *j = json_parse(messages, e);
    int rc = 0;

    if (!j)
        return e->code;
    if (is_plain(j)) {
        buf_adds(b, messages);
        json_free(j);
        return 0;
    }
    buf_addc(b, '[');
    for (const struct json *m = json_child(j); m && rc == 0; m = json_next(m)) {
        if (m != json_child(j))
            buf_addc(b, ',');
        rc = put_message(m, b, e);
    }
    buf_addc(b, ']');
    json_free(j);
    return rc;
}
