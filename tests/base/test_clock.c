#include "base/clock.h"
#include "tests/lib/test.h"

TEST(parses_rfc3339)
{
    static const struct {
        const char *textz;
        int64_t ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-11-21T10:00:00Z", 1795255200000},
        {"2026-11-21T10:00:00.5Z", 1795255200500},
        {"2026-11-21T10:00:00.123999999Z", 1795255200123},
        {"2026-11-21T11:00:00+01:00", 1795255200000},
        {"2026-11-21T04:30:00-05:30", 1795255200000},
        {"2026-11-21t10:00:00z", 1795255200000},
        {"2000-02-29T00:00:00Z", 951782400000},
        {"1969-12-31T23:59:59.999Z", -1},
        {"0000-01-01T00:00:00Z", -62167219200000},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
        {"2016-12-31T23:59:60Z", 1483228800000},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t ms = 1;

        CHECK(clock_parse_rfc3339(str_z(rows[i].textz), &ms));
        CHECK_INT(ms, rows[i].ms);
    }
}

TEST(refuses_what_is_not_rfc3339)
{
    static const char *const rows[] = {
        "",
        "2026-11-21",
        "2026-11-21T10:00:00",
        "2026-11-21 10:00:00Z",
        "2026-11-21T10:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T10:60:00Z",
        "2026-11-21T10:00:61Z",
        "2026-11-21T10:00:00.Z",
        "2026-11-21T10:00:00+0100",
        "2026-11-21T10:00:00+24:00",
        "2026-11-21T10:00:00Zx",
        "26-11-21T10:00:00Z",
    };
    size_t i;
    int64_t ms;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK(!clock_parse_rfc3339(str_z(rows[i]), &ms));
}

TEST(formats_what_it_parses)
{
    static const int64_t rows[] = {0, -1, 1, 951782400000, 1795255200123, -62167219200000,
                                   253402300799999};
    char text[32];
    size_t i;
    int64_t ms, day;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        clock_format_rfc3339(rows[i], text);
        CHECK(clock_parse_rfc3339(str_z(text), &ms));
        CHECK_INT(ms, rows[i]);
    }
    for (day = -800000; day < 800000; day += 13) {
        clock_format_rfc3339(day * 86400000 + 7, text);
        CHECK(day < -719528 || clock_parse_rfc3339(str_z(text), &ms));
        CHECK(day < -719528 || ms == day * 86400000 + 7);
    }
    clock_format_rfc3339(1795255200123, text);
    CHECK_STR(str_z(text), "2026-11-21T10:00:00.123Z");
    clock_format_rfc3339(INT64_MAX, text);
    CHECK_STR(str_z(text), "9999-12-31T23:59:59.999Z");
    clock_format_rfc3339(INT64_MIN, text);
    CHECK_STR(str_z(text), "0000-01-01T00:00:00.000Z");
}

TEST(parses_durations)
{
    static const struct {
        const char *textz;
        int64_t ms; /* -1: refused */
    } rows[] = {
        {"30s", 30000}, {"1500ms", 1500}, {"2m", 120000}, {"1h", 3600000}, {"30", 30000},
        {"0", 0},       {"", -1},         {"s", -1},      {"-1s", -1},     {"1.5s", -1},
        {"1 s", -1},    {"1d", -1},       {"1sm", -1},    {"9223372036854775807h", -1},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t ms = 0;

        CHECK_INT(clock_parse_duration(str_z(rows[i].textz), &ms), rows[i].ms >= 0);
        CHECK(rows[i].ms < 0 || ms == rows[i].ms);
    }
}

TEST(clocks_agree_on_units)
{
    int64_t us = clock_mono_us(), ms = clock_mono_ms(), boot_ms = clock_boot_ms();

    CHECK(ms - us / 1000 >= 0 && ms - us / 1000 < 10000);
    CHECK(boot_ms >= us / 1000);
    CHECK(clock_wall_ms() > 1700000000000);
}
