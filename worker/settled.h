/* Ids of jobs whose completion is in the log, as far as this worker heard of it: what it ended
 * itself, what was cancelled, and what ended lately when it took partitions over. A log that others write to may bring such a job again (a client
 * that sent it twice, a cancel order that came before its job): it is not to run. Memory is
 * bounded: two generations of SETTLED_MAX ids; when the younger one is full the older goes. An id
 * is kept as 128 bits of its SHA-256. Loop thread only. */
#pragma once
#include "base/str.h"

#define SETTLED_MAX ((size_t)1 << 17)

struct settled_key {
    uint64_t h[2]; /* both 0: a free slot */
};

struct settled {
    struct settled_key *young, *old; /* open addressing in 2 * SETTLED_MAX slots; NULL: none yet */
    size_t n_young;
};

struct settled_key settled_key(struct str tenant, struct str id);
void settled_init(struct settled *s);
void settled_release(struct settled *s);
void settled_add(struct settled *s, struct str tenant, struct str id);
bool settled_has(const struct settled *s, struct str tenant, struct str id);
