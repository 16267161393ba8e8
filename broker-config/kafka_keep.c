/* What finishes a source is kept until Kafka has it. While Kafka acknowledges within LATE_MS it is
 * only sent. When Kafka is late, all that is on its way is written to the outbox, and acknowledged
 * to its owner; what comes after goes there first, and is read from there to be sent, in order and
 * at most max_pending_bytes of it at a time, until the outbox holds nothing unsent and Kafka is in
 * time again. What was handed to librdkafka stays there: it is never sent anew by us, but where
 * it came back as failed. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "broker-config/kafka_publish_inside.h"
#include <assert.h>
#include <stdlib.h>

enum { LATE_MS = 1000, RETRY_MS = 1000 };

bool is_kept(const struct publish *p)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        if (topics_is_source(p->records[i].source.topic))
            return true;
    return false;
}

static bool has_unsent_rows(const struct keep *k)
{
    return k->cursor < k->outbox.last;
}

static struct item *oldest(const struct keep *k)
{
    return list_is_empty(&k->flying) ? NULL : LIST_ENTRY(k->flying.next, struct item, node);
}

/* Kafka does not answer, or does not take something. */
static bool is_late(const struct keep *k, int64_t now_ms)
{
    const struct item *i = oldest(k);

    return !list_is_empty(&k->waiting) || (i && now_ms - i->sent_ms >= LATE_MS);
}

static bool has_open(const struct keep *k)
{
    return !list_is_empty(&k->kept) || !list_is_empty(&k->unsent);
}

/* ---- results ---- */

static void add_gone(struct keep *k, const struct item *i)
{
    if (k->n_gone == k->gone_room) {
        k->gone_room = k->gone_room ? 2 * k->gone_room : 64;
        k->gone = xrealloc(k->gone, k->gone_room * sizeof k->gone[0]);
    }
    k->gone[k->n_gone++] = (struct gone){i->row, i->bytes};
}

/* Turned away for good. Whoever could be told has gone on, where it was in the outbox: there it
 * stays, for an operator to raise a limit, until the next start tries again. */
static void refuse(struct kafka_publisher *p, struct item *i, int code)
{
    if (i->record) {
        item_fail(i, code, true);
        return;
    }
    log_error("outbox_record_refused", LI("row", i->row), LI("code", code),
              LZ("topic", topics_name(p->o.topics, i->topic)));
    p->keep.held_bytes -= i->bytes;
    item_end(i);
}

static void send_again_later(struct kafka_publisher *p, struct item *i)
{
    struct keep *k = &p->keep;

    if (k->is_purging && i->record) {
        item_fail(i, ERR_CLOSED, false);
    } else if (k->is_purging) {
        item_end(i); /* its row stays */
    } else {
        if (list_is_empty(&k->waiting))
            k->retry_ms = clock_mono_ms() + RETRY_MS;
        list_push(&k->waiting, &i->node);
    }
}

static bool is_its_own(int code)
{
    return code == ERR_TOO_LARGE || code == ERR_INVALID;
}

void keep_on_report(struct kafka_publisher *p, struct item *i, const rd_kafka_message_t *m)
{
    int code = kafka_code(m->err);

    list_remove(&i->node);
    if (code && is_its_own(code)) {
        refuse(p, i, code);
    } else if (code) {
        publisher_note_failure(p, i->topic, m->err);
        send_again_later(p, i);
    } else {
        if (i->row) {
            add_gone(&p->keep, i);
            p->keep.held_bytes -= i->bytes;
        }
        item_deliver(i, m->partition, m->offset);
    }
}

/* ---- sending ---- */

/* False: the sender takes no more now. */
static bool fly(struct kafka_publisher *p, struct item *i, const struct record *r)
{
    int rc = kafka_sender_send(&p->patient, r, i);

    if (rc == 0) {
        i->sent_ms = clock_mono_ms();
        list_push(&p->keep.flying, &i->node);
    } else if (is_its_own(rc)) {
        refuse(p, i, rc);
    } else {
        send_again_later(p, i);
    }
    return rc != ERR_FULL && rc != ERR_UNREACHABLE;
}

