#include "tests/lib/test.h"
#include "worker/settled.h"
#include "worker/task.h"
#include <stdio.h>

static const struct tasks tasks; /* not seeded: hashes are the same in each run */

static void add(struct settled *s, struct str tenant, struct str id, uint32_t mark)
{
    settled_add(s, tasks_hash(&tasks, tenant, id), tenant, id, mark);
}

static enum settled_as look(const struct settled *s, struct str tenant, struct str id,
                            uint32_t mark)
{
    return settled_look(s, tasks_hash(&tasks, tenant, id), tenant, id, mark);
}

static bool has(const struct settled *s, struct str tenant, struct str id)
{
    return settled_has(s, tasks_hash(&tasks, tenant, id), tenant, id);
}

static struct str id_of(size_t i, char dst[32])
{
    return str_of(dst, (size_t)snprintf(dst, 32, "j%zu", i));
}

TEST(what_was_added_is_there_and_nothing_else)
{
    struct settled s;

    settled_init(&s);
    CHECK(!has(&s, STR("default"), STR("a")));
    add(&s, STR("default"), STR("a"), 0);
    CHECK(has(&s, STR("default"), STR("a")));
    CHECK(!has(&s, STR("default"), STR("b")));
    CHECK(!has(&s, STR("defaul"), STR("ta"))); /* where one ends and the other begins */
    CHECK(!has(&s, STR("other"), STR("a")));
    settled_release(&s);
}

TEST(the_newest_are_kept_and_memory_is_bounded)
{
    struct settled s;
    char id[32];
    size_t i, n = 3 * SETTLED_MAX;

    settled_init(&s);
    for (i = 0; i < n; i++) {
        add(&s, STR("t"), id_of(i, id), 1);
        add(&s, STR("t"), id_of(i, id), 1); /* twice counts once */
    }
    for (i = n - SETTLED_MAX; i < n; i++)
        CHECK(has(&s, STR("t"), id_of(i, id)));
    for (i = 0; i < n - 2 * SETTLED_MAX; i++)
        CHECK(!has(&s, STR("t"), id_of(i, id)));
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
    CHECK_INT(look(&s, STR("t"), STR("a"), one), SETTLED_NOT);
    add(&s, STR("t"), STR("a"), one);
    CHECK_INT(look(&s, STR("t"), STR("a"), one), SETTLED_SAME);
    CHECK_INT(look(&s, STR("t"), STR("a"), two), SETTLED_OTHER);
    CHECK_INT(look(&s, STR("t"), STR("a"), 0), SETTLED_SAME);
    add(&s, STR("t"), STR("a"), 0); /* a cancel order does not tell */
    CHECK_INT(look(&s, STR("t"), STR("a"), two), SETTLED_OTHER);
    add(&s, STR("t"), STR("b"), 0);
    CHECK_INT(look(&s, STR("t"), STR("b"), two), SETTLED_SAME);
    CHECK_INT(look(&s, STR("t"), STR("c"), two), SETTLED_NOT);
    settled_release(&s);
}
