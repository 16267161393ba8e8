/* `genq watch`: the completion feed, a line each. Where it begins is asked for first, so that
 * nothing is lost if the server goes away before the first event. */
#include "producer/cli/follow.h"
#include "producer/cli/job_text.h"
#include "producer/cli/sse.h"
#include <stdio.h>

#define EVENT_MAX_BYTES ((size_t)256 << 20)
enum { IDLE_MS = 60000, PATH_MAX_BYTES = 16384, ASK_MS = 60000 };

struct watch {
    const struct cli *c;
    struct follow *f;
    struct sse sse;
    struct buf line;
    struct buf cursor; /* where to begin while no event has come */
    bool is_broken;    /* stdout takes no more */
    bool is_expired;
};

static int on_event(void *data, const struct sse_event *e)
{
    struct watch *w = data;
    struct json *job;

    if (str_eqz(e->name, "error")) {
        w->is_expired = true;
        return 1;
    }
    if (!str_eqz(e->name, "completion"))
        return 0;
    buf_clear(&w->line);
    if (w->c->is_json) {
        buf_adds(&w->line, e->data);
        buf_addc(&w->line, '\n');
    } else {
        job = json_parse(e->data, NULL);
        job_text_line(&w->line, job);
        json_free(job);
    }
    fwrite(w->line.p, 1, w->line.n, stdout);
    w->is_broken = fflush(stdout) != 0;
    return w->is_broken;
}

static int on_data(void *data, struct str bytes)
{
    struct watch *w = data;

    w->f->lost_ms = 0;
    return sse_feed(&w->sse, bytes, on_event, w);
}

/* Finds the feed's end, for a watch from now on; and whether there is a server. */
static int ask_cursor(struct follow *f, struct watch *w)
{
    struct buf out;
    struct json *j;
    int64_t next;
    int code;

    buf_init(&out, EVENT_MAX_BYTES);
    code = follow_get(f, "/api/v1/completions?after=latest&limit=1", &out);
    j = code == EXIT_WELL ? json_parse(buf_str(&out), NULL) : NULL;
    if (cli_has(w->c, "--after"))
        buf_addz(&w->cursor, cli_get(w->c, "--after"));
    else if (json_int(json_get(j, "next"), &next))
        buf_addi(&w->cursor, next);
    else if (code == EXIT_WELL)
        code = cli_fail(EXIT_SOME_FAILED, "the server told no cursor");
    json_free(j);
    buf_release(&out);
    return code;
}

static void put_path(struct buf *path, const struct watch *w)
{
    buf_addz(path, "/api/v1/completions/events");
    follow_put_query(path, "after", w->cursor.p);
    follow_put_query(path, "batch_id", cli_get(w->c, "--batch"));
    follow_put_query(path, "tenant", cli_get(w->c, "--tenant"));
}

/* One connection. EXIT_WELL: it broke, and may be made again. */
static int stream(struct follow *f, struct watch *w, const char *pathz)
{
    struct buf header, error;
    struct client_call call = {.methodz = "GET",
                               .pathz = pathz,
                               .idle_ms = IDLE_MS,
                               .on_data = on_data,
                               .data = w,
                               .out = &error};
    struct err e = {0};
    int status, code = EXIT_WELL;

    buf_init(&header, 8192);
    buf_init(&error, 1 << 20);
    sse_restart(&w->sse);
    if (w->sse.id.n > 0)
        buf_addf(&header, "Last-Event-ID: %.*s", STR_ARG(buf_str(&w->sse.id)));
    call.headerz = header.n > 0 ? header.p : NULL;
    status = client_send(f->c, &call, &e);
    if (status > 0 && status != 502 && status != 503 && (status < 200 || status > 299))
        code = cli_print_error(status, buf_str(&error));
    else if (w->is_expired)
        code = cli_fail(EXIT_SOME_FAILED, "completions after the last one seen are no longer kept");
    else if (!w->is_broken)
        code = follow_is_lost(f, status > 0 ? 503 : status, &e);
    buf_release(&header);
    buf_release(&error);
    return code;
}

static int run(struct cli *c)
{
    struct follow f;
    struct watch w = {.c = c, .f = &f};
    struct buf path;
    int code;

    follow_init(&f, c, -1);
    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&w.line, EVENT_MAX_BYTES);
    buf_init(&w.cursor, PATH_MAX_BYTES / 4);
    sse_init(&w.sse, EVENT_MAX_BYTES);
    code = ask_cursor(&f, &w);
    put_path(&path, &w);
    while (code == EXIT_WELL && !w.is_broken)
        code = stream(&f, &w, path.p);
    buf_release(&path);
    buf_release(&w.line);
    buf_release(&w.cursor);
    sse_release(&w.sse);
    return code;
}

static const struct cli_option options[] = {
    {"--batch", 0, "ID", "only jobs of this batch", false},
    {"--tenant", 0, "NAME", "only jobs of this tenant", false},
    {"--after", 0, "CURSOR", "begin behind this place of the feed; 0: at its start (default: now)",
     false},
    {0},
};

const struct cli_command command_watch = {
    .namez = "watch",
    .argumentsz = NULL,
    .summaryz = "print a line for each job that ends, until stopped",
    .detailsz = "The feed is the same for all who watch. When the server restarts, the watch goes\n"
                "on where it was: no line is lost, none comes twice.",
    .options = options,
    .run = run,
    .examplez = "genq watch --json | jq -r 'select(.status == \"failed\") | .id'",
    .is_client = true,
};
