#include "base/json.h"
#include "tests/lib/test.h"
#include <stdlib.h>

/* Text without a NUL behind it, so that a checker of addresses sees any step too far. */
static struct str exact(struct str s)
{
    char *p = malloc(s.n ? s.n : 1);

    if (s.n)
        memcpy(p, s.p, s.n);
    return str_of(p, s.n);
}

static struct json *parse(struct str text, struct err *e)
{
    struct str copy = exact(text);
    struct json *j = json_parse(copy, e);

    free((void *)copy.p);
    return j;
}

/* Reads all members of text: how many, or a negative code. */
static int walk(struct str text, struct err *e)
{
    struct str copy = exact(text);
    struct json_members m;
    int rc, n = 0;

    json_members_init(&m, copy);
    while ((rc = json_members_next(&m, e)) > 0)
        n++;
    if (rc < 0)
        CHECK_INT(json_members_next(&m, e), rc);
    else
        CHECK_INT(json_members_next(&m, e), 0);
    json_members_release(&m);
    free((void *)copy.p);
    return rc < 0 ? rc : n;
}

TEST(takes_what_rfc_8259_takes)
{
    static const char *const rows[] = {
        "{}", "[]", "null", "true", "false", "\"\"", "0", "-0", "1", "-1.5", "1e5", "1E+5", "1e-5",
        "0.1", "0e0", "123456789012345678901234567890", "1e999", "  [1 , 2]\r\n\t ",
        "[[],{},[{}]]", "{\"a\":{\"a\":1},\"b\":[1,2,{\"c\":null}]}", "{\"\":1}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u00e9\\uD83D\\uDE00\\uFFFF\"", "\"\x7F\"",
        "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"", "{\"a\":1,\"a\":2}", "\"[{]}\"",
        "\"0123456789abcdef\\n0123456789abcdef\"",
    };
    struct err e = {0};
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct json *j = parse(str_z(rows[i]), &e);

        if (!j)
            CHECK_STR(str_z(rows[i]), e.msg);
        json_free(j);
    }
    CHECK_INT(e.code, 0);
}

/* Strings are read in blocks: each place in one is another case. */
TEST(a_special_byte_is_seen_at_each_place_of_a_long_string)
{
    enum { LONGEST = 48 };
    static const struct {
        struct str bytes;
        bool is_valid;
    } special[] = {
        {STR_INIT("\\n"), true},       {STR_INIT("\\u00e9"), true},
        {STR_INIT("\xC3\xA9"), true},  {STR_INIT("\x7F"), true},
        {STR_INIT("\x1F"), false},     {STR_INIT("\x00"), false},
        {STR_INIT("\\x"), false},      {STR_INIT("\""), false},
        {STR_INIT("\x80"), false},     {STR_INIT("\xC3("), false},
        {STR_INIT("\xF5\x80"), false}, {STR_INIT("\xED\xA0\x80"), false},
    };
    static const char plain[LONGEST + 1] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV";
    struct err e = {0};
    struct json *j;
    struct buf b;
    size_t i, at;

    buf_init(&b, 2 * LONGEST);
    for (i = 0; i < sizeof special / sizeof special[0]; i++)
        for (at = 0; at <= LONGEST; at++) {
            b.n = 0;
            buf_addc(&b, '"');
            buf_add(&b, plain, at);
            buf_adds(&b, special[i].bytes);
            buf_add(&b, plain + at, LONGEST - at);
            buf_addc(&b, '"');
            j = parse(buf_str(&b), &e);
            CHECK_INT(j != NULL, special[i].is_valid);
            json_free(j);
        }
    buf_release(&b);
}

