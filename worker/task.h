/* A job inside the worker: an entry of the waiting index (small, one for each waiting job) and,
 * while the job is in memory, its body. tasks_* own the entries and find them by id. Loop thread
 * only. */
#pragma once
#include "base/heap.h"
#include "base/list.h"
#include "schema/completion.h"
#include "schema/record.h"

enum task_place {
    TASK_NOWHERE,
    TASK_FLOW,    /* in its flow, waits for a slot */
    TASK_TIMED,   /* in a heap, waits for a time */
    TASK_READING, /* in no flow, its body is being read again */
    TASK_RUNNING, /* an attempt is under way */
    TASK_ENDING,  /* its completion is on the way to the log */
};

struct flow;
struct run;
struct deadline;

/* What is known of a job while it is in memory, and what its attempts left behind. */
struct body {
    struct task *task;
    struct job *job;        /* NULL: dropped while it waits for a retry, read before it runs */
    size_t bytes;           /* of the record's value */
    struct list loaded;     /* in the loader's list when the body may be dropped */
    struct run *run;        /* while TASK_RUNNING */
    uint32_t mark;          /* of an ended job's digest (settled.h), in a shared log; 0: unknown */
    int slot;               /* in the journal; -1: none */
    int attempts;           /* that counted, of this process: held to max_attempts */
    int attempts_before;    /* of processes that crashed */
    int n_elsewhere;        /* times that a node turned out not to have the model */
    int64_t started_at;     /* wall ms of the first attempt; 0: none */
    int64_t started_mono_ms;
    struct str node;        /* of the newest call */
    struct call *calls;     /* the newest CALLS_MAX */
    size_t n_calls, room;
};

struct task {
    union {
        struct list node;      /* TASK_FLOW, TASK_READING */
        struct heap_node wake; /* TASK_TIMED */
    } in;
    struct task *next_same;  /* hash chain, or free list */
    uint64_t id_hash;
    int64_t offset;
    struct flow *flow;
    struct body *body;       /* NULL: not in memory */
    struct deadline *deadline; /* NULL: none */
    int32_t topic, partition;
    uint32_t cost;           /* estimated tokens */
    uint8_t place;           /* enum task_place */
    bool is_reading;         /* a read of its record is under way */
    bool is_gone;            /* forgotten meanwhile; freed when the read returns */
    bool is_wall_timed : 1;  /* TASK_TIMED: in the heap by wall time */
    bool is_routed : 1;      /* came here from another queue (route.c) */
    bool is_routing : 1;     /* TASK_ENDING: on its way to another queue */
    bool is_left : 1;        /* TASK_RUNNING: its partition is another worker's by now */
};

_Static_assert(sizeof(struct task) + 2 * sizeof(void *) <= 96, "an entry and its hash slot");

struct deadline {
    struct heap_node at;
    struct task *task;
};

/* All tasks. Entries come from slabs that are kept for the next ones. */
struct tasks {
    struct task **slots; /* by id hash, a power of two */
    size_t n_slots, n;
    uint64_t seed[2];
    struct task *free;
    struct list slabs;
};

void tasks_init(struct tasks *t);
void tasks_release(struct tasks *t); /* bodies too */
uint64_t tasks_hash(const struct tasks *t, struct str tenant, struct str id);
/* A new entry, zeroed but for id_hash, and findable. */
struct task *tasks_new(struct tasks *t, uint64_t id_hash);
/* First (after == NULL) or next entry with that hash; NULL when there is none. */
struct task *tasks_find(const struct tasks *t, uint64_t id_hash, const struct task *after);
/* Forgets an entry and frees its body; it must be in no list, heap or flow. */
void tasks_free(struct tasks *t, struct task *task);
void tasks_each(struct tasks *t, void (*fn)(struct task *task, void *data), void *data);

struct body *body_new(struct task *task);
void body_drop_job(struct body *b);
/* Drops the job's text; the body too where no attempt left anything in it. */
void task_drop_job(struct task *t);
/* Adds a row to the ledger; when it is full the oldest goes. */
void body_add_call(struct body *b, const struct call *c);

static inline bool task_is_ready(const struct task *t)
{
    return t->body && t->body->job;
}

/* As clients are told it. */
static inline int body_attempts(const struct body *b)
{
    return b->attempts_before + b->attempts;
}

static inline struct position task_at(const struct task *t)
{
    return (struct position){t->topic, t->partition, t->offset};
}
