#include "schema/job.h"
#include "base/json.h"
#include "schema/job_rows.h"
#include <assert.h>
#include <stdlib.h>

const struct job_row job_rows[ROW_COUNT_] = {
#define ROW(name, type, min, max) \
    { \
        {"" name, sizeof(name) - 1}, {",\"" name "\":", sizeof(name) + 3}, type, min, max \
    }
#define JOB_FIELD(id, name, type, doc) ROW(name, TYPE_##type, 0, 0),
#include "schema/job.def"
#undef JOB_FIELD
#define SAMPLING(id, name, type, min, max, ...) ROW(name, TYPE_##type, min, max),
#include "schema/job.def"
#undef SAMPLING
    ROW("created_at", TYPE_time, 0, 0), ROW("batch_line", TYPE_int, 0, 0),
    ROW("line_form", TYPE_form, 0, 0),  ROW("redrive_of", TYPE_id, 0, 0),
    ROW("n", TYPE_dropped, 0, 0),       ROW("stream_options", TYPE_dropped, 0, 0),
    ROW("webhook", TYPE_dropped, 0, 0),
#undef ROW
};

static const char *const priorities[] = {"high", "normal", "low"};
static const char *const cache_modes[] = {"bypass", "use", "refresh"};

size_t job_find_row(struct str name)
{
    size_t row;

    for (row = 0; row < ROW_COUNT_; row++)
        if (job_rows[row].name.n == name.n && job_rows[row].name.p[0] == name.p[0] &&
            memcmp(job_rows[row].name.p, name.p, name.n) == 0)
            break;
    return row;
}

bool job_knows(struct str name)
{
    size_t row = job_find_row(name);

    return row < ROW_COUNT_ && (row < ROW_CREATED_AT || row > ROW_REDRIVE_OF);
}

struct str job_keep(struct job *j, size_t room, struct str s)
{
    size_t at = j->extra.n;

    if (!j->extra.p)
        buf_reserve(&j->extra, room);
    assert(j->extra.n + s.n < j->extra.room);
    buf_adds(&j->extra, s);
    return str_of(j->extra.p + at, s.n);
}

void job_release(struct job *j)
{
    free(j->text);
    j->text = NULL;
    buf_release(&j->extra);
}

/* Sets *field from `value` where the client left it out. */
static void fill(struct job *j, struct str *field, struct str value)
{
    if (!field->p && value.p)
        *field = job_keep(j, JOB_FILLED_MAX_BYTES, value);
}

int job_complete(struct job *j, const struct job_defaults *d, struct err *e)
{
    char ulid[ULID_LEN + 1];
    struct str id = d->id;

    if (!j->model.p && (d->model.n == 0 || d->model.n > JOB_NAME_MAX_BYTES))
        return err_set(e, ERR_INVALID, "'model' is missing");
    if (!j->id.p && id.p && !id_is_valid(id))
        return err_set(e, ERR_INVALID, "'id' must be 1 to 64 of letters, digits, '.', '_' and '-'");
    assert(d->tenant.n <= ID_MAX && d->batch_id.n <= ID_MAX && d->queue.n <= JOB_NAME_MAX_BYTES);
    if (!j->id.p && !id.p) {
        id_ulid(d->wall_ms, ulid);
        id = str_of(ulid, ULID_LEN);
    }
    j->is_id_chosen = j->id.p || d->id.p;
    fill(j, &j->id, id);
    fill(j, &j->model, d->model);
    fill(j, &j->tenant, d->tenant.p ? d->tenant : STR("default"));
    fill(j, &j->queue, d->queue.p ? d->queue : STR("default"));
    fill(j, &j->batch_id, d->batch_id);
    if (j->batch_line < 0)
        j->batch_line = d->batch_line;
    if (!j->created_at)
        j->created_at = d->wall_ms;
    return 0;
}

