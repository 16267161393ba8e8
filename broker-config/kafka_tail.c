#include "broker-config/kafka_tail.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdlib.h>
#include <unistd.h>

enum {
    OPEN_MS = 10000,
    OPEN_TRIES = 5, /* a topic that was just made is not known everywhere at once */
    OPEN_RETRY_US = 200000,
    TELL_EVERY_MS = 3000, /* that we wait */
    LOOK_MS = 1000,       /* how long a look may take … */
    LOOK_EVERY_MS = 3000, /* … and how often there is one */
    LOOK_REST = 5,        /* after a slow one so many times as long */
    OFFSET_OLDEST = -2,   /* as ListOffsets asks for them */
    OFFSET_END = -1
};

/* ---- the client ---- */

static rd_kafka_t *make_client(const struct config *c, struct err *e)
{
    static const char *const must[][2] = {
        {"enable.auto.commit", "false"},
        {"auto.offset.reset", "error"}, /* where to go on is for us to say */
        {"queued.min.messages", "100000"},
        {"queued.max.messages.kbytes", "16384"}, /* of all partitions, as they share a queue */
    };
    rd_kafka_conf_t *conf = kafka_conf(c, KAFKA_CONSUMER, NULL, e);
    size_t i;

    if (!conf)
        return NULL;
    for (i = 0; i < sizeof must / sizeof must[0]; i++)
        if (kafka_conf_set(conf, must[i][0], must[i][1], e) != 0) {
            rd_kafka_conf_destroy(conf);
            return NULL;
        }
    return kafka_client_new(KAFKA_CONSUMER, conf, e);
}

/* A message finds its topic by the handle's opaque. */
static int make_handle(struct tail *t, int topic, struct err *e)
{
    struct tail_topic *own = &t->topic[topic];
    rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(t->kafka);

    own->topic = topic;
    rd_kafka_topic_conf_set_opaque(conf, own);
    own->handle = rd_kafka_topic_new(t->kafka, topics_name(t->topics, topic), conf);
    return own->handle ? 0 : kafka_fail(e, rd_kafka_last_error(), topics_name(t->topics, topic));
}

static struct tail_part *add_part(struct tail_topic *own)
{
    struct tail_part *p = xcalloc(1, sizeof *p);

    p->next = (struct position){own->topic, (int32_t)own->n, -1};
    p->first = p->end = -1;
    own->parts = xrealloc(own->parts, (own->n + 1) * sizeof(struct tail_part *));
    own->parts[own->n++] = p;
    return p;
}

/* ---- what Kafka says of its log ---- */

static size_t count_parts(const struct tail *t)
{
    size_t i, n = 0;

    for (i = 0; i < t->n_topics; i++)
        n += t->topic[i].n;
    return n;
}

/* Asks for one end of all partitions: one request to each broker. */
static int ask_ends(struct tail *t, int64_t which, int timeout_ms, struct err *e)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count_parts(t));
    rd_kafka_topic_partition_t *at;
    rd_kafka_resp_err_t err;
    struct tail_part *p;
    size_t i, k;
    int n = 0;

    for (i = 0; i < t->n_topics; i++)
        for (k = 0; k < t->topic[i].n; k++)
            rd_kafka_topic_partition_list_add(list, topics_name(t->topics, (int)i), (int32_t)k)
                ->offset = which;
    err = rd_kafka_offsets_for_times(t->kafka, list, timeout_ms);
    for (i = 0; i < t->n_topics; i++)
        for (k = 0; k < t->topic[i].n; k++) {
            at = &list->elems[n++];
            p = t->topic[i].parts[k];
            if (err || at->err || at->offset < 0)
                err = err ? err : at->err;
            else if (which == OFFSET_OLDEST)
                p->first = at->offset;
            else
                p->end = at->offset;
        }
    rd_kafka_topic_partition_list_destroy(list);
    return err ? kafka_fail(e, err, "asking for the ends of the log") : 0;
}

