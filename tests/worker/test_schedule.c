#include "base/clock.h"
#include "tests/lib/test.h"
#include "worker/schedule.h"
#include <stdio.h>
#include <stdlib.h>

/* Tasks are made ready with an empty job: the schedule looks no deeper. */
struct box {
    struct schedule *s;
    struct tasks tasks;
    int64_t offset;
};

static void open_box(struct box *b)
{
    b->s = schedule_new();
    tasks_init(&b->tasks);
    b->offset = 0;
}

static void free_ready(struct task *t, void *data)
{
    (void)data;
    if (t->body) {
        free(t->body->job);
        t->body->job = NULL;
    }
}

static void close_box(struct box *b)
{
    tasks_each(&b->tasks, free_ready, NULL);
    tasks_release(&b->tasks);
    schedule_free(b->s);
}

static void make_ready(struct task *t)
{
    if (!t->body)
        body_new(t);
    t->body->job = xcalloc(1, sizeof *t->body->job);
}

static struct task *make(struct box *b, enum priority class, const char *tenantz,
                         const char *modelz, uint32_t cost)
{
    struct task *t = tasks_new(&b->tasks, (uint64_t)b->offset * 0x9E3779B97F4A7C15U);

    t->offset = b->offset++;
    t->cost = cost;
    schedule_assign(b->s, t, class, str_z(tenantz), str_z(modelz));
    return t;
}

static struct task *add(struct box *b, enum priority class, const char *tenantz,
                        const char *modelz, uint32_t cost)
{
    struct task *t = make(b, class, tenantz, modelz, cost);

    make_ready(t);
    schedule_add(b->s, t);
    return t;
}

static void end(struct box *b, struct task *t)
{
    free_ready(t, NULL);
    schedule_unassign(b->s, t);
    tasks_free(&b->tasks, t);
}

static const struct schedule_node any = {NULL, 0, true};

static int64_t pick_offset(struct box *b, const struct schedule_node *node)
{
    struct task *t = schedule_pick(b->s, node);
    int64_t offset = t ? t->offset : -1;

    if (t)
        end(b, t);
    return offset;
}

TEST(a_tenants_jobs_go_oldest_first)
{
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 100; i++)
        add(&b, PRIORITY_NORMAL, "t", "m", (uint32_t)(100 - i));
    for (i = 0; i < 100; i++)
        CHECK_INT(pick_offset(&b, &any), i);
    CHECK_INT(pick_offset(&b, &any), -1);
    close_box(&b);
}

/* How many of the next n picks go to each class. */
static void count_classes(struct box *b, int n, int got[PRIORITY_COUNT_])
{
    struct task *t;

    got[0] = got[1] = got[2] = 0;
    while (n-- > 0) {
        t = schedule_pick(b->s, &any);
        CHECK(t != NULL);
        got[t->flow->key.class]++;
        end(b, t);
    }
}

TEST(classes_are_strict_with_a_floor)
{
    int got[PRIORITY_COUNT_], i, c;
    struct box b;

    open_box(&b);
    for (c = 0; c < PRIORITY_COUNT_; c++)
        for (i = 0; i < 1000; i++)
            add(&b, (enum priority)c, "t", "m", 10);
    count_classes(&b, 100, got);
    CHECK_INT(got[PRIORITY_LOW], 10);
    CHECK_INT(got[PRIORITY_NORMAL], 9); /* its turn comes right after low's */
    CHECK_INT(got[PRIORITY_HIGH], 81);
    close_box(&b);
}

TEST(the_floor_is_the_lowest_class_with_work)
{
    int got[PRIORITY_COUNT_], i;
    struct box b;

    open_box(&b);
    for (i = 0; i < 1000; i++) {
        add(&b, PRIORITY_HIGH, "t", "m", 10);
        add(&b, PRIORITY_NORMAL, "t", "m", 10);
    }
    count_classes(&b, 1000, got);
    CHECK_INT(got[PRIORITY_NORMAL], 100);
    CHECK_INT(got[PRIORITY_HIGH], 900);
    close_box(&b);
}

TEST(high_alone_gets_all)
{
    int got[PRIORITY_COUNT_], i;
    struct box b;

    open_box(&b);
    for (i = 0; i < 100; i++)
        add(&b, PRIORITY_HIGH, "t", "m", 10);
    add(&b, PRIORITY_LOW, "t", "m", 10);
    count_classes(&b, 101, got);
    CHECK_INT(got[PRIORITY_HIGH], 100);
    close_box(&b);
}

