#include "producer/submit.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metric.h"
#include "broker-config/config.h"
#include "schema/envelope.h"
#include <assert.h>
#include <stdlib.h>

enum { ENVELOPE_BYTES = 16384 }; /* key, headers, and what a completion adds to its job */

struct submission *submission_new(size_t room, void (*on_done)(struct submission *s, int code),
                                  void *data)
{
    struct submission *s = xcalloc(1, sizeof *s);

    s->jobs = xcalloc(room, sizeof *s->jobs);
    s->records = xcalloc(room, sizeof *s->records);
    s->mems = xcalloc(room, sizeof *s->mems);
    s->room = room;
    s->on_done = on_done;
    s->data = data;
    return s;
}

void submission_free(struct submission *s)
{
    size_t i;

    if (!s)
        return;
    for (i = 0; i < s->n; i++) {
        job_release(&s->jobs[i]);
        buf_release(&s->mems[i]);
    }
    free(s->jobs);
    free(s->records);
    free(s->mems);
    free(s->sent);
    free(s->sent_of);
    free(s->claims);
    free(s->claim_of);
    free(s);
}

static struct record *next_record(struct submission *s, const struct job *j, int topic)
{
    struct record *r = &s->records[s->n];

    *r = (struct record){.at = {topic, 0, 0}, .ts_ms = j->created_at, .source = POSITION_NONE};
    buf_init(&s->mems[s->n], job_room(j) + ENVELOPE_BYTES);
    return r;
}

static void keep(struct submission *s, struct job *j)
{
    s->jobs[s->n++] = *j;
}

int submission_add(struct submission *s, const struct gateway *g, struct job *j, struct err *e)
{
    int topic = topics_jobs(g->topics, j->queue, j->priority);
    int rc;

    if (s->n == s->room)
        return err_set(e, ERR_TOO_LARGE, "more than %zu jobs in one publish", s->room);
    if (topic < 0)
        return err_set(e, ERR_INVALID, "'queue': the config has no queue '%.*s'",
                       STR_ARG(j->queue));
    if (j->not_before > j->created_at)
        topic = TOPIC_SCHEDULED;
    /* Before the envelope, which looks at it: a scheduled job is keyed by its id. */
    job_step(j, topic == TOPIC_SCHEDULED ? EVENT_SUBMIT_LATER : EVENT_SUBMIT);
    rc = envelope_job(next_record(s, j, topic), j, &s->mems[s->n], e);
    if (rc < 0) {
        buf_release(&s->mems[s->n]);
        return rc;
    }
    keep(s, j);
    log_debug("submit", LS("id", s->jobs[s->n - 1].id), LZ("topic", topics_name(g->topics, topic)));
    return 0;
}

int submission_add_refused(struct submission *s, const struct gateway *g, struct job *j, int reason,
                           const char *messagez, struct err *e)
{
    struct completion c = {
        .state = STATE_FAILED,
        .finished_at = j->created_at,
        .reason = (enum reason)reason,
        .error_message = str_z(messagez),
        .queue_ms = -1,
        .engine_ms = -1,
        .first_token_ms = -1,
        .total_ms = 0,
    };
    int rc;

    (void)g;
    if (s->n == s->room)
        return err_set(e, ERR_TOO_LARGE, "more than %zu jobs in one publish", s->room);
    job_step(j, EVENT_SUBMIT);
    job_step(j, EVENT_FAIL);
    rc = envelope_completion(next_record(s, j, TOPIC_COMPLETIONS), j, &c, NULL, &s->mems[s->n], e);
    if (rc < 0) {
        buf_release(&s->mems[s->n]);
        return rc;
    }
    keep(s, j);
    return 0;
}

static void count(const struct record *r)
{
    if (r->code == 0 && r->at.topic == TOPIC_COMPLETIONS)
        metric_add(METRIC_JOBS_REFUSED, 1);
    else if (r->code == 0)
        metric_add(METRIC_JOBS_SUBMITTED, 1);
    else if (r->code == ERR_EXISTS)
        metric_add(METRIC_JOBS_REPEATED, 1);
    else if (r->code == ERR_CONFLICT)
        metric_add(METRIC_JOBS_CONFLICTED, 1);
}

static void on_ack(struct publish *p, int code)
{
    struct submission *s = LIST_ENTRY(p, struct submission, publish);
    size_t i;

    for (i = 0; s->sent && i < p->n; i++)
        s->records[s->sent_of[i]] = s->sent[i];
    if (code == 0) {
        for (i = 0; i < s->n; i++) {
            count(&s->records[i]);
            log_debug("acked", LS("id", s->jobs[i].id), LI("code", s->records[i].code));
        }
    }
    s->on_done(s, code);
}

