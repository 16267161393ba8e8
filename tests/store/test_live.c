#include "store/live.h"
#include "tests/lib/test.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define T STR("default")

struct waiter {
    struct watcher w;
    atomic_int n_woken;
};

static void on_wake(struct watcher *w)
{
    atomic_fetch_add(&((struct waiter *)(void *)w)->n_woken, 1);
}

static void start(struct live *l, const char *idz, int attempt, bool is_stream)
{
    live_start(l, T, str_z(idz), attempt, STR("gpu0"), 100 + attempt, is_stream);
}

static struct str events(struct live *l, const char *idz, int64_t after, struct buf *b,
                         int64_t *last)
{
    buf_clear(b);
    *last = live_events(l, T, str_z(idz), after, b);
    return buf_str(b);
}

static bool has(struct str s, const char *partz)
{
    return s.n && memmem(s.p, s.n, partz, strlen(partz));
}

TEST(view_follows_the_attempts)
{
    struct live *l = live_new(4096);
    struct live_view v;

    CHECK(!live_get(l, T, STR("a"), &v));
    start(l, "a", 1, false);
    CHECK(live_get(l, T, STR("a"), &v));
    CHECK(v.is_running);
    CHECK_INT(v.attempts, 1);
    CHECK_STR(str_z(v.node), "gpu0");
    live_requeue(l, T, STR("a"));
    CHECK(live_get(l, T, STR("a"), &v));
    CHECK(!v.is_running);
    CHECK_INT(v.attempts, 1);
    CHECK_STR(str_z(v.node), "");
    start(l, "a", 2, false);
    CHECK(live_get(l, T, STR("a"), &v));
    CHECK_INT(v.attempts, 2);
    CHECK_INT(v.started_at, 101);
    CHECK(!live_get(l, STR("other"), STR("a"), &v));
    live_end(l, T, STR("a"));
    CHECK(!live_get(l, T, STR("a"), &v));
    live_free(l);
}

static void count_running(void *data, struct str tenant, struct str id)
{
    CHECK_STR(tenant, "default");
    CHECK_STR(id, "a");
    ++*(int *)data;
}

TEST(each_running_leaves_out_those_that_wait)
{
    struct live *l = live_new(4096);
    int n = 0;

    live_each_running(l, INT64_MAX, count_running, &n);
    start(l, "a", 1, false);
    start(l, "b", 1, false);
    live_requeue(l, T, STR("b"));
    live_each_running(l, INT64_MAX, count_running, &n);
    CHECK_INT(n, 1);
    live_each_running(l, 101, count_running, &n); /* when it began */
    CHECK_INT(n, 1);
    live_free(l);
}

TEST(watcher_is_woken_until_it_leaves)
{
    struct live *l = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}}, feed = {.w = {.on_wake = on_wake}};

    live_watch(l, T, STR("a"), &job.w);
    live_watch(l, STR_NONE, STR_NONE, &feed.w);
    start(l, "a", 1, true);
    start(l, "b", 1, true);
    live_delta(l, T, STR("a"), STR("x"));
    live_delta(l, T, STR("b"), STR("x"));
    CHECK_INT(job.n_woken, 2);
    live_end(l, T, STR("a"));
    CHECK_INT(job.n_woken, 3);
    CHECK_INT(feed.n_woken, 0);
    live_feed(l);
    CHECK_INT(feed.n_woken, 1);
    live_unwatch(l, &job.w);
    live_unwatch(l, &feed.w);
    live_unwatch(l, &job.w); /* twice does no harm */
    live_end(l, T, STR("a"));
    live_feed(l);
    CHECK_INT(job.n_woken + feed.n_woken, 4);
    live_free(l);
}

TEST(stream_is_printed_from_any_number)
{
    struct live *l = live_new(4096);
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, true);
    live_delta(l, T, STR("a"), STR("Hel\n"));
    live_delta(l, T, STR("a"), STR("lo"));
    CHECK_STR(
        events(l, "a", 0, &b, &last),
        "id: 1\nevent: status\ndata: {\"status\":\"running\",\"attempt\":1,\"node\":\"gpu0\"}\n\n"
        "id: 2\nevent: delta\ndata: {\"attempt\":1,\"seq\":2,\"text\":\"Hel\\n\"}\n\n"
        "id: 3\nevent: delta\ndata: {\"attempt\":1,\"seq\":3,\"text\":\"lo\"}\n\n");
    CHECK_INT(last, 3);
    CHECK_STR(events(l, "a", 2, &b, &last),
              "id: 3\nevent: delta\ndata: {\"attempt\":1,\"seq\":3,\"text\":\"lo\"}\n\n");
    CHECK_STR(events(l, "a", 3, &b, &last), "");
    CHECK_INT(last, 3);
    CHECK_STR(events(l, "none", 3, &b, &last), "");
    CHECK_INT(last, 3);
    CHECK(events(l, "a", 99, &b, &last).n > 0); /* of a stream that is no more */
    CHECK_INT(last, 3);
    buf_release(&b);
    live_free(l);
}

