/* What the schedule is made of: models, tenants and flows, found by name, kept while needed. */
#include "worker/schedule_inside.h"
#include <assert.h>
#include <stdlib.h>

enum { IDLE_TENANTS = 1024 };

struct schedule *schedule_new(void)
{
    struct schedule *s = xcalloc(1, sizeof *s);
    int c;

    map_init(&s->models);
    map_init(&s->tenants);
    map_init(&s->flows);
    list_init(&s->idle);
    for (c = 0; c < PRIORITY_COUNT_; c++)
        list_init(&s->lanes[c]);
    return s;
}

struct model *schedule_model(struct schedule *s, struct str name)
{
    struct map_node *found = map_get(&s->models, name);
    struct model *m;
    int c;

    if (found) {
        m = LIST_ENTRY(found, struct model, node);
        m->n_refs++;
        return m;
    }
    m = xcalloc(1, sizeof *m + name.n + 1);
    if (name.n)
        memcpy(m->name, name.p, name.n);
    m->n_refs = 1;
    for (c = 0; c < PRIORITY_COUNT_; c++)
        heap_init(&m->lanes[c].flows);
    map_put(&s->models, &m->node, str_of(m->name, name.n));
    return m;
}

static void free_model(struct schedule *s, struct model *m)
{
    int c;

    map_remove(&s->models, &m->node);
    for (c = 0; c < PRIORITY_COUNT_; c++)
        heap_release(&m->lanes[c].flows);
    free(m);
}

void schedule_unref_model(struct schedule *s, struct model *m)
{
    assert(m->n_refs > 0);
    if (--m->n_refs == 0)
        free_model(s, m);
}

static struct tenant *tenant_of(struct schedule *s, struct str name)
{
    struct map_node *found = map_get(&s->tenants, name);
    struct tenant *t;
    int c;

    if (found)
        return LIST_ENTRY(found, struct tenant, node);
    t = xcalloc(1, sizeof *t + name.n + 1);
    if (name.n)
        memcpy(t->name, name.p, name.n);
    for (c = 0; c < PRIORITY_COUNT_; c++)
        list_init(&t->flows[c]);
    map_put(&s->tenants, &t->node, str_of(t->name, name.n));
    return t;
}

/* Kept for a while: who comes back at once still owes what it got. */
static void rest_tenant(struct schedule *s, struct tenant *t)
{
    struct tenant *oldest;

    list_push(&s->idle, &t->idle);
    if (++s->n_idle <= IDLE_TENANTS)
        return;
    oldest = LIST_ENTRY(list_pop(&s->idle), struct tenant, idle);
    s->n_idle--;
    map_remove(&s->tenants, &oldest->node);
    free(oldest);
}

static struct flow *new_flow(struct schedule *s, struct tenant *t, struct model *m, size_t class)
{
    struct flow *f = xcalloc(1, sizeof *f);

    f->key.tenant = t;
    f->key.model = m;
    f->key.class = class;
    list_init(&f->tasks);
    map_put(&s->flows, &f->node, str_of(&f->key, sizeof f->key));
    list_push(&t->flows[class], &f->of_tenant);
    if (t->n_flows++ == 0 && list_is_linked(&t->idle)) {
        list_remove(&t->idle);
        s->n_idle--;
    }
    return f;
}

static bool is_of(const struct flow *f, size_t class, struct str tenant, struct str model)
{
    return f->key.class == class && str_eqz(tenant, f->key.tenant->name) &&
           str_eqz(model, f->key.model->name);
}

static struct flow *flow_of(struct schedule *s, enum priority class, struct str tenant,
                            struct str model)
{
    struct flow key = {.key = {tenant_of(s, tenant), schedule_model(s, model), (size_t)class}};
    struct map_node *found = map_get(&s->flows, str_of(&key.key, sizeof key.key));
    struct flow *f;

    if (found) {
        f = LIST_ENTRY(found, struct flow, node);
        schedule_unref_model(s, key.key.model); /* the flow has its own */
    } else {
        f = new_flow(s, key.key.tenant, key.key.model, (size_t)class);
    }
    return f;
}

struct flow *schedule_assign(struct schedule *s, struct task *task, enum priority class,
                             struct str tenant, struct str model)
{
    struct flow *f = s->last;

    if (!f || !is_of(f, (size_t)class, tenant, model))
        f = s->last = flow_of(s, class, tenant, model);
    f->n_refs++;
    task->flow = f;
    return f;
}

static void free_flow(struct schedule *s, struct flow *f)
{
    struct tenant *t = f->key.tenant;

    if (s->last == f)
        s->last = NULL;
    if (heap_has(&f->turn))
        schedule_leave_lane(f);
    if (list_is_linked(&f->stalled))
        list_remove(&f->stalled);
    map_remove(&s->flows, &f->node);
    list_remove(&f->of_tenant);
    schedule_unref_model(s, f->key.model);
    if (--t->n_flows == 0)
        rest_tenant(s, t);
    free(f);
}

void schedule_release(struct schedule *s, struct flow *f)
{
    if (--f->n_refs == 0)
        free_flow(s, f);
}

void schedule_unassign(struct schedule *s, struct task *task)
{
    schedule_release(s, task->flow);
    task->flow = NULL;
}

/* ---- the end ---- */

static void free_flow_node(struct map_node *node, void *data)
{
    struct schedule *s = data;

    map_remove(&s->flows, node);
    free(LIST_ENTRY(node, struct flow, node));
}

static void free_tenant_node(struct map_node *node, void *data)
{
    struct schedule *s = data;

    map_remove(&s->tenants, node);
    free(LIST_ENTRY(node, struct tenant, node));
}

static void free_model_node(struct map_node *node, void *data)
{
    free_model(data, LIST_ENTRY(node, struct model, node));
}

void schedule_free(struct schedule *s)
{
    map_each(&s->flows, free_flow_node, s);
    map_each(&s->tenants, free_tenant_node, s);
    map_each(&s->models, free_model_node, s);
    map_release(&s->flows);
    map_release(&s->tenants);
    map_release(&s->models);
    free(s);
}
