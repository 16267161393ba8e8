/* The engine drivers on replies recorded from real engines (replies/), whole and in pieces. */
#include "base/file.h"
#include "base/json.h"
#include "tests/lib/test.h"
#include "worker/engine.h"
#include <stdio.h>

#define MAX_BYTES ((size_t)1 << 20)

struct expectation {
    const char *filez;
    enum engine_api api;
    enum job_kind kind;
    int status;
    enum engine_class want;
    const char *textz;   /* start of the text; NULL: not looked at */
    int64_t prompt_tokens, completion_tokens;
    const char *reasonz; /* finish reason */
    const char *errorz;  /* part of the error */
};

#define OLLAMA ENGINE_API_OLLAMA
#define OPENAI ENGINE_API_OPENAI

static const struct expectation expectations[] = {
    {"ollama-0.34.2/generate.json", OLLAMA, JOB_COMPLETION, 200, ENGINE_OK, ", there was a", 5, 32, "length", NULL},
    {"ollama-0.34.2/generate_stream.ndjson", OLLAMA, JOB_COMPLETION, 200, ENGINE_OK, ", there was a", 5, 8, "length", NULL},
    {"ollama-0.34.2/generate_stop.json", OLLAMA, JOB_COMPLETION, 200, ENGINE_OK, ", there was a", 5, 417, "stop", NULL},
    {"ollama-0.34.2/generate_load_only.json", OLLAMA, JOB_COMPLETION, 200, ENGINE_OK, "", 0, 0, "load", NULL},
    {"ollama-0.34.2/chat.json", OLLAMA, JOB_CHAT, 200, ENGINE_OK, ", ", -1, -1, NULL, NULL},
    {"ollama-0.34.2/chat_stream.ndjson", OLLAMA, JOB_CHAT, 200, ENGINE_OK, ", there was", -1, 4, "length", NULL},
    {"ollama-0.11.4/generate_format_json.json", OLLAMA, JOB_COMPLETION, 200, ENGINE_TRANSIENT, NULL, 0, 0, NULL, "before it was done"},
    {"ollama-0.34.2/err_queue_full.json", OLLAMA, JOB_COMPLETION, 503, ENGINE_OVERLOADED, NULL, 0, 0, NULL, "server busy"},
    {"ollama-0.34.2/err_generate_unknown_model.json", OLLAMA, JOB_COMPLETION, 404, ENGINE_NO_MODEL, NULL, 0, 0, NULL, "not found"},
    {"ollama-0.34.2/err_generate_wrong_type.json", OLLAMA, JOB_COMPLETION, 400, ENGINE_INVALID, NULL, 0, 0, NULL, "unmarshal"},
    {"ollama-0.34.2/err_runner_died.json", OLLAMA, JOB_COMPLETION, 500, ENGINE_TRANSIENT, NULL, 0, 0, NULL, "unexpected EOF"},
    {"ollama-0.34.2/err_runner_died_stream.ndjson", OLLAMA, JOB_COMPLETION, 200, ENGINE_TRANSIENT, NULL, -1, -1, NULL, "unexpected EOF"},
    {"ollama-0.34.2/err_server_stopped_stream.ndjson", OLLAMA, JOB_COMPLETION, 200, ENGINE_TRANSIENT, NULL, -1, -1, NULL, NULL},
    {"ollama-0.34.2/err_host_header.txt", OLLAMA, JOB_COMPLETION, 403, ENGINE_DENIED, NULL, 0, 0, NULL, "no text"},
    {"ollama-0.34.2/err_method.txt", OLLAMA, JOB_COMPLETION, 405, ENGINE_INVALID, NULL, 0, 0, NULL, "405"},
    {"ollama-0.34.2/v1_chat.json", OPENAI, JOB_CHAT, 200, ENGINE_OK, ", ", -1, -1, NULL, NULL},
    {"ollama-0.34.2/v1_chat_stream_usage.sse", OPENAI, JOB_CHAT, 200, ENGINE_OK, ", there", -1, -1, NULL, NULL},
    {"ollama-0.34.2/v1_completions_stream_usage.sse", OPENAI, JOB_COMPLETION, 200, ENGINE_OK, ", there", 5, -1, NULL, NULL},
    {"ollama-0.34.2/err_v1_runner_died_stream.sse", OPENAI, JOB_CHAT, 200, ENGINE_TRANSIENT, NULL, -1, -1, NULL, "before it was done"},
    {"ollama-0.34.2/err_v1_queue_full.json", OPENAI, JOB_CHAT, 503, ENGINE_OVERLOADED, NULL, 0, 0, NULL, "server busy"},
    {"ollama-0.34.2/err_v1_chat_unknown_model.json", OPENAI, JOB_CHAT, 404, ENGINE_NO_MODEL, NULL, 0, 0, NULL, "not found"},
    {"ollama-0.11.4/v1_embeddings.json", OPENAI, JOB_EMBEDDING, 200, ENGINE_OK, NULL, -1, 0, NULL, NULL},
    {"ollama-0.11.4/embed.json", OLLAMA, JOB_EMBEDDING, 200, ENGINE_OK, NULL, -1, 0, NULL, NULL},
    {"ollama-0.11.4/err_runner_died_stream.ndjson", OLLAMA, JOB_COMPLETION, 200, ENGINE_TRANSIENT, NULL, -1, -1, NULL, NULL},
    {"llama-server-b11434/v1_chat.json", OPENAI, JOB_CHAT, 200, ENGINE_OK, NULL, -1, -1, NULL, NULL},
    {"llama-server-b11434/v1_chat_stream.sse", OPENAI, JOB_CHAT, 200, ENGINE_OK, ", there", 0, 0, "length", NULL},
    {"llama-server-b11434/v1_chat_stream_usage.sse", OPENAI, JOB_CHAT, 200, ENGINE_OK, ", there", -1, -1, "length", NULL},
    {"llama-server-b11434/v1_completions.json", OPENAI, JOB_COMPLETION, 200, ENGINE_OK, ", there", -1, -1, "length", NULL},
    {"llama-server-b11434/v1_completions_stream_usage.sse", OPENAI, JOB_COMPLETION, 200, ENGINE_OK, ", there", 5, 4, "length", NULL},
    {"llama-server-b11434/v1_embeddings.json", OPENAI, JOB_EMBEDDING, 200, ENGINE_OK, NULL, 9, 0, NULL, NULL},
    {"llama-server-b11434/err_health_loading.json", OPENAI, JOB_CHAT, 503, ENGINE_OVERLOADED, NULL, 0, 0, NULL, "Loading model"},
    {"llama-server-b11434/err_v1_completions_prompt_too_long.json", OPENAI, JOB_COMPLETION, 400, ENGINE_INVALID, NULL, 0, 0, NULL, "context"},
    {"llama-server-b11434/err_api_key.json", OPENAI, JOB_CHAT, 401, ENGINE_DENIED, NULL, 0, 0, NULL, "API Key"},
    {"llama-server-b11434/err_v1_embeddings_disabled.json", OPENAI, JOB_EMBEDDING, 501, ENGINE_INVALID, NULL, 0, 0, NULL, "embeddings"},
    {"llama-server-b11434/err_server_killed_stream.sse", OPENAI, JOB_CHAT, 200, ENGINE_TRANSIENT, NULL, -1, -1, NULL, NULL},
    {"llama-cpp-python-0.3.36/v1_chat.json", OPENAI, JOB_CHAT, 200, ENGINE_OK, NULL, -1, -1, NULL, NULL},
    {"llama-cpp-python-0.3.36/v1_chat_stream_usage.sse", OPENAI, JOB_CHAT, 200, ENGINE_OK, NULL, 0, 0, NULL, NULL},
    {"llama-cpp-python-0.3.36/err_v1_completions_wrong_type.json", OPENAI, JOB_COMPLETION, 500, ENGINE_TRANSIENT, NULL, 0, 0, NULL, NULL},
    {"llama-cpp-python-0.3.36/err_v1_chat_bad_json.txt", OPENAI, JOB_CHAT, 500, ENGINE_TRANSIENT, NULL, 0, 0, NULL, "Internal Server Error"},
};

