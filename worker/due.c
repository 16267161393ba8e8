/* Scheduled jobs: a small entry each, by not_before and by name. When one is due its record is read
 * again and published to its job topic.
 *
 * Where the log is ours alone that finishes the scheduled record: one step. A shared log keeps
 * `scheduled` as a table, where the last record of a key holds (broker.h): there a tombstone
 * follows once the job's new record is acknowledged. Killed between the two, the next owner
 * publishes the job again, and the copy is dropped like any job that comes twice (intake.c). */
#include "base/log.h"
#include "base/test_hook.h"
#include "schema/envelope.h"
#include "worker/inside.h"
#include <stdlib.h>

enum {
    GROUP = 64,
    OUT_MAX = 1024, /* jobs with their bodies in memory, however many are due at once */
    RETRY_MS = 100,
    REFUSED_MS = 5000,
};

enum due_state {
    DUE_WAITING, /* in the heap */
    DUE_READY,   /* due, to be read */
    DUE_READING,
    DUE_MOVING, /* on its way to its job topic */
    DUE_GONE,   /* forgotten while it was read or moved: freed when that is over */
};

struct entry {
    struct map_node node;
    union {
        struct heap_node at; /* by wall time */
        struct list ready;
    } in;
    struct settled_key name;
    uint64_t digest; /* some of it: tells a repeat from another job of this name */
    int64_t offset;
    int32_t partition;
    uint32_t state; /* enum due_state */
};

_Static_assert(sizeof(struct entry) <= 88, "what a scheduled job costs, and some for heap and map");

struct lookup {
    struct broker_read read; /* first */
    struct worker *w;
    struct entry *entries[GROUP]; /* NULL: the record is to be in the table again */
    int64_t offsets[GROUP];
};

/* A record on its way: a due job's, or one into the table. */
struct move {
    struct outgoing out; /* first */
    struct worker *w;
    struct entry *entry; /* NULL: into the table */
    struct buf mem;
    char source[POSITION_TEXT_MAX];
    struct buf key; /* of the scheduled record, which is erased then; empty: none */
};

static struct str name_of(const struct entry *entry)
{
    return str_of(&entry->name, sizeof entry->name);
}

static uint64_t digest_of(const struct job *job)
{
    uint8_t digest[SHA256_LEN];
    uint64_t some;

    job_digest(job, digest);
    memcpy(&some, digest, sizeof some);
    return some;
}

/* ---- entries ---- */

static void drop(struct worker *w, struct entry *entry)
{
    if (entry->state != DUE_GONE)
        map_remove(&w->due.names, &entry->node);
    free(entry);
}

static void ready(struct worker *w, struct entry *entry)
{
    entry->state = DUE_READY;
    list_push(&w->due.ready, &entry->in.ready);
}

static void wait_until(struct worker *w, struct entry *entry, int64_t wall_ms)
{
    entry->state = DUE_WAITING;
    entry->in.at.at = 0;
    alarms_set(&w->due.alarms, &entry->in.at, wall_ms);
}

/* Wherever it is: it was cancelled, or goes to another worker. */
static void forget(struct worker *w, struct entry *entry)
{
    bool is_away = entry->state == DUE_READING || entry->state == DUE_MOVING;

    if (entry->state == DUE_WAITING)
        alarms_clear(&w->due.alarms, &entry->in.at);
    else if (entry->state == DUE_READY)
        list_remove(&entry->in.ready);
    map_remove(&w->due.names, &entry->node);
    entry->state = DUE_GONE;
    if (!is_away)
        free(entry);
}

static struct entry *find(struct worker *w, struct str tenant, struct str id)
{
    struct settled_key name = settled_key(tenant, id);
    struct map_node *node = map_get(&w->due.names, str_of(&name, sizeof name));

    return node ? LIST_ENTRY(node, struct entry, node) : NULL;
}

/* ---- publishing ---- */

static void free_move(struct move *m)
{
    buf_release(&m->mem);
    buf_release(&m->key);
    free(m);
}