static void send_parcel(struct kafka_publisher *p, struct parcel *c)
{
    size_t i;

    c->n_left++; /* it may be acknowledged on the way */
    list_remove(&c->node);
    list_push(&p->keep.kept, &c->node);
    for (i = 0; i < c->n; i++)
        if (!c->items[i].is_over)
            fly(p, &c->items[i], c->items[i].record);
    parcel_release(c);
}

static void send_unsent(struct kafka_publisher *p)
{
    struct keep *k = &p->keep;

    while (!list_is_empty(&k->unsent))
        send_parcel(p, LIST_ENTRY(k->unsent.next, struct parcel, node));
}

static bool on_row_again(void *data, const struct kafka_outbox_row *row)
{
    struct item *i = data;

    fly(i->parcel->p, i, &row->record);
    return true;
}

static void send_again(struct kafka_publisher *p, struct item *i)
{
    struct err e;

    if (i->record)
        fly(p, i, i->record);
    else if (kafka_outbox_read(&p->keep.outbox, i->row, i->row, on_row_again, i, &e) != 0)
        send_again_later(p, i);
}

static void send_waiting(struct kafka_publisher *p, int64_t now_ms)
{
    struct list *waiting = &p->keep.waiting, due;
    struct list *node;

    if (list_is_empty(waiting) || now_ms < p->keep.retry_ms)
        return;
    list_init(&due);
    while ((node = list_pop(waiting)) != NULL)
        list_push(&due, node);
    while ((node = list_pop(&due)) != NULL)
        send_again(p, LIST_ENTRY(node, struct item, node));
}

static bool on_row(void *data, const struct kafka_outbox_row *row)
{
    struct kafka_publisher *p = data;
    struct keep *k = &p->keep;
    struct item *i;

    if (k->held_bytes >= (int64_t)p->max_pending)
        return false;
    k->cursor = row->row;
    if (row->record.at.topic < 0 || row->record.code) {
        log_error("outbox_record_left", LI("row", row->row),
                  LZ("why", row->record.code ? "broken" : "its topic is not in the config"));
        return true;
    }
    i = parcel_new(p, NULL)->items;
    i->row = row->row;
    i->bytes = row->bytes;
    i->source = row->record.source;
    i->topic = row->record.at.topic;
    k->held_bytes += i->bytes;
    return fly(p, i, &row->record);
}

static void send_rows(struct kafka_publisher *p)
{
    struct keep *k = &p->keep;
    struct err e;

    if (has_unsent_rows(k) && !k->is_closing && k->held_bytes < (int64_t)p->max_pending &&
        kafka_outbox_read(&k->outbox, k->cursor + 1, k->outbox.last, on_row, p, &e) != 0)
        publisher_note_health(p, &e);
}

/* ---- the outbox ---- */

static int write_parcel(struct keep *k, struct parcel *c, struct err *e)
{
    struct item *i;
    int rc = 0;

    for (i = c->items; rc == 0 && i < c->items + c->n; i++)
        if (!i->is_over)
            rc = kafka_outbox_add(&k->outbox, i->record, &i->row, &i->bytes, e);
    return rc;
}

static int write_parcels(struct keep *k, struct list *parcels, struct err *e)
{
    struct list *node;
    int rc = 0;

    for (node = parcels->next; rc == 0 && node != parcels; node = node->next)
        rc = write_parcel(k, LIST_ENTRY(node, struct parcel, node), e);
    return rc;
}

static int remove_gone(struct keep *k, struct err *e)
{
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < k->n_gone; i++)
        rc = kafka_outbox_remove(&k->outbox, k->gone[i].row, k->gone[i].bytes, e);
    return rc;
}