static void load(const char *filez, struct buf *b)
{
    char path[1024];
    struct err e;

    buf_init(b, MAX_BYTES);
    snprintf(path, sizeof path, "%s/tests/worker/replies/%s", SOURCE_DIR, filez);
    CHECK_INT(file_read(path, b, &e), 0);
}

/* Reads a recorded reply in pieces of `step` bytes. */
static enum engine_class play(const struct expectation *x, size_t step, struct engine_reply *r,
                              struct buf *delta)
{
    const struct engine_ops *ops = engine_by_api(x->api);
    struct buf b;
    enum engine_class got;
    int rc = 0;

    load(x->filez, &b);
    engine_reply_init(r, x->kind, strstr(x->filez, "stream") != NULL, MAX_BYTES);
    for (size_t at = 0; x->status == 200 && rc == 0 && at < b.n; at += step)
        rc = ops->feed(r, str_of(b.p + at, b.n - at < step ? b.n - at : step), delta);
    got = rc < 0 ? ENGINE_TRANSIENT : ops->end(r, x->status, x->status == 200 ? STR_NONE : buf_str(&b));
    buf_release(&b);
    return got;
}

static void hold(const struct expectation *x, size_t step)
{
    struct engine_reply r;
    struct buf delta;

    buf_init(&delta, MAX_BYTES);
    enum engine_class got = play(x, step, &r, &delta);
    if (got != x->want)
        fprintf(stderr, "%s in pieces of %zu: %s\n", x->filez, step, r.error);
    CHECK_INT(got, x->want);
    if (x->textz)
        CHECK(str_starts(buf_str(&r.text), str_z(x->textz)));
    if (x->prompt_tokens >= 0)
        CHECK_INT(r.usage.prompt_tokens, x->prompt_tokens);
    if (x->completion_tokens >= 0)
        CHECK_INT(r.usage.completion_tokens, x->completion_tokens);
    if (x->reasonz)
        CHECK_STR(str_z(r.finish_reason), x->reasonz);
    if (x->errorz)
        CHECK(strstr(r.error, x->errorz) != NULL);
    if (got == ENGINE_OK && r.is_stream)
        CHECK(str_eq(buf_str(&delta), buf_str(&r.text)));
    if (got == ENGINE_OK && x->kind == JOB_CHAT) {
        struct json *j = json_parse(buf_str(&r.message), NULL);

        CHECK(str_eq(json_str(json_get(j, "content")), buf_str(&r.text)));
        json_free(j);
    }
    if (got == ENGINE_OK && x->kind == JOB_EMBEDDING) {
        struct json *j = json_parse(buf_str(&r.embedding), NULL);

        bool is_several = json_type(json_child(j)) == JSON_ARRAY;

        CHECK_INT(json_count(is_several ? json_child(j) : j), 64);
        json_free(j);
    }
    engine_reply_release(&r);
    buf_release(&delta);
}

