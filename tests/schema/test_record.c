#include "schema/record.h"
#include "tests/lib/test.h"

TEST(header_names)
{
    enum record_header h, back;

    for (h = 0; h < HEADER_COUNT_; h++) {
        CHECK(record_header_parse(str_z(record_header_name(h)), &back));
        CHECK_INT(back, h);
    }
    CHECK(!record_header_parse(STR("ce_nothing"), &back));
}

TEST(header_numbers_are_stored) /* a row put in between would change the meaning of old logs */
{
    CHECK_INT(HEADER_SPECVERSION, 0);
    CHECK_INT(HEADER_TENANT, 7);
    CHECK_INT(HEADER_REASON, 13);
}