/* *cursor: the newest row that is with the sender already. */
static int write_once(struct keep *k, bool is_spilling, int64_t *cursor, struct err *e)
{
    int rc = kafka_outbox_begin(&k->outbox, e);

    *cursor = k->cursor;
    if (rc == 0 && is_spilling) {
        rc = write_parcels(k, &k->kept, e);
        if (k->outbox.last > k->outbox.old_last) {
            assert(k->cursor == k->outbox.old_last); /* else what comes is not sent at once */
            *cursor = k->outbox.last;
        }
        rc = rc ? rc : write_parcels(k, &k->unsent, e);
    }
    rc = rc ? rc : remove_gone(k, e);
    rc = rc ? rc : kafka_outbox_commit(&k->outbox, e);
    if (rc)
        kafka_outbox_rollback(&k->outbox);
    return rc;
}

/* Its records are safe: the owner may go on. */
static void give_back(struct keep *k, struct parcel *c, bool is_sent)
{
    struct item *i;

    c->n_left++;
    list_remove(&c->node);
    for (i = c->items; i < c->items + c->n; i++) {
        if (i->is_over)
            continue;
        i->record->at.offset = -1;
        item_settle(i, 0);
        if (is_sent)
            k->held_bytes += i->bytes;
        else
            item_end(i);
    }
    parcel_release(c);
}

static void forget_rows(struct list *parcels)
{
    struct list *node;
    struct parcel *c;
    size_t i;

    for (node = parcels->next; node != parcels; node = node->next) {
        c = LIST_ENTRY(node, struct parcel, node);
        for (i = 0; i < c->n; i++)
            c->items[i].row = 0;
    }
}

static void give_all_back(struct keep *k)
{
    while (!list_is_empty(&k->kept))
        give_back(k, LIST_ENTRY(k->kept.next, struct parcel, node), true);
    while (!list_is_empty(&k->unsent))
        give_back(k, LIST_ENTRY(k->unsent.next, struct parcel, node), false);
}

static void tell(struct kafka_publisher *p, bool was_empty)
{
    const struct kafka_outbox *o = &p->keep.outbox;

    metric_set(METRIC_OUTBOX_RECORDS, o->n_rows);
    metric_set(METRIC_OUTBOX_BYTES, o->bytes);
    if (was_empty && o->n_rows > 0)
        log_warn("outbox_in_use", LI("records", o->n_rows));
    else if (!was_empty && o->n_rows == 0)
        log_info("outbox_empty", LI("row", o->last));
    pthread_mutex_lock(&p->lock);
    p->stored_bytes = o->bytes;
    pthread_mutex_unlock(&p->lock);
}

static void note_disk(struct kafka_publisher *p, const struct err *e)
{
    struct keep *k = &p->keep;

    if (e && !k->is_disk_bad)
        log_error("outbox_write", LI("code", e->code), LZ("error", e->msg));
    k->is_disk_bad = e != NULL;
    k->disk_retry_ms = e ? clock_mono_ms() + RETRY_MS : 0;
}

static int write_outbox(struct kafka_publisher *p, bool is_spilling)
{
    struct keep *k = &p->keep;
    bool was_empty = k->outbox.n_rows == 0;
    int64_t cursor;
    struct err e;
    int rc = write_once(k, is_spilling, &cursor, &e);

    note_disk(p, rc ? &e : NULL);
    if (rc && is_spilling) {
        forget_rows(&k->kept);
        forget_rows(&k->unsent);
    }
    if (rc)
        return rc;
    k->cursor = cursor;
    k->n_gone = 0;
    tell(p, was_empty);
    if (is_spilling)
        give_all_back(k);
    kafka_outbox_tidy(&k->outbox);
    return 0;
}

static void note_late(struct kafka_publisher *p, int64_t now_ms)
{
    const struct item *i = oldest(&p->keep);
    int64_t since_ms = p->success_ms;
    struct err e;

    if (i && i->sent_ms > since_ms)
        since_ms = i->sent_ms;
    if (!i || now_ms - since_ms < LATE_MS || p->health.code)
        return;
    err_set(&e, ERR_UNREACHABLE, "Kafka: no acknowledgement for %lld ms",
            (long long)(now_ms - since_ms));
    publisher_note_health(p, &e);
}

