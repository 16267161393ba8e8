/* The address of a Redis, as its URL says it. Pure.
 *
 *     redis://[[user]:password@]host[:port][/db]
 *     unix:[//[[user]:password@]]/path[?db=n]
 *
 * Source: the provisional URI scheme at IANA, and what redis-cli -u takes. */
#pragma once
#include "base/err.h"
#include "base/str.h"

struct redis_url {
    char *host; /* NULL: `path` is a Unix socket's */
    char *path;
    char *user, *password; /* decoded; "" for none */
    int port, db;
    char name[320]; /* for people: without user and password */
};

/* Fills *u (release it), or ERR_INVALID with why, in which no password stands. */
int redis_url_parse(struct redis_url *u, struct str text, struct err *e);
void redis_url_release(struct redis_url *u);
