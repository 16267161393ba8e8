#include "broker-config/sqlite_feed.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdlib.h>

enum {
    BATCH_ROWS = 256,
    BATCH_BYTES = 1 << 20,
    BATCHES_OUT = 8,    /* of a topic, handed to the loop and not handled yet */
    WAKE_FINISHES = 64, /* a full window is filled up when so many (or a quarter) are free */
    RETRY_MS = 1000     /* between tries to read what cannot be read */
};

/* Rows, an answer, or news: of having caught up, or of a failure. One allocation with the records
 * and bytes. */
struct delivery {
    struct message m; /* first */
    struct feeds *feeds;
    struct broker_read *read; /* set: an answer */
    struct subscription s;    /* a copy */
    bool is_caught_up;        /* only this news, */
    int code;                 /* or this */
    int topic;
    size_t n;
    struct record *records;
};

void feeds_init(struct feeds *f, struct sqlite_log *log, struct inbox *inbox,
                void (*nudge)(void *data), void *data)
{
    *f = (struct feeds){.log = log, .inbox = inbox, .nudge = nudge, .data = data};
    f->n = topics_count(log->topics);
    f->feed = xcalloc(f->n, sizeof *f->feed);
    rows_init(&f->rows);
}

void feeds_release(struct feeds *f)
{
    size_t i;

    for (i = 0; i < f->n; i++)
        offsets_release(&f->feed[i].window);
    free(f->feed);
    rows_release(&f->rows);
}

/* ---- to the loop ---- */

/* Touches the feeds only before the callback, which may close the broker. */
static void on_delivery(struct message *m)
{
    struct delivery *d = (struct delivery *)(void *)m;
    struct feeds *f = d->feeds;
    bool is_dropped = f->is_stopping;
    bool is_batch = d->n > 0 && !d->read;

    if (is_batch && atomic_fetch_sub(&f->feed[d->topic].n_out, 1) == BATCHES_OUT && !is_dropped)
        f->nudge(f->data);
    if (d->read)
        d->read->on_read(d->read, d->records, d->n);
    else if (is_batch && !is_dropped)
        d->s.on_records(d->s.data, d->records, d->n);
    else if (d->code && !is_dropped)
        d->s.on_failed(d->s.data, d->code);
    else if (d->is_caught_up && !is_dropped)
        d->s.on_caught_up(d->s.data, d->topic);
    free(d);
}

/* Posts what `rows` holds, and empties it. */
static void post(struct feeds *f, int topic, struct broker_read *read, bool is_caught_up, int code)
{
    struct record *records;
    struct delivery *d = rows_pack(&f->rows, sizeof *d, &records);

    *d = (struct delivery){.m = {.on_receive = on_delivery},
                           .feeds = f,
                           .read = read,
                           .s = f->feed[topic].s,
                           .is_caught_up = is_caught_up,
                           .code = code,
                           .topic = topic,
                           .n = f->rows.n,
                           .records = records};
    rows_clear(&f->rows);
    inbox_post(f->inbox, &d->m);
}

/* One query for each run of neighbours. */
static void read_rows(struct feeds *f, struct broker_read *r)
{
    size_t i, n = 0;
    struct err e;

    r->code = 0;
    for (i = 0; i < r->n && r->code == 0; i += n) {
        for (n = 1; i + n < r->n && r->offsets[i + n] == r->offsets[i] + (int64_t)n; n++)
            ;
        r->code =
            sqlite_log_range(f->log, r->topic, r->offsets[i], r->offsets[i + n - 1], &f->rows, &e);
    }
    if (r->code) {
        log_error("log_read", LI("topic", r->topic), LI("offset", r->offsets[i - n]),
                  LZ("error", e.msg));
        rows_clear(&f->rows); /* what is missing must not seem to be gone */
    }
}

void feeds_read(struct feeds *f, struct broker_read *reads)
{
    struct broker_read *r;

    while ((r = reads)) {
        reads = r->next;
        read_rows(f, r);
        post(f, r->topic, r, false, 0);
    }
}