/* Appends JSON source text without the white space between its tokens. */
static void put_minified(struct buf *b, struct str raw)
{
    const char *p = raw.p, *end = raw.p + raw.n, *quote, *slash;
    char *dst = buf_reserve(b, raw.n);

    if (!dst)
        return;
    while (p < end) {
        if (*p != '"') {
            if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t')
                *dst++ = *p;
            p++;
            continue;
        }
        quote = p;
        do { /* a quote ends the string unless an odd number of backslashes stands before it */
            quote = memchr(quote + 1, '"', (size_t)(end - quote - 1));
            assert(quote);
            for (slash = quote; slash[-1] == '\\'; slash--)
                ;
        } while ((quote - slash) & 1);
        memcpy(dst, p, (size_t)(quote - p + 1));
        dst += quote - p + 1;
        p = quote + 1;
    }
    *dst = '\0';
    b->n = (size_t)(dst - b->p);
}

static void put_raw(struct buf *b, size_t row, struct str raw, bool is_canonical)
{
    if (raw.n == 0)
        return;
    buf_adds(b, job_rows[row].lead);
    if (is_canonical)
        put_minified(b, raw);
    else
        buf_adds(b, raw);
}

static void put_int(struct buf *b, size_t row, int64_t v)
{
    buf_adds(b, job_rows[row].lead);
    buf_addi(b, v);
}

static void put_text(struct buf *b, size_t row, struct str s)
{
    if (!s.p)
        return;
    buf_adds(b, job_rows[row].lead);
    json_put_str(b, s);
}

static const enum job_field body_fields[] = {FIELD_PROMPT, FIELD_MESSAGES, FIELD_INPUT};

/* Appends the fields of job.def that are there, each with a comma before it. Defaults are left out.
 */
static void put_fields(const struct job *j, bool is_canonical, struct buf *b)
{
    size_t s;

    if (!is_canonical)
        put_text(b, FIELD_ID, j->id);
    put_text(b, FIELD_MODEL, j->model);
    put_raw(b, body_fields[j->kind], j->body, is_canonical);
    if (j->priority != PRIORITY_NORMAL)
        put_text(b, FIELD_PRIORITY, str_z(priorities[j->priority]));
    put_text(b, FIELD_QUEUE, j->queue);
    put_text(b, FIELD_TENANT, j->tenant);
    put_text(b, FIELD_BATCH_ID, j->batch_id);
    put_text(b, FIELD_CUSTOM_ID, j->custom_id);
    put_text(b, FIELD_SESSION, j->session);
    if (j->not_before)
        put_int(b, FIELD_NOT_BEFORE, j->not_before);
    if (j->deadline)
        put_int(b, FIELD_DEADLINE, j->deadline);
    if (j->timeout_ms != JOB_TIMEOUT_MS_DEFAULT)
        put_int(b, FIELD_TIMEOUT_MS, j->timeout_ms);
    if (j->max_attempts)
        put_int(b, FIELD_MAX_ATTEMPTS, j->max_attempts);
    if (j->cache != job_cache_default(j))
        put_text(b, FIELD_CACHE, str_z(cache_modes[j->cache]));
    if (j->is_stream)
        put_raw(b, FIELD_STREAM, STR("true"), false);
    put_raw(b, FIELD_METADATA, j->metadata, is_canonical);
    put_raw(b, FIELD_OPTIONS, j->options, is_canonical);
    for (s = 0; s < SAMPLING_COUNT_; s++)
        put_raw(b, ROW_SAMPLING + s, j->sampling[s], is_canonical);
}

int job_write(const struct job *j, struct buf *b)
{
    size_t start = b->n;

    put_fields(j, false, b);
    if (j->created_at)
        put_int(b, ROW_CREATED_AT, j->created_at);
    if (j->batch_line >= 0)
        put_int(b, ROW_BATCH_LINE, j->batch_line);
    if (j->form == LINE_OPENAI)
        put_text(b, ROW_LINE_FORM, STR("openai"));
    put_text(b, ROW_REDRIVE_OF, j->redrive_of);
    buf_addc(b, '}');
    if (b->is_over)
        return ERR_TOO_LARGE;
    b->p[start] = '{'; /* was the first field's comma */
    return 0;
}

