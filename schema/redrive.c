#include "schema/redrive.h"
#include "base/json.h"
#include "schema/job_rows.h"

void redrive_id(struct str tenant, struct str of, char dst[REDRIVE_ID_LEN + 1])
{
    uint8_t digest[SHA256_LEN];
    struct buf b;

    buf_init(&b, tenant.n + of.n + 1);
    buf_adds(&b, tenant);
    buf_addc(&b, '/');
    buf_adds(&b, of);
    sha256(buf_str(&b), digest);
    buf_release(&b);
    dst[0] = 'r';
    hex(digest, (REDRIVE_ID_LEN - 1) / 2, dst + 1);
}

static bool is_sampling(size_t row)
{
    return row >= ROW_SAMPLING && row < ROW_CREATED_AT;
}

/* The options by name; max_tokens and max_completion_tokens are one. */
static const struct json *find_option(const struct json *options, struct str name)
{
    static const struct str tokens[] = {STR_INIT("max_tokens"), STR_INIT("max_completion_tokens")};
    bool is_tokens = str_eq(name, tokens[0]) || str_eq(name, tokens[1]);
    const struct json *o;

    for (o = json_child(options); o; o = json_next(o))
        if (str_eq(json_name(o), name) ||
            (is_tokens && (str_eq(json_name(o), tokens[0]) || str_eq(json_name(o), tokens[1]))))
            return o;
    return NULL;
}

/* ---- writing the job anew ---- */

static void put_name(struct buf *b, struct str name)
{
    if (b->n > 0 && b->p[b->n - 1] != '{')
        buf_addc(b, ',');
    json_put_str(b, name);
    buf_addc(b, ':');
}

/* The options that are set, of sampling fields or of the others. */
static void put_set(struct buf *b, const struct json *options, bool of_sampling)
{
    const struct json *o;

    for (o = json_child(options); o; o = json_next(o)) {
        if (json_type(o) == JSON_NULL || is_sampling(job_find_row(json_name(o))) != of_sampling)
            continue;
        put_name(b, json_name(o));
        json_print(o, b);
    }
}

/* The job's own `options` with the edit's; raw.n == 0: it has none. */
static int put_options(struct buf *b, struct str raw, const struct json *options, struct err *e)
{
    struct json_members m;
    size_t start = b->n, inside;
    int rc = 0;

    put_name(b, STR("options"));
    buf_addc(b, '{');
    inside = b->n;
    json_members_init(&m, raw);
    while (raw.n > 0 && (rc = json_members_next(&m, e)) > 0) {
        if (find_option(options, m.name))
            continue;
        put_name(b, m.name);
        buf_adds(b, m.raw);
    }
    json_members_release(&m);
    put_set(b, options, false);
    if (b->n == inside) /* none is left */
        b->n = start;
    else
        buf_addc(b, '}');
    return rc;
}

/* Whether the member stays as it is. */
static bool stays(struct str name, const struct redrive_edit *edit, const struct json *options)
{
    static const struct str gone[] = {STR_INIT("id"),         STR_INIT("options"),
                                      STR_INIT("not_before"), STR_INIT("deadline"),
                                      STR_INIT("created_at"), STR_INIT("batch_line"),
                                      STR_INIT("line_form"),  STR_INIT("redrive_of")};
    size_t i;

    for (i = 0; i < sizeof gone / sizeof gone[0]; i++)
        if (str_eq(name, gone[i]))
            return false;
    if (edit->model.p && (str_eqz(name, "model") || str_eqz(name, "queue")))
        return false;
    return !(is_sampling(job_find_row(name)) && find_option(options, name));
}

/* What a record's job has and a client's has not. */
struct beside {
    int64_t batch_line;
    enum line_form form;
    char id[ID_MAX + 1]; /* "": none */
};

