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
    settled_add(&s, STR("default"), STR("a"));
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
        settled_add(&s, STR("t"), id_of(i, id));
        settled_add(&s, STR("t"), id_of(i, id)); /* twice counts once */
    }
    for (i = n - SETTLED_MAX; i < n; i++)
        CHECK(settled_has(&s, STR("t"), id_of(i, id)));
    for (i = 0; i < n - 2 * SETTLED_MAX; i++)
        CHECK(!settled_has(&s, STR("t"), id_of(i, id)));
    settled_release(&s);
}
