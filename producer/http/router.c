#include "producer/http/router.h"
#include <stdio.h>

static unsigned method_bit(struct str method)
{
    static const char *const names[] = {"GET", "POST", "DELETE", "PUT"};

    for (unsigned i = 0; i < 4; i++) {
        if (str_eqz(method, names[i]))
            return 1U << i;
    }
    return 0;
}

/* The next segment of *path (without its slashes); false at the end. */
static bool next_segment(struct str *path, struct str *segment)
{
    size_t n = 0;

    if (path->n == 0)
        return false;
    path->p++, path->n--; /* the slash */
    while (n < path->n && path->p[n] != '/')
        n++;
    *segment = str_of(path->p, n);
    path->p += n, path->n -= n;
    return true;
}

static bool matches(struct str pattern, struct str path, struct str *vars)
{
    size_t n_vars = 0;
    struct str want, have;

    while (next_segment(&pattern, &want)) {
        if (!next_segment(&path, &have))
            return false;
        if (want.n > 0 && want.p[0] == '{') {
            if (have.n == 0 || n_vars == REQUEST_VARS)
                return false;
            vars[n_vars++] = have;
        } else if (!str_eq(want, have)) {
            return false;
        }
    }
    return path.n == 0;
}

const struct route *router_find(const struct route *table, struct str method, struct str path,
                                struct str *vars, unsigned *allow_mask)
{
    *allow_mask = 0;
    if (path.n == 0 || path.p[0] != '/')
        return NULL;
    if (str_eqz(method, "HEAD"))
        method = STR("GET");
    for (const struct route *r = table; r->methodz; r++) {
        if (!matches(str_z(r->patternz), path, vars))
            continue;
        if (str_eqz(method, r->methodz))
            return r;
        *allow_mask |= method_bit(str_z(r->methodz));
    }
    return NULL;
}

void router_allow(unsigned mask, char dst[64])
{
    snprintf(dst, 64, "%s%s%s%s", mask & ROUTER_GET ? "GET, HEAD, " : "",
             mask & ROUTER_POST ? "POST, " : "", mask & ROUTER_DELETE ? "DELETE, " : "",
             mask & ROUTER_PUT ? "PUT, " : "");
    size_t n = strlen(dst);
    if (n >= 2)
        dst[n - 2] = 0;
}
