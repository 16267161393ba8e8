/* Batches: their meta records, and their counters, which a transaction gathers and writes once. */
#include "base/json.h"
#include "store/value.h"
#include "store/writer_internal.h"
#include <stdlib.h>

static const enum job_state ends[] = {STATE_SUCCEEDED, STATE_FAILED, STATE_CANCELLED,
                                      STATE_EXPIRED};

static struct tally *add_tally(struct store_writer *w, struct str key)
{
    struct tally *tally = xcalloc(1, sizeof *tally + key.n);

    memcpy(tally->key, key.p, key.n);
    map_put(&w->tallies, &tally->node, str_of(tally->key, key.n));
    tally->next = w->tally_list;
    w->tally_list = tally;
    return tally;
}

/* s stands on the batch's row, columns as in writer.c. */
static void read_row(struct tally *tally, struct db_stmt *s)
{
    size_t i;

    tally->seq = db_int(s, 0);
    tally->state = (enum batch_state)db_int(s, 1);
    tally->created_at = db_int(s, 2);
    tally->finished_at = db_int(s, 3); /* NULL gives 0 */
    tally->n_lines = db_is_null(s, 4) ? -1 : db_int(s, 4);
    tally->n_total = db_int(s, 5);
    for (i = 0; i < sizeof ends / sizeof ends[0]; i++)
        tally->n_ended[ends[i]] = db_int(s, 6 + (int)i);
    tally->usage.prompt_tokens = db_int(s, 10);
    tally->usage.completion_tokens = db_int(s, 11);
    tally->usage.cached_tokens = db_int(s, 12);
    tally->cost = db_real(s, 13);
    tally->first_off = db_int(s, 14);
    tally->last_off = db_int(s, 15);
    tally->last_at = db_int(s, 16);
}

/* Also remembers that there is none, for the next record of the transaction. */
static int load(struct store_writer *w, struct str tenant, struct str id, struct tally **out)
{
    char bytes[2 * ID_MAX + 1];
    struct db_stmt *s = w->stmts[W_GET_BATCH];
    struct map_node *node;
    struct str key;
    int rc;

    if (tenant.n > ID_MAX || id.n > ID_MAX)
        return ERR_INVALID;
    memcpy(bytes, tenant.p, tenant.n);
    bytes[tenant.n] = '/';
    memcpy(bytes + tenant.n + 1, id.p, id.n);
    key = str_of(bytes, tenant.n + 1 + id.n);
    node = map_get(&w->tallies, key);
    if (node) {
        *out = LIST_ENTRY(node, struct tally, node);
        return 0;
    }
    db_bind_text(s, 1, tenant);
    db_bind_text(s, 2, id);
    rc = writer_step(w, s);
    if (rc < 0)
        return rc;
    *out = add_tally(w, key);
    if (rc > 0)
        read_row(*out, s);
    db_reset(s);
    return 0;
}

int writer_tally(struct store_writer *w, struct str tenant, struct str id, struct tally **out)
{
    struct tally *tally;
    int rc = load(w, tenant, id, &tally);

    *out = rc == 0 && tally->seq ? tally : NULL;
    return rc;
}

void tally_end(struct tally *tally, enum job_state state, const struct tally_end *end)
{
    static const struct str names[] = {STR_INIT("prompt_tokens"), STR_INIT("completion_tokens"),
                                       STR_INIT("cached_tokens")};
    struct str raw[3];

    value_find(end->usage, names, 3, raw);
    tally->n_ended[state]++;
    tally->usage.prompt_tokens += value_int(raw[0]);
    tally->usage.completion_tokens += value_int(raw[1]);
    tally->usage.cached_tokens += value_int(raw[2]);
    tally->cost += value_num(end->cost);
    if (end->off < tally->first_off)
        tally->first_off = end->off;
    if (end->off > tally->last_off)
        tally->last_off = end->off;
    if (end->ts_ms > tally->last_at)
        tally->last_at = end->ts_ms;
    tally->is_dirty = true;
}

/* ---- jobs that came before their batch ---- */

static int count_earlier_end(struct store_writer *w, struct tally *tally, const struct job_row *row)
{
    static const struct str names[] = {STR_INIT("usage"), STR_INIT("cost")};
    struct tally_end end = {.off = row->completion_off};
    struct db_stmt *s = w->stmts[W_GET_END];
    struct str raw[2];
    int rc;

    db_bind_int(s, 1, row->completion_off);
    rc = writer_step(w, s);
    if (rc < 0)
        return rc;
    if (rc > 0) {
        value_find(db_blob(s, 1), names, 2, raw);
        end.ts_ms = db_int(s, 0);
        end.usage = raw[0];
        end.cost = raw[1];
    }
    tally_end(tally, row->state, &end);
    db_reset(s);
    return 0;
}

int writer_join(struct store_writer *w, struct tally *tally, int64_t line,
                const struct job_row *row)
{
    struct binder b = {w->stmts[W_JOIN], 0};
    int rc;

    put_int(&b, tally->seq);
    put_int(&b, line);
    put_int(&b, row->seq);
    rc = writer_run(w, b.s);
    if (rc)
        return rc;
    recent_forget(w); /* it was of no batch */
    tally->n_total++;
    tally->is_dirty = true;
    return state_is_terminal(row->state) ? count_earlier_end(w, tally, row) : 0;
}

