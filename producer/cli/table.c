#include "producer/cli/table.h"
#include "producer/cli/progress.h"
#include <stdlib.h>

enum { CELL_MAX_BYTES = 1 << 20 };

void table_init(struct table *t, const char *alignz)
{
    memset(t, 0, sizeof *t);
    t->alignz = alignz;
    t->n_columns = strlen(alignz);
}

void table_release(struct table *t)
{
    size_t i;

    for (i = 0; i < t->n_cells; i++)
        free((char *)t->cells[i].p);
    free(t->cells);
    table_init(t, t->alignz);
}

size_t table_width(struct str s)
{
    size_t i, n = 0;

    for (i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

void table_put_clean(struct buf *b, struct str s)
{
    size_t i;

    for (i = 0; i < s.n; i++) {
        bool is_control = (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F;

        buf_addc(b, is_control ? '?' : s.p[i]);
    }
}

void table_add(struct table *t, struct str text)
{
    struct buf b;
    size_t n;

    if (t->n_cells == t->room) {
        t->room = t->room ? t->room * 2 : 64;
        t->cells = xrealloc(t->cells, t->room * sizeof t->cells[0]);
    }
    buf_init(&b, CELL_MAX_BYTES);
    table_put_clean(&b, text);
    t->cells[t->n_cells].p = buf_take(&b, &n);
    t->cells[t->n_cells++].n = n;
}

void table_addz(struct table *t, const char *textz)
{
    table_add(t, str_z(textz));
}

void table_add_int(struct table *t, int64_t v)
{
    struct buf b;

    buf_init(&b, 32);
    buf_addi(&b, v);
    table_add(t, buf_str(&b));
    buf_release(&b);
}

void table_add_count(struct table *t, int64_t v)
{
    struct buf b;

    buf_init(&b, 32);
    progress_put_count(&b, v);
    table_add(t, buf_str(&b));
    buf_release(&b);
}

static size_t column_width(const struct table *t, size_t column)
{
    size_t i, width, widest = 0;

    for (i = column; i < t->n_cells; i += t->n_columns) {
        width = table_width(t->cells[i]);
        widest = width > widest ? width : widest;
    }
    return widest;
}

static void pad(struct buf *b, size_t n)
{
    while (n-- > 0)
        buf_addc(b, ' ');
}

static void print_row(const struct table *t, const size_t *widths, size_t at, struct buf *b)
{
    size_t i, blanks;

    for (i = 0; i < t->n_columns; i++) {
        blanks = widths[i] - table_width(t->cells[at + i]);
        pad(b, i > 0 ? 2 : 0);
        if (t->alignz[i] == 'r')
            pad(b, blanks);
        buf_adds(b, t->cells[at + i]);
        if (t->alignz[i] != 'r')
            pad(b, blanks);
    }
    while (b->n > 0 && b->p[b->n - 1] == ' ')
        b->n--;
    buf_addc(b, '\n');
}

void table_print(const struct table *t, struct buf *b)
{
    size_t *widths = xcalloc(t->n_columns, sizeof widths[0]);
    size_t i;

    for (i = 0; i < t->n_columns; i++)
        widths[i] = column_width(t, i);
    for (i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
        print_row(t, widths, i, b);
    free(widths);
}
