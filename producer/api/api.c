#include "producer/api/api.h"
#include "base/clock.h"
#include "base/json.h"
#include "broker-config/config.h"

#define WAIT_MAX_MS 120000
#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000
#define HEARTBEAT_MS 15000

/* ---- arguments ---- */

bool api_check_query(struct request *q)
{
    struct str name = request_unknown_query(q);
    char namez[65];

    if (!name.p)
        return true;
    str_copyz(namez, sizeof namez, name);
    request_reply_error(q, REASON_INVALID_REQUEST, namez, "unknown query argument '%s'", namez);
    return false;
}

bool api_id(struct request *q, const char *namez, struct str *id)
{
    *id = request_query(q, namez);
    if (!id->p || id_is_valid(*id))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, namez,
                        "'%s' must be 1 to 64 of letters, digits, '.', '_' and '-'", namez);
    return false;
}

bool api_tenant(struct request *q, struct str *tenant)
{
    if (!api_id(q, "tenant", tenant))
        return false;
    if (!tenant->p)
        *tenant = STR("default");
    return true;
}

bool api_wait_ms(struct request *q, int64_t *wait_ms)
{
    struct str s = request_query(q, "wait");

    *wait_ms = 0;
    if (!s.p || (clock_parse_duration(s, wait_ms) && *wait_ms >= 0 && *wait_ms <= WAIT_MAX_MS))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "wait",
                        "'wait' must be a duration of at most 120s, such as 30s or 1500ms");
    return false;
}

bool api_limit(struct request *q, int *limit)
{
    struct str s = request_query(q, "limit");
    int64_t n = LIMIT_DEFAULT;

    if (s.p && (!str_int(s, &n) || n < 1 || n > LIMIT_MAX)) {
        request_reply_error(q, REASON_INVALID_REQUEST, "limit",
                            "'limit' must be an integer of 1 to %d", LIMIT_MAX);
        return false;
    }
    *limit = (int)n;
    return true;
}

bool api_cursor(struct request *q, const char *namez, int64_t absent, int64_t *out)
{
    struct str s = request_query(q, namez);

    *out = absent;
    if (!s.p || (str_int(s, out) && *out >= 0))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, namez,
                        "'%s' must be a cursor: the `next` of an earlier answer", namez);
    return false;
}

bool api_time(struct request *q, const char *namez, int64_t *wall_ms)
{
    struct str s = request_query(q, namez);

    *wall_ms = 0;
    if (!s.p || (str_int(s, wall_ms) && *wall_ms >= 0) || clock_parse_rfc3339(s, wall_ms))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, namez,
                        "'%s' must be a time as in RFC 3339, or in ms since the epoch", namez);
    return false;
}

/* ---- errors ---- */

void api_put_error(struct buf *b, enum reason reason, const char *codez, const char *paramz,
                   const char *messagez)
{
    buf_addz(b, "{\"error\":{");
    json_put_member_str(b, "message", str_z(messagez));
    buf_addc(b, ',');
    json_put_member_str(b, "type", str_z(reason_openai_type(reason)));
    buf_addc(b, ',');
    json_put_member_opt(b, "param", paramz && *paramz ? str_z(paramz) : STR_NONE);
    buf_addc(b, ',');
    json_put_member_str(b, "code", str_z(codez ? codez : reason_code(reason)));
    buf_addz(b, "}}");
}

void api_reply_error(struct request *q, int status, enum reason reason, const char *codez,
                     const char *paramz, const char *messagez, const char *namez, struct str raw)
{
    struct buf b;

    buf_init(&b, raw.n + 65536);
    api_put_error(&b, reason, codez, paramz, messagez);
    b.n--; /* the closing brace */
    buf_addc(&b, ',');
    json_put_member_raw(&b, namez, raw);
    buf_addz(&b, "}\n");
    if (status == 429 || status == 503)
        request_add_header(q, "Retry-After", "1");
    request_reply_json(q, status, &b);
}

