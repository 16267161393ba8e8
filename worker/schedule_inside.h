/* The inside of the schedule: schedule.c queues and picks, schedule_flow.c keeps what it is made
 * of. */
#pragma once
#include "worker/schedule.h"

struct tenant {
    struct map_node node;
    int64_t got[PRIORITY_COUNT_]; /* virtual time: cost charged */
    struct list flows[PRIORITY_COUNT_];
    size_t n_flows;
    struct list idle; /* in schedule->idle while n_flows is 0 */
    char name[];
};

struct schedule {
    struct map models, tenants, flows;
    struct list lanes[PRIORITY_COUNT_]; /* those with work */
    int64_t now[PRIORITY_COUNT_];       /* virtual time: start of the newest pick */
    int passed_over[PRIORITY_COUNT_];   /* picks since the class had its turn */
    struct flow *last;                  /* that a task was assigned to; NULL: it is gone */
    struct list idle;                   /* tenants kept for what they got, oldest first */
    size_t n_idle;
};

/* Takes a flow out of its lane. */
void schedule_leave_lane(struct flow *f);
