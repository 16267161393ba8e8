#include "producer/cli/batch_text.h"
#include "base/clock.h"
#include "producer/cli/job_text.h"
#include "producer/cli/progress.h"
#include "producer/cli/table.h"
#include <stdio.h>
#include <time.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 20)
enum { POLL_MS = 500, LOOK_MS = 5000, PATH_MAX_BYTES = 16384 };

static int64_t int_of(const struct json *j, const char *namez)
{
    int64_t v = 0;

    json_int(json_get(j, namez), &v);
    return v;
}

void batch_text_counts(const struct json *batch, struct batch_counts *n)
{
    const struct json *counts = json_get(batch, "counts");
    struct str status = json_str(json_get(batch, "status"));

    n->total = int_of(batch, "total");
    n->queued = int_of(counts, "queued");
    n->succeeded = int_of(counts, "succeeded");
    n->failed = int_of(counts, "failed");
    n->cancelled = int_of(counts, "cancelled");
    n->expired = int_of(counts, "expired");
    n->tokens = int_of(json_get(batch, "usage"), "total_tokens");
    n->is_ended = str_eqz(status, "done") || (str_eqz(status, "cancelled") && n->queued == 0);
}

int64_t batch_text_n_bad(const struct batch_counts *n)
{
    return n->failed + n->cancelled + n->expired;
}

/* ---- details ---- */

static void put_count(struct buf *b, int64_t n, const char *labelz, const char **sepz)
{
    if (n == 0)
        return;
    buf_addf(b, "%s%lld %s", *sepz, (long long)n, labelz);
    *sepz = ", ";
}

static void put_jobs(struct buf *b, const struct batch_counts *n)
{
    const char *sepz = ": ";

    buf_addf(b, "jobs      %lld", (long long)n->total);
    put_count(b, n->queued, "to do", &sepz);
    put_count(b, n->succeeded, "succeeded", &sepz);
    put_count(b, n->failed, "failed", &sepz);
    put_count(b, n->cancelled, "cancelled", &sepz);
    put_count(b, n->expired, "expired", &sepz);
    buf_addc(b, '\n');
}

static void put_time(struct buf *b, const struct json *batch, const char *labelz,
                     const char *namez)
{
    char text[32];
    int64_t ms;

    if (!json_int(json_get(batch, namez), &ms))
        return;
    clock_format_rfc3339(ms, text);
    buf_addf(b, "%-9s %s\n", labelz, text);
}

void batch_text_details(struct buf *b, const struct json *batch)
{
    const struct json *usage = json_get(batch, "usage");
    struct batch_counts n;
    double cost = 0;
    int64_t eta;

    batch_text_counts(batch, &n);
    buf_addz(b, "id        ");
    table_put_clean(b, json_str(json_get(batch, "id")));
    buf_addz(b, "\nstatus    ");
    table_put_clean(b, json_str(json_get(batch, "status")));
    buf_addc(b, '\n');
    put_jobs(b, &n);
    if (n.tokens > 0)
        buf_addf(b, "tokens    %lld prompt, %lld completion\n",
                 (long long)int_of(usage, "prompt_tokens"),
                 (long long)int_of(usage, "completion_tokens"));
    if (json_num(json_get(batch, "cost"), &cost) && cost > 0)
        buf_addf(b, "cost      %.6g\n", cost);
    put_time(b, batch, "created", "created_at");
    put_time(b, batch, "ended", "finished_at");
    if (json_int(json_get(batch, "eta_ms"), &eta) && n.queued > 0) {
        buf_addz(b, "ETA       ");
        progress_put_time(b, eta);
        buf_addc(b, '\n');
    }
}

void batch_print(const struct cli *c, const struct json *batch, struct str text)
{
    struct buf b;

    if (c->is_json) {
        printf("%.*s\n", STR_ARG(text));
        return;
    }
    buf_init(&b, ANSWER_MAX_BYTES);
    batch_text_details(&b, batch);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
}

/* ---- one call ---- */

int batch_call(const struct cli *c, const char *methodz, int64_t limit_ms, struct buf *text,
               struct json **batch)
{
    struct buf path;
    int status, code = EXIT_NO_SERVER;

    *batch = NULL;
    buf_init(&path, PATH_MAX_BYTES);
    follow_put_path(&path, "batches", c->args[0]);
    follow_put_query(&path, "tenant", cli_get(c, "--tenant"));
    status = cli_call(c, methodz, path.p, STR_NONE, NULL, limit_ms, text);
    if (status >= 200 && status <= 299) {
        *batch = json_parse(buf_str(text), NULL);
        code = EXIT_WELL;
    } else if (status > 0) {
        code = cli_print_error(status, buf_str(text));
    }
    buf_release(&path);
    return code;
}