TEST(recorded_replies)
{
    for (size_t i = 0; i < sizeof expectations / sizeof expectations[0]; i++) {
        hold(&expectations[i], MAX_BYTES);
        hold(&expectations[i], 1);
        hold(&expectations[i], 7);
    }
}

static void check_request(enum engine_api api, const char *jobz, const char *pathz, const char *bodyz)
{
    struct engine_request request;
    struct job j;
    struct err e;

    CHECK_INT(job_parse(&j, str_z(jobz), false, NULL, &e), 0);
    CHECK_INT(engine_by_api(api)->build(&j, STR("m"), false, &request, &e), 0);
    CHECK_STR(str_z(request.pathz), pathz);
    CHECK_STR(buf_str(&request.body), bodyz);
    buf_release(&request.body);
    job_release(&j);
}

TEST(ollama_requests)
{
    check_request(OLLAMA, "{\"model\":\"m\",\"prompt\":\"a\\\"b\"}", "/api/generate",
                  "{\"model\":\"m\",\"prompt\":\"a\\\"b\",\"stream\":false,\"options\":{}}");
    check_request(OLLAMA,
                  "{\"prompt\":\"a\",\"max_tokens\":5,\"temperature\":0,\"stop\":\"x\",\"seed\":12345678901234}",
                  "/api/generate",
                  "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":false,\"options\":{\"num_predict\":5,"
                  "\"temperature\":0,\"seed\":12345678901234,\"stop\":[\"x\"]}}");
    check_request(OLLAMA,
                  "{\"prompt\":\"a\",\"temperature\":1,\"options\":{\"temperature\":0.5,\"num_ctx\":64,\"think\":false}}",
                  "/api/generate",
                  "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":false,\"think\":false,"
                  "\"options\":{\"temperature\":0.5,\"num_ctx\":64}}");
    check_request(OLLAMA,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"response_format\":{\"type\":"
                  "\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":\"object\"}}}}",
                  "/api/chat",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":false,"
                  "\"format\":{\"type\":\"object\"},\"options\":{}}");
    check_request(OLLAMA, "{\"input\":[\"a\",\"b\"],\"dimensions\":8}", "/api/embed",
                  "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"dimensions\":8,\"options\":{}}");
}

TEST(ollama_messages_from_parts)
{
    check_request(OLLAMA,
                  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"},"
                  "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,QUJD\"}}]},"
                  "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":"
                  "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]}]}",
                  "/api/chat",
                  "{\"model\":\"m\",\"messages\":[{\"content\":\"see\",\"images\":[\"QUJD\"],\"role\":\"user\"},"
                  "{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}],"
                  "\"role\":\"assistant\"}],\"stream\":false,\"options\":{}}");
}

