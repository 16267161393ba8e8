/* /openapi.json, OpenAPI 3.1: the paths from route.def, their arguments from param.def, the job
 * from job.def, the states and error codes from their tables; what clients read from the tables
 * here. */
#include "base/json.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"
#include "schema/job.h"
#include <assert.h>
#include <stdio.h>

#define SPEC_MAX_BYTES ((size_t)1 << 20)

struct field {
    const char *namez, *typez, *docz;
    double min, max;
};

static const struct field job_fields[] = {
#define JOB_FIELD(id, name, type, doc) {name, #type, doc, 0, 0},
#include "schema/job.def"
#undef JOB_FIELD
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) {name, #type, doc, min, max},
#include "schema/job.def"
#undef SAMPLING
};

/* The members of a job as read that the job as sent does not have, or has in another form. */
static const struct {
    const char *namez, *schemaz;
} view_fields[] = {
    {"id", "{\"type\":\"string\"}"},
    {"object", "{\"const\":\"job\"}"},
    {"status", "{\"$ref\":\"#/components/schemas/Status\"}"},
    {"model", "{\"type\":[\"string\",\"null\"]}"},
    {"priority", "{\"enum\":[\"high\",\"normal\",\"low\"]}"},
    {"queue", "{\"type\":[\"string\",\"null\"]}"},
    {"batch_id", "{\"type\":[\"string\",\"null\"]}"},
    {"custom_id", "{\"type\":[\"string\",\"null\"]}"},
    {"tenant", "{\"type\":\"string\"}"},
    {"metadata", "{\"type\":[\"object\",\"null\"]}"},
    {"created_at", "{\"type\":\"integer\",\"description\":\"ms since the epoch\"}"},
    {"started_at", "{\"type\":[\"integer\",\"null\"]}"},
    {"finished_at", "{\"type\":[\"integer\",\"null\"]}"},
    {"attempts", "{\"type\":\"integer\"}"},
    {"node", "{\"type\":[\"string\",\"null\"]}"},
    {"cached", "{\"type\":\"boolean\",\"description\":\"Answered from the result cache.\"}"},
    {"output", "{\"type\":[\"object\",\"null\"],\"properties\":{\"text\":{\"type\":[\"string\","
               "\"null\"]},\"message\":{\"type\":[\"object\",\"null\"]},\"embedding\":{\"type\":["
               "\"array\",\"null\"]},\"json\":{},\"finish_reason\":{\"type\":[\"string\","
               "\"null\"]}}}"},
    {"error", "{\"type\":[\"object\",\"null\"],\"properties\":{\"code\":{\"$ref\":"
              "\"#/components/schemas/Code\"},\"message\":{\"type\":\"string\"}}}"},
    {"usage", "{\"type\":[\"object\",\"null\"],\"properties\":{\"prompt_tokens\":{\"type\":"
              "\"integer\"},\"completion_tokens\":{\"type\":\"integer\"},\"total_tokens\":{"
              "\"type\":\"integer\"},\"cached_tokens\":{\"type\":\"integer\"}}}"},
    {"calls", "{\"type\":\"array\",\"items\":{\"type\":\"object\"}}"},
    {"timing", "{\"type\":[\"object\",\"null\"]}"},
    {"cost", "{\"type\":\"number\"}"},
    {"batch_line", "{\"type\":[\"integer\",\"null\"]}"},
    {"key_id", "{\"type\":[\"string\",\"null\"]}"},
    {"redrive_of",
     "{\"type\":\"string\",\"description\":\"The job that it repeats; where it is a redrive.\"}"},
    {"position", "{\"type\":\"string\",\"description\":\"Where the log has it; with 201 only.\"}"},
};

#define ID_SCHEMA "\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9._-]{1,64}$\""
#define TIME_SCHEMA "\"type\":[\"string\",\"integer\"]"

static const struct param {
    const char *namez, *schemaz, *docz;
} params[] = {
#define PARAM(name, schema, doc) {name, schema, doc},
#include "producer/api/param.def"
#undef PARAM
};

