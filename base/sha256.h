/* SHA-256 (FIPS 180-4) through libcrypto: this file's .c is its only includer. */
#pragma once
#include "base/str.h"

#define SHA256_LEN 32

void sha256(struct str data, uint8_t out[SHA256_LEN]);
/* Lower-case hex of n bytes into dst of 2n + 1 bytes. */
void hex(const uint8_t *p, size_t n, char *dst);
/* The other way: false (dst then holds nothing useful) when s is not 2n lower-case hex digits. */
bool unhex(struct str s, uint8_t *dst, size_t n);
