#include "worker/answer.h"
#include "base/json.h"

enum format { FORMAT_TEXT, FORMAT_JSON, FORMAT_SCHEMA };

static enum format format_of(const struct job *j)
{
    struct json *format;
    struct str type;
    enum format f = FORMAT_TEXT;

    if (j->sampling[SAMPLING_RESPONSE_FORMAT].n == 0)
        return f;
    format = json_parse(j->sampling[SAMPLING_RESPONSE_FORMAT], NULL);
    type = json_str(json_get(format, "type"));
    if (str_eqz(type, "json_schema"))
        f = FORMAT_SCHEMA;
    else if (str_eqz(type, "json_object"))
        f = FORMAT_JSON;
    json_free(format);
    return f;
}

/* JSON has line ends only between its tokens, so a blank is as good; results are read as lines. */
static void put_on_one_line(struct buf *b, struct str text)
{
    size_t i, start = b->n;

    buf_adds(b, text);
    for (i = start; i < b->n; i++)
        if (b->p[i] == '\n' || b->p[i] == '\r')
            b->p[i] = ' ';
}

enum answer_fit answer_check(const struct job *j, const struct engine_reply *a, struct buf *json)
{
    enum format format = j->kind == JOB_EMBEDDING ? FORMAT_TEXT : format_of(j);
    struct json *parsed;

    if (strcmp(a->finish_reason, "content_filter") == 0)
        return ANSWER_BLOCKED;
    if (format == FORMAT_TEXT || strcmp(a->finish_reason, "tool_calls") == 0)
        return ANSWER_FITS;
    parsed = json_parse(buf_str(&a->text), NULL);
    if (!parsed)
        return format == FORMAT_SCHEMA ? ANSWER_NO_JSON : ANSWER_FITS;
    put_on_one_line(json, buf_str(&a->text));
    json_free(parsed);
    return ANSWER_FITS;
}
