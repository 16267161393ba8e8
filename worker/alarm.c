#include "worker/alarm.h"
#include "base/clock.h"

enum { LOOK_MS = 5000, A_TURN = 1024 };

static void on_timer(uv_timer_t *timer);

static int64_t now_of(const struct alarms *a)
{
    return a->is_wall ? clock_wall_ms() : clock_mono_ms();
}

/* An early timer looks, and arms itself anew. */
static void arm(struct alarms *a)
{
    struct heap_node *min = heap_min(&a->heap);
    int64_t wait;

    if (!min || (uv_is_active((uv_handle_t *)&a->timer) && a->armed_at <= min->key))
        return;
    a->armed_at = min->key;
    wait = min->key - now_of(a);
    if (a->is_wall && wait > LOOK_MS)
        wait = LOOK_MS;
    uv_update_time(a->timer.loop);
    uv_timer_start(&a->timer, on_timer, wait > 0 ? (uint64_t)wait : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct alarms *a = timer->data;
    int64_t now = now_of(a);
    struct heap_node *min;
    int i;

    for (i = 0; i < A_TURN && (min = heap_min(&a->heap)) != NULL && min->key <= now; i++) {
        heap_remove(&a->heap, min);
        a->on_due(min, a->data);
    }
    arm(a);
}

void alarms_init(struct alarms *a, uv_loop_t *loop, bool is_wall,
                 void (*on_due)(struct heap_node *node, void *data), void *data)
{
    heap_init(&a->heap);
    uv_timer_init(loop, &a->timer);
    a->timer.data = a;
    a->is_wall = is_wall;
    a->on_due = on_due;
    a->data = data;
}

void alarms_set(struct alarms *a, struct heap_node *node, int64_t at_ms)
{
    heap_push(&a->heap, node, at_ms);
    arm(a);
}

void alarms_clear(struct alarms *a, struct heap_node *node)
{
    heap_remove(&a->heap, node);
    if (a->heap.n == 0)
        uv_timer_stop(&a->timer);
}

void alarms_release(struct alarms *a)
{
    heap_release(&a->heap);
}