static void dispatch(struct move *m, int topic)
{
    m->out.record.at.topic = topic;
    m->out.record.ts_ms = worker_wall_ms(m->w);
    m->w->due.n_out++;
    outbox_add(&m->w->due.outbox, &m->out);
}

static struct move *move_new(struct worker *w, size_t room,
                             void (*on_sent)(struct outgoing *o, int code))
{
    struct move *m = xcalloc(1, sizeof *m);

    m->w = w;
    m->out.on_sent = on_sent;
    m->out.record.source = POSITION_NONE;
    buf_init(&m->mem, room);
    buf_init(&m->key, SIZE_MAX);
    return m;
}

static void on_stored(struct outgoing *o, int code)
{
    struct move *m = (struct move *)(void *)o;

    if (code != 0 && code != ERR_CLOSED)
        log_warn("scheduled_store", LS("key", o->record.key), LI("code", code));
    m->w->due.n_out--;
    free_move(m);
}

/* Takes what the table has under this key away. */
static void erase(struct worker *w, struct str key)
{
    struct move *m;

    if (!broker_is_shared(w->broker) || key.n == 0)
        return;
    m = move_new(w, key.n + 1, on_stored);
    buf_adds(&m->mem, key);
    m->out.record.key = buf_str(&m->mem);
    dispatch(m, TOPIC_SCHEDULED);
}

static void bury(struct worker *w, const struct record *r, const char *whyz)
{
    intake_bury(w, r, whyz);
    erase(w, r->key);
}

/* What the log does not take is tried again: embedded there may be nothing to read any more. */
static void on_moved(struct outgoing *o, int code)
{
    struct move *m = (struct move *)(void *)o;
    bool is_there = code == 0 || code == ERR_EXISTS || code == ERR_CONFLICT;

    HOOK_CRASH("due_published");
    if (code != 0 && code != ERR_CLOSED)
        log_info("due_refused", LS("id", o->record.key), LI("code", code));
    if (is_there)
        erase(m->w, buf_str(&m->key));
    if (is_there || code == ERR_CLOSED || m->entry->state == DUE_GONE)
        drop(m->w, m->entry);
    else
        wait_until(m->w, m->entry, worker_wall_ms(m->w) + REFUSED_MS);
    m->w->due.n_out--;
    free_move(m);
}

/* The record's topic; where the config lost the queue, the default one. */
static int topic_of(const struct worker *w, const struct job *job)
{
    int topic = topics_jobs(w->topics, job->queue, job->priority);

    return topic >= 0 ? topic : topics_jobs(w->topics, STR("default"), job->priority);
}

/* In a shared log the source is only told: a publish that finishes one may be acknowledged while it
 * is on this machine's disk alone, and the table's record must stay until Kafka has the job. */
static void name_source(struct move *m, const struct record *r)
{
    if (!broker_is_shared(m->w->broker)) {
        m->out.record.source = HOOK_SKIP("due_source") ? POSITION_NONE : r->at;
        return;
    }
    position_format(m->w->topics, r->at, m->source);
    m->out.record.headers[HEADER_SOURCE] = str_z(m->source);
    buf_adds(&m->key, r->key);
}

static void move(struct worker *w, const struct record *r, struct entry *entry)
{
    struct err e = {0};
    struct job *job = intake_parse(w, r, &e);
    struct move *m;

    if (!job) {
        bury(w, r, e.msg);
        return;
    }
    m = move_new(w, r->value.n + (1 << 20), on_moved);
    m->entry = entry;
    if (envelope_job(&m->out.record, job, &m->mem, &e) != 0) {
        bury(w, r, e.msg);
        free_move(m);
    } else {
        name_source(m, r);
        entry->state = DUE_MOVING;
        dispatch(m, topic_of(w, job));
    }
    job_release(job);
    free(job);
}

static struct str put(struct buf *mem, struct str s)
{
    size_t at = mem->n;

    buf_adds(mem, s);
    return s.p ? str_of(mem->p + at, s.n) : STR_NONE;
}

