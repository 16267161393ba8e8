/* Completions: the job's row ends, its calls enter the ledger, its batch counts it. Of the value
 * only a few members are looked at: it may be large, and this is the writer's thread. */
#include "base/json.h"
#include "store/value.h"
#include "store/writer_internal.h"

/* The record, as far as it was read. */
struct ending {
    struct record *r;
    struct str tenant, id;
    enum job_state state;
    struct str finished_at, usage, cost, calls; /* source text */
};

static int read_ending(struct record *r, struct ending *end)
{
    static const struct str names[] = {STR_INIT("finished_at"), STR_INIT("usage"),
                                       STR_INIT("calls"), STR_INIT("cost")};
    struct str raw[4];

    end->r = r;
    end->id = r->key;
    end->tenant = r->headers[HEADER_TENANT].p ? r->headers[HEADER_TENANT] : STR("default");
    if (!state_parse(r->headers[HEADER_STATUS], &end->state) || !state_is_terminal(end->state) ||
        !id_is_valid(end->id) || !id_is_valid(end->tenant))
        return ERR_INVALID;
    value_find(r->value, names, 4, raw);
    end->finished_at = raw[0];
    end->usage = raw[1];
    end->calls = raw[2];
    end->cost = raw[3];
    return 0;
}

static int64_t finished_at(const struct ending *end)
{
    int64_t ms = value_int(end->finished_at);

    return ms ? ms : end->r->ts_ms;
}

static struct str or_empty(struct str s)
{
    return s.p ? s : STR("");
}

/* ---- the ledger ---- */

/* In the order in which completion_write has them. */
enum call_member {
    C_ID,
    C_ATTEMPT,
    C_NODE,
    C_MODEL,
    C_PROMPT,
    C_COMPLETION,
    C_CACHED,
    C_OUTCOME,
    C_MS,
    C_COST,
    C_COUNT_
};

static const struct str call_members[C_COUNT_] = {
    STR_INIT("id"),
    STR_INIT("attempt"),
    STR_INIT("node"),
    STR_INIT("model"),
    STR_INIT("prompt_tokens"),
    STR_INIT("completion_tokens"),
    STR_INIT("cached_tokens"),
    STR_INIT("outcome"),
    STR_INIT("ms"),
    STR_INIT("cost"),
};

static struct str name_of(struct str raw, struct json **owned)
{
    struct str text = value_text(raw);

    if (text.p || raw.n == 0)
        return text;
    *owned = json_parse(raw, NULL);
    return json_str(*owned);
}

static int add_call(struct store_writer *w, const struct ending *end, const struct job_row *row,
                    struct str call, bool is_late)
{
    struct binder b = {w->stmts[W_ADD_CALL], 0};
    struct json *model = NULL, *node = NULL; /* parsed only where their text has escapes */
    struct str raw[C_COUNT_];
    enum call_outcome outcome = CALL_FAILED; /* also one of a later version's */
    int rc;

    value_find(call, call_members, C_COUNT_, raw);
    outcome_parse(value_text(raw[C_OUTCOME]), &outcome);
    put_int(&b, end->r->ts_ms);
    put_int(&b, row->seq);
    put_int(&b, value_int(raw[C_ATTEMPT]));
    put_int(&b, outcome);
    put_int(&b, is_late || outcome != CALL_OK);
    put_int(&b, value_int(raw[C_PROMPT]));
    put_int(&b, value_int(raw[C_COMPLETION]));
    put_int(&b, value_int(raw[C_CACHED]));
    put_int(&b, value_int(raw[C_MS]));
    db_bind_real(b.s, ++b.at, value_num(raw[C_COST]));
    put_text(&b, end->tenant);
    put_text(&b, name_of(raw[C_MODEL], &model));
    put_text(&b, name_of(raw[C_NODE], &node));
    put_text(&b, row->batch_id[0] ? str_z(row->batch_id) : STR_NONE);
    put_text(&b, or_empty(value_text(raw[C_ID]))); /* ours has no escapes */
    rc = writer_run(w, b.s);
    json_free(model);
    json_free(node);
    return rc;
}

static int add_calls(struct store_writer *w, const struct ending *end, const struct job_row *row,
                     bool is_late)
{
    struct str call;
    size_t at = 0;
    int rc = 0;

    while (rc == 0 && value_next(end->calls, &at, &call))
        rc = add_call(w, end, row, call, is_late);
    return rc;
}

/* ---- the batch ---- */

static void count_end(struct tally *tally, const struct ending *end)
{
    struct tally_end of = {end->r->at.offset, end->r->ts_ms, end->usage, end->cost};

    tally_end(tally, end->state, &of);
}

/* ---- the job ---- */

