/* docs/schema/ says what the code does: the job's fields with their types and ranges, and each
 * member that a completion is written with. */
#include "base/file.h"
#include "base/json.h"
#include "schema/completion.h"
#include "tests/lib/test.h"
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct json *read_schema(const char *pathz)
{
    struct json *schema;
    struct buf b;

    buf_init(&b, 1 << 20);
    CHECK_INT(file_read(pathz, &b, NULL), 0);
    schema = json_parse(buf_str(&b), NULL);
    CHECK(schema);
    CHECK_STR(json_str(json_get(schema, "$schema")),
              "https://json-schema.org/draft/2020-12/schema");
    CHECK(!json_is_true(json_get(schema, "additionalProperties")));
    CHECK_INT(json_type(json_get(schema, "additionalProperties")), JSON_BOOL);
    buf_release(&b);
    return schema;
}

enum type {
    TYPE_id,
    TYPE_name,
    TYPE_text,
    TYPE_raw,
    TYPE_time,
    TYPE_int,
    TYPE_bool,
    TYPE_object,
    TYPE_priority,
    TYPE_cache,
    TYPE_num,
    TYPE_str,
    TYPE_any
};

static const struct {
    const char *namez;
    enum type type;
    double min, max;
} rows[] = {
#define JOB_FIELD(id, name, type, doc) {name, TYPE_##type, 0, 0},
#include "schema/job.def"
#undef JOB_FIELD
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) {name, TYPE_##type, min, max},
#include "schema/job.def"
#undef SAMPLING
};

/* The one "type" of a property; "" for those that have none, or several. */
static const char *const types[] = {
    [TYPE_id] = "string", [TYPE_name] = "string", [TYPE_text] = "string",  [TYPE_raw] = "",
    [TYPE_time] = "",     [TYPE_int] = "integer", [TYPE_bool] = "boolean", [TYPE_object] = "object",
    [TYPE_cache] = "",    [TYPE_priority] = "",   [TYPE_num] = "number",   [TYPE_str] = "string",
    [TYPE_any] = "",
};

static double number(const struct json *property, const char *namez)
{
    double v = 0;

    CHECK(json_num(json_get(property, namez), &v));
    return v;
}

static double clamp(double v)
{
    const double last = 9007199254740991.0; /* integers past it are no integers to a double */

    return v > last ? last : v < -last ? -last : v;
}

static void check_range(const struct json *property, double min, double max)
{
    CHECK(!(number(property, "minimum") < clamp(min)) &&
          !(number(property, "minimum") > clamp(min)));
    CHECK(!(number(property, "maximum") < clamp(max)) &&
          !(number(property, "maximum") > clamp(max)));
}

TEST(job)
{
    struct json *schema = read_schema(SOURCE_DIR "/docs/schema/job.schema.json");
    const struct json *properties = json_get(schema, "properties"), *property;
    size_t i;

    for (i = 0; i < COUNT(rows); i++) {
        property = json_get(properties, rows[i].namez);
        if (!property)
            fprintf(stderr, "# %s is missing\n", rows[i].namez);
        CHECK(property);
        if (types[rows[i].type][0])
            CHECK_STR(json_str(json_get(property, "type")), types[rows[i].type]);
        if (rows[i].min < rows[i].max)
            check_range(property, rows[i].min, rows[i].max);
        if (rows[i].type == TYPE_id)
            CHECK_STR(json_str(json_get(property, "pattern")), "^[A-Za-z0-9._-]{1,64}$");
        if (rows[i].type == TYPE_name)
            CHECK_INT(number(property, "maxLength"), JOB_NAME_MAX_BYTES);
    }
    check_range(json_get(properties, "timeout_ms"), 1, JOB_TIMEOUT_MS_MAX);
    check_range(json_get(properties, "max_attempts"), 1, JOB_ATTEMPTS_MAX);
    CHECK(json_get(properties, "n") && json_get(properties, "stream_options"));
    CHECK_INT(json_count(properties), COUNT(rows) + 2);
    json_free(schema);
}

static bool is_required(const struct json *schema, struct str name)
{
    const struct json *required;

    for (required = json_child(json_get(schema, "required")); required;
         required = json_next(required))
        if (str_eq(json_str(required), name))
            return true;
    return false;
}

static bool is_listed(const struct json *list, struct str s)
{
    for (list = json_child(list); list; list = json_next(list))
        if (str_eq(json_str(list), s))
            return true;
    return false;
}

/* Every member of `value` is in the schema, and every property in `value`; members below as well.
 */
static void check_members(const struct json *value, const struct json *schema, bool is_open)
{
    const struct json *properties = json_get(schema, "properties"), *m, *property;

    if (json_type(value) == JSON_ARRAY && json_get(schema, "items")) {
        for (m = json_child(value); m; m = json_next(m))
            check_members(m, json_get(schema, "items"), false);
        return;
    }
    if (json_get(schema, "enum"))
        CHECK(is_listed(json_get(schema, "enum"), json_str(value)));
    if (json_type(value) != JSON_OBJECT || !properties)
        return;
    for (m = json_child(value); m; m = json_next(m)) {
        property = json_get(properties, json_name(m).p);
        if (!property)
            fprintf(stderr, "# %s is not in the schema\n", json_name(m).p);
        CHECK(property);
        CHECK(is_open || is_required(schema, json_name(m)) || str_eqz(json_name(m), "redrive_of"));
        check_members(m, property, str_eq(json_name(m), STR("output")));
    }
    CHECK_INT(json_count(value), json_count(properties));
}

static void check_written(const struct completion *c, const struct json *schema)
{
    struct job j;
    struct buf b;
    struct json *value;

    buf_init(&b, 1 << 16);
    CHECK_INT(job_parse(&j, STR("{\"id\":\"i\",\"prompt\":\"a\",\"redrive_of\":\"h\"}"), true, NULL,
                        NULL),
              0);
    CHECK_INT(completion_write(&j, c, &b), 0);
    value = json_parse(buf_str(&b), NULL);
    CHECK(value);
    check_members(value, schema, false);
    json_free(value);
    job_release(&j);
    buf_release(&b);
}

TEST(completion)
{
    struct json *schema = read_schema(SOURCE_DIR "/docs/schema/completion.schema.json");
    struct call call = {.id = "c"};
    struct completion c = {.state = STATE_SUCCEEDED,
                           .reason = REASON_NONE,
                           .text = STR("x"),
                           .message = STR("{}"),
                           .embedding = STR("[]"),
                           .json = STR("1"),
                           .finish_reason = STR("stop"),
                           .calls = &call,
                           .n_calls = 1};
    enum reason r;

    check_written(&c, schema);
    c.state = STATE_FAILED;
    for (r = 0; r < REASON_COUNT_; r++) {
        c.reason = r;
        check_written(&c, schema);
    }
    for (call.outcome = CALL_OK; call.outcome <= CALL_REFUSED; call.outcome++)
        check_written(&c, schema);
    json_free(schema);
}

TEST(lists_of_names)
{
    struct json *schema = read_schema(SOURCE_DIR "/docs/schema/completion.schema.json");
    const struct json *p = json_get(schema, "properties"), *list;
    enum job_state s;

    list = json_get(json_get(p, "status"), "enum");
    for (s = 0; s < STATE_COUNT_; s++)
        CHECK(is_listed(list, str_z(state_name(s))));
    CHECK_INT(json_count(list), STATE_COUNT_);
    list = json_get(json_get(json_get(json_get(p, "error"), "properties"), "code"), "enum");
    CHECK_INT(json_count(list), REASON_COUNT_);
    json_free(schema);
}
