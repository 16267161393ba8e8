/* A growable byte buffer, born with its ceiling. Past the ceiling an add changes nothing and the
 * buffer remembers it (`is_over`), so that a run of adds needs one check at its end. Allocation
 * failure aborts. Sources: git's strbuf, curl's dynbuf. */
#pragma once
#include "base/str.h"

struct buf {
    char *p;      /* NULL while empty; a NUL always stands at p[n] when p is set */
    size_t n;     /* bytes in use */
    size_t room;  /* bytes allocated */
    size_t max;   /* ceiling in bytes for n */
    bool is_over; /* an add was refused */
};

/* Makes an empty buffer of at most max_bytes; allocates nothing. */
void buf_init(struct buf *b, size_t max_bytes);
/* Frees the bytes; b is then as after buf_init. */
void buf_release(struct buf *b);
/* Empties b (and is_over) but keeps its memory. */
void buf_clear(struct buf *b);

/* Add at the end. Return 0 or ERR_TOO_LARGE. */
int buf_add(struct buf *b, const void *p, size_t n);
int buf_addz(struct buf *b, const char *z);
int buf_addc(struct buf *b, char c);
int buf_addi(struct buf *b, int64_t v); /* decimal */
int buf_addf(struct buf *b, const char *fmtz, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes and gives their address (to fill, then b->n += used; the NUL
 * behind is back with the next add or take), or NULL and is_over. */
char *buf_reserve(struct buf *b, size_t n);
/* Drops the first n bytes (n <= b->n). */
void buf_eat(struct buf *b, size_t n);

static inline int buf_adds(struct buf *b, struct str s)
{
    return buf_add(b, s.p, s.n);
}

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->p, b->n};
}

/* Gives the bytes away (caller frees with free(); NUL-terminated, never NULL) and empties b. */
char *buf_take(struct buf *b, size_t *n);

/* malloc and friends that abort instead of returning NULL: accepted jobs are in the log. */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(struct str s); /* NUL-terminated copy */