#define LIST_SCHEMA(item) \
    "{\"type\":\"object\",\"required\":[\"object\",\"data\"],\"properties\":{" \
    "\"object\":{\"const\":\"list\"},\"data\":{\"type\":\"array\",\"items\":" item "}," \
    "\"has_more\":{\"type\":\"boolean\"},\"next\":{\"type\":[\"integer\",\"null\"]}}}"

/* Replies other than a job. */
static const struct {
    const char *namez, *schemaz;
} replies[] = {
    {"JobList", LIST_SCHEMA("{\"anyOf\":[{\"$ref\":\"#/components/schemas/JobView\"},"
                            "{\"$ref\":\"#/components/schemas/Error\"}]}")},
    {"Batch",
     "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"object\":{\"const\":"
     "\"batch\"},\"status\":{\"type\":\"string\"},\"created_at\":{\"type\":\"integer\"},"
     "\"finished_at\":{\"type\":[\"integer\",\"null\"]},\"total\":{\"type\":\"integer\"},"
     "\"counts\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}},"
     "\"usage\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}},"
     "\"cost\":{\"type\":\"number\"},\"eta_ms\":{\"type\":[\"integer\",\"null\"]},"
     "\"refused\":{\"type\":\"integer\",\"description\":\"Lines that are no jobs; of a POST.\"},"
     "\"errors\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}}"},
    {"BatchList", LIST_SCHEMA("{\"$ref\":\"#/components/schemas/Batch\"}")},
    {"List", LIST_SCHEMA("{\"type\":\"object\"}")},
    {"Health", "{\"type\":\"object\",\"required\":[\"status\"],\"properties\":{\"status\":{"
               "\"type\":\"string\"},\"checks\":{\"type\":\"object\"}}}"},
    {"Dead",
     "{\"type\":\"object\",\"properties\":{\"object\":{\"const\":\"dead\"},\"position\":{"
     "\"type\":\"string\"},\"at\":{\"type\":\"integer\",\"description\":\"ms since the epoch\"},"
     "\"code\":{\"type\":\"string\"},\"reason\":{\"type\":\"string\"},\"source\":{\"type\":["
     "\"string\",\"null\"]},\"job_id\":{\"type\":[\"string\",\"null\"]},\"tenant\":{\"type\":"
     "\"string\"},\"model\":{\"type\":[\"string\",\"null\"]},\"queue\":{\"type\":[\"string\","
     "\"null\"]},\"batch_id\":{\"type\":[\"string\",\"null\"]},\"bytes\":{\"type\":\"integer\"},"
     "\"preview\":{\"type\":[\"string\",\"null\"]},\"can_redrive\":{\"type\":\"boolean\"},"
     "\"redriven_as\":{\"type\":[\"string\",\"null\"]},\"result\":{\"enum\":[\"redriven\","
     "\"would\",\"already\",\"refused\"],\"description\":\"Of a redrive, like id and error.\"},"
     "\"id\":{\"type\":[\"string\",\"null\"]},\"error\":{\"type\":[\"string\",\"null\"]}}}"},
    {"DeadList", LIST_SCHEMA("{\"$ref\":\"#/components/schemas/Dead\"}")},
    {"Redrive", "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"model\":{"
                "\"type\":\"string\"},\"options\":{\"type\":\"object\"}}}"},
    {"Any", "{\"type\":\"object\"}"},
};

static bool is(const char *az, const char *bz)
{
    return strcmp(az, bz) == 0;
}

/* The JSON schema of a type of job.def, without its braces. */
static const char *type_schema(const char *typez)
{
    if (is(typez, "id"))
        return ID_SCHEMA;
    if (is(typez, "name"))
        return "\"type\":\"string\",\"minLength\":1,\"maxLength\":256";
    if (is(typez, "text") || is(typez, "str"))
        return "\"type\":\"string\"";
    if (is(typez, "int"))
        return "\"type\":\"integer\"";
    if (is(typez, "num"))
        return "\"type\":\"number\"";
    if (is(typez, "bool"))
        return "\"type\":\"boolean\"";
    if (is(typez, "object"))
        return "\"type\":\"object\"";
    if (is(typez, "priority"))
        return "\"enum\":[\"high\",\"normal\",\"low\"]";
    if (is(typez, "cache"))
        return "\"enum\":[\"use\",\"refresh\",\"bypass\"]";
    if (is(typez, "time"))
        return TIME_SCHEMA;
    return NULL; /* any JSON */
}

