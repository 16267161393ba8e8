#include "tests/lib/test.h"
#include "worker/health.h"

TEST(the_first_good_check_is_enough)
{
    struct health h = {NODE_STARTING, 0, 0};

    CHECK(health_good(&h, 2));
    CHECK_INT(h.state, NODE_UP);
    CHECK(!health_good(&h, 2));
}

TEST(a_node_never_seen_up_is_down_at_its_first_failure)
{
    struct health h = {NODE_STARTING, 0, 0};

    CHECK(health_bad(&h, 3, false));
    CHECK_INT(h.state, NODE_DOWN);
}

TEST(failures_in_a_row_take_a_node_out)
{
    struct health h = {NODE_UP, 5, 0};

    CHECK(!health_bad(&h, 3, false));
    CHECK(!health_bad(&h, 3, false));
    CHECK(!health_good(&h, 2)); /* the row is broken */
    CHECK(!health_bad(&h, 3, false));
    CHECK(!health_bad(&h, 3, false));
    CHECK(health_bad(&h, 3, false));
    CHECK_INT(h.state, NODE_DOWN);
    CHECK(!health_bad(&h, 3, false));
}

TEST(refused_connections_take_it_out_at_once)
{
    struct health h = {NODE_UP, 5, 0};

    CHECK(health_bad(&h, 3, true));
    CHECK_INT(h.state, NODE_DOWN);
}

TEST(successes_in_a_row_bring_it_back)
{
    struct health h = {NODE_DOWN, 0, 4};

    CHECK(!health_good(&h, 2));
    CHECK(!health_bad(&h, 3, true));
    CHECK(!health_good(&h, 2));
    CHECK(health_good(&h, 2));
    CHECK_INT(h.state, NODE_UP);
}

TEST(a_node_that_is_out_is_looked_at_soon_then_less_often)
{
    struct health h = {NODE_UP, 1, 0};
    int i;

    CHECK_INT(health_wait_ms(&h, 5000), 5000);
    health_bad(&h, 3, true);
    CHECK_INT(health_wait_ms(&h, 5000), 100);
    health_bad(&h, 3, true);
    CHECK_INT(health_wait_ms(&h, 5000), 200);
    for (i = 0; i < 20; i++)
        health_bad(&h, 3, true);
    CHECK_INT(health_wait_ms(&h, 5000), 5000);
    CHECK_INT(health_wait_ms(&h, 50), 50);
    health_good(&h, 2); /* rising */
    CHECK_INT(health_wait_ms(&h, 5000), 100);
}
