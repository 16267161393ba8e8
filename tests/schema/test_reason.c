#include "schema/reason.h"
#include "tests/lib/test.h"

TEST(codes)
{
    enum reason r;

    for (r = 0; r < REASON_COUNT_; r++) {
        CHECK(reason_code(r)[0]);
        CHECK(reason_http_status(r) >= 400 && reason_http_status(r) < 600);
        CHECK(reason_openai_type(r)[0]);
    }
    CHECK_STR(str_z(reason_code(REASON_TOO_LARGE)), "too_large");
    CHECK_INT(reason_http_status(REASON_QUOTA_EXCEEDED), 429);
}

TEST(none_reads_as_internal)
{
    CHECK_STR(str_z(reason_code(REASON_NONE)), "internal");
    CHECK_INT(reason_http_status(REASON_NONE), 500);
}
