/* Ids of jobs whose completion is in the log, as far as this worker heard of it: what it ended
 * itself, what was cancelled, and what ended lately when it took partitions over. A log that others
 * write to may bring such a job again (a client that sent it twice, a cancel order that came before
 * its job): it is not to run. Memory is bounded: two generations of SETTLED_MAX ids; when the
 * younger one is full the older goes. An id is kept as 96 bits of its SHA-256, with 32 of its job's
 * digest, where that is known: another job that comes with the id is told from a repeat. Most ids
 * that are asked for are not here: a filter of 256 KiB a generation says so without the SHA-256.
 * Loop thread only. */
#pragma once
#include "base/str.h"

struct job;

#define SETTLED_MAX ((size_t)1 << 17)

struct settled_key {
    uint64_t id;         /* 0: a free slot */
    uint32_t more, mark; /* more of the id; of the digest, 0: unknown */
};

enum settled_as {
    SETTLED_NOT,
    SETTLED_SAME, /* or one of the two digests is unknown */
    SETTLED_OTHER,
};

struct settled_ids;

struct settled {
    struct settled_ids *young, *old; /* NULL: none yet */
    size_t n_young;
};

/* A name as a key of a map: its bytes, without a mark. */
struct settled_key settled_key(struct str tenant, struct str id);
void settled_init(struct settled *s);
void settled_release(struct settled *s);
/* What settled keeps of a digest, by its hex digits; 0 when these are none. */
uint32_t settled_mark(struct str digits);
uint32_t settled_mark_of(const struct job *j);
/* hash: tasks_hash of tenant and id. */
void settled_add(struct settled *s, uint64_t hash, struct str tenant, struct str id, uint32_t mark);
enum settled_as settled_look(const struct settled *s, uint64_t hash, struct str tenant,
                             struct str id, uint32_t mark);
bool settled_has(const struct settled *s, uint64_t hash, struct str tenant, struct str id);
