/* Members of a record's value found without parsing all of it: a completion may carry megabytes
 * of output, of which the writer thread needs nothing. For JSON that genq wrote; of anything
 * else what is found may be wrong, but nothing outside the text is read. Any thread. */
#pragma once
#include "base/str.h"

/* Finds top-level members of an object by name, in one pass that ends when all are found.
 * raw[i]: the source text of names[i]'s value (part of `json`), STR_NONE when absent. Names that
 * stand in the order of the members are found fastest. */
void value_find(struct str json, const struct str *names, size_t n, struct str *raw);

/* Takes the next element off an array's source text: true and its source text in *raw. Begin with *at
 * 0; false at the end. */
bool value_next(struct str array, size_t *at, struct str *raw);

/* The text of a string's source text; one with escapes gives STR_NONE. */
struct str value_text(struct str raw);

/* A whole number's or a price's source text as a number; 0 when it is none. */
int64_t value_int(struct str raw);
double value_num(struct str raw);
