#include "broker-config/follow_marks.h"
#include "base/clock.h"
#include "base/map.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    VERDICTS = 1 << 14, /* of the newest records that were turned away */
    WAIT_MS = 10000
};

struct verdict {
    struct map_node node;
    struct position at; /* the key */
    int code, detail;
    bool is_used;
};

struct mark {
    int64_t first, end, next;                    /* next -1: not followed yet */
    struct kafka_waiter *waiters, **waiters_end; /* in the order of their deadlines */
};

struct topic_marks {
    struct mark **marks; /* by partition; each stays where it is */
    size_t n;
};

struct marks {
    pthread_mutex_t lock;
    /* under lock */
    struct topic_marks *topics;
    size_t n_topics;
    struct map by_position;
    struct verdict *verdicts; /* a ring */
    size_t next_verdict;
    bool is_closed;
};

static_assert(sizeof(struct position) == 16, "a position is a key: no padding");

struct marks *marks_new(size_t n_topics)
{
    struct marks *m = xcalloc(1, sizeof *m);

    pthread_mutex_init(&m->lock, NULL);
    m->n_topics = n_topics;
    m->topics = xcalloc(n_topics, sizeof *m->topics);
    m->verdicts = xcalloc(VERDICTS, sizeof *m->verdicts);
    map_init(&m->by_position);
    return m;
}

void marks_free(struct marks *m)
{
    size_t i, k;

    if (!m)
        return;
    for (i = 0; i < m->n_topics; i++) {
        for (k = 0; k < m->topics[i].n; k++)
            free(m->topics[i].marks[k]);
        free(m->topics[i].marks);
    }
    map_release(&m->by_position);
    free(m->verdicts);
    free(m->topics);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* Made where it is not there: a record may be acknowledged in a partition that was added a moment
 * ago. Under lock. */
static struct mark *mark_of(struct marks *m, int topic, int32_t partition)
{
    struct topic_marks *t = &m->topics[topic];
    struct mark *mark;

    assert(topic >= 0 && (size_t)topic < m->n_topics && partition >= 0);
    while (t->n <= (size_t)partition) {
        mark = xcalloc(1, sizeof *mark);
        mark->first = mark->end = mark->next = -1;
        mark->waiters_end = &mark->waiters;
        t->marks = xrealloc(t->marks, (t->n + 1) * sizeof(struct mark *));
        t->marks[t->n++] = mark;
    }
    return t->marks[partition];
}

/* ---- verdicts ---- */

static struct str key_of(const struct position *at)
{
    return str_of(at, sizeof *at);
}

void marks_verdict(struct marks *m, struct position at, int code, int detail)
{
    struct verdict *v;

    pthread_mutex_lock(&m->lock);
    v = &m->verdicts[m->next_verdict++ % VERDICTS];
    if (v->is_used)
        map_remove(&m->by_position, &v->node);
    *v = (struct verdict){.at = at, .code = code, .detail = detail, .is_used = true};
    map_put(&m->by_position, &v->node, key_of(&v->at));
    pthread_mutex_unlock(&m->lock);
}

/* Under lock. */
static void judge(struct marks *m, struct kafka_waiter *w)
{
    const struct verdict *v =
        (const struct verdict *)(const void *)map_get(&m->by_position, key_of(&w->at));

    w->code = v ? v->code : 0;
    w->detail = v ? v->detail : 0;
}

/* ---- waiters ---- */

static void tell(struct kafka_waiter *w)
{
    struct kafka_waiter *next;

    for (; w; w = next) {
        next = w->next;
        w->on_applied(w);
    }
}

/* Moves those that are due to *ready, judged. Under lock. */
static void take(struct marks *m, struct mark *mark, int64_t below, int64_t before_ms,
                 struct kafka_waiter ***ready)
{
    struct kafka_waiter **at = &mark->waiters, *w;

    while ((w = *at)) {
        if (w->at.offset >= below && w->deadline_ms > before_ms) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = NULL;
        judge(m, w);
        **ready = w;
        *ready = &w->next;
    }
    mark->waiters_end = at;
}

static void take_all(struct marks *m, int64_t before_ms, struct kafka_waiter **ready)
{
    size_t i, k;
    struct mark *mark;

    for (i = 0; i < m->n_topics; i++)
        for (k = 0; k < m->topics[i].n; k++) {
            mark = m->topics[i].marks[k];
            /* The first has the earliest deadline. */
            if (mark->waiters && mark->waiters->deadline_ms <= before_ms)
                take(m, mark, mark->next, before_ms, &ready);
        }
}

void marks_wait(struct marks *m, struct kafka_waiter *w)
{
    struct mark *mark;
    bool is_ready;

    w->next = NULL;
    w->deadline_ms = clock_mono_ms() + WAIT_MS;
    pthread_mutex_lock(&m->lock);
    mark = mark_of(m, w->at.topic, w->at.partition);
    is_ready = m->is_closed || w->at.offset < mark->next;
    if (is_ready) {
        judge(m, w);
    } else {
        *mark->waiters_end = w;
        mark->waiters_end = &w->next;
    }
    pthread_mutex_unlock(&m->lock);
    if (is_ready)
        w->on_applied(w);
}

void marks_reach(struct marks *m, struct position at)
{
    struct kafka_waiter *first = NULL, **ready = &first;
    struct mark *mark;

    pthread_mutex_lock(&m->lock);
    mark = mark_of(m, at.topic, at.partition);
    mark->next = at.offset;
    if (mark->end < at.offset)
        mark->end = at.offset;
    take(m, mark, at.offset, 0, &ready);
    pthread_mutex_unlock(&m->lock);
    tell(first);
}

void marks_expire(struct marks *m, int64_t mono_ms)
{
    struct kafka_waiter *first = NULL;

    pthread_mutex_lock(&m->lock);
    take_all(m, mono_ms, &first);
    pthread_mutex_unlock(&m->lock);
    tell(first);
}

void marks_close(struct marks *m)
{
    struct kafka_waiter *first = NULL;

    pthread_mutex_lock(&m->lock);
    m->is_closed = true;
    take_all(m, INT64_MAX, &first);
    pthread_mutex_unlock(&m->lock);
    tell(first);
}

/* ---- numbers ---- */

void marks_span(struct marks *m, int topic, int32_t partition, int64_t first, int64_t end)
{
    struct mark *mark;

    pthread_mutex_lock(&m->lock);
    mark = mark_of(m, topic, partition);
    if (first > mark->first)
        mark->first = first;
    if (end > mark->end)
        mark->end = end;
    pthread_mutex_unlock(&m->lock);
}

void marks_stat(struct marks *m, int topic, struct broker_stat *out)
{
    const struct topic_marks *t = &m->topics[topic];
    const struct mark *mark;
    size_t i;

    *out = (struct broker_stat){0};
    pthread_mutex_lock(&m->lock);
    for (i = 0; i < t->n; i++) {
        mark = t->marks[i];
        out->first += mark->first > 0 ? mark->first : 0;
        out->end += mark->end > 0 ? mark->end : 0;
        if (mark->end > mark->next)
            out->n_waiting += mark->end - (mark->next > mark->first ? mark->next : mark->first);
    }
    pthread_mutex_unlock(&m->lock);
}
