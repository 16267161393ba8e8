#include "worker/task.h"
#include <assert.h>
#include <stdlib.h>

enum { SLAB_TASKS = 680, FIRST_SLOTS = 1024 };

struct slab {
    struct list node;
    struct task tasks[SLAB_TASKS];
};

void tasks_init(struct tasks *t)
{
    *t = (struct tasks){.n_slots = FIRST_SLOTS};
    t->slots = xcalloc(FIRST_SLOTS, sizeof t->slots[0]);
    id_random(t->seed, sizeof t->seed);
    list_init(&t->slabs);
}

static void free_body(struct body *b)
{
    if (!b)
        return;
    body_drop_job(b);
    free(b->calls);
    free(b);
}

static void free_parts(struct task *task, void *data)
{
    (void)data;
    free_body(task->body);
    free(task->deadline);
}

void tasks_release(struct tasks *t)
{
    struct list *node;

    tasks_each(t, free_parts, NULL);
    while ((node = list_pop(&t->slabs)) != NULL)
        free(LIST_ENTRY(node, struct slab, node));
    free(t->slots);
    *t = (struct tasks){.slots = NULL};
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9FB21C651E98DF25U;
    return h ^ h >> 32;
}

static uint64_t hash_bytes(uint64_t h, uint64_t seed, struct str s)
{
    uint64_t word;
    size_t i;

    for (i = 0; s.n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, s.p + i, sizeof word);
        h = mix(h, word ^ seed);
    }
    word = 0;
    if (i < s.n)
        memcpy(&word, s.p + i, s.n - i);
    return mix(mix(h, word ^ seed), s.n);
}

uint64_t tasks_hash(const struct tasks *t, struct str tenant, struct str id)
{
    return hash_bytes(hash_bytes(t->seed[0], t->seed[1], tenant), t->seed[1], id);
}

static void grow(struct tasks *t)
{
    size_t n = t->n_slots * 2, i;
    struct task **slots = xcalloc(n, sizeof slots[0]), *task, *next;

    for (i = 0; i < t->n_slots; i++)
        for (task = t->slots[i]; task; task = next) {
            next = task->next_same;
            task->next_same = slots[task->id_hash & (n - 1)];
            slots[task->id_hash & (n - 1)] = task;
        }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
}

static void add_slab(struct tasks *t)
{
    struct slab *slab = xcalloc(1, sizeof *slab);
    int i;

    list_push(&t->slabs, &slab->node);
    for (i = SLAB_TASKS - 1; i >= 0; i--) {
        slab->tasks[i].next_same = t->free;
        t->free = &slab->tasks[i];
    }
}

struct task *tasks_new(struct tasks *t, uint64_t id_hash)
{
    struct task *task;

    /* load 1 to 2: two pointers an entry at most, one on the average */
    if (t->n == t->n_slots)
        grow(t);
    if (!t->free)
        add_slab(t);
    task = t->free;
    t->free = task->next_same;
    *task = (struct task){.id_hash = id_hash, .next_same = t->slots[id_hash & (t->n_slots - 1)]};
    t->slots[id_hash & (t->n_slots - 1)] = task;
    t->n++;
    return task;
}

struct task *tasks_find(const struct tasks *t, uint64_t id_hash, const struct task *after)
{
    struct task *task = after ? after->next_same : t->slots[id_hash & (t->n_slots - 1)];

    while (task && task->id_hash != id_hash)
        task = task->next_same;
    return task;
}

void tasks_free(struct tasks *t, struct task *task)
{
    struct task **p = &t->slots[task->id_hash & (t->n_slots - 1)];

    while (*p != task)
        p = &(*p)->next_same;
    *p = task->next_same;
    free_parts(task, NULL);
    task->body = NULL;
    task->next_same = t->free;
    t->free = task;
    t->n--;
}

void tasks_each(struct tasks *t, void (*fn)(struct task *task, void *data), void *data)
{
    struct task *task, *next;
    size_t i;

    for (i = 0; i < t->n_slots; i++)
        for (task = t->slots[i]; task; task = next) {
            next = task->next_same;
            fn(task, data);
        }
}

struct body *body_new(struct task *task)
{
    struct body *b = xcalloc(1, sizeof *b);

    assert(!task->body);
    b->task = task;
    b->slot = -1;
    task->body = b;
    return b;
}

void body_drop_job(struct body *b)
{
    if (!b->job)
        return;
    job_release(b->job);
    free(b->job);
    b->job = NULL;
}

void task_drop_job(struct task *t)
{
    body_drop_job(t->body);
    if (t->body->started_at)
        return;
    free_body(t->body);
    t->body = NULL;
}

void body_add_call(struct body *b, const struct call *c)
{
    if (b->n_calls == CALLS_MAX) {
        memmove(b->calls, b->calls + 1, (CALLS_MAX - 1) * sizeof b->calls[0]);
        b->n_calls--;
    } else if (b->n_calls == b->room) {
        b->room = b->room ? b->room * 2 : 1;
        b->calls = xrealloc(b->calls, b->room * sizeof b->calls[0]);
    }
    b->calls[b->n_calls++] = *c;
}
