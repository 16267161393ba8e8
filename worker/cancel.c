/* Cancel orders. The job's completion was published by who cancelled it, which finished its
 * record: here it is only forgotten, or its call broken off. What its calls used goes into the
 * ledger with a completion of our own, which comes too late and is counted as wasted. */
#include "base/json.h"
#include "base/log.h"
#include "base/test_hook.h"
#include "schema/envelope.h"
#include "worker/inside.h"
#include <assert.h>
#include <stdlib.h>

enum { ORDER_BYTES = 4096 };

static bool is_job(const struct task *t, struct str tenant, struct str id)
{
    const struct job *job = task_is_ready(t) ? t->body->job : NULL;

    return !job || (str_eq(job->tenant, tenant) && str_eq(job->id, id));
}

/* The record is gone, so a job that was dropped in a backoff cannot be read again: its name is all
 * that the ledger needs. */
static struct job *name_only(const struct task *t, struct str tenant, struct str id)
{
    struct job *job = xmalloc(sizeof *job);
    struct err e = {0};
    struct buf text;
    int rc;

    buf_init(&text, ORDER_BYTES);
    buf_addc(&text, '{');
    json_put_member_str(&text, "tenant", tenant);
    buf_addc(&text, ',');
    json_put_member_str(&text, "id", id);
    buf_addc(&text, ',');
    json_put_member_str(&text, "model", str_z(t->flow->key.model->name));
    buf_addz(&text, ",\"prompt\":\"\"}");
    rc = job_parse(job, buf_str(&text), true, NULL, &e);
    buf_release(&text);
    assert(rc == 0);
    (void)rc;
    job->is_partial = true;
    return job;
}

/* A task whose read is under way must stay for it: what its calls left goes over to another. */
static struct task *take_over(struct worker *w, struct task *t, struct str tenant)
{
    struct task *n = tasks_new(&w->tasks, t->id_hash);

    n->topic = t->topic;
    n->partition = t->partition;
    n->offset = t->offset;
    schedule_assign(w->schedule, n, (enum priority)t->flow->key.class, tenant,
                    str_z(t->flow->key.model->name));
    n->body = t->body;
    n->body->task = n;
    t->body = NULL;
    waiting_forget(w, t);
    return n;
}

static void publish_wasted(struct worker *w, struct task *t)
{
    finish_failed(w, t, STATE_CANCELLED, REASON_CANCELLED, "the job was cancelled");
}

static void drop(struct worker *w, struct task *t, struct str tenant, struct str id)
{
    if (t->place == TASK_ENDING || t->is_gone)
        return;
    if (t->place == TASK_RUNNING) {
        if (HOOK_SKIP("cancel_abort"))
            return;
        run_abort(w, t, CALL_CANCELLED);
        publish_wasted(w, t);
        return;
    }
    waiting_detach(w, t);
    if (broker_is_shared(w->broker)) /* who cancelled it could only finish what it held itself */
        broker_finish(w->broker, task_at(t));
    if (!t->body || t->body->n_calls == 0) {
        waiting_forget(w, t);
        return;
    }
    if (t->is_reading)
        t = take_over(w, t, tenant);
    if (!t->body->job)
        t->body->job = name_only(t, tenant, id);
    publish_wasted(w, t);
}

static void cancel(struct worker *w, struct str tenant, struct str id)
{
    uint64_t hash = tasks_hash(&w->tasks, tenant, id);
    struct task *t = tasks_find(&w->tasks, hash, NULL), *next;

    if (broker_is_shared(w->broker))
        settled_add(&w->settled, hash, tenant, id, 0); /* its record may come yet */
    due_cancel(w, tenant, id);
    for (; t; t = next) {
        next = tasks_find(&w->tasks, hash, t);
        if (is_job(t, tenant, id))
            drop(w, t, tenant, id);
    }
    live_end(w->live, tenant, id); /* an attempt may have begun after its end was told */
}

static void on_records(void *data, const struct record *records, size_t n)
{
    struct worker *w = data;
    struct str tenant, id;
    struct buf mem;
    struct err e = {0};
    size_t i;

    buf_init(&mem, ORDER_BYTES);
    for (i = 0; i < n && !w->is_stopping; i++) {
        buf_clear(&mem);
        if (cancel_read(records[i].value, &tenant, &id, &mem, &e) != 0) {
            intake_bury(w, &records[i], e.msg);
            continue;
        }
        HOOK_CRASH("cancel_seen");
        cancel(w, tenant, id);
        broker_finish(w->broker, records[i].at);
    }
    buf_release(&mem);
}

static void on_caught_up(void *data, int topic)
{
    struct worker *w = data;

    (void)topic;
    w->is_control_read = true;
    w->is_pump_due = true;
}

int cancel_start(struct worker *w, struct err *e)
{
    struct subscription s = {.on_records = on_records,
                             .on_caught_up = on_caught_up,
                             .on_failed = worker_read_failed,
                             .data = w,
                             .window = (size_t)w->config->worker_lookahead};

    return broker_subscribe(w->broker, TOPIC_CONTROL, &s, e);
}
