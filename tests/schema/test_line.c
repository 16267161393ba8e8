#include "schema/completion.h"
#include "schema/line.h"
#include "tests/lib/test.h"
#include <stdio.h>

#define LINE(url, body) \
    "{\"custom_id\":\"r\\n1\",\"method\":\"POST\",\"url\":\"" url "\",\"body\":" body "}"
#define CHAT(body) LINE("/v1/chat/completions", body)
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static struct err last_err;
static const char *last_param;

static bool parses(struct job *j, const char *z)
{
    int rc = line_parse(j, str_z(z), &last_param, &last_err);

    if (rc)
        fprintf(stderr, "# %s: %s\n", last_param, last_err.msg);
    return rc == 0;
}

static bool refused(const char *z, const char *paramz, const char *whyz)
{
    struct job j;

    if (line_parse(&j, str_z(z), &last_param, &last_err) == 0) {
        job_release(&j);
        return false;
    }
    if (strcmp(last_param, paramz) != 0 || !strstr(last_err.msg, whyz))
        fprintf(stderr, "# param '%s', message: %s\n", last_param, last_err.msg);
    return strcmp(last_param, paramz) == 0 && strstr(last_err.msg, whyz);
}

TEST(lines_of_genq)
{
    struct job j;

    CHECK(parses(&j, "{\"prompt\":\"a\"}"));
    CHECK_INT(j.form, LINE_JOB);
    job_release(&j);
    CHECK(parses(&j, "{" HI ",\"metadata\":{\"body\":1,\"method\":2}}"));
    CHECK_INT(j.form, LINE_JOB);
    CHECK_INT(j.kind, JOB_CHAT);
    job_release(&j);
    CHECK(refused("{\"promt\":\"a\"}", "", "did you mean"));
    CHECK(refused("", "", "invalid JSON"));
    CHECK_INT(line_parse(&j, STR("x"), NULL, NULL), ERR_INVALID);
}

TEST(openai_chat)
{
    struct job j;

    CHECK(parses(&j, CHAT("{\"model\":\"m\"," HI ",\"max_tokens\":5,\"temperature\":0.50}")));
    CHECK_INT(j.form, LINE_OPENAI);
    CHECK_INT(j.kind, JOB_CHAT);
    CHECK_STR(j.custom_id, "r\n1");
    CHECK_STR(j.model, "m");
    CHECK_STR(j.body, "[{\"role\":\"user\",\"content\":\"hi\"}]");
    CHECK_STR(j.sampling[SAMPLING_MAX_TOKENS], "5");
    CHECK_STR(j.sampling[SAMPLING_TEMPERATURE], "0.50");
    CHECK(!j.options.n);
    job_release(&j);
}

TEST(openai_completion_and_embedding)
{
    struct job j;

    CHECK(parses(&j, LINE("/v1/completions", "{\"model\":\"m\",\"prompt\":\"a\"}")));
    CHECK_INT(j.kind, JOB_COMPLETION);
    CHECK_STR(j.body, "\"a\"");
    job_release(&j);
    CHECK(parses(&j, LINE("/v1/completions", "{\"model\":\"m\",\"prompt\":[ \"a\" ]}")));
    CHECK_STR(j.body, "\"a\"");
    job_release(&j);
    CHECK(parses(&j, LINE("/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}")));
    CHECK_INT(j.kind, JOB_EMBEDDING);
    job_release(&j);
    CHECK(refused(LINE("/v1/completions", "{\"prompt\":[\"a\",\"b\"]}"), "prompt", "one string"));
    CHECK(refused(LINE("/v1/completions", "{\"prompt\":[]}"), "prompt", "one string"));
    CHECK(refused(LINE("/v1/completions", "{\"prompt\":[1]}"), "prompt", "one string"));
}

