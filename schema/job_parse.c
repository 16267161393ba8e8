#include "base/clock.h"
#include "base/json.h"
#include "schema/job_rows.h"
#include <assert.h>
#include <stdlib.h>

/* Walks the members of a job once; the row of each says how it is checked and where it goes. */

_Static_assert(ROW_COUNT_ <= 64, "struct parser's seen has one bit a row");

#define LAST_MS INT64_C(253402300799999) /* of the year 9999 */
#define LAST_INT INT64_C(9007199254740991)

struct parser {
    struct job *j;
    struct json_members m;
    uint64_t seen;
    int n_bodies;
    struct err *e;
};

/* Where in struct job a row's str or int64_t is. */
static const uint16_t slots[ROW_COUNT_] = {
    [FIELD_ID] = offsetof(struct job, id),
    [FIELD_MODEL] = offsetof(struct job, model),
    [FIELD_QUEUE] = offsetof(struct job, queue),
    [FIELD_TENANT] = offsetof(struct job, tenant),
    [FIELD_BATCH_ID] = offsetof(struct job, batch_id),
    [FIELD_CUSTOM_ID] = offsetof(struct job, custom_id),
    [FIELD_SESSION] = offsetof(struct job, session),
    [FIELD_METADATA] = offsetof(struct job, metadata),
    [FIELD_OPTIONS] = offsetof(struct job, options),
    [FIELD_NOT_BEFORE] = offsetof(struct job, not_before),
    [FIELD_DEADLINE] = offsetof(struct job, deadline),
    [FIELD_TIMEOUT_MS] = offsetof(struct job, timeout_ms),
    [ROW_CREATED_AT] = offsetof(struct job, created_at),
    [ROW_BATCH_LINE] = offsetof(struct job, batch_line),
    [ROW_REDRIVE_OF] = offsetof(struct job, redrive_of),
};

static struct str *str_slot(struct job *j, size_t row)
{
    assert(slots[row]);
    return (struct str *)(void *)((char *)j + slots[row]);
}

static int64_t *int_slot(struct job *j, size_t row)
{
    assert(slots[row]);
    return (int64_t *)(void *)((char *)j + slots[row]);
}

/* The text of the member's string: as it stands in the source, unless it has escapes. */
static struct str text_of(struct parser *p)
{
    struct str s = json_members_str(&p->m);

    if (p->m.raw.n == s.n + 2)
        return str_of(p->m.raw.p + 1, s.n);
    return job_keep(p->j, p->j->extra.max, s);
}

static int refuse(struct parser *p, size_t row, const char *whyz)
{
    return err_set(p->e, ERR_INVALID, "'%s' %s", job_rows[row].name.p, whyz);
}

static int refuse_range(struct parser *p, size_t row, const char *kindz, double min, double max)
{
    return err_set(p->e, ERR_INVALID, "'%s' must be %s from %.16g to %.16g", job_rows[row].name.p,
                   kindz, min, max);
}

static bool has_control(struct str s)
{
    size_t i;

    for (i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F)
            return true;
    return false;
}

static int take_text(struct parser *p, size_t row)
{
    struct str s = json_members_str(&p->m);
    enum job_type type = job_rows[row].type;

    if (type == TYPE_id && !id_is_valid(s))
        return refuse(p, row, "must be 1 to 64 of letters, digits, '.', '_' and '-'");
    if (type == TYPE_name && (s.n == 0 || s.n > JOB_NAME_MAX_BYTES || has_control(s)))
        return refuse(p, row, "must be a string of 1 to 256 bytes without control characters");
    if (!s.p)
        return refuse(p, row, "must be a string");
    *str_slot(p->j, row) = text_of(p);
    return 0;
}

static int take_time(struct parser *p, size_t row)
{
    int64_t ms;

    if ((!json_members_int(&p->m, &ms) &&
         !clock_parse_rfc3339(json_members_str(&p->m), &ms)) ||
        ms <= 0 || ms > LAST_MS)
        return refuse(p, row, "must be a time as in RFC 3339, or in ms since the epoch");
    *int_slot(p->j, row) = ms;
    return 0;
}

