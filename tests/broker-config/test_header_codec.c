#include "broker-config/header_codec.h"
#include "tests/lib/test.h"

TEST(headers_come_back_as_they_were)
{
    struct str back[HEADER_COUNT_];
    struct record r = {0};
    char longz[300];
    struct buf b;

    memset(longz, 'x', sizeof longz);
    r.headers[HEADER_TYPE] = STR("genq.job.v1");
    r.headers[HEADER_TENANT] = STR("");
    r.headers[HEADER_COUNT_ - 1] = str_of(longz, sizeof longz);
    buf_init(&b, 10000);
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(header_decode(buf_str(&b), back), 0);
    CHECK_STR(back[HEADER_TYPE], "genq.job.v1");
    CHECK(back[HEADER_TENANT].p && back[HEADER_TENANT].n == 0);
    CHECK_INT(back[HEADER_COUNT_ - 1].n, 300);
    CHECK(!back[HEADER_MODEL].p);
    buf_release(&b);
}

TEST(no_headers_are_no_bytes)
{
    struct str back[HEADER_COUNT_];
    struct record r = {0};
    struct buf b;

    buf_init(&b, 100);
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(b.n, 0);
    CHECK_INT(header_decode(STR_NONE, back), 0);
    CHECK(!back[0].p);
    buf_release(&b);
}

TEST(broken_bytes_are_refused)
{
    static const struct str bad[] = {
        {"\0\0", 2},                    /* number 0 */
        {"\1", 1},                      /* no length */
        {"\1\5abc", 5},                 /* cut short */
        {"\2\0\1\0", 4},                /* out of order */
        {"\1\0\1\0", 4},                /* twice */
        {"\1\x80\x80\x80\x80\x80\0", 7} /* a length without end */
    };
    struct str back[HEADER_COUNT_];
    size_t i;

    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(header_decode(bad[i], back), ERR_CORRUPT);
        CHECK(!back[0].p);
    }
}

TEST(a_later_version_s_header_is_skipped)
{
    struct str back[HEADER_COUNT_];

    CHECK_INT(header_decode(STR("\1\1a\xfe\2zz"), back), 0);
    CHECK_STR(back[0], "a");
}

TEST(a_ceiling_is_told)
{
    struct record r = {0};
    struct buf b;

    r.headers[0] = STR("0123456789");
    buf_init(&b, 8);
    CHECK_INT(header_encode(&r, &b), ERR_TOO_LARGE);
    buf_release(&b);
}
