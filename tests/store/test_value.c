#include "base/buf.h"
#include "store/value.h"
#include "tests/lib/test.h"
#include <stdlib.h>

static const struct str names[] = {STR_INIT("usage"), STR_INIT("calls"), STR_INIT("finished_at"),
                                   STR_INIT("cost")};

static void find(const char *jsonz, struct str raw[4])
{
    size_t n = strlen(jsonz);
    char *copy = xmalloc(n ? n : 1); /* without NUL, so that a read past the end is seen */

    memcpy(copy, jsonz, n);
    value_find(str_of(copy, n), names, 4, raw);
    for (size_t i = 0; i < 4; i++)
        if (raw[i].p)
            raw[i].p = jsonz + (raw[i].p - copy);
    free(copy);
}

TEST(finds_members_among_others)
{
    struct str raw[4];

    find("{\"id\":\"a\",\"output\":{\"text\":\"\\\"usage\\\": {},\\\\\",\"usage\":1},\"cost\":0.5,"
         "\"usage\":{\"a\":[1,{\"b\":\"}\"}]},\"finished_at\":17 , \"calls\" : [{}, []] }",
         raw);
    CHECK_STR(raw[0], "{\"a\":[1,{\"b\":\"}\"}]}");
    CHECK_STR(raw[1], "[{}, []]");
    CHECK_STR(raw[2], "17");
    CHECK_STR(raw[3], "0.5");
    CHECK_INT(value_int(raw[2]), 17);
    CHECK(value_num(raw[3]) > 0.49 && value_num(raw[3]) < 0.51);
}

TEST(takes_the_first_of_two)
{
    struct str raw[4];

    find("{\"cost\":1,\"cost\":2}", raw);
    CHECK_STR(raw[3], "1");
    CHECK(!raw[0].p);
}

TEST(absent_and_other_types_are_zero)
{
    struct str raw[4];

    find("{\"finished_at\":null,\"cost\":\"x\"}", raw);
    CHECK_INT(value_int(raw[2]), 0);
    CHECK_INT(value_int(raw[0]), 0);
    CHECK_INT((int)value_num(raw[3]), 0);
    CHECK_INT((int)value_num(raw[0]), 0);
}

TEST(broken_text_is_read_to_its_end_at_most)
{
    static const char *const broken[] = {
        "",      " ",         "{",          "{\"",           "{\"a",         "{\"a\\",
        "{\"a\"", "{\"a\":",  "{\"a\":\"",  "{\"a\":[",      "{\"a\":[\"]",  "{\"usage\":",
        "[]",    "}",         "{\"a\":]",   "{\"a\":}",      "{,}",          "{\"a\":1,",
        "{\"a\":1,,\"cost\":2}", "{a:1}",   "\"usage\"",     "{\"a\":\"\\\\\\\"",
        "{\"\":1,\"cost\":",  "{\"cost\":]", "{\"cost\"x1}",
    };
    struct str raw[4];
    size_t i;

    for (i = 0; i < sizeof broken / sizeof broken[0]; i++)
        find(broken[i], raw);
    find("{\"a\":1,\"cost\":7", raw); /* cut behind a value */
    CHECK_STR(raw[3], "7");
}

TEST(every_cut_of_a_good_text)
{
    static const char good[] = "{\"x\":\"\\u0041\\\\\",\"usage\":{\"p\":[1,2]},\"calls\":[{\"a\":1}],"
                               "\"finished_at\":12,\"cost\":1e3}";
    struct str raw[4];
    char *copy;
    size_t n;

    for (n = 0; n < sizeof good; n++) {
        copy = xmalloc(n ? n : 1);
        memcpy(copy, good, n);
        value_find(str_of(copy, n), names, 4, raw);
        free(copy);
    }
}
