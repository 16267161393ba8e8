#include "broker-config/setting.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { NAME_MAX_BYTES = 256, VALUE_MAX_BYTES = 8192 };

void strings_add(char ***list, char *z)
{
    size_t n = 0;

    while (*list && (*list)[n])
        n++;
    *list = xrealloc(*list, (n + 2) * sizeof **list);
    (*list)[n] = z;
    (*list)[n + 1] = NULL;
}

void strings_free(char **list)
{
    size_t i;

    for (i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

static void *member_of(const struct setting *s, const void *base)
{
    return (char *)(uintptr_t)base + s->at;
}

static void set_int(const struct setting *s, void *base, int64_t v)
{
    int narrow = (int)v;

    if (s->size == sizeof v)
        memcpy(member_of(s, base), &v, sizeof v);
    else
        memcpy(member_of(s, base), &narrow, sizeof narrow);
}

static int64_t get_int(const struct setting *s, const void *base)
{
    int64_t v;
    int narrow;

    if (s->size == sizeof v) {
        memcpy(&v, member_of(s, base), sizeof v);
        return v;
    }
    memcpy(&narrow, member_of(s, base), sizeof narrow);
    return narrow;
}

static void set_text(const struct setting *s, void *base, struct str v)
{
    char **at = member_of(s, base);

    free(*at);
    *at = xstrdup(v);
}

static int read_int(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    int64_t v;

    if (s->type == SETTING_AUTO_INT && str_eq(y->scalar, STR("auto"))) {
        set_int(s, base, 0);
        return 0;
    }
    if ((y->is_quoted && !y->is_expanded) || !str_int(y->scalar, &v))
        return err_set(e, ERR_INVALID, "must be a whole number%s",
                       s->type == SETTING_AUTO_INT ? " or auto" : "");
    if (v < s->min || v > s->max)
        return err_set(e, ERR_INVALID, "must be from %lld to %lld", (long long)s->min,
                       (long long)s->max);
    set_int(s, base, v);
    return 0;
}

static int read_enum(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    struct buf all;
    int i;

    buf_init(&all, 1024);
    for (i = 0; s->names[i]; i++) {
        if (str_eqz(y->scalar, s->names[i])) {
            set_int(s, base, i);
            buf_release(&all);
            return 0;
        }
        buf_addf(&all, "%s%s", i ? ", " : "", s->names[i]);
    }
    err_set(e, ERR_INVALID, "must be %s%s", i > 1 ? "one of " : "", all.p);
    buf_release(&all);
    return ERR_INVALID;
}

/* The decimal forms of JSON and YAML alone: no hexadecimal, infinity or NaN, as strtod would
 * take. */
static int read_real(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    char text[64], *end = text;
    double v = 0;

    if ((!y->is_quoted || y->is_expanded) && str_copyz(text, sizeof text, y->scalar) &&
        strspn(text, "0123456789.eE+-") == y->scalar.n)
        v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || v < 0)
        return err_set(e, ERR_INVALID, "must be a number that is not negative");
    memcpy(member_of(s, base), &v, sizeof v);
    return 0;
}

/* What YAML can hold as an escape only, or would fold: C0, DEL, C1, U+2028, U+2029, U+FEFF,
 * U+FFFE and U+FFFF. `n` bytes are there at p. */
static bool is_control(const unsigned char *p, size_t n)
{
    if (p[0] < 0x20 || p[0] == 0x7f)
        return true;
    if (n >= 2 && p[0] == 0xc2)
        return p[1] < 0xa0;
    if (n < 3)
        return false;
    return (p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) ||
           (p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) ||
           (p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe);
}

int setting_check_text(struct str v, int64_t min, int64_t max, struct err *e)
{
    size_t i;

    for (i = 0; i < v.n; i++)
        if (is_control((const unsigned char *)v.p + i, v.n - i))
            return err_set(e, ERR_INVALID, "must hold no control characters");
    if ((int64_t)v.n < min || (int64_t)v.n > max)
        return err_set(e, ERR_INVALID, "must be %lld to %lld bytes long", (long long)min,
                       (long long)max);
    return 0;
}

static int read_scalar(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    int rc;

    if (y->type != YAML_SCALAR)
        return err_set(e, ERR_INVALID, "must be a single value");
    if (yaml_is_null(y))
        return err_set(e, ERR_INVALID, "has no value");
    if (s->type == SETTING_INT || s->type == SETTING_AUTO_INT)
        return read_int(s, base, y, e);
    if (s->type == SETTING_ENUM)
        return read_enum(s, base, y, e);
    if (s->type == SETTING_REAL)
        return read_real(s, base, y, e);
    rc = setting_check_text(y->scalar, s->min, s->max, e);
    if (rc == 0)
        set_text(s, base, y->scalar);
    return rc;
}

/* RFC 9110, section 5.6.2. */
static bool is_token(struct str s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    size_t i;

    for (i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'A' && s.p[i] <= 'Z') ||
              (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] && strchr(others, s.p[i]))))
            return false;
    return s.n > 0;
}

