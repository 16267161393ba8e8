/* A borrowed run of bytes: pointer and length, passed by value. NUL is not promised after it; names
 * of strings that do end in NUL end in `z`. Nothing here allocates. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p; /* may be NULL when n is 0 */
    size_t n;      /* bytes */
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
/* The same in the initialiser of a static table, where C11 wants a constant. */
#define STR_INIT(literal) {"" literal, sizeof(literal) - 1}
#define STR_NONE ((struct str){NULL, 0})
/* For printf's "%.*s". */
#define STR_ARG(s) (int)(s).n, (s).n ? (s).p : ""

static inline struct str str_z(const char *z)
{
    return (struct str){z, z ? strlen(z) : 0};
}

static inline struct str str_of(const void *p, size_t n)
{
    return (struct str){(const char *)p, n};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_eqz(struct str a, const char *z)
{
    return str_eq(a, str_z(z));
}

static inline bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* Copies s into dst of `room` bytes, always NUL-terminated; returns false when it had to cut. */
bool str_copyz(char *dst, size_t room, struct str s);

/* A decimal integer that fills all of s (optional '-'): true and *out set, else false. */
bool str_int(struct str s, int64_t *out);

/* Levenshtein's distance, for hints at names; SIZE_MAX when one has more than 32 bytes. */
size_t str_distance(struct str a, struct str b);

/* Offset of the first byte that is not well-formed UTF-8 (RFC 3629), or s.n when all is. */
size_t str_utf8_bad(struct str s);
