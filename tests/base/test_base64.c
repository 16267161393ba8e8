#include "base/base64.h"
#include "tests/lib/test.h"
#include <stdlib.h>

static void check_pair(const char *bytesz, const char *textz)
{
    struct str bytes = str_z(bytesz), text = str_z(textz);
    uint8_t back[16];
    char out[16];

    CHECK_INT(BASE64_CHARS(bytes.n), text.n);
    CHECK_INT(BASE64_BYTES(text.n), bytes.n);
    CHECK_INT(base64_encode((const uint8_t *)bytesz, bytes.n, out), text.n);
    CHECK_STR(str_of(out, text.n), textz);
    CHECK(base64_decode(text, back));
    CHECK_STR(str_of(back, bytes.n), bytesz);
}

TEST(examples_of_rfc_4648_without_padding)
{
    check_pair("", "");
    check_pair("f", "Zg");
    check_pair("fo", "Zm8");
    check_pair("foo", "Zm9v");
    check_pair("foob", "Zm9vYg");
    check_pair("fooba", "Zm9vYmE");
    check_pair("foobar", "Zm9vYmFy");
    check_pair("\xfb\xff\xbf", "+/+/");
}

TEST(every_length_and_byte_comes_back)
{
    uint8_t bytes[256], back[256];
    char text[BASE64_CHARS(sizeof bytes)];
    size_t n, i;

    for (n = 0; n <= sizeof bytes; n++) {
        for (i = 0; i < n; i++)
            bytes[i] = (uint8_t)(i * 37 + n);
        CHECK_INT(base64_encode(bytes, n, text), BASE64_CHARS(n));
        CHECK_INT(BASE64_BYTES(BASE64_CHARS(n)), n);
        CHECK(base64_decode(str_of(text, BASE64_CHARS(n)), back));
        CHECK(memcmp(bytes, back, n) == 0);
    }
}

TEST(what_is_no_base64_is_refused)
{
    static const char *const bad[] = {"A",    "AAAAA", "Zg==", "Zh",      "Zm9",  "Zm 9v", "Zm9v\n",
                                      "Zm-v", "Zm_v",  "Zm.v", "Zm9\xff", "@@@@", "[[[[",  "````"};
    uint8_t dst[8];
    size_t i;

    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!base64_decode(str_z(bad[i]), dst));
    CHECK(!base64_decode(STR("AA\0A"), dst));
}
