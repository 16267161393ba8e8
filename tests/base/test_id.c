#include "base/id.h"
#include "tests/lib/test.h"

TEST(ulid_has_time_and_order)
{
    char a[ULID_LEN + 1], b[ULID_LEN + 1];
    int i;

    id_ulid(1469918176385, a); /* the specification's example */
    CHECK_INT(strlen(a), ULID_LEN);
    CHECK(memcmp(a, "01ARYZ6S41", 10) == 0);
    CHECK_INT(strspn(a, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), ULID_LEN);
    CHECK(id_is_valid(str_z(a)));
    for (i = 0; i < 10000; i++) {
        id_ulid(1469918176385, b);
        CHECK(strcmp(a, b) < 0);
        memcpy(a, b, sizeof a);
    }
    id_ulid(1469918176386, b);
    CHECK(strcmp(a, b) < 0);
}

TEST(ulids_differ_in_time_and_chance)
{
    char a[ULID_LEN + 1], b[ULID_LEN + 1];

    id_ulid(1, a);
    id_ulid(2, b);
    CHECK(strcmp(a + 10, b + 10) != 0);
}

TEST(valid_ids)
{
    static const struct {
        const char *textz;
        bool is_valid;
    } rows[] = {
        {"a", true},
        {"A.b_c-9", true},
        {"0123456789012345678901234567890123456789012345678901234567890123", true},
        {"01234567890123456789012345678901234567890123456789012345678901234", false},
        {"", false},
        {"a b", false},
        {"a/b", false},
        {"\xC3\xA9", false},
        {"a\n", false},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(id_is_valid(str_z(rows[i].textz)), rows[i].is_valid);
    CHECK(!id_is_valid(STR("a\0b")));
}