/* 1, *row and *line, 0 when there is none left, or negative. */
static int get_early(struct store_writer *w, const struct batch *batch, struct job_row *row,
                     int64_t *line)
{
    struct db_stmt *s = w->stmts[W_GET_EARLY];
    int rc;

    db_bind_text(s, 1, batch->id);
    db_bind_text(s, 2, batch->tenant);
    rc = writer_step(w, s);
    if (rc > 0) {
        row->seq = db_int(s, 0);
        row->state = (enum job_state)db_int(s, 1);
        *line = db_int(s, 2);
        row->completion_off = db_int(s, 3);
    }
    if (rc >= 0)
        db_reset(s);
    return rc;
}

static int adopt(struct store_writer *w, struct tally *tally, const struct batch *batch)
{
    struct job_row row;
    int64_t line;
    int rc;

    while ((rc = get_early(w, batch, &row, &line)) > 0) {
        rc = writer_add_line(w, tally->seq, line, row.seq);
        rc = rc ? rc : writer_join(w, tally, line, &row);
        if (rc)
            break;
    }
    return rc;
}

/* ---- meta records ---- */

static int create(struct store_writer *w, struct tally *tally, const struct batch *batch)
{
    struct binder b = {w->stmts[W_ADD_BATCH], 0};
    int rc;

    put_text(&b, batch->tenant);
    put_text(&b, batch->id);
    put_int(&b, BATCH_RECEIVING);
    put_int(&b, batch->created_at);
    rc = writer_run(w, b.s);
    if (rc)
        return rc;
    tally->seq = db_last_rowid(w->db);
    tally->state = BATCH_RECEIVING;
    tally->created_at = batch->created_at;
    tally->n_lines = -1;
    tally->first_off = INT64_MAX;
    tally->last_off = -1;
    return adopt(w, tally, batch);
}

static void move(struct tally *tally, const struct record *r, const struct batch *batch)
{
    enum batch_state state = tally->state == BATCH_CANCELLED ? tally->state : batch->state;
    int64_t n_lines = batch->n_lines >= 0 ? batch->n_lines : tally->n_lines;

    if (state == tally->state && n_lines == tally->n_lines)
        return; /* a repeat is not its end */
    tally->state = state;
    tally->n_lines = n_lines;
    if (r->ts_ms > tally->last_at)
        tally->last_at = r->ts_ms;
    tally->is_dirty = true;
}

static int apply(struct store_writer *w, struct record *r, const struct batch *batch)
{
    struct tally *tally;
    bool is_new;
    int rc = load(w, batch->tenant, batch->id, &tally);

    if (rc)
        return rc;
    is_new = tally->seq == 0;
    if (is_new && (rc = create(w, tally, batch)) != 0)
        return rc;
    if (batch->state == BATCH_RECEIVING) {
        r->detail = (int)tally->state;
        return is_new ? 0 : ERR_EXISTS;
    }
    move(tally, r, batch);
    return 0;
}

int writer_apply_meta(struct store_writer *w, struct record *r)
{
    struct batch batch;
    struct json *owned;
    int rc;

    if (!str_starts(r->key, STR("batch/")) || r->value.n == 0)
        return 0;
    if (batch_read(&batch, r->value, &owned, NULL))
        return ERR_INVALID;
    rc = apply(w, r, &batch);
    json_free(owned);
    return rc;
}

/* ---- the end of a transaction ---- */

static int64_t count_ended(const struct tally *tally)
{
    int64_t n = 0;
    size_t i;

    for (i = 0; i < sizeof ends / sizeof ends[0]; i++)
        n += tally->n_ended[ends[i]];
    return n;
}

/* Lines that come after the end, of an input that grew, open a batch again. */
static void judge_end(struct tally *tally)
{
    bool is_over = tally->state != BATCH_RECEIVING && count_ended(tally) >= tally->n_total;

    tally->finished_at = is_over ? tally->last_at : 0;
}

static int save(struct store_writer *w, struct tally *tally)
{
    struct binder b = {w->stmts[W_SAVE_BATCH], 0};
    size_t i;

    judge_end(tally);
    put_int(&b, tally->state);
    put_int_or_null(&b, tally->finished_at, 0);
    put_int_or_null(&b, tally->n_lines, -1);
    put_int(&b, tally->n_total);
    for (i = 0; i < sizeof ends / sizeof ends[0]; i++)
        put_int(&b, tally->n_ended[ends[i]]);
    put_int(&b, tally->usage.prompt_tokens);
    put_int(&b, tally->usage.completion_tokens);
    put_int(&b, tally->usage.cached_tokens);
    db_bind_real(b.s, ++b.at, tally->cost);
    put_int(&b, tally->first_off);
    put_int(&b, tally->last_off);
    put_int(&b, tally->last_at);
    put_int(&b, tally->seq);
    return writer_run(w, b.s);
}

int writer_save_tallies(struct store_writer *w)
{
    struct tally *tally;
    int rc = 0;

    for (tally = w->tally_list; rc == 0 && tally; tally = tally->next)
        if (tally->is_dirty)
            rc = save(w, tally);
    return rc;
}

void writer_forget_tallies(struct store_writer *w)
{
    struct tally *tally;

    while ((tally = w->tally_list)) {
        w->tally_list = tally->next;
        map_remove(&w->tallies, &tally->node);
        free(tally);
    }
}
