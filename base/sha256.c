#include "base/sha256.h"
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

/* Looking the algorithm up and making a context cost more than hashing a job: the first is done
 * once a process, the second once a thread. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t context_key;
static EVP_MD *algorithm;

static void free_context(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

static void set_up(void)
{
    algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!algorithm || pthread_key_create(&context_key, free_context))
        abort();
}

static EVP_MD_CTX *context_of_thread(void)
{
    EVP_MD_CTX *ctx;

    pthread_once(&once, set_up);
    ctx = pthread_getspecific(context_key);
    if (!ctx) {
        ctx = EVP_MD_CTX_new();
        if (!ctx || pthread_setspecific(context_key, ctx))
            abort();
    }
    return ctx;
}

void sha256(struct str data, uint8_t out[SHA256_LEN])
{
    EVP_MD_CTX *ctx = context_of_thread();

    /* Fails for lack of memory only. */
    if (!EVP_DigestInit_ex2(ctx, algorithm, NULL) || !EVP_DigestUpdate(ctx, data.p, data.n) ||
        !EVP_DigestFinal_ex(ctx, out, NULL))
        abort();
}

void hex(const uint8_t *p, size_t n, char *dst)
{
    size_t i;

    for (i = 0; i < n; i++) {
        dst[2 * i] = "0123456789abcdef"[p[i] >> 4];
        dst[2 * i + 1] = "0123456789abcdef"[p[i] & 15];
    }
    dst[2 * n] = '\0';
}

/* A digit's value + 1: hashes are random, so that a comparison would be guessed wrongly half the
 * time. */
static const uint8_t hex_digits[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

bool unhex(struct str s, uint8_t *dst, size_t n)
{
    size_t i;

    if (s.n != 2 * n)
        return false;
    for (i = 0; i < n; i++) {
        unsigned high = hex_digits[(uint8_t)s.p[2 * i]], low = hex_digits[(uint8_t)s.p[2 * i + 1]];

        if (high == 0 || low == 0)
            return false;
        dst[i] = (uint8_t)((high - 1) << 4 | (low - 1));
    }
    return true;
}
