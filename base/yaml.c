#include "base/yaml.h"
#include "base/buf.h"
#include <stdlib.h>
#include <yaml.h>

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 64 };

const struct yaml *yaml_member(const struct yaml *map, struct str name)
{
    const struct yaml *y;

    for (y = map->child; y; y = y->next)
        if (str_eq(y->name, name))
            return y;
    return NULL;
}

bool yaml_is_null(const struct yaml *y)
{
    return y->type == YAML_SCALAR && !y->is_quoted &&
           (y->scalar.n == 0 || str_eq(y->scalar, STR("~")) || str_eq(y->scalar, STR("null")));
}

/* A parse in progress: libyaml's events, read one at a time by functions that call each other as
 * the document nests. */
struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one to be handled; always initialised */
    const char *namez;
    struct err *e;
    int depth;
};

static int fail_at(struct reader *r, yaml_mark_t mark, const char *whyz, struct str what)
{
    return err_set(r->e, ERR_INVALID, "%s:%zu:%zu: %s%s%.*s", r->namez, mark.line + 1,
                   mark.column + 1, whyz, what.n ? " " : "", STR_ARG(what));
}

static int fail_in_parser(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    yaml_mark_t mark = p->problem_mark;

    if (p->error == YAML_MEMORY_ERROR)
        abort();
    if (p->error == YAML_READER_ERROR) /* has an offset only: the parser stands just before it */
        mark = p->mark;
    return fail_at(r, mark, p->problem ? p->problem : "not YAML", STR_NONE);
}

/* Replaces r->event by the next one. */
static int step(struct reader *r)
{
    yaml_event_delete(&r->event);
    return yaml_parser_parse(&r->parser, &r->event) ? 0 : fail_in_parser(r);
}

static struct str copy_str(struct str s)
{
    return str_of(xstrdup(s), s.n);
}

static struct yaml *new_node(const struct reader *r, enum yaml_type type)
{
    struct yaml *y = xcalloc(1, sizeof *y);

    y->type = type;
    y->line = (int)r->event.start_mark.line + 1;
    y->column = (int)r->event.start_mark.column + 1;
    return y;
}

static size_t env_name_bytes(struct str s)
{
    size_t n = 0;

    while (n < s.n && ((s.p[n] >= 'A' && s.p[n] <= 'Z') || (s.p[n] >= 'a' && s.p[n] <= 'z') ||
                       s.p[n] == '_' || (n > 0 && s.p[n] >= '0' && s.p[n] <= '9')))
        n++;
    return n;
}

/* Adds the value of the `${NAME}` that s begins with, and gives the bytes it takes in s. */
static int add_env(struct reader *r, struct str s, struct buf *out, size_t *taken)
{
    struct str name = str_of(s.p + 2, env_name_bytes(str_of(s.p + 2, s.n - 2)));
    char *namez;
    const char *valuez;

    if (name.n == 0 || name.n + 2 == s.n || s.p[name.n + 2] != '}')
        return fail_at(r, r->event.start_mark, "malformed ${NAME}", STR_NONE);
    namez = xstrdup(name);
    valuez = getenv(namez);
    free(namez);
    if (!valuez)
        return fail_at(r, r->event.start_mark, "environment variable is not set:", name);
    *taken = name.n + 3;
    return buf_addz(out, valuez);
}

static int expand(struct reader *r, struct str s, struct buf *out)
{
    size_t i = 0, taken;

    while (i < s.n) {
        taken = 1;
        if (s.n - i < 2 || s.p[i] != '$' || s.p[i + 1] != '{')
            buf_addc(out, s.p[i]);
        else if (add_env(r, str_of(s.p + i, s.n - i), out, &taken))
            return ERR_INVALID;
        i += taken;
    }
    if (out->is_over)
        return fail_at(r, r->event.start_mark, "more than 1 MiB", STR_NONE);
    if (str_utf8_bad(buf_str(out)) < out->n || (out->n && memchr(out->p, '\0', out->n)))
        return fail_at(r, r->event.start_mark, "not UTF-8, or with a NUL", STR_NONE);
    return 0;
}

static int read_node(struct reader *r, struct yaml **out);

static int read_scalar(struct reader *r, struct yaml **out)
{
    struct str s = str_of(r->event.data.scalar.value, r->event.data.scalar.length);
    struct yaml *y = new_node(r, YAML_SCALAR);
    struct buf text;
    int rc;

    *out = y;
    y->is_quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    buf_init(&text, MAX_BYTES);
    rc = expand(r, s, &text);
    y->is_expanded = s.n > 0 && memmem(s.p, s.n, "${", 2) != NULL;
    if (rc == 0)
        y->scalar = copy_str(buf_str(&text));
    buf_release(&text);
    return rc ? rc : step(r);
}

