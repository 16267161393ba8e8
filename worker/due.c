/* Scheduled jobs: a small entry each, by not_before. When one is due its record is read and
 * published to its job topic, with the scheduled record as source: one step in the log. One that
 * was cancelled meanwhile is not there any more. */
#include "base/log.h"
#include "base/test_hook.h"
#include "schema/envelope.h"
#include "worker/inside.h"
#include <stdlib.h>

enum {
    GROUP = 64,
    OUT_MAX = 1024, /* jobs with their bodies in memory, however many are due at once */
    RETRY_MS = 100,
};

struct entry {
    union {
        struct heap_node at; /* by wall time */
        struct list ready;   /* due, to be read */
    } in;
    int64_t offset;
    int32_t partition;
};

struct lookup {
    struct broker_read read; /* first */
    struct worker *w;
    struct entry *entries[GROUP];
    int64_t offsets[GROUP];
};

struct move {
    struct outgoing out; /* first */
    struct worker *w;
    struct buf mem;
};

/* ---- publishing ---- */

static void on_moved(struct outgoing *o, int code)
{
    struct move *m = (struct move *)(void *)o;

    HOOK_CRASH("due_published");
    if (code != 0 && code != ERR_CLOSED)
        log_info("due_refused", LS("id", o->record.key), LI("code", code));
    m->w->due.n_out--;
    buf_release(&m->mem);
    free(m);
}

/* The record's topic; where the config lost the queue, the default one. */
static int topic_of(const struct worker *w, const struct job *job)
{
    int topic = topics_jobs(w->topics, job->queue, job->priority);

    return topic >= 0 ? topic : topics_jobs(w->topics, STR("default"), job->priority);
}

static void move(struct worker *w, const struct record *r)
{
    struct err e = {0};
    struct job *job = intake_parse(w, r, &e);
    struct move *m;

    if (!job) {
        intake_bury(w, r, e.msg);
        return;
    }
    m = xcalloc(1, sizeof *m);
    m->w = w;
    buf_init(&m->mem, r->value.n + (1 << 20));
    if (envelope_job(&m->out.record, job, &m->mem, &e) != 0) {
        intake_bury(w, r, e.msg);
        buf_release(&m->mem);
        free(m);
    } else {
        m->out.record.at.topic = topic_of(w, job);
        m->out.record.ts_ms = worker_wall_ms(w);
        m->out.record.source = HOOK_SKIP("due_source") ? POSITION_NONE : r->at;
        m->out.on_sent = on_moved;
        w->due.n_out++;
        outbox_add(&w->outbox, &m->out);
    }
    job_release(job);
    free(job);
}

/* ---- reading ---- */

static void later(struct worker *w, struct entry *entry)
{
    entry->in.at.at = 0;
    alarms_set(&w->due.alarms, &entry->in.at, worker_wall_ms(w) + RETRY_MS);
}

static void on_read(struct broker_read *read, const struct record *records, size_t n)
{
    struct lookup *l = (struct lookup *)(void *)read;
    size_t i;

    HOOK_CRASH("due_read");
    l->w->due.n_reads--;
    l->w->due.n_out -= read->n;
    worker_read_failed(l->w, read->code);
    for (i = 0; i < n && !l->w->is_stopping; i++)
        move(l->w, &records[i]);
    for (i = 0; i < read->n; i++) {
        if (read->code)
            later(l->w, l->entries[i]);
        else
            free(l->entries[i]);
    }
    free(l);
}

static int by_offset(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void read_group(struct worker *w)
{
    struct lookup *l = xcalloc(1, sizeof *l);
    struct list *node;
    size_t n = 0, i;

    while (n < GROUP && (node = w->due.ready.next) != &w->due.ready) {
        struct entry *entry = LIST_ENTRY(node, struct entry, in.ready);

        if (n > 0 && entry->partition != l->entries[0]->partition)
            break;
        list_remove(node);
        l->entries[n++] = entry;
    }
    qsort(l->entries, n, sizeof l->entries[0], by_offset);
    for (i = 0; i < n; i++)
        l->offsets[i] = l->entries[i]->offset;
    l->w = w;
    l->read = (struct broker_read){.offsets = l->offsets,
                                   .n = n,
                                   .topic = TOPIC_SCHEDULED,
                                   .partition = l->entries[0]->partition,
                                   .on_read = on_read};
    if (broker_read(w->broker, &l->read) == 0) {
        w->due.n_reads++;
        w->due.n_out += n;
        return;
    }
    for (i = 0; i < n; i++)
        later(w, l->entries[i]);
    free(l);
}

void due_flush(struct worker *w)
{
    while (!list_is_empty(&w->due.ready) && w->due.n_out < OUT_MAX && !w->is_stopping)
        read_group(w);
}

static void on_due(struct heap_node *node, void *data)
{
    struct worker *w = data;
    struct entry *entry = LIST_ENTRY(node, struct entry, in.at);

    list_push(&w->due.ready, &entry->in.ready);
}

/* ---- taking in ---- */

static void take(struct worker *w, const struct record *r)
{
    struct err e = {0};
    struct job *job = intake_parse(w, r, &e);
    struct entry *entry;

    if (!job) {
        intake_bury(w, r, e.msg);
        return;
    }
    entry = xcalloc(1, sizeof *entry);
    entry->offset = r->at.offset;
    entry->partition = r->at.partition;
    alarms_set(&w->due.alarms, &entry->in.at, job->not_before);
    job_release(job);
    free(job);
}

static void on_records(void *data, const struct record *records, size_t n)
{
    struct worker *w = data;
    size_t i;

    for (i = 0; i < n && !w->is_stopping; i++)
        take(w, &records[i]);
}

void due_init(struct worker *w)
{
    list_init(&w->due.ready);
    alarms_init(&w->due.alarms, w->loop, true, on_due, w);
}

int due_start(struct worker *w, struct err *e)
{
    struct subscription s = {.on_records = on_records,
                             .on_failed = worker_read_failed,
                             .data = w,
                             .window = (size_t)w->config->worker_lookahead};

    if (broker_is_shared(w->broker))
        return 0; /* not built yet: submissions say so */
    return broker_subscribe(w->broker, TOPIC_SCHEDULED, &s, e);
}

void due_release(struct worker *w)
{
    struct list *node;
    struct heap_node *min;

    while ((node = list_pop(&w->due.ready)) != NULL)
        free(LIST_ENTRY(node, struct entry, in.ready));
    while ((min = heap_min(&w->due.alarms.heap)) != NULL) {
        heap_remove(&w->due.alarms.heap, min);
        free(LIST_ENTRY(min, struct entry, in.at));
    }
    alarms_release(&w->due.alarms);
}
