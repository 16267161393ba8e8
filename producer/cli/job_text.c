#include "producer/cli/job_text.h"
#include "base/clock.h"
#include "producer/cli/progress.h"
#include "producer/cli/table.h"
#include "schema/state.h"

static enum job_state state_of(const struct json *job)
{
    enum job_state s;

    return state_parse(json_str(json_get(job, "status")), &s) ? s : STATE_NEW;
}

bool job_text_is_ended(const struct json *job)
{
    enum job_state s = state_of(job);

    return s != STATE_NEW && state_is_terminal(s);
}

bool job_text_is_succeeded(const struct json *job)
{
    return state_of(job) == STATE_SUCCEEDED;
}

void job_text_duration(struct buf *b, int64_t ms)
{
    if (ms < 1000)
        buf_addf(b, "%lld ms", (long long)ms);
    else if (ms < 60000)
        buf_addf(b, "%.1f s", (double)ms / 1000);
    else
        progress_put_time(b, ms);
}

void job_text_error(struct buf *b, const struct json *job)
{
    const struct json *error = json_get(job, "error");
    struct str code = json_str(json_get(error, "code"));
    struct str text = json_str(json_get(error, "message"));

    table_put_clean(b, code);
    if (code.n > 0 && text.n > 0)
        buf_addz(b, ": ");
    table_put_clean(b, text);
}

void job_text_line(struct buf *b, const struct json *job)
{
    int64_t tokens, ms;

    table_put_clean(b, json_str(json_get(job, "id")));
    buf_addz(b, "  ");
    table_put_clean(b, json_str(json_get(job, "status")));
    buf_addz(b, "  ");
    table_put_clean(b, json_str(json_get(job, "model")));
    if (json_get(json_get(job, "error"), "code")) {
        buf_addz(b, "  ");
        job_text_error(b, job);
    } else if (json_int(json_get(json_get(job, "usage"), "total_tokens"), &tokens)) {
        buf_addf(b, "  %lld tokens", (long long)tokens);
    }
    if (json_int(json_get(json_get(job, "timing"), "total_ms"), &ms)) {
        buf_addz(b, "  ");
        job_text_duration(b, ms);
    }
    buf_addc(b, '\n');
}

void job_text_output(struct buf *b, const struct json *job)
{
    static const char *const others[] = {"json", "message", "embedding"};
    const struct json *output = json_get(job, "output"), *other = NULL;
    struct str text = json_str(json_get(output, "text"));
    size_t i;

    if (text.n > 0) {
        buf_adds(b, text);
    } else {
        for (i = 0; i < sizeof others / sizeof others[0] && !other; i++) {
            other = json_get(output, others[i]);
            if (other && json_type(other) == JSON_NULL)
                other = NULL;
        }
        if (other)
            json_print(other, b);
    }
    if (b->n > 0 && b->p[b->n - 1] != '\n')
        buf_addc(b, '\n');
}

/* ---- details ---- */

static void put_label(struct buf *b, const char *labelz)
{
    buf_addf(b, "%-9s ", labelz);
}

static void put_text(struct buf *b, const struct json *job, const char *labelz, const char *namez)
{
    struct str s = json_str(json_get(job, namez));

    if (s.n == 0)
        return;
    put_label(b, labelz);
    table_put_clean(b, s);
    buf_addc(b, '\n');
}

static void put_time(struct buf *b, const struct json *job, const char *labelz, const char *namez)
{
    char text[32];
    int64_t ms;

    if (!json_int(json_get(job, namez), &ms))
        return;
    clock_format_rfc3339(ms, text);
    put_label(b, labelz);
    buf_addf(b, "%s\n", text);
}

static void put_status(struct buf *b, const struct json *job)
{
    struct str node = json_str(json_get(job, "node"));
    int64_t attempts = 0;

    put_label(b, "status");
    table_put_clean(b, json_str(json_get(job, "status")));
    if (json_int(json_get(job, "attempts"), &attempts) && attempts > 1)
        buf_addf(b, ", attempt %lld", (long long)attempts);
    if (node.n > 0) {
        buf_addz(b, ", node ");
        table_put_clean(b, node);
    }
    if (json_is_true(json_get(job, "cached")))
        buf_addz(b, ", from the result cache");
    buf_addc(b, '\n');
}

static void put_part(struct buf *b, const struct json *timing, const char *namez,
                     const char *labelz, const char **sepz)
{
    int64_t ms;

    if (!json_int(json_get(timing, namez), &ms))
        return;
    buf_addz(b, *sepz);
    job_text_duration(b, ms);
    buf_addf(b, " %s", labelz);
    *sepz = ", ";
}

static void put_timing(struct buf *b, const struct json *job)
{
    const struct json *timing = json_get(job, "timing");
    const char *sepz = "";
    int64_t ms;

    if (!json_int(json_get(timing, "total_ms"), &ms))
        return;
    put_label(b, "time");
    put_part(b, timing, "total_ms", "in all", &sepz);
    put_part(b, timing, "queue_ms", "queued", &sepz);
    put_part(b, timing, "engine_ms", "in the engine", &sepz);
    put_part(b, timing, "first_token_ms", "to the first token", &sepz);
    buf_addc(b, '\n');
}

static void put_usage(struct buf *b, const struct json *job)
{
    const struct json *usage = json_get(job, "usage");
    int64_t prompt, completion;

    if (!json_int(json_get(usage, "prompt_tokens"), &prompt) ||
        !json_int(json_get(usage, "completion_tokens"), &completion))
        return;
    put_label(b, "tokens");
    buf_addf(b, "%lld prompt, %lld completion\n", (long long)prompt, (long long)completion);
}

void job_text_details(struct buf *b, const struct json *job)
{
    struct buf output;

    put_text(b, job, "id", "id");
    put_status(b, job);
    put_text(b, job, "model", "model");
    put_text(b, job, "priority", "priority");
    put_text(b, job, "batch", "batch_id");
    put_text(b, job, "custom_id", "custom_id");
    put_text(b, job, "redrives", "redrive_of");
    put_time(b, job, "created", "created_at");
    put_time(b, job, "ended", "finished_at");
    put_timing(b, job);
    put_usage(b, job);
    if (json_str(json_get(json_get(job, "error"), "code")).n > 0) {
        put_label(b, "error");
        job_text_error(b, job);
        buf_addc(b, '\n');
    }
    buf_init(&output, b->max);
    job_text_output(&output, job);
    if (output.n > 0) {
        buf_addc(b, '\n');
        buf_adds(b, buf_str(&output));
    }
    buf_release(&output);
}
