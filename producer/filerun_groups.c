/* Groups of lines on their way into the log: sent, acknowledged, tried again. */
#include "base/clock.h"
#include "producer/filerun_reading.h"
#include "schema/line.h"
#include <stdlib.h>

/* On the broker's thread. */
static void on_done(struct submission *s, int code)
{
    struct group *g = s->data;
    struct filerun *f = g->run;

    g->code = code;
    pthread_mutex_lock(&f->lock);
    list_push(&f->acked, &g->acked_node);
    filerun_wake_locked(f);
    pthread_mutex_unlock(&f->lock);
}

struct group *groups_new(struct reading *r, int64_t first_line)
{
    struct group *g = xcalloc(1, sizeof *g);

    g->run = r->run;
    g->first_line = first_line;
    g->submission = submission_new(FILERUN_GROUP, on_done, g);
    return g;
}

static void group_free(struct group *g)
{
    submission_free(g->submission);
    free(g);
}

/* Keeps the open groups in the order of their first lines: retries come back in. */
static void open_group(struct reading *r, struct group *g)
{
    struct list *before = &r->open;

    while (before->prev != &r->open &&
           LIST_ENTRY(before->prev, struct group, node)->first_line > g->first_line)
        before = before->prev;
    list_push(before, &g->node);
    r->n_open++;
}

/* An open group is with the broker or in `acked`: drop_groups counts on it. */
static void put_acked(struct reading *r, struct group *g)
{
    pthread_mutex_lock(&r->run->lock);
    list_push(&r->run->acked, &g->acked_node);
    pthread_mutex_unlock(&r->run->lock);
}

static int send_group(struct reading *r, struct group *g)
{
    struct err e;

    if (submission_send(g->submission, &r->run->embedded->gateway, NULL, &e) == 0)
        return 0;
    g->code = e.code;
    put_acked(r, g); /* to be sent again, or to be freed */
    if (e.code == ERR_FULL)
        return 0;
    filerun_fail(r->run, &e);
    return e.code;
}

int groups_flush(struct reading *r)
{
    struct group *g = r->filling;

    r->filling = NULL;
    if (!g)
        return 0;
    open_group(r, g);
    return send_group(r, g);
}

/* A line whose job ended without success in an earlier run, or whose own id is another job's: the
 * same job under its next id. */
static int again(struct reading *r, struct group **to, const struct group *from, size_t i)
{
    const struct job *old = &from->submission->jobs[i];
    char id[ID_MAX + 1];
    struct job_defaults d = {.tenant = old->tenant, .batch_line = -1, .wall_ms = clock_wall_ms()};
    struct job j, nameless = *old;
    struct buf text;
    struct err e;
    int rc;

    if (!*to)
        *to = groups_new(r, old->batch_line);
    filerun_next_id(old->id, id);
    d.id = str_z(id);
    nameless.id = STR_NONE;
    buf_init(&text, (size_t)1 << 31);
    job_write(&nameless, &text);
    rc = job_parse(&j, buf_str(&text), true, NULL, &e);
    buf_release(&text);
    if (rc == 0 && (rc = job_complete(&j, &d, &e)) == 0)
        rc = submission_add((*to)->submission, &r->run->embedded->gateway, &j, &e);
    if (rc < 0)
        filerun_fail(r->run, &e);
    return rc;
}

int groups_refuse(struct reading *r, struct group *g, struct job *j, int reason,
                  const char *messagez)
{
    struct filerun *f = r->run;
    struct err e;

    pthread_mutex_lock(&f->lock);
    if (f->counts.n_refused < FILERUN_REFUSED_SHOWN)
        str_copyz(f->refused[f->counts.n_refused], sizeof f->refused[0], str_z(messagez));
    f->counts.n_refused++;
    pthread_mutex_unlock(&f->lock);
    g->is_refused[g->submission->n] = true;
    if (submission_add_refused(g->submission, &f->embedded->gateway, j, reason, messagez, &e) == 0)
        return 0;
    job_release(j);
    filerun_fail(f, &e);
    return e.code;
}

/* What became of one record of a group; those to be tried again go into *retry. */
static int settle_record(struct reading *r, struct group *g, size_t i, struct group **retry)
{
    const struct record *record = &g->submission->records[i];
    enum job_state state = (enum job_state)record->detail;

    if (record->code == 0)
        return 0;
    if (!g->is_refused[i] &&
        (record->code == ERR_CONFLICT ||
         (record->code == ERR_EXISTS && state_is_terminal(state) && state != STATE_SUCCEEDED)))
        return again(r, retry, g, i);
    if (record->code == ERR_EXISTS && !state_is_terminal(state) &&
        leftovers_meet(r, g->submission->jobs[i].id))
        return again(r, retry, g, i);
    pthread_mutex_lock(&r->run->lock);
    r->run->counts.n_found += record->code == ERR_EXISTS && state == STATE_SUCCEEDED;
    pthread_mutex_unlock(&r->run->lock);
    return 0;
}

