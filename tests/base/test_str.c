#include "tests/lib/test.h"

TEST(copyz_cuts_and_says_so)
{
    char dst[4];

    CHECK(str_copyz(dst, sizeof dst, STR("abc")));
    CHECK_STR(str_z(dst), "abc");
    CHECK(!str_copyz(dst, sizeof dst, STR("abcd")));
    CHECK_STR(str_z(dst), "abc");
    CHECK(str_copyz(dst, 1, STR_NONE));
    CHECK_STR(str_z(dst), "");
}

TEST(int_takes_all_of_the_text)
{
    static const struct {
        const char *textz;
        bool is_ok;
        int64_t value;
    } rows[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"-12", true, -12},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x1", false, 0},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t v = 0;

        CHECK_INT(str_int(str_z(rows[i].textz), &v), rows[i].is_ok);
        CHECK_INT(v, rows[i].value);
    }
}

/* Each row is tried alone, and after 8 and 13 ASCII bytes, so that it meets both paths. */
TEST(utf8_bad_finds_the_first_bad_byte)
{
    static const struct {
        const char *textz;
        int bad; /* -1: none */
    } rows[] = {
        {"", -1},
        {"plain text that is long enough", -1},
        {"\xC3\xA9t\xC3\xA9", -1},
        {"\xE2\x82\xAC", -1},
        {"\xF0\x9F\x98\x80", -1},
        {"\xF4\x8F\xBF\xBF", -1},         /* U+10FFFF */
        {"\xEF\xBF\xBF", -1},             /* U+FFFF */
        {"a\x80", 1},                     /* lone continuation */
        {"\xC0\xAF", 0},                  /* overlong */
        {"\xC1\xBF", 0},
        {"\xE0\x9F\xBF", 0},
        {"\xF0\x8F\xBF\xBF", 0},
        {"\xED\xA0\x80", 0},              /* surrogate */
        {"\xF4\x90\x80\x80", 0},          /* past U+10FFFF */
        {"\xF5\x80\x80\x80", 0},
        {"ab\xE2\x82", 2},                /* cut */
        {"ab\xF0\x9F\x98", 2},
        {"\xE2\x82z", 0},
        {"\xC3", 0},
        {"\xFF", 0},
    };
    static const size_t ahead[] = {0, 8, 13};
    char text[64];
    size_t i, k, n;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (k = 0; k < 3; k++) {
            memset(text, 'x', ahead[k]);
            str_copyz(text + ahead[k], sizeof text - ahead[k], str_z(rows[i].textz));
            n = strlen(text);
            CHECK_INT(str_utf8_bad(str_of(text, n)),
                      rows[i].bad < 0 ? n : ahead[k] + (size_t)rows[i].bad);
        }
    }
}

TEST(distance_counts_edits)
{
    char longz[40];

    memset(longz, 'a', sizeof longz);
    CHECK_INT(str_distance(STR("prompt"), STR("prompt")), 0);
    CHECK_INT(str_distance(STR("promt"), STR("prompt")), 1);
    CHECK_INT(str_distance(STR("kitten"), STR("sitting")), 3);
    CHECK_INT(str_distance(STR_NONE, STR("abc")), 3);
    CHECK_INT(str_distance(str_of(longz, 32), STR("a")), 31);
    CHECK(str_distance(str_of(longz, 33), STR("a")) == SIZE_MAX);
}