static void put_field(struct buf *b, const struct field *f)
{
    const char *schemaz = type_schema(f->typez);

    json_put_name(b, f->namez);
    buf_addc(b, '{');
    if (schemaz) {
        buf_addz(b, schemaz);
        buf_addc(b, ',');
    }
    if (f->max > f->min)
        buf_addf(b, "\"minimum\":%.0f,\"maximum\":%.0f,", f->min, f->max);
    json_put_member_str(b, "description", str_z(f->docz));
    buf_addc(b, '}');
}

static void put_job(struct buf *b)
{
    buf_addz(b, "\"Job\":{\"type\":\"object\",\"required\":[\"model\"],"
                "\"additionalProperties\":false,"
                "\"oneOf\":[{\"required\":[\"prompt\"]},{\"required\":[\"messages\"]},"
                "{\"required\":[\"input\"]}],\"properties\":{");
    for (size_t i = 0; i < sizeof job_fields / sizeof job_fields[0]; i++) {
        if (i)
            buf_addc(b, ',');
        put_field(b, &job_fields[i]);
    }
    buf_addz(b, "}}");
}

static void put_view(struct buf *b)
{
    buf_addz(b, "\"JobView\":{\"type\":\"object\",\"properties\":{");
    for (size_t i = 0; i < sizeof view_fields / sizeof view_fields[0]; i++) {
        if (i)
            buf_addc(b, ',');
        json_put_name(b, view_fields[i].namez);
        buf_addz(b, view_fields[i].schemaz);
    }
    buf_addz(b, "}}");
}

static void put_schemas(struct buf *b)
{
    put_job(b);
    buf_addc(b, ',');
    put_view(b);
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++)
        buf_addf(b, ",\"%s\":%s", replies[i].namez, replies[i].schemaz);
    buf_addz(b, ",\"Status\":{\"type\":\"string\",\"enum\":[");
    for (enum job_state i = 0; i < STATE_COUNT_; i++)
        buf_addf(b, "%s\"%s\"", i ? "," : "", state_name(i));
    buf_addz(b, "]},\"Code\":{\"type\":\"string\",\"enum\":[");
    for (enum reason i = 0; i < REASON_COUNT_; i++)
        buf_addf(b, "%s\"%s\"", i ? "," : "", reason_code(i));
    buf_addz(b, "]},\"Error\":{\"type\":\"object\",\"required\":[\"error\"],"
                "\"properties\":{\"error\":"
                "{\"type\":\"object\",\"required\":[\"message\",\"type\",\"param\",\"code\"],"
                "\"properties\":{\"message\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},"
                "\"param\":{\"type\":[\"string\",\"null\"]},\"code\":{\"type\":[\"string\","
                "\"null\"]}}}}}");
}

/* The {…} of a pattern. Gives how many. */
static int put_path_parameters(struct buf *b, const char *patternz)
{
    const char *open = patternz;
    int n = 0;

    while ((open = strchr(open, '{'))) {
        size_t length = strcspn(open + 1, "}");

        if (n++)
            buf_addc(b, ',');
        buf_addz(b, "{\"in\":\"path\",\"required\":true,\"schema\":{" ID_SCHEMA "},");
        json_put_member_str(b, "name", str_of(open + 1, length));
        buf_addc(b, '}');
        open += length;
    }
    return n;
}

static void put_parameter(struct buf *b, const char *namez)
{
    const struct param *p = params;

    while (!is(p->namez, namez)) {
        p++;
        assert(p < params + sizeof params / sizeof params[0]); /* param.def lacks the name */
    }
    buf_addf(b, "{\"in\":\"%s\",\"schema\":{%s},", *namez < 'a' ? "header" : "query", p->schemaz);
    json_put_member_str(b, "name", str_z(namez));
    buf_addc(b, ',');
    json_put_member_str(b, "description", str_z(p->docz));
    buf_addc(b, '}');
}

