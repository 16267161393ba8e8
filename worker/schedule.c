#include "worker/schedule_inside.h"
#include <assert.h>

enum { PUT_BACK_STEPS = 64 };

static struct task *task_of(struct list *node)
{
    return LIST_ENTRY(node, struct task, in.node);
}

static struct lane *lane_of(struct flow *f)
{
    return &f->key.model->lanes[f->key.class];
}

static void enter_lane(struct schedule *s, struct flow *f)
{
    struct lane *lane = lane_of(f);

    if (lane->flows.n == 0)
        list_push(&s->lanes[f->key.class], &lane->node);
    heap_push(&lane->flows, &f->turn, f->key.tenant->got[f->key.class]);
}

void schedule_leave_lane(struct flow *f)
{
    struct lane *lane = lane_of(f);

    heap_remove(&lane->flows, &f->turn);
    if (lane->flows.n == 0)
        list_remove(&lane->node);
}

/* In its lane exactly while its first task is ready. */
static void settle(struct schedule *s, struct flow *f)
{
    bool is_ready = f->n > 0 && task_is_ready(task_of(f->tasks.next));

    if (is_ready && !heap_has(&f->turn))
        enter_lane(s, f);
    else if (!is_ready && heap_has(&f->turn))
        schedule_leave_lane(f);
}

/* ---- queueing ---- */

void schedule_add(struct schedule *s, struct task *task)
{
    struct flow *f = task->flow;

    task->place = TASK_FLOW;
    list_push(&f->tasks, &task->in.node);
    f->n++;
    if (task_is_ready(task)) {
        assert(!f->cold && f->n_reading == 0);
        f->n_ready++;
        settle(s, f);
    } else if (!f->cold) {
        f->cold = task;
    }
}

void schedule_put_back(struct schedule *s, struct task *task)
{
    struct flow *f = task->flow;
    struct list *at = f->tasks.next;
    struct task *other;
    int i;

    assert(task_is_ready(task));
    for (i = 0; i < PUT_BACK_STEPS && at != &f->tasks; i++, at = at->next) {
        other = task_of(at);
        if (!task_is_ready(other) || other->topic != task->topic || other->offset > task->offset)
            break;
    }
    task->place = TASK_FLOW;
    list_push(at, &task->in.node);
    f->n++;
    f->n_ready++;
    settle(s, f);
}

static struct task *next_in(const struct flow *f, struct task *task)
{
    return task->in.node.next == &f->tasks ? NULL : task_of(task->in.node.next);
}

void schedule_remove(struct schedule *s, struct task *task)
{
    struct flow *f = task->flow;

    assert(task->place == TASK_FLOW);
    if (f->cold == task)
        f->cold = next_in(f, task);
    if (task->is_reading)
        f->n_reading--;
    else if (task_is_ready(task))
        f->n_ready--;
    f->n--;
    list_remove(&task->in.node);
    task->place = TASK_NOWHERE;
    settle(s, f);
}

/* One partition, rising offsets: what one read can ask for. */
static bool can_follow(const struct task *task, const struct task *before)
{
    return !before || (task->topic == before->topic && task->partition == before->partition &&
                       task->offset > before->offset);
}

size_t schedule_read(struct flow *f, struct task **tasks, size_t max)
{
    size_t n = 0;

    while (f->cold && n < max && can_follow(f->cold, n > 0 ? tasks[n - 1] : NULL)) {
        tasks[n++] = f->cold;
        f->cold->is_reading = true;
        f->n_reading++;
        f->cold = next_in(f, f->cold);
    }
    return n;
}

void schedule_read_done(struct schedule *s, struct task *task)
{
    struct flow *f = task->flow;

    assert(task->place == TASK_FLOW && task->is_reading);
    task->is_reading = false;
    f->n_reading--;
    if (task_is_ready(task)) {
        f->n_ready++;
        settle(s, f);
    } else {
        f->cold = task;
    }
}

