/* Usage: sums over the ledger. The rows of a time span lie together, since the ledger grows with
 * time; its ends are found by bisecting. The span is read in short statements, so that no reader
 * holds the write-ahead log for long, and summed here. */
#include "base/clock.h"
#include "base/json.h"
#include "base/map.h"
#include "store/reader_internal.h"
#include <stdlib.h>

enum { WINDOW = 50000, BUDGET_MS = 30000, GROUPS_MAX = 100000, KEY_MAX_BYTES = 4096 };

#define DAY_MS 86400000
#define HOUR_MS 3600000

#define USAGE_SQL                                                                                  \
    "SELECT at, job, is_wasted, prompt_tokens, completion_tokens, cached_tokens, cost,"            \
    " tenant, key, model, node, batch FROM call WHERE seq>=?1 AND seq<?2 AND at>=?3 AND at<?4"     \
    " AND (?5 IS NULL OR tenant=?5) ORDER BY seq"

/* Texts are columns of USAGE_SQL; spans of time are cut from `at`. */
static const struct group_by {
    const char *namez;
    int column;
    int64_t span_ms;
    size_t n_chars; /* of RFC 3339 that a span shows */
} groups_by[] = {
    {"tenant", 7, 0, 0}, {"key", 8, 0, 0},    {"model", 9, 0, 0},        {"node", 10, 0, 0},
    {"batch", 11, 0, 0}, {"day", 0, DAY_MS, 10}, {"hour", 0, HOUR_MS, 20},
};

enum { GROUPS_BY_MAX = sizeof groups_by / sizeof groups_by[0] };

/* One row of the answer. The key is, for each group, 'n' for null or 't', text and NUL. */
struct group {
    struct map_node node;
    int64_t n_calls, n_jobs, last_job;
    struct usage usage;
    int64_t wasted_tokens;
    double cost;
    char key[];
};

struct usage_query {
    const struct group_by *by[GROUPS_BY_MAX];
    size_t n_by;
    int64_t from, to;
    struct str tenant;
    struct map groups;
    struct buf key;
};

/* ---- the question ---- */

static int add_group_by(struct usage_query *q, struct str name, struct err *e)
{
    size_t i;

    for (i = 0; i < GROUPS_BY_MAX && !str_eqz(name, groups_by[i].namez); i++)
        ;
    if (i == GROUPS_BY_MAX)
        return err_set(e, ERR_INVALID,
                       "group_by: no '%.*s'; there are tenant, key, model, node, batch, day, hour",
                       (int)(name.n < 64 ? name.n : 64), name.p);
    if (q->n_by == GROUPS_BY_MAX)
        return err_set(e, ERR_INVALID, "group_by: a group stands there twice");
    q->by[q->n_by++] = &groups_by[i];
    return 0;
}

static int parse_group_by(struct usage_query *q, struct str list, struct err *e)
{
    const char *comma;
    struct str name;
    int rc = 0;

    while (rc == 0 && list.n > 0) {
        comma = memchr(list.p, ',', list.n);
        name = str_of(list.p, comma ? (size_t)(comma - list.p) : list.n);
        rc = add_group_by(q, name, e);
        list.p += name.n + (comma != NULL);
        list.n -= name.n + (comma != NULL);
    }
    return rc;
}

/* ---- summing ---- */

static void put_key_text(struct buf *b, struct str s)
{
    buf_addc(b, s.p ? 't' : 'n');
    if (!s.p)
        return;
    buf_adds(b, s);
    buf_addc(b, '\0');
}

static void make_key(struct usage_query *q, struct db_stmt *s)
{
    char text[32];
    int64_t at;
    size_t i;

    buf_clear(&q->key);
    for (i = 0; i < q->n_by; i++) {
        if (q->by[i]->span_ms == 0) {
            put_key_text(&q->key, db_text(s, q->by[i]->column));
            continue;
        }
        at = db_int(s, 0);
        clock_format_rfc3339(at - at % q->by[i]->span_ms, text);
        text[19] = 'Z'; /* no fraction */
        put_key_text(&q->key, str_of(text, q->by[i]->n_chars));
    }
}

static struct group *find_group(struct usage_query *q, struct str key)
{
    struct map_node *node = map_get(&q->groups, key);
    struct group *g;

    if (node)
        return LIST_ENTRY(node, struct group, node);
    if (q->groups.n == GROUPS_MAX)
        return NULL;
    g = xcalloc(1, sizeof *g + key.n + 1);
    if (key.n)
        memcpy(g->key, key.p, key.n);
    g->last_job = -1;
    map_put(&q->groups, &g->node, str_of(g->key, key.n));
    return g;
}