static void put_parameters(struct buf *b, const struct route *r)
{
    int n;

    buf_addz(b, "\"parameters\":[");
    n = put_path_parameters(b, r->patternz);
    for (const char *const *namez = r->params; *namez; namez++) {
        if (n++)
            buf_addc(b, ',');
        put_parameter(b, *namez);
    }
    buf_addc(b, ']');
}

static const char *request_body(const struct route *r)
{
    if (r->on_body)
        return ",\"requestBody\":{\"required\":true,"
               "\"content\":{\"application/x-ndjson\":{\"schema\":"
               "{\"type\":\"string\"}}}}";
    if (is(r->replyz, "DeadList") && is(r->methodz, "POST"))
        return ",\"requestBody\":{\"required\":false,\"content\":{\"application/json\":{\"schema\":"
               "{\"$ref\":\"#/components/schemas/Redrive\"}}}}";
    if (is(r->methodz, "POST"))
        return ",\"requestBody\":{\"required\":true,\"content\":{\"application/json\":{\"schema\":"
               "{\"oneOf\":[{\"$ref\":\"#/components/schemas/Job\"},{\"type\":\"array\",\"items\":"
               "{\"$ref\":\"#/components/schemas/Job\"}}]}}}}";
    return "";
}

static void put_response(struct buf *b, int status, const char *docz, const char *typez,
                         const char *schemaz)
{
    buf_addf(b, "\"%d\":{\"description\":\"%s\",\"content\":{\"%s\":{\"schema\":%s}}},", status,
             docz, typez, schemaz);
}

/* Who makes something is answered 200 where it was there already; an array always is. */
static void put_responses(struct buf *b, const struct route *r)
{
    char schema[128];
    bool is_json = strchr(r->replyz, '/') == NULL;

    snprintf(schema, sizeof schema, "{\"$ref\":\"#/components/schemas/%s\"}", r->replyz);
    put_response(b, r->status, "Done.", is_json ? "application/json" : r->replyz,
                 is_json ? schema : "{\"type\":\"string\"}");
    if (r->status == 201)
        put_response(b, 200, "A repeat, or an array.", "application/json",
                     r->on_body ? schema
                                : "{\"anyOf\":[{\"$ref\":\"#/components/schemas/JobView\"},"
                                  "{\"$ref\":\"#/components/schemas/JobList\"}]}");
    buf_addz(b, "\"default\":{\"description\":\"An error.\",\"content\":{\"application/json\":{"
                "\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}}");
}

static void put_operation(struct buf *b, const struct route *r)
{
    char method[8];
    size_t n;

    str_copyz(method, sizeof method, str_z(r->methodz));
    for (n = 0; method[n]; n++)
        method[n] = (char)(method[n] | 0x20);
    json_put_name(b, method);
    buf_addc(b, '{');
    json_put_member_str(b, "summary", str_z(r->docz));
    buf_addc(b, ',');
    put_parameters(b, r);
    buf_addz(b, request_body(r));
    buf_addz(b, ",\"responses\":{");
    put_responses(b, r);
    buf_addz(b, "}}");
}

/* Each path once, with all its methods. */
static void put_paths(struct buf *b)
{
    for (const struct route *r = routes; r->methodz; r++) {
        const struct route *first = routes;

        while (!is(first->patternz, r->patternz))
            first++;
        if (first != r)
            continue;
        if (r != routes)
            buf_addc(b, ',');
        json_put_name(b, r->patternz);
        buf_addc(b, '{');
        put_operation(b, r);
        for (const struct route *other = r + 1; other->methodz; other++) {
            if (!is(other->patternz, r->patternz))
                continue;
            buf_addc(b, ',');
            put_operation(b, other);
        }
        buf_addc(b, '}');
    }
}

void openapi_get(struct request *q)
{
    struct buf b;

    buf_init(&b, SPEC_MAX_BYTES);
    buf_addz(&b, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"genq\",\"version\":\"" GENQ_VERSION
                 "\",\"description\":\"A queue for LLM work.\"},\"paths\":{");
    put_paths(&b);
    buf_addz(&b, "},\"components\":{\"schemas\":{");
    put_schemas(&b);
    buf_addz(&b, "}}}");
    request_reply_json(q, 200, &b);
}
