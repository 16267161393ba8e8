#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/test.h"
#include <stdlib.h>

TEST(adds_of_every_kind)
{
    struct buf b;

    buf_init(&b, 1000);
    CHECK(b.p == NULL);
    buf_addz(&b, "a");
    buf_addc(&b, 'b');
    buf_adds(&b, STR("cd"));
    buf_addi(&b, INT64_MIN);
    buf_addc(&b, ' ');
    buf_addi(&b, 0);
    buf_addf(&b, " %d-%s", 7, "x");
    CHECK_STR(buf_str(&b), "abcd-9223372036854775808 0 7-x");
    CHECK_INT(b.p[b.n], 0);
    buf_release(&b);
    CHECK(b.p == NULL && b.n == 0 && b.max == 1000);
}

TEST(ceiling_refuses_whole_adds)
{
    struct buf b;

    buf_init(&b, 5);
    CHECK_INT(buf_addz(&b, "abc"), 0);
    CHECK_INT(buf_addz(&b, "def"), ERR_TOO_LARGE);
    CHECK(b.is_over);
    CHECK_STR(buf_str(&b), "abc");
    CHECK_INT(buf_addf(&b, "%d", 123), ERR_TOO_LARGE);
    CHECK_INT(buf_addf(&b, "%d", 12), 0);
    CHECK_STR(buf_str(&b), "abc12");
    CHECK(buf_reserve(&b, 1) == NULL);
    CHECK(buf_reserve(&b, SIZE_MAX) == NULL);
    buf_clear(&b);
    CHECK(!b.is_over && b.n == 0);
    buf_release(&b);
}

TEST(grows_to_exactly_its_ceiling)
{
    struct buf b;
    size_t i;

    buf_init(&b, 100000);
    for (i = 0; i < 100000; i++)
        CHECK_INT(buf_addc(&b, (char)('a' + i % 26)), 0);
    CHECK_INT(buf_addc(&b, 'x'), ERR_TOO_LARGE);
    CHECK_INT(b.n, 100000);
    CHECK_INT(b.room, 100001);
    for (i = 0; i < 100000; i++)
        CHECK(b.p[i] == (char)('a' + i % 26));
    buf_release(&b);
}

TEST(eat_drops_the_front)
{
    struct buf b;

    buf_init(&b, 100);
    buf_eat(&b, 0);
    buf_addz(&b, "abcdef");
    buf_eat(&b, 2);
    CHECK_STR(buf_str(&b), "cdef");
    buf_eat(&b, 4);
    CHECK_STR(buf_str(&b), "");
    buf_release(&b);
}

TEST(take_gives_a_terminated_string_always)
{
    struct buf b;
    size_t n = 9;
    char *p;

    buf_init(&b, 100);
    p = buf_take(&b, &n);
    CHECK(p && n == 0 && p[0] == '\0');
    free(p);
    memcpy(buf_reserve(&b, 3), "xyz", 3);
    b.n += 3;
    p = buf_take(&b, NULL);
    CHECK_STR(str_z(p), "xyz");
    CHECK(b.p == NULL && b.max == 100);
    free(p);
}
