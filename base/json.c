#include "base/json.h"
#include "base/json_check.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* cJSON tokenises; json_check refuses before it what it lets through beyond RFC 8259. So cJSON sees
 * only text whose strings and brackets are closed. */

enum { EXACT_DIGITS = 15 /* that a double holds, whichever they are */ };

static int set_invalid(struct err *e, size_t at, const char *whyz)
{
    return err_set(e, ERR_INVALID, "invalid JSON at byte %zu: %s", at, whyz);
}

static int check(struct str text, struct err *e)
{
    size_t at;
    const char *whyz = json_check(text, &at);

    return whyz ? set_invalid(e, at, whyz) : 0;
}

static size_t skip_space(struct str text, size_t at)
{
    while (at < text.n &&
           (text.p[at] == ' ' || text.p[at] == '\n' || text.p[at] == '\r' || text.p[at] == '\t'))
        at++;
    return at;
}

/* Parses the value at *at of checked text, and moves *at behind it. */
static cJSON *parse_value(struct str text, size_t *at, struct err *e)
{
    const char *end = NULL;
    cJSON *value;

    if (*at == text.n) {
        set_invalid(e, *at, text.n ? "the text ends too early" : "empty");
        return NULL;
    }
    value = cJSON_ParseWithLengthOpts(text.p + *at, text.n - *at, &end, 0);
    *at = end ? (size_t)(end - text.p) : *at;
    if (!value)
        set_invalid(e, *at, "unexpected token");
    return value;
}

struct json *json_parse(struct str text, struct err *e)
{
    cJSON *value;
    size_t at;

    if (check(text, e))
        return NULL;
    at = skip_space(text, 0);
    value = parse_value(text, &at, e);
    if (!value)
        return NULL;
    at = skip_space(text, at);
    if (at < text.n) {
        set_invalid(e, at, "more text behind the value");
        cJSON_Delete(value);
        return NULL;
    }
    return (struct json *)value;
}

static const cJSON *item_of(const struct json *j)
{
    return (const cJSON *)(const void *)j;
}

void json_free(struct json *j)
{
    cJSON_Delete((cJSON *)j);
}

enum json_type json_type(const struct json *j)
{
    switch (j ? item_of(j)->type & 0xFF : cJSON_NULL) {
    case cJSON_True:
    case cJSON_False:
        return JSON_BOOL;
    case cJSON_Number:
        return JSON_NUMBER;
    case cJSON_String:
        return JSON_STRING;
    case cJSON_Array:
        return JSON_ARRAY;
    case cJSON_Object:
        return JSON_OBJECT;
    default:
        return JSON_NULL;
    }
}

const struct json *json_get(const struct json *j, const char *namez)
{
    const cJSON *member;

    if (!j || json_type(j) != JSON_OBJECT)
        return NULL;
    for (member = item_of(j)->child; member; member = member->next)
        if (strcmp(member->string, namez) == 0)
            return (const struct json *)member;
    return NULL;
}

const struct json *json_child(const struct json *j)
{
    return j ? (const struct json *)item_of(j)->child : NULL;
}

const struct json *json_next(const struct json *j)
{
    return (const struct json *)item_of(j)->next;
}

struct str json_name(const struct json *j)
{
    return str_z(item_of(j)->string);
}

size_t json_count(const struct json *j)
{
    size_t n = 0;
    const struct json *child;

    for (child = json_child(j); child; child = json_next(child))
        n++;
    return n;
}

struct str json_str(const struct json *j)
{
    if (!j || json_type(j) != JSON_STRING)
        return STR_NONE;
    return str_z(item_of(j)->valuestring);
}

bool json_num(const struct json *j, double *out)
{
    if (!j || json_type(j) != JSON_NUMBER || !isfinite(item_of(j)->valuedouble))
        return false;
    *out = item_of(j)->valuedouble;
    return true;
}

/* Whether d is an integer that no other integer's text gives too. */
static bool is_exact_int(double d)
{
    return d > -9007199254740992.0 && d < 9007199254740992.0 && (double)(int64_t)d == d;
}

bool json_int(const struct json *j, int64_t *out)
{
    double d;

    if (!json_num(j, &d) || !is_exact_int(d))
        return false;
    *out = (int64_t)d;
    return true;
}

bool json_is_true(const struct json *j)
{
    return j && (item_of(j)->type & 0xFF) == cJSON_True;
}

/* Shortest of the usual precisions that reads back as the same double; cJSON's own printing loses
 * the last bits. Infinity, from a text such as 1e999, has no JSON: null. */