size_t job_room(const struct job *j)
{
    const struct str texts[] = {j->id,       j->model,     j->queue,   j->tenant,
                                j->batch_id, j->custom_id, j->session, j->redrive_of};
    size_t i, n = 1024; /* names, numbers, quotes and commas of all fields but sampling */

    for (i = 0; i < sizeof texts / sizeof texts[0]; i++)
        n += texts[i].n * 6; /* a control character takes six bytes */
    for (i = 0; i < SAMPLING_COUNT_; i++)
        if (j->sampling[i].n)
            n += job_rows[ROW_SAMPLING + i].lead.n + j->sampling[i].n;
    return n + j->body.n + j->metadata.n + j->options.n;
}

void job_digest(const struct job *j, uint8_t digest[SHA256_LEN])
{
    struct buf b;

    if (j->has_digest) {
        memcpy(digest, j->digest, SHA256_LEN);
        return;
    }
    buf_init(&b, job_room(j));
    buf_reserve(&b, b.max);
    put_fields(j, true, &b);
    assert(!b.is_over);
    sha256(buf_str(&b), digest);
    buf_release(&b);
}

bool job_knows_digest(const struct job *j)
{
    return j->has_digest || !j->is_partial;
}

void job_cache_key(const struct job *j, struct str engine_model, uint8_t key[SHA256_LEN])
{
    struct buf b;
    size_t s;

    buf_init(&b, job_room(j) + 6 * engine_model.n);
    buf_reserve(&b, b.max);
    buf_addz(&b, "genq.cache.v1"); /* another one where what stands behind it changes its meaning */
    put_text(&b, FIELD_TENANT, j->tenant);
    put_text(&b, FIELD_MODEL, engine_model);
    put_raw(&b, body_fields[j->kind], j->body, true);
    put_raw(&b, FIELD_OPTIONS, j->options, true);
    for (s = 0; s < SAMPLING_COUNT_; s++)
        if (s != SAMPLING_KEEP_ALIVE)
            put_raw(&b, ROW_SAMPLING + s, j->sampling[s], true);
    assert(!b.is_over);
    sha256(buf_str(&b), key);
    buf_release(&b);
}

void job_keep_digest(struct job *j)
{
    job_digest(j, j->digest);
    j->has_digest = true;
}

void job_take_digest(struct job *j, struct str digits)
{
    j->has_digest = unhex(digits, j->digest, SHA256_LEN);
}

const char *priority_name(enum priority p)
{
    assert(p < PRIORITY_COUNT_);
    return priorities[p];
}

bool priority_parse(struct str s, enum priority *out)
{
    enum priority p;

    for (p = 0; p < PRIORITY_COUNT_; p++)
        if (str_eqz(s, priorities[p])) {
            *out = p;
            return true;
        }
    return false;
}

bool cache_mode_parse(struct str s, enum cache_mode *out)
{
    enum cache_mode m;

    for (m = 0; m < CACHE_MODE_COUNT_; m++)
        if (str_eqz(s, cache_modes[m])) {
            *out = m;
            return true;
        }
    return false;
}

/* A JSON number is 0 when no other digit stands before its exponent. */
static bool is_zero(struct str number)
{
    size_t i;

    for (i = 0; i < number.n && (number.p[i] | 0x20) != 'e'; i++)
        if (number.p[i] >= '1' && number.p[i] <= '9')
            return false;
    return number.n > 0;
}

enum cache_mode job_cache_default(const struct job *j)
{
    bool is_repeatable = j->sampling[SAMPLING_SEED].n || is_zero(j->sampling[SAMPLING_TEMPERATURE]);

    return is_repeatable ? CACHE_USE : CACHE_BYPASS;
}

const char *job_field_hint(struct str name)
{
    size_t row, d, best = name.n <= 4 ? 2 : 3; /* nearer than this */
    const char *hint = NULL;

    for (row = 0; row < ROW_CREATED_AT; row++) {
        d = str_distance(name, job_rows[row].name);
        if (d < best) {
            best = d;
            hint = job_rows[row].name.p;
        }
    }
    return hint;
}
