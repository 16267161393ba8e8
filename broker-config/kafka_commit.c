/* What is finished, told to Kafka: the low mark as the offset, what is finished above it in the
 * metadata. One commit at a time, of all partitions that changed. What lies below a committed low
 * mark is deleted now and then: it is done, and nothing else removes it. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/test_hook.h"
#include "broker-config/kafka_inside.h"
#include "broker-config/offsets_code.h"
#include <stdlib.h>

enum {
    COMMIT_MS = 25,
    RETRY_MS = 500,
    LAST_MS = 2000,
    IDLE_COMPLETIONS = 10000, /* an idle partition's commit is renewed after so many */
    DELETE_MS = 5000,
    DELETE_IDLE_MS = 60000,
    DELETE_RECORDS = 1000,
    DELETE_TIMEOUT_MS = 30000
};

/* ---- commits ---- */

static int64_t feed_end(const struct kafka_group *g, const struct kafka_feed *f)
{
    return g->feed_end > f->feed_end ? g->feed_end : f->feed_end;
}

/* False: it does not fit, the last commit stays. */
static bool add(struct kafka_group *g, struct kafka_feed *f, rd_kafka_topic_partition_list_t *list)
{
    char *text = xmalloc(OFFSETS_CODE_CHARS);
    size_t n = offsets_encode(&f->offsets, &f->done, feed_end(g, f), text, OFFSETS_CODE_CHARS);
    rd_kafka_topic_partition_t *p;

    if (n == 0) {
        free(text);
        return false;
    }
    p = rd_kafka_topic_partition_list_add(list, topics_name(g->topics, f->topic), f->partition);
    p->offset = f->sent_low = f->offsets.low + HOOK_SKIP("low_mark");
    p->metadata = text; /* the list's */
    p->metadata_size = n;
    f->sent_end = feed_end(g, f);
    f->n_sent = f->n_changes;
    f->is_sent = true;
    return true;
}

static bool is_gate_open(const struct kafka_group *g)
{
    return g->member && g->has_assignment && !g->is_unassigned && !atomic_load(&g->gate.is_joining);
}

void kafka_commit_send(struct kafka_group *g)
{
    rd_kafka_topic_partition_list_t *list;
    struct kafka_feed *f;
    struct list *node;

    if (g->is_committing || !is_gate_open(g) || clock_mono_ms() < g->commit_at_ms)
        return;
    list = rd_kafka_topic_partition_list_new(16);
    for (node = g->feeds.next; node != &g->feeds; node = node->next) {
        f = LIST_ENTRY(node, struct kafka_feed, node);
        if (kafka_feed_is_dirty(f) && f->state != FEED_CHECKING)
            add(g, f, list);
    }
    if (list->cnt > 0)
        g->is_committing = rd_kafka_commit_queue(g->member, list, g->answers, NULL, NULL) == 0;
    rd_kafka_topic_partition_list_destroy(list);
    g->commit_at_ms = clock_mono_ms() + COMMIT_MS;
}

static void log_failure(struct kafka_group *g, const struct kafka_feed *f, rd_kafka_resp_err_t err)
{
    log_warn("commit_failed", LZ("topic", topics_name(g->topics, f->topic)),
             LI("partition", f->partition), LI("offset", f->sent_low),
             LZ("error", rd_kafka_err2str(err)));
}

static void on_committed(struct kafka_group *g, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(event);
    bool is_news = err && err != g->commit_err;
    struct kafka_feed *f;
    struct list *node;

    g->is_committing = false;
    g->commit_err = err;
    metric_add(err ? METRIC_KAFKA_COMMITS_FAILED : METRIC_KAFKA_COMMITS, 1);
    if (err)
        g->commit_at_ms = clock_mono_ms() + RETRY_MS;
    for (node = g->feeds.next; node != &g->feeds; node = node->next) {
        f = LIST_ENTRY(node, struct kafka_feed, node);
        if (f->is_sent && !err) {
            f->n_committed = f->n_sent;
            f->committed_low = f->sent_low;
            f->committed_end = f->sent_end;
        } else if (f->is_sent && is_news) {
            log_failure(g, f, err);
        }
        f->is_sent = false;
    }
}