static void note(struct beside *beside, struct json_members *m)
{
    if (str_eqz(m->name, "batch_line") && !json_members_int(m, &beside->batch_line))
        beside->batch_line = -1;
    if (str_eqz(m->name, "id") && id_is_valid(json_members_str(m)))
        str_copyz(beside->id, sizeof beside->id, json_members_str(m));
    if (str_eqz(m->name, "line_form") && str_eqz(json_members_str(m), "openai"))
        beside->form = LINE_OPENAI;
}

static int put_members(struct buf *b, struct str value, const struct redrive_edit *edit,
                       const struct json *options, struct beside *beside, struct err *e)
{
    struct json_members m;
    struct str own = STR_NONE;
    int rc;

    json_members_init(&m, value);
    while ((rc = json_members_next(&m, e)) > 0) {
        if (str_eqz(m.name, "options") && m.type == JSON_OBJECT)
            own = m.raw;
        note(beside, &m);
        if (!stays(m.name, edit, options))
            continue;
        put_name(b, m.name);
        buf_adds(b, m.raw);
    }
    json_members_release(&m);
    return rc ? rc : put_options(b, own, options, e);
}

static int write(struct buf *b, struct str value, const struct redrive_edit *edit,
                 const struct json *options, struct beside *beside, struct err *e)
{
    int rc;

    buf_addc(b, '{');
    rc = put_members(b, value, edit, options, beside, e);
    if (edit->model.p) {
        put_name(b, STR("model"));
        json_put_str(b, edit->model);
    }
    put_set(b, options, true);
    return rc;
}

static int parse(struct job *j, struct str value, const struct redrive_edit *edit, struct str id,
                 const char **param, struct err *e)
{
    struct json *options = NULL;
    struct beside beside = {.batch_line = -1, .form = LINE_JOB};
    struct buf b;
    int rc = 0;

    if (edit->options.n > 0 && !(options = json_parse(edit->options, e)))
        return ERR_INVALID;
    buf_init(&b, SIZE_MAX); /* the parts are in memory: so may be the whole */
    rc = write(&b, value, edit, options, &beside, e);
    put_name(&b, STR("id"));
    json_put_str(&b, id);
    buf_addc(&b, '}');
    rc = rc ? rc : job_parse(j, buf_str(&b), false, param, e);
    if (rc == 0) {
        j->batch_line = beside.batch_line;
        j->form = beside.form;
        if (beside.id[0])
            j->redrive_of = job_keep(j, JOB_FILLED_MAX_BYTES, str_z(beside.id));
    }
    buf_release(&b);
    json_free(options);
    return rc;
}

/* ---- for others ---- */

int redrive_parse(struct job *j, struct str value, const struct redrive_edit *edit, struct str id,
                  struct err *e)
{
    return parse(j, value, edit, id, NULL, e);
}

/* A job's own field that an engine would not understand. */
static int check_names(struct str options, const char **param, struct err *e)
{
    struct json *all = json_parse(options, e);
    const struct json *o;
    size_t row;
    int rc = all ? 0 : ERR_INVALID;

    *param = "options";
    if (all && json_type(all) != JSON_OBJECT)
        rc = err_set(e, ERR_INVALID, "'options' must be an object");
    for (o = rc ? NULL : json_child(all); o && rc == 0; o = json_next(o)) {
        row = job_find_row(json_name(o));
        if (row < ROW_COUNT_ && !is_sampling(row))
            rc = err_set(e, ERR_INVALID, "'%s' is a field of the job, not an option of its engine",
                         job_rows[row].name.p);
    }
    json_free(all);
    return rc;
}

int redrive_check(const struct redrive_edit *edit, const char **param, struct err *e)
{
    struct job j;
    int rc = edit->options.n > 0 ? check_names(edit->options, param, e) : 0;

    if (rc == 0)
        rc = parse(&j, STR("{\"model\":\"m\",\"prompt\":\"\"}"), edit, STR("r"), param, e);
    if (rc == 0)
        job_release(&j);
    return rc;
}
