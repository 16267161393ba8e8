/* What commands read: stdin and files. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

/* Appends all of stdin. ERR_IO, ERR_TOO_LARGE. */
int input_read_stdin(struct buf *b, struct err *e);

/* A file's bytes, mapped: they take no memory of ours, whatever its size. */
struct input_map {
    void *p;
    size_t n;
};

/* Maps a file, or stdin for "-" (a pipe goes to an unnamed file first, in $TMPDIR or /tmp).
 * ERR_NOT_FOUND, ERR_IO. */
int input_map(struct input_map *m, const char *pathz, struct err *e);
void input_unmap(struct input_map *m);
