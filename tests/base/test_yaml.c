#include "base/buf.h"
#include "base/yaml.h"
#include "tests/lib/test.h"
#include <stdlib.h>

static const struct yaml *get(const struct yaml *map, const char *namez)
{
    const struct yaml *y;

    for (y = map->child; y; y = y->next)
        if (str_eqz(y->name, namez))
            return y;
    test_fail(__FILE__, __LINE__, namez);
}

TEST(gives_a_tree_with_places)
{
    struct yaml *y = yaml_parse(STR("# top\n"
                                    "data: ./dir\n"
                                    "list:\n"
                                    "  - one\n"
                                    "  - {a: 'true', b: }\n"
                                    "log: {level: info}\n"),
                                "f.yaml", NULL);
    const struct yaml *item;

    CHECK(y && y->type == YAML_MAP && y->line == 2 && y->column == 1);
    item = get(y, "data");
    CHECK_STR(item->scalar, "./dir");
    CHECK(item->line == 2 && item->column == 7 && item->name_line == 2 && item->name_column == 1);
    CHECK(!item->is_quoted);
    item = get(y, "list");
    CHECK(item->type == YAML_LIST);
    CHECK_STR(item->child->scalar, "one");
    CHECK(item->child->line == 4 && item->child->column == 5 && item->child->name.n == 0);
    item = item->child->next;
    CHECK(item->type == YAML_MAP && item->next == NULL);
    CHECK(get(item, "a")->is_quoted);
    CHECK_STR(get(item, "b")->scalar, "");
    CHECK_STR(get(get(y, "log"), "level")->scalar, "info");
    yaml_tree_free(y);
    yaml_tree_free(NULL);
}

TEST(empty_documents_are_empty_maps)
{
    static const char *const rows[] = {"", "\n", "# only a remark\n", "---\n", "{}"};
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct yaml *y = yaml_parse(str_z(rows[i]), "f", NULL);

        CHECK(y && y->type == YAML_MAP && y->child == NULL);
        yaml_tree_free(y);
    }
}

TEST(refuses_with_place_and_reason)
{
    static const struct {
        const char *textz, *msgz;
    } rows[] = {
        {"a: 1\nb: 2\na: 3\n", "f:3:1: duplicate key a"},
        {"a: &x 1\n", "f:1:4: anchors and aliases are not supported"},
        {"&x a: 1\n", "f:1:1: anchors and aliases are not supported"},
        {"a: &x [1]\nb: *x\n", "f:1:4: anchors and aliases are not supported"},
        {"a: *x\n", "f:1:4: anchors and aliases are not supported"},
        {"a: !!str 1\n", "f:1:4: tags are not supported"},
        {"a: !x {}\n", "f:1:4: tags are not supported"},
        {"[a]: 1\n", "f:1:1: a key must be a plain word"},
        {"a: ${GENQ_UNSET_}\n", "f:1:4: environment variable is not set: GENQ_UNSET_"},
        {"a: ${}\n", "f:1:4: malformed ${NAME}"},
        {"a: \"${A\"\n", "f:1:4: malformed ${NAME}"},
        {"a: ${A-B}\n", "f:1:4: malformed ${NAME}"},
        {"a: ${1A}\n", "f:1:4: malformed ${NAME}"},
        {"a: 1\n---\nb: 2\n", "f:2:1: more than one document"},
        {"a: [1\n", NULL},
        {"a: 1\n b: 2\n", NULL},
        {"\ta: 1\n", NULL},
        {"a: \"\\q\"\n", NULL},
        {"a: \xFF\n", NULL},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = {0};

        if (yaml_parse(str_z(rows[i].textz), "f", &e))
            test_fail(__FILE__, __LINE__, rows[i].textz);
        CHECK_INT(e.code, ERR_INVALID);
        CHECK(memcmp(e.msg, "f:", 2) == 0);
        if (rows[i].msgz)
            CHECK_STR(str_z(e.msg), rows[i].msgz);
    }
}

TEST(replaces_environment_variables)
{
    struct yaml *y;

    setenv("GENQ_A", "v: [1]", 1); /* stays text */
    setenv("GENQ_EMPTY", "", 1);
    y = yaml_parse(STR("a: x${GENQ_A}-${GENQ_EMPTY}${GENQ_A}$ $5\nb: ${GENQ_EMPTY}\n"), "f", NULL);
    CHECK_STR(get(y, "a")->scalar, "xv: [1]-v: [1]$ $5");
    CHECK_STR(get(y, "b")->scalar, "");
    yaml_tree_free(y);
    setenv("GENQ_A", "\xFF", 1);
    CHECK(yaml_parse(STR("a: ${GENQ_A}"), "f", NULL) == NULL);
}

TEST(ceilings)
{
    struct buf b;
    struct err e;
    struct yaml *y;
    int i;

    buf_init(&b, 10 << 20);
    for (i = 0; i < 64; i++)
        buf_addc(&b, '[');
    for (i = 0; i < 64; i++)
        buf_addc(&b, ']');
    CHECK((y = yaml_parse(buf_str(&b), "f", &e)) != NULL);
    yaml_tree_free(y);
    buf_clear(&b);
    for (i = 0; i < 65; i++)
        buf_addc(&b, '[');
    CHECK(yaml_parse(buf_str(&b), "f", &e) == NULL);
    CHECK_STR(str_z(e.msg), "f:1:65: nested more than 64 deep");
    buf_clear(&b);
    for (i = 0; i < (1 << 20) + 1; i++)
        buf_addc(&b, ' ');
    CHECK(yaml_parse(buf_str(&b), "f", &e) == NULL);
    CHECK_INT(e.code, ERR_TOO_LARGE);
    buf_release(&b);
}
