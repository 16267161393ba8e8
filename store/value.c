#include "store/value.h"
#include <assert.h>
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
    size_t depth = 0;

    while (at < s.n) {
        switch (s.p[at]) {
        case '"':
            at = skip_string(s, at);
            if (depth == 0)
                return at;
            continue;
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
        case ',':
            if (depth == 0)
                return at;
            break;
        default:
            break;
        }
        at++;
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

void value_find(struct str json, const char *const *names, size_t n, struct str *raw)
{
    struct str name;
    size_t at = skip_space(json, 0), end, i, n_found = 0;

    assert(n <= 16);
    for (i = 0; i < n; i++)
        raw[i] = STR_NONE;
    if (at == json.n || json.p[at] != '{')
        return;
    while (n_found < n) {
        at = skip_space(json, at + 1); /* behind '{' or ',' */
        if (at >= json.n || json.p[at] != '"')
            return;
        end = skip_string(json, at);
        name = str_of(json.p + at + 1, end - at > 2 ? end - at - 2 : 0);
        at = skip_space(json, end);
        if (at >= json.n || json.p[at] != ':')
            return;
        at = skip_space(json, at + 1);
        end = skip_value(json, at);
        for (i = 0; i < n; i++) {
            if (!raw[i].p && str_eqz(name, names[i])) {
                raw[i] = trim_end(str_of(json.p + at, end - at));
                n_found++;
            }
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