void schedule_chill(struct schedule *s, struct task *task)
{
    struct flow *f = task->flow;

    assert(!task_is_ready(task) && f->n_reading == 0);
    f->n_ready--;
    f->cold = task;
    settle(s, f);
}

/* ---- picking ---- */

static void rekey(struct flow *f, int64_t key)
{
    if (!heap_has(&f->turn))
        return;
    heap_remove(&lane_of(f)->flows, &f->turn);
    heap_push(&lane_of(f)->flows, &f->turn, key);
}

static void set_got(struct tenant *t, size_t class, int64_t got)
{
    struct list *node;

    t->got[class] = got;
    for (node = t->flows[class].next; node != &t->flows[class]; node = node->next)
        rekey(LIST_ENTRY(node, struct flow, of_tenant), got);
}

static void charge(struct schedule *s, struct flow *f, uint32_t cost)
{
    size_t c = f->key.class;
    struct tenant *t = f->key.tenant;
    int64_t start = t->got[c] > s->now[c] ? t->got[c] : s->now[c];

    s->now[c] = start;
    set_got(t, c, start + cost);
}

void schedule_refund(struct schedule *s, struct task *task)
{
    (void)s;
    set_got(task->flow->key.tenant, task->flow->key.class,
            task->flow->key.tenant->got[task->flow->key.class] - task->cost);
}

static struct flow *first_of(struct lane *lane, struct flow *best)
{
    struct heap_node *min = heap_min(&lane->flows);

    if (!min || (best && best->turn.key <= min->key))
        return best;
    return LIST_ENTRY(min, struct flow, turn);
}

static struct flow *best_flow(struct schedule *s, const struct schedule_node *node, int class)
{
    struct flow *best = NULL;
    struct list *at;
    size_t i;

    if (list_is_empty(&s->lanes[class]))
        return NULL;
    if (!node->has_any) {
        for (i = 0; i < node->n_models; i++)
            best = first_of(&node->models[i]->lanes[class], best);
        return best;
    }
    for (at = s->lanes[class].next; at != &s->lanes[class]; at = at->next)
        best = first_of(LIST_ENTRY(at, struct lane, node), best);
    return best;
}

/* The highest class with work, unless a lower one was passed over for too long. */
static int choose_class(struct schedule *s, struct flow *const best[PRIORITY_COUNT_])
{
    int c, chosen = -1;

    for (c = 0; c < PRIORITY_COUNT_; c++)
        if (best[c] && (chosen < 0 || s->passed_over[c] >= SCHEDULE_FLOOR_EVERY - 1))
            chosen = c;
    for (c = 0; c < PRIORITY_COUNT_; c++)
        if (best[c] && c != chosen)
            s->passed_over[c]++;
    if (chosen >= 0)
        s->passed_over[chosen] = 0;
    return chosen;
}

static struct task *take_first(struct schedule *s, struct flow *f)
{
    struct task *task = task_of(f->tasks.next);

    schedule_remove(s, task);
    charge(s, f, task->cost);
    return task;
}

struct task *schedule_pick(struct schedule *s, const struct schedule_node *node)
{
    struct flow *best[PRIORITY_COUNT_];
    int c;

    for (c = 0; c < PRIORITY_COUNT_; c++)
        best[c] = best_flow(s, node, c);
    c = choose_class(s, best);
    return c < 0 ? NULL : take_first(s, best[c]);
}

struct task *schedule_pick_orphan(struct schedule *s)
{
    struct list *at;
    struct model *m;
    int c;

    for (c = 0; c < PRIORITY_COUNT_; c++)
        for (at = s->lanes[c].next; at != &s->lanes[c]; at = at->next) {
            struct lane *lane = LIST_ENTRY(at, struct lane, node);

            m = (struct model *)(void *)((char *)(lane - c) - offsetof(struct model, lanes));
            if (m->n_nodes == 0)
                return take_first(s, first_of(lane, NULL));
        }
    return NULL;
}
