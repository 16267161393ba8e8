#include "base/str.h"
#include <assert.h>

bool str_copyz(char *dst, size_t room, struct str s)
{
    size_t n = s.n < room ? s.n : room - 1;

    assert(room > 0);
    if (n > 0)
        memcpy(dst, s.p, n);
    dst[n] = '\0';
    return n == s.n;
}

bool str_int(struct str s, int64_t *out)
{
    bool is_negative = s.n > 0 && s.p[0] == '-';
    int64_t v = 0;
    size_t i = is_negative ? 1 : 0;

    if (i == s.n)
        return false;
    for (; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        /* Counts downwards, because INT64_MIN has no positive twin. */
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, s.p[i] - '0', &v))
            return false;
    }
    if (!is_negative && v == INT64_MIN)
        return false;
    *out = is_negative ? v : -v;
    return true;
}

enum { DISTANCE_MAX_BYTES = 32 };

size_t str_distance(struct str a, struct str b)
{
    size_t row[DISTANCE_MAX_BYTES + 1], i, j, corner, up;

    if (a.n > DISTANCE_MAX_BYTES || b.n > DISTANCE_MAX_BYTES)
        return SIZE_MAX;
    for (j = 0; j <= b.n; j++)
        row[j] = j;
    for (i = 1; i <= a.n; i++) {
        corner = row[0]++;
        for (j = 1; j <= b.n; j++) {
            up = row[j];
            corner += a.p[i - 1] != b.p[j - 1];
            row[j] = up + 1 < corner ? up + 1 : corner;
            if (row[j - 1] + 1 < row[j])
                row[j] = row[j - 1] + 1;
            corner = up;
        }
    }
    return row[b.n];
}

/* Bytes of the non-ASCII sequence at p, of which n are there; 0 when it is malformed. The first
 * continuation byte has a narrower range after E0, ED, F0 and F4: this refuses overlong forms,
 * surrogates and what lies past U+10FFFF (RFC 3629, section 4). */
static size_t sequence_bytes(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t want, i;

    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    want = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < want)
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (i = 2; i < want; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return want;
}

size_t str_utf8_bad(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0, n;
    uint64_t word;

    while (i < s.n) {
        if (s.n - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof word;
                continue;
            }
        }
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        n = sequence_bytes(p + i, s.n - i);
        if (n == 0)
            return i;
        i += n;
    }
    return s.n;
}
