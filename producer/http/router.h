/* Finds a route by method and path. Pure. */
#pragma once
#include "producer/http/server.h"

/* The route of this method and path, vars filled (at most REQUEST_VARS). NULL: none; *allow_mask
 * then has ROUTER_… bits of the methods that the path does have (0: no such path). */
enum { ROUTER_GET = 1, ROUTER_POST = 2, ROUTER_DELETE = 4, ROUTER_PUT = 8 };
const struct route *router_find(const struct route *table, struct str method, struct str path,
                                struct str *vars, unsigned *allow_mask);

/* The mask as an Allow header's value, e.g. "GET, HEAD, POST". */
void router_allow(unsigned mask, char dst[64]);