TEST(new_attempt_voids_the_text_before)
{
    struct live *l = live_new(4096);
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, true);
    live_delta(l, T, STR("a"), STR("wrong"));
    live_requeue(l, T, STR("a"));
    CHECK_STR(
        events(l, "a", 2, &b, &last),
        "id: 3\nevent: status\ndata: {\"status\":\"queued\",\"attempt\":1,\"node\":null}\n\n");
    start(l, "a", 2, true);
    live_delta(l, T, STR("a"), STR("right"));
    CHECK_STR(
        events(l, "a", 1, &b, &last),
        "id: 4\nevent: restart\ndata: {\"attempt\":2}\n\n"
        "id: 5\nevent: status\ndata: {\"status\":\"running\",\"attempt\":2,\"node\":\"gpu0\"}\n\n"
        "id: 6\nevent: delta\ndata: {\"attempt\":2,\"seq\":6,\"text\":\"right\"}\n\n");
    CHECK_INT(last, 6);
    buf_release(&b);
    live_free(l);
}

TEST(attempt_without_text_needs_no_restart)
{
    struct live *l = live_new(4096);
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, true);
    live_requeue(l, T, STR("a"));
    start(l, "a", 2, true);
    CHECK(!has(events(l, "a", 0, &b, &last), "restart"));
    CHECK_INT(last, 3);
    buf_release(&b);
    live_free(l);
}

TEST(slow_watcher_gets_the_text_after_the_end)
{
    struct live *l = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}};
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    live_watch(l, T, STR("a"), &job.w);
    start(l, "a", 1, true);
    live_delta(l, T, STR("a"), STR("text"));
    live_end(l, T, STR("a"));
    live_delta(l, T, STR("a"), STR("too late"));
    CHECK(has(events(l, "a", 0, &b, &last), "\"text\":\"text\""));
    CHECK_INT(last, 2);
    live_unwatch(l, &job.w);
    CHECK_STR(events(l, "a", 0, &b, &last), "");
    buf_release(&b);
    live_free(l);
}

TEST(text_past_the_ceiling_is_dropped_and_told_once)
{
    struct live *l = live_new(200);
    struct buf b;
    int64_t last;
    int i;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, true);
    for (i = 0; i < 100; i++)
        live_delta(l, T, STR("a"), STR("0123456789"));
    live_delta(l, T, STR("a"), STR("x")); /* would fit, but there is a gap before it */
    events(l, "a", 0, &b, &last);
    CHECK(last < 15);
    CHECK(b.n > 26);
    CHECK_STR(str_of(b.p + b.n - 26, 26), "\"text\":\"\",\"is_cut\":true}\n\n");
    start(l, "a", 2, true);
    live_delta(l, T, STR("a"), STR("again"));
    events(l, "a", last, &b, &last);
    CHECK(has(buf_str(&b), "restart") && has(buf_str(&b), "again"));
    buf_release(&b);
    live_free(l);
}

TEST(job_that_is_not_streamed_keeps_no_text)
{
    struct live *l = live_new(4096);
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, false);
    live_delta(l, T, STR("a"), STR("text"));
    CHECK(!has(events(l, "a", 0, &b, &last), "text"));
    buf_release(&b);
    live_free(l);
}

TEST(frames_are_whole_in_a_small_buffer)
{
    struct live *l = live_new(4096);
    struct buf b;
    int64_t last = 0, before;
    int n = 0;

    buf_init(&b, 100);
    start(l, "a", 1, true);
    for (n = 0; n < 10; n++)
        live_delta(l, T, STR("a"), STR("text"));
    do {
        before = last;
        events(l, "a", before, &b, &last);
        CHECK(b.n == 0 || memcmp(b.p + b.n - 3, "}\n\n", 3) == 0);
        CHECK(!b.is_over);
    } while (last > before);
    CHECK_INT(last, 11);
    buf_release(&b);
    live_free(l);
}

/* ---- copies ---- */

struct copying {
    struct live *to;
    int64_t last, top; /* numbers there, and where it is copied to */
    int n, n_most;
};

static bool copy_part(void *data, const struct stream_part *p)
{
    struct copying *c = data;
    struct stream_part other = *p;

    if (c->n == c->n_most)
        return false;
    other.last = ++c->top;
    live_mirror(c->to, T, STR("a"), &other);
    c->last = p->last;
    c->n++;
    return true;
}

