/* Jobs that wait: in the schedule, or for a time (not_before, a retry's backoff), and their
 * deadlines, which hold also when no slot ever gets free. */
#include "worker/inside.h"
#include <stdlib.h>

enum { KEEP_BODY_MS = 5000 }; /* a job that waits for a longer time is read again afterwards */

static void set_place(struct task *t, enum task_place place)
{
    t->place = (uint8_t)place;
}

static void expire(struct worker *w, struct task *t)
{
    finish_failed(w, t, STATE_EXPIRED, REASON_DEADLINE_EXCEEDED,
                  "the job's deadline passed before it ended");
}

static bool is_expired(struct worker *w, const struct task *t)
{
    return t->body->job->deadline && t->body->job->deadline <= worker_wall_ms(w);
}

static void drop_body(struct worker *w, struct task *t)
{
    if (!task_is_ready(t))
        return;
    load_leave(w, t);
    task_drop_job(t);
}

/* At the end of its flow, as a new arrival. */
static void queue(struct worker *w, struct task *t)
{
    struct flow *f = t->flow;

    if (f->cold || f->n_reading > 0)
        drop_body(w, t);
    schedule_add(w->schedule, t);
    load_flow(w, f);
    w->is_pump_due = true;
}

static void wait_until(struct worker *w, struct task *t, bool is_wall, int64_t at_ms)
{
    set_place(t, TASK_TIMED);
    t->is_wall_timed = is_wall;
    t->in.wake.at = 0;
    alarms_set(is_wall ? &w->not_before : &w->retries, &t->in.wake, at_ms);
}

void waiting_add(struct worker *w, struct task *t, int64_t not_before)
{
    if (not_before <= worker_wall_ms(w)) {
        queue(w, t);
        return;
    }
    if (not_before - worker_wall_ms(w) > KEEP_BODY_MS)
        drop_body(w, t);
    wait_until(w, t, true, not_before);
}

static void put_back(struct worker *w, struct task *t)
{
    schedule_put_back(w->schedule, t);
    w->is_pump_due = true;
}

/* Whose partition went to another worker meanwhile is that one's to try again. */
static bool leave(struct worker *w, struct task *t)
{
    if (!t->is_left)
        return false;
    if (!w->has_store)
        live_end(w->live, t->body->job->tenant, t->body->job->id);
    waiting_forget(w, t);
    return true;
}

void waiting_again(struct worker *w, struct task *t)
{
    if (leave(w, t))
        return;
    schedule_refund(w->schedule, t);
    load_return(w, t);
    put_back(w, t);
}

void waiting_later(struct worker *w, struct task *t, int64_t wait_ms)
{
    if (leave(w, t))
        return;
    load_return(w, t);
    if (wait_ms > KEEP_BODY_MS || w->loader.n_loaded > (size_t)w->config->worker_prefetch)
        drop_body(w, t);
    wait_until(w, t, false, worker_mono_ms(w) + wait_ms);
}

void waiting_loaded(struct worker *w, struct task *t)
{
    set_place(t, TASK_NOWHERE);
    if (is_expired(w, t)) {
        load_leave(w, t);
        expire(w, t);
    } else {
        put_back(w, t);
    }
}

static void on_not_before(struct heap_node *node, void *data)
{
    struct task *t = LIST_ENTRY(node, struct task, in.wake);

    set_place(t, TASK_NOWHERE);
    queue(data, t);
}

static void on_retry_due(struct heap_node *node, void *data)
{
    struct task *t = LIST_ENTRY(node, struct task, in.wake);

    set_place(t, TASK_NOWHERE);
    if (task_is_ready(t))
        put_back(data, t);
    else
        load_task(data, t);
}

void waiting_detach(struct worker *w, struct task *t)
{
    load_leave(w, t);
    if (t->place == TASK_FLOW) {
        schedule_remove(w->schedule, t);
    } else if (t->place == TASK_TIMED) {
        alarms_clear(t->is_wall_timed ? &w->not_before : &w->retries, &t->in.wake);
    } else if (t->place == TASK_READING && list_is_linked(&t->in.node)) {
        list_remove(&t->in.node); /* the read was not asked for yet */
        t->is_reading = false;
    }
    set_place(t, TASK_NOWHERE);
}

void waiting_forget(struct worker *w, struct task *t)
{
    if (t->deadline && heap_has(&t->deadline->at))
        alarms_clear(&w->deadlines, &t->deadline->at);
    if (t->is_reading) {
        t->is_gone = true;
        return;
    }
    schedule_unassign(w->schedule, t);
    tasks_free(&w->tasks, t);
}

/* A waiting task's time is over. */
static void expire_waiting(struct worker *w, struct task *t)
{
    if (t->place == TASK_READING)
        return; /* waiting_loaded looks */
    waiting_detach(w, t);
    if (t->is_reading) {
        set_place(t, TASK_READING); /* its flow's read goes on, for waiting_loaded */
        t->in.node.next = NULL;
    } else if (task_is_ready(t)) {
        expire(w, t);
    } else {
        load_task(w, t);
    }
}

static void on_deadline(struct heap_node *node, void *data)
{
    struct task *t = LIST_ENTRY(node, struct deadline, at)->task;

    if (t->is_gone || t->place == TASK_ENDING)
        return;
    if (t->place == TASK_RUNNING) {
        run_abort(data, t, CALL_CANCELLED);
        expire(data, t);
    } else {
        expire_waiting(data, t);
    }
}

void waiting_set_deadline(struct worker *w, struct task *t, int64_t deadline)
{
    t->deadline = xcalloc(1, sizeof *t->deadline);
    t->deadline->task = t;
    alarms_set(&w->deadlines, &t->deadline->at, deadline);
}

void waiting_init(struct worker *w)
{
    alarms_init(&w->retries, w->loop, false, on_retry_due, w);
    alarms_init(&w->not_before, w->loop, true, on_not_before, w);
    alarms_init(&w->deadlines, w->loop, true, on_deadline, w);
}
