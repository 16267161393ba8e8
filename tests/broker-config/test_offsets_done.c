#include "broker-config/offsets_done.h"
#include "tests/lib/test.h"
#include <stdlib.h>

TEST(an_empty_set_knows_what_lies_below_low)
{
    struct offsets_done d = {0};

    CHECK(!offsets_done_has(&d, 0));
    CHECK_INT(offsets_done_flags(&d, 1000), 0);
    offsets_done_init(&d, 70);
    CHECK(offsets_done_has(&d, 69));
    CHECK(!offsets_done_has(&d, 70));
    CHECK_INT(d.end, 70);
    CHECK_INT(offsets_done_flags(&d, 70), 0);
    offsets_done_release(&d);
}

TEST(what_lies_below_low_or_is_empty_adds_nothing)
{
    struct offsets_done d;

    offsets_done_init(&d, 70);
    CHECK(offsets_done_add(&d, 0, 70));
    CHECK(offsets_done_add(&d, 90, 90));
    CHECK_INT(d.end, 70);
    CHECK(d.bits == NULL);
    CHECK(offsets_done_add(&d, 0, 72));
    CHECK_INT(d.end, 72);
    CHECK(offsets_done_has(&d, 71));
    CHECK(!offsets_done_has(&d, 72));
    offsets_done_release(&d);
}

TEST(the_span_bounds_the_memory)
{
    struct offsets_done d;

    offsets_done_init(&d, 5);
    CHECK(!offsets_done_add(&d, 5, 5 + OFFSETS_DONE_SPAN + 1));
    CHECK(!offsets_done_add(&d, INT64_MAX - 1, INT64_MAX));
    CHECK(d.bits == NULL);
    CHECK(offsets_done_add(&d, 5, 5 + OFFSETS_DONE_SPAN));
    CHECK_INT(d.room, OFFSETS_DONE_SPAN);
    CHECK(offsets_done_has(&d, 4 + OFFSETS_DONE_SPAN));
    CHECK(!offsets_done_has(&d, 5 + OFFSETS_DONE_SPAN));
    CHECK_INT(offsets_done_flags(&d, 4 + OFFSETS_DONE_SPAN), 1);
    CHECK_INT(offsets_done_flags(&d, 5 + OFFSETS_DONE_SPAN), 0);
    offsets_done_release(&d);
}

TEST(random_ranges_agree_with_a_byte_an_offset)
{
    enum { SPAN = 5000, LOW = 37 };
    static unsigned char model[SPAN + 64];
    struct offsets_done d;
    int round, i, j, end;

    srandom(1);
    for (round = 0; round < 100; round++) {
        memset(model, 0, sizeof model);
        offsets_done_init(&d, LOW);
        for (i = 0, end = 0; i < 30; i++) {
            int from = (int)(random() % SPAN), to = from + (int)(random() % 200);

            to = to > SPAN ? SPAN : to;
            CHECK(offsets_done_add(&d, LOW + from, LOW + to));
            memset(model + from, 1, (size_t)(to - from));
            end = to > from && to > end ? to : end;
        }
        CHECK_INT(d.end, LOW + end);
        for (i = 0; i < SPAN; i++) {
            uint64_t flags = offsets_done_flags(&d, LOW + i);

            CHECK_INT(offsets_done_has(&d, LOW + i), model[i]);
            for (j = 0; j < 64; j++)
                CHECK_INT(flags >> j & 1, model[i + j]);
        }
        offsets_done_release(&d);
    }
}
