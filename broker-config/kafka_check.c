/* The take-over check. A commit says what was finished when it was made; what was finished after it
 * has its completion in the log, with its source in the header. Completions of one worker are
 * acknowledged in order and counted when they are, so none of them lies below the feed_end that
 * the worker committed. The commits are read before the completions' end is asked for. */
#include "base/id.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/test_hook.h"
#include "broker-config/kafka_read.h"
#include "broker-config/offsets_code.h"
#include <stdlib.h>

enum {
    COMMITTED_MS = 2000,
    WAIT_MS = 100,
    BATCH = 256,
    RECENT = 2000 /* completions below feed_end, for the names of jobs that may come again */
};

struct count {
    int64_t n_read, n_found;
};

/* Of `scheduled` nothing is committed: it starts at its oldest record. */
static bool is_committed(const struct kafka_start *s)
{
    return s->topic != TOPIC_SCHEDULED;
}

/* ---- commits ---- */

static void take_commit(struct kafka_start *s, const rd_kafka_topic_partition_t *p)
{
    if (p->offset < 0) { /* none: `low` is the oldest record */
        offsets_done_init(&s->done, s->low);
        s->feed_end = 0;
        return;
    }
    s->low = p->offset;
    if (!offsets_decode(str_of(p->metadata, p->metadata_size), s->low, &s->done, &s->feed_end))
        s->feed_end = 0;
    if (s->done.low != s->low)
        offsets_done_init(&s->done, s->low);
}

static rd_kafka_resp_err_t read_commits(const struct topics *t, struct kafka_check *check)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)check->n);
    const rd_kafka_topic_partition_t *p;
    rd_kafka_resp_err_t err;
    size_t i;

    for (i = 0; i < check->n; i++)
        rd_kafka_topic_partition_list_add(list, topics_name(t, check->starts[i].topic),
                                          check->starts[i].partition);
    err = rd_kafka_committed(check->member, list, COMMITTED_MS);
    for (i = 0; i < check->n && !err; i++) {
        p = rd_kafka_topic_partition_list_find(list, topics_name(t, check->starts[i].topic),
                                               check->starts[i].partition);
        err = p ? p->err : RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
        if (!err && is_committed(&check->starts[i]))
            take_commit(&check->starts[i], p);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return err;
}

/* ---- completions ---- */

static void note_source(struct kafka_check *check, struct position source, struct count *count)
{
    struct kafka_start *s;
    size_t i;

    for (i = 0; i < check->n; i++) {
        s = &check->starts[i];
        if (is_committed(s) && s->topic == source.topic && s->partition == source.partition &&
            !offsets_done_has(&s->done, source.offset))
            count->n_found += offsets_done_add(&s->done, source.offset, source.offset + 1);
    }
}

/* A client that got no answer sends its job again: that record has no completion of its own. */
static void note_name(struct kafka_check *check, const struct record *r)
{
    struct str tenant = r->headers[HEADER_TENANT].p ? r->headers[HEADER_TENANT] : STR("default");
    size_t whole = check->ended.n;
    uint8_t digest[SHA256_LEN];

    if (!id_is_valid(tenant) || !id_is_valid(r->key))
        return;
    buf_adds(&check->ended, tenant);
    buf_addc(&check->ended, '/');
    buf_adds(&check->ended, r->key);
    buf_addc(&check->ended, '/');
    if (unhex(r->headers[HEADER_DIGEST], digest, sizeof digest))
        buf_adds(&check->ended, r->headers[HEADER_DIGEST]);
    if (buf_addc(&check->ended, '\n') != 0)
        check->ended.n = whole; /* no room: what is left runs again, if it comes */
}