static void put_double(struct buf *b, double d)
{
    char digits[32];
    int precision;

    if (is_exact_int(d)) {
        buf_addi(b, (int64_t)d);
        return;
    }
    if (!isfinite(d)) {
        buf_addz(b, "null");
        return;
    }
    for (precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, d);
        if (!(strtod(digits, NULL) < d) && !(strtod(digits, NULL) > d))
            break;
    }
    buf_addz(b, digits);
}

/* Recursive: parsed values nest at most 64 deep. */
static void put_value(struct buf *b, const struct json *j)
{
    const struct json *child;
    bool is_object = json_type(j) == JSON_OBJECT;

    switch (json_type(j)) {
    case JSON_NULL:
        buf_addz(b, "null");
        return;
    case JSON_BOOL:
        buf_addz(b, json_is_true(j) ? "true" : "false");
        return;
    case JSON_NUMBER:
        put_double(b, item_of(j)->valuedouble);
        return;
    case JSON_STRING:
        json_put_str(b, json_str(j));
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    buf_addc(b, is_object ? '{' : '[');
    for (child = json_child(j); child; child = json_next(child)) {
        if (is_object) {
            json_put_str(b, json_name(child));
            buf_addc(b, ':');
        }
        put_value(b, child);
        if (json_next(child))
            buf_addc(b, ',');
    }
    buf_addc(b, is_object ? '}' : ']');
}

int json_print(const struct json *j, struct buf *b)
{
    put_value(b, j);
    return b->is_over ? ERR_TOO_LARGE : 0;
}

enum { AT_START, AT_FIRST, AT_REST, AT_END, HAS_FAILED };

void json_members_init(struct json_members *m, struct str text)
{
    *m = (struct json_members){.text = text, .state = AT_START};
}

static void free_member(struct json_members *m)
{
    json_free(m->key_owned);
    json_free(m->value_owned);
    m->key_owned = m->value_owned = NULL;
}

static int fail_members(struct json_members *m, struct err *e, const char *whyz)
{
    m->state = HAS_FAILED;
    return set_invalid(e, m->at, whyz);
}

static bool is_at(const struct json_members *m, char c)
{
    return m->at < m->text.n && m->text.p[m->at] == c;
}

/* Checks all of the text and enters the object. */
static int open_object(struct json_members *m, struct err *e)
{
    if (check(m->text, e)) {
        m->state = HAS_FAILED;
        return ERR_INVALID;
    }
    m->at = skip_space(m->text, 0);
    if (!is_at(m, '{'))
        return fail_members(m, e, "expected an object");
    m->at++;
    m->state = AT_FIRST;
    return 0;
}

static int close_object(struct json_members *m, struct err *e)
{
    m->at = skip_space(m->text, m->at + 1);
    if (m->at < m->text.n)
        return fail_members(m, e, "more text behind the value");
    m->state = AT_END;
    return 0;
}

/* Reads the name at m->at: most have no escape and are a slice of the text. */
static int take_name(struct json_members *m, struct err *e)
{
    size_t start = m->at + 1, end;
    uint64_t high = 0;

    if (!is_at(m, '"'))
        return fail_members(m, e, "expected a member's name");
    end = json_skip_plain(m->text, start, &high);
    if (m->text.p[end] == '"') {
        m->name = str_of(m->text.p + start, end - start);
        m->at = end + 1;
        return 0;
    }
    m->key_owned = (struct json *)parse_value(m->text, &m->at, e);
    if (!m->key_owned) {
        m->state = HAS_FAILED;
        return ERR_INVALID;
    }
    m->name = json_str(m->key_owned);
    return 0;
}

/* Steps over the string at m->at; it was checked before, so it has an end. */
static void skip_string(struct json_members *m)
{
    uint64_t high = 0;

    m->at = json_skip_plain(m->text, m->at + 1, &high);
    while (m->text.p[m->at] == '\\')
        m->at = json_skip_plain(m->text, m->at + 2, &high);
    m->at++;
}

/* Steps over the word at m->at, if it is this one. */
static bool skip_word(struct json_members *m, struct str word, enum json_type type)
{
    if (!str_starts(str_of(m->text.p + m->at, m->text.n - m->at), word))
        return false;
    m->type = type;
    m->at += word.n;
    return true;
}

/* Steps over a value that needs no parser to find its end. False: it is none of these. */
static bool skip_scalar(struct json_members *m)
{
    size_t start = m->at;

    if (start == m->text.n)
        return false;
    switch (m->text.p[start]) {
    case '"':
        m->type = JSON_STRING;
        skip_string(m);
        return true;
    case 't':
        return skip_word(m, STR("true"), JSON_BOOL);
    case 'f':
        return skip_word(m, STR("false"), JSON_BOOL);
    case 'n':
        return skip_word(m, STR("null"), JSON_NULL);
    default:
        m->type = JSON_NUMBER;
        m->at = json_skip_number(m->text, start);
        return m->at > start;
    }
}

static int take_value(struct json_members *m, struct err *e)
{
    size_t start = m->at;

    if (!skip_scalar(m)) {
        m->value_owned = (struct json *)parse_value(m->text, &m->at, e);
        if (!m->value_owned) {
            m->state = HAS_FAILED;
            return ERR_INVALID;
        }
        m->type = json_type(m->value_owned);
    }
    m->raw = str_of(m->text.p + start, m->at - start);
    return 1;
}

const struct json *json_members_value(struct json_members *m)
{
    size_t at = 0;

    if (!m->value_owned)
        m->value_owned = (struct json *)parse_value(m->raw, &at, NULL);
    return m->value_owned;
}

struct str json_members_str(struct json_members *m)
{
    if (m->type != JSON_STRING)
        return STR_NONE;
    if (!memchr(m->raw.p, '\\', m->raw.n))
        return str_of(m->raw.p + 1, m->raw.n - 2);
    return json_str(json_members_value(m));
}

bool json_members_int(struct json_members *m, int64_t *out)
{
    if (m->type != JSON_NUMBER)
        return false;
    return (m->raw.n <= EXACT_DIGITS && str_int(m->raw, out)) ||
           json_int(json_members_value(m), out);
}

bool json_members_is_true(const struct json_members *m)
{
    return m->type == JSON_BOOL && m->raw.p[0] == 't';
}

int json_members_next(struct json_members *m, struct err *e)
{
    free_member(m);
    if (m->state == AT_END)
        return 0;
    if (m->state == HAS_FAILED)
        return fail_members(m, e, "unexpected token");
    if (m->state == AT_START && open_object(m, e))
        return ERR_INVALID;
    m->at = skip_space(m->text, m->at);
    if (is_at(m, '}'))
        return close_object(m, e);
    if (m->state == AT_REST) {
        if (!is_at(m, ','))
            return fail_members(m, e, "expected , or }");
        m->at = skip_space(m->text, m->at + 1);
    }
    m->state = AT_REST;
    if (take_name(m, e))
        return ERR_INVALID;
    m->at = skip_space(m->text, m->at);
    if (!is_at(m, ':'))
        return fail_members(m, e, "expected :");
    m->at = skip_space(m->text, m->at + 1);
    return take_value(m, e);
}

void json_members_release(struct json_members *m)
{
    free_member(m);
    m->state = AT_END;
}

static void put_escape(struct buf *b, unsigned char c)
{
    static const char names[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
    };
    char short_form[2] = {'\\', (char)c};

    if (c < 0x20 && !names[c]) {
        buf_addf(b, "\\u%04x", c);
        return;
    }
    if (c < 0x20)
        short_form[1] = names[c];
    buf_add(b, short_form, 2);
}

void json_put_str(struct buf *b, struct str s)
{
    size_t at, end;
    uint64_t high = 0;

    buf_addc(b, '"');
    for (at = 0; at < s.n; at = end + 1) {
        end = json_skip_plain(s, at, &high);
        buf_add(b, s.p + at, end - at);
        if (end < s.n)
            put_escape(b, (unsigned char)s.p[end]);
    }
    buf_addc(b, '"');
}

void json_put_name(struct buf *b, const char *namez)
{
    buf_addc(b, '"');
    buf_addz(b, namez);
    buf_add(b, "\":", 2);
}

void json_put_member_str(struct buf *b, const char *namez, struct str s)
{
    json_put_name(b, namez);
    json_put_str(b, s);
}

void json_put_member_int(struct buf *b, const char *namez, int64_t v)
{
    json_put_name(b, namez);
    buf_addi(b, v);
}

void json_put_member_bool(struct buf *b, const char *namez, bool v)
{
    json_put_name(b, namez);
    buf_addz(b, v ? "true" : "false");
}

void json_put_member_raw(struct buf *b, const char *namez, struct str raw)
{
    json_put_name(b, namez);
    buf_adds(b, raw.n ? raw : STR("null"));
}

void json_put_member_opt(struct buf *b, const char *namez, struct str s)
{
    if (s.p)
        json_put_member_str(b, namez, s);
    else
        json_put_member_raw(b, namez, STR_NONE);
}