static int take_int(struct parser *p, size_t row)
{
    int64_t v, min = row == ROW_BATCH_LINE ? 0 : 1;
    int64_t max = row == FIELD_TIMEOUT_MS     ? JOB_TIMEOUT_MS_MAX
                  : row == FIELD_MAX_ATTEMPTS ? JOB_ATTEMPTS_MAX
                                              : LAST_INT;

    if (!json_members_int(&p->m, &v) || v < min || v > max)
        return refuse_range(p, row, "an integer", (double)min, (double)max);
    if (row == FIELD_MAX_ATTEMPTS)
        p->j->max_attempts = (int)v;
    else
        *int_slot(p->j, row) = v;
    return 0;
}

static int take_object(struct parser *p, size_t row)
{
    if (p->m.type != JSON_OBJECT)
        return refuse(p, row, "must be an object");
    if (row == FIELD_METADATA && p->m.raw.n > JOB_METADATA_MAX_BYTES)
        return refuse(p, row, "must have at most 16384 bytes");
    *str_slot(p->j, row) = p->m.raw;
    return 0;
}

static int check_messages(struct parser *p)
{
    const struct json *message;

    if (p->m.type != JSON_ARRAY || !json_child(json_members_value(&p->m)))
        return refuse(p, FIELD_MESSAGES, "must be an array of at least one message");
    for (message = json_child(json_members_value(&p->m)); message; message = json_next(message))
        if (!json_str(json_get(message, "role")).p)
            return refuse(p, FIELD_MESSAGES, "must hold objects, each with a string 'role'");
    return 0;
}

static int check_input(struct parser *p)
{
    const struct json *text;

    if (p->m.type == JSON_STRING)
        return 0;
    if (p->m.type != JSON_ARRAY || !json_child(json_members_value(&p->m)))
        return refuse(p, FIELD_INPUT, "must be a string, or an array of at least one string");
    for (text = json_child(json_members_value(&p->m)); text; text = json_next(text))
        if (json_type(text) != JSON_STRING)
            return refuse(p, FIELD_INPUT, "must hold strings only: arrays of tokens are not taken");
    return 0;
}

static int take_body(struct parser *p, size_t row)
{
    int rc = 0;

    if (row == FIELD_MESSAGES)
        rc = check_messages(p);
    else if (row == FIELD_INPUT)
        rc = check_input(p);
    else if (p->m.type != JSON_STRING)
        rc = refuse(p, row, "must be a string");
    if (!rc && p->n_bodies++)
        rc = err_set(p->e, ERR_INVALID, "more than one of 'prompt', 'messages' and 'input'");
    p->j->kind = row == FIELD_MESSAGES ? JOB_CHAT
                 : row == FIELD_INPUT  ? JOB_EMBEDDING
                                       : JOB_COMPLETION;
    p->j->body = p->m.raw;
    return rc;
}

static int take_sampling(struct parser *p, size_t row)
{
    const struct job_row *r = &job_rows[row];
    enum json_type type = p->m.type;
    int64_t i;
    double d;

    if (r->type == TYPE_int &&
        (!json_members_int(&p->m, &i) || (double)i < r->min || (double)i > r->max))
        return refuse_range(p, row, "an integer", r->min, r->max);
    if (r->type == TYPE_num &&
        (!json_num(json_members_value(&p->m), &d) || d < r->min || d > r->max))
        return refuse_range(p, row, "a number", r->min, r->max);
    if (r->type == TYPE_bool && type != JSON_BOOL)
        return refuse(p, row, "must be true or false");
    if (r->type == TYPE_str && type != JSON_STRING)
        return refuse(p, row, "must be a string");
    p->j->sampling[row - ROW_SAMPLING] = p->m.raw;
    return 0;
}

/* Promises of the contract that are not kept yet are refused, not silently dropped. */
static int drop(struct parser *p, size_t row)
{
    int64_t n;

    if (row == ROW_N && (!json_members_int(&p->m, &n) || n != 1))
        return refuse(p, row, "must be 1: submit a job for each answer");
    if (row == ROW_WEBHOOK)
        return refuse(p, row, "is refused: webhooks are not built yet");
    return 0;
}

static int take_choice(struct parser *p, size_t row)
{
    struct str s = json_members_str(&p->m);

    if (row == FIELD_PRIORITY && !priority_parse(s, &p->j->priority))
        return refuse(p, row, "must be high, normal or low");
    if (row == FIELD_CACHE && !cache_mode_parse(s, &p->j->cache))
        return refuse(p, row, "must be use, refresh or bypass");
    if (row == ROW_LINE_FORM && !str_eqz(s, "openai"))
        return refuse(p, row, "must be openai");
    if (row == ROW_LINE_FORM)
        p->j->form = LINE_OPENAI;
    return 0;
}

