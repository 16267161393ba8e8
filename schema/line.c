#include "schema/line.h"
#include "base/json.h"

/* An OpenAI batch line is rewritten into a job and goes through job_parse: what a job may be is
 * said once. */

enum { ENGINE_FIELDS_MAX = 64 /* that genq does not know, in one body */ };

static const struct {
    const char *urlz;
    enum job_kind kind;
    const char *bodyz;
} urls[] = {
    {"/v1/chat/completions", JOB_CHAT, "messages"},
    {"/v1/completions", JOB_COMPLETION, "prompt"},
    {"/v1/embeddings", JOB_EMBEDDING, "input"},
};

enum { N_URLS = sizeof urls / sizeof urls[0] };

/* An OpenAI line's members, as source text. */
struct openai_line {
    struct str custom_id, body;
    size_t url; /* index in urls; N_URLS: none yet */
    bool has_method;
};

static int refuse(struct err *e, const char **param, const char *namez, const char *whyz)
{
    *param = namez;
    return err_set(e, ERR_INVALID, "'%s' %s", namez, whyz);
}

static size_t find_url(struct str s)
{
    size_t i;

    for (i = 0; i < N_URLS; i++)
        if (str_eqz(s, urls[i].urlz))
            break;
    return i;
}

static int take_line_member(struct openai_line *l, struct json_members *m, const char **param,
                            struct err *e)
{
    struct str s = json_members_str(m);

    if (str_eq(m->name, STR("custom_id"))) {
        if (s.n == 0 || l->custom_id.n)
            return refuse(e, param, "custom_id", "must be one string that is not empty");
        l->custom_id = m->raw;
    } else if (str_eq(m->name, STR("method"))) {
        if (!str_eqz(s, "POST") || l->has_method)
            return refuse(e, param, "method", "must be POST");
        l->has_method = true;
    } else if (str_eq(m->name, STR("url"))) {
        if (l->url < N_URLS || find_url(s) == N_URLS)
            return refuse(e, param, "url",
                          "must be /v1/chat/completions, /v1/completions or"
                          " /v1/embeddings");
        l->url = find_url(s);
    } else if (str_eq(m->name, STR("body"))) {
        if (m->type != JSON_OBJECT || l->body.n)
            return refuse(e, param, "body", "must be one object");
        l->body = m->raw;
    } else {
        *param = "";
        return err_set(e, ERR_INVALID, "unknown field '%.*s' in an OpenAI batch line",
                       (int)(m->name.n < 64 ? m->name.n : 64), m->name.p);
    }
    return 0;
}

static int read_line(struct openai_line *l, struct str line, const char **param, struct err *e)
{
    struct json_members m;
    int rc;

    *l = (struct openai_line){.url = N_URLS};
    json_members_init(&m, line);
    while ((rc = json_members_next(&m, e)) > 0) {
        rc = take_line_member(l, &m, param, e);
        if (rc)
            break;
    }
    json_members_release(&m);
    if (rc)
        return rc;
    if (!l->custom_id.n)
        return refuse(e, param, "custom_id", "is missing");
    if (!l->has_method)
        return refuse(e, param, "method", "is missing");
    if (l->url == N_URLS)
        return refuse(e, param, "url", "is missing");
    if (!l->body.n)
        return refuse(e, param, "body", "is missing");
    return 0;
}

/* A body on its way to a job: what genq knows is appended to `job`, the rest to `options`. */
struct translation {
    struct buf job, options;
    struct {
        size_t at, n; /* of the quoted name in options */
    } names[ENGINE_FIELDS_MAX];
    size_t n_names;
};

static void put_member(struct buf *b, struct str name, struct str raw)
{
    if (b->n > 1)
        buf_addc(b, ',');
    json_put_str(b, name);
    buf_addc(b, ':');
    buf_adds(b, raw);
}

