#include "base/err.h"
#include "base/str.h"
#include "tests/lib/test.h"

TEST(set_fills_and_returns_the_code)
{
    struct err e;

    CHECK_INT(err_set(&e, ERR_BUSY, "%s is %d", "x", 7), ERR_BUSY);
    CHECK_INT(e.code, ERR_BUSY);
    CHECK(e.is_retriable);
    CHECK_STR(str_z(e.msg), "x is 7");
    CHECK_INT(err_set(NULL, ERR_IO, "x"), ERR_IO);
    err_set(&e, ERR_INVALID, "again: %s", e.msg); /* its own text */
    CHECK(!e.is_retriable);
    CHECK_STR(str_z(e.msg), "again: x is 7");
}

TEST(prefix_keeps_code_and_message)
{
    struct err e;

    err_set(&e, ERR_IO, "gone");
    CHECK_INT(err_prefix(&e, "line %d", 3), ERR_IO);
    CHECK_STR(str_z(e.msg), "line 3: gone");
}

TEST(message_is_one_line_of_utf8)
{
    struct err e;
    char long_text[1000];
    size_t i;

    err_set(&e, ERR_IO, "a\nb\x1b[1m\xFF\xC3\xA9");
    CHECK_STR(str_z(e.msg), "a b [1m?\xC3\xA9");
    for (i = 0; i < sizeof long_text - 1; i += 3)
        memcpy(long_text + i, "\xE2\x82\xAC", 3);
    long_text[sizeof long_text - 1] = '\0';
    err_set(&e, ERR_IO, "%s", long_text);
    CHECK_INT(strlen(e.msg), sizeof e.msg - 1);
    CHECK_INT(str_utf8_bad(str_z(e.msg)), strlen(e.msg));
    err_prefix(&e, "%s", long_text);
    CHECK_INT(strlen(e.msg), sizeof e.msg - 1);
}
