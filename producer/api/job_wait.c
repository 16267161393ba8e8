/* Answering with a job once it has ended: GET and POST with ?wait. */
#include "base/clock.h"
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/elsewhere.h"
#include <stdio.h>
#include <stdlib.h>

#define VIEW_MAX_BYTES ((size_t)256 << 20)

struct wait {
    struct watcher watcher;
    struct request *q;
    char tenant[ID_MAX + 1], id[ID_MAX + 1];
    int64_t deadline_ms; /* monotonic; 0: does not wait */
    int status;
    bool is_watching;
    struct elsewhere elsewhere;
    char position[POSITION_TEXT_MAX]; /* "" for none */
};

static void on_wake(struct watcher *w)
{
    request_wake(LIST_ENTRY(w, struct wait, watcher)->q);
}

static void on_end(struct request *q)
{
    struct wait *w = q->data;

    if (w->is_watching)
        live_unwatch(q->gateway->live, &w->watcher);
    elsewhere_release(&w->elsewhere);
    free(w);
}

/* A strong ETag: the bytes' digest. */
static void make_etag(struct str view, char dst[SHA256_LEN + 3])
{
    uint8_t digest[SHA256_LEN];

    sha256(view, digest);
    dst[0] = '"';
    hex(digest, SHA256_LEN / 2, dst + 1);
    dst[SHA256_LEN + 1] = '"';
    dst[SHA256_LEN + 2] = '\0';
}

/* RFC 9110, 13.1.2: a list of tags, or '*'; weak comparison. */
static bool has_etag(struct str list, struct str etag)
{
    if (str_eqz(list, "*"))
        return true;
    return list.n >= etag.n && memmem(list.p, list.n, etag.p, etag.n) != NULL;
}

static void reply(struct request *q, struct buf *b)
{
    struct wait *w = q->data;
    char etag[SHA256_LEN + 3];

    if (w->position[0]) {
        b->n--; /* the closing brace */
        buf_addc(b, ',');
        json_put_member_str(b, "position", str_z(w->position));
        buf_addc(b, '}');
    }
    if (w->status == 200 && strcmp(q->methodz, "POST") != 0) {
        make_etag(buf_str(b), etag);
        request_add_header(q, "ETag", etag);
        if (has_etag(request_header(q, "If-None-Match"), str_z(etag))) {
            buf_clear(b);
            request_reply(q, 304, NULL, b);
            return;
        }
    }
    request_reply_json(q, w->status, b);
}

/* Whether it runs elsewhere is asked where it is to be answered so. */
static int read_job(struct request *q, bool is_last, struct buf *b, enum job_state *state,
                    struct err *e)
{
    struct wait *w = q->data;
    bool is_new = w->status == 201 && !w->is_watching;
    int rc;

    if (is_last && !is_new)
        elsewhere_begin(&w->elsewhere, q);
    rc = reader_job(request_reader(q), str_z(w->tenant), str_z(w->id), b, state, e);
    if (is_last && !is_new)
        elsewhere_done(&w->elsewhere);
    return rc;
}

static void look(struct request *q)
{
    struct wait *w = q->data;
    bool is_time_up = q->is_late || clock_mono_ms() >= w->deadline_ms;
    struct buf b;
    struct err e;
    enum job_state state;

    if (q->is_gone)
        return;
    buf_init(&b, VIEW_MAX_BYTES);
    if (read_job(q, is_time_up, &b, &state, &e) < 0) {
        buf_release(&b);
        request_reply_err(q, &e);
    } else if (state_is_terminal(state) || (is_time_up && !elsewhere_wait(&w->elsewhere, look))) {
        reply(q, &b);
    } else {
        buf_release(&b);
        if (!is_time_up)
            request_wait(q, w->deadline_ms, look);
    }
}

void job_wait(struct request *q, struct str tenant, struct str id, int64_t wait_ms, int status,
              const char *positionz)
{
    struct wait *w = xcalloc(1, sizeof *w);

    w->q = q;
    str_copyz(w->tenant, sizeof w->tenant, tenant);
    str_copyz(w->id, sizeof w->id, id);
    str_copyz(w->position, sizeof w->position, str_z(positionz));
    w->status = status;
    q->data = w;
    q->on_end = on_end;
    if (wait_ms > 0) {
        w->deadline_ms = clock_mono_ms() + wait_ms;
        w->watcher.on_wake = on_wake;
        w->is_watching = true;
        live_watch(q->gateway->live, str_z(w->tenant), str_z(w->id), &w->watcher);
    }
    look(q);
}
