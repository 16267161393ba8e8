/* Whatever the order over partitions, the tables come out the same: histories of jobs as records
 * of topics and partitions, applied in many interleavings that keep each partition's order. */
#include "tests/lib/dump.h"
#include "tests/store/fixture.h"
#include <stdio.h>

enum {
    PARTS = 3, /* of a job topic */
    JOBS = 14,
    RECORDS_MAX = 512,
    QUEUES_MAX = FX_TOPICS * PARTS,
    HISTORIES = 8, /* a case: each has its own time limit */
    ORDERS = 120,
    LINES = 6
};

struct entry {
    struct record r;
    struct buf mem;
};

struct history {
    struct topics *topics;
    struct entry entries[RECORDS_MAX];
    size_t n;
    size_t parts[QUEUES_MAX][RECORDS_MAX]; /* numbers of entries, in order */
    size_t n_parts[QUEUES_MAX];
    int64_t now_ms;
    uint64_t random;
    bool has_batch;
};

static uint32_t dice(struct history *h, uint32_t n)
{
    h->random ^= h->random << 13; /* xorshift64 */
    h->random ^= h->random >> 7;
    h->random ^= h->random << 17;
    return (uint32_t)(h->random >> 33) % n;
}

/* ---- records ---- */

static struct entry *next_entry(struct history *h)
{
    struct entry *entry = &h->entries[h->n];

    CHECK(h->n < RECORDS_MAX);
    entry->r = (struct record){.source = POSITION_NONE};
    buf_init(&entry->mem, 1 << 20);
    return entry;
}

/* Appends it to its partition, which follows from the key. */
static struct position append(struct history *h, int topic)
{
    struct record *r = &h->entries[h->n].r;
    int partition = topics_is_jobs(topic) ? (unsigned char)r->key.p[r->key.n - 1] % PARTS : 0;
    size_t part = (size_t)(topic * PARTS + partition);

    r->at = (struct position){topic, partition, (int64_t)h->n_parts[part]};
    r->ts_ms = ++h->now_ms;
    h->parts[part][h->n_parts[part]++] = h->n++;
    return r->at;
}

static void parse(struct history *h, const char *jsonz, struct job *j)
{
    struct job_defaults d = {.tenant = STR("default"), .batch_line = -1, .wall_ms = h->now_ms};
    struct err e = {0};

    if (job_parse(j, str_z(jsonz), true, NULL, &e) != 0)
        test_fail(__FILE__, __LINE__, e.msg);
    CHECK_INT(job_complete(j, &d, &e), 0);
}

static struct position add_job(struct history *h, const char *jsonz, struct position source)
{
    struct entry *entry = next_entry(h);
    struct job j;
    int topic;

    parse(h, jsonz, &j);
    j.state = j.not_before && source.topic < 0 ? STATE_SCHEDULED : STATE_QUEUED;
    CHECK_INT(envelope_job(&entry->r, &j, &entry->mem, NULL), 0);
    topic =
        j.state == STATE_SCHEDULED ? TOPIC_SCHEDULED : topics_jobs(h->topics, j.queue, j.priority);
    entry->r.source = source;
    job_release(&j);
    return append(h, topic);
}

static void add_end(struct history *h, const char *jsonz, enum job_state state, size_t n_calls,
                    struct position source)
{
    struct entry *entry = next_entry(h);
    struct call calls[3] = {{.attempt = 0}};
    struct completion c = {.state = state,
                           .attempts = (int)n_calls,
                           .node = STR("gpu0"),
                           .finished_at = h->now_ms,
                           .text = STR("hello"),
                           .usage = {10, 5 + (int64_t)n_calls, 2},
                           .calls = calls,
                           .n_calls = n_calls,
                           .queue_ms = -1,
                           .cost = 0.25 * (double)n_calls};
    struct job j;
    size_t i;

    for (i = 0; i < n_calls; i++) {
        calls[i] = (struct call){.attempt = (int)i + 1,
                                 .node = STR("gpu0"),
                                 .model = STR("m"),
                                 .usage = {10, 5, 2},
                                 .outcome = i + 1 == n_calls ? CALL_OK : CALL_CUT,
                                 .cost = 0.25};
        id_ulid(h->now_ms, calls[i].id);
    }
    parse(h, jsonz, &j);
    CHECK_INT(envelope_completion(&entry->r, &j, &c, NULL, &entry->mem, NULL), 0);
    entry->r.source = source;
    job_release(&j);
    append(h, TOPIC_COMPLETIONS);
}

static void add_batch(struct history *h, enum batch_state state, int64_t n_lines)
{
    struct entry *entry = next_entry(h);
    struct batch batch = {STR("b"), STR("default"), state, h->now_ms, n_lines};

    CHECK_INT(envelope_batch(&entry->r, &batch, &entry->mem), 0);
    append(h, TOPIC_META);
}

