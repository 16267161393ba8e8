#include "producer/cli/sse.h"
#include "base/err.h"

enum { NAME_MAX_BYTES = 4096 };

void sse_init(struct sse *s, size_t max_event_bytes)
{
    memset(s, 0, sizeof *s);
    buf_init(&s->line, max_event_bytes);
    buf_init(&s->data, max_event_bytes);
    buf_init(&s->name, NAME_MAX_BYTES);
    buf_init(&s->id, NAME_MAX_BYTES);
}

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->data);
    buf_release(&s->name);
    buf_release(&s->id);
}

void sse_restart(struct sse *s)
{
    buf_clear(&s->line);
    buf_clear(&s->data);
    buf_clear(&s->name);
    s->was_cr = false;
}

static void take_field(struct sse *s, struct str line)
{
    const char *colon = memchr(line.p, ':', line.n);
    size_t n = colon ? (size_t)(colon - line.p) : line.n;
    struct str name = {line.p, n}, value = {line.p + n, line.n - n};

    if (colon)
        value = str_of(colon + 1, value.n - 1);
    if (value.n > 0 && value.p[0] == ' ')
        value = str_of(value.p + 1, value.n - 1);
    if (str_eqz(name, "data")) {
        buf_adds(&s->data, value);
        buf_addc(&s->data, '\n');
    } else if (str_eqz(name, "event")) {
        buf_clear(&s->name);
        buf_adds(&s->name, value);
    } else if (str_eqz(name, "id")) {
        buf_clear(&s->id);
        buf_adds(&s->id, value);
    } /* comments (no name) are heartbeats; `retry` is our own choice */
}

/* The blank line: what has been gathered is an event, if it has data. */
static int dispatch(struct sse *s, int (*on_event)(void *data, const struct sse_event *e),
                    void *data)
{
    struct sse_event e = {buf_str(&s->name), buf_str(&s->data), buf_str(&s->id)};
    int rc = 0;

    if (e.name.n == 0)
        e.name = STR("message");
    if (e.data.n > 0) {
        e.data.n--; /* the line feed behind its last line */
        rc = on_event(data, &e);
    }
    buf_clear(&s->name);
    buf_clear(&s->data);
    return rc;
}

static int end_line(struct sse *s, int (*on_event)(void *data, const struct sse_event *e),
                    void *data)
{
    int rc = 0;

    if (s->line.n == 0)
        rc = dispatch(s, on_event, data);
    else
        take_field(s, buf_str(&s->line));
    buf_clear(&s->line);
    return rc ? rc : s->data.is_over ? ERR_TOO_LARGE : 0;
}

int sse_feed(struct sse *s, struct str bytes,
             int (*on_event)(void *data, const struct sse_event *e), void *data)
{
    size_t at = 0, n;
    int rc = 0;

    while (at < bytes.n && rc == 0) {
        if (s->was_cr && bytes.p[at] == '\n') {
            s->was_cr = false;
            at++;
            continue;
        }
        s->was_cr = false;
        for (n = 0; at + n < bytes.n && bytes.p[at + n] != '\n' && bytes.p[at + n] != '\r'; n++)
            continue;
        rc = buf_add(&s->line, bytes.p + at, n);
        at += n;
        if (rc == 0 && at < bytes.n) {
            s->was_cr = bytes.p[at++] == '\r';
            rc = end_line(s, on_event, data);
        }
    }
    return rc;
}