TEST(tenants_share_by_cost_not_by_count)
{
    int64_t cost[2] = {0, 0};
    struct task *t;
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 5000; i++) {
        add(&b, PRIORITY_NORMAL, "small", "m", 100);
        add(&b, PRIORITY_NORMAL, "large", "m", 1000);
    }
    for (i = 0; i < 1100; i++) {
        t = schedule_pick(b.s, &any);
        cost[t->offset % 2] += t->cost;
        end(&b, t);
    }
    CHECK(cost[0] - cost[1] <= 1000 && cost[1] - cost[0] <= 1000);
    close_box(&b);
}

TEST(a_flood_of_one_tenant_delays_another_by_one_job)
{
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 10000; i++)
        add(&b, PRIORITY_NORMAL, "flood", "m", 300);
    for (i = 0; i < 500; i++)
        pick_offset(&b, &any);
    add(&b, PRIORITY_NORMAL, "late", "m", 300);
    CHECK_INT(pick_offset(&b, &any), 10000);
    CHECK_INT(pick_offset(&b, &any), 500); /* and not a burst of the late one's */
    close_box(&b);
}

TEST(who_was_away_saves_up_nothing)
{
    struct box b;
    int i, late = 0;

    open_box(&b);
    for (i = 0; i < 1000; i++)
        add(&b, PRIORITY_NORMAL, "busy", "m", 100);
    for (i = 0; i < 900; i++)
        pick_offset(&b, &any);
    for (i = 0; i < 100; i++)
        add(&b, PRIORITY_NORMAL, "late", "m", 100);
    for (i = 0; i < 100; i++)
        late += pick_offset(&b, &any) >= 1000;
    CHECK(late >= 49 && late <= 51);
    close_box(&b);
}

TEST(a_node_gets_only_its_models)
{
    struct model *m[2];
    struct schedule_node node = {m, 1, false};
    struct box b;
    int i;

    open_box(&b);
    m[0] = schedule_model(b.s, STR("two"));
    for (i = 0; i < 10; i++)
        add(&b, PRIORITY_NORMAL, i % 2 ? "t" : "u", i % 2 ? "two" : "one", 10);
    for (i = 1; i < 10; i += 2)
        CHECK_INT(pick_offset(&b, &node), i);
    CHECK_INT(pick_offset(&b, &node), -1);
    m[1] = schedule_model(b.s, STR("one"));
    node.n_models = 2;
    for (i = 0; i < 10; i += 2)
        CHECK_INT(pick_offset(&b, &node), i);
    schedule_unref_model(b.s, m[0]);
    schedule_unref_model(b.s, m[1]);
    close_box(&b);
}

TEST(orphans_are_those_whose_model_is_nowhere)
{
    struct model *m;
    struct task *t;
    struct box b;

    open_box(&b);
    m = schedule_model(b.s, STR("here"));
    m->n_nodes = 1;
    add(&b, PRIORITY_HIGH, "t", "here", 10);
    add(&b, PRIORITY_LOW, "t", "gone", 10);
    t = schedule_pick_orphan(b.s);
    CHECK(t != NULL);
    CHECK_INT(t->offset, 1);
    end(&b, t);
    CHECK(schedule_pick_orphan(b.s) == NULL);
    schedule_unref_model(b.s, m);
    close_box(&b);
}

TEST(who_is_put_back_comes_first_and_is_not_charged)
{
    struct task *t[3];
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 20; i++)
        add(&b, PRIORITY_NORMAL, "t", "m", 10);
    for (i = 0; i < 3; i++)
        t[i] = schedule_pick(b.s, &any);
    for (i = 0; i < 3; i++) { /* 1, 2, 0 */
        schedule_refund(b.s, t[(i + 1) % 3]);
        schedule_put_back(b.s, t[(i + 1) % 3]);
    }
    add(&b, PRIORITY_NORMAL, "other", "m", 10);
    for (i = 0; i < 3; i++) {
        CHECK_INT(pick_offset(&b, &any), i == 0 ? 0 : i == 1 ? 20 : 1);
    }
    close_box(&b);
}