static void add_cancel(struct history *h, const char *idz)
{
    struct entry *entry = next_entry(h);

    CHECK_INT(envelope_cancel(&entry->r, STR("default"), str_z(idz), &entry->mem), 0);
    append(h, TOPIC_CONTROL);
}

/* ---- a job's life ---- */

/* What a job's JSON may say; `what` is its prompt: another one is another job. */
static void write_job(char *dst, size_t room, int id, const char *whatz, int line, bool is_later,
                      bool is_high)
{
    int n = snprintf(dst, room,
                     "{\"id\":\"j%d\",\"model\":\"m\",\"prompt\":\"%s\",\"created_at\":%d,"
                     "\"priority\":\"%s\",\"metadata\":{\"a\":1},\"deadline\":99999999",
                     id, whatz, 5 + id, is_high ? "high" : "normal");

    if (is_later)
        n += snprintf(dst + n, room - (size_t)n, ",\"not_before\":9000000");
    if (line >= 0)
        n += snprintf(dst + n, room - (size_t)n,
                      ",\"batch_id\":\"b\",\"batch_line\":%d,\"line_form\":\"openai\"", line);
    snprintf(dst + n, room - (size_t)n, "}");
}

static void add_ends(struct history *h, const char *jsonz, int id, struct position at)
{
    static const enum job_state states[] = {STATE_SUCCEEDED, STATE_FAILED, STATE_EXPIRED};
    char name[16];

    snprintf(name, sizeof name, "j%d", id);
    if (dice(h, 4) == 0) {
        add_end(h, jsonz, STATE_CANCELLED, 0, at);
        add_cancel(h, name);
    }
    if (dice(h, 5) > 0)
        add_end(h, jsonz, states[dice(h, 3)], dice(h, 4), at);
    if (dice(h, 4) == 0)
        add_end(h, jsonz, STATE_SUCCEEDED, 1 + dice(h, 2), at); /* a loser, or the end */
}

static void add_life(struct history *h, int id)
{
    int line = id < LINES ? id : -1;
    bool is_later = dice(h, 3) == 0, is_high = dice(h, 4) == 0;
    char json[512], other[512];
    struct position at;

    write_job(json, sizeof json, id, "hi", line, is_later, is_high);
    write_job(other, sizeof other, id, "no", line, is_later, is_high);
    if (line >= 0 && dice(h, 5) == 0) { /* a line that was refused */
        add_end(h, json, STATE_FAILED, 0, POSITION_NONE);
        return;
    }
    if (is_later && dice(h, 6) == 0) { /* its scheduled record was compacted away */
        at = add_job(h, json, (struct position){TOPIC_SCHEDULED, 0, 999});
        add_ends(h, json, id, at);
        return;
    }
    at = add_job(h, json, POSITION_NONE);
    if (dice(h, 3) == 0)
        add_job(h, json, POSITION_NONE);
    if (dice(h, 3) == 0)
        add_job(h, other, POSITION_NONE);
    if (is_later && dice(h, 4) > 0)
        at = add_job(h, json, at);
    add_ends(h, json, id, at);
    if (dice(h, 4) == 0)
        add_job(h, dice(h, 2) ? json : other, POSITION_NONE);
}

static void make_history(struct history *h, struct topics *topics, uint64_t seed)
{
    int id;

    *h = (struct history){.topics = topics, .random = seed * 7919 + 1, .now_ms = 1000000};
    for (id = 0; id < 8; id++)
        dice(h, 2);
    h->has_batch = dice(h, 5) > 0;
    if (h->has_batch)
        add_batch(h, BATCH_RECEIVING, -1);
    for (id = 0; id < LINES; id++)
        add_life(h, id);
    if (h->has_batch && dice(h, 5) > 0)
        add_batch(h, BATCH_SEALED, LINES);
    if (h->has_batch && dice(h, 4) == 0)
        add_batch(h, BATCH_CANCELLED, LINES);
    for (; id < JOBS; id++)
        add_life(h, id);
    if (h->has_batch && dice(h, 3) == 0) { /* sent again */
        add_batch(h, BATCH_RECEIVING, -1);
        add_batch(h, BATCH_SEALED, LINES);
    }
}

static void release_history(struct history *h)
{
    size_t i;

    for (i = 0; i < h->n; i++)
        buf_release(&h->entries[i].mem);
}

/* ---- applying ---- */

struct copy {
    struct db *db;
    struct db_stmt *append;
    struct store_writer *writer;
};

