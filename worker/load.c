/* Bodies of waiting jobs. Up to worker.prefetch of them (and LOADED_BYTES) are in memory; the rest
 * is read from the log again, a group of a flow at a time, while the flow still has ready tasks,
 * so that slots do not wait for reads. When there is no room, the newest body of a lower class
 * goes. */
#include "base/log.h"
#include "worker/inside.h"
#include <stdlib.h>

#define LOADED_BYTES ((size_t)256 << 20)

enum {
    GROUP = 64,       /* tasks of one read */
    LOW = 256,        /* tasks of a flow, ready or being read, below which more are read: what fast
                       * engines do while the log's thread waits for its disk */
    GROUP_FULL = 4,   /* the same two when there is no room: a flow that is picked from goes on */
    LOW_FULL = 2,
    SINGLE_READS = 8, /* at one time */
    RETRY_MS = 50,
};

struct load {
    struct broker_read read; /* first */
    struct worker *w;
    bool is_single;
    struct task *tasks[GROUP];
    int64_t offsets[GROUP];
};

static void on_retry(uv_timer_t *timer);

void load_init(struct worker *w)
{
    int c;

    for (c = 0; c < PRIORITY_COUNT_; c++)
        list_init(&w->loader.loaded[c]);
    list_init(&w->loader.single);
    list_init(&w->loader.stalled);
    uv_timer_init(w->loop, &w->loader.retry);
    w->loader.retry.data = w;
}

void load_release(struct worker *w)
{
    while (list_pop(&w->loader.stalled))
        ;
}

static bool is_full(const struct worker *w)
{
    return w->loader.n_loaded + w->loader.n_asked >= (size_t)w->config->worker_prefetch ||
           w->loader.loaded_bytes >= LOADED_BYTES;
}

/* ---- counting ---- */

static void count_in(struct worker *w, struct task *t)
{
    w->loader.n_loaded++;
    w->loader.loaded_bytes += t->body->bytes;
}

void load_leave(struct worker *w, struct task *t)
{
    if (!task_is_ready(t))
        return;
    w->loader.n_loaded--;
    w->loader.loaded_bytes -= t->body->bytes;
    if (list_is_linked(&t->body->loaded))
        list_remove(&t->body->loaded);
}

/* Not in the list of those that may be dropped: at the front of its flow it runs soon. */
void load_return(struct worker *w, struct task *t)
{
    count_in(w, t);
}

static void attach(struct worker *w, struct task *t, struct job *job, size_t bytes)
{
    struct body *b = t->body ? t->body : body_new(t);

    b->job = job;
    b->bytes = bytes;
    count_in(w, t);
}

static void may_drop(struct worker *w, struct task *t)
{
    list_push(&w->loader.loaded[t->flow->key.class], &t->body->loaded);
}

bool load_wants(const struct worker *w, const struct task *t)
{
    const struct flow *f = t->flow;

    /* a flow's first task is kept even so: it may be of a class that everything waits for */
    return !f->cold && f->n_reading == 0 && (!is_full(w) || f->n == 0);
}

void load_give(struct worker *w, struct task *t, struct job *job, size_t bytes)
{
    attach(w, t, job, bytes);
    may_drop(w, t);
}

/* Drops the newest body of a class below `class`; false when there is none to drop. */
static bool make_room(struct worker *w, size_t class)
{
    struct list *head;
    struct task *t;
    size_t c;

    for (c = PRIORITY_COUNT_ - 1; c > class; c--) {
        head = &w->loader.loaded[c];
        if (list_is_empty(head))
            continue;
        t = LIST_ENTRY(head->prev, struct body, loaded)->task;
        if (t->place != TASK_FLOW || t->flow->n_reading > 0 || t->flow->n_ready < 2)
            continue;
        load_leave(w, t);
        task_drop_job(t);
        schedule_chill(w->schedule, t);
        return true;
    }
    return false;
}

/* ---- reading ---- */

static void on_found(struct worker *w, struct task *t, const struct record *r)
{
    struct err e = {0};
    struct job *job = intake_parse(w, r, &e);

    if (!job) { /* it was one when it came: the log is damaged there */
        intake_bury(w, r, e.msg);
        return;
    }
    attach(w, t, job, r->value.n);
}

/* The task's read is over, with its body or without (the record is gone: it ended). */
static void settle(struct worker *w, struct task *t)
{
    if (t->is_gone) {
        t->is_reading = false;
        load_leave(w, t);
        t->is_gone = false;
        waiting_forget(w, t);
    } else if (t->place == TASK_FLOW && task_is_ready(t)) {
        schedule_read_done(w->schedule, t);
        may_drop(w, t);
    } else if (task_is_ready(t)) {
        t->is_reading = false;
        waiting_loaded(w, t);
    } else {
        if (t->place == TASK_FLOW)
            schedule_remove(w->schedule, t);
        t->is_reading = false;
        waiting_forget(w, t);
    }
}

static void retry_soon(struct worker *w)
{
    if (!uv_is_active((uv_handle_t *)&w->loader.retry))
        uv_timer_start(&w->loader.retry, on_retry, RETRY_MS, 0);
}

static void stall(struct worker *w, struct flow *f)
{
    if (!list_is_linked(&f->stalled))
        list_push(&w->loader.stalled, &f->stalled);
    retry_soon(w);
}

