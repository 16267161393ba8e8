#include "producer/cli/follow.h"
#include "base/clock.h"
#include "producer/cli/job_text.h"
#include <stdio.h>
#include <time.h>

enum {
    POLL_MS = 30000,       /* one long poll */
    SLACK_MS = 30000,      /* how much longer its answer may take */
    SHORT_SLACK_MS = 2000, /* the same, for the last one before the deadline */
    AGAIN_MS = 200,
    PATH_MAX_BYTES = 16384,
};

static void sleep_ms(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

void follow_init(struct follow *f, const struct cli *c, int64_t timeout_ms)
{
    memset(f, 0, sizeof *f);
    f->c = c;
    f->deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
}

int64_t follow_left_ms(const struct follow *f)
{
    int64_t now = clock_mono_ms();

    if (f->deadline_ms == INT64_MAX)
        return INT64_MAX;
    return f->deadline_ms > now ? f->deadline_ms - now : 0;
}

int follow_is_lost(struct follow *f, int status, const struct err *e)
{
    int64_t now = clock_mono_ms();
    bool is_away = status == 502 || status == 503 || e->code == ERR_UNREACHABLE ||
                   e->code == ERR_CLOSED || e->code == ERR_TIMEOUT;

    if (is_away && (f->was_reached || e->code == ERR_TIMEOUT) && follow_left_ms(f) == 0)
        return EXIT_TIMED_OUT;
    if (is_away && f->was_reached && f->lost_ms == 0) {
        f->lost_ms = now;
        cli_fail(0, "%s went away; waiting for it", f->c->serverz);
    }
    if (!is_away || !f->was_reached || now - f->lost_ms >= FOLLOW_LOST_MS) {
        if (status <= 0)
            client_explain(f->c, e);
        else
            cli_fail(0, "%s cannot answer now (status %d)", f->c->serverz, status);
        return e->code == ERR_INVALID ? EXIT_USAGE : EXIT_NO_SERVER;
    }
    sleep_ms(AGAIN_MS);
    return EXIT_WELL;
}

int follow_get(struct follow *f, const char *pathz, struct buf *out)
{
    struct client_call call = {.methodz = "GET", .pathz = pathz, .out = out};
    struct err e;
    int64_t left;
    int status, rc;

    for (;;) {
        left = follow_left_ms(f);
        call.total_ms = left < POLL_MS ? left + SHORT_SLACK_MS : POLL_MS + SLACK_MS;
        e.code = 0;
        buf_clear(out);
        status = client_send(f->c, &call, &e);
        if (status > 0 && status != 502 && status != 503)
            break;
        rc = follow_is_lost(f, status, &e);
        if (rc != EXIT_WELL)
            return rc;
    }
    f->was_reached = true;
    f->lost_ms = 0;
    if (status < 200 || status > 299)
        return cli_print_error(status, buf_str(out));
    return EXIT_WELL;
}

void follow_put_path(struct buf *b, const char *kindz, const char *idz)
{
    buf_addf(b, "/api/v1/%s/", kindz);
    cli_escape(b, str_z(idz));
}

void follow_put_query(struct buf *b, const char *namez, const char *valuez)
{
    if (!valuez)
        return;
    buf_addc(b, b->p && memchr(b->p, '?', b->n) ? '&' : '?');
    buf_addf(b, "%s=", namez);
    cli_escape(b, str_z(valuez));
}

void follow_put_time(struct buf *b, const char *namez, const char *valuez)
{
    struct buf full;

    if (!valuez)
        return;
    buf_init(&full, strlen(valuez) + 16); /* whole: a filter that is cut would find too much */
    buf_addz(&full, valuez);
    if (strlen(valuez) == 10 && valuez[4] == '-' && valuez[7] == '-')
        buf_addz(&full, "T00:00:00Z");
    follow_put_query(b, namez, full.p);
    buf_release(&full);
}

static void put_wait(struct buf *path, const struct follow *f)
{
    int64_t left = follow_left_ms(f);
    char wait[32];

    snprintf(wait, sizeof wait, "%lldms", (long long)(left < POLL_MS ? left : POLL_MS));
    follow_put_query(path, "wait", wait);
}

int follow_job(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
               struct json **job)
{
    struct buf path;
    struct err e;
    int rc;

    *job = NULL;
    buf_init(&path, PATH_MAX_BYTES);
    for (;;) {
        buf_clear(&path);
        follow_put_path(&path, "jobs", idz);
        follow_put_query(&path, "tenant", tenantz);
        put_wait(&path, f);
        rc = path.is_over ? cli_fail(EXIT_USAGE, "the id is too long") : follow_get(f, path.p, out);
        if (rc != EXIT_WELL)
            break;
        *job = json_parse(buf_str(out), &e);
        if (!*job)
            rc = cli_fail(EXIT_SOME_FAILED, "%s: the answer is no JSON: %s", idz, e.msg);
        if (!*job || job_text_is_ended(*job))
            break;
        json_free(*job);
        *job = NULL;
        if (follow_left_ms(f) == 0) {
            rc = EXIT_TIMED_OUT;
            break;
        }
    }
    buf_release(&path);
    return rc;
}
