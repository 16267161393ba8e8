/* Aligned text tables. */
#pragma once
#include "base/buf.h"

struct table {
    const char *alignz; /* a letter a column: 'l' or 'r' */
    size_t n_columns, n_cells, room;
    struct str *cells;  /* owned texts, row by row */
};

/* alignz is borrowed. */
void table_init(struct table *t, const char *alignz);
void table_release(struct table *t);
/* Adds a cell, row by row; control characters become '?'. */
void table_add(struct table *t, struct str text);
void table_addz(struct table *t, const char *textz);
void table_add_int(struct table *t, int64_t v);
/* 3 digits and a unit: 12.3k. */
void table_add_count(struct table *t, int64_t v);
/* Appends all whole rows, columns two blanks apart, no blanks at the ends of lines. */
void table_print(const struct table *t, struct buf *b);

/* Columns of UTF-8 text, one a character. */
size_t table_width(struct str s);
/* Appends text with '?' for control characters: what others chose must not steer a terminal. */
void table_put_clean(struct buf *b, struct str s);