/* As hot does it, between two processes. */
static void copy(struct live *l, struct copying *c, int n_most)
{
    c->n = 0;
    c->n_most = n_most;
    live_copy(l, T, STR("a"), c->last, copy_part, c);
}

TEST(a_stream_is_copied_for_who_watches)
{
    struct live *l = live_new(4096), *to = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}};
    struct copying c = {.to = to};
    struct live_view v;
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    start(l, "a", 1, true);
    copy(l, &c, 100);
    CHECK_STR(events(to, "a", 0, &b, &last), ""); /* nobody watches */
    c.last = c.top = 0;
    live_watch(to, T, STR("a"), &job.w);
    live_delta(l, T, STR("a"), STR("Hel"));
    live_delta(l, T, STR("a"), STR("lo"));
    copy(l, &c, 1);
    CHECK(live_runs_elsewhere(to, T, STR("a")));
    CHECK(!live_get(to, T, STR("a"), &v)); /* that is not what it says of jobs here */
    copy(l, &c, 100);
    CHECK_INT(c.n, 1); /* deltas in a row are one */
    CHECK_INT(job.n_woken, 2);
    CHECK_STR(events(to, "a", 1, &b, &last),
              "id: 2\nevent: delta\ndata: {\"attempt\":1,\"seq\":2,\"text\":\"Hello\"}\n\n");
    live_requeue(l, T, STR("a"));
    copy(l, &c, 100);
    CHECK(!live_runs_elsewhere(to, T, STR("a")));
    start(l, "a", 2, true);
    live_delta(l, T, STR("a"), STR("new"));
    copy(l, &c, 100);
    CHECK_STR(
        events(to, "a", 3, &b, &last),
        "id: 4\nevent: restart\ndata: {\"attempt\":2}\n\n"
        "id: 5\nevent: status\ndata: {\"status\":\"running\",\"attempt\":2,\"node\":\"gpu0\"}\n\n"
        "id: 6\nevent: delta\ndata: {\"attempt\":2,\"seq\":6,\"text\":\"new\"}\n\n");
    live_end(to, T, STR("a"));
    CHECK(!live_runs_elsewhere(to, T, STR("a")));
    live_unwatch(to, &job.w);
    buf_release(&b);
    live_free(l);
    live_free(to);
}

static void mirror(struct live *l, int64_t number, enum stream_kind kind, const char *textz)
{
    live_mirror(
        l, T, STR("a"),
        &(struct stream_part){.last = number, .kind = kind, .attempt = 1, .data = str_z(textz)});
}

TEST(a_copy_keeps_the_numbers)
{
    struct live *l = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}};
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    live_watch(l, T, STR("a"), &job.w);
    mirror(l, 7, STREAM_RESTART, ""); /* one that begins in the middle */
    mirror(l, 8, STREAM_TEXT, "x");
    CHECK(has(events(l, "a", 0, &b, &last), "id: 7\nevent: restart"));
    CHECK_INT(last, 8);
    mirror(l, 12, STREAM_RESTART, ""); /* what stood between is void, and gone */
    mirror(l, 13, STREAM_TEXT, "y");
    CHECK(has(events(l, "a", 8, &b, &last), "id: 12\nevent: restart"));
    CHECK_INT(last, 13);
    mirror(l, 0, STREAM_RESTART, ""); /* one that was lost, and counts anew: we count on */
    mirror(l, 1, STREAM_TEXT, "z");
    CHECK(has(events(l, "a", 13, &b, &last), "id: 14\nevent: restart"));
    CHECK_INT(last, 15);
    mirror(l, 2, STREAM_CUT, "");
    mirror(l, 3, STREAM_TEXT, "after the cut");
    CHECK(has(events(l, "a", 15, &b, &last), "\"is_cut\":true"));
    CHECK_INT(last, 16);
    live_clear_mirror(l, T, STR("a"));
    CHECK_STR(events(l, "a", 0, &b, &last), "");
    mirror(l, 3, STREAM_RUNNING, "gpu1");
    CHECK(has(events(l, "a", 0, &b, &last), "id: 3\n"));
    live_unwatch(l, &job.w);
    buf_release(&b);
    live_free(l);
}

TEST(a_copy_has_its_own_ceiling)
{
    struct live *l = live_new(200);
    struct waiter job = {.w = {.on_wake = on_wake}};
    char text[120];
    struct buf b;
    int64_t last;

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    buf_init(&b, 1 << 16);
    live_watch(l, T, STR("a"), &job.w);
    mirror(l, 1, STREAM_RUNNING, "gpu0");
    mirror(l, 2, STREAM_TEXT, text);
    mirror(l, 3, STREAM_TEXT, text);
    mirror(l, 4, STREAM_TEXT, "y");
    CHECK(has(events(l, "a", 2, &b, &last), "\"is_cut\":true"));
    CHECK_INT(last, 3);
    live_unwatch(l, &job.w);
    buf_release(&b);
    live_free(l);
}

