/* JSON (RFC 8259) through cJSON; this file's .c is cJSON's only includer. Stricter than cJSON:
 * input must be well-formed UTF-8, may hold no NUL (neither raw nor \u0000, which cJSON would cut
 * at), and nests at most 64 deep; numbers have at most 63 characters. Numbers are doubles, so text
 * that is only passed on (options, messages, metadata) is kept as its source text: see
 * json_members_next.
 *
 * Writing is plain appending to a buf; commas are the caller's. Any thread, no shared state. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct json; /* a parsed value; values below it are borrowed from it */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Parses all of `text` (one value, white space around it). NULL and *e (ERR_INVALID, with the byte
 * position from 0) when it is not JSON. Caller frees with json_free (NULL allowed). */
struct json *json_parse(struct str text, struct err *e);
void json_free(struct json *j);

/* JSON_NULL for NULL: an absent member reads as null. */
enum json_type json_type(const struct json *j);
/* Member of an object by name (exact case); NULL when absent, or j is NULL or no object. */
const struct json *json_get(const struct json *j, const char *namez);
/* First child (of NULL: NULL) and next sibling, of arrays and objects; NULL at the end. */
const struct json *json_child(const struct json *j);
const struct json *json_next(const struct json *j);
struct str json_name(const struct json *j);   /* a member's name */
size_t json_count(const struct json *j);      /* children */
/* Text of a string; STR_NONE for NULL and other types. */
struct str json_str(const struct json *j);
/* An integral number of magnitude below 2^53 (from there on doubles skip integers): true and *out;
 * else false. json_num: any finite number. */
bool json_int(const struct json *j, int64_t *out);
bool json_num(const struct json *j, double *out);
bool json_is_true(const struct json *j);
/* Appends j compactly. */
int json_print(const struct json *j, struct buf *b);

/* Walks the members of a top-level object, giving each value both parsed and as its source text:
 *
 *     struct json_members m;
 *     json_members_init(&m, text);
 *     while ((rc = json_members_next(&m, &e)) > 0)
 *         use(m.name, m.raw, json_members_value(&m));
 *     json_members_release(&m);
 *
 * Strings, numbers and words are parsed only when their value is asked for: most are passed on.
 */
struct json_members {
    struct str name;          /* decoded; valid until the next call */
    enum json_type type;      /* of the value */
    struct str raw;           /* source text of the value, part of the text given */
    struct str text;          /* private from here on */
    size_t at;
    struct json *key_owned, *value_owned;
    int state;
};

void json_members_init(struct json_members *m, struct str text);
/* 1: a member; 0: the object has ended, and nothing but white space follows; negative: *e filled
 * (ERR_INVALID with the byte position). Same checks as json_parse. Duplicate names are the caller's
 * to notice. */
int json_members_next(struct json_members *m, struct err *e);
/* The value; valid until the next call. */
const struct json *json_members_value(struct json_members *m);
/* The text of a value that is a string, decoded, else STR_NONE; valid until the next call. Without
 * escapes it is part of the text given. */
struct str json_members_str(struct json_members *m);
/* As json_int and json_is_true of the value. */
bool json_members_int(struct json_members *m, int64_t *out);
bool json_members_is_true(const struct json_members *m);
void json_members_release(struct json_members *m);

/* Appends s as a JSON string with its quotes; s must be UTF-8. */
void json_put_str(struct buf *b, struct str s);
/* Appends `"name":` — name is one of ours and needs no escape. */
void json_put_name(struct buf *b, const char *namez);
/* `"name":"value"`, `"name":123`, `"name":true`, `"name":null`, `"name":<raw>`; no commas. */
void json_put_member_str(struct buf *b, const char *namez, struct str s);
void json_put_member_int(struct buf *b, const char *namez, int64_t v);
void json_put_member_bool(struct buf *b, const char *namez, bool v);
void json_put_member_raw(struct buf *b, const char *namez, struct str raw); /* empty raw: null */
/* A str that is NULL (p == NULL) gives null, else as json_put_member_str. */
void json_put_member_opt(struct buf *b, const char *namez, struct str s);