/* Adds an engine's field to the options, where each may stand once. */
static int put_option(struct translation *t, struct json_members *m, struct err *e)
{
    size_t start = t->options.n + (t->options.n > 1), n, i;

    if (t->n_names == ENGINE_FIELDS_MAX)
        return err_set(e, ERR_INVALID, "'body' has more than %d fields for the engine",
                       ENGINE_FIELDS_MAX);
    put_member(&t->options, m->name, m->raw);
    n = t->options.n - start - 1 - m->raw.n;
    for (i = 0; i < t->n_names; i++)
        if (t->names[i].n == n &&
            memcmp(t->options.p + t->names[i].at, t->options.p + start, n) == 0)
            return err_set(e, ERR_INVALID, "%.*s stands twice in 'body'", (int)(n < 64 ? n : 64),
                           t->options.p + start);
    t->names[t->n_names].at = start;
    t->names[t->n_names++].n = n;
    return 0;
}

static int put_options(struct translation *t, struct str raw, struct err *e)
{
    struct json_members m;
    int rc;

    json_members_init(&m, raw);
    while ((rc = json_members_next(&m, e)) > 0) {
        rc = put_option(t, &m, e);
        if (rc)
            break;
    }
    json_members_release(&m);
    return rc;
}

/* A prompt may be an array of one string; the brackets are taken off. */
static struct str unwrap(struct str raw)
{
    static const char space[] = " \t\r\n";

    for (raw.p++, raw.n -= 2; memchr(space, raw.p[0], 4); raw.p++)
        raw.n--;
    while (memchr(space, raw.p[raw.n - 1], 4))
        raw.n--;
    return raw;
}

static int put_body_member(struct translation *t, struct json_members *m, const char **param,
                           struct err *e)
{
    bool is_array = m->type == JSON_ARRAY;

    /* OpenAI's batches take no streams; a null asks for nothing. */
    if (str_eq(m->name, STR("stream")) || m->type == JSON_NULL)
        return 0;
    if (str_eq(m->name, STR("custom_id")))
        return refuse(e, param, "custom_id", "stands beside 'body', not in it");
    if (str_eq(m->name, STR("options")) && m->type == JSON_OBJECT)
        return put_options(t, m->raw, e);
    if (!job_knows(m->name))
        return put_option(t, m, e);
    if (is_array && str_eq(m->name, STR("prompt"))) {
        const struct json *prompts = json_members_value(m);

        if (json_count(prompts) != 1 || json_type(json_child(prompts)) != JSON_STRING)
            return refuse(e, param, "prompt", "must be one string: write a line for each");
        put_member(&t->job, m->name, unwrap(m->raw));
        return 0;
    }
    put_member(&t->job, m->name, m->raw);
    return 0;
}

static int put_body(struct translation *t, const struct openai_line *l, const char **param,
                    struct err *e)
{
    struct json_members m;
    int rc;

    buf_addc(&t->job, '{');
    buf_addc(&t->options, '{');
    put_member(&t->job, STR("custom_id"), l->custom_id);
    json_members_init(&m, l->body);
    while ((rc = json_members_next(&m, e)) > 0) {
        rc = put_body_member(t, &m, param, e);
        if (rc)
            break;
    }
    json_members_release(&m);
    buf_addc(&t->options, '}');
    if (!rc && t->n_names)
        put_member(&t->job, STR("options"), buf_str(&t->options));
    buf_addc(&t->job, '}');
    if (!rc && (t->job.is_over || t->options.is_over))
        rc = err_set(e, ERR_INTERNAL, "a job is longer than its batch line");
    return rc;
}

static int parse_openai(struct job *j, struct str line, const char **param, struct err *e)
{
    struct translation t = {.n_names = 0};
    struct openai_line l;
    int rc = read_line(&l, line, param, e);

    if (rc)
        return rc;
    /* Each byte of the line goes to one of both, and options into the job. */
    buf_init(&t.options, line.n + 2);
    buf_init(&t.job, line.n + 64);
    rc = put_body(&t, &l, param, e);
    if (!rc)
        rc = job_parse(j, buf_str(&t.job), false, param, e);
    buf_release(&t.job);
    buf_release(&t.options);
    if (rc)
        return rc;
    j->form = LINE_OPENAI;
    if (j->kind != urls[l.url].kind) {
        job_release(j);
        *param = urls[l.url].bodyz;
        return err_set(e, ERR_INVALID, "%s needs '%s'", urls[l.url].urlz, urls[l.url].bodyz);
    }
    return 0;
}

