/* Jobs whose model no node of this worker has, while the config names another queue for it: the job
 * is published to that queue, once, with its record here as source.
 *
 * The copy is durable before the record is finished. A worker killed between the two leaves both:
 * whoever has the record next publishes it again, to the same partition (the key is the same), and
 * that copy is dropped like a job that a client sent twice (intake.c): by the worker that has the
 * first one, or knows of its end. The completion names the copy as its source, so it is the copy's
 * worker alone that ends the job. A copy says where it comes from (genq_source), and is not sent on
 * again: at worst the job fails one queue farther on.
 *
 * A log of our own has one worker: what it does not have, nobody has. */
#include "base/log.h"
#include "base/metric.h"
#include "base/test_hook.h"
#include "schema/envelope.h"
#include "worker/inside.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM_BYTES = 1 << 20 }; /* besides the record: what the envelope and completing add */

struct hop {
    struct outgoing out; /* first */
    struct worker *w;
    struct task *task;
    struct buf mem;
};

/* The topic that the job should be in; -1: none, or this one. */
static int other_topic(const struct worker *w, const struct task *t)
{
    struct str queue = config_queue(w->config, t->body->job->model);
    int topic = topics_jobs(w->topics, queue, topics_priority(t->topic));

    return topic == t->topic ? -1 : topic;
}

static void free_hop(struct hop *h)
{
    h->w->n_ending--;
    buf_release(&h->mem);
    free(h);
}

/* The log does not take it there (too large, say): it ends here. */
static void come_back(struct worker *w, struct task *t, int code)
{
    char message[200];

    snprintf(message, sizeof message,
             "no engine node has the model, and its queue did not take the job (code %d)", code);
    t->is_routing = false;
    t->place = TASK_NOWHERE;
    finish_failed(w, t, STATE_FAILED, REASON_MODEL_NOT_FOUND, message);
}

static void on_sent(struct outgoing *o, int code)
{
    struct hop *h = (struct hop *)(void *)o;
    struct worker *w = h->w;
    struct journal_key key = worker_journal_key(w, h->task);
    bool is_there = code == 0 || code == ERR_EXISTS || code == ERR_CONFLICT; /* as stores see it */

    HOOK_CRASH("routed");
    w->is_pump_due = true;
    if (is_there) {
        metric_add(METRIC_JOBS_ROUTED, 1);
        if (!w->has_store) /* an attempt may have begun here */
            live_end(w->live, h->task->body->job->tenant, h->task->body->job->id);
        journal_forget(w->journal, &key);
    }
    if (is_there || code == ERR_CLOSED) /* given up at a stop: the job stays in the log */
        waiting_forget(w, h->task);
    else
        come_back(w, h->task, code);
    free_hop(h);
}

static void make_record(struct hop *h, int topic)
{
    struct job *job = h->task->body->job;
    int rc;

    buf_init(&h->mem, job_room(job) + ROOM_BYTES);
    job_keep_digest(job); /* the queue is part of it */
    job->queue = topics_queue(h->w->topics, topic);
    rc = envelope_job(&h->out.record, job, &h->mem, NULL);
    assert(rc == 0);
    (void)rc;
    h->out.record.at.topic = topic;
    h->out.record.ts_ms = worker_wall_ms(h->w);
    h->out.record.source = task_at(h->task);
}

bool route_is_open(const struct worker *w, const struct task *t)
{
    return broker_is_shared(w->broker) && !t->is_routed && other_topic(w, t) >= 0;
}

void route_away(struct worker *w, struct task *t)
{
    struct hop *h = xcalloc(1, sizeof *h);
    int topic = other_topic(w, t);

    h->w = w;
    h->task = t;
    h->out.on_sent = on_sent;
    w->n_ending++;
    make_record(h, topic);
    log_debug("job_routed", LS("id", t->body->job->id), LS("model", t->body->job->model),
              LZ("from", topics_name(w->topics, t->topic)),
              LZ("to", topics_name(w->topics, topic)));
    t->place = TASK_ENDING;
    t->is_routing = true;
    outbox_add(&w->outbox, &h->out);
}