/* ---- deletions ---- */

static bool is_deletion_due(const struct kafka_feed *f, int64_t now_ms)
{
    int64_t n = f->committed_low - f->deleted_low;

    return topics_is_jobs(f->topic) && f->committed_low > 0 && n > 0 &&
           now_ms - f->deleted_at_ms >= DELETE_MS &&
           (n > DELETE_RECORDS || now_ms - f->deleted_at_ms >= DELETE_IDLE_MS);
}

static void delete_records(struct kafka_group *g, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_DeleteRecords_t *request = rd_kafka_DeleteRecords_new(list);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(g->member, RD_KAFKA_ADMIN_OP_DELETERECORDS);

    rd_kafka_AdminOptions_set_request_timeout(options, DELETE_TIMEOUT_MS, NULL, 0);
    rd_kafka_DeleteRecords(g->member, &request, 1, options, g->answers);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(request);
    g->is_deleting = true;
}

static void delete_finished(struct kafka_group *g)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    int64_t now_ms = clock_mono_ms();
    struct kafka_feed *f;
    struct list *node;

    for (node = g->feeds.next; node != &g->feeds; node = node->next) {
        f = LIST_ENTRY(node, struct kafka_feed, node);
        if (!is_deletion_due(f, now_ms))
            continue;
        rd_kafka_topic_partition_list_add(list, topics_name(g->topics, f->topic), f->partition)
            ->offset = f->deleted_low = f->committed_low;
        f->deleted_at_ms = now_ms;
    }
    if (list->cnt > 0)
        delete_records(g, list);
    rd_kafka_topic_partition_list_destroy(list);
}

/* What could not be deleted now is with the next one. */
static void on_deleted(struct kafka_group *g, rd_kafka_event_t *event)
{
    const rd_kafka_DeleteRecords_result_t *result = rd_kafka_event_DeleteRecords_result(event);
    const rd_kafka_topic_partition_list_t *list;
    int i;

    g->is_deleting = false;
    if (rd_kafka_event_error(event)) {
        log_warn("delete_failed", LZ("error", rd_kafka_event_error_string(event)));
        return;
    }
    list = rd_kafka_DeleteRecords_result_offsets(result);
    for (i = 0; i < list->cnt; i++)
        if (list->elems[i].err)
            log_warn("delete_failed", LZ("topic", list->elems[i].topic),
                     LI("partition", list->elems[i].partition),
                     LZ("error", rd_kafka_err2str(list->elems[i].err)));
}

/* ---- outside ---- */

void kafka_commit_serve(struct kafka_group *g, int ms)
{
    rd_kafka_event_t *event;

    while ((event = rd_kafka_queue_poll(g->answers, ms))) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_OFFSET_COMMIT)
            on_committed(g, event);
        else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DELETERECORDS_RESULT)
            on_deleted(g, event);
        rd_kafka_event_destroy(event);
        ms = 0;
    }
}

void kafka_commit_tick(struct kafka_group *g)
{
    struct kafka_feed *f;
    struct list *node;

    for (node = g->feeds.next; node != &g->feeds; node = node->next) {
        f = LIST_ENTRY(node, struct kafka_feed, node);
        if (f->state == FEED_ON && !f->is_plain && !f->is_table && !kafka_feed_is_dirty(f) &&
            feed_end(g, f) - f->committed_end > IDLE_COMPLETIONS)
            f->n_changes++;
    }
    if (!g->is_deleting)
        delete_finished(g);
}

static bool is_any_dirty(const struct kafka_group *g)
{
    const struct list *node;

    for (node = g->feeds.next; node != &g->feeds; node = node->next)
        if (kafka_feed_is_dirty(LIST_ENTRY(node, struct kafka_feed, node)))
            return true;
    return false;
}

void kafka_commit_last(struct kafka_group *g)
{
    int64_t over_ms = clock_mono_ms() + LAST_MS;

    while ((g->is_committing || is_any_dirty(g)) && clock_mono_ms() < over_ms) {
        kafka_commit_send(g);
        kafka_commit_serve(g, COMMIT_MS);
        kafka_member_serve(g);
    }
}