static bool is_names(const struct setting *s)
{
    return s->type == SETTING_NAMES || s->type == SETTING_AUTO_NAMES;
}

static bool is_strings(const struct setting *s)
{
    return is_names(s) || s->type == SETTING_PAIRS;
}

static int read_element(const struct setting *s, const struct yaml *y, struct buf *out,
                        struct err *e)
{
    int rc;

    if (y->type != YAML_SCALAR || yaml_is_null(y))
        return err_set(e, ERR_INVALID, "must hold single values");
    if (is_names(s)) {
        buf_adds(out, y->scalar);
        return setting_check_text(y->scalar, 1, NAME_MAX_BYTES, e);
    }
    if (!is_token(y->name) || y->name.n > NAME_MAX_BYTES)
        return err_set(e, ERR_INVALID, "\"%.*s\" is no name", STR_ARG(y->name));
    rc = setting_check_text(y->scalar, 0, VALUE_MAX_BYTES, e);
    buf_addf(out, "%.*s: %.*s", STR_ARG(y->name), STR_ARG(y->scalar));
    return rc;
}

static int read_strings(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    const struct yaml *child;
    char ***list = member_of(s, base);
    struct buf b;
    int64_t n = 0;
    int rc;

    if (s->type == SETTING_AUTO_NAMES && str_eq(y->scalar, STR("auto")))
        return 0;
    if (s->type == SETTING_AUTO_NAMES && (y->type != YAML_LIST || !y->child))
        return err_set(e, ERR_INVALID, "must be auto, or a list of one name at least");
    if (y->type != (is_names(s) ? YAML_LIST : YAML_MAP))
        return err_set(e, ERR_INVALID, is_names(s) ? "must be a list" : "must be a map");
    for (child = y->child; child; child = child->next) {
        if (++n > s->max)
            return err_set(e, ERR_INVALID, "must hold %lld at most", (long long)s->max);
        buf_init(&b, NAME_MAX_BYTES + VALUE_MAX_BYTES + 2);
        rc = read_element(s, child, &b, e);
        if (rc) {
            buf_release(&b);
            return rc;
        }
        strings_add(list, buf_take(&b, NULL));
    }
    return 0;
}

int setting_read(const struct setting *s, void *base, const struct yaml *y, struct err *e)
{
    if (is_strings(s))
        return read_strings(s, base, y, e);
    return read_scalar(s, base, y, e);
}

void setting_set_default(const struct setting *s, void *base)
{
    struct yaml y = {.type = YAML_SCALAR, .scalar = str_z(s->defaultz)};
    int rc = 0;

    if (is_strings(s))
        *(char ***)member_of(s, base) = xcalloc(1, sizeof(char *));
    else if (s->type == SETTING_TEXT || s->type == SETTING_SECRET)
        set_text(s, base, y.scalar); /* "" where the value must be given */
    else
        rc = read_scalar(s, base, &y, NULL);
    assert(rc == 0);
    (void)rc;
}

void setting_release(const struct setting *s, void *base)
{
    if (s->type == SETTING_TEXT || s->type == SETTING_SECRET)
        free(*(char **)member_of(s, base));
    else if (is_strings(s))
        strings_free(*(char ***)member_of(s, base));
}

/* ---- printing ---- */

void setting_print_quoted(struct buf *b, struct str s)
{
    size_t i;

    buf_addc(b, '"');
    for (i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            buf_addc(b, '\\');
        buf_addc(b, s.p[i]);
    }
    buf_addc(b, '"');
}

static void print_strings(const struct setting *s, char *const *list, struct buf *b)
{
    bool is_list = is_names(s);
    size_t i;

    if (s->type == SETTING_AUTO_NAMES && !list[0]) {
        buf_addz(b, "auto");
        return;
    }
    buf_addc(b, is_list ? '[' : '{');
    for (i = 0; list[i]; i++) {
        buf_addz(b, i ? ", " : "");
        setting_print_quoted(b, is_list ? str_z(list[i]) : str_of(list[i], strcspn(list[i], ":")));
        buf_addz(b, is_list ? "" : ": \"***\""); /* may hold credentials */
    }
    buf_addc(b, is_list ? ']' : '}');
}

void setting_print(const struct setting *s, const void *base, struct buf *b)
{
    const void *at = member_of(s, base);
    const char *z;

    if (is_strings(s)) {
        print_strings(s, *(char *const *const *)at, b);
    } else if (s->type == SETTING_TEXT || s->type == SETTING_SECRET) {
        z = *(const char *const *)at;
        setting_print_quoted(b, s->type == SETTING_SECRET && *z ? STR("***") : str_z(z));
    } else if (s->type == SETTING_ENUM) {
        buf_addz(b, s->names[get_int(s, base)]);
    } else if (s->type == SETTING_REAL) {
        buf_addf(b, "%.15g", *(const double *)at);
    } else if (s->type == SETTING_AUTO_INT && get_int(s, base) == 0) {
        buf_addz(b, "auto");
    } else {
        buf_addi(b, get_int(s, base));
    }
}
