/* Cancel orders. The job's completion was published by who cancelled it, which finished its
 * record: here it is only forgotten, or its call broken off. What its calls used goes into the
 * ledger with a completion of our own, which comes too late and is counted as wasted. */
#include "base/log.h"
#include "schema/envelope.h"
#include "worker/inside.h"
#include "worker/test_hook.h"

enum { ORDER_BYTES = 4096 };

static bool is_job(const struct task *t, struct str tenant, struct str id)
{
    const struct job *job = task_is_ready(t) ? t->body->job : NULL;

    return !job || (str_eq(job->tenant, tenant) && str_eq(job->id, id));
}

static void publish_wasted(struct worker *w, struct task *t)
{
    finish_failed(w, t, STATE_CANCELLED, REASON_CANCELLED, "the job was cancelled");
}

static void drop(struct worker *w, struct task *t)
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
    if (!t->is_reading && task_is_ready(t) && t->body->n_calls > 0)
        publish_wasted(w, t);
    else
        waiting_forget(w, t);
}

static void cancel(struct worker *w, struct str tenant, struct str id)
{
    uint64_t hash = tasks_hash(&w->tasks, tenant, id);
    struct task *t = tasks_find(&w->tasks, hash, NULL), *next;

    for (; t; t = next) {
        next = tasks_find(&w->tasks, hash, t);
        if (is_job(t, tenant, id))
            drop(w, t);
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
    struct subscription s = {on_records, on_caught_up, worker_read_failed, w,
                             (size_t)w->config->worker_lookahead};

    return broker_subscribe(w->broker, TOPIC_CONTROL, &s, e);
}