/* What the store turns away in SQLite's log would stay in one that is shared, and run: so there
 * limits.queued_jobs is judged before, by the jobs that this process knows of. */
static bool is_over_limit(const struct publish *p, const struct gateway *g)
{
    int64_t n_new = 0;
    size_t i;

    for (i = 0; i < p->n; i++)
        n_new += p->records[i].at.topic != TOPIC_COMPLETIONS;
    return n_new > 0 && store_unfinished(g->store) + n_new > g->config->limits_queued_jobs;
}

/* Gives the records that the store knows their verdicts, and leaves the others to be sent. */
static void leave_out_known(struct submission *s, struct reader *r)
{
    struct publish *p = &s->publish;
    size_t i;

    free(s->sent); /* of a try before */
    free(s->sent_of);
    s->sent = xcalloc(s->n, sizeof *s->sent);
    s->sent_of = xcalloc(s->n, sizeof *s->sent_of);
    p->records = s->sent;
    p->n = 0;
    for (i = 0; i < s->n; i++) {
        s->records[i].code = 0;
        if (s->records[i].at.topic != TOPIC_COMPLETIONS)
            s->records[i].code = reader_repeat(r, &s->jobs[i], NULL);
        if (s->records[i].code == ERR_EXISTS || s->records[i].code == ERR_CONFLICT)
            continue;
        s->sent[p->n] = s->records[i];
        s->sent_of[p->n++] = i;
    }
}

/* ---- claims ---- */

static void drop_conflicts(struct submission *s)
{
    struct publish *p = &s->publish;
    size_t i, c = 0, n = 0;

    for (i = 0; i < p->n; i++) {
        bool is_claimed = c < s->order.n && s->claim_of[c] == i;

        if (is_claimed && s->claims[c++].is_conflict) {
            s->records[s->sent_of[i]].code = ERR_CONFLICT;
            continue;
        }
        s->sent[n] = s->sent[i];
        s->sent_of[n++] = s->sent_of[i];
    }
    p->n = n;
}

static void on_claimed(struct claim_order *o)
{
    struct submission *s = LIST_ENTRY(o, struct submission, order);
    int rc = 0;

    if (o->is_unclaimed && s->gateway->config->limits_without_redis == WITHOUT_REDIS_DENY) {
        s->on_done(s, ERR_BUSY);
        return;
    }
    drop_conflicts(s);
    if (s->publish.n == 0)
        on_ack(&s->publish, 0);
    else if ((rc = broker_publish(s->gateway->broker, &s->publish)) < 0)
        s->on_done(s, rc);
}

/* True when there are ids to be claimed: on_claimed publishes. */
static bool claim(struct submission *s, const struct gateway *g)
{
    const struct publish *p = &s->publish;
    struct claim_order *o = &s->order;
    size_t i;

    if (!g->claims)
        return false;
    free(s->claims); /* of a try before */
    free(s->claim_of);
    s->claims = xcalloc(p->n, sizeof *s->claims);
    s->claim_of = xcalloc(p->n, sizeof *s->claim_of);
    s->gateway = g;
    *o = (struct claim_order){.claims = s->claims, .on_done = on_claimed};
    for (i = 0; i < p->n; i++) {
        const struct job *j = &s->jobs[s->sent_of[i]];

        if (!j->is_id_chosen || p->records[i].at.topic == TOPIC_COMPLETIONS)
            continue;
        s->claim_of[o->n] = i;
        s->claims[o->n++] = (struct claim){
            .tenant = j->tenant, .id = j->id, .digest = p->records[i].headers[HEADER_DIGEST]};
    }
    if (o->n == 0)
        return false;
    claims_take(g->claims, o); /* s is on_claimed's from here on */
    return true;
}

int submission_send(struct submission *s, const struct gateway *g, struct reader *r, struct err *e)
{
    int rc;

    assert(s->n > 0);
    s->publish = (struct publish){.records = s->records, .n = s->n, .on_ack = on_ack};
    if (broker_is_shared(g->broker)) {
        leave_out_known(s, r);
        if (is_over_limit(&s->publish, g))
            return err_set(e, ERR_FULL, "limits.queued_jobs is reached");
    }
    if (s->publish.n == 0) {
        on_ack(&s->publish, 0);
        return 0;
    }
    if (claim(s, g))
        return 0;
    rc = broker_publish(g->broker, &s->publish);
    if (rc == ERR_FULL)
        return err_set(e, rc, "the log has no room for more at the moment");
    if (rc < 0)
        return err_set(e, rc, "genq is stopping");
    return 0;
}