TEST(ollama_refuses_images_by_url)
{
    struct engine_request request;
    struct job j;
    struct err e;

    CHECK_INT(job_parse(&j,
                        STR("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
                            "\"image_url\":{\"url\":\"http://x/y.png\"}}]}]}"),
                        false, NULL, &e),
              0);
    CHECK_INT(engine_by_api(OLLAMA)->build(&j, STR("m"), false, &request, &e), ERR_INVALID);
    CHECK(strstr(e.msg, "data: URLs only") != NULL);
    buf_release(&request.body);
    job_release(&j);
}

TEST(openai_requests)
{
    check_request(OPENAI, "{\"prompt\":\"a\",\"max_tokens\":5,\"top_k\":3}", "/v1/completions",
                  "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":false,\"max_tokens\":5,\"top_k\":3}");
    check_request(OPENAI,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"options\":{\"guided\":{\"a\":1.0}}}",
                  "/v1/chat/completions",
                  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":false,"
                  "\"guided\":{\"a\":1.0}}");
    check_request(OPENAI, "{\"input\":\"a\"}", "/v1/embeddings", "{\"model\":\"m\",\"input\":\"a\"}");
}

TEST(openai_streamed_tool_calls)
{
    static const char stream[] =
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":\"function\","
        "\"function\":{\"name\":\"get\",\"arguments\":\"\"}}]}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\"}}]}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"c2\",\"type\":\"function\","
        "\"function\":{\"name\":\"put\",\"arguments\":\"{}\"}}]}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}}]}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n";
    const struct engine_ops *ops = engine_by_api(OPENAI);
    struct engine_reply r;

    engine_reply_init(&r, JOB_CHAT, true, MAX_BYTES);
    CHECK_INT(ops->feed(&r, str_z(stream), NULL), 0);
    CHECK_INT(ops->end(&r, 200, STR_NONE), ENGINE_OK);
    CHECK_STR(buf_str(&r.message),
              "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\","
              "\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"c2\",\"type\":"
              "\"function\",\"function\":{\"name\":\"put\",\"arguments\":\"{}\"}}]}");
    engine_reply_release(&r);
}

TEST(openai_keeps_message_and_logprobs)
{
    const struct engine_ops *ops = engine_by_api(OPENAI);
    struct engine_reply r;

    engine_reply_init(&r, JOB_CHAT, false, MAX_BYTES);
    CHECK_INT(ops->feed(&r,
                        STR("{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"x\","
                            "\"reasoning_content\":\"why\"},\"logprobs\":{\"content\":[{\"logprob\":-0.25}]},"
                            "\"finish_reason\":\"stop\"}]}"),
                        NULL),
              0);
    CHECK_INT(ops->end(&r, 200, STR_NONE), ENGINE_OK);
    CHECK_STR(buf_str(&r.message), "{\"role\":\"assistant\",\"content\":\"x\",\"reasoning_content\":\"why\","
                                   "\"logprobs\":{\"content\":[{\"logprob\":-0.25}]}}");
    engine_reply_release(&r);
}

TEST(garbage_is_transient)
{
    static const char *const texts[] = {"", "{", "[]", "null", "not json", "{\"done\":false}", "{\"choices\":[]}"};

    for (int api = ENGINE_API_OLLAMA; api <= ENGINE_API_OPENAI; api++) {
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            const struct engine_ops *ops = engine_by_api((enum engine_api)api);
            struct engine_reply r;

            engine_reply_init(&r, JOB_CHAT, false, MAX_BYTES);
            ops->feed(&r, str_z(texts[i]), NULL);
            CHECK_INT(ops->end(&r, 200, STR_NONE), ENGINE_TRANSIENT);
            engine_reply_release(&r);
        }
    }
}

static void check_models(enum engine_api api, const char *filez, const char *wantz)
{
    struct buf b, names;
    struct err e;

    load(filez, &b);
    buf_init(&names, MAX_BYTES);
    CHECK_INT(engine_by_api(api)->read_models(buf_str(&b), &names, &e), 0);
    CHECK_STR(str_z(names.p), wantz);
    CHECK(engine_by_api(api)->read_models(STR("{}"), &names, &e) < 0);
    CHECK(engine_by_api(api)->read_models(STR("nonsense"), &names, &e) < 0);
    buf_release(&b);
    buf_release(&names);
}

TEST(models_and_slots)
{
    struct buf b;

    check_models(OLLAMA, "ollama-0.34.2/tags.json", "stories260k:latest");
    check_models(OPENAI, "llama-server-b11434/v1_models.json", "stories260k");
    load("llama-server-b11434/props.json", &b);
    CHECK_INT(engine_by_api(OPENAI)->read_slots(buf_str(&b)), 4);
    CHECK_INT(engine_by_api(OPENAI)->read_slots(STR("{}")), 0);
    CHECK_INT(engine_by_api(OPENAI)->read_slots(STR("<html>")), 0);
    buf_release(&b);
}
