#include "base/heap.h"
#include "tests/lib/test.h"
#include <stdlib.h>

enum { N = 2000 };

static void check_shape(const struct heap *h)
{
    size_t i;

    for (i = 0; i < h->n; i++) {
        CHECK_INT(h->nodes[i]->at, i + 1);
        CHECK(i == 0 || h->nodes[(i - 1) / 2]->key <= h->nodes[i]->key);
    }
}

TEST(min_comes_out_in_order)
{
    static struct heap_node nodes[N];
    struct heap h;
    struct heap_node *min;
    int64_t last = INT64_MIN;
    int i;

    heap_init(&h);
    CHECK(heap_min(&h) == NULL);
    for (i = 0; i < N; i++)
        heap_push(&h, &nodes[i], rand() % 500 - 250);
    check_shape(&h);
    while ((min = heap_min(&h)) != NULL) {
        CHECK(min->key >= last);
        last = min->key;
        heap_remove(&h, min);
        CHECK(!heap_has(min));
    }
    heap_release(&h);
}

TEST(removes_from_the_middle)
{
    static struct heap_node nodes[N];
    struct heap h;
    int i, turn;

    heap_init(&h);
    for (turn = 0; turn < 20000; turn++) {
        i = rand() % N;
        if (heap_has(&nodes[i]))
            heap_remove(&h, &nodes[i]);
        else
            heap_push(&h, &nodes[i], rand() % 1000);
        if (turn % 100 == 0)
            check_shape(&h);
    }
    for (i = 0; i < N; i++)
        if (heap_has(&nodes[i]))
            heap_remove(&h, &nodes[i]);
    CHECK_INT(h.n, 0);
    heap_release(&h);
}
