/* YAML 1.1 through libyaml (this file's .c is its only includer): a file to a small tree that keeps
 * line and column, for messages. Anchors and tags are refused; `${NAME}` in scalars is replaced from
 * the environment (unset: error). */
#pragma once
#include "base/err.h"
#include "base/str.h"

enum yaml_type { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml {
    enum yaml_type type;
    int line, column;    /* from 1 */
    struct str name;     /* its key, when a member of a map */
    int name_line, name_column;
    struct str scalar;   /* for YAML_SCALAR */
    bool is_quoted;      /* the scalar stood in quotes: never null, bool or number */
    bool is_expanded;    /* it holds a ${NAME}'s value; in [] and {} that must be quoted, and may be
                          * a number all the same */
    struct yaml *child;  /* first element or member */
    struct yaml *next;   /* sibling */
};

/* Parses `text`; an empty document gives an empty map. NULL and *e ("name:line:column: why") when
 * it is no YAML (ERR_INVALID), has duplicate keys, or is past 1 MiB (ERR_TOO_LARGE).
 * Caller frees with yaml_tree_free. */
struct yaml *yaml_parse(struct str text, const char *namez, struct err *e);
/* The map's member of this name, or NULL. */
const struct yaml *yaml_member(const struct yaml *map, struct str name);
/* Nothing at all, ~ or null, out of quotes. */
bool yaml_is_null(const struct yaml *y);
void yaml_tree_free(struct yaml *y); /* not yaml_free: libyaml exports, and calls, one of its own */
