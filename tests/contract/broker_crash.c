/* Processes that die at any moment while they publish and replace: what was acknowledged is there,
 * what was replaced does not come back, and nothing is there twice.
 *
 * A child publishes jobs, and for each job that is delivered to it a completion with the job
 * as its source. It tells the parent of every acknowledgement through a pipe, until it kills
 * itself at a random moment. Many children later the parent compares what it was told with what
 * is in the log. */
#include "base/buf.h"
#include "base/id.h"
#include "tests/contract/broker.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EACH_ROUND = 10000, N_JOBS = 60 * EACH_ROUND, PER_TICK = 8, SLOWEST = 64 };

enum { TOLD_PUBLISHED = 1, TOLD_DONE = 2, WAITS = 4, ENDED = 8 };

struct fact {
    int flag, job;
};

struct child {
    struct rig rig;
    int fd, next, end;
    uint32_t life_us;
};

/* A publish of the child's, until it is acknowledged. */
struct step {
    struct publish p; /* first */
    struct record record;
    struct fact fact;
    int fd;
    char key[24];
};

static void on_step(struct publish *p, int code)
{
    struct step *s = (struct step *)(void *)p;

    if (code != 0 || write(s->fd, &s->fact, sizeof s->fact) != sizeof s->fact)
        _exit(3);
    free(s);
}

static void publish_step(struct child *c, int flag, int job, int topic, struct position source)
{
    struct step *s = xcalloc(1, sizeof *s);

    snprintf(s->key, sizeof s->key, "%d", job);
    s->record = rig_record(topic, s->key, "value");
    s->record.source = source;
    s->fact = (struct fact){flag, job};
    s->fd = c->fd;
    s->p = (struct publish){.records = &s->record, .n = 1, .on_ack = on_step};
    if (broker_publish(c->rig.broker, &s->p) != 0)
        _exit(4);
}

static int job_of(const struct record *r)
{
    int64_t job;

    CHECK(str_int(r->key, &job));
    CHECK(job >= 0 && job < N_JOBS);
    return (int)job;
}

static void on_jobs(void *data, const struct record *records, size_t n)
{
    struct child *c = data;
    size_t i;

    for (i = 0; i < n; i++)
        publish_step(c, TOLD_DONE, job_of(&records[i]), TOPIC_COMPLETIONS, records[i].at);
}

static void on_tick(uv_timer_t *t)
{
    struct child *c = t->data;
    int i;

    for (i = 0; i < PER_TICK && c->next < c->end; i++)
        publish_step(c, TOLD_PUBLISHED, c->next++, JOBS, POSITION_NONE);
}

static void *run_killer(void *data)
{
    struct child *c = data;

    usleep(c->life_us);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* Every other one dies young: while the file is made, or opened. */
static uint32_t random_life_us(const struct driver *d, int round, uint32_t slowness)
{
    uint32_t r;

    id_random(&r, sizeof r);
    return (uint32_t)(((uint64_t)r * slowness * (round % 2 ? d->life_us : d->life_us / 10)) >> 32);
}

static void live(const struct driver *d, int round, uint32_t slowness, int fd)
{
    struct child c = {.fd = fd, .next = round * EACH_ROUND, .end = (round + 1) * EACH_ROUND};
    struct subscription s = {.on_records = on_jobs, .data = &c, .window = 16};
    pthread_t killer;
    uv_timer_t tick;
    struct err e;

    c.life_us = random_life_us(d, round, slowness);
    rig_init(&c.rig, d);
    pthread_create(&killer, NULL, run_killer, &c);
    rig_open(&c.rig);
    CHECK_INT(broker_subscribe(c.rig.broker, JOBS, &s, &e), 0);
    uv_timer_init(&c.rig.loop, &tick);
    tick.data = &c;
    uv_timer_start(&tick, on_tick, 1, 1);
    uv_run(&c.rig.loop, UV_RUN_DEFAULT);
}

/* Gives whether it told of anything done. */
static bool run_child(const struct driver *d, int round, uint32_t slowness, uint8_t *jobs)
{
    struct fact fact;
    int ends[2], status;
    bool is_any_done = false;
    pid_t pid;

    CHECK_INT(pipe(ends), 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        live(d, round, slowness, ends[1]);
        _exit(5);
    }
    close(ends[1]);
    while (read(ends[0], &fact, sizeof fact) == sizeof fact) {
        jobs[fact.job] |= (uint8_t)fact.flag;
        is_any_done |= fact.flag == TOLD_DONE;
    }
    close(ends[0]);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return is_any_done;
}

static void note_all(struct rig *r, int topic, uint8_t flag, uint8_t *jobs)
{
    const struct seen *s;

    rig_forget(r);
    rig_subscribe(r, topic, N_JOBS);
    rig_wait_caught_up(r, 1);
    for (s = r->seen; s; s = s->next) {
        /* What a killed process had sent may come into Kafka after the next one has looked. */
        if (!broker_is_shared(r->broker))
            CHECK((jobs[job_of(&s->r)] & flag) == 0); /* twice in one topic */
        jobs[job_of(&s->r)] |= flag;
    }
}

ON_DRIVERS(kills_lose_nothing_and_repeat_nothing)
{
    uint8_t *jobs = xcalloc(N_JOBS, 1);
    int i, n_told = 0, n_done = 0;
    uint32_t slowness = 1;
    struct rig r;

    for (i = 0; i < d->n_kills; i++) /* where little gets done, they live longer */
        if (!run_child(d, i, slowness, jobs) && i % 2 && slowness < SLOWEST)
            slowness *= 2;
    rig_init(&r, d);
    rig_open(&r);
    note_all(&r, JOBS, WAITS, jobs);
    note_all(&r, TOPIC_COMPLETIONS, ENDED, jobs);
    for (i = 0; i < N_JOBS; i++) {
        CHECK((jobs[i] & (WAITS | ENDED)) != (WAITS | ENDED));
        if (jobs[i] & TOLD_PUBLISHED)
            CHECK((jobs[i] & (WAITS | ENDED)) != 0);
        if (jobs[i] & TOLD_DONE)
            CHECK((jobs[i] & ENDED) != 0);
        n_told += (jobs[i] & TOLD_PUBLISHED) != 0;
        n_done += (jobs[i] & TOLD_DONE) != 0;
    }
    CHECK(n_told > 0 && n_done > 0);
    printf("# %s: %d kills, %d jobs acknowledged, %d done\n", d->namez, d->n_kills, n_told, n_done);
    rig_release(&r);
    free(jobs);
}

ON_DRIVERS(a_log_left_open_opens_again)
{
    struct rig r;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        rig_init(&r, d);
        rig_open(&r);
        rig_put(&r, JOBS, "k", "v");
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    rig_init(&r, d);
    rig_open(&r);
    rig_subscribe(&r, JOBS, 1);
    rig_wait_seen(&r, 1);
    rig_release(&r);
}

ON_DRIVERS(a_kill_while_the_log_is_made_leaves_one_that_opens)
{
    struct driver fresh = *d;
    char dirz[64];
    uint8_t *jobs = xcalloc(2, EACH_ROUND);
    struct rig r;
    int i;

    for (i = 0; i < d->n_kills; i++) {
        snprintf(dirz, sizeof dirz, "%s_%d", d->namez, i);
        fresh.namez = dirz;
        run_child(&fresh, 0, 1, jobs); /* an even one: dies young */
        rig_init(&r, &fresh);
        rig_open(&r);
        rig_put(&r, JOBS, "k", "v");
        rig_release(&r);
    }
    free(jobs);
}