/* Into the table again, as it is, for another record has taken its place there. */
static void restore(struct worker *w, const struct record *r)
{
    struct move *m = move_new(w, SIZE_MAX, on_stored);
    size_t n = r->key.n + r->value.n;
    int h;

    for (h = 0; h < HEADER_COUNT_; h++)
        n += r->headers[h].n;
    buf_reserve(&m->mem, n); /* so that it does not move */
    m->out.record.key = put(&m->mem, r->key);
    m->out.record.value = put(&m->mem, r->value);
    for (h = 0; h < HEADER_COUNT_; h++)
        m->out.record.headers[h] = put(&m->mem, r->headers[h]);
    dispatch(m, TOPIC_SCHEDULED);
}

/* ---- reading ---- */

/* What was read after a stall may be another worker's by now. What is not there any more was
 * cancelled; or its record has come again, and stands elsewhere. */
static void settle(struct lookup *l, size_t i)
{
    struct entry *entry = l->entries[i];

    if (entry->state == DUE_MOVING)
        return;
    if ((l->read.code || !broker_has_lease(l->w->broker)) && entry->state != DUE_GONE)
        wait_until(l->w, entry, worker_wall_ms(l->w) + RETRY_MS);
    else if (entry->offset != l->offsets[i] && entry->state != DUE_GONE)
        ready(l->w, entry);
    else
        drop(l->w, entry);
}

static void on_found(struct lookup *l, size_t i, const struct record *r)
{
    struct entry *entry = l->entries[i];

    if (!entry)
        restore(l->w, r);
    else if (entry->state != DUE_GONE && broker_has_lease(l->w->broker))
        move(l->w, r, entry);
}

static void on_read(struct broker_read *read, const struct record *records, size_t n)
{
    struct lookup *l = (struct lookup *)(void *)read;
    size_t i, at = 0;

    HOOK_CRASH("due_read");
    l->w->due.n_reads--;
    l->w->due.n_out -= read->n;
    worker_read_failed(l->w, read->code);
    for (i = 0; i < read->n; i++) {
        while (at < n && records[at].at.offset < l->offsets[i])
            at++;
        if (at < n && records[at].at.offset == l->offsets[i] && !l->w->is_stopping)
            on_found(l, i, &records[at]);
        if (l->entries[i])
            settle(l, i);
    }
    free(l);
}

static bool start_read(struct worker *w, struct lookup *l, size_t n, int32_t partition)
{
    l->w = w;
    l->read = (struct broker_read){.offsets = l->offsets,
                                   .n = n,
                                   .topic = TOPIC_SCHEDULED,
                                   .partition = partition,
                                   .on_read = on_read};
    if (broker_read(w->broker, &l->read) != 0)
        return false;
    w->due.n_reads++;
    w->due.n_out += n;
    return true;
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
        entry->state = DUE_READING;
        l->entries[n++] = entry;
    }
    qsort(l->entries, n, sizeof l->entries[0], by_offset);
    for (i = 0; i < n; i++)
        l->offsets[i] = l->entries[i]->offset;
    if (start_read(w, l, n, l->entries[0]->partition))
        return;
    for (i = 0; i < n; i++)
        wait_until(w, l->entries[i], worker_wall_ms(w) + RETRY_MS);
    free(l);
}

/* Not before the table was read to its end, for what is due may have been erased there, nor
 * before the cancellations were. */
void due_flush(struct worker *w)
{
    while (!list_is_empty(&w->due.ready) && w->due.n_out < OUT_MAX && !w->is_stopping &&
           !w->due.is_behind && w->is_control_read && broker_has_lease(w->broker))
        read_group(w);
    outbox_flush(&w->due.outbox, true);
}

static void on_due(struct heap_node *node, void *data)
{
    ready(data, LIST_ENTRY(node, struct entry, in.at));
}

/* ---- taking in ---- */

static void add(struct worker *w, const struct record *r, const struct job *job)
{
    struct entry *entry = xcalloc(1, sizeof *entry);

    entry->name = settled_key(job->tenant, job->id);
    entry->digest = digest_of(job);
    entry->offset = r->at.offset;
    entry->partition = r->at.partition;
    map_put(&w->due.names, &entry->node, name_of(entry));
    wait_until(w, entry, job->not_before);
}

