/* What parses prints as JSON that prints the same again; and walking the members of an object
 * agrees with parsing it. */
#include "base/json.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

static void check_print(const struct json *j, size_t max)
{
    struct json *again;
    struct buf one, two;

    buf_init(&one, max);
    buf_init(&two, max);
    require(json_print(j, &one) == 0);
    again = json_parse(buf_str(&one), NULL);
    require(again);
    require(json_print(again, &two) == 0);
    require(str_eq(buf_str(&one), buf_str(&two)));
    json_free(again);
    buf_release(&one);
    buf_release(&two);
}

static void check_members(const struct json *j, struct str text)
{
    struct json_members m;
    const struct json *child = j ? json_child(j) : NULL;
    struct json *raw;
    int rc;

    json_members_init(&m, text);
    while ((rc = json_members_next(&m, NULL)) > 0) {
        require(m.raw.p >= text.p && m.raw.p + m.raw.n <= text.p + text.n);
        raw = json_parse(m.raw, NULL);
        require(raw && json_type(raw) == m.type);
        json_free(raw);
        if (!j)
            continue;
        require(child && str_eq(json_name(child), m.name));
        child = json_next(child);
    }
    json_members_release(&m);
    require(rc < 0 ? !j || json_type(j) != JSON_OBJECT : j && !child);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_of(data, size);
    struct json *j = json_parse(text, NULL);

    if (j)
        check_print(j, size * 8 + 64);
    check_members(j, text);
    json_free(j);
    return 0;
}