/* A job's calls are written together: it is counted where they begin. */
static void count(struct group *g, struct db_stmt *s)
{
    int64_t job = db_int(s, 1), prompt = db_int(s, 3), completion = db_int(s, 4);

    g->n_calls++;
    g->n_jobs += job != g->last_job;
    g->last_job = job;
    g->usage.prompt_tokens += prompt;
    g->usage.completion_tokens += completion;
    g->usage.cached_tokens += db_int(s, 5);
    g->wasted_tokens += db_int(s, 2) ? prompt + completion : 0;
    g->cost += db_real(s, 6);
}

static int sum_window(struct usage_query *q, struct db_stmt *s, int64_t lo, int64_t hi,
                      struct err *e)
{
    struct group *g;
    int rc;

    db_bind_int(s, 1, lo);
    db_bind_int(s, 2, hi);
    db_bind_int(s, 3, q->from);
    db_bind_int(s, 4, q->to);
    db_bind_text(s, 5, q->tenant);
    while ((rc = db_step(s, e)) > 0) {
        make_key(q, s);
        g = find_group(q, buf_str(&q->key));
        if (!g) {
            rc = err_set(e, ERR_TOO_LARGE, "more than %d groups: ask for fewer, or a shorter time",
                         GROUPS_MAX);
            break;
        }
        count(g, s);
    }
    db_reset(s);
    return rc;
}

/* The ledger's rows that may be in the span: [*lo, *hi). */
static int find_span(struct reader *r, const struct usage_query *q, int64_t *lo, int64_t *hi,
                     struct err *e)
{
    struct db_stmt *s;
    int64_t last = 0;
    int rc = reader_stmt(r, Q_USAGE_LAST, "SELECT max(seq) FROM call", &s, e);

    rc = rc ? rc : reader_int(s, 0, &last, e);
    rc = rc ? rc
            : reader_stmt(r, Q_USAGE_BISECT,
                          "SELECT seq, at FROM call WHERE seq>=? ORDER BY seq LIMIT 1", &s, e);
    /* A day more at either end, for clocks that were put right. */
    rc = rc ? rc : reader_bisect(s, 1, last, q->from - DAY_MS, lo, e);
    *hi = last + 1;
    if (rc == 0 && q->to < INT64_MAX - DAY_MS)
        rc = reader_bisect(s, 1, last, q->to + DAY_MS, hi, e);
    return rc;
}

static int sum(struct reader *r, struct usage_query *q, struct err *e)
{
    int64_t until_ms = clock_mono_ms() + BUDGET_MS, lo = 0, hi = 0, end;
    struct db_stmt *s;
    int rc = find_span(r, q, &lo, &hi, e);

    rc = rc ? rc : reader_stmt(r, Q_USAGE, USAGE_SQL, &s, e);
    for (; rc == 0 && lo < hi; lo = end) {
        end = hi - lo > WINDOW ? lo + WINDOW : hi;
        if (clock_mono_ms() > until_ms)
            return err_set(e, ERR_TIMEOUT, "too many calls to sum: ask for a shorter time");
        rc = sum_window(q, s, lo, end, e);
    }
    return rc;
}

/* ---- the answer ---- */

static const char *const sum_names[] = {"calls", "jobs", "prompt_tokens", "completion_tokens",
                                        "cached_tokens", "total_tokens", "wasted_tokens"};

enum { N_SUMS = sizeof sum_names / sizeof sum_names[0] };

static void sums_of(const struct group *g, int64_t sums[N_SUMS])
{
    const struct usage *u = &g->usage;
    const int64_t all[N_SUMS] = {g->n_calls,       g->n_jobs,
                                 u->prompt_tokens, u->completion_tokens,
                                 u->cached_tokens, u->prompt_tokens + u->completion_tokens,
                                 g->wasted_tokens};

    memcpy(sums, all, sizeof all);
}

/* Takes the next text off a key; STR_NONE for null. */
static struct str next_text(struct str *key)
{
    struct str text = STR_NONE;
    size_t n = 1;

    if (key->p[0] == 't') {
        text = str_z(key->p + 1);
        n = text.n + 2;
    }
    key->p += n;
    key->n -= n;
    return text;
}

