#include "store/stream.h"
#include "base/json.h"
#include "schema/state.h"
#include <stdlib.h>

enum { PART_MAX_BYTES = 64 << 10 };

static const char *const names[STREAM_KIND_COUNT] = {
    [STREAM_RUNNING] = "status", [STREAM_QUEUED] = "status",   [STREAM_TEXT] = "delta",
    [STREAM_CUT] = "delta",      [STREAM_RESTART] = "restart",
};

/* Its bytes end where the next one's begin. */
struct stream_event {
    uint32_t at; /* in the stream's text */
    uint16_t kind;
    uint16_t attempt;
};

void stream_init(struct stream *s, size_t max_bytes)
{
    *s = (struct stream){.max_bytes = max_bytes < UINT32_MAX ? max_bytes : UINT32_MAX};
    buf_init(&s->text, s->max_bytes);
}

void stream_release(struct stream *s)
{
    buf_release(&s->text);
    free(s->events);
    s->events = NULL;
    s->n = s->room = 0;
}

static bool has_room(const struct stream *s, size_t n_bytes)
{
    return s->text.n + n_bytes + (s->n + 1) * sizeof s->events[0] <= s->max_bytes;
}

static void push(struct stream *s, enum stream_kind kind, int attempt, struct str bytes)
{
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 4;
        s->events = xrealloc(s->events, s->room * sizeof s->events[0]);
    }
    s->events[s->n++] =
        (struct stream_event){(uint32_t)s->text.n, (uint16_t)kind, (uint16_t)attempt};
    buf_adds(&s->text, bytes);
}

static void restart(struct stream *s, int attempt)
{
    s->base += (int64_t)s->n;
    s->n = 0;
    buf_clear(&s->text);
    s->has_deltas = s->is_cut = false;
    push(s, STREAM_RESTART, attempt, STR_NONE);
}

void stream_start(struct stream *s, int attempt, struct str node)
{
    if (s->has_deltas)
        restart(s, attempt);
    if (has_room(s, node.n))
        push(s, STREAM_RUNNING, attempt, node);
}

void stream_requeue(struct stream *s, int attempt)
{
    if (has_room(s, 0))
        push(s, STREAM_QUEUED, attempt, STR_NONE);
}

bool stream_delta(struct stream *s, int attempt, struct str text)
{
    if (s->is_cut)
        return false;
    s->is_cut = !has_room(s, text.n);
    s->has_deltas = true;
    push(s, s->is_cut ? STREAM_CUT : STREAM_TEXT, attempt, s->is_cut ? STR_NONE : text);
    return true;
}

/* ---- from stream to stream ---- */

static struct str bytes_of(const struct stream *s, size_t i)
{
    size_t end = i + 1 < s->n ? s->events[i + 1].at : s->text.n;

    return str_of(s->text.p + s->events[i].at, end - s->events[i].at);
}

bool stream_mirror(struct stream *s, const struct stream_part *p)
{
    int64_t next = s->base + (int64_t)s->n + 1;

    if (p->kind == STREAM_RESTART || s->n == 0)
        s->base += p->last > next ? p->last - next : 0;
    if (p->kind == STREAM_TEXT)
        return stream_delta(s, p->attempt, p->data);
    if (p->kind == STREAM_RESTART) {
        restart(s, p->attempt);
        return true;
    }
    if (s->is_cut || !has_room(s, p->data.n))
        return false;
    s->is_cut = p->kind == STREAM_CUT;
    s->has_deltas = s->has_deltas || s->is_cut;
    push(s, p->kind, p->attempt, p->data);
    return true;
}

bool stream_next(const struct stream *s, int64_t after, struct stream_part *p)
{
    size_t i, end;
    struct str more;

    if (after < s->base || after > s->base + (int64_t)s->n)
        after = s->base;
    i = (size_t)(after - s->base);
    if (i == s->n)
        return false;
    *p = (struct stream_part){.first = after + 1,
                              .kind = (enum stream_kind)s->events[i].kind,
                              .attempt = s->events[i].attempt,
                              .is_first = i == 0,
                              .data = bytes_of(s, i)};
    for (end = i + 1; p->kind == STREAM_TEXT && end < s->n; end++) {
        more = bytes_of(s, end); /* stands behind it */
        if (s->events[end].kind != STREAM_TEXT || p->data.n + more.n > PART_MAX_BYTES)
            break;
        p->data.n += more.n;
    }
    p->last = s->base + (int64_t)end;
    return true;
}

/* ---- printing ---- */

static void put_status(struct buf *b, const struct stream_event *event, struct str node)
{
    enum job_state state = event->kind == STREAM_RUNNING ? STATE_RUNNING : STATE_QUEUED;

    json_put_member_str(b, "status", str_z(state_name(state)));
    buf_addc(b, ',');
    json_put_member_int(b, "attempt", event->attempt);
    buf_addc(b, ',');
    json_put_member_opt(b, "node", event->kind == STREAM_RUNNING ? node : STR_NONE);
}

static void put_delta(struct buf *b, const struct stream_event *event, int64_t number,
                      struct str text)
{
    json_put_member_int(b, "attempt", event->attempt);
    buf_addc(b, ',');
    json_put_member_int(b, "seq", number);
    buf_addc(b, ',');
    json_put_member_str(b, "text", text);
    if (event->kind == STREAM_CUT)
        buf_addz(b, ",\"is_cut\":true");
}

static void put_event(struct buf *b, const struct stream *s, size_t i)
{
    const struct stream_event *event = &s->events[i];
    int64_t number = s->base + (int64_t)i + 1;

    buf_addf(b, "id: %lld\nevent: %s\ndata: {", (long long)number, names[event->kind]);
    if (event->kind == STREAM_RESTART)
        json_put_member_int(b, "attempt", event->attempt);
    else if (event->kind == STREAM_RUNNING || event->kind == STREAM_QUEUED)
        put_status(b, event, bytes_of(s, i));
    else
        put_delta(b, event, number, bytes_of(s, i));
    buf_addz(b, "}\n\n");
}

int64_t stream_print(const struct stream *s, int64_t after, struct buf *b)
{
    size_t i, whole;

    if (after < s->base || after > s->base + (int64_t)s->n)
        after = s->base;
    for (i = (size_t)(after - s->base); i < s->n; i++) {
        whole = b->n;
        put_event(b, s, i);
        if (b->is_over) {
            b->n = whole;
            b->p[whole] = '\0';
            b->is_over = whole == 0; /* not even one: the caller is to know */
            break;
        }
        after++;
    }
    return after;
}