/* Its watchers are woken after the commit. */
static void gather(struct store_writer *w, const struct ending *end)
{
    if (w->n_ended == w->room) {
        w->room = w->room ? 2 * w->room : 64;
        w->ended = xrealloc(w->ended, w->room * sizeof w->ended[0]);
    }
    w->ended[w->n_ended++] = (struct ended_job){end->tenant, end->id};
}

static int end_row(struct store_writer *w, const struct ending *end, const struct job_row *row)
{
    struct binder b = {w->stmts[W_END], 0};

    put_int(&b, end->state);
    put_int(&b, end->r->at.offset);
    put_int(&b, finished_at(end));
    put_int(&b, row->seq);
    put_text(&b, end->tenant);
    put_text(&b, end->id);
    put_text(&b, row->batch_id[0] ? str_z(row->batch_id) : STR_NONE);
    return writer_run(w, b.s);
}

/* 1; 0 when the row is not this job's, or has ended; or negative. */
static int end_known(struct store_writer *w, const struct ending *end, const struct job_row *row)
{
    struct tally *tally = NULL;
    int rc = end_row(w, end, row);

    if (rc || db_changes(w->db) == 0)
        return rc;
    if (row->batch)
        rc = writer_tally(w, end->tenant, str_z(row->batch_id), &tally);
    if (rc)
        return rc;
    if (tally && tally->seq == row->batch)
        count_end(tally, end);
    w->delta--;
    rc = add_calls(w, end, row, false);
    return rc ? rc : 1;
}

/* A line that was refused never was a job record, but has an end. One with a source has a record,
 * which is yet to come over another partition. */
static int add_ended(struct store_writer *w, const struct ending *end,
                     const struct completion_view *view)
{
    struct job j = {.state = view->state,
                    .priority = view->priority,
                    .id = end->id,
                    .tenant = end->tenant,
                    .model = or_empty(view->model),
                    .queue = or_empty(view->queue),
                    .batch_id = view->batch_id,
                    .created_at = view->created_at ? view->created_at : end->r->ts_ms,
                    .batch_line = view->batch_line};
    struct position source = end->r->source;
    struct new_job fresh = {.j = &j,
                            .state = end->state,
                            .off = topics_is_source(source.topic) ? source.offset : -1,
                            .completion_off = end->r->at.offset,
                            .finished_at = finished_at(end)};
    struct job_row row = {.state = end->state};
    int rc = 0;

    if (j.batch_id.p && j.batch_line >= 0)
        rc = writer_tally(w, j.tenant, j.batch_id, &fresh.tally);
    rc = rc ? rc : writer_add_job(w, &fresh, &row.seq);
    if (rc < 0)
        return rc;
    if (fresh.tally)
        count_end(fresh.tally, end);
    str_copyz(row.batch_id, sizeof row.batch_id, j.batch_id);
    return add_calls(w, end, &row, false);
}

static int end_unknown(struct store_writer *w, const struct ending *end)
{
    struct completion_view view;
    int rc;

    if (completion_read(&view, end->r->value, NULL))
        return ERR_INVALID;
    rc = add_ended(w, end, &view);
    completion_view_release(&view);
    return rc;
}

/* 1: the job's own completion once more, which a worker that was killed sent again from its outbox;
 * 0, or negative. */
static int is_copy(struct store_writer *w, const struct ending *end, const struct job_row *row)
{
    struct db_stmt *s = w->stmts[W_GET_END];
    int rc;

    db_bind_int(s, 1, row->completion_off);
    rc = writer_step(w, s);
    if (rc < 0)
        return rc;
    rc = rc > 0 && str_eq(db_blob(s, 1), end->r->value);
    db_reset(s);
    return rc;
}

static int end_late(struct store_writer *w, const struct ending *end, const struct job_row *row)
{
    int rc = is_copy(w, end, row);

    if (rc >= 0)
        rc = rc ? 0 : add_calls(w, end, row, true);
    end->r->detail = (int)row->state;
    w->n_late++;
    gather(w, end);
    return rc ? rc : ERR_EXISTS;
}

int writer_apply_completion(struct store_writer *w, struct record *r)
{
    struct ending end;
    struct job_row row;
    int rc = read_ending(r, &end);

    if (rc == 0 && recent_find(w, r->source, &row) &&
        str_copyz(row.batch_id, sizeof row.batch_id, r->headers[HEADER_BATCH]))
        rc = end_known(w, &end, &row);
    if (rc == 0) {
        rc = writer_get_job(w, end.tenant, end.id, &row);
        if (rc > 0 && state_is_terminal(row.state))
            return end_late(w, &end, &row);
        if (rc >= 0)
            rc = rc > 0 ? end_known(w, &end, &row) : end_unknown(w, &end);
    }
    if (rc < 0)
        return rc;
    gather(w, &end);
    return 0;
}
