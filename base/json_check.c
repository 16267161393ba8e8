#include "base/json_check.h"
#include <endian.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { MAX_DEPTH = 64, MAX_NUMBER = 63 /* cJSON's buffer for one */ };

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

static uint64_t load8(const unsigned char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

/* High bit set in each byte of `word` that is a quote, a backslash or a control character. A borrow
 * can set bits wrongly only above a right one, so the lowest is always right. */
static uint64_t find_special(uint64_t word)
{
    uint64_t quote = word ^ EACH_BYTE('"'), slash = word ^ EACH_BYTE('\\');

    return (((quote - EACH_BYTE(1)) & ~quote) | ((slash - EACH_BYTE(1)) & ~slash) |
            ((word - EACH_BYTE(0x20)) & ~word)) &
           EACH_BYTE(0x80);
}

static bool is_special(unsigned char c)
{
    return c == '"' || c == '\\' || c < 0x20;
}

#ifdef __SSE2__
/* A bit set for each of the 16 bytes at p that is special. */
static unsigned find_specials(const unsigned char *p, uint64_t *high)
{
    __m128i block = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
    __m128i slash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1F)), block);

    *high |= (unsigned)_mm_movemask_epi8(block);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control));
}
#endif

size_t json_skip_plain(struct str s, size_t at, uint64_t *high)
{
    const unsigned char *p = (const unsigned char *)s.p;
    uint64_t word, special;

#ifdef __SSE2__
    for (; s.n - at >= 16; at += 16) {
        unsigned found = find_specials(p + at, high);

        if (found)
            return at + (size_t)__builtin_ctz(found);
    }
#endif
    for (; s.n - at >= sizeof word; at += sizeof word) {
        word = load8(p + at);
        special = find_special(word);
        *high |= word & EACH_BYTE(0x80);
        if (special)
            return at + (size_t)__builtin_ctzll(special) / 8;
    }
    for (; at < s.n && !is_special(p[at]); at++)
        *high |= p[at] & 0x80u;
    return at;
}

struct checker {
    const unsigned char *p;
    size_t n, at;
    const char *whyz; /* set when a check failed; `at` is then where */
};

static bool fail(struct checker *c, size_t at, const char *whyz)
{
    c->at = at;
    c->whyz = whyz;
    return false;
}

/* The code unit of the \u escape at `at`; negative when there is none. */
static int hex4(const struct checker *c, size_t at)
{
    int v = 0;
    size_t i;

    if (c->n - at < 6 || c->p[at] != '\\' || c->p[at + 1] != 'u')
        return -1;
    for (i = at + 2; i < at + 6; i++) {
        unsigned char d = c->p[i];

        if (d >= '0' && d <= '9')
            v = v * 16 + (d - '0');
        else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
            v = v * 16 + ((d | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return v;
}

/* Steps over the escape at c->at. */
static bool check_escape(struct checker *c)
{
    int unit, low;

    if (c->n - c->at < 2)
        return fail(c, c->n, "string without an end");
    if (c->p[c->at + 1] != 'u') {
        if (!c->p[c->at + 1] || !strchr("\"\\/bfnrt", c->p[c->at + 1]))
            return fail(c, c->at, "unknown escape");
        c->at += 2;
        return true;
    }
    unit = hex4(c, c->at);
    if (unit < 0)
        return fail(c, c->at, "\\u without 4 hex digits");
    if (unit == 0)
        return fail(c, c->at, "\\u0000 in a string");
    if (unit >= 0xD800 && unit <= 0xDFFF) {
        low = unit < 0xDC00 ? hex4(c, c->at + 6) : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail(c, c->at, "half a surrogate pair");
        c->at += 6;
    }
    c->at += 6;
    return true;
}

/* Steps over the string that begins at c->at. */
static bool check_string(struct checker *c)
{
    size_t start = c->at + 1, bad;
    uint64_t high = 0;

    for (c->at = start;;) {
        c->at = json_skip_plain(str_of(c->p, c->n), c->at, &high);
        if (c->at == c->n)
            return fail(c, c->n, "string without an end");
        if (c->p[c->at] == '"')
            break;
        if (c->p[c->at] != '\\')
            return fail(c, c->at, "control character in a string");
        if (!check_escape(c))
            return false;
    }
    if (high) {
        bad = str_utf8_bad(str_of(c->p + start, c->at - start));
        if (bad < c->at - start)
            return fail(c, start + bad, "not UTF-8");
    }
    c->at++;
    return true;
}

static size_t skip_digits(struct str s, size_t at)
{
    while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
        at++;
    return at;
}

size_t json_skip_number(struct str s, size_t at)
{
    size_t start = at, digits;

    if (s.p[at] == '-')
        at++;
    digits = at;
    at = skip_digits(s, at);
    if (at == digits || (at - digits > 1 && s.p[digits] == '0'))
        return start;
    if (at < s.n && s.p[at] == '.') {
        digits = at + 1;
        at = skip_digits(s, digits);
        if (at == digits)
            return start;
    }
    if (at < s.n && (s.p[at] | 0x20) == 'e') {
        digits = at + 1;
        if (digits < s.n && (s.p[digits] == '+' || s.p[digits] == '-'))
            digits++;
        at = skip_digits(s, digits);
        if (at == digits)
            return start;
    }
    return at;
}

/* Steps over the number that begins at c->at. */
static bool check_number(struct checker *c)
{
    size_t end = json_skip_number(str_of(c->p, c->n), c->at);

    if (end == c->at)
        return fail(c, c->at, "malformed number");
    if (end - c->at > MAX_NUMBER)
        return fail(c, c->at, "number of more than 63 characters");
    c->at = end;
    return true;
}

/* Checks the text but for its grammar of brackets, commas, colons and words. */
static bool check_text(struct checker *c)
{
    uint64_t is_array = 0; /* one bit a level, the innermost lowest */
    int depth = 0;

    while (c->at < c->n) {
        unsigned char b = c->p[c->at];

        if (b == '"') {
            if (!check_string(c))
                return false;
            continue;
        }
        if (b == '-' || (b >= '0' && b <= '9')) {
            if (!check_number(c))
                return false;
            continue;
        }
        if (b == '{' || b == '[') {
            if (depth++ == MAX_DEPTH)
                return fail(c, c->at, "nested more than 64 deep");
            is_array = is_array << 1 | (b == '[');
        } else if (b == '}' || b == ']') {
            if (depth-- == 0 || (is_array & 1) != (b == ']'))
                return fail(c, c->at, "closing bracket without its opening one");
            is_array >>= 1;
        } else if (b > 0x7E || (b < 0x20 && b != '\n' && b != '\r' && b != '\t')) {
            return fail(c, c->at, "unexpected byte outside a string");
        }
        c->at++;
    }
    return depth == 0 || fail(c, c->n, "the text ends too early");
}

const char *json_check(struct str text, size_t *at)
{
    struct checker c = {(const unsigned char *)text.p, text.n, 0, NULL};

    check_text(&c);
    *at = c.at;
    return c.whyz;
}
