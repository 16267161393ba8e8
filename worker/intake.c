/* Job records become tasks. What is no job goes to the dead-letter topic and blocks nobody. */
#include "base/log.h"
#include "base/metric.h"
#include "schema/envelope.h"
#include "schema/foreign.h"
#include "worker/inside.h"
#include <assert.h>
#include <stdlib.h>

enum { POISON_CRASHES = 2, TOKENS_DEFAULT = 256, BYTES_PER_TOKEN = 4 };

/* ---- dead letters ---- */

struct letter {
    struct outgoing out; /* first */
    struct buf mem;
};

static void on_letter_sent(struct outgoing *o, int code)
{
    struct letter *l = (struct letter *)(void *)o;

    if (code < 0 && code != ERR_CLOSED)
        log_error("letter_refused", LS("id", o->record.key), LI("code", code));
    buf_release(&l->mem);
    free(l);
}

static struct letter *letter_new(void)
{
    struct letter *l = xcalloc(1, sizeof *l);

    buf_init(&l->mem, SIZE_MAX); /* what it holds is in memory: so is its copy, whole */
    return l;
}

static void letter_send(struct worker *w, struct letter *l, struct position source)
{
    l->out.record.at.topic = TOPIC_DEAD;
    l->out.record.source = source;
    l->out.record.ts_ms = worker_wall_ms(w);
    l->out.on_sent = on_letter_sent;
    outbox_add(&w->outbox, &l->out);
}

void intake_bury(struct worker *w, const struct record *r, const char *whyz)
{
    struct letter *l = letter_new();
    char source[POSITION_TEXT_MAX];
    int rc;

    position_format(w->topics, r->at, source);
    log_warn("record_dead", LZ("at", source), LZ("why", whyz));
    metric_add(METRIC_RECORDS_DEAD, 1);
    rc = envelope_dead(&l->out.record, r, whyz, source, &l->mem);
    assert(rc == 0);
    (void)rc;
    letter_send(w, l, r->at);
}

void intake_keep(struct worker *w, const struct job *j, const char *codez, struct str message,
                 const char *sourcez)
{
    struct letter *l = letter_new();
    int rc = envelope_failed(&l->out.record, j, codez, message, sourcez, &l->mem);

    assert(rc == 0);
    (void)rc;
    letter_send(w, l, POSITION_NONE);
}

/* ---- jobs ---- */

static int complete(const struct worker *w, const struct record *r, struct job *job, struct err *e)
{
    if (foreign_complete(job, r, topics_name(w->topics, r->at.topic),
                         topics_queue(w->topics, r->at.topic), topics_priority(r->at.topic),
                         e) == 0)
        return 0;
    job_release(job);
    return e->code;
}

struct job *intake_parse(const struct worker *w, const struct record *r, struct err *e)
{
    struct job *job = xmalloc(sizeof *job);

    if (job_parse(job, r->value, true, NULL, e) == 0) {
        job_take_digest(job, r->headers[HEADER_DIGEST]);
        if (complete(w, r, job, e) == 0)
            return job;
    }
    free(job);
    return NULL;
}

/* A job that has just come: all of it, or, where its body is not likely to be kept, what its
 * record holds. */
struct arrival {
    const struct record *r;
    struct job *job; /* NULL: given away */
    struct job look;
};

static bool look_at(const struct worker *w, struct arrival *a, struct err *e)
{
    if (!w->loader.is_past) {
        a->job = intake_parse(w, a->r, e);
        return a->job != NULL;
    }
    a->job = &a->look;
    return job_look(&a->look, a->r->value, e) == 0 && complete(w, a->r, &a->look, e) == 0;
}

static void forget(struct arrival *a)
{
    if (!a->job)
        return;
    job_release(a->job);
    if (a->job != &a->look)
        free(a->job);
}

/* Gives the job, whole. */
static struct job *give(const struct worker *w, struct arrival *a)
{
    struct job *job = a->job;
    struct err e = {0};

    if (job == &a->look) {
        job = intake_parse(w, a->r, &e);
        assert(job); /* it was looked at in the same way */
        forget(a);
    }
    a->job = NULL;
    return job;
}

/* Estimated tokens, for fairness between tenants. */
static uint32_t cost_of(const struct job *job, size_t bytes)
{
    struct str told = job->sampling[SAMPLING_MAX_TOKENS];
    int64_t answer = TOKENS_DEFAULT, cost;

    if (told.n == 0)
        told = job->sampling[SAMPLING_MAX_COMPLETION_TOKENS];
    if (job->kind == JOB_EMBEDDING)
        answer = 0;
    else if (told.n > 0 && !str_int(told, &answer))
        answer = TOKENS_DEFAULT;
    cost = (int64_t)(bytes / BYTES_PER_TOKEN) + answer + 1;
    return cost > INT32_MAX ? INT32_MAX : (uint32_t)cost;
}