/* Nothing could be read: all of it is asked for again. Last to first, as the schedule wants it. */
static void on_read_failed(struct load *l)
{
    struct worker *w = l->w;
    struct task *t;
    size_t i;

    worker_read_failed(w, l->read.code);
    for (i = l->read.n; i > 0; i--) {
        t = l->tasks[i - 1];
        if (t->is_gone) {
            settle(w, t);
        } else if (t->place == TASK_FLOW) {
            schedule_read_done(w->schedule, t);
            stall(w, t->flow);
        } else {
            load_task(w, t);
            retry_soon(w);
        }
    }
    free(l);
}

static void on_read(struct broker_read *read, const struct record *records, size_t n)
{
    struct load *l = (struct load *)(void *)read;
    struct worker *w = l->w;
    struct flow *f;
    size_t i, at = 0;

    w->loader.n_reads--;
    w->loader.n_single_reads -= l->is_single;
    w->loader.n_asked -= read->n;
    if (read->code) {
        on_read_failed(l);
        return;
    }
    for (i = 0; i < read->n; i++) {
        while (at < n && records[at].at.offset < l->offsets[i])
            at++;
        if (at < n && records[at].at.offset == l->offsets[i] && !l->tasks[i]->is_gone)
            on_found(w, l->tasks[i], &records[at]);
        f = l->tasks[i]->flow;
        f->n_refs++; /* stays for the next lines, whatever becomes of the task */
        settle(w, l->tasks[i]);
        load_flow(w, f);
        schedule_release(w->schedule, f);
    }
    w->is_pump_due = true;
    free(l);
}

/* Gives false when the broker does not take it; then nothing happened. */
static bool start_read(struct worker *w, struct load *l, size_t n, bool is_single)
{
    size_t i;

    l->w = w;
    l->is_single = is_single;
    for (i = 0; i < n; i++)
        l->offsets[i] = l->tasks[i]->offset;
    l->read = (struct broker_read){.offsets = l->offsets, .n = n, .topic = l->tasks[0]->topic,
                                   .partition = l->tasks[0]->partition, .on_read = on_read};
    if (broker_read(w->broker, &l->read) != 0)
        return false;
    w->loader.n_reads++;
    w->loader.n_single_reads += is_single;
    w->loader.n_asked += n;
    return true;
}

/* How many tasks of the flow to read now; 0: none. */
static size_t group_size(struct worker *w, const struct flow *f)
{
    size_t n, room;

    if (f->n_ready + f->n_reading >= LOW)
        return 0;
    if (!is_full(w)) {
        room = (size_t)w->config->worker_prefetch - w->loader.n_loaded - w->loader.n_asked;
        return room < GROUP_FULL ? GROUP_FULL : room < GROUP ? room : GROUP;
    }
    for (n = 0; n < GROUP_FULL && make_room(w, f->key.class); n++)
        ;
    return n > 0 || f->n_ready + f->n_reading >= LOW_FULL ? n : GROUP_FULL;
}

void load_flow(struct worker *w, struct flow *f)
{
    struct load *l;
    size_t n;

    while (!w->is_stopping && f->cold && !list_is_linked(&f->stalled) &&
           (n = group_size(w, f)) > 0) {
        l = xmalloc(sizeof *l);
        n = schedule_read(f, l->tasks, n);
        if (!start_read(w, l, n, false)) {
            while (n > 0)
                schedule_read_done(w->schedule, l->tasks[--n]);
            free(l);
            stall(w, f);
        }
    }
}

/* ---- one by one ---- */

void load_task(struct worker *w, struct task *t)
{
    t->place = TASK_READING;
    t->is_reading = true;
    list_push(&w->loader.single, &t->in.node);
}

static int by_offset(const void *a, const void *b)
{
    const struct task *x = *(struct task *const *)a, *y = *(struct task *const *)b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool flush_group(struct worker *w)
{
    struct load *l = xmalloc(sizeof *l);
    struct list *node;
    size_t n = 0, i;

    while (n < GROUP && (node = w->loader.single.next) != &w->loader.single) {
        struct task *t = LIST_ENTRY(node, struct task, in.node);

        if (n > 0 && (t->topic != l->tasks[0]->topic || t->partition != l->tasks[0]->partition))
            break;
        list_remove(node);
        l->tasks[n++] = t;
    }
    qsort(l->tasks, n, sizeof l->tasks[0], by_offset);
    if (start_read(w, l, n, true))
        return true;
    for (i = n; i > 0; i--)
        list_push_front(&w->loader.single, &l->tasks[i - 1]->in.node);
    free(l);
    retry_soon(w);
    return false;
}

void load_flush(struct worker *w)
{
    while (!w->is_stopping && !list_is_empty(&w->loader.single) &&
           w->loader.n_single_reads < SINGLE_READS &&
           !uv_is_active((uv_handle_t *)&w->loader.retry))
        if (!flush_group(w))
            break;
}

static void on_retry(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    struct list again, *node;

    list_init(&again);
    while ((node = list_pop(&w->loader.stalled)) != NULL)
        list_push(&again, node);
    while ((node = list_pop(&again)) != NULL)
        load_flow(w, LIST_ENTRY(node, struct flow, stalled));
}