/* Takes m; gives what comes after it. */
static rd_kafka_resp_err_t look_at(const struct topics *t, struct kafka_check *check,
                                   rd_kafka_message_t *m, int64_t *next, struct count *count)
{
    rd_kafka_resp_err_t err = m->err;
    struct record r;

    if (!err) {
        kafka_record(t, TOPIC_COMPLETIONS, m, &r);
        if (topics_is_source(r.source.topic))
            note_source(check, r.source, count);
        note_name(check, &r);
        count->n_read++;
    }
    if (!err || err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        *next = m->offset + !err;
    rd_kafka_message_destroy(m);
    return err == RD_KAFKA_RESP_ERR__PARTITION_EOF ? 0 : err;
}

static rd_kafka_resp_err_t scan(struct kafka_reader *r, const struct topics *t,
                                struct kafka_check *check, int64_t from, int64_t end,
                                struct count *count)
{
    rd_kafka_message_t *m[BATCH];
    struct kafka_scan s = {0};
    rd_kafka_resp_err_t err = 0;
    int64_t next = from;
    ssize_t i, n;

    if (next >= end)
        return 0;
    if (kafka_scan_open(r, &s, TOPIC_COMPLETIONS, 0, from) != 0)
        return rd_kafka_last_error();
    while (next < end && !err) {
        n = rd_kafka_consume_batch(s.topic, 0, WAIT_MS, m, BATCH);
        for (i = 0; i < n; i++) {
            rd_kafka_resp_err_t one = look_at(t, check, m[i], &next, count);

            err = err ? err : one;
        }
        if (n <= 0 && kafka_reader_is_over(r))
            err = RD_KAFKA_RESP_ERR__DESTROY;
    }
    kafka_scan_close(&s);
    return err;
}

static rd_kafka_resp_err_t read_completions(struct kafka_reader *r, const struct topics *t,
                                            struct kafka_check *check, struct count *count)
{
    struct kafka_bounds all = {.topic = TOPIC_COMPLETIONS};
    rd_kafka_resp_err_t err = kafka_reader_bounds(r, &all, 1);
    int64_t from = INT64_MAX;
    struct kafka_start *s;
    size_t i;

    for (i = 0; i < check->n && !err; i++) {
        s = &check->starts[i];
        if (!is_committed(s))
            continue;
        if (s->feed_end > all.end) /* another topic of that name */
            s->feed_end = 0;
        if (s->feed_end < from)
            from = s->feed_end;
    }
    if (from > all.end) /* of `scheduled` alone: the recent ones */
        from = all.end;
    from = from > RECENT ? from - RECENT : 0;
    if (!err && !HOOK_SKIP("takeover"))
        err = scan(r, t, check, from > all.first ? from : all.first, all.end, count);
    for (i = 0; i < check->n && !err; i++)
        check->starts[i].feed_end = all.end;
    return err;
}

/* ---- all of it ---- */

static rd_kafka_resp_err_t read_bounds(struct kafka_reader *r, struct kafka_check *check)
{
    struct kafka_bounds *b = xcalloc(check->n, sizeof *b);
    rd_kafka_resp_err_t err;
    size_t i;

    for (i = 0; i < check->n; i++) {
        b[i].topic = check->starts[i].topic;
        b[i].partition = check->starts[i].partition;
    }
    err = kafka_reader_bounds(r, b, check->n);
    for (i = 0; i < check->n && !err; i++) {
        check->starts[i].low = b[i].first;
        check->starts[i].target = b[i].end;
    }
    free(b);
    return err;
}

static rd_kafka_resp_err_t try(struct kafka_reader *r, const struct topics *t,
                               struct kafka_check *check, struct count *count)
{
    rd_kafka_resp_err_t err;
    size_t i;

    buf_clear(&check->ended);
    for (i = 0; i < check->n; i++)
        offsets_done_release(&check->starts[i].done);
    err = read_bounds(r, check);
    if (err || !check->member)
        return err;
    err = read_commits(t, check);
    return err ? err : read_completions(r, t, check, count);
}

bool kafka_check_run(struct kafka_reader *r, const struct topics *t, struct kafka_check *check)
{
    struct count count = {0};
    rd_kafka_resp_err_t err;

    while ((err = try(r, t, check, &count))) {
        log_warn("group_takeover", LZ("topic", topics_name(t, check->starts[0].topic)),
                 LI("partitions", check->n), LZ("error", rd_kafka_err2str(err)));
        if (kafka_reader_is_over(r))
            return false;
        kafka_reader_pause(r);
        count = (struct count){0};
    }
    if (check->member)
        log_info("group_takeover", LI("partitions", check->n), LI("completions", count.n_read),
                 LI("finished", count.n_found));
    return true;
}
