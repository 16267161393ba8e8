/* Many times to wake at, one timer: a heap by wall time (not_before, deadlines, schedules) or by
 * monotonic time (retries). Wall clocks jump, so those look at least every five seconds
 * while something waits. Loop thread only. */
#pragma once
#include "base/heap.h"
#include <uv.h>

struct alarms {
    struct heap heap;
    uv_timer_t timer;
    int64_t armed_at;  /* key that the timer is set for, while active */
    bool is_wall;
    /* The node is out of the heap. */
    void (*on_due)(struct heap_node *node, void *data);
    void *data;
};

void alarms_init(struct alarms *a, uv_loop_t *loop, bool is_wall,
                 void (*on_due)(struct heap_node *node, void *data), void *data);
void alarms_set(struct alarms *a, struct heap_node *node, int64_t at_ms);
void alarms_clear(struct alarms *a, struct heap_node *node);
/* Frees the heap; the timer is the caller's to close. */
void alarms_release(struct alarms *a);