static const struct {
    struct str text;
    const char *whyz; /* after "invalid JSON at byte " */
} invalid[] = {
    {STR_INIT(""), "0: empty"},
    {STR_INIT("  "), "2: the text ends too early"},
    {STR_INIT("["), "1: the text ends too early"},
    {STR_INIT("{\"a\":1,"), "7: the text ends too early"},
    {STR_INIT("[1}"), "2: closing bracket without its opening one"},
    {STR_INIT("]"), "0: closing bracket without its opening one"},
    {STR_INIT("[[]]]"), "4: closing bracket without its opening one"},
    {STR_INIT("1 2"), "2: more text behind the value"},
    {STR_INIT("{}x"), "2: more text behind the value"},
    {STR_INIT("{} {}"), "3: more text behind the value"},
    {STR_INIT("nul"), NULL},
    {STR_INIT("nullx"), "4: more text behind the value"},
    {STR_INIT("True"), "0: unexpected token"},
    {STR_INIT("NaN"), NULL},
    {STR_INIT("-Infinity"), "0: malformed number"},
    {STR_INIT("[1,]"), "3: unexpected token"},
    {STR_INIT("[,1]"), "1: unexpected token"},
    {STR_INIT("[1 2]"), NULL},
    {STR_INIT("{\"a\"}"), NULL},
    {STR_INIT("{\"a\" 1}"), NULL},
    {STR_INIT("{\"a\":}"), NULL},
    {STR_INIT("{\"a\":1,}"), NULL},
    {STR_INIT("{,}"), NULL},
    {STR_INIT("{1:2}"), NULL},
    {STR_INIT("{a:2}"), NULL},
    {STR_INIT("{'a':2}"), NULL},
    {STR_INIT("01"), "0: malformed number"},
    {STR_INIT("-01"), "0: malformed number"},
    {STR_INIT("1."), "0: malformed number"},
    {STR_INIT("-"), "0: malformed number"},
    {STR_INIT("1e"), "0: malformed number"},
    {STR_INIT("1e+"), "0: malformed number"},
    {STR_INIT("1.e5"), "0: malformed number"},
    {STR_INIT("[1,-.5]"), "3: malformed number"},
    {STR_INIT(".5"), NULL},
    {STR_INIT("+1"), NULL},
    {STR_INIT("0x10"), NULL},
    {STR_INIT("1e5.5"), NULL},
    {STR_INIT("1-2"), NULL},
    {STR_INIT("1234567890123456789012345678901234567890123456789012345678901234"),
     "0: number of more than 63 characters"},
    {STR_INIT("\""), "1: string without an end"},
    {STR_INIT("\"a\\\""), "4: string without an end"},
    {STR_INIT("\"\\"), "2: string without an end"},
    {STR_INIT("\"\\x\""), "1: unknown escape"},
    {STR_INIT("\"\\U0041\""), "1: unknown escape"},
    {STR_INIT("\"\\\0\""), "1: unknown escape"},
    {STR_INIT("\"\\u12\""), "1: \\u without 4 hex digits"},
    {STR_INIT("\"\\u12G4\""), "1: \\u without 4 hex digits"},
    {STR_INIT("\"\\u"), "1: \\u without 4 hex digits"},
    {STR_INIT("\"a\\u0000\""), "2: \\u0000 in a string"},
    {STR_INIT("\"\\uD800\""), "1: half a surrogate pair"},
    {STR_INIT("\"\\uD800\\u0041\""), "1: half a surrogate pair"},
    {STR_INIT("\"\\uD800\\uD800\""), "1: half a surrogate pair"},
    {STR_INIT("\"\\uDC00\\uD800\""), "1: half a surrogate pair"},
    {STR_INIT("\"\\uD83D\\"), "1: half a surrogate pair"},
    {STR_INIT("\"a\nb\""), "2: control character in a string"},
    {STR_INIT("\"012345678\x1f\""), "10: control character in a string"},
    {STR_INIT("\"a\0b\""), "2: control character in a string"},
    {STR_INIT("\"ab\xFF\""), "3: not UTF-8"},
    {STR_INIT("\"\xC3\""), "1: not UTF-8"},
    {STR_INIT("\"\xED\xA0\x80\""), "1: not UTF-8"},
    {STR_INIT("\"0123456789abcdef\xC0\xAF 0123456789\""), "17: not UTF-8"},
    {STR_INIT("{\"\xFF\":1}"), "2: not UTF-8"},
    {STR_INIT("\0"), "0: unexpected byte outside a string"},
    {STR_INIT("1\0"), "1: unexpected byte outside a string"},
    {STR_INIT("[1,\0 2]"), "3: unexpected byte outside a string"},
    {STR_INIT("[1,\v2]"), "3: unexpected byte outside a string"},
    {STR_INIT("\xEF\xBB\xBF{}"), "0: unexpected byte outside a string"},
    {STR_INIT("[\xC2\xA0]"), "1: unexpected byte outside a string"},
};

