#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

enum { N = 3000 };

struct item {
    struct map_node node;
    char key[32];
    int n_seen;
};

static void remove_odd(struct map_node *node, void *data)
{
    struct item *it = LIST_ENTRY(node, struct item, node);

    it->n_seen++;
    if ((it->key[0] - '0') % 2)
        map_remove(data, node);
}

TEST(put_get_remove)
{
    struct item *items = xcalloc(N, sizeof *items);
    struct map m;
    int i;

    map_init(&m);
    CHECK(map_get(&m, STR("0")) == NULL);
    for (i = 0; i < N; i++) {
        snprintf(items[i].key, sizeof items[i].key, "%d.%.*s", i, i % 20, "abcdefghijklmnopqrst");
        CHECK(map_get(&m, str_z(items[i].key)) == NULL);
        map_put(&m, &items[i].node, str_z(items[i].key));
    }
    CHECK_INT(m.n, N);
    for (i = 0; i < N; i++)
        CHECK(map_get(&m, str_z(items[i].key)) == &items[i].node);
    map_each(&m, remove_odd, &m);
    for (i = 0; i < N; i++) {
        CHECK_INT(items[i].n_seen, 1);
        CHECK((map_get(&m, str_z(items[i].key)) == NULL) == ((items[i].key[0] - '0') % 2 == 1));
    }
    map_release(&m);
    CHECK_INT(m.n, 0);
    free(items);
}

TEST(keys_are_bytes)
{
    struct map m;
    struct map_node a, b, empty;

    map_init(&m);
    map_put(&m, &a, STR("x\0a"));
    map_put(&m, &b, STR("x\0b"));
    map_put(&m, &empty, STR_NONE);
    CHECK(map_get(&m, STR("x\0a")) == &a);
    CHECK(map_get(&m, STR("x\0b")) == &b);
    CHECK(map_get(&m, STR("")) == &empty);
    CHECK(map_get(&m, STR("x")) == NULL);
    map_remove(&m, &a);
    CHECK(map_get(&m, STR("x\0a")) == NULL);
    map_release(&m);
}

TEST(seeds_differ)
{
    struct map a, b;

    map_init(&a);
    map_init(&b);
    CHECK(memcmp(a.seed, b.seed, sizeof a.seed) != 0);
    map_release(&a);
    map_release(&b);
}