static struct str engine_name(const struct worker *w, struct str model)
{
    const struct config_model *m = config_model(w->config, model);

    return m && m->target && m->target[0] ? str_z(m->target) : model;
}

/* A job that ends before it ever waits. Takes job. */
static void end_at_once(struct worker *w, struct task *t, struct job *job, enum job_state state,
                        enum reason reason, const char *messagez)
{
    body_new(t)->job = job;
    finish_failed(w, t, state, reason, messagez);
}

static bool is_poison(struct worker *w, const struct task *t)
{
    struct journal_key key = worker_journal_key(w, t);

    return journal_crashes(w->journal, &key) >= POISON_CRASHES;
}

static void take(struct worker *w, struct arrival *a)
{
    const struct record *r = a->r;
    const struct job *job = a->job;
    struct task *t = tasks_new(&w->tasks, tasks_hash(&w->tasks, job->tenant, job->id));
    int64_t deadline = job->deadline, not_before = job->not_before;

    log_debug("deliver", LS("id", job->id), LI("offset", r->at.offset));
    t->topic = r->at.topic;
    t->partition = r->at.partition;
    t->offset = r->at.offset;
    t->is_routed = r->headers[HEADER_SOURCE].p && r->source.topic != TOPIC_SCHEDULED;
    t->cost = cost_of(job, r->value.n);
    schedule_assign(w->schedule, t, topics_priority(r->at.topic), job->tenant,
                    engine_name(w, job->model));
    if (is_poison(w, t)) {
        end_at_once(w, t, give(w, a), STATE_FAILED, REASON_POISON,
                    "the job was in flight at two crashes of its worker");
        return;
    }
    if (deadline && deadline <= worker_wall_ms(w)) {
        end_at_once(w, t, give(w, a), STATE_EXPIRED, REASON_DEADLINE_EXCEEDED,
                    "the job's deadline passed before it ended");
        return;
    }
    w->loader.is_past = !load_wants(w, t);
    if (!w->loader.is_past)
        load_give(w, t, give(w, a), r->value.n);
    if (deadline)
        waiting_set_deadline(w, t, deadline);
    waiting_add(w, t, not_before);
}

/* Whether it is another job than the one of its id that is here, as far as that is known: one that
 * waits may be on disk. */
static bool is_other(const struct task *first, const struct job *job, uint32_t mark)
{
    uint8_t one[SHA256_LEN], two[SHA256_LEN];

    if (!task_is_ready(first))
        return first->body && first->body->mark && first->body->mark != mark;
    job_digest(first->body->job, one);
    job_digest(job, two);
    return memcmp(one, two, sizeof one) != 0;
}

static bool is_at(const struct task *t, struct position at)
{
    return t->topic == at.topic && t->partition == at.partition && t->offset == at.offset;
}

/* The record came before: its partition went away while the job ran, and has come back. */
static bool hold(const struct worker *w, uint64_t hash, struct position at)
{
    struct task *t = tasks_find(&w->tasks, hash, NULL);

    while (t && !is_at(t, at))
        t = tasks_find(&w->tasks, hash, t);
    if (t)
        t->is_left = false;
    return t != NULL;
}

/* Who has the id. Not what is on its way to another queue: the record may be its copy, in a queue
 * that is this worker's too. */
static const struct task *first_of(const struct worker *w, uint64_t hash, struct position at)
{
    const struct task *t = tasks_find(&w->tasks, hash, NULL);

    while (t && t->is_routing && !is_at(t, at))
        t = tasks_find(&w->tasks, hash, t);
    return t;
}

/* Its id waits or runs here already, or its completion is in the log: it does not run again. */
static bool is_repeat(struct worker *w, const struct record *r, struct job *job)
{
    uint64_t hash = tasks_hash(&w->tasks, job->tenant, job->id);
    const struct task *first = first_of(w, hash, r->at);
    enum settled_as settled;
    uint32_t mark;

    if (!broker_is_shared(w->broker) ||
        (!first && !settled_has(&w->settled, hash, job->tenant, job->id)))
        return false;
    job_take_digest(job, r->headers[HEADER_DIGEST]);
    mark = settled_mark_of(job);
    settled = settled_look(&w->settled, hash, job->tenant, job->id, mark);
    log_info("repeat_dropped", LS("id", job->id), LI("partition", r->at.partition),
             LI("offset", r->at.offset));
    if (first ? is_other(first, job, mark) : settled == SETTLED_OTHER)
        intake_bury(w, r, "id_conflict");
    else if (!hold(w, hash, r->at)) /* what is held is finished by its completion */
        broker_finish(w->broker, r->at);
    return true;
}