TEST(refuses_what_rfc_8259_refuses)
{
    size_t i;

    for (i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
        struct err e = {0};

        if (parse(invalid[i].text, &e))
            test_fail(__FILE__, __LINE__, invalid[i].text.p);
        CHECK_INT(e.code, ERR_INVALID);
        CHECK(memcmp(e.msg, "invalid JSON at byte ", 21) == 0);
        if (invalid[i].whyz)
            CHECK_STR(str_z(e.msg + 21), invalid[i].whyz);
    }
}

/* The same texts as a member's value. */
TEST(members_refuse_the_same)
{
    struct err e;
    struct buf b;
    size_t i;

    for (i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
        buf_init(&b, 1000);
        buf_addz(&b, "{\"x\": 1, \"a\":");
        buf_adds(&b, invalid[i].text);
        buf_addz(&b, "}");
        if (walk(buf_str(&b), &e) != ERR_INVALID)
            test_fail(__FILE__, __LINE__, b.p);
        buf_release(&b);
    }
}

static void nest(struct buf *b, int depth, const char *openz, const char *closez)
{
    int i;

    buf_clear(b);
    for (i = 0; i < depth; i++)
        buf_addz(b, openz);
    buf_addz(b, "1");
    for (i = 0; i < depth; i++)
        buf_addz(b, closez);
}

TEST(nests_64_deep_and_no_deeper)
{
    struct buf b;
    struct err e;
    struct json *j;

    buf_init(&b, 10000000);
    nest(&b, 64, "[", "]");
    CHECK((j = parse(buf_str(&b), &e)) != NULL);
    json_free(j);
    nest(&b, 64, "{\"a\":", "}");
    CHECK((j = parse(buf_str(&b), &e)) != NULL);
    CHECK_INT(walk(buf_str(&b), &e), 1);
    json_free(j);
    nest(&b, 65, "[", "]");
    CHECK(parse(buf_str(&b), &e) == NULL);
    CHECK_STR(str_z(e.msg), "invalid JSON at byte 64: nested more than 64 deep");
    nest(&b, 1000000, "{\"a\":", "}");
    CHECK(parse(buf_str(&b), &e) == NULL);
    CHECK_INT(walk(buf_str(&b), &e), ERR_INVALID);
    nest(&b, 60, "[[],{\"[[[[[[[[[[[[\":0},", "]");
    CHECK((j = parse(buf_str(&b), &e)) != NULL);
    json_free(j);
    buf_release(&b);
}

TEST(gives_values)
{
    struct json *j = parse(STR("{\"Name\":\"N\",\"name\":\"caf\\u00e9\",\"n\":-12,\"f\":0.5,"
                               "\"big\":9007199254740992,\"max\":9007199254740991,\"inf\":1e999,"
                               "\"whole\":1e3,\"t\":true,\"no\":false,\"nil\":null,\"l\":[1,2,3]}"),
                           NULL);
    const struct json *child;
    int64_t v = 7;
    double d;

    CHECK_INT(json_type(j), JSON_OBJECT);
    CHECK_INT(json_count(j), 12);
    CHECK_STR(json_str(json_get(j, "name")), "caf\xC3\xA9");
    CHECK_STR(json_str(json_get(j, "Name")), "N");
    CHECK(json_get(j, "NAME") == NULL);
    CHECK(json_get(NULL, "a") == NULL && json_get(json_get(j, "n"), "a") == NULL);
    CHECK(json_int(json_get(j, "n"), &v) && v == -12);
    CHECK(json_int(json_get(j, "max"), &v) && v == 9007199254740991);
    CHECK(json_int(json_get(j, "whole"), &v) && v == 1000);
    CHECK(!json_int(json_get(j, "big"), &v) && !json_int(json_get(j, "f"), &v));
    CHECK(!json_int(json_get(j, "name"), &v) && !json_int(NULL, &v));
    CHECK(json_num(json_get(j, "f"), &d) && d > 0.49 && d < 0.51);
    CHECK(!json_num(json_get(j, "inf"), &d));
    CHECK(json_is_true(json_get(j, "t")) && !json_is_true(json_get(j, "no")));
    CHECK(!json_is_true(json_get(j, "n")) && !json_is_true(NULL));
    CHECK(json_str(json_get(j, "n")).p == NULL && json_str(NULL).p == NULL);
    CHECK_INT(json_type(json_get(j, "nil")), JSON_NULL);
    CHECK_INT(json_type(json_get(j, "no")), JSON_BOOL);
    child = json_child(json_get(j, "l"));
    CHECK(json_int(json_next(json_next(child)), &v) && v == 3);
    CHECK(json_next(json_next(json_next(child))) == NULL);
    CHECK_STR(json_name(json_child(j)), "Name");
    CHECK(json_child(json_get(j, "n")) == NULL && json_count(json_get(j, "n")) == 0);
    json_free(j);
    json_free(NULL);
}