static void open_copy(struct copy *c, const struct history *h)
{
    struct err e = {0};

    CHECK_INT(db_open("", DB_TEMP, 4096, &c->db, &e), 0);
    CHECK_INT(schema_migrate(c->db, &e), 0);
    CHECK_INT(db_exec(c->db,
                      "CREATE TABLE \"genq.completions\"(off INTEGER PRIMARY KEY,"
                      " ts INTEGER NOT NULL, key TEXT, headers BLOB, value BLOB)",
                      &e),
              0);
    CHECK_INT(db_prepare(c->db,
                         "INSERT INTO \"genq.completions\"(off, ts, key, headers, value)"
                         " VALUES(?,?,?,?,?)",
                         &c->append, &e),
              0);
    c->writer = store_writer_new(h->topics, NULL, 0);
}

static void close_copy(struct copy *c)
{
    db_close(c->db);
    store_writer_free(c->writer);
}

static void apply_one(struct copy *c, const struct record *of)
{
    struct record r = *of;
    struct buf headers;
    int rc = store_apply(c->writer, c->db, &r);

    CHECK(rc == 0 || rc == ERR_EXISTS || rc == ERR_CONFLICT);
    if (rc || r.at.topic != TOPIC_COMPLETIONS)
        return;
    buf_init(&headers, 1 << 20);
    header_encode(&r, &headers);
    db_bind_int(c->append, 1, r.at.offset);
    db_bind_int(c->append, 2, r.ts_ms);
    db_bind_text(c->append, 3, r.key);
    db_bind_blob(c->append, 4, buf_str(&headers));
    db_bind_blob(c->append, 5, r.value);
    CHECK_INT(db_run(c->append, NULL), 0);
    buf_release(&headers);
}

/* The order in which the records are applied: as they were written, or any that keeps the order
 * within each partition. */
static void make_order(struct history *h, bool is_shuffled, size_t *order)
{
    size_t taken[QUEUES_MAX] = {0}, i, part;

    for (i = 0; i < h->n; i++) {
        order[i] = i;
        if (!is_shuffled)
            continue;
        do
            part = dice(h, QUEUES_MAX);
        while (taken[part] == h->n_parts[part]);
        order[i] = h->parts[part][taken[part]++];
    }
}

/* In transactions of any length, some of which fail at first. */
static void apply_all(struct history *h, const size_t *order, struct copy *c)
{
    size_t i, k, n;
    bool is_ok;

    for (i = 0; i < h->n; i += is_ok ? n : 0) {
        n = 1 + dice(h, 12);
        n = n < h->n - i ? n : h->n - i;
        is_ok = dice(h, 10) > 0;
        CHECK_INT(db_begin(c->db, NULL), 0);
        for (k = i; k < i + n; k++)
            apply_one(c, &h->entries[order[k]].r);
        CHECK_INT(store_flush(c->writer, c->db), 0);
        if (is_ok)
            CHECK_INT(db_commit(c->db, NULL), 0);
        else
            db_rollback(c->db);
        store_committed(c->writer, is_ok);
    }
}

static void tell_difference(const struct history *h, const size_t *order, struct str want,
                            struct str got)
{
    const struct record *r;
    size_t i;

    for (i = 0; i < h->n; i++) {
        r = &h->entries[order[i]].r;
        printf("# %s/%d/%lld %.*s from %d/%lld\n", topics_name(h->topics, r->at.topic),
               r->at.partition, (long long)r->at.offset, STR_ARG(r->key), r->source.topic,
               (long long)r->source.offset);
    }
    printf("# want\n%.*s# got\n%.*s", STR_ARG(want), STR_ARG(got));
}

static void check_order(struct history *h, bool is_shuffled, struct buf *want, struct buf *got)
{
    size_t order[RECORDS_MAX];
    struct copy c;

    make_order(h, is_shuffled, order);
    open_copy(&c, h);
    apply_all(h, order, &c);
    dump_tables(c.db, is_shuffled ? got : want);
    if (is_shuffled && !str_eq(buf_str(want), buf_str(got))) {
        tell_difference(h, order, buf_str(want), buf_str(got));
        test_fail(__FILE__, __LINE__, "the tables depend on the order");
    }
    close_copy(&c);
}

static void check_histories(uint64_t seed)
{
    char *queues[] = {"default", NULL};
    struct config config = {.queues = queues, .broker_prefix = "genq"};
    struct topics *topics = topics_new(&config);
    struct history *h = xcalloc(1, sizeof *h);
    struct buf want, got;
    int i, k;

    buf_init(&want, 1 << 24);
    buf_init(&got, 1 << 24);
    for (i = 0; i < HISTORIES; i++) {
        make_history(h, topics, seed + (uint64_t)i);
        for (k = 0; k <= ORDERS; k++)
            check_order(h, k > 0, &want, &got);
        release_history(h);
    }
    buf_release(&want);
    buf_release(&got);
    free(h);
    topics_free(topics);
}

TEST(tables_do_not_depend_on_the_order_over_partitions)
{
    check_histories(1);
}

TEST(nor_do_those_of_other_histories)
{
    check_histories(1001);
}

TEST(nor_those_of_still_others)
{
    check_histories(2001);
}
