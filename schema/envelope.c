#include "schema/envelope.h"
#include "base/clock.h"
#include "base/json.h"

/* The value is written first, while mem may still move; then the room for all headers is reserved
 * at once, so that pointers into mem stay good. */

enum {
    TIME_ROOM = 32,
    EVENT_ROOM = 16,                                      /* ".completion" */
    FIXED_ROOM = TIME_ROOM + EVENT_ROOM + 2 * SHA256_LEN, /* besides what the job names */
};

static struct str put(struct buf *mem, struct str s)
{
    size_t at = mem->n;

    if (!s.p || buf_adds(mem, s))
        return STR_NONE;
    return str_of(mem->p + at, s.n);
}

static void put_time(struct record *r, int64_t wall_ms, struct buf *mem)
{
    char at[TIME_ROOM];

    clock_format_rfc3339(wall_ms > 0 ? wall_ms : clock_wall_ms(), at);
    r->headers[HEADER_TIME] = put(mem, str_z(at));
}

/* The id is the job's with the kind of event, so that a record published again carries the same. */
static void put_event(struct record *r, struct str type, struct str id, const char *kindz,
                      struct buf *mem)
{
    size_t at = mem->n;

    memset(r->headers, 0, sizeof r->headers);
    buf_adds(mem, id);
    buf_addc(mem, '.');
    buf_addz(mem, kindz);
    r->headers[HEADER_EVENT_ID] = mem->is_over ? STR_NONE : str_of(mem->p + at, mem->n - at);
    r->headers[HEADER_SPECVERSION] = STR("1.0");
    r->headers[HEADER_TYPE] = type;
    r->headers[HEADER_EVENT_SOURCE] = STR("genq");
    r->headers[HEADER_CONTENT_TYPE] = STR("application/json");
}

static void put_job_headers(struct record *r, const struct job *j, struct buf *mem)
{
    uint8_t digest[SHA256_LEN];
    char digits[2 * SHA256_LEN + 1];

    if (job_knows_digest(j)) {
        job_digest(j, digest);
        hex(digest, sizeof digest, digits);
        r->headers[HEADER_DIGEST] = put(mem, str_of(digits, 2 * SHA256_LEN));
    }
    r->headers[HEADER_TENANT] = put(mem, j->tenant);
    r->headers[HEADER_MODEL] = put(mem, j->model);
    r->headers[HEADER_BATCH] = put(mem, j->batch_id);
}

/* Sets the value to what stands in mem from `start` on, and makes room for the rest. */
static int set_value(struct record *r, size_t start, size_t room, struct buf *mem, struct err *e)
{
    size_t n = mem->n - start;

    if (mem->is_over || !buf_reserve(mem, room))
        return err_set(e, ERR_TOO_LARGE, "record past %zu bytes", mem->max);
    r->value = str_of(mem->p + start, n);
    return 0;
}

/* A bound on the bytes of the key and all headers but the source. */
static size_t headers_room(const struct job *j)
{
    return 2 * j->id.n + j->session.n + 2 * j->tenant.n + j->model.n + j->batch_id.n + FIXED_ROOM;
}

struct str scheduled_key(struct str tenant, struct str id, struct buf *mem)
{
    size_t at = mem->n;

    if (tenant.p && !str_eqz(tenant, "default")) {
        buf_adds(mem, tenant);
        buf_addc(mem, '/');
    }
    buf_adds(mem, id);
    return mem->is_over ? STR_NONE : str_of(mem->p + at, mem->n - at);
}

void scheduled_name(struct str key, struct str *tenant, struct str *id)
{
    const char *slash = key.n ? memchr(key.p, '/', key.n) : NULL; /* in no name */
    size_t n = slash ? (size_t)(slash - key.p) : 0;

    *tenant = slash ? str_of(key.p, n) : STR("default");
    *id = slash ? str_of(slash + 1, key.n - n - 1) : key;
}

size_t envelope_room(const struct job *j)
{
    return job_room(j) + headers_room(j);
}

int envelope_job(struct record *r, const struct job *j, struct buf *mem, struct err *e)
{
    size_t start = mem->n;
    int rc;

    if (mem->max - mem->n > envelope_room(j)) /* else the ceiling judges what is really added */
        buf_reserve(mem, envelope_room(j));
    job_write(j, mem);
    rc = set_value(r, start, headers_room(j), mem, e);
    if (rc)
        return rc;
    if (j->state == STATE_SCHEDULED)
        r->key = scheduled_key(j->tenant, j->id, mem);
    else
        r->key = put(mem, j->session.p ? j->session : j->id);
    put_event(r, STR("genq.job.v1"), j->id, "job", mem);
    put_time(r, j->created_at, mem);
    put_job_headers(r, j, mem);
    return 0;
}

