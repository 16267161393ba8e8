#include "base/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(const uint8_t *p, size_t n, char *dst)
{
    size_t i, at = 0;
    uint32_t v;

    for (i = 0; i + 3 <= n; i += 3) {
        v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
        dst[at++] = digits[v >> 18];
        dst[at++] = digits[v >> 12 & 63];
        dst[at++] = digits[v >> 6 & 63];
        dst[at++] = digits[v & 63];
    }
    if (i == n)
        return at;
    v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0);
    dst[at++] = digits[v >> 18];
    dst[at++] = digits[v >> 12 & 63];
    if (i + 1 < n)
        dst[at++] = digits[v >> 6 & 63];
    return at;
}

/* 0..63, or -1. */
static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct str s, uint8_t *dst)
{
    uint32_t v = 0;
    unsigned n_bits = 0;
    size_t i;

    if (s.n % 4 == 1)
        return false;
    for (i = 0; i < s.n; i++) {
        int digit = digit_value(s.p[i]);

        if (digit < 0)
            return false;
        v = v << 6 | (uint32_t)digit;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            *dst++ = (uint8_t)(v >> n_bits);
            v &= (1u << n_bits) - 1;
        }
    }
    return v == 0;
}