/* The first of a name counts, as in the store; but the table keeps the last one. */
static void refuse(struct worker *w, const struct record *r, const struct entry *first)
{
    struct lookup *l = xcalloc(1, sizeof *l);

    intake_bury(w, r, "id_conflict");
    l->offsets[0] = first->offset;
    if (!broker_is_shared(w->broker) || !start_read(w, l, 1, first->partition))
        free(l);
}

static void again(struct worker *w, const struct record *r, const struct job *job,
                  struct entry *entry)
{
    if (entry->digest != digest_of(job)) {
        refuse(w, r, entry);
        return;
    }
    entry->offset = r->at.offset; /* where it was before it may be compacted */
    entry->partition = r->at.partition;
}

static void take_tombstone(struct worker *w, struct str key)
{
    struct str tenant, id;
    struct entry *entry;

    scheduled_name(key, &tenant, &id);
    entry = find(w, tenant, id);
    if (entry)
        forget(w, entry);
}

static void take_job(struct worker *w, const struct record *r, const struct job *job)
{
    struct entry *entry = find(w, job->tenant, job->id);

    if (settled_has(&w->settled, tasks_hash(&w->tasks, job->tenant, job->id), job->tenant, job->id))
        erase(w, r->key);
    else if (entry)
        again(w, r, job, entry);
    else
        add(w, r, job);
}

static void take(struct worker *w, const struct record *r)
{
    struct err e = {0};
    struct job *job;

    if (r->value.n == 0 && broker_is_shared(w->broker)) {
        take_tombstone(w, r->key);
        return;
    }
    job = intake_parse(w, r, &e);
    if (!job) {
        bury(w, r, e.msg);
        return;
    }
    take_job(w, r, job);
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

void due_cancel(struct worker *w, struct str tenant, struct str id)
{
    struct entry *entry = find(w, tenant, id);
    struct buf key;

    if (!entry)
        return; /* another worker's, or to be read yet */
    forget(w, entry);
    buf_init(&key, SIZE_MAX);
    erase(w, scheduled_key(tenant, id, &key));
    buf_release(&key);
}

/* ---- coming and going ---- */

static void on_given(void *data, int topic, int partition)
{
    (void)topic, (void)partition;
    ((struct worker *)data)->due.is_behind = true;
}

static void on_caught_up(void *data, int topic)
{
    struct worker *w = data;

    (void)topic;
    w->due.is_behind = false;
    if (broker_is_shared(w->broker))
        log_info("scheduled_read", LI("waiting", w->due.names.n));
}

struct leaving {
    struct worker *w;
    int partition;
};

static void forget_with(struct map_node *node, void *data)
{
    struct entry *entry = LIST_ENTRY(node, struct entry, node);
    struct leaving *l = data;

    if (entry->partition == l->partition)
        forget(l->w, entry);
}

/* What is on its way to the log goes on; the next owner's copy is dropped as a repeat. */
static size_t on_revoked(void *data, int topic, int partition)
{
    struct leaving l = {data, partition};

    (void)topic;
    map_each(&l.w->due.names, forget_with, &l);
    return 0;
}

void due_init(struct worker *w)
{
    list_init(&w->due.ready);
    map_init(&w->due.names);
    alarms_init(&w->due.alarms, w->loop, true, on_due, w);
    outbox_init(&w->due.outbox, w->broker, w->inbox, w->loop);
}

int due_start(struct worker *w, struct err *e)
{
    struct subscription s = {.on_records = on_records,
                             .on_given = on_given,
                             .on_caught_up = on_caught_up,
                             .on_failed = worker_read_failed,
                             .on_revoked = on_revoked,
                             .data = w,
                             .window = (size_t)w->config->worker_lookahead};

    return broker_subscribe(w->broker, TOPIC_SCHEDULED, &s, e);
}

static void free_entry(struct map_node *node, void *data)
{
    (void)data;
    free(LIST_ENTRY(node, struct entry, node));
}

void due_release(struct worker *w)
{
    map_each(&w->due.names, free_entry, NULL);
    map_release(&w->due.names);
    alarms_release(&w->due.alarms);
}