static const char *why_full(const struct reading *r, const struct group *g)
{
    const struct gateway *gateway = &r->run->embedded->gateway;

    return store_unfinished(gateway->store) + (int64_t)g->submission->n >
                   gateway->config->limits_queued_jobs
               ? "limits.queued_jobs is reached: waiting for jobs to end"
               : "the disk is full: waiting for room";
}

static int settle(struct reading *r, struct group *g)
{
    struct group *retry = NULL;
    int rc = 0;

    if (g->code == ERR_FULL) {
        rc = leftovers_decide(r); /* room may come from jobs that end */
        filerun_note(r->run, FILERUN_READER, why_full(r, g));
        if (rc == 0)
            return send_group(r, g);
        put_acked(r, g);
        return rc;
    }
    if (g->code < 0) {
        rc = g->code;
        put_acked(r, g);
        filerun_fail_log(r->run, rc);
        return rc;
    }
    for (size_t i = 0; i < g->submission->n && rc == 0; i++)
        rc = settle_record(r, g, i, &retry);
    list_remove(&g->node);
    r->n_open--;
    group_free(g);
    if (retry && rc == 0) {
        open_group(r, retry);
        rc = send_group(r, retry);
    } else if (retry) {
        group_free(retry);
    }
    return rc;
}

/* Tells the writer how far it may look. */
void groups_publish_ready(struct reading *r)
{
    struct filerun *f = r->run;
    int64_t ready = r->line;

    if (r->filling)
        ready = r->filling->first_line;
    if (!list_is_empty(&r->open)) {
        int64_t first = LIST_ENTRY(r->open.next, struct group, node)->first_line;

        ready = first < ready ? first : ready;
    }
    pthread_mutex_lock(&f->lock);
    if (ready > f->n_ready || r->is_checked != f->is_checked) {
        f->n_ready = ready;
        f->is_checked = r->is_checked;
        f->n_wakes++;
        pthread_cond_broadcast(&f->changed);
    }
    f->counts.n_lines = r->line;
    pthread_mutex_unlock(&f->lock);
}

/* Settles what was acknowledged. Negative: the run is over. */
int groups_take_acks(struct reading *r)
{
    struct filerun *f = r->run;
    bool was_full = false;
    int rc = 0;

    while (rc == 0) {
        struct list *node;

        pthread_mutex_lock(&f->lock);
        node = list_pop(&f->acked);
        pthread_mutex_unlock(&f->lock);
        if (!node)
            break;
        struct group *g = LIST_ENTRY(node, struct group, acked_node);
        if (g->code == ERR_FULL) {
            pthread_mutex_lock(&f->lock);
            list_push_front(&f->acked, node);
            if (!f->stops_reading)
                filerun_wait_locked(f, &r->seen, FILERUN_FULL_WAIT_MS);
            was_full = true;
            node = f->stops_reading ? NULL : list_pop(&f->acked);
            pthread_mutex_unlock(&f->lock);
            if (!node)
                return ERR_CLOSED;
        }
        rc = settle(r, g);
    }
    if (!was_full)
        filerun_note(f, FILERUN_READER, NULL);
    groups_publish_ready(r);
    return rc;
}

/* What an earlier run left does not count until it is known which of it stays: its lines are still
 * to be read. */
static int64_t n_unfinished(const struct reading *r)
{
    const struct leftovers *l = &r->leftovers;

    return store_unfinished(r->run->embedded->gateway.store) -
           (l->is_decided ? 0 : (int64_t)l->n_loaded);
}

/* Waiting is for jobs to end, then: but first the lines in hand are looked up. */
static int decide(struct reading *r)
{
    return r->filling && !r->leftovers.is_decided ? groups_flush(r) : leftovers_decide(r);
}

/* Waits until there is room for more lines: few publishes on their way, few jobs unfinished. */
int groups_wait(struct reading *r, size_t max_open, int64_t max_unfinished)
{
    struct filerun *f = r->run;
    int rc;

    for (;;) {
        pthread_mutex_lock(&f->lock);
        r->seen = f->n_wakes;
        bool stops_reading = f->stops_reading;
        pthread_mutex_unlock(&f->lock);
        if ((rc = groups_take_acks(r)) < 0) /* also at the end: what has ended is to be written */
            return rc;
        if (stops_reading)
            return ERR_CLOSED;
        if (r->n_open <= max_open && n_unfinished(r) <= max_unfinished)
            return 0;
        if (r->n_open == 0 && (rc = decide(r)) < 0)
            return rc;
        pthread_mutex_lock(&f->lock);
        filerun_wait_locked(f, &r->seen, 1000);
        pthread_mutex_unlock(&f->lock);
    }
}

/* A publish belongs to the broker until its ack: those on their way are waited for. */
void groups_drop(struct reading *r)
{
    struct filerun *f = r->run;

    if (r->filling)
        group_free(r->filling);
    pthread_mutex_lock(&f->lock);
    while (r->n_open > 0) {
        struct list *node = list_pop(&f->acked);

        if (node) {
            struct group *g = LIST_ENTRY(node, struct group, acked_node);

            list_remove(&g->node);
            group_free(g);
            r->n_open--;
        } else {
            pthread_cond_wait(&f->changed, &f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
}