/* Whether the line has one of the members that only OpenAI's have. The search first: few lines of
 * other forms have these words in quotes, and those that have are walked. */
static bool is_openai(struct str line)
{
    struct json_members m;
    bool is_it = false;

    if (!line.p ||
        (!memmem(line.p, line.n, "\"body\"", 6) && !memmem(line.p, line.n, "\"method\"", 8)))
        return false;
    json_members_init(&m, line);
    while (!is_it && json_members_next(&m, NULL) > 0)
        is_it = str_eq(m.name, STR("body")) || str_eq(m.name, STR("method"));
    json_members_release(&m);
    return is_it;
}

int line_parse(struct job *j, struct str line, const char **param, struct err *e)
{
    const char *unused;

    param = param ? param : &unused;
    *param = "";
    return is_openai(line) ? parse_openai(j, line, param, e) : job_parse(j, line, false, param, e);
}

/* What a result line says, as source text of a completion. */
struct result {
    struct str id, custom_id, model; /* with their quotes */
    enum job_state state;
    int64_t finished_at;
    struct str output, error;
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    struct str text, message, embedding, finish_reason;
};

static void take_usage(struct result *r, const struct json *usage)
{
    json_int(json_get(usage, "prompt_tokens"), &r->prompt_tokens);
    json_int(json_get(usage, "completion_tokens"), &r->completion_tokens);
    json_int(json_get(usage, "cached_tokens"), &r->cached_tokens);
}

static void take_view_member(struct result *r, struct json_members *m)
{
    const struct {
        struct str name;
        struct str *raw;
    } raws[] = {
        {STR("id"), &r->id},         {STR("custom_id"), &r->custom_id}, {STR("model"), &r->model},
        {STR("output"), &r->output}, {STR("error"), &r->error},
    };
    size_t i;

    for (i = 0; i < sizeof raws / sizeof raws[0]; i++)
        if (str_eq(m->name, raws[i].name))
            *raws[i].raw = m->raw;
    if (str_eq(m->name, STR("status")))
        state_parse(json_members_str(m), &r->state);
    else if (str_eq(m->name, STR("finished_at")))
        json_members_int(m, &r->finished_at);
    else if (str_eq(m->name, STR("usage")))
        take_usage(r, json_members_value(m));
}

static void take_output_member(struct result *r, struct json_members *m)
{
    if (str_eq(m->name, STR("text")))
        r->text = m->raw;
    else if (str_eq(m->name, STR("message")))
        r->message = m->raw;
    else if (str_eq(m->name, STR("embedding")))
        r->embedding = m->raw;
    else if (str_eq(m->name, STR("finish_reason")))
        r->finish_reason = m->raw;
}

static int walk(struct result *r, struct str object,
                void (*take)(struct result *r, struct json_members *m))
{
    struct json_members m;
    int rc;

    json_members_init(&m, object);
    while ((rc = json_members_next(&m, NULL)) > 0)
        take(r, &m);
    json_members_release(&m);
    return rc;
}

static void put_usage(const struct result *r, bool is_embedding, struct buf *b)
{
    buf_addz(b, ",\"usage\":{");
    json_put_member_int(b, "prompt_tokens", r->prompt_tokens);
    buf_addc(b, ',');
    if (!is_embedding) {
        json_put_member_int(b, "completion_tokens", r->completion_tokens);
        buf_addc(b, ',');
    }
    json_put_member_int(b, "total_tokens", r->prompt_tokens + r->completion_tokens);
    if (r->cached_tokens && !is_embedding) {
        buf_addz(b, ",\"prompt_tokens_details\":{");
        json_put_member_int(b, "cached_tokens", r->cached_tokens);
        buf_addc(b, '}');
    }
    buf_addc(b, '}');
}

