#include "base/buf.h"
#include "base/err.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_ROOM = 256 };

void *xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        abort();
    return p;
}

void *xmalloc(size_t n)
{
    return xrealloc(NULL, n);
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);

    if (!p)
        abort();
    return p;
}

char *xstrdup(struct str s)
{
    char *z = xmalloc(s.n + 1);

    str_copyz(z, s.n + 1, s);
    return z;
}

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){.max = max_bytes};
}

void buf_release(struct buf *b)
{
    free(b->p);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->is_over = false;
    if (b->p)
        b->p[0] = '\0';
}

char *buf_reserve(struct buf *b, size_t n)
{
    size_t room;

    if (b->n > b->max || n > b->max - b->n) {
        b->is_over = true;
        return NULL;
    }
    if (b->n + n + 1 > b->room) {
        room = b->room ? b->room : FIRST_ROOM;
        if (!b->room && n >= FIRST_ROOM) /* who reserves at the start knows what is coming */
            room = n + 1;
        while (room < b->n + n + 1)
            room += room;
        if (room > b->max) /* neither the ceiling nor the NUL after it needs more */
            room = b->max + 1;
        b->p = xrealloc(b->p, room);
        b->room = room;
        b->p[b->n] = '\0';
    }
    return b->p + b->n;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
    char *dst;

    /* There is never room past the ceiling: what fits needs no other check. */
    dst = b->room > b->n && n < b->room - b->n ? b->p + b->n : buf_reserve(b, n);
    if (!dst)
        return ERR_TOO_LARGE;
    if (n > 0)
        memcpy(dst, p, n);
    dst[n] = '\0';
    b->n += n;
    return 0;
}

int buf_addz(struct buf *b, const char *z)
{
    return buf_add(b, z, strlen(z));
}

int buf_addc(struct buf *b, char c)
{
    if (b->n + 1 >= b->room || b->n >= b->max)
        return buf_add(b, &c, 1);
    b->p[b->n++] = c;
    b->p[b->n] = '\0';
    return 0;
}

int buf_addi(struct buf *b, int64_t v)
{
    char digits[20]; /* as many as INT64_MIN with its sign has */
    char *p = digits + sizeof digits;
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        *--p = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (v < 0)
        *--p = '-';
    return buf_add(b, p, (size_t)(digits + sizeof digits - p));
}

int buf_addf(struct buf *b, const char *fmtz, ...)
{
    va_list args;
    char *dst;
    int n;

    va_start(args, fmtz);
    n = vsnprintf(NULL, 0, fmtz, args);
    va_end(args);
    assert(n >= 0);
    dst = buf_reserve(b, (size_t)n);
    if (!dst)
        return ERR_TOO_LARGE;
    va_start(args, fmtz);
    vsnprintf(dst, (size_t)n + 1, fmtz, args);
    va_end(args);
    b->n += (size_t)n;
    return 0;
}

void buf_eat(struct buf *b, size_t n)
{
    assert(n <= b->n);
    if (n == 0)
        return;
    b->n -= n;
    memmove(b->p, b->p + n, b->n);
    b->p[b->n] = '\0';
}

char *buf_take(struct buf *b, size_t *n)
{
    char *p = b->p ? b->p : xmalloc(1);

    p[b->n] = '\0';
    if (n)
        *n = b->n;
    buf_init(b, b->max);
    return p;
}