/* ---- subscriptions ---- */

void feeds_start(struct feeds *f, int topic, const struct subscription *s)
{
    struct feed *d = &f->feed[topic];

    d->s = *s;
    d->cursor = f->log->topic[topic].first;
    d->target = f->log->topic[topic].next;
    offsets_init(&d->window, d->cursor);
    d->is_on = true;
}

void feeds_finish(struct feeds *f, struct position at)
{
    if (f->feed[at.topic].is_on)
        offsets_finish(&f->feed[at.topic].window, at.offset);
}

static size_t room_in(const struct feed *d)
{
    return d->window.n_unfinished < d->s.window ? d->s.window - d->window.n_unfinished : 0;
}

static bool has_rows(const struct feeds *f, int topic)
{
    return f->feed[topic].cursor < f->log->topic[topic].next;
}

/* Whether a batch of the topic may be read now. */
static bool is_open(const struct feeds *f, int topic)
{
    const struct feed *d = &f->feed[topic];

    return has_rows(f, topic) && room_in(d) > 0 && atomic_load(&d->n_out) < BATCHES_OUT &&
           (d->retry_at_ms == 0 || clock_mono_ms() >= d->retry_at_ms);
}

/* One batch, so that a long backlog holds up no publish. */
static void send_batch(struct feeds *f, int topic)
{
    struct feed *d = &f->feed[topic];
    size_t room = room_in(d), i;
    bool is_end = false;
    struct err e;
    int rc = sqlite_log_scan(f->log, topic, d->cursor, room < BATCH_ROWS ? room : BATCH_ROWS,
                             BATCH_BYTES, &f->rows, &is_end, &e);

    d->retry_at_ms = rc ? clock_mono_ms() + RETRY_MS : 0;
    if (rc)
        log_error("log_read", LI("topic", topic), LI("offset", d->cursor), LZ("error", e.msg));
    for (i = 0; i < f->rows.n; i++) {
        d->cursor = f->rows.records[i].at.offset + 1;
        offsets_take(&d->window, f->rows.records[i].at.offset);
    }
    if (f->rows.n > 0) {
        atomic_fetch_add(&d->n_out, 1);
        post(f, topic, NULL, false, 0);
    }
    if (rc && d->s.on_failed)
        post(f, topic, NULL, false, rc);
    if (is_end)
        d->cursor = f->log->topic[topic].next;
}

static void check_caught_up(struct feeds *f, int topic)
{
    struct feed *d = &f->feed[topic];

    if (d->is_caught_up || (d->cursor < d->target && room_in(d) > 0))
        return;
    d->is_caught_up = true;
    if (d->s.on_caught_up)
        post(f, topic, NULL, true, 0);
}

static size_t wake_count(size_t window)
{
    size_t quarter = window / 4;

    return quarter < 1 ? 1 : quarter < WAKE_FINISHES ? quarter : WAKE_FINISHES;
}

static void add_wishes(const struct feeds *f, int topic, struct feeds_next *next)
{
    const struct feed *d = &f->feed[topic];
    size_t n = wake_count(d->s.window);

    next->is_now |= is_open(f, topic);
    if (has_rows(f, topic) && room_in(d) == 0 && (!next->wake_after || n < next->wake_after))
        next->wake_after = n;
    if (d->retry_at_ms && (!next->retry_at_ms || d->retry_at_ms < next->retry_at_ms))
        next->retry_at_ms = d->retry_at_ms;
}

struct feeds_next feeds_deliver(struct feeds *f)
{
    struct feeds_next next = {0};
    int i;

    for (i = 0; i < (int)f->n; i++) {
        if (!f->feed[i].is_on)
            continue;
        if (is_open(f, i))
            send_batch(f, i);
        check_caught_up(f, i);
        add_wishes(f, i, &next);
    }
    return next;
}