static void put_json(const struct usage_query *q, const struct group *g, struct buf *b)
{
    struct str key = g->node.key;
    int64_t sums[N_SUMS];
    size_t i;

    sums_of(g, sums);
    buf_addc(b, '{');
    for (i = 0; i < q->n_by; i++) {
        json_put_member_opt(b, q->by[i]->namez, next_text(&key));
        buf_addc(b, ',');
    }
    for (i = 0; i < N_SUMS; i++) {
        json_put_member_int(b, sum_names[i], sums[i]);
        buf_addc(b, ',');
    }
    json_put_name(b, "cost");
    reader_put_cost(b, g->cost);
    buf_addc(b, '}');
}

/* RFC 4180. */
static void put_csv_text(struct buf *b, struct str s)
{
    size_t i;
    bool is_plain = true;

    for (i = 0; i < s.n; i++)
        is_plain = is_plain && !strchr(",\"\r\n", s.p[i]);
    if (is_plain) {
        buf_adds(b, s);
        return;
    }
    buf_addc(b, '"');
    for (i = 0; i < s.n; i++) {
        if (s.p[i] == '"')
            buf_addc(b, '"');
        buf_addc(b, s.p[i]);
    }
    buf_addc(b, '"');
}

static void put_csv_head(const struct usage_query *q, struct buf *b)
{
    size_t i;

    for (i = 0; i < q->n_by; i++)
        buf_addf(b, "%s,", q->by[i]->namez);
    for (i = 0; i < N_SUMS; i++)
        buf_addf(b, "%s,", sum_names[i]);
    buf_addz(b, "cost\r\n");
}

static void put_csv(const struct usage_query *q, const struct group *g, struct buf *b)
{
    struct str key = g->node.key;
    int64_t sums[N_SUMS];
    size_t i;

    sums_of(g, sums);
    for (i = 0; i < q->n_by; i++) {
        put_csv_text(b, next_text(&key));
        buf_addc(b, ',');
    }
    for (i = 0; i < N_SUMS; i++)
        buf_addf(b, "%lld,", (long long)sums[i]);
    reader_put_cost(b, g->cost);
    buf_addz(b, "\r\n");
}

struct sorted {
    struct group **groups;
    size_t n;
};

static void add_sorted(struct map_node *node, void *data)
{
    struct sorted *all = data;

    all->groups[all->n++] = LIST_ENTRY(node, struct group, node);
}

static int compare(const void *a, const void *b)
{
    struct str x = (*(struct group *const *)a)->node.key, y = (*(struct group *const *)b)->node.key;
    size_t n = x.n < y.n ? x.n : y.n;
    int order = n ? memcmp(x.p, y.p, n) : 0;

    return order ? order : (x.n > y.n) - (x.n < y.n);
}

static void print(struct usage_query *q, bool is_csv, struct buf *b)
{
    struct sorted all = {xcalloc(q->groups.n + 1, sizeof(struct group *)), 0};
    size_t i;

    map_each(&q->groups, add_sorted, &all);
    qsort(all.groups, all.n, sizeof all.groups[0], compare);
    if (is_csv)
        put_csv_head(q, b);
    else
        buf_addz(b, "{\"object\":\"list\",\"data\":[");
    for (i = 0; i < all.n; i++) {
        if (!is_csv && i > 0)
            buf_addc(b, ',');
        (is_csv ? put_csv : put_json)(q, all.groups[i], b);
    }
    if (!is_csv)
        reader_put_next(b, false, 0);
    free(all.groups);
}

static void free_group(struct map_node *node, void *data)
{
    (void)data;
    free(LIST_ENTRY(node, struct group, node));
}

int reader_usage(struct reader *r, struct str group_by, int64_t from, int64_t to, struct str tenant,
                 bool is_csv, struct buf *b, struct err *e)
{
    struct usage_query q = {.from = from, .to = to ? to : INT64_MAX, .tenant = tenant};
    int rc;

    map_init(&q.groups);
    buf_init(&q.key, KEY_MAX_BYTES);
    rc = parse_group_by(&q, group_by, e);
    if (rc == 0 && q.n_by == 0)
        find_group(&q, STR("")); /* all of it is one group, also when there is nothing */
    rc = rc ? rc : sum(r, &q, e);
    if (rc == 0)
        print(&q, is_csv, b);
    if (rc == 0 && b->is_over)
        rc = err_set(e, ERR_TOO_LARGE, "larger than the answer may be");
    map_each(&q.groups, free_group, NULL);
    map_release(&q.groups);
    buf_release(&q.key);
    return rc;
}
