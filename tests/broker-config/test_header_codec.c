#include "broker-config/header_codec.h"
#include "tests/lib/test.h"

#define DIGEST "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

TEST(headers_come_back_as_they_were)
{
    struct headers back;
    struct record r = {0};
    char longz[300];
    struct buf b;

    memset(longz, 'x', sizeof longz);
    r.headers[HEADER_TYPE] = STR("genq.job.v1");
    r.headers[HEADER_TENANT] = STR("");
    r.headers[HEADER_DIGEST] = STR(DIGEST);
    r.headers[HEADER_STATUS] = STR("succeeded, more or less");
    r.headers[HEADER_COUNT_ - 1] = str_of(longz, sizeof longz);
    buf_init(&b, 10000);
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(header_decode(buf_str(&b), &back), 0);
    CHECK_STR(back.all[HEADER_TYPE], "genq.job.v1");
    CHECK(back.all[HEADER_TENANT].p && back.all[HEADER_TENANT].n == 0);
    CHECK_STR(back.all[HEADER_DIGEST], DIGEST);
    CHECK_STR(back.all[HEADER_STATUS], "succeeded, more or less");
    CHECK_INT(back.all[HEADER_COUNT_ - 1].n, 300);
    CHECK(!back.all[HEADER_MODEL].p);
    buf_release(&b);
}

TEST(words_and_digests_are_short)
{
    struct headers back;
    struct record r = {0};
    struct buf b;

    r.headers[HEADER_SPECVERSION] = STR("1.0");
    r.headers[HEADER_TYPE] = STR("genq.completion.v1");
    r.headers[HEADER_CONTENT_TYPE] = STR("application/json");
    r.headers[HEADER_DIGEST] = STR(DIGEST);
    buf_init(&b, 10000);
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(b.n, 3 + 33);
    CHECK_INT(header_decode(buf_str(&b), &back), 0);
    CHECK_STR(back.all[HEADER_SPECVERSION], "1.0");
    CHECK_STR(back.all[HEADER_TYPE], "genq.completion.v1");
    CHECK_STR(back.all[HEADER_CONTENT_TYPE], "application/json");
    CHECK_STR(back.all[HEADER_DIGEST], DIGEST);
    buf_clear(&b);
    r.headers[HEADER_DIGEST] = STR("ABC"); /* no digest: kept as it is */
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(header_decode(buf_str(&b), &back), 0);
    CHECK_STR(back.all[HEADER_DIGEST], "ABC");
    buf_release(&b);
}

TEST(no_headers_are_no_bytes)
{
    struct headers back;
    struct record r = {0};
    struct buf b;

    buf_init(&b, 100);
    CHECK_INT(header_encode(&r, &b), 0);
    CHECK_INT(b.n, 0);
    CHECK_INT(header_decode(STR_NONE, &back), 0);
    CHECK(!back.all[0].p);
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
        {"\1\x80\x80\x80\x80\x80\0", 7}, /* a length without end */
        {"\x80\1\1a", 4},             /* a word and its header: twice */
        {"\x81\x80", 2},              /* words out of order */
        {"\1\1a\xff" "123", 7},       /* a digest cut short */
    };
    struct headers back;
    size_t i;

    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(header_decode(bad[i], &back), ERR_CORRUPT);
        CHECK(!back.all[0].p);
    }
}

TEST(a_later_version_s_header_is_skipped)
{
    struct headers back;

    CHECK_INT(header_decode(STR("\1\1a\x7e\2zz\xfe\2\1b"), &back), 0);
    CHECK_STR(back.all[0], "a");
    CHECK_STR(back.all[1], "b");
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