TEST(members_give_value_and_source_text)
{
    static const struct {
        const char *namez, *rawz;
        enum json_type type;
    } want[] = {
        {"id", "\"a\\u0062\"", JSON_STRING},
        {"big", "12345678901234567890", JSON_NUMBER},
        {"exact", "1.10", JSON_NUMBER},
        {"o", "{ \"x\" : [1, 2] }", JSON_OBJECT},
        {"caf\xC3\xA9\"", "null", JSON_NULL},
        {"", "[ ]", JSON_ARRAY},
        {"id", "true", JSON_BOOL},
    };
    struct str text = exact(STR(" {\"id\":\"a\\u0062\",\"big\" : 12345678901234567890 ,\n"
                                "\"exact\":1.10,\"o\":\t{ \"x\" : [1, 2] } ,"
                                "\"caf\\u00e9\\\"\":null,\"\":[ ],\"id\":true } \n"));
    struct json_members m;
    struct err e;
    size_t i;

    json_members_init(&m, text);
    for (i = 0; i < sizeof want / sizeof want[0]; i++) {
        CHECK_INT(json_members_next(&m, &e), 1);
        CHECK_STR(m.name, want[i].namez);
        CHECK_STR(m.raw, want[i].rawz);
        CHECK(m.raw.p >= text.p && m.raw.p + m.raw.n <= text.p + text.n);
        CHECK_INT(m.type, want[i].type);
        if (i == 0)
            CHECK_STR(json_members_str(&m), "ab");
    }
    CHECK_INT(json_members_next(&m, &e), 0);
    CHECK_INT(json_members_next(&m, &e), 0);
    json_members_release(&m);
    free((void *)text.p);
}

TEST(members_give_numbers_and_truth)
{
    static const struct {
        bool is_int;
        int64_t v;
        bool is_true;
    } want[] = {{true, 17, false},
                {true, 0, false},
                {true, 1000, false},
                {false, 0, false},
                {false, 0, false},
                {false, 0, false},
                {true, -999999999999999, false},
                {true, 9007199254740991, false},
                {false, 0, true},
                {false, 0, false},
                {false, 0, false}};
    struct json_members m;
    struct err e;
    int64_t v;
    size_t i;

    json_members_init(&m, STR("{\"a\":17,\"b\":-0,\"c\":1e3,\"d\":9007199254740993,\"e\":1.5,"
                              "\"f\":\"1\",\"g\":-999999999999999,\"h\":9007199254740991,"
                              "\"t\":true,\"n\":null,\"x\":[1]}"));
    for (i = 0; i < sizeof want / sizeof want[0]; i++) {
        CHECK_INT(json_members_next(&m, &e), 1);
        v = 0;
        CHECK_INT(json_members_int(&m, &v), want[i].is_int);
        CHECK_INT(v, want[i].v);
        CHECK_INT(json_members_is_true(&m), want[i].is_true);
    }
    CHECK_INT(json_members_next(&m, &e), 0);
    json_members_release(&m);
}

