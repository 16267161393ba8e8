#include "broker-config/kafka_feed.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker-config/offsets_code.h"
#include <stdlib.h>

struct kafka_feed *kafka_feed_new(int topic, int32_t partition, bool is_plain,
                                  rd_kafka_queue_t *queue)
{
    struct kafka_feed *f = xcalloc(1, sizeof *f);

    f->topic = topic;
    f->partition = partition;
    f->is_plain = is_plain;
    f->is_table = topic == TOPIC_SCHEDULED;
    f->queue = queue;
    f->committed_low = -1;
    return f;
}

void kafka_feed_free(struct kafka_feed *f)
{
    rd_kafka_queue_destroy(f->queue);
    offsets_release(&f->offsets);
    offsets_done_release(&f->done);
    free(f->early);
    free(f);
}

void kafka_feed_start(struct kafka_feed *f, struct kafka_start *s)
{
    size_t i;

    f->state = FEED_ON;
    f->target = s->target;
    f->feed_end = s->feed_end;
    f->deleted_low = s->low;
    f->deleted_at_ms = clock_mono_ms();
    f->done = s->done;
    s->done = (struct offsets_done){0};
    offsets_init(&f->offsets, s->low);
    for (i = 0; i < f->n_early; i++)
        kafka_feed_finish(f, f->early[i]);
    free(f->early);
    f->early = NULL;
    f->n_early = 0;
    f->has_more = true;
}

/* ---- taking ---- */

/* How far the taken may reach above the low mark. What is finished there has to find room in the
 * commit's metadata, surely up to OFFSETS_MAX_SPREAD; a larger window is meant, and what it
 * finishes out of order comes in long runs, which take little. Where it does not fit the last
 * commit stays, and who takes the partition over reads more completions. */
static size_t max_spread(const struct kafka_feed *f)
{
    if (f->window <= OFFSETS_MAX_SPREAD)
        return OFFSETS_MAX_SPREAD;
    return f->window < OFFSETS_DONE_SPAN ? f->window : OFFSETS_DONE_SPAN;
}

size_t kafka_feed_room(const struct kafka_feed *f)
{
    size_t room, spread = (size_t)(f->offsets.end - f->offsets.low), most = max_spread(f);

    if (f->state != FEED_ON || f->offsets.n_unfinished >= f->window)
        return 0;
    room = f->window - f->offsets.n_unfinished;
    if (f->is_plain)
        return room;
    if (spread >= most)
        return 0;
    return room < most - spread ? room : most - spread;
}

static void on_trouble(struct kafka_feed *f, const struct topics *t, const rd_kafka_message_t *m)
{
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        f->target = 0; /* reached, also where markers stand last, which are never delivered */
    else
        log_warn("kafka_partition", LZ("topic", topics_name(t, f->topic)),
                 LI("partition", f->partition), LZ("error", rd_kafka_message_errstr(m)));
}

/* One by one: librdkafka 2.2 to 2.12 take the end of a partition, in a batch, for a record that was
 * read. After the next rebalance they go on behind the next one, which nobody would read then
 * (librdkafka issue 4844). */
static rd_kafka_message_t *next_message(struct kafka_feed *f)
{
    return rd_kafka_consume_queue(f->queue, 0);
}

void kafka_feed_fetch(struct kafka_feed *f, const struct topics *t, struct kafka_batch *b)
{
    size_t room = kafka_feed_room(f), max = room < KAFKA_BATCH ? room : KAFKA_BATCH, n;
    int64_t next = f->offsets.end;
    rd_kafka_message_t *m;

    f->has_more = false;
    for (n = 0; n < max && (m = next_message(f)); n++) {
        if (m->err || m->offset < next) { /* the same offset may come again */
            if (m->err)
                on_trouble(f, t, m);
            rd_kafka_message_destroy(m);
            continue;
        }
        next = m->offset + 1;
        kafka_record(t, f->topic, m, &b->records[b->n]);
        b->is_owed[b->n] = false;
        b->messages[b->n++] = m;
    }
    f->has_more = max > 0 && n == max;
}

/* What the set knew is in `offsets` now. */
static void trim_done(struct kafka_feed *f)
{
    if (!f->done.bits || f->offsets.end < f->done.end)
        return;
    offsets_done_release(&f->done);
    offsets_done_init(&f->done, f->offsets.low);
}

void kafka_feed_take(struct kafka_feed *f, struct kafka_batch *b)
{
    size_t i;

    for (i = 0; i < b->n; i++) {
        offsets_take(&f->offsets, b->records[i].at.offset);
        if (f->is_table) {
            offsets_finish(&f->offsets, b->records[i].at.offset); /* which just moves on */
            b->records[b->n_records++] = b->records[i];
        } else if (offsets_done_has(&f->done, b->records[i].at.offset)) {
            offsets_finish(&f->offsets, b->records[i].at.offset);
            f->n_changes++;
        } else if (!b->is_owed[i]) {
            b->records[b->n_records++] = b->records[i];
        }
    }
    trim_done(f);
}

void kafka_batch_clear(struct kafka_batch *b)
{
    while (b->n > 0)
        rd_kafka_message_destroy(b->messages[--b->n]);
    b->n_records = 0;
}

/* ---- finishing ---- */

static bool finish_untaken(struct kafka_feed *f, int64_t offset)
{
    if (!f->done.bits)
        offsets_done_init(&f->done, f->offsets.low);
    return !offsets_done_has(&f->done, offset) && offsets_done_add(&f->done, offset, offset + 1);
}

bool kafka_feed_finish(struct kafka_feed *f, int64_t offset)
{
    bool is_new;

    if (f->state == FEED_LEAVING || f->is_table)
        return false;
    if (f->state == FEED_CHECKING) {
        f->early = xrealloc(f->early, (f->n_early + 1) * sizeof *f->early);
        f->early[f->n_early++] = offset;
        return true;
    }
    is_new =
        offset < f->offsets.end ? offsets_finish(&f->offsets, offset) : finish_untaken(f, offset);
    f->n_changes += is_new;
    if (is_new && f->n_running > 0)
        f->n_running--;
    return is_new;
}