int batch_call_and_print(const struct cli *c, const char *methodz, int64_t limit_ms)
{
    struct buf text;
    struct json *batch;
    int code;

    buf_init(&text, ANSWER_MAX_BYTES);
    code = batch_call(c, methodz, limit_ms, &text, &batch);
    if (code == EXIT_WELL)
        batch_print(c, batch, buf_str(&text));
    json_free(batch);
    buf_release(&text);
    return code;
}

/* ---- waiting ---- */

struct waiting {
    struct follow *f;
    struct progress progress;
    int64_t looked_ms; /* monotonic: when the nodes were asked for */
    int64_t seen_done;
    bool has_begun;
};

/* While nothing moves: whether there is an engine at all. */
static void look_at_nodes(struct waiting *w)
{
    const struct json *node;
    struct buf out, note;
    struct json *j = NULL;
    bool is_up = false;
    struct str error = STR_NONE;
    struct client_call call = {
        .methodz = "GET", .pathz = "/api/v1/nodes", .total_ms = LOOK_MS, .out = &out};

    buf_init(&out, ANSWER_MAX_BYTES);
    buf_init(&note, 4096);
    if (client_send(w->f->c, &call, NULL) == 200)
        j = json_parse(buf_str(&out), NULL);
    for (node = json_child(json_get(j, "data")); node; node = json_next(node)) {
        is_up = is_up || str_eqz(json_str(json_get(node, "state")), "up");
        error = json_str(json_get(node, "error"));
    }
    if (j && !is_up) {
        buf_addz(&note, "waiting: no engine node is up");
        buf_addz(&note, error.n ? ": " : "");
        table_put_clean(&note, error);
    }
    progress_note(&w->progress, note.n ? note.p : NULL);
    json_free(j);
    buf_release(&out);
    buf_release(&note);
}

static void show(struct waiting *w, const struct batch_counts *n)
{
    struct progress *p = &w->progress;
    int64_t now = clock_mono_ms();

    p->total = n->total;
    p->done = n->total - n->queued;
    p->failed = batch_text_n_bad(n);
    p->tokens = n->tokens;
    if (!w->has_begun) {
        p->n_before = p->done;
        w->has_begun = true;
    }
    if (p->done != w->seen_done || n->is_ended) {
        progress_note(p, NULL);
        w->looked_ms = now;
    } else if (now - w->looked_ms >= LOOK_MS) {
        look_at_nodes(w);
        w->looked_ms = now;
    }
    w->seen_done = p->done;
    if (n->is_ended)
        progress_end(p, clock_mono_ms());
    else
        progress_update(p, clock_mono_ms());
}

static void rest(const struct follow *f)
{
    int64_t left = follow_left_ms(f), ms = left < POLL_MS ? left : POLL_MS;
    struct timespec t = {0, ms * 1000000};

    nanosleep(&t, NULL);
}

int batch_await(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
                struct json **batch)
{
    struct waiting w = {.f = f};
    struct batch_counts n = {0};
    struct buf path;
    int code;

    *batch = NULL;
    buf_init(&path, PATH_MAX_BYTES);
    follow_put_path(&path, "batches", idz);
    follow_put_query(&path, "tenant", tenantz);
    progress_init(&w.progress, -1);
    w.looked_ms = w.progress.started_ms;
    while ((code = follow_get(f, path.p, out)) == EXIT_WELL) {
        json_free(*batch);
        *batch = json_parse(buf_str(out), NULL);
        batch_text_counts(*batch, &n);
        show(&w, &n);
        if (n.is_ended)
            break;
        if (follow_left_ms(f) == 0) {
            code = EXIT_TIMED_OUT;
            break;
        }
        rest(f);
    }
    progress_clear(&w.progress);
    buf_release(&path);
    return code;
}

int batch_await_and_print(const struct cli *c, const char *idz, int64_t timeout_ms)
{
    struct batch_counts n;
    struct json *batch;
    struct follow f;
    struct buf out;
    int code;

    buf_init(&out, ANSWER_MAX_BYTES);
    follow_init(&f, c, timeout_ms);
    code = batch_await(&f, idz, cli_get(c, "--tenant"), &out, &batch);
    if (code == EXIT_TIMED_OUT)
        cli_fail(code, "batch %s has not ended in time; it goes on", idz);
    if (batch && (code == EXIT_WELL || code == EXIT_TIMED_OUT)) {
        batch_print(c, batch, buf_str(&out));
        batch_text_counts(batch, &n);
        if (code == EXIT_WELL && batch_text_n_bad(&n) > 0)
            code = EXIT_SOME_FAILED;
    }
    json_free(batch);
    buf_release(&out);
    return code;
}
