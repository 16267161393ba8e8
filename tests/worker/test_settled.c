#include "tests/lib/test.h"
#include "worker/settled.h"
#include <stdio.h>

static struct str id_of(size_t i, char dst[32])
{
    return str_of(dst, (size_t)snprintf(dst, 32, "j%zu", i));
}

TEST(what_was_added_is_there_and_nothing_else)
{
    struct settled s;

    settled_init(&s);
    CHECK(!settled_has(&s, STR("default"), STR("a")));
    settled_add(&s, STR("default"), STR("a"), 0);
    CHECK(settled_has(&s, STR("default"), STR("a")));
    CHECK(!settled_has(&s, STR("default"), STR("b")));
    CHECK(!settled_has(&s, STR("defaul"), STR("ta"))); /* where one ends and the other begins */
    CHECK(!settled_has(&s, STR("other"), STR("a")));
    settled_release(&s);
}

TEST(the_newest_are_kept_and_memory_is_bounded)
{
    struct settled s;
    char id[32];
    size_t i, n = 3 * SETTLED_MAX;

    settled_init(&s);
    for (i = 0; i < n; i++) {
        settled_add(&s, STR("t"), id_of(i, id), 1);
        settled_add(&s, STR("t"), id_of(i, id), 1); /* twice counts once */
    }
    for (i = n - SETTLED_MAX; i < n; i++)
        CHECK(settled_has(&s, STR("t"), id_of(i, id)));
    for (i = 0; i < n - 2 * SETTLED_MAX; i++)
        CHECK(!settled_has(&s, STR("t"), id_of(i, id)));
    settled_release(&s);
}

TEST(another_job_is_told_from_a_repeat)
{
    uint32_t one = settled_mark(STR("00112233445566")), two = settled_mark(STR("ff112233445566"));
    struct settled s;

    settled_init(&s);
    CHECK(one && two && one != two);
    CHECK_INT(settled_mark(STR("")), 0);
    CHECK_INT(settled_mark(STR("xyxyxyxyxy")), 0);
    CHECK_INT(settled_look(&s, STR("t"), STR("a"), one), SETTLED_NOT);
    settled_add(&s, STR("t"), STR("a"), one);
    CHECK_INT(settled_look(&s, STR("t"), STR("a"), one), SETTLED_SAME);
    CHECK_INT(settled_look(&s, STR("t"), STR("a"), two), SETTLED_OTHER);
    CHECK_INT(settled_look(&s, STR("t"), STR("a"), 0), SETTLED_SAME);
    settled_add(&s, STR("t"), STR("a"), 0); /* a cancel order does not tell */
    CHECK_INT(settled_look(&s, STR("t"), STR("a"), two), SETTLED_OTHER);
    settled_add(&s, STR("t"), STR("b"), 0);
    CHECK_INT(settled_look(&s, STR("t"), STR("b"), two), SETTLED_SAME);
    CHECK_INT(settled_look(&s, STR("t"), STR("c"), two), SETTLED_NOT);
    settled_release(&s);
}
