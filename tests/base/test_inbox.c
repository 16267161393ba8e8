#include "base/inbox.h"
#include "base/buf.h"
#include "tests/lib/test.h"
#include <stdlib.h>

#define N_THREADS 4
#define N_POSTS 20000

struct note {
    struct message m;
    struct inbox *inbox;
    uv_loop_t *loop;
    int from, i;
};

static int next_of[N_THREADS], n_received;
static struct inbox *shared;
static uv_loop_t *shared_loop;

static void on_counted(struct message *m)
{
    struct note *note = LIST_ENTRY(m, struct note, m);

    CHECK_INT(note->i, next_of[note->from]); /* in the order of its thread */
    next_of[note->from]++;
    n_received++;
    if (n_received == N_THREADS * N_POSTS)
        uv_stop(note->loop);
    free(note);
}

static void post_many(void *data)
{
    int from = *(int *)data;

    for (int i = 0; i < N_POSTS; i++) {
        struct note *note = xcalloc(1, sizeof *note);

        *note = (struct note){{{NULL, NULL}, on_counted}, shared, shared_loop, from, i};
        inbox_post(shared, &note->m);
    }
}

TEST(threads_post_to_one_loop)
{
    uv_loop_t loop;
    uv_thread_t threads[N_THREADS];
    int names[N_THREADS];

    CHECK_INT(uv_loop_init(&loop), 0);
    shared = inbox_new(&loop);
    shared_loop = &loop;
    for (int i = 0; i < N_THREADS; i++) {
        names[i] = i;
        CHECK_INT(uv_thread_create(&threads[i], post_many, &names[i]), 0);
    }
    uv_run(&loop, UV_RUN_DEFAULT); /* until the last has come */
    CHECK_INT(n_received, N_THREADS * N_POSTS);
    for (int i = 0; i < N_THREADS; i++)
        CHECK_INT(uv_thread_join(&threads[i]), 0);
    inbox_free(shared);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_close(&loop), 0);
}

static void on_note(struct message *m)
{
    (void)m;
    n_received++;
}

TEST(drain_handles_what_is_there)
{
    uv_loop_t loop;
    struct inbox *b;
    struct message m[2] = {{.on_receive = on_note}, {.on_receive = on_note}};

    CHECK_INT(uv_loop_init(&loop), 0);
    b = inbox_new(&loop);
    inbox_post(b, &m[0]);
    inbox_drain(b);
    CHECK_INT(n_received, 1);
    CHECK(!list_is_linked(&m[0].node)); /* the handler's again */
    inbox_post(b, &m[0]);
    inbox_post(b, &m[1]);
    uv_run(&loop, UV_RUN_ONCE);
    CHECK_INT(n_received, 3);
    inbox_free(b);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_close(&loop), 0);
}

static void on_reposted(struct message *m)
{
    struct note *note = LIST_ENTRY(m, struct note, m);

    n_received++;
    if (n_received < 3) {
        inbox_post(note->inbox, m);
        if (n_received == 1)
            inbox_drain(note->inbox); /* from within a handler */
    } else {
        inbox_free(note->inbox);
    }
}

TEST(handler_may_post_drain_and_free)
{
    uv_loop_t loop;
    struct note note = {.m.on_receive = on_reposted};

    CHECK_INT(uv_loop_init(&loop), 0);
    note.inbox = inbox_new(&loop);
    inbox_post(note.inbox, &note.m);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(n_received, 3);
    CHECK_INT(uv_loop_close(&loop), 0);
}

static void on_free(struct message *m)
{
    n_received++;
    inbox_free(LIST_ENTRY(m, struct note, m)->inbox);
}

TEST(free_drops_what_is_left)
{
    uv_loop_t loop;
    struct note a = {.m.on_receive = on_free}, b = {.m.on_receive = on_note};

    CHECK_INT(uv_loop_init(&loop), 0);
    a.inbox = inbox_new(&loop);
    inbox_post(a.inbox, &a.m);
    inbox_post(a.inbox, &b.m);
    CHECK_INT(uv_run(&loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(n_received, 1);
    CHECK_INT(uv_loop_close(&loop), 0);
}