TEST(engine_fields_go_into_options)
{
    struct job j;

    CHECK(parses(&j, CHAT("{" HI ",\"best_of\": 2.0,\"stream\":true,\"stream_options\":{},"
                          "\"options\":{\"num_ctx\" : 4096},\"sto\\\"re\":{\"a\":[1, 2]},"
                          "\"service_tier\":null,\"n\":1}")));
    CHECK_STR(j.options, "{\"best_of\":2.0,\"num_ctx\":4096,\"sto\\\"re\":{\"a\":[1, 2]}}");
    CHECK(!j.is_stream);
    job_release(&j);
    CHECK(refused(CHAT("{" HI ",\"x\":1,\"x\":2}"), "", "\"x\" stands twice"));
    CHECK(refused(CHAT("{" HI ",\"x\":1,\"options\":{\"x\":2}}"), "", "\"x\" stands twice"));
    CHECK(refused(CHAT("{" HI ",\"x\":1,\"\\u0078\":2}"), "", "\"x\" stands twice"));
    CHECK(refused(CHAT("{" HI ",\"options\":1}"), "options", "must be an object"));
    CHECK(refused(CHAT("{" HI ",\"n\":2}"), "n", "must be 1"));
    CHECK(refused(CHAT("{" HI ",\"model\":\"a\",\"model\":\"b\"}"), "model", "stands twice"));
}

TEST(too_many_engine_fields)
{
    struct job j;
    struct buf b;
    int n, i;

    buf_init(&b, 1 << 16);
    for (n = 64; n <= 65; n++) {
        buf_clear(&b);
        buf_addz(&b, "{\"custom_id\":\"r\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\","
                     "\"body\":{" HI);
        for (i = 0; i < n; i++)
            buf_addf(&b, ",\"f%d\":0", i);
        buf_addz(&b, "}}");
        if (n == 64) {
            CHECK(parses(&j, b.p));
            job_release(&j);
        } else {
            CHECK(refused(b.p, "", "more than 64 fields"));
        }
    }
    buf_release(&b);
}

TEST(openai_lines_that_are_refused)
{
    CHECK(refused("{\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{}}", "custom_id",
                  "is missing"));
    CHECK(refused("{\"custom_id\":\"\",\"method\":\"POST\"}", "custom_id", "not empty"));
    CHECK(refused("{\"custom_id\":5,\"method\":\"POST\"}", "custom_id", "one string"));
    CHECK(refused("{\"custom_id\":\"a\",\"method\":\"GET\"}", "method", "must be POST"));
    CHECK(refused("{\"custom_id\":\"a\",\"body\":{}}", "method", "is missing"));
    CHECK(refused("{\"custom_id\":\"a\",\"method\":\"POST\",\"body\":{}}", "url", "is missing"));
    CHECK(refused("{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\"}", "body",
                  "is missing"));
    CHECK(refused(LINE("/v1/images", "{}"), "url", "/v1/chat/completions"));
    CHECK(refused(LINE("/v1/embeddings", "[]"), "body", "one object"));
    CHECK(refused("{\"custom_id\":\"a\",\"method\":\"POST\",\"extra\":1}", "",
                  "unknown field 'extra'"));
    CHECK(refused(CHAT("{\"prompt\":\"a\"}"), "messages", "/v1/chat/completions needs 'messages'"));
    CHECK(refused(LINE("/v1/embeddings", "{" HI "}"), "input", "needs 'input'"));
    CHECK(refused(CHAT("{" HI ",\"custom_id\":\"x\"}"), "custom_id", "beside 'body'"));
    CHECK(refused(CHAT("{" HI ",\"temperature\":9}"), "temperature", "from 0 to 2"));
    CHECK(refused(CHAT("{}"), "", "is needed"));
}

TEST(an_openai_job_is_read_back_from_its_record)
{
    struct job j, k;
    struct buf b;

    buf_init(&b, 1 << 12);
    CHECK(parses(&j, CHAT("{" HI ",\"store\":true}")));
    CHECK_INT(job_write(&j, &b), 0);
    CHECK_INT(job_parse(&k, buf_str(&b), true, NULL, NULL), 0);
    CHECK_INT(k.form, LINE_OPENAI);
    CHECK_STR(k.options, "{\"store\":true}");
    job_release(&j);
    job_release(&k);
    buf_release(&b);
}

/* The output line of the job of LINE(...) that ended as c says. */
static struct str result(const struct completion *c, enum line_form form, struct buf *b)
{
    struct job_defaults d = {.model = STR("m"), .id = STR("i"), .batch_line = 0, .wall_ms = 1};
    struct job j;
    struct buf view;

    buf_init(&view, 1 << 16);
    buf_clear(b);
    CHECK(parses(&j, CHAT("{" HI "}")));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    CHECK_INT(completion_write(&j, c, &view), 0);
    CHECK_INT(line_write_result(form, buf_str(&view), b), 0);
    if (form == LINE_JOB)
        CHECK(str_eq(buf_str(b), buf_str(&view)));
    job_release(&j);
    buf_release(&view);
    return buf_str(b);
}

