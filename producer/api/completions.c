/* /api/v1/completions: the feed of ended jobs in topic order, polled or as server-sent events.
 * Watches first and looks then, so nothing falls between. */
#include "base/clock.h"
#include "base/json.h"
#include "base/test_hook.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include <stdio.h>
#include <stdlib.h>

#define PAGE_MAX_BYTES ((size_t)256 << 20)
#define STREAM_PAGE 50
/* Pages without a match that one answer looks at, so that a rare batch does not hold its thread. */
#define EMPTY_PAGES_MAX 4

struct feed {
    struct watcher watcher;
    struct request *q;
    struct str tenant, batch_id; /* p == NULL: any; the request's bytes */
    int limit;
    int64_t cursor;
    int64_t deadline_ms, sent_ms; /* monotonic */
    bool from_oldest;             /* no cursor was given */
};

static void on_wake(struct watcher *w)
{
    request_wake(LIST_ENTRY(w, struct feed, watcher)->q);
}

static void on_end(struct request *q)
{
    struct feed *f = q->data;

    live_unwatch(q->gateway->live, &f->watcher);
    free(f);
}

static void reply_expired(struct request *q, int64_t oldest)
{
    char raw[24];

    snprintf(raw, sizeof raw, "%lld", (long long)oldest);
    api_reply_error(q, 410, REASON_INVALID_REQUEST, "cursor_expired", "after",
                    "the cursor is older than the oldest completion kept", "oldest", str_z(raw));
}

/* One page into b. How many, or negative; the cursor moves on. */
static int read_page(struct request *q, struct feed *f, bool is_sse, struct buf *b, struct err *e)
{
    int64_t next = f->cursor;
    int n = reader_feed(request_reader(q), f->cursor, f->limit, f->tenant, f->batch_id, is_sse, b,
                        &next, e);

    if (n == ERR_NOT_FOUND && f->from_oldest) {
        f->cursor = next;
        n = reader_feed(request_reader(q), f->cursor, f->limit, f->tenant, f->batch_id, is_sse, b,
                        &next, e);
    }
    if (n >= 0 || n == ERR_NOT_FOUND)
        f->cursor = next;
    return n;
}

/* ---- polling ---- */

static void reply_page(struct request *q, struct buf *b, int64_t end)
{
    struct feed *f = q->data;

    buf_addz(b, "],");
    json_put_member_bool(b, "has_more", f->cursor < end);
    buf_addc(b, ',');
    json_put_member_int(b, "next", f->cursor);
    buf_addc(b, '}');
    request_reply_json(q, 200, b);
}

/* Reads pages until one has a match or the end is reached. */
static int read_pages(struct request *q, struct feed *f, struct buf *b, int64_t *end, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < EMPTY_PAGES_MAX && rc == 0; i++) {
        int64_t before = f->cursor;

        rc = read_page(q, f, false, b, e);
        if (f->cursor == before)
            break;
    }
    if (rc >= 0 && reader_feed_end(request_reader(q), end, e) < 0)
        rc = e->code;
    return rc;
}

static void look(struct request *q)
{
    struct feed *f = q->data;
    struct buf b;
    struct err e;
    int64_t end = 0;
    int n;

    if (q->is_gone)
        return;
    buf_init(&b, PAGE_MAX_BYTES);
    buf_addz(&b, "{\"object\":\"list\",\"data\":[");
    n = read_pages(q, f, &b, &end, &e);
    if (n == 0 && f->cursor >= end && !q->is_late && clock_mono_ms() < f->deadline_ms) {
        buf_release(&b);
        request_wait(q, f->deadline_ms, look);
    } else if (n >= 0) {
        reply_page(q, &b, end);
    } else {
        buf_release(&b);
        if (n == ERR_NOT_FOUND)
            reply_expired(q, f->cursor);
        else
            request_reply_err(q, &e);
    }
}

/* ---- streaming ---- */

static int pull(struct request *q, struct buf *b, int64_t *deadline_ms)
{
    struct feed *f = q->data;
    int64_t before = f->cursor;
    struct err e;
    int n = read_page(q, f, true, b, &e);

    if (n < 0) {
        api_put_event(b, "error", n == ERR_NOT_FOUND ? STR("{\"code\":\"cursor_expired\"}")
                                                     : STR("{\"code\":\"internal\"}"));
        return -1;
    }
    if (n == 0 && f->cursor > before) {
        *deadline_ms = clock_mono_ms(); /* much was looked at: others have their turn first */
        return 0;
    }
    return api_pulse(b, &f->sent_ms, deadline_ms);
}

/* ---- both ---- */

/* Where to begin: `after`, or what the client's event source saw last. In a log that others share,
 * another gateway may have told a cursor that this one has yet to reach. */
static bool read_cursor(struct request *q, struct feed *f, bool is_sse)
{
    struct str after = request_query(q, "after"), last = request_header(q, "Last-Event-ID");
    const char *paramz = "after";
    int64_t end;
    struct err e;

    if (reader_feed_end(request_reader(q), &end, &e) < 0) {
        request_reply_err(q, &e);
        return false;
    }
    if (is_sse && last.n && !HOOK_SKIP("resume")) {
        after = last;
        paramz = "Last-Event-ID";
    }
    f->from_oldest = !after.p && !is_sse;
    f->cursor = is_sse || str_eqz(after, "latest") ? end : 0;
    if (!after.p || str_eqz(after, "latest"))
        return true;
    if (str_int(after, &f->cursor) && f->cursor >= 0 &&
        (f->cursor <= end || broker_is_shared(q->gateway->broker)))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, paramz,
                        "'%s' must be a cursor: the `next` of an earlier answer, at most %lld, or "
                        "latest",
                        paramz, (long long)end);
    return false;
}

static struct feed *feed_new(struct request *q)
{
    struct feed *f = xcalloc(1, sizeof *f);

    f->q = q;
    f->watcher.on_wake = on_wake;
    q->data = f;
    q->on_end = on_end;
    live_watch(q->gateway->live, STR_NONE, STR_NONE, &f->watcher);
    return f;
}

void completions_get(struct request *q)
{
    struct feed *f;
    int64_t wait_ms;

    if (!api_check_query(q) || !api_wait_ms(q, &wait_ms))
        return;
    f = feed_new(q);
    if (!api_limit(q, &f->limit) || !api_id(q, "batch_id", &f->batch_id) ||
        !api_id(q, "tenant", &f->tenant) || !read_cursor(q, f, false))
        return;
    f->deadline_ms = clock_mono_ms() + wait_ms;
    look(q);
}

void completions_events(struct request *q)
{
    struct feed *f;
    int64_t asked;
    struct buf b;
    struct err e;
    int n;

    if (!api_check_query(q))
        return;
    f = feed_new(q);
    f->limit = STREAM_PAGE;
    if (!api_id(q, "batch_id", &f->batch_id) || !api_id(q, "tenant", &f->tenant) ||
        !read_cursor(q, f, true))
        return;
    /* An expired cursor is told by the status, while there still is one to tell. */
    asked = f->cursor;
    buf_init(&b, PAGE_MAX_BYTES);
    n = read_page(q, f, true, &b, &e);
    buf_release(&b);
    if (n == ERR_NOT_FOUND) {
        reply_expired(q, f->cursor);
        return;
    }
    f->cursor = asked;
    request_stream(q, 200, "text/event-stream", pull);
}
