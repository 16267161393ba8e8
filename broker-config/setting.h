/* The rows of setting.def as data: reading one value of genq.yaml into its member, its default, and
 * printing it. Knows no key by name. Used by config.c, config_load.c and config_print.c alone. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/yaml.h"

enum setting_type {
    SETTING_TEXT,       /* char *; min and max are bytes; no control characters */
    SETTING_SECRET,     /* the same, never printed */
    SETTING_INT,        /* int or int64_t */
    SETTING_AUTO_INT,   /* the same, or "auto": 0 */
    SETTING_ENUM,       /* an enum */
    SETTING_REAL,       /* double >= 0 */
    SETTING_NAMES,      /* char **, NULL-terminated; max is how many */
    SETTING_AUTO_NAMES, /* the same, of one at least, or "auto": empty */
    SETTING_PAIRS       /* the same, of "name: value"; header fields, properties */
};

struct setting {
    const char *pathz; /* "broker.sync" */
    enum setting_type type;
    const char *const *names; /* of an enum's values, NULL-terminated */
    size_t at, size;          /* the member's place in its struct, in bytes */
    const char *defaultz;
    int64_t min, max;
    const char *docz;
};

/* The rows of one kind of map, and what may stand there one day: "path", or "path: value". */
struct settings {
    const struct setting *rows;
    size_t n;
    const char *const *unbuilt; /* NULL-terminated */
    const char *const *others;  /* further keys, for hints */
};

extern const struct settings settings_main, settings_engine, settings_model;

/* Gives every member of `base` (zeroed before) its default; frees them. */
void settings_init(const struct settings *s, void *base);
void settings_release(const struct settings *s, void *base);
/* The row of a path, or NULL. */
const struct setting *settings_find(const struct settings *s, struct str path);
bool settings_has_group(const struct settings *s, struct str path);
bool settings_is_unbuilt(const struct settings *s, struct str path);
/* Key of the map at `group` ("" for the top) nearest to `name`, or STR_NONE when none is near. */
struct str settings_hint(const struct settings *s, struct str group, struct str name);

void setting_set_default(const struct setting *s, void *base);
void setting_release(const struct setting *s, void *base);
/* Reads the value into its member. ERR_INVALID with why, without place and path. */
int setting_read(const struct setting *s, void *base, const struct yaml *y, struct err *e);
/* ERR_INVALID with why: a length in bytes out of range, control characters. */
int setting_check_text(struct str v, int64_t min, int64_t max, struct err *e);
/* Appends the value as YAML on one line. */
void setting_print(const struct setting *s, const void *base, struct buf *b);
/* Appends z in double quotes. */
void setting_print_quoted(struct buf *b, struct str s);

/* Lists of strings: NULL-terminated, owned. */
void strings_add(char ***list, char *z); /* takes z */
void strings_free(char **list);