/* The oldest first: so next >= first and next <= end hold whatever comes in between. */
static int ask_spans(struct tail *t, int timeout_ms, struct err *e)
{
    const struct tail_part *p;
    size_t i, k;
    int rc = ask_ends(t, OFFSET_OLDEST, timeout_ms, e);

    rc = rc ? rc : ask_ends(t, OFFSET_END, timeout_ms, e);
    for (i = 0; i < t->n_topics; i++)
        for (k = 0; k < t->topic[i].n; k++) {
            p = t->topic[i].parts[k];
            marks_span(t->marks, (int)i, (int32_t)k, p->first, p->end);
        }
    return rc;
}

static int fail_topic(const rd_kafka_metadata_topic_t *m, struct err *e)
{
    if (m->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        return err_set(e, ERR_NOT_FOUND,
                       "Kafka has no topic '%s': make the topics with `genq topics apply`",
                       m->topic);
    return kafka_fail(e, m->err, m->topic);
}

/* Adds the partitions that are new. */
static int ask_partitions(struct tail *t, int timeout_ms, struct err *e)
{
    const struct rd_kafka_metadata *m;
    rd_kafka_resp_err_t err = rd_kafka_metadata(t->kafka, 0, NULL, &m, timeout_ms);
    int i, topic, rc = 0;

    if (err)
        return kafka_fail(e, err, "asking for the topics");
    for (i = 0; rc == 0 && i < m->topic_cnt; i++) {
        topic = topics_find(t->topics, str_z(m->topics[i].topic));
        if (topic < 0)
            continue;
        if (m->topics[i].err)
            rc = fail_topic(&m->topics[i], e);
        else
            while (t->topic[topic].n < (size_t)m->topics[i].partition_cnt)
                add_part(&t->topic[topic]);
    }
    rd_kafka_metadata_destroy(m);
    return rc;
}

/* ---- positions ---- */

/* Where a partition starts: at its saved position, else at its oldest record. */
static int place(struct tail *t, struct tail_part *p, struct err *e)
{
    const char *namez = topics_name(t->topics, p->next.topic);
    int rc = follow_store_position(t->store, p->next.topic, p->next.partition, &p->next.offset, e);

    if (rc)
        return rc;
    if (p->next.offset < 0) {
        p->next.offset = p->first;
        return follow_store_save(t->store, p->next, e);
    }
    if (p->next.offset > p->end)
        return err_set(e, ERR_INVALID,
                       "%s/%d ends at %lld, but the data directory has it up to %lld: the topic was"
                       " made anew; give genq a new data directory",
                       namez, (int)p->next.partition, (long long)p->end, (long long)p->next.offset);
    return 0;
}

static int place_topic(struct tail *t, struct tail_topic *own, struct err *e)
{
    int64_t last = -1;
    size_t k;
    int rc = follow_store_last_partition(t->store, own->topic, &last, e);

    if (rc == 0 && last >= (int64_t)own->n)
        return err_set(e, ERR_INVALID,
                       "%s has %zu partitions, but the data directory has its partition %lld: the"
                       " topic was made anew; give genq a new data directory",
                       topics_name(t->topics, own->topic), own->n, (long long)last);
    for (k = 0; rc == 0 && k < own->n; k++)
        rc = place(t, own->parts[k], e);
    return rc;
}

static int claim(struct tail *t, struct err *e)
{
    char *clusterz = rd_kafka_clusterid(t->kafka, OPEN_MS);
    int rc = clusterz ? follow_store_claim(t->store, clusterz, e) : 0;

    rd_kafka_mem_free(t->kafka, clusterz);
    return rc;
}

static int place_all(struct tail *t, struct err *e)
{
    size_t i;
    int rc = db_begin(t->store->db, e);

    if (rc)
        return rc;
    rc = claim(t, e);
    for (i = 0; rc == 0 && i < t->n_topics; i++)
        rc = place_topic(t, &t->topic[i], e);
    rc = rc ? rc : db_commit(t->store->db, e);
    if (rc)
        db_rollback(t->store->db);
    return rc;
}

/* Records may have been deleted that were not applied yet: go on with what is there. */
static void skip_deleted(struct tail *t, struct tail_part *p)
{
    if (p->next.offset >= p->first)
        return;
    log_warn("records_deleted", LZ("topic", topics_name(t->topics, p->next.topic)),
             LI("partition", p->next.partition), LI("from", p->next.offset), LI("to", p->first));
    p->next.offset = p->first;
}

static void start_part(struct tail *t, struct tail_part *p)
{
    skip_deleted(t, p);
    marks_reach(t->marks, p->next);
    if (rd_kafka_consume_start_queue(t->topic[p->next.topic].handle, p->next.partition,
                                     p->next.offset, t->queue) != 0)
        log_error("follow_start", LZ("topic", topics_name(t->topics, p->next.topic)),
                  LI("partition", p->next.partition),
                  LZ("error", rd_kafka_err2str(rd_kafka_last_error())));
}

/* ---- opening ---- */

/* Waits for Kafka however long, saying so; for a topic that was only just made, a little. */
static int ask_until_known(struct tail *t, struct err *e)
{
    int64_t told_ms = clock_mono_ms(), now_ms;
    int rc, n_missing = 0;

    for (;;) {
        rc = ask_partitions(t, OPEN_MS, e);
        rc = rc ? rc : ask_spans(t, OPEN_MS, e);
        n_missing += rc == ERR_NOT_FOUND;
        if (rc != ERR_UNREACHABLE && rc != ERR_TIMEOUT &&
            (rc != ERR_NOT_FOUND || n_missing == OPEN_TRIES))
            return rc;
        now_ms = clock_mono_ms();
        if (rc != ERR_NOT_FOUND && now_ms - told_ms >= TELL_EVERY_MS) {
            log_warn("waiting_for_kafka", LZ("error", e->msg));
            told_ms = now_ms;
        }
        usleep(OPEN_RETRY_US);
    }
}

int tail_open(struct tail *t, const struct config *c, struct err *e)
{
    size_t i, k;
    int rc = 0;

    t->n_topics = topics_count(t->topics);
    t->topic = xcalloc(t->n_topics, sizeof *t->topic);
    t->kafka = make_client(c, e);
    if (!t->kafka)
        return ERR_INVALID;
    t->queue = rd_kafka_queue_new(t->kafka);
    for (i = 0; rc == 0 && i < t->n_topics; i++)
        rc = make_handle(t, (int)i, e);
    rc = rc ? rc : ask_until_known(t, e);
    rc = rc ? rc : place_all(t, e);
    for (i = 0; rc == 0 && i < t->n_topics; i++)
        for (k = 0; k < t->topic[i].n; k++)
            start_part(t, t->topic[i].parts[k]);
    t->look_at_ms = clock_mono_ms() + LOOK_EVERY_MS;
    return rc;
}

static void release_topic(struct tail_topic *own)
{
    size_t k;

    for (k = 0; k < own->n; k++) {
        rd_kafka_consume_stop(own->handle, (int32_t)k);
        free(own->parts[k]);
    }
    free(own->parts);
    if (own->handle)
        rd_kafka_topic_destroy(own->handle);
}

void tail_close(struct tail *t)
{
    size_t i;

    for (i = 0; i < t->n_topics; i++)
        release_topic(&t->topic[i]);
    free(t->topic);
    if (t->queue)
        rd_kafka_queue_destroy(t->queue);
    if (t->kafka)
        rd_kafka_destroy(t->kafka);
}

/* ---- reading ---- */

struct tail_part *tail_part(const rd_kafka_message_t *m)
{
    struct tail_topic *own = rd_kafka_topic_opaque(m->rkt);

    return own->parts[m->partition];
}

/* A partition says that it cannot go on; others than these librdkafka tries again by itself. */
static void take_fault(struct tail *t, const rd_kafka_message_t *m)
{
    if (m->err != RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET &&
        m->err != RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
        log_warn("follow_fault", LZ("error", rd_kafka_message_errstr(m)));
        return;
    }
    if (!m->rkt)
        return;
    tail_part(m)->is_lost = true;
    t->look_at_ms = 0;
}

/* Keeps it if it is the next of its partition, or a later one. */
static bool keep(struct tail *t, rd_kafka_message_t *m)
{
    struct tail_part *p = m->err ? NULL : tail_part(m);

    if (m->err)
        take_fault(t, m);
    if (!p || m->offset < p->next.offset) {
        rd_kafka_message_destroy(m);
        return false;
    }
    p->next.offset = m->offset + 1;
    return true;
}

size_t tail_take(struct tail *t, rd_kafka_message_t **messages, size_t n, int wait_ms)
{
    rd_kafka_message_t *first;
    ssize_t got;
    size_t i, kept = 0;

    if (wait_ms == 0) {
        got = rd_kafka_consume_batch_queue(t->queue, 0, messages, n);
    } else {
        /* A batch would wait for the whole time, or for n messages. */
        first = rd_kafka_consume_queue(t->queue, wait_ms);
        messages[0] = first;
        got = first ? 1 : 0;
    }
    for (i = 0; got > 0 && i < (size_t)got; i++)
        if (keep(t, messages[i]))
            messages[kept++] = messages[i];
    return kept;
}

void tail_wake(struct tail *t)
{
    rd_kafka_queue_yield(t->queue);
}

/* ---- looking ---- */

/* A partition that fell off the log's beginning goes on there. One that is beyond its end must
 * not: another log has taken this one's place. */
static void restart_lost(struct tail *t, struct tail_part *p, struct err *e)
{
    if (p->next.offset > p->end) {
        err_set(e, ERR_CORRUPT,
                "%s/%d ends at %lld, but was read up to %lld: the topic was made anew; give genq a"
                " new data directory",
                topics_name(t->topics, p->next.topic), (int)p->next.partition, (long long)p->end,
                (long long)p->next.offset);
        return;
    }
    p->is_lost = false;
    rd_kafka_consume_stop(t->topic[p->next.topic].handle, p->next.partition);
    start_part(t, p);
}

/* The partition was found by this look, or fell out of the log before it. */
static void start_found(struct tail *t, struct tail_part *p, struct err *e)
{
    if (p->next.offset < 0) {
        p->next.offset = p->first;
        start_part(t, p);
    } else if (p->is_lost) {
        restart_lost(t, p, e);
    }
}

static void look(struct tail *t, struct err *e)
{
    size_t i, k;

    if (ask_partitions(t, LOOK_MS, e) != 0 || ask_spans(t, LOOK_MS, e) != 0)
        return;
    for (i = 0; i < t->n_topics; i++)
        for (k = 0; k < t->topic[i].n; k++)
            start_found(t, t->topic[i].parts[k], e);
}

void tail_look(struct tail *t, int64_t mono_ms)
{
    struct err e = {0};
    int64_t took_ms;

    if (mono_ms < t->look_at_ms)
        return;
    look(t, &e);
    if (e.code != t->trouble.code && e.code)
        log_warn("follow_trouble", LI("code", e.code), LZ("error", e.msg));
    else if (e.code != t->trouble.code)
        log_info("follow_recovered", LI("code", t->trouble.code));
    t->trouble = e;
    took_ms = clock_mono_ms() - mono_ms;
    t->look_at_ms = mono_ms + took_ms +
                    (LOOK_REST * took_ms > LOOK_EVERY_MS ? LOOK_REST * took_ms : LOOK_EVERY_MS);
}