TEST(a_flow_waits_for_its_first_body)
{
    struct task *t[8], *read[8];
    struct box b;
    size_t n;
    int i;

    open_box(&b);
    for (i = 0; i < 8; i++) {
        t[i] = make(&b, PRIORITY_NORMAL, "t", "m", 10);
        schedule_add(b.s, t[i]);
    }
    CHECK(schedule_pick(b.s, &any) == NULL);
    n = schedule_read(t[0]->flow, read, 4);
    CHECK_INT(n, 4);
    make_ready(read[1]);
    schedule_read_done(b.s, read[1]);
    CHECK(schedule_pick(b.s, &any) == NULL); /* in order */
    make_ready(read[0]);
    schedule_read_done(b.s, read[0]);
    CHECK_INT(pick_offset(&b, &any), 0);
    CHECK_INT(pick_offset(&b, &any), 1);
    CHECK(schedule_pick(b.s, &any) == NULL);
    schedule_remove(b.s, read[2]); /* cancelled while being read */
    make_ready(read[3]);
    schedule_read_done(b.s, read[3]);
    CHECK_INT(pick_offset(&b, &any), 3);
    CHECK_INT(schedule_read(t[4]->flow, read, 8), 4);
    CHECK_INT(read[0]->offset, 4);
    close_box(&b);
}

TEST(a_read_asks_for_one_topic_in_order)
{
    struct task *t[4], *read[4];
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 4; i++) {
        t[i] = make(&b, PRIORITY_NORMAL, "t", "m", 10);
        t[i]->topic = i >= 2;
        schedule_add(b.s, t[i]);
    }
    CHECK_INT(schedule_read(t[0]->flow, read, 4), 2);
    CHECK_INT(schedule_read(t[0]->flow, read, 4), 2);
    CHECK_INT(schedule_read(t[0]->flow, read, 4), 0);
    close_box(&b);
}

TEST(a_chilled_task_is_read_again)
{
    struct task *t[3], *read[3];
    struct box b;
    int i;

    open_box(&b);
    for (i = 0; i < 3; i++)
        t[i] = add(&b, PRIORITY_NORMAL, "t", "m", 10);
    free_ready(t[2], NULL);
    schedule_chill(b.s, t[2]);
    CHECK_INT(schedule_read(t[0]->flow, read, 3), 1);
    CHECK(read[0] == t[2]);
    close_box(&b);
}

/* Random adds, picks, removals and returns; each task comes out once, in its flow's order. */
TEST(nothing_is_lost_or_doubled)
{
    enum { N = 20000 };
    static bool is_out[N];
    uint64_t random = 88172645463325252U;
    struct task *t, *held = NULL;
    struct box b;
    int n_out = 0;
    char tenant[8], model[8];

    open_box(&b);
    while (n_out < N) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (b.offset < N && random % 5 < 3) {
            snprintf(tenant, sizeof tenant, "t%d", (int)(random >> 8 & 15));
            snprintf(model, sizeof model, "m%d", (int)(random >> 16 & 3));
            add(&b, (enum priority)((random >> 20) % 3), tenant, model,
                (uint32_t)(random >> 24 & 1023) + 1);
            continue;
        }
        t = schedule_pick(b.s, &any);
        if (t && !held && random % 7 == 0) {
            held = t;
        } else if (t) {
            CHECK(!is_out[t->offset]);
            is_out[t->offset] = true;
            n_out++;
            end(&b, t);
        }
        if (held && (!t || random % 11 == 0)) {
            schedule_put_back(b.s, held);
            held = NULL;
        }
    }
    CHECK_INT(b.tasks.n, 0);
    close_box(&b);
}

static size_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    size_t pages = 0, all = 0;

    CHECK(f && fscanf(f, "%zu %zu", &all, &pages) == 2);
    fclose(f);
    return pages * 4096;
}

TEST(a_million_waiting_jobs_take_96_bytes_each)
{
    enum { N = 1000000 };
    size_t before, after;
    int64_t start, took;
    struct task *t;
    char tenant[8];
    struct box b;
    int i;

    open_box(&b);
    before = resident_bytes();
    start = clock_mono_ms();
    for (i = 0; i < N; i++) {
        snprintf(tenant, sizeof tenant, "t%d", i % 100);
        t = make(&b, PRIORITY_NORMAL, tenant, "m", 10);
        schedule_add(b.s, t);
    }
    took = clock_mono_ms() - start;
    after = resident_bytes();
    printf("# %d tasks: %zu bytes each (with slack), %lld ns each\n", N, (after - before) / N,
           (long long)(took * 1000000 / N));
    CHECK(b.tasks.n_slots * sizeof(void *) + N * sizeof(struct task) <= (size_t)N * 96);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK((after - before) / N <= 97); /* tenants and flows besides */
#endif
    close_box(&b);
}