TEST(members_want_one_object)
{
    struct err e;

    CHECK_INT(walk(STR("{}"), &e), 0);
    CHECK_INT(walk(STR(" { } "), &e), 0);
    CHECK_INT(walk(STR("{\"a\":1,\"b\":2}"), &e), 2);
    CHECK_INT(walk(STR(""), &e), ERR_INVALID);
    CHECK_INT(walk(STR("[1]"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("\"{}\""), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\":1} {}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\":1 \"b\":2}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\":1,}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{,\"a\":1}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\"}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\\n\"}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{\"a\",1}"), &e), ERR_INVALID);
    CHECK_INT(walk(STR("{1:1}"), &e), ERR_INVALID);
}

TEST(members_can_stop_early)
{
    struct json_members m;

    json_members_init(&m, STR("{\"a\\n\":[1,2,3],\"b\":2}"));
    json_members_release(&m);
    json_members_init(&m, STR("{\"a\\n\":[1,2,3],\"b\":2}"));
    CHECK_INT(json_members_next(&m, NULL), 1);
    json_members_release(&m);
    json_members_release(&m);
}

static void check_print(const char *textz, const char *wantz)
{
    struct json *j = parse(str_z(textz), NULL);
    struct buf b;

    CHECK(j != NULL);
    buf_init(&b, 1000);
    CHECK_INT(json_print(j, &b), 0);
    CHECK_STR(buf_str(&b), wantz);
    buf_release(&b);
    json_free(j);
}

TEST(prints_without_loss)
{
    struct buf b;
    struct json *j;

    check_print(" { \"a\" : [ 1 , true , null , \"x\\u0001\\n\\/\" ] , \"b\" : { } } ",
                "{\"a\":[1,true,null,\"x\\u0001\\n/\"],\"b\":{}}");
    check_print("[0.1,0.30000000000000004,1e300,-2.5e-7,100,9007199254740991,1e999,-0]",
                "[0.1,0.30000000000000004,1e+300,-2.5e-07,100,9007199254740991,null,0]");
    check_print("[0.333333333333333314829616256247,123456789.123456789]",
                "[0.3333333333333333,123456789.12345679]");
    check_print("\"\xC3\xA9\\u00e9\x7F\"", "\"\xC3\xA9\xC3\xA9\x7F\"");
    j = parse(STR("[1,2,3]"), NULL);
    buf_init(&b, 6);
    CHECK_INT(json_print(j, &b), ERR_TOO_LARGE);
    buf_release(&b);
    json_free(j);
}

TEST(puts_strings_that_read_back)
{
    struct buf text, out;
    struct json *j;
    int length, c;

    buf_init(&text, 1000);
    buf_init(&out, 10000);
    for (length = 0; length < 20; length++) {
        for (c = 1; c < 0x80; c++) { /* one odd byte at each place of a word */
            buf_clear(&text);
            buf_clear(&out);
            buf_add(&text, "abcdefghijklmnopqrst", (size_t)length);
            buf_addc(&text, (char)c);
            buf_addz(&text, "\xC3\xA9tail");
            json_put_str(&out, buf_str(&text));
            CHECK((j = parse(buf_str(&out), NULL)) != NULL);
            CHECK(str_eq(json_str(j), buf_str(&text)));
            json_free(j);
        }
    }
    buf_clear(&out);
    json_put_str(&out, STR("\"\\/\b\f\n\r\t\x1f\x7f"));
    CHECK_STR(buf_str(&out), "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f\"");
    buf_clear(&out);
    json_put_str(&out, STR_NONE);
    CHECK_STR(buf_str(&out), "\"\"");
    buf_release(&text);
    buf_release(&out);
}

TEST(puts_members)
{
    struct buf b;

    buf_init(&b, 1000);
    json_put_member_str(&b, "a", STR("x\"y"));
    json_put_member_int(&b, "b", -5);
    json_put_member_bool(&b, "c", true);
    json_put_member_bool(&b, "d", false);
    json_put_member_raw(&b, "e", STR("[1]"));
    json_put_member_raw(&b, "f", STR_NONE);
    json_put_member_opt(&b, "g", STR_NONE);
    json_put_member_opt(&b, "h", STR(""));
    CHECK_STR(buf_str(&b), "\"a\":\"x\\\"y\"\"b\":-5\"c\":true\"d\":false\"e\":[1]\"f\":null"
                           "\"g\":null\"h\":\"\"");
    buf_release(&b);
}
