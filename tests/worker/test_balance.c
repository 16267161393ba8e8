#include "tests/lib/test.h"
#include "worker/balance.h"
#include <stdio.h>
#include <stdlib.h>

enum { N = 4 };

/* A pool by hand: balancing looks at nodes alone. */
struct box {
    struct schedule *s;
    struct pool p;
    struct node nodes[N];
    struct config_engine engines[N];
    struct model *model;
    bool tried[N];
};

static void open_box(struct box *b)
{
    static char *names[N] = {"a", "b", "c", "d"};
    size_t i;

    *b = (struct box){.s = schedule_new()};
    b->model = schedule_model(b->s, STR("m"));
    b->p.node = b->nodes;
    b->p.n = N;
    for (i = 0; i < N; i++) {
        b->engines[i] = (struct config_engine){.name = names[i], .weight = 50};
        b->nodes[i] = (struct node){.pool = &b->p, .config = &b->engines[i], .at = i, .slots = 4};
        b->nodes[i].health.state = NODE_UP;
        b->nodes[i].models = &b->model;
        b->nodes[i].has = (struct schedule_node){&b->model, 1, false};
    }
}

static void close_box(struct box *b)
{
    schedule_unref_model(b->s, b->model);
    schedule_free(b->s);
}

/* Gives n jobs to the nodes and leaves them there. */
static void fill(struct box *b, int n)
{
    struct node *node;

    while (n-- > 0) {
        node = balance_least(&b->p, b->tried);
        CHECK(node != NULL);
        node->busy++;
    }
}

TEST(equal_nodes_fill_evenly)
{
    struct box b;
    int i;

    open_box(&b);
    fill(&b, 8);
    for (i = 0; i < N; i++)
        CHECK_INT(b.nodes[i].busy, 2);
    fill(&b, 8);
    CHECK(balance_least(&b.p, b.tried) == NULL);
    close_box(&b);
}

TEST(weight_is_a_share)
{
    struct box b;

    open_box(&b);
    b.p.n = 2;
    b.nodes[0].slots = b.nodes[1].slots = 100;
    b.engines[0].weight = 30;
    b.engines[1].weight = 10;
    fill(&b, 40);
    CHECK_INT(b.nodes[0].busy, 30);
    CHECK_INT(b.nodes[1].busy, 10);
    close_box(&b);
}

TEST(more_slots_take_more)
{
    struct box b;

    open_box(&b);
    b.p.n = 2;
    b.nodes[0].slots = 12;
    fill(&b, 8);
    CHECK_INT(b.nodes[0].busy, 6);
    CHECK_INT(b.nodes[1].busy, 2);
    close_box(&b);
}

TEST(nodes_that_are_not_open_get_nothing)
{
    struct box b;

    open_box(&b);
    b.nodes[0].health.state = NODE_DOWN;
    b.nodes[1].paused_until = 5;
    b.nodes[2].busy = 4;
    b.tried[3] = true;
    CHECK(balance_least(&b.p, b.tried) == NULL);
    b.tried[3] = false;
    CHECK(balance_least(&b.p, b.tried) == &b.nodes[3]);
    close_box(&b);
}

TEST(a_session_stays_and_only_a_lost_node_s_move)
{
    struct node *before[100], *after;
    int count[N] = {0}, i;
    char session[16];
    struct box b;

    open_box(&b);
    for (i = 0; i < 100; i++) {
        snprintf(session, sizeof session, "s%d", i);
        before[i] = balance_session(&b.p, b.model, str_z(session));
        CHECK(before[i] == balance_session(&b.p, b.model, str_z(session)));
        count[before[i]->at]++;
    }
    for (i = 0; i < N; i++)
        CHECK(count[i] >= 10);
    b.nodes[1].health.state = NODE_DOWN;
    for (i = 0; i < 100; i++) {
        snprintf(session, sizeof session, "s%d", i);
        after = balance_session(&b.p, b.model, str_z(session));
        CHECK(after != &b.nodes[1]);
        CHECK(after == before[i] || before[i] == &b.nodes[1]);
    }
    close_box(&b);
}

TEST(a_session_goes_only_where_its_model_is)
{
    struct box b;
    size_t i;

    open_box(&b);
    for (i = 1; i < N; i++)
        b.nodes[i].has.n_models = 0;
    CHECK(balance_session(&b.p, b.model, STR("x")) == &b.nodes[0]);
    b.nodes[0].busy = 4;
    CHECK(balance_session(&b.p, b.model, STR("x")) == NULL);
    close_box(&b);
}
