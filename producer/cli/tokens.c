#include "producer/cli/tokens.h"
#include "base/clock.h"
#include "producer/cli/job_text.h"
#include "producer/cli/sse.h"
#include <stdio.h>

#define EVENT_MAX_BYTES ((size_t)256 << 20)
enum { IDLE_MS = 60000, PATH_MAX_BYTES = 16384 };

struct tokens {
    const struct cli *c;
    struct follow *f;
    struct sse sse;
    struct buf shown; /* of this attempt */
    struct buf *out;  /* the completion */
    bool is_ended, is_broken; /* broken: stdout takes no more */
};

static void show(struct tokens *t, struct str text)
{
    if (text.n == 0)
        return;
    fwrite(text.p, 1, text.n, stdout);
    buf_adds(&t->shown, text);
}

static void break_line(struct tokens *t)
{
    if (t->shown.n > 0 && t->shown.p[t->shown.n - 1] != '\n')
        putchar('\n');
}

/* What came before is of an attempt that failed, or of a server that is gone. */
static void restart(struct tokens *t, const char *whyz)
{
    break_line(t);
    if (t->shown.n > 0)
        cli_fail(0, "%s; the answer starts anew", whyz);
    buf_clear(&t->shown);
}

/* The completion has all of the text: what is missing on the screen is added. */
static void end(struct tokens *t, struct str data)
{
    struct json *job = json_parse(data, NULL);
    struct str text = json_str(json_get(json_get(job, "output"), "text"));

    buf_adds(t->out, data);
    t->is_ended = true;
    if (job_text_is_succeeded(job) && !t->c->is_json) {
        if (!str_starts(text, buf_str(&t->shown)))
            restart(t, "tokens were lost");
        show(t, str_of(text.p + t->shown.n, text.n - t->shown.n));
    }
    break_line(t);
    json_free(job);
}

static int on_event(void *data, const struct sse_event *e)
{
    struct tokens *t = data;
    struct json *j;

    if (t->c->is_json)
        printf("%.*s\n", STR_ARG(e->data));
    if (str_eqz(e->name, "completion")) {
        end(t, e->data);
    } else if (str_eqz(e->name, "restart") && !t->c->is_json) {
        restart(t, "the attempt failed");
    } else if (str_eqz(e->name, "delta") && !t->c->is_json) {
        j = json_parse(e->data, NULL);
        show(t, json_str(json_get(j, "text")));
        json_free(j);
    }
    t->is_broken = fflush(stdout) != 0;
    return t->is_ended || t->is_broken;
}

static int on_data(void *data, struct str bytes)
{
    struct tokens *t = data;

    t->f->lost_ms = 0;
    return sse_feed(&t->sse, bytes, on_event, t);
}

/* One connection. EXIT_WELL: it may go on, unless t->is_ended. No Last-Event-ID: a server that
 * broke the stream was most likely restarted, and counts its events from 1 again. */
static int stream(struct follow *f, struct tokens *t, const char *pathz)
{
    struct buf error;
    struct client_call call = {.methodz = "GET",
                               .pathz = pathz,
                               .idle_ms = IDLE_MS,
                               .on_data = on_data,
                               .data = t,
                               .out = &error};
    struct err e = {0};
    int status, code = EXIT_WELL;

    buf_init(&error, 1 << 20);
    sse_restart(&t->sse);
    if (f->lost_ms > 0)
        restart(t, "the connection broke");
    if (f->deadline_ms != INT64_MAX)
        call.total_ms = follow_left_ms(f) + 1;
    status = client_send(f->c, &call, &e);
    if (t->is_ended || t->is_broken)
        code = EXIT_WELL;
    else if (status >= 200 && status <= 299)
        code = follow_is_lost(f, 503, &e); /* ended in the middle: it is stopping */
    else if (status > 0 && status != 502 && status != 503)
        code = cli_print_error(status, buf_str(&error));
    else if (e.code == ERR_TIMEOUT && follow_left_ms(f) == 0)
        code = EXIT_TIMED_OUT;
    else
        code = follow_is_lost(f, status, &e);
    buf_release(&error);
    return code;
}

int tokens_follow(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
                  struct json **job)
{
    struct tokens t = {.c = f->c, .f = f, .out = out};
    struct buf path;
    struct err e;
    int code = EXIT_WELL;

    *job = NULL;
    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&t.shown, EVENT_MAX_BYTES);
    sse_init(&t.sse, EVENT_MAX_BYTES);
    follow_put_path(&path, "jobs", idz);
    buf_addz(&path, "/events");
    follow_put_query(&path, "tenant", tenantz);
    while (code == EXIT_WELL && !t.is_ended && !t.is_broken)
        code = stream(f, &t, path.p);
    if (code == EXIT_TIMED_OUT)
        break_line(&t);
    if (code == EXIT_WELL && t.is_ended) {
        *job = json_parse(buf_str(out), &e);
        if (!*job)
            code = cli_fail(EXIT_SOME_FAILED, "%s: the answer is no JSON: %s", idz, e.msg);
    }
    buf_release(&path);
    buf_release(&t.shown);
    sse_release(&t.sse);
    return code;
}

int tokens_print_end(const struct json *job)
{
    struct buf b;

    if (!job || job_text_is_succeeded(job)) /* no job: the reader of stdout has gone */
        return EXIT_WELL;
    buf_init(&b, 1 << 20);
    job_text_error(&b, job);
    cli_fail(0, "job %.*s %.*s: %.*s", STR_ARG(json_str(json_get(job, "id"))),
             STR_ARG(json_str(json_get(job, "status"))), STR_ARG(buf_str(&b)));
    buf_release(&b);
    return EXIT_SOME_FAILED;
}