static struct completion succeeded(void)
{
    return (struct completion){.state = STATE_SUCCEEDED,
                               .finished_at = 5000,
                               .reason = REASON_NONE,
                               .text = STR("hi"),
                               .finish_reason = STR("stop"),
                               .usage = {3, 4, 0},
                               .queue_ms = -1,
                               .engine_ms = -1,
                               .first_token_ms = -1,
                               .total_ms = -1};
}

TEST(results)
{
    struct completion c = succeeded();
    struct buf b;

    buf_init(&b, 1 << 16);
    result(&c, LINE_JOB, &b);
    CHECK_STR(
        result(&c, LINE_OPENAI, &b),
        "{\"id\":\"batch_req_i\",\"custom_id\":\"r\\n1\",\"response\":{\"status_code\":200,"
        "\"request_id\":\"i\",\"body\":{\"id\":\"cmpl-i\",\"object\":\"text_completion\","
        "\"created\":5,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"hi\",\"logprobs\":"
        "null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,"
        "\"completion_tokens\":4,\"total_tokens\":7}}},\"error\":null}");
    c.message = STR("{\"role\":\"assistant\",\"content\":\"hi\"}");
    c.usage.cached_tokens = 2;
    CHECK_STR(result(&c, LINE_OPENAI, &b),
              "{\"id\":\"batch_req_i\",\"custom_id\":\"r\\n1\",\"response\":{\"status_code\":200,"
              "\"request_id\":\"i\",\"body\":{\"id\":\"chatcmpl-i\",\"object\":\"chat.completion\","
              "\"created\":5,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
              "\"assistant\",\"content\":\"hi\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
              "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,"
              "\"prompt_tokens_details\":{\"cached_tokens\":2}}}},\"error\":null}");
    buf_release(&b);
}

static struct str vectors(const char *embeddingz, struct buf *b)
{
    struct completion c = succeeded();
    const char *start, *end;

    c.embedding = str_z(embeddingz);
    result(&c, LINE_OPENAI, b);
    start = strstr(b->p, "\"data\":");
    end = strstr(b->p, ",\"model\"");
    CHECK(start && end);
    CHECK(strstr(b->p, "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":7}"));
    return str_of(start + 7, (size_t)(end - start - 7));
}

TEST(embeddings)
{
    struct buf b;

    buf_init(&b, 1 << 16);
    CHECK_STR(vectors("[0.1, 2]", &b),
              "[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.1, 2]}]");
    CHECK_STR(vectors("[ [1,2],[3] ]", &b),
              "[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
              "[1,2]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[3] }]");
    CHECK_STR(vectors("\"AAA=\"", &b),
              "[{\"object\":\"embedding\",\"index\":0,\"embedding\":\"AAA=\"}]");
    CHECK_STR(
        vectors("[\"A]\\\"\",\"B\"]", &b),
        "[{\"object\":\"embedding\",\"index\":0,"
        "\"embedding\":\"A]\\\"\"},{\"object\":\"embedding\",\"index\":1,\"embedding\":\"B\"}]");
    CHECK_STR(vectors("[]", &b), "[{\"object\":\"embedding\",\"index\":0,\"embedding\":[]}]");
    buf_release(&b);
}

TEST(failures)
{
    struct completion c = succeeded();
    struct buf b;

    buf_init(&b, 1 << 16);
    c.state = STATE_FAILED;
    c.reason = REASON_ENGINE_ERROR;
    c.error_message = STR("no");
    CHECK_STR(result(&c, LINE_OPENAI, &b),
              "{\"id\":\"batch_req_i\",\"custom_id\":\"r\\n1\",\"response\":null,\"error\":{"
              "\"code\":\"engine_error\",\"message\":\"no\"}}");
    buf_clear(&b);
    CHECK_INT(line_write_result(LINE_OPENAI, STR("{\"id\":\"i\",\"status\":\"queued\"}"), &b),
              ERR_INVALID);
    CHECK_INT(line_write_result(LINE_OPENAI, STR("{\"id\":1,\"status\":\"failed\"}"), &b),
              ERR_INVALID);
    CHECK_INT(line_write_result(LINE_OPENAI, STR("x"), &b), ERR_INVALID);
    CHECK_INT(line_write_result(LINE_OPENAI, STR("{\"id\":\"i\",\"status\":\"succeeded\"}"), &b),
              ERR_INVALID);
    CHECK_INT(b.n, 0);
    buf_release(&b);
}
