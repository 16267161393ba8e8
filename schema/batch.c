#include "schema/batch.h"
#include "base/clock.h"
#include "base/json.h"

/* Longest key, id and time together, and the value around two ids. */
enum { ROOM = 4 * (2 * ID_MAX + 64) };

static const char *const states[] = {
    [BATCH_RECEIVING] = "receiving", [BATCH_SEALED] = "sealed", [BATCH_CANCELLED] = "cancelled",
};

/* What was added to mem since `from`. */
static struct str since(const struct buf *mem, size_t from)
{
    return str_of(mem->p + from, mem->n - from);
}

static struct str put_value(const struct batch *b, struct buf *mem)
{
    size_t from = mem->n;

    buf_addc(mem, '{');
    json_put_member_str(mem, "id", b->id);
    buf_addc(mem, ',');
    json_put_member_str(mem, "tenant", b->tenant);
    buf_addc(mem, ',');
    json_put_member_str(mem, "state", str_z(states[b->state]));
    buf_addc(mem, ',');
    json_put_member_int(mem, "created_at", b->created_at);
    buf_addc(mem, ',');
    json_put_member_int(mem, "n_lines", b->n_lines);
    buf_addc(mem, '}');
    return since(mem, from);
}

static struct str put_key(const struct batch *b, struct buf *mem)
{
    size_t from = mem->n;

    buf_addf(mem, "batch/%.*s/%.*s", STR_ARG(b->tenant), STR_ARG(b->id));
    return since(mem, from);
}

/* CloudEvents' id: unique for each step of a batch. */
static struct str put_event_id(const struct batch *b, struct buf *mem)
{
    size_t from = mem->n;

    buf_addf(mem, "%.*s/%s", STR_ARG(b->id), states[b->state]);
    return since(mem, from);
}

static struct str put_time(int64_t ms, struct buf *mem)
{
    char text[32];
    size_t from = mem->n;

    clock_format_rfc3339(ms, text);
    buf_addz(mem, text);
    return since(mem, from);
}

int envelope_batch(struct record *r, const struct batch *b, struct buf *mem)
{
    size_t i;

    if (b->id.n > ID_MAX || b->tenant.n > ID_MAX || !buf_reserve(mem, ROOM))
        return ERR_TOO_LARGE;
    for (i = 0; i < HEADER_COUNT_; i++)
        r->headers[i] = STR_NONE;
    r->value = put_value(b, mem);
    r->key = put_key(b, mem);
    r->headers[HEADER_SPECVERSION] = STR("1.0");
    r->headers[HEADER_EVENT_ID] = put_event_id(b, mem);
    r->headers[HEADER_TYPE] = STR("genq.batch.v1");
    r->headers[HEADER_EVENT_SOURCE] = STR("genq");
    if (b->state == BATCH_RECEIVING)
        r->headers[HEADER_TIME] = put_time(b->created_at, mem);
    r->headers[HEADER_CONTENT_TYPE] = STR("application/json");
    r->headers[HEADER_TENANT] = b->tenant;
    r->headers[HEADER_BATCH] = b->id;
    return 0;
}

static bool parse_state(struct str name, enum batch_state *out)
{
    size_t i;

    for (i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (str_eqz(name, states[i])) {
            *out = (enum batch_state)i;
            return true;
        }
    }
    return false;
}

int batch_read(struct batch *b, struct str value, struct json **owned, struct err *e)
{
    struct json *j = json_parse(value, e);
    struct batch got;

    if (!j)
        return e ? err_prefix(e, "batch") : ERR_INVALID;
    got.id = json_str(json_get(j, "id"));
    got.tenant = json_str(json_get(j, "tenant"));
    if (id_is_valid(got.id) && id_is_valid(got.tenant) &&
        parse_state(json_str(json_get(j, "state")), &got.state) &&
        json_int(json_get(j, "created_at"), &got.created_at) &&
        json_int(json_get(j, "n_lines"), &got.n_lines)) {
        *b = got;
        *owned = j;
        return 0;
    }
    json_free(j);
    return err_set(e, ERR_INVALID, "batch: a member is missing or not valid");
}
