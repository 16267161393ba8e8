/* How far a batch run's output is on disk: lines, bytes, and a digest of the ids and jobs of those
 * lines, so that the next run knows whether its input still begins the same. Two points: the end,
 * and the first line that did not succeed (to go back to: failed lines are tried again). Kept in
 * one small file, replaced atomically. */
#pragma once
#include "base/err.h"
#include "base/sha256.h"

struct mark_point {
    int64_t n_lines, n_bytes;
    uint8_t digest[SHA256_LEN];
};

struct mark {
    struct mark_point end;
    bool has_failed;
    struct mark_point failed; /* just before the first line that did not succeed */
};

/* Reads the file; a missing or broken one gives the mark of an empty output. */
void mark_load(struct mark *m, const char *pathz);
/* Writes it and makes it durable (temporary file, fsync, rename, fsync of the directory). */
int mark_save(const struct mark *m, const char *pathz, struct err *e);

/* Digest of no lines, and of the lines so far with one more: its id, and its job's digest (at most
 * SHA256_LEN bytes, or none), for lines may name the same id and say another thing. */
void mark_digest_init(uint8_t digest[SHA256_LEN]);
void mark_digest_add(uint8_t digest[SHA256_LEN], struct str id, struct str job);
