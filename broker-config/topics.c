/* The topics of a config: the fixed ones of topic.def, then three for each queue. */
#include "broker-config/topics.h"
#include "base/buf.h"
#include "base/map.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static_assert(TOPIC_COMPLETIONS == 0, "a record of zeros has no source");

struct name {
    struct map_node node; /* first */
    char *namez;
    int topic; /* of a queue: its first topic */
};

struct topics {
    struct map by_name, by_queue;
    struct name *names; /* by topic */
    struct name *queues;
    size_t n, n_queues;
};

static const char *const suffixes[] = {
#define TOPIC(id, suffix, doc) suffix,
#include "broker-config/topic.def"
#undef TOPIC
};

static const char *const priority_names[PRIORITY_COUNT_] = {
    [PRIORITY_HIGH] = "high", [PRIORITY_NORMAL] = "normal", [PRIORITY_LOW] = "low"};

static void add(struct map *m, struct name *n, char *namez, int topic)
{
    n->namez = namez;
    n->topic = topic;
    map_put(m, &n->node, str_z(namez));
}

static char *jobs_name(const char *prefixz, const char *queuez, enum priority p)
{
    struct buf b;

    buf_init(&b, 1024);
    buf_addf(&b, "%s.jobs.%s.%s", prefixz, queuez, priority_names[p]);
    assert(!b.is_over); /* the config bounds prefix and queue */
    return buf_take(&b, NULL);
}

static char *fixed_name(const char *prefixz, const char *suffixz)
{
    struct buf b;

    buf_init(&b, 1024);
    buf_addf(&b, "%s.%s", prefixz, suffixz);
    return buf_take(&b, NULL);
}

static void add_queue(struct topics *t, const char *prefixz, size_t q, const char *queuez)
{
    int first = TOPIC_JOBS + (int)q * PRIORITY_COUNT_;
    int p;

    add(&t->by_queue, &t->queues[q], xstrdup(str_z(queuez)), first);
    for (p = 0; p < PRIORITY_COUNT_; p++)
        add(&t->by_name, &t->names[first + p], jobs_name(prefixz, queuez, (enum priority)p),
            first + p);
}

struct topics *topics_new(const struct config *c)
{
    const char *prefixz = c->broker_kind == BROKER_KIND_KAFKA ? c->broker_prefix : "genq";
    struct topics *t = xcalloc(1, sizeof *t);
    size_t i;

    map_init(&t->by_name);
    map_init(&t->by_queue);
    while (c->queues[t->n_queues])
        t->n_queues++;
    t->n = TOPIC_JOBS + t->n_queues * PRIORITY_COUNT_;
    t->names = xcalloc(t->n, sizeof *t->names);
    t->queues = xcalloc(t->n_queues, sizeof *t->queues);
    for (i = 0; i < TOPIC_JOBS; i++)
        add(&t->by_name, &t->names[i], fixed_name(prefixz, suffixes[i]), (int)i);
    for (i = 0; i < t->n_queues; i++)
        add_queue(t, prefixz, i, c->queues[i]);
    return t;
}

void topics_free(struct topics *t)
{
    size_t i;

    if (!t)
        return;
    map_release(&t->by_name);
    map_release(&t->by_queue);
    for (i = 0; i < t->n; i++)
        free(t->names[i].namez);
    for (i = 0; i < t->n_queues; i++)
        free(t->queues[i].namez);
    free(t->names);
    free(t->queues);
    free(t);
}

size_t topics_count(const struct topics *t)
{
    return t->n;
}

const char *topics_name(const struct topics *t, int topic)
{
    assert(topic >= 0 && (size_t)topic < t->n);
    return t->names[topic].namez;
}

static int find(const struct map *m, struct str key)
{
    const struct name *n = (const struct name *)(const void *)map_get(m, key);

    return n ? n->topic : -1;
}

int topics_find(const struct topics *t, struct str name)
{
    return find(&t->by_name, name);
}

int topics_jobs(const struct topics *t, struct str queue, enum priority p)
{
    int first = find(&t->by_queue, queue);

    return first < 0 ? -1 : first + (int)p;
}

bool topics_is_jobs(int topic)
{
    return topic >= TOPIC_JOBS;
}

enum priority topics_priority(int topic)
{
    if (!topics_is_jobs(topic))
        return PRIORITY_COUNT_;
    return (enum priority)((topic - TOPIC_JOBS) % PRIORITY_COUNT_);
}

struct str topics_queue(const struct topics *t, int topic)
{
    if (!topics_is_jobs(topic))
        return STR("default");
    return str_z(t->queues[(topic - TOPIC_JOBS) / PRIORITY_COUNT_].namez);
}

void position_format(const struct topics *t, struct position at, char dst[POSITION_TEXT_MAX])
{
    int n = snprintf(dst, POSITION_TEXT_MAX, "%s/%d/%lld", topics_name(t, at.topic), at.partition,
                     (long long)at.offset);

    assert(n > 0 && n < POSITION_TEXT_MAX);
    (void)n;
}

/* Cuts what follows the last '/' off s and reads it; only the form that position_format writes. */
static bool cut_number(struct str *s, int64_t max, int64_t *out)
{
    size_t n = s->n;
    struct str digits;

    while (n > 0 && s->p[n - 1] != '/')
        n--;
    if (n == 0)
        return false;
    digits = str_of(s->p + n, s->n - n);
    s->n = n - 1;
    if (digits.n == 0 || digits.p[0] == '-' || (digits.n > 1 && digits.p[0] == '0'))
        return false;
    return str_int(digits, out) && *out <= max;
}

bool position_parse(const struct topics *t, struct str s, struct position *at)
{
    int64_t partition, offset;
    int topic;

    if (!cut_number(&s, INT64_MAX, &offset) || !cut_number(&s, INT32_MAX, &partition))
        return false;
    topic = topics_find(t, s);
    if (topic < 0)
        return false;
    *at = (struct position){topic, (int32_t)partition, offset};
    return true;
}
