#include "store/value.h"
#include <stdlib.h>

/* at: a string's opening quote. Gives the place behind the closing one. */
static size_t skip_string(struct str s, size_t at)
{
    const char *quote, *p;
    size_t from = at + 1, n_slashes;

    while (from < s.n && (quote = memchr(s.p + from, '"', s.n - from))) {
        n_slashes = 0;
        for (p = quote; p > s.p + from && p[-1] == '\\'; p--)
            n_slashes++;
        from = (size_t)(quote - s.p) + 1;
        if (n_slashes % 2 == 0)
            return from;
    }
    return s.n;
}

/* at: a value's first byte. Gives the place behind it. */
static size_t skip_value(struct str s, size_t at)
{
    static const bool is_mark[256] = {
        ['"'] = true, ['{'] = true, ['['] = true, ['}'] = true, [']'] = true, [','] = true};
    size_t depth = 0;

    for (; at < s.n; at++) {
        if (!is_mark[(unsigned char)s.p[at]])
            continue;
        switch (s.p[at]) {
        case '"':
            at = skip_string(s, at) - 1;
            if (depth == 0)
                return at + 1;
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return at;
            if (--depth == 0)
                return at + 1;
            break;
        default: /* a comma */
            if (depth == 0)
                return at;
            break;
        }
    }
    return at;
}

static size_t skip_space(struct str s, size_t at)
{
    while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\n' || s.p[at] == '\r' || s.p[at] == '\t'))
        at++;
    return at;
}

static struct str trim_end(struct str s)
{
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\n' || s.p[s.n - 1] == '\r' ||
                       s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Is this the member that starts at its name's quote? */
static bool is_member(struct str s, size_t at, struct str name)
{
    return s.n - at > name.n + 2 && s.p[at + name.n + 1] == '"' && s.p[at + name.n + 2] == ':' &&
           memcmp(s.p + at + 1, name.p, name.n) == 0;
}

/* Which of the names the member at `at` has, or n; *colon: the place of its colon. Members that are
 * asked for in the order they stand in are found at the first look: `next` is the one behind the
 * last found. */
static size_t name_at(struct str s, size_t at, const struct str *names, size_t n, size_t next,
                      size_t *colon)
{
    struct str name;
    size_t end, i;

    if (next < n && is_member(s, at, names[next])) {
        *colon = at + names[next].n + 2;
        return next;
    }
    end = skip_string(s, at);
    name = str_of(s.p + at + 1, end - at > 2 ? end - at - 2 : 0);
    *colon = skip_space(s, end);
    for (i = 0; i < n && !str_eq(name, names[i]); i++)
        ;
    return i;
}

void value_find(struct str json, const struct str *names, size_t n, struct str *raw)
{
    size_t at = skip_space(json, 0), end, i, next = 0, n_found = 0;

    for (i = 0; i < n; i++)
        raw[i] = STR_NONE;
    if (at == json.n || json.p[at] != '{')
        return;
    while (n_found < n) {
        at = skip_space(json, at + 1); /* behind '{' or ',' */
        if (at >= json.n || json.p[at] != '"')
            return;
        i = name_at(json, at, names, n, next, &at);
        if (at >= json.n || json.p[at] != ':')
            return;
        at = skip_space(json, at + 1);
        end = skip_value(json, at);
        if (i < n && !raw[i].p) {
            raw[i] = trim_end(str_of(json.p + at, end - at));
            next = i + 1;
            n_found++;
        }
        at = skip_space(json, end);
        if (at >= json.n || json.p[at] != ',')
            return;
    }
}

bool value_next(struct str array, size_t *at, struct str *raw)
{
    size_t start = skip_space(array, *at);

    if (start >= array.n || (array.p[start] != '[' && array.p[start] != ','))
        return false;
    start = skip_space(array, start + 1);
    *at = skip_value(array, start);
    *raw = trim_end(str_of(array.p + start, *at - start));
    return raw->n > 0;
}

struct str value_text(struct str raw)
{
    if (raw.n < 2 || raw.p[0] != '"' || memchr(raw.p, '\\', raw.n))
        return STR_NONE;
    return str_of(raw.p + 1, raw.n - 2);
}

int64_t value_int(struct str raw)
{
    int64_t v = 0;

    return str_int(raw, &v) ? v : 0;
}

double value_num(struct str raw)
{
    char text[64];

    return str_copyz(text, sizeof text, raw) ? strtod(text, NULL) : 0;
}
