#include "base/buf.h"
#include "broker-config/offsets.h"
#include "tests/lib/test.h"
#include <stdlib.h>

TEST(nothing_taken_is_nothing_unfinished)
{
    struct offsets o;

    offsets_init(&o, 70);
    CHECK_INT(o.low, 70);
    CHECK_INT(o.end, 70);
    CHECK(!offsets_finish(&o, 70));
    CHECK(offsets_is_finished(&o, 69));
    CHECK(!offsets_is_finished(&o, 70));
    offsets_release(&o);
}

TEST(a_redelivery_is_not_taken)
{
    struct offsets o;

    offsets_init(&o, 0);
    CHECK(offsets_take(&o, 0));
    CHECK(offsets_take(&o, 1));
    CHECK(!offsets_take(&o, 1));
    CHECK(!offsets_take(&o, 0));
    CHECK_INT(o.n_unfinished, 2);
    offsets_release(&o);
}

TEST(low_waits_for_the_oldest)
{
    struct offsets o;
    int i;

    offsets_init(&o, 0);
    for (i = 0; i < 200; i++)
        offsets_take(&o, i);
    for (i = 199; i > 0; i--)
        CHECK(offsets_finish(&o, i));
    CHECK_INT(o.low, 0);
    CHECK(!offsets_finish(&o, 100));
    CHECK(offsets_finish(&o, 0));
    CHECK_INT(o.low, 200);
    CHECK_INT(o.n_unfinished, 0);
    offsets_release(&o);
}

TEST(gaps_count_as_finished)
{
    struct offsets o;

    offsets_init(&o, 0);
    offsets_take(&o, 5);
    offsets_take(&o, 1000);
    CHECK(offsets_is_finished(&o, 4));
    CHECK(offsets_is_finished(&o, 999));
    CHECK(!offsets_finish(&o, 500));
    CHECK_INT(o.low, 5);
    offsets_finish(&o, 5);
    CHECK_INT(o.low, 1000);
    offsets_release(&o);
}

TEST(a_far_jump_with_nothing_unfinished_needs_no_memory)
{
    struct offsets o;

    offsets_init(&o, 0);
    offsets_take(&o, 3);
    offsets_finish(&o, 3);
    CHECK(offsets_take(&o, INT64_C(1) << 50));
    CHECK(o.room <= 1024);
    CHECK(!offsets_is_finished(&o, INT64_C(1) << 50));
    CHECK(offsets_finish(&o, INT64_C(1) << 50));
    CHECK_INT(o.low, (INT64_C(1) << 50) + 1);
    offsets_release(&o);
}

/* The naive model: a byte an offset; 0 never taken or skipped, 1 unfinished, 2 finished. */
enum { SPAN = 20000 };

static void check_model(const struct offsets *o, const unsigned char *model, int64_t first,
                        int64_t end)
{
    int64_t i, low = end;
    size_t n = 0;

    for (i = end - 1; i >= first; i--) {
        if (model[i] == 1) {
            low = i;
            n++;
        }
        CHECK_INT(offsets_is_finished(o, i), model[i] != 1);
    }
    CHECK_INT(o->low, low);
    CHECK_INT(o->end, end);
    CHECK_INT(o->n_unfinished, n);
    for (i = low; i < end + 64; i += 1 + i % 9) {
        uint64_t flags = offsets_flags(o, i);
        int64_t bit;

        for (bit = 0; bit < 64; bit++)
            CHECK_INT(flags >> bit & 1, i + bit < end && model[i + bit] != 1);
    }
}

/* Finishes one that is unfinished, near `at`: sometimes old, sometimes new. */
static void finish_near(struct offsets *o, unsigned char *model, int64_t at, int64_t end)
{
    while (at < end && model[at] != 1)
        at++;
    if (at == end)
        return;
    CHECK(offsets_finish(o, at));
    CHECK(!offsets_finish(o, at));
    model[at] = 2;
}

static void run_random(unsigned seed)
{
    unsigned char *model = xcalloc(SPAN, 1);
    int64_t first = (int64_t)(seed % 300), end = first;
    struct offsets o;
    int step, bias;

    srandom(seed);
    offsets_init(&o, first);
    bias = (int)(random() % 100);
    for (step = 0; step < 6000 && end < SPAN - 300; step++) {
        if (random() % 1000 == 0)
            bias = (int)(random() % 100);
        if (random() % 100 < bias) {
            end += random() % 20 == 0 ? random() % 200 : 0;
            CHECK(offsets_take(&o, end));
            model[end++] = 1;
        } else if (end > first) {
            finish_near(&o, model, random() % 2 ? o.low : first + random() % (end - first), end);
        }
        if (step % 500 == 0)
            check_model(&o, model, first, end);
    }
    check_model(&o, model, first, end);
    while (o.n_unfinished > 0)
        finish_near(&o, model, first + random() % (end - first), end);
    check_model(&o, model, first, end);
    offsets_release(&o);
    free(model);
}

TEST(random_orders_agree_with_a_naive_model)
{
    unsigned seed;

    for (seed = 1; seed <= 60; seed++)
        run_random(seed);
}
