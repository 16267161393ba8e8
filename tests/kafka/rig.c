#include "tests/kafka/rig.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct position owed = {-1, 0, 0};

/* The publisher's half is not under test. */
bool kafka_publisher_owes(struct kafka_publisher *p, struct position source)
{
    (void)p;
    return source.topic == owed.topic && source.partition == owed.partition &&
           source.offset == owed.offset;
}

/* ---- the site ---- */

void site_init(struct site *s, int n_partitions, const char *configz)
{
    memset(s, 0, sizeof *s);
    kafka_rig_open(&s->k, configz);
    s->tally =
        mmap(NULL, sizeof *s->tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(s->tally != MAP_FAILED);
    s->n_partitions = n_partitions;
    uv_loop_init(&s->loop);
    kafka_rig_make_topics(&s->k, n_partitions);
    kafka_rig_wait_topics(&s->k);
}

void site_release(struct site *s)
{
    uv_run(&s->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&s->loop), 0);
    munmap(s->tally, sizeof *s->tally);
    kafka_rig_close(&s->k);
}

void site_put_to(struct site *s, int topic, int32_t partition, const char *keyz)
{
    CHECK_INT(rd_kafka_producev(s->k.producer, RD_KAFKA_V_TOPIC(topics_name(s->k.topics, topic)),
                                RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY(keyz, strlen(keyz)),
                                RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
              0);
}

void site_put(struct site *s, int first, int n)
{
    char key[16];
    int i;

    for (i = first; i < first + n; i++) {
        snprintf(key, sizeof key, "%d", i);
        site_put_to(s, JOBS, i % s->n_partitions, key);
    }
    kafka_rig_flush(&s->k);
}

struct position site_complete(struct site *s, struct position source)
{
    struct record r = {.at = {TOPIC_COMPLETIONS, 0, -1}, .key = STR("k"), .source = source};

    kafka_rig_send(&s->k, &r);
    kafka_rig_flush(&s->k);
    CHECK(r.at.offset >= 0);
    return r.at;
}

static void on_over(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

static void on_timer_closed(uv_handle_t *h)
{
    *(bool *)h->data = true;
}

void site_run(struct site *s, int ms)
{
    bool is_over = false, is_closed = false;
    uv_timer_t t;

    uv_timer_init(&s->loop, &t);
    t.data = &is_over;
    uv_timer_start(&t, on_over, (uint64_t)ms, 0);
    while (!is_over) {
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    t.data = &is_closed;
    uv_close((uv_handle_t *)&t, on_timer_closed);
    while (!is_closed)
        uv_run(&s->loop, UV_RUN_NOWAIT);
}

/* ---- members ---- */

static void on_run_closed(uv_handle_t *h)
{
    free(h->data);
}

/* The completion is acknowledged first, as the publisher does it; then the source is finished. */
static void on_ran(uv_timer_t *t)
{
    struct running *r = t->data;
    struct site *s = r->member->site;
    struct position by;

    by = site_complete(s, r->at);
    s->tally->fates[r->job].n_ended++;
    s->tally->n_ended++;
    kafka_group_note(r->member->group, r->at, by);
    list_remove(&r->node);
    uv_close((uv_handle_t *)t, on_run_closed);
}

static void start(struct member *m, struct position at, int job)
{
    struct running *r = xcalloc(1, sizeof *r);
    uint32_t random;

    id_random(&random, sizeof random);
    r->member = m;
    r->at = at;
    r->job = job;
    uv_timer_init(&m->site->loop, &r->timer);
    r->timer.data = r;
    uv_timer_start(&r->timer, on_ran, random % (uint32_t)m->run_ms, 0);
    list_push(&m->running, &r->node);
}

static void take(struct member *m, const struct record *r)
{
    int64_t job;
    struct fate *fate;

    CHECK(str_int(r->key, &job) && job >= 0 && job < JOBS_MAX);
    fate = &m->site->tally->fates[job];
    fate->n_started++;
    fate->n_after_end += fate->n_ended > 0;
    fate->n_moves += fate->last_by && fate->last_by != getpid();
    fate->first_by = fate->first_by ? fate->first_by : getpid();
    fate->last_by = getpid();
    m->site->tally->n_started++;
    m->n_seen++;
    m->last = r->at;
    if (r->at.topic == JOBS) {
        m->is_out_of_order |= r->at.offset < m->next[r->at.partition];
        m->next[r->at.partition] = r->at.offset + 1;
    }
    if (m->run_ms > 0)
        start(m, r->at, (int)job);
    else if (m->run_ms < 0)
        kafka_group_finish(m->group, r->at);
}

static void on_records(void *data, const struct record *records, size_t n)
{
    struct member *m = data;
    int64_t over_ms = clock_mono_ms() + m->call_ms;
    size_t i;

    m->n_calls++;
    while (m->call_ms > 0 && clock_mono_ms() < over_ms)
        ;

    for (i = 0; i < n; i++)
        take(data, &records[i]);
}

static void on_caught_up(void *data, int topic)
{
    struct member *m = data;

    (void)topic;
    m->n_caught_up++;
}

static size_t on_revoked(void *data, int topic, int partition)
{
    struct member *m = data;
    struct list *node;
    size_t n = 0;

    m->n_revoked++;
    m->next[partition] = 0; /* what was not started comes again */
    for (node = m->running.next; node != &m->running; node = node->next)
        n += LIST_ENTRY(node, struct running, node)->at.topic == topic &&
             LIST_ENTRY(node, struct running, node)->at.partition == partition;
    return n;
}

void member_open(struct member *m, struct site *s, size_t window, int run_ms)
{
    struct kafka_group_options o = {.config = s->k.config, .topics = s->k.topics, .loop = &s->loop};
    struct err e = {0};

    *m = (struct member){.site = s, .window = window, .run_ms = run_ms};
    list_init(&m->running);
    m->group = kafka_group_open(&o, &e);
    CHECK_STR(str_z(e.msg), "");
}

void member_subscribe(struct member *m, int topic)
{
    struct subscription s = {.on_records = on_records,
                             .on_caught_up = on_caught_up,
                             .on_revoked = on_revoked,
                             .data = m,
                             .window = m->window};
    struct err e = {0};

    CHECK_INT(kafka_group_subscribe(m->group, topic, &s, &e), 0);
}

void member_end_all(struct member *m)
{
    struct list *node;
    struct running *r;

    while ((node = list_pop(&m->running))) {
        r = LIST_ENTRY(node, struct running, node);
        kafka_group_finish(m->group, r->at);
        uv_close((uv_handle_t *)&r->timer, on_run_closed);
    }
}

void member_close(struct member *m)
{
    struct list *node;

    kafka_group_close(m->group);
    while ((node = list_pop(&m->running)))
        uv_close((uv_handle_t *)&LIST_ENTRY(node, struct running, node)->timer, on_run_closed);
    site_run(m->site, 1);
}