/* The end of the element that begins at p, of an array that is JSON. */
static const char *element_end(const char *p)
{
    int depth = 0;

    for (; depth || (*p != ',' && *p != ']'); p++) {
        if (*p == '"')
            for (p++; *p != '"'; p++)
                p += *p == '\\';
        else if (*p == '[' || *p == '{')
            depth++;
        else if (*p == ']' || *p == '}')
            depth--;
    }
    return p;
}

static void put_vector(struct buf *b, size_t index, struct str raw)
{
    buf_addz(b, index ? ",{\"object\":\"embedding\"," : "{\"object\":\"embedding\",");
    json_put_member_int(b, "index", (int64_t)index);
    buf_addc(b, ',');
    json_put_member_raw(b, "embedding", raw);
    buf_addc(b, '}');
}

/* One vector (an array of numbers, or base64), or an array of them. */
static void put_vectors(struct str raw, struct buf *b)
{
    const char *p = raw.p + 1, *end;
    size_t index = 0;

    while (memchr(" \t\r\n", *p, 4))
        p++;
    if (raw.p[0] != '[' || (*p != '[' && *p != '"')) {
        put_vector(b, 0, raw);
        return;
    }
    for (;; p = end + 1) {
        end = element_end(p);
        put_vector(b, index++, str_of(p, (size_t)(end - p)));
        if (*end == ']')
            return;
    }
}

static void put_embeddings(const struct result *r, struct buf *b)
{
    buf_addz(b, "{\"object\":\"list\",\"data\":[");
    put_vectors(r->embedding, b);
    buf_addz(b, "],");
    json_put_member_raw(b, "model", r->model);
    put_usage(r, true, b);
    buf_addc(b, '}');
}

static void put_choice(const struct result *r, struct buf *b)
{
    bool is_chat = r->message.n > 0;

    buf_addz(b, is_chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    buf_add(b, r->id.p + 1, r->id.n - 2);
    buf_addz(b,
             is_chat ? "\",\"object\":\"chat.completion\"," : "\",\"object\":\"text_completion\",");
    json_put_member_int(b, "created", r->finished_at / 1000);
    buf_addc(b, ',');
    json_put_member_raw(b, "model", r->model);
    buf_addz(b, ",\"choices\":[{\"index\":0,");
    if (is_chat)
        json_put_member_raw(b, "message", r->message);
    else
        json_put_member_raw(b, "text", r->text.n ? r->text : STR("\"\""));
    buf_addz(b, ",\"logprobs\":null,");
    json_put_member_raw(b, "finish_reason", r->finish_reason);
    buf_addz(b, "}]");
    put_usage(r, false, b);
    buf_addc(b, '}');
}

static void put_response(const struct result *r, struct buf *b)
{
    buf_addz(b, "{\"status_code\":200,");
    json_put_member_raw(b, "request_id", r->id);
    buf_addz(b, ",\"body\":");
    if (r->embedding.n)
        put_embeddings(r, b);
    else
        put_choice(r, b);
    buf_addc(b, '}');
}

static int put_openai(struct str view, struct buf *b)
{
    struct result r = {.state = STATE_NEW};

    if (walk(&r, view, take_view_member) || r.id.n < 3 || r.id.p[0] != '"' ||
        !state_is_terminal(r.state))
        return ERR_INVALID;
    if (r.state == STATE_SUCCEEDED && walk(&r, r.output, take_output_member))
        return ERR_INVALID;
    buf_addz(b, "{\"id\":\"batch_req_");
    buf_add(b, r.id.p + 1, r.id.n - 1);
    buf_addc(b, ',');
    json_put_member_raw(b, "custom_id", r.custom_id);
    buf_addz(b, ",\"response\":");
    if (r.state == STATE_SUCCEEDED)
        put_response(&r, b);
    else
        buf_addz(b, "null");
    buf_addc(b, ',');
    json_put_member_raw(b, "error", r.state == STATE_SUCCEEDED ? STR_NONE : r.error);
    buf_addc(b, '}');
    return b->is_over ? ERR_TOO_LARGE : 0;
}

int line_write_result(enum line_form form, struct str view, struct buf *b)
{
    return form == LINE_OPENAI ? put_openai(view, b) : buf_adds(b, view);
}
