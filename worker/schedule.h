/* Which job a free slot does next. Policy, in this order:
 *
 * - Classes high, normal, low: strict, with a floor: a lower class that has work for the node gets
 *   at least one of every SCHEDULE_FLOOR_EVERY picks.
 * - Inside a class, tenants by cost in estimated tokens: the one that got least goes first
 *   (start-time fair queueing: what deficit round robin approximates, and O(log n) also where nodes
 *   have different models). A tenant that was idle, or whose models were away, saves up nothing.
 * - Inside a tenant, oldest first.
 *
 * The tasks of one (class, tenant, model) are a flow: a list whose front is in memory (ready) and
 * whose rest is not: [ready …][being read …][cold …]. A flow takes part while its first task is
 * ready; load.c reads the others before they are due. Loop thread only. */
#pragma once
#include "base/map.h"
#include "worker/task.h"

#define SCHEDULE_FLOOR_EVERY 10

struct schedule;
struct tenant;

/* Flows of one class and model, by what their tenants got. */
struct lane {
    struct heap flows;
    struct list node; /* in the schedule's list of the class while flows is not empty */
};

/* An engine's model name, interned. */
struct model {
    struct map_node node;
    struct lane lanes[PRIORITY_COUNT_];
    int n_refs;
    int n_nodes; /* nodes that are up and have it; the pool's */
    char name[]; /* NUL-terminated */
};

struct flow {
    struct heap_node turn; /* in its lane */
    struct map_node node;
    struct { /* the map's key */
        struct tenant *tenant;
        struct model *model;
        size_t class;
    } key;
    struct list of_tenant;
    struct list tasks;
    size_t n, n_ready, n_reading; /* in `tasks` */
    size_t n_refs;                /* tasks of this flow, wherever they are */
    struct task *cold;            /* first that is neither ready nor being read */
    struct list stalled;          /* the loader's */
};

struct schedule *schedule_new(void);
void schedule_free(struct schedule *s);

/* Finds or makes a model; each call is undone by schedule_unref_model. */
struct model *schedule_model(struct schedule *s, struct str name);
void schedule_unref_model(struct schedule *s, struct model *m);

/* Makes `task` one of the flow's (found or made); it is not queued yet. */
struct flow *schedule_assign(struct schedule *s, struct task *task, enum priority class,
                             struct str tenant, struct str model);
/* The task is over: forgets its flow. It must not be queued. */
void schedule_unassign(struct schedule *s, struct task *task);
/* Undoes one f->n_refs++, which keeps a flow while its tasks may all go. */
void schedule_release(struct schedule *s, struct flow *f);

/* Queues an assigned task at the end. It may be ready only when the flow has neither cold tasks nor
 * ones being read. */
void schedule_add(struct schedule *s, struct task *task);
/* Queues a ready task that was there before, near the front, in order. */
void schedule_put_back(struct schedule *s, struct task *task);
/* Gives back what a pick charged, for a task that did not run. */
void schedule_refund(struct schedule *s, struct task *task);
/* Takes a queued task out, ready or not. */
void schedule_remove(struct schedule *s, struct task *task);

/* The caller reads up to `max` cold tasks: marks and lists them. Gives how many. */
size_t schedule_read(struct flow *f, struct task **tasks, size_t max);
/* The read of a queued task ended: it is ready now (task->body); or it could not be read and is
 * cold again (a group's tasks then last to first). */
void schedule_read_done(struct schedule *s, struct task *task);
/* A queued ready task's body was dropped; it must be the flow's last ready one, none being read. */
void schedule_chill(struct schedule *s, struct task *task);

/* What a node serves. */
struct schedule_node {
    struct model *const *models;
    size_t n_models;
    bool has_any; /* every model */
};

/* Takes the next task for a node, or gives NULL. */
struct task *schedule_pick(struct schedule *s, const struct schedule_node *node);
/* Takes a ready task whose model no node that is up has, or gives NULL. */
struct task *schedule_pick_orphan(struct schedule *s);
