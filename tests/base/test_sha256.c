#include "base/sha256.h"
#include "tests/lib/test.h"
#include <pthread.h>

static void check_digest(struct str data, const char *wantz)
{
    uint8_t digest[SHA256_LEN];
    char text[2 * SHA256_LEN + 1];

    sha256(data, digest);
    hex(digest, sizeof digest, text);
    CHECK_STR(str_z(text), wantz);
}

TEST(examples_of_fips_180)
{
    check_digest(STR_NONE, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest(STR("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest(STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void *hash_often(void *data)
{
    int i;

    (void)data;
    for (i = 0; i < 1000; i++)
        check_digest(STR("abc"),
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    return NULL;
}

TEST(threads_have_contexts_of_their_own)
{
    pthread_t threads[4];
    int i;

    for (i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, hash_often, NULL), 0);
    for (i = 0; i < 4; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
}