static int take_flag(struct parser *p, size_t row)
{
    if (p->m.type != JSON_BOOL)
        return refuse(p, row, "must be true or false");
    p->j->is_stream = json_members_is_true(&p->m);
    return 0;
}

static int take_member(struct parser *p, size_t row)
{
    if (row == FIELD_PROMPT || row == FIELD_MESSAGES || row == FIELD_INPUT)
        return take_body(p, row);
    if (row >= ROW_SAMPLING && row < ROW_CREATED_AT)
        return take_sampling(p, row);
    switch (job_rows[row].type) {
    case TYPE_time:
        return take_time(p, row);
    case TYPE_int:
        return take_int(p, row);
    case TYPE_bool:
        return take_flag(p, row);
    case TYPE_object:
        return take_object(p, row);
    case TYPE_priority:
    case TYPE_cache:
    case TYPE_form:
        return take_choice(p, row);
    case TYPE_dropped:
        return drop(p, row);
    default:
        return take_text(p, row);
    }
}

static int refuse_unknown(struct parser *p)
{
    const char *hint = job_field_hint(p->m.name);
    struct str name = str_of(p->m.name.p, p->m.name.n < 64 ? p->m.name.n : 64);

    if (hint)
        return err_set(p->e, ERR_INVALID, "unknown field '%.*s' (did you mean '%s'?)",
                       STR_ARG(name), hint);
    return err_set(p->e, ERR_INVALID, "unknown field '%.*s'", STR_ARG(name));
}

static int take_members(struct parser *p, bool is_record, const char **param)
{
    size_t row;
    int rc;

    while ((rc = json_members_next(&p->m, p->e)) > 0) {
        row = job_find_row(p->m.name);
        if (row == ROW_COUNT_ || (!is_record && row >= ROW_CREATED_AT && row <= ROW_REDRIVE_OF))
            return refuse_unknown(p);
        *param = job_rows[row].name.p;
        if (p->seen & UINT64_C(1) << row)
            return refuse(p, row, "stands twice");
        p->seen |= UINT64_C(1) << row;
        rc = p->m.type == JSON_NULL ? 0 : take_member(p, row);
        if (rc)
            return rc;
        *param = "";
    }
    return rc;
}

static int check_whole(struct parser *p, const char **param)
{
    if (p->n_bodies == 0)
        return err_set(p->e, ERR_INVALID, "one of 'prompt', 'messages' and 'input' is needed");
    if (p->j->sampling[SAMPLING_MAX_TOKENS].n && p->j->sampling[SAMPLING_MAX_COMPLETION_TOKENS].n) {
        *param = "max_completion_tokens";
        return err_set(p->e, ERR_INVALID,
                       "'max_tokens' and 'max_completion_tokens' are one field:"
                       " give one of them");
    }
    if (p->j->cache == CACHE_MODE_COUNT_)
        p->j->cache = job_cache_default(p->j);
    return 0;
}

/* Takes `owned`, the text or NULL. */
static int parse(struct job *j, struct str json, char *owned, bool is_record, const char **param,
                 struct err *e)
{
    struct parser p = {.j = j, .e = e};
    const char *unused;
    int rc;

    param = param ? param : &unused;
    *param = "";
    *j = (struct job){
        .state = is_record ? STATE_QUEUED : STATE_NEW,
        .priority = PRIORITY_NORMAL,
        .cache = CACHE_MODE_COUNT_, /* not said yet */
        .timeout_ms = JOB_TIMEOUT_MS_DEFAULT,
        .batch_line = -1,
        .text = owned,
    };
    buf_init(&j->extra, json.n + JOB_FILLED_MAX_BYTES);
    json_members_init(&p.m, json);
    rc = take_members(&p, is_record, param);
    json_members_release(&p.m);
    if (!rc)
        rc = check_whole(&p, param);
    if (rc)
        job_release(j);
    return rc;
}

int job_parse(struct job *j, struct str json, bool is_record, const char **param, struct err *e)
{
    char *own = xstrdup(json);

    return parse(j, str_of(own, json.n), own, is_record, param, e);
}

int job_look(struct job *j, struct str json, struct err *e)
{
    return parse(j, json, NULL, true, NULL, e);
}
