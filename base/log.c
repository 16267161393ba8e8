#include "base/log.h"
#include "base/clock.h"
#include "base/json.h"
#include <stdatomic.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 64 * 1024, VALUE_MAX_BYTES = 2048 };

static _Atomic int log_level_ = LOG_INFO;
static _Atomic int log_format_ = LOG_TEXT;

void log_setup(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_level_, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_format_, (int)format, memory_order_relaxed);
}

bool log_is_on(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_, memory_order_relaxed);
}

/* A quoted string of any bytes: cut when long, `?` for bytes that are not UTF-8, so that no value
 * can make the line invalid. */
static void put_quoted(struct buf *line, struct str s)
{
    char copy[VALUE_MAX_BYTES];
    struct str v = {copy, s.n < sizeof copy ? s.n : sizeof copy};
    size_t at;

    if (v.n > 0)
        memcpy(copy, s.p, v.n);
    for (at = str_utf8_bad(v); at < v.n; at += str_utf8_bad(str_of(v.p + at, v.n - at)))
        copy[at++] = '?';
    json_put_str(line, v);
}

static bool is_plain_word(struct str s)
{
    size_t i;

    for (i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~' || s.p[i] == '"' || s.p[i] == '=' || s.p[i] == '\\')
            return false;
    return s.n > 0 && s.n < VALUE_MAX_BYTES;
}

static void put_json(struct buf *line, const char *levelz, const char *timez, const char *eventz,
                     const struct log_field *fields, size_t n)
{
    size_t i;

    buf_addc(line, '{');
    json_put_member_str(line, "ts", str_z(timez));
    buf_addc(line, ',');
    json_put_member_str(line, "level", str_z(levelz));
    buf_addc(line, ',');
    json_put_member_str(line, "event", str_z(eventz));
    for (i = 0; i < n; i++) {
        buf_addc(line, ',');
        json_put_name(line, fields[i].namez);
        if (fields[i].is_int)
            buf_addi(line, fields[i].i);
        else
            put_quoted(line, fields[i].s);
    }
    buf_addz(line, "}\n");
}

static void put_text(struct buf *line, const char *levelz, const char *timez, const char *eventz,
                     const struct log_field *fields, size_t n)
{
    size_t i;

    buf_addf(line, "%s %-5s %s", timez, levelz, eventz);
    for (i = 0; i < n; i++) {
        buf_addf(line, " %s=", fields[i].namez);
        if (fields[i].is_int)
            buf_addi(line, fields[i].i);
        else if (is_plain_word(fields[i].s))
            buf_adds(line, fields[i].s);
        else
            put_quoted(line, fields[i].s);
    }
    buf_addc(line, '\n');
}

void log_event(enum log_level level, const char *eventz, const struct log_field *fields, size_t n)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char timez[32];
    struct buf line;
    ssize_t written;

    if (!log_is_on(level))
        return;
    clock_format_rfc3339(clock_wall_ms(), timez);
    buf_init(&line, LINE_MAX_BYTES);
    if (atomic_load_explicit(&log_format_, memory_order_relaxed) == LOG_JSON)
        put_json(&line, names[level], timez, eventz, fields, n);
    else
        put_text(&line, names[level], timez, eventz, fields, n);
    written = write(STDERR_FILENO, line.p, line.n);
    (void)written; /* nobody is left to tell */
    buf_release(&line);
}