static void on_records(void *data, const struct record *records, size_t n)
{
    struct worker *w = data;
    struct arrival a;
    struct err e = {0};
    size_t i;

    for (i = 0; i < n && !w->is_stopping; i++) {
        a.r = &records[i];
        if (!look_at(w, &a, &e)) {
            intake_bury(w, a.r, e.msg);
            continue;
        }
        if (!is_repeat(w, a.r, a.job))
            take(w, &a);
        forget(&a);
    }
}

static void behind_less(struct worker *w)
{
    if (--w->n_behind == 0 && !w->is_stopping)
        journal_forget_unseen(w->journal);
}

static void on_caught_up(void *data, int topic)
{
    (void)topic;
    behind_less(data);
}

struct leaving {
    struct worker *w;
    int topic, partition;
    size_t n_busy;
};

static void leave(struct task *t, void *data)
{
    struct leaving *l = data;

    if (t->topic != l->topic || t->partition != l->partition || t->is_gone)
        return;
    if (t->place == TASK_RUNNING || t->place == TASK_ENDING) {
        t->is_left = true;
        l->n_busy++;
        return;
    }
    if (!l->w->has_store && t->body && t->body->job)
        live_end(l->w->live, t->body->job->tenant, t->body->job->id);
    waiting_detach(l->w, t);
    waiting_forget(l->w, t);
}

/* The partition goes to another worker. */
static size_t on_revoked(void *data, int topic, int partition)
{
    struct leaving l = {data, topic, partition, 0};

    tasks_each(&l.w->tasks, leave, &l);
    return l.n_busy;
}

static void on_ended(void *data, struct str tenant, struct str id, struct str digest)
{
    struct worker *w = data;

    settled_add(&w->settled, tasks_hash(&w->tasks, tenant, id), tenant, id, settled_mark(digest));
}

/* ---- which queues ---- */

static bool is_of_models(const struct config *c, struct str queue)
{
    bool is_named = str_eqz(queue, "default");
    size_t i;

    for (i = 0; i < c->n_models && !is_named; i++)
        is_named = str_eqz(queue, c->models[i].queue);
    return is_named;
}

static bool has_model_of(const struct worker *w, struct str queue)
{
    const struct node *n;
    size_t i, k;

    for (i = 0; i < w->pool->n; i++) {
        n = &w->pool->node[i];
        for (k = 0; k < n->has.n_models; k++)
            if (str_eq(config_queue(w->config, str_z(n->models[k]->name)), queue))
                return true;
        if (n->has.has_any)
            return true;
    }
    return false;
}

/* worker.queues: those that are named; auto: those of its nodes' models, for another worker may
 * have the others. What no model's jobs go to by themselves is everybody's. */
static bool is_wanted(const struct worker *w, int topic)
{
    struct str queue = topics_queue(w->topics, topic);
    char *const *named = w->config->worker_queues;

    for (; *named; named++)
        if (str_eqz(queue, *named))
            return true;
    if (w->config->worker_queues[0])
        return false;
    return !broker_is_shared(w->broker) || !w->config->queues[1] ||
           !is_of_models(w->config, queue) || has_model_of(w, queue);
}

static int subscribe(struct worker *w, int topic, struct err *e)
{
    struct subscription s = {.on_records = on_records,
                             .on_caught_up = on_caught_up,
                             .on_failed = worker_read_failed,
                             .on_revoked = on_revoked,
                             .on_ended = on_ended,
                             .data = w,
                             .window = (size_t)w->config->worker_lookahead};
    int rc;

    w->n_behind++;
    rc = broker_subscribe(w->broker, topic, &s, e);
    w->is_taken[topic] = rc == 0;
    w->n_behind -= rc != 0;
    return rc;
}

static bool knows_queues(const struct worker *w)
{
    return w->config->worker_queues[0] || !broker_is_shared(w->broker) ||
           pool_knows_models(w->pool);
}

/* A queue once taken is kept: its jobs wait while the engine is away. */
int intake_widen(struct worker *w, struct err *e)
{
    int topic, rc = 0, n = (int)topics_count(w->topics);

    for (topic = TOPIC_JOBS; topic < n && rc == 0; topic++)
        if (!w->is_taken[topic] && is_wanted(w, topic))
            rc = subscribe(w, topic, e);
    if (rc == 0 && w->is_widening && knows_queues(w)) {
        w->is_widening = false;
        behind_less(w);
    }
    return rc;
}

int intake_start(struct worker *w, struct err *e)
{
    w->is_taken = xcalloc(topics_count(w->topics), sizeof *w->is_taken);
    w->is_widening = true;
    w->n_behind = 1; /* until all queues are known */
    return intake_widen(w, e);
}