/* While the disk refuses what Kafka does not take, nothing more is taken either. */
static void tell_whether_bad(struct kafka_publisher *p)
{
    bool is_bad = p->keep.is_disk_bad && has_open(&p->keep);

    pthread_mutex_lock(&p->lock);
    p->is_outbox_bad = is_bad;
    pthread_mutex_unlock(&p->lock);
}

/* ---- from outside ---- */

void keep_add(struct kafka_publisher *p, struct parcel *c)
{
    list_push(&p->keep.unsent, &c->node);
}

void keep_turn(struct kafka_publisher *p)
{
    struct keep *k = &p->keep;
    int64_t now_ms = clock_mono_ms();
    bool is_spilling;

    send_waiting(p, now_ms);
    note_late(p, now_ms);
    is_spilling = has_unsent_rows(k) || is_late(k, now_ms);
    if (!is_spilling)
        send_unsent(p);
    is_spilling = is_spilling && has_open(k);
    if ((is_spilling || k->n_gone > 0) && now_ms >= k->disk_retry_ms)
        write_outbox(p, is_spilling);
    send_rows(p);
    if (k->is_disk_bad || p->is_outbox_bad)
        tell_whether_bad(p);
}

static void sooner(int64_t *at_ms, int64_t other_ms)
{
    if (*at_ms == 0 || other_ms < *at_ms)
        *at_ms = other_ms;
}

int64_t keep_deadline(const struct kafka_publisher *p)
{
    const struct keep *k = &p->keep;
    const struct item *i = oldest(k);
    int64_t at_ms = 0;

    if (!list_is_empty(&k->waiting))
        sooner(&at_ms, k->retry_ms);
    if (k->is_disk_bad)
        sooner(&at_ms, k->disk_retry_ms);
    else if (i && has_open(k))
        sooner(&at_ms, i->sent_ms + LATE_MS);
    if (has_unsent_rows(k) && !i)
        sooner(&at_ms, clock_mono_ms() + RETRY_MS); /* they could not be read */
    return at_ms;
}

void keep_give_up(struct kafka_publisher *p)
{
    struct keep *k = &p->keep;
    struct list *node;
    struct parcel *c;
    size_t i;

    k->is_purging = true;
    if (has_open(k) || k->n_gone > 0)
        write_outbox(p, true);
    while ((node = list_pop(&k->unsent)) != NULL) {
        c = LIST_ENTRY(node, struct parcel, node);
        c->n_left++;
        for (i = 0; i < c->n; i++)
            if (!c->items[i].is_over)
                item_fail(&c->items[i], ERR_CLOSED, false);
        parcel_release(c);
    }
    while ((node = list_pop(&k->waiting)) != NULL)
        send_again_later(p, LIST_ENTRY(node, struct item, node)); /* gives it up */
    kafka_sender_purge(&p->patient);
    if (k->n_gone > 0)
        write_outbox(p, false);
}

static void on_old_source(void *data, struct position at)
{
    struct kafka_publisher *p = data;

    kafka_owed_add(&p->owed, at);
}

int keep_open(struct kafka_publisher *p, struct err *e)
{
    struct keep *k = &p->keep;
    struct buf path;
    int rc;

    list_init(&k->unsent);
    list_init(&k->kept);
    list_init(&k->flying);
    list_init(&k->waiting);
    buf_init(&path, 1 << 16);
    buf_addf(&path, "%s/" OUTBOX_FILE, p->o.config->data);
    rc = kafka_outbox_open(&k->outbox, path.p, p->o.topics, e);
    buf_release(&path);
    rc = rc ? rc : kafka_outbox_sources(&k->outbox, on_old_source, p, e);
    if (rc == 0)
        tell(p, true);
    return rc;
}

void keep_close(struct kafka_publisher *p)
{
    kafka_outbox_close(&p->keep.outbox);
    free(p->keep.gone);
}