static int read_list(struct reader *r, struct yaml **out)
{
    struct yaml *list = *out = new_node(r, YAML_LIST), **at = &list->child;
    int rc = step(r);

    while (rc == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
        rc = read_node(r, at);
        if (rc == 0)
            at = &(*at)->next;
    }
    return rc ? rc : step(r);
}

static int refuse_marks(struct reader *r)
{
    const yaml_event_t *ev = &r->event;
    bool has_anchor = false, has_tag = false;

    if (ev->type == YAML_SCALAR_EVENT) {
        has_anchor = ev->data.scalar.anchor;
        has_tag = ev->data.scalar.tag;
    } else if (ev->type == YAML_SEQUENCE_START_EVENT) {
        has_anchor = ev->data.sequence_start.anchor;
        has_tag = ev->data.sequence_start.tag;
    } else if (ev->type == YAML_MAPPING_START_EVENT) {
        has_anchor = ev->data.mapping_start.anchor;
        has_tag = ev->data.mapping_start.tag;
    }
    if (has_anchor || ev->type == YAML_ALIAS_EVENT)
        return fail_at(r, ev->start_mark, "anchors and aliases are not supported", STR_NONE);
    if (has_tag)
        return fail_at(r, ev->start_mark, "tags are not supported", STR_NONE);
    return 0;
}

/* Reads one key and its value, which goes to *out. */
static int read_member(struct reader *r, const struct yaml *map, struct yaml **out)
{
    yaml_mark_t mark = r->event.start_mark;
    struct str key, name;
    int rc = refuse_marks(r);

    if (rc)
        return rc;
    if (r->event.type != YAML_SCALAR_EVENT)
        return fail_at(r, mark, "a key must be a plain word", STR_NONE);
    key = str_of(r->event.data.scalar.value, r->event.data.scalar.length);
    if (yaml_member(map, key))
        return fail_at(r, mark, "duplicate key", key);
    name = copy_str(key);
    rc = step(r);
    if (rc == 0)
        rc = read_node(r, out);
    if (!*out) {
        free((void *)name.p);
        return rc;
    }
    (*out)->name = name;
    (*out)->name_line = (int)mark.line + 1;
    (*out)->name_column = (int)mark.column + 1;
    return rc;
}

static int read_map(struct reader *r, struct yaml **out)
{
    struct yaml *map = *out = new_node(r, YAML_MAP), **at = &map->child;
    int rc = step(r);

    while (rc == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
        rc = read_member(r, map, at);
        if (rc == 0)
            at = &(*at)->next;
    }
    return rc ? rc : step(r);
}

/* Reads the node that r->event begins, and steps behind it. On failure *out is NULL or what was
 * read so far. */
static int read_node(struct reader *r, struct yaml **out)
{
    int rc = refuse_marks(r);

    if (rc)
        return rc;
    if (r->event.type == YAML_SCALAR_EVENT)
        return read_scalar(r, out);
    if (r->depth == MAX_DEPTH)
        return fail_at(r, r->event.start_mark, "nested more than 64 deep", STR_NONE);
    r->depth++;
    rc = r->event.type == YAML_SEQUENCE_START_EVENT ? read_list(r, out) : read_map(r, out);
    r->depth--;
    return rc;
}

/* Reads the only document, from the stream's first event to its last. */
static int read_stream(struct reader *r, struct yaml **out)
{
    int rc;

    if ((rc = step(r)) != 0 || (rc = step(r)) != 0)
        return rc;
    if (r->event.type == YAML_DOCUMENT_START_EVENT) {
        if ((rc = step(r)) != 0 || (rc = read_node(r, out)) != 0 || (rc = step(r)) != 0)
            return rc;
        if (r->event.type != YAML_STREAM_END_EVENT)
            return fail_at(r, r->event.start_mark, "more than one document", STR_NONE);
    } else {
        *out = new_node(r, YAML_MAP);
    }
    if ((*out)->type == YAML_SCALAR && !(*out)->is_quoted && (*out)->scalar.n == 0)
        (*out)->type = YAML_MAP; /* "---" and nothing in it */
    return 0;
}

struct yaml *yaml_parse(struct str text, const char *namez, struct err *e)
{
    struct reader r = {.namez = namez, .e = e};
    struct yaml *y = NULL;
    int rc;

    if (text.n > MAX_BYTES) {
        err_set(e, ERR_TOO_LARGE, "%s:1:1: more than 1 MiB", namez);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser))
        abort();
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.n ? text.p : ""), text.n);
    rc = read_stream(&r, &y);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (rc) {
        yaml_tree_free(y);
        return NULL;
    }
    return y;
}

void yaml_tree_free(struct yaml *y)
{
    struct yaml *next;

    for (; y; y = next) {
        next = y->next;
        yaml_tree_free(y->child);
        free((void *)y->name.p);
        free((void *)y->scalar.p);
        free(y);
    }
}