int envelope_completion(struct record *r, const struct job *j, const struct completion *c,
                        const char *sourcez, struct buf *mem, struct err *e)
{
    struct str source = str_z(sourcez);
    size_t start = mem->n;
    int rc;

    completion_write(j, c, mem);
    rc = set_value(r, start, headers_room(j) + source.n, mem, e);
    if (rc)
        return rc;
    r->key = put(mem, j->id);
    put_event(r, STR("genq.completion.v1"), j->id, "completion", mem);
    put_time(r, c->finished_at, mem);
    put_job_headers(r, j, mem);
    r->headers[HEADER_STATUS] = str_z(state_name(c->state));
    r->headers[HEADER_SOURCE] = put(mem, source);
    return 0;
}

int envelope_cancel(struct record *r, struct str tenant, struct str id, struct buf *mem)
{
    size_t start = mem->n;
    int rc;

    buf_addc(mem, '{');
    json_put_member_str(mem, "tenant", tenant);
    buf_addc(mem, ',');
    json_put_member_str(mem, "id", id);
    buf_addc(mem, '}');
    rc = set_value(r, start, 2 * id.n + tenant.n + FIXED_ROOM, mem, NULL);
    if (rc)
        return rc;
    r->key = put(mem, id);
    put_event(r, STR("genq.cancel.v1"), id, "cancel", mem);
    put_time(r, 0, mem);
    r->headers[HEADER_TENANT] = put(mem, tenant);
    return 0;
}

int cancel_read(struct str value, struct str *tenant, struct str *id, struct buf *mem,
                struct err *e)
{
    struct json *order = json_parse(value, e);
    int rc = 0;

    if (!order)
        return ERR_INVALID;
    *tenant = json_str(json_get(order, "tenant"));
    *id = json_str(json_get(order, "id"));
    if (!id_is_valid(*tenant) || !id_is_valid(*id))
        rc = err_set(e, ERR_INVALID, "cancel order without tenant or id");
    else if (!buf_reserve(mem, tenant->n + id->n))
        rc = err_set(e, ERR_TOO_LARGE, "cancel order past %zu bytes", mem->max);
    *tenant = rc ? STR_NONE : put(mem, *tenant);
    *id = rc ? STR_NONE : put(mem, *id);
    json_free(order);
    return rc;
}

int envelope_dead(struct record *r, const struct record *bad, const char *reasonz,
                  const char *sourcez, struct buf *mem)
{
    size_t n = bad->key.n + bad->value.n + strlen(reasonz) + (sourcez ? strlen(sourcez) : 0);
    int h;

    for (h = 0; h < HEADER_COUNT_; h++)
        n += bad->headers[h].n;
    if (!buf_reserve(mem, n))
        return ERR_TOO_LARGE;
    r->key = put(mem, bad->key);
    r->value = put(mem, bad->value);
    for (h = 0; h < HEADER_COUNT_; h++)
        r->headers[h] = put(mem, bad->headers[h]);
    r->headers[HEADER_REASON] = put(mem, str_z(reasonz));
    r->headers[HEADER_SOURCE] = put(mem, str_z(sourcez));
    return 0;
}

int envelope_failed(struct record *r, const struct job *j, const char *codez, struct str message,
                    const char *sourcez, struct buf *mem)
{
    size_t start = mem->n, n = strlen(codez) + 2 + message.n, at;
    int rc;

    job_write(j, mem);
    rc = set_value(r, start, headers_room(j) + n + strlen(sourcez), mem, NULL);
    if (rc)
        return rc;
    r->key = put(mem, j->id);
    put_event(r, STR(DEAD_JOB_TYPE), j->id, "failed", mem);
    put_time(r, 0, mem);
    put_job_headers(r, j, mem);
    at = mem->n;
    buf_addz(mem, codez);
    buf_addz(mem, ": ");
    buf_adds(mem, message);
    r->headers[HEADER_REASON] = str_of(mem->p + at, n);
    r->headers[HEADER_STATUS] = STR("failed");
    r->headers[HEADER_SOURCE] = put(mem, str_z(sourcez));
    return 0;
}
