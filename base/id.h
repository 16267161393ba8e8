/* Identifiers. */
#pragma once
#include "base/str.h"

#define ID_MAX 64  /* bytes of a client's id, without NUL */
#define ULID_LEN 26

/* Writes a ULID (github.com/ulid/spec): 48 bits of wall ms, 80 random bits, Crockford base 32,
 * NUL-terminated; ids made by one thread in the same ms are increasing. */
void id_ulid(int64_t wall_ms, char dst[ULID_LEN + 1]);

/* 1..64 bytes of [A-Za-z0-9._-]. */
bool id_is_valid(struct str s);

/* n random bytes from getrandom(2). */
void id_random(void *dst, size_t n);