int api_full(const struct gateway *g, int code, size_t n_jobs, enum reason *reason,
             const char **codez, const char **messagez)
{
    int64_t n = store_unfinished(g->store) + (int64_t)n_jobs;

    if (code == ERR_FULL && n_jobs && n > g->config->limits_queued_jobs) {
        *reason = REASON_QUOTA_EXCEEDED;
        *codez = reason_code(*reason);
        *messagez = "limits.queued_jobs is reached; try again when jobs have ended";
        return 429;
    }
    *reason = REASON_INTERNAL;
    *codez = "unavailable";
    *messagez = code == ERR_FULL     ? "the log or its disk has no room at the moment"
                : code == ERR_CLOSED ? "genq is stopping"
                : code == ERR_BUSY && g->claims
                    ? "redis does not tell whether the id is taken (limits.without_redis: deny)"
                    : "the log cannot be written at the moment";
    return 503;
}

void api_reply_not_found(struct request *q, const char *whatz)
{
    request_reply_status(q, 404, REASON_INVALID_REQUEST, "not_found", NULL, "no such %s", whatz);
}

/* ---- lines and events ---- */

void api_one_line(struct buf *b, size_t from)
{
    for (size_t i = from; i < b->n; i++) {
        if (b->p[i] == '\n' || b->p[i] == '\r')
            b->p[i] = ' ';
    }
}

void api_put_event(struct buf *b, const char *namez, struct str json)
{
    size_t from;

    buf_addf(b, "event: %s\ndata: ", namez);
    from = b->n;
    buf_adds(b, json);
    api_one_line(b, from);
    buf_addz(b, "\n\n");
}

int api_pulse(struct buf *b, int64_t *sent_ms, int64_t *deadline_ms)
{
    int64_t now_ms = clock_mono_ms();

    if (b->n == 0 && *sent_ms && now_ms - *sent_ms >= HEARTBEAT_MS)
        buf_addz(b, ": heartbeat\n\n");
    if (b->n || !*sent_ms)
        *sent_ms = now_ms;
    *deadline_ms = *sent_ms + HEARTBEAT_MS;
    return b->n > 0;
}

/* ---- flights ---- */

void flight_init(struct flight *f, struct request *q, void (*on_free)(struct flight *f))
{
    pthread_mutex_init(&f->lock, NULL);
    f->q = q;
    f->n_holders = 1;
    f->on_free = on_free;
}

void flight_lock(struct flight *f)
{
    pthread_mutex_lock(&f->lock);
}

void flight_unlock(struct flight *f)
{
    pthread_mutex_unlock(&f->lock);
}

void flight_hold(struct flight *f)
{
    flight_lock(f);
    f->n_holders++;
    flight_unlock(f);
}

/* Lets go; under the lock, which it leaves. */
static void drop(struct flight *f)
{
    bool is_last = --f->n_holders == 0;

    flight_unlock(f);
    if (is_last) {
        pthread_mutex_destroy(&f->lock);
        f->on_free(f);
    }
}

void flight_land(struct flight *f, void (*touch)(struct flight *f))
{
    flight_lock(f);
    if (touch)
        touch(f);
    if (f->q)
        request_wake(f->q);
    drop(f);
}

void flight_leave(struct flight *f)
{
    flight_lock(f);
    f->q = NULL;
    drop(f);
}

/* ---- jobs ---- */

int api_complete(const struct gateway *g, struct job *j, struct str id, struct str tenant,
                 struct str model, struct str batch_id, int64_t line, struct err *e)
{
    struct str named = j->model.p ? j->model : model;
    const struct config_model *m = named.p ? config_model(g->config, named) : NULL;
    struct job_defaults d = {
        .model = model,
        .tenant = tenant,
        .id = id,
        .batch_id = batch_id,
        .batch_line = line,
        .wall_ms = clock_wall_ms(),
        .queue = m ? str_z(m->queue) : STR_NONE,
    };

    return job_complete(j, &d, e);
}
