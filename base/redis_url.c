#include "base/redis_url.h"
#include "base/buf.h"
#include <stdio.h>
#include <stdlib.h>

enum { PORT_DEFAULT = 6379, DB_MAX = 65535, HOST_MAX_BYTES = 255, PATH_MAX_BYTES = 107 };

/* Takes what stands before the first (last: is_last) `c` off *s, and c with it. STR_NONE, and *s
 * unchanged, when there is no c. */
static struct str take_until(struct str *s, char c, bool is_last)
{
    const char *p = NULL;
    struct str head;

    if (s->n > 0)
        p = is_last ? memrchr(s->p, c, s->n) : memchr(s->p, c, s->n);
    if (!p)
        return STR_NONE;
    head = str_of(s->p, (size_t)(p - s->p));
    *s = str_of(p + 1, s->n - head.n - 1);
    return head;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, 2.1. NULL when it is malformed, or hides a NUL. */
static char *decode(struct str s)
{
    char *z = xmalloc(s.n + 1);
    size_t i, n = 0;
    int high, low;

    for (i = 0; i < s.n; i++) {
        z[n++] = s.p[i];
        if (s.p[i] != '%')
            continue;
        high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
        low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
        if (high < 0 || low < 0 || high + low == 0) {
            free(z);
            return NULL;
        }
        z[n - 1] = (char)(high * 16 + low);
        i += 2;
    }
    z[n] = '\0';
    return z;
}

static int read_credentials(struct redis_url *u, struct str s, struct err *e)
{
    struct str user = take_until(&s, ':', false);

    free(u->user);
    free(u->password);
    u->user = decode(user);
    u->password = decode(s);
    if (!u->user || !u->password)
        return err_set(e, ERR_INVALID, "user or password has a malformed %%-escape");
    if (!user.p || s.n == 0)
        return err_set(e, ERR_INVALID, "before the @ must stand user:password, or :password");
    return 0;
}

static int read_db(struct redis_url *u, struct str s, struct err *e)
{
    int64_t db;

    if (!str_int(s, &db) || db < 0 || db > DB_MAX)
        return err_set(e, ERR_INVALID, "the database must be a number from 0 to %d", DB_MAX);
    u->db = (int)db;
    return 0;
}

static int read_port(struct redis_url *u, struct str s, struct err *e)
{
    int64_t port;

    if (!str_int(s, &port) || port < 1 || port > 65535)
        return err_set(e, ERR_INVALID, "the port must be a number from 1 to 65535");
    u->port = (int)port;
    return 0;
}

/* host, host:port, [v6] or [v6]:port */
static int read_host(struct redis_url *u, struct str s, struct err *e)
{
    struct str host = s, port = STR_NONE;

    if (s.n > 0 && s.p[0] == '[') {
        s = str_of(s.p + 1, s.n - 1);
        host = take_until(&s, ']', false);
        if (!host.p || (s.n > 0 && s.p[0] != ':'))
            return err_set(e, ERR_INVALID, "the address in [] is malformed");
        if (s.n > 0)
            port = str_of(s.p + 1, s.n - 1);
    } else if (memchr(s.n ? s.p : "", ':', s.n)) {
        host = take_until(&s, ':', false);
        port = s;
    }
    if (host.n == 0 || host.n > HOST_MAX_BYTES)
        return err_set(e, ERR_INVALID, "it names no host");
    u->host = xstrdup(host);
    u->port = PORT_DEFAULT;
    return port.p ? read_port(u, port, e) : 0;
}

static int read_tcp(struct redis_url *u, struct str s, struct err *e)
{
    struct str credentials = take_until(&s, '@', true), host = take_until(&s, '/', false);
    int rc = credentials.p ? read_credentials(u, credentials, e) : 0;

    if (!host.p) {
        host = s;
        s = STR_NONE;
    }
    rc = rc ? rc : read_host(u, host, e);
    if (rc == 0 && s.n > 0)
        rc = read_db(u, s, e);
    if (rc == 0)
        snprintf(u->name, sizeof u->name, strchr(u->host, ':') ? "[%s]:%d" : "%s:%d", u->host,
                 u->port);
    return rc;
}

static int read_unix(struct redis_url *u, struct str s, struct err *e)
{
    struct str path, credentials = STR_NONE;
    int rc = 0;

    if (str_starts(s, STR("//"))) {
        s = str_of(s.p + 2, s.n - 2);
        credentials = take_until(&s, '@', true);
    }
    if (credentials.p)
        rc = read_credentials(u, credentials, e);
    path = take_until(&s, '?', false);
    if (!path.p) {
        path = s;
    } else if (rc == 0) {
        if (!str_starts(s, STR("db=")))
            return err_set(e, ERR_INVALID, "after the path only ?db=n may stand");
        rc = read_db(u, str_of(s.p + 3, s.n - 3), e);
    }
    if (rc)
        return rc;
    if (path.n == 0 || path.p[0] != '/' || path.n > PATH_MAX_BYTES)
        return err_set(e, ERR_INVALID,
                       "a socket's path must begin with / and have at most %d bytes",
                       PATH_MAX_BYTES);
    u->path = xstrdup(path);
    snprintf(u->name, sizeof u->name, "%s", u->path);
    return 0;
}

int redis_url_parse(struct redis_url *u, struct str text, struct err *e)
{
    int rc;

    *u = (struct redis_url){.user = xstrdup(STR("")), .password = xstrdup(STR(""))};
    if (str_starts(text, STR("redis://")))
        rc = read_tcp(u, str_of(text.p + 8, text.n - 8), e);
    else if (str_starts(text, STR("unix:")))
        rc = read_unix(u, str_of(text.p + 5, text.n - 5), e);
    else if (str_starts(text, STR("rediss://")))
        rc = err_set(e, ERR_INVALID,
                     "TLS (rediss://) is not built in: put a tunnel (stunnel, ghostunnel) on this "
                     "machine and name its address");
    else
        rc = err_set(e, ERR_INVALID, "must be redis://host:port/db or unix:/path");
    if (rc)
        redis_url_release(u);
    return rc;
}

void redis_url_release(struct redis_url *u)
{
    free(u->host);
    free(u->path);
    free(u->user);
    free(u->password);
    *u = (struct redis_url){.host = NULL};
}