TEST(what_runs_here_takes_nothing_from_elsewhere)
{
    struct live *l = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}};
    struct buf b;
    int64_t last;

    buf_init(&b, 1 << 16);
    live_watch(l, T, STR("a"), &job.w);
    mirror(l, 1, STREAM_RUNNING, "gpu7");
    mirror(l, 2, STREAM_TEXT, "old");
    start(l, "a", 1, true);
    mirror(l, 3, STREAM_TEXT, "more");
    live_clear_mirror(l, T, STR("a"));
    CHECK(!live_runs_elsewhere(l, T, STR("a")));
    CHECK(has(events(l, "a", 2, &b, &last), "id: 3\nevent: restart"));
    CHECK(!has(buf_str(&b), "more"));
    live_end(l, T, STR("a"));
    mirror(l, 3, STREAM_TEXT, "more");
    CHECK(!has(events(l, "a", 0, &b, &last), "more"));
    live_unwatch(l, &job.w);
    buf_release(&b);
    live_free(l);
}

static void note_stream(void *data, struct str tenant, struct str id)
{
    CHECK_STR(tenant, "default");
    CHECK_STR(id, "a");
    ++*(int *)data;
}

TEST(streams_are_told_when_they_begin)
{
    struct live *l = live_new(4096);
    int n = 0;

    live_tell_streams(l, note_stream, &n);
    start(l, "b", 1, false);
    start(l, "a", 1, true);
    live_requeue(l, T, STR("a"));
    start(l, "a", 2, true); /* the same stream */
    CHECK_INT(n, 1);
    live_end(l, T, STR("a"));
    start(l, "a", 1, true);
    CHECK_INT(n, 2);
    live_free(l);
}

TEST(ids_that_cannot_be_are_harmless)
{
    struct live *l = live_new(4096);
    struct waiter job = {.w = {.on_wake = on_wake}};
    struct live_view v;
    char longz[200];

    memset(longz, 'x', sizeof longz);
    live_watch(l, T, str_of(longz, sizeof longz), &job.w);
    live_start(l, T, str_of(longz, sizeof longz), 1, STR("n"), 1, true);
    CHECK(!live_get(l, T, str_of(longz, sizeof longz), &v));
    live_end(l, T, str_of(longz, sizeof longz));
    live_unwatch(l, &job.w);
    live_free(l);
}

/* ---- threads ---- */

enum { JOBS = 200, ROUNDS = 5 };

static struct str id_of(int i, char text[16])
{
    return str_of(text, (size_t)snprintf(text, 16, "job-%d", i));
}

static void *work(void *data)
{
    struct live *l = data;
    char text[16];
    int round, i;

    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < JOBS; i++) {
            live_start(l, T, id_of(i, text), 1, STR("gpu0"), 1, true);
            live_delta(l, T, id_of(i, text), STR("token"));
            live_requeue(l, T, id_of(i, text));
            live_start(l, T, id_of(i, text), 2, STR("gpu1"), 1, true);
            live_delta(l, T, id_of(i, text), STR("token"));
        }
    }
    return NULL;
}

static void *finish(void *data)
{
    struct live *l = data;
    char text[16];
    int round, i;

    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < JOBS; i++)
            live_end(l, T, id_of(i, text));
        live_feed(l);
    }
    return NULL;
}

static void *watch(void *data)
{
    struct live *l = data;
    struct waiter job, feed = {.w = {.on_wake = on_wake}};
    struct live_view v;
    struct buf b;
    char text[16];
    int round, i, n;

    buf_init(&b, 1 << 16);
    live_watch(l, STR_NONE, STR_NONE, &feed.w);
    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < JOBS; i++) {
            job = (struct waiter){.w = {.on_wake = on_wake}};
            live_watch(l, T, id_of(i, text), &job.w);
            buf_clear(&b);
            live_events(l, T, id_of(i, text), 0, &b);
            live_get(l, T, id_of(i, text), &v);
            live_unwatch(l, &job.w);
            n = atomic_load(&job.n_woken);
            CHECK_INT(atomic_load(&job.n_woken), n); /* nobody wakes it now */
        }
    }
    live_unwatch(l, &feed.w);
    buf_release(&b);
    return NULL;
}

TEST(worker_store_and_gateway_at_once)
{
    static void *(*const roles[])(void *) = {work, finish, watch, watch};
    struct live *l = live_new(4096);
    pthread_t threads[4];
    char text[16];
    struct live_view v;
    int i;

    for (i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, roles[i], l), 0);
    for (i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < JOBS; i++) {
        live_end(l, T, id_of(i, text));
        CHECK(!live_get(l, T, id_of(i, text), &v));
    }
    live_free(l);
}
