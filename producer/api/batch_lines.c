/* The lines of an uploaded batch: cut from its body, made into jobs, or recorded as failed. */
#include "base/clock.h"
#include "base/json.h"
#include "broker-config/config.h"
#include "producer/api/batch_upload.h"
#include "schema/line.h"
#include <stdio.h>
#include <stdlib.h>

#define ERRORS_MAX 10

void lines_add_error(struct upload *u, int64_t number, struct str id, const char *messagez)
{
    struct buf *b = &u->errors;

    u->n_refused++;
    if (u->n_errors == ERRORS_MAX)
        return;
    if (u->n_errors++)
        buf_addc(b, ',');
    buf_addf(b, "{\"line\":%lld,", (long long)number);
    json_put_member_str(b, "id", id);
    buf_addc(b, ',');
    json_put_member_str(b, "message", str_z(messagez));
    buf_addc(b, '}');
}

void piece_free(struct piece *p)
{
    if (!p)
        return;
    submission_free(p->submission);
    free(p);
}

static struct piece *piece_of(struct upload *u)
{
    if (!u->piece) {
        u->piece = xcalloc(1, sizeof *u->piece);
        u->piece->upload = u;
        u->piece->submission = submission_new(LINES_A_PUBLISH, upload_lines_done, u->piece);
    }
    return u->piece;
}

static struct str or_none(const char *z)
{
    return *z ? str_z(z) : STR_NONE;
}

/* A job of the line's place, with what can be told of it, to be recorded as failed. */
static struct job bare_job(const struct upload *u, struct str id, struct str line)
{
    struct err e;
    struct json *value = json_parse(line, &e);
    struct str custom_id = json_str(json_get(value, "custom_id"));
    struct str model = json_str(json_get(value, "model"));
    struct job j = {
        .state = STATE_NEW,
        .priority = PRIORITY_NORMAL,
        .form = json_get(value, "body") ? LINE_OPENAI : LINE_JOB,
        .queue = STR("default"),
        .tenant = str_z(u->tenant),
        .batch_id = str_z(u->id),
        .created_at = clock_wall_ms(),
        .batch_line = u->n_lines,
        .timeout_ms = JOB_TIMEOUT_MS_DEFAULT,
    };
    struct str *texts[] = {&j.id, &j.model, &j.custom_id};

    if (!model.p)
        model = json_str(json_get(json_get(value, "body"), "model"));
    j.id = id;
    j.model = model.n && model.n <= JOB_NAME_MAX_BYTES ? model : STR_NONE;
    j.custom_id = custom_id.n <= 512 ? custom_id : STR_NONE;
    buf_init(&j.extra, 2048);
    buf_reserve(&j.extra, 2048); /* at once: what stands there may not move */
    for (size_t i = 0; i < 3; i++) {
        size_t at = j.extra.n;

        if (!texts[i]->p)
            continue;
        buf_adds(&j.extra, *texts[i]);
        texts[i]->p = j.extra.p + at;
    }
    json_free(value);
    return j;
}

/* The line is wrong: counts it, and records it as failed, unless a job has its id already (an
 * upload that was right before). */
static void refuse_line(struct upload *u, struct request *q, struct str id, struct str line,
                        const char *whyz)
{
    struct piece *p = piece_of(u);
    char message[sizeof(((struct err *)NULL)->msg) + 32];
    struct err e;
    struct job j;

    snprintf(message, sizeof message, "line %lld: %s", (long long)u->n_numbers, whyz);
    lines_add_error(u, u->n_numbers, id, message);
    if (reader_has_job(request_reader(q), str_z(u->tenant), id, &e) != ERR_NOT_FOUND)
        return;
    j = bare_job(u, id, line);
    p->numbers[p->submission->n] = u->n_numbers;
    p->is_refused[p->submission->n] = true;
    if (submission_add_refused(p->submission, q->gateway, &j, REASON_INVALID_REQUEST, message, &e) <
        0)
        job_release(&j);
}

/* The line as a job of this batch, complete. */
static int read_line(struct upload *u, const struct gateway *g, struct str id, struct str line,
                     struct job *j, struct err *e)
{
    int rc = line_parse(j, line, NULL, e);

    if (rc < 0)
        return rc;
    if (j->batch_id.p && !str_eqz(j->batch_id, u->id))
        rc = err_set(e, ERR_INVALID, "'batch_id' is another batch's");
    else if (j->tenant.p && !str_eqz(j->tenant, u->tenant))
        rc = err_set(e, ERR_INVALID, "'tenant' is not the batch's");
    else
        rc = api_complete(g, j, id, str_z(u->tenant), or_none(u->model), str_z(u->id), u->n_lines,
                          e);
    if (rc < 0)
        job_release(j);
    else if (u->is_id_made && str_eq(j->id, id))
        j->is_id_chosen = false;
    return rc;
}

bool lines_take(struct upload *u, struct request *q, struct str line, bool is_too_long)
{
    char idz[BATCH_ID_MAX + 24];
    struct piece *p;
    struct job j;
    struct err e;

    u->n_numbers++;
    while (line.n && strchr(" \t\r", line.p[line.n - 1]))
        line.n--;
    if (line.n == 0 && !is_too_long)
        return false;
    snprintf(idz, sizeof idz, "%s-%lld", u->id, (long long)u->n_lines);
    p = piece_of(u);
    p->n_bytes += line.n;
    if (is_too_long) {
        refuse_line(u, q, str_z(idz), STR_NONE, "longer than limits.body_bytes");
    } else if (read_line(u, q->gateway, str_z(idz), line, &j, &e) < 0) {
        refuse_line(u, q, str_z(idz), line, e.msg);
    } else {
        p->numbers[p->submission->n] = u->n_numbers;
        if (submission_add(p->submission, q->gateway, &j, &e) < 0) {
            job_release(&j);
            refuse_line(u, q, str_z(idz), line, e.msg);
        }
    }
    u->n_lines++;
    return true;
}

bool lines_next(struct upload *u, int64_t max_bytes, struct str *line, bool *is_too_long)
{
    size_t n = u->input.n - u->at;
    const char *p = n ? u->input.p + u->at : NULL;
    const char *end = n ? memchr(p, '\n', n) : NULL;
    size_t length = end ? (size_t)(end - p) : n;

    if (!end && (int64_t)n > max_bytes) {
        u->is_dropping = true;
        u->at += n;
        return false;
    }
    if (!end && !u->is_input_over)
        return false;
    if (!end && n == 0 && !u->is_dropping)
        return false;
    *is_too_long = u->is_dropping || (int64_t)length > max_bytes;
    *line = *is_too_long ? STR_NONE : str_of(p, length);
    u->is_dropping = false;
    u->at += length + (end != NULL);
    return true;
}
