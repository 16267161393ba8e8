/* Two workers and a gateway in one process, each with a `live` of its own, which meet in a real
 * Redis; the flow test 75_live has processes, and a Kafka. */
#include "store/hot.h"
#include "tests/store/fixture.h"
#include "tests/store/redis_rig.h"
#include <pthread.h>
#include <stdatomic.h>

#define T STR("t")
#define KEY "genq:stream:t/a"
enum { LIVE_BYTES = 1 << 20 };

struct worker {
    struct live *live;
    struct nodes *nodes;
    struct hot *hot;
};

struct rig {
    struct fixture *fx;
    struct worker one, two;
    struct hot *gateway;
    struct hot_stream *stream;
    struct watcher watcher;
    struct buf seen;
    pid_t redis;
};

static struct hot *start_hot(const struct config *c, struct live *live, struct store_writer *store,
                             struct nodes *nodes)
{
    struct hot *h = hot_new(c, live, store, nodes);
    struct err e = {0};

    CHECK_INT(hot_start(h, &e), 0);
    return h;
}

static void start_worker(struct rig *r, struct worker *w)
{
    w->live = live_new(LIVE_BYTES);
    w->nodes = nodes_new(1);
    w->hot = start_hot(&r->fx->config, w->live, NULL, w->nodes);
}

static void end_worker(struct worker *w)
{
    if (!w->live)
        return;
    hot_free(w->hot);
    nodes_free(w->nodes);
    live_free(w->live);
    w->live = NULL;
}

static void open_rig(struct rig *r)
{
    static char data[] = ".", prefix[] = "genq";
    char *url;

    memset(r, 0, sizeof *r);
    r->redis = start_redis(&url);
    r->fx = fx_new();
    r->fx->config.data = data;
    r->fx->config.broker_kind = BROKER_KIND_KAFKA;
    r->fx->config.broker_prefix = prefix;
    r->fx->config.redis_url = url;
    r->fx->config.redis_hot_s = 3600;
    r->gateway = start_hot(&r->fx->config, r->fx->live, r->fx->writer, NULL);
    start_worker(r, &r->one);
    start_worker(r, &r->two);
    buf_init(&r->seen, 1 << 24);
}

static void close_rig(struct rig *r)
{
    end_worker(&r->one);
    end_worker(&r->two);
    hot_free(r->gateway);
    fx_free(r->fx);
    buf_release(&r->seen);
    end_redis(r->redis);
}

/* ---- what happens ---- */

static void begin(struct worker *w, int attempt)
{
    live_start(w->live, T, STR("a"), attempt, STR("gpu0"), clock_wall_ms(), true);
}

static void say(struct worker *w, const char *textz)
{
    live_delta(w->live, T, STR("a"), str_z(textz));
}

static void on_wake(struct watcher *w)
{
    (void)w;
}

static void watch(struct rig *r)
{
    r->watcher.on_wake = on_wake;
    live_watch(r->fx->live, T, STR("a"), &r->watcher);
    r->stream = hot_watch(r->gateway, T, STR("a"));
    CHECK(r->stream);
}

static void leave(struct rig *r)
{
    hot_unwatch(r->gateway, r->stream);
    live_unwatch(r->fx->live, &r->watcher);
}

/* All events, as a late joiner has them. */
static struct str events(struct live *l, struct buf *b)
{
    buf_clear(b);
    live_events(l, T, STR("a"), 0, b);
    return buf_str(b);
}

static int count(struct str s, const char *partz)
{
    const char *at = s.n ? s.p : NULL;
    int n = 0;

    while (at && (at = strstr(at, partz)) != NULL) {
        at++;
        n++;
    }
    return n;
}

#define AWAIT(cond) \
    do { \
        int64_t until_ = clock_mono_ms() + LIMIT_MS; \
        while (!(cond)) { \
            CHECK(clock_mono_ms() < until_); \
            usleep(2000); \
        } \
    } while (0)

static bool sees(struct rig *r, const char *partz)
{
    return count(events(r->fx->live, &r->seen), partz) > 0;
}

/* ---- streams ---- */

TEST(a_late_watcher_has_all_of_it)
{
    struct watcher waits = {.on_wake = on_wake};
    struct rig r;
    struct buf all;
    int i;

    open_rig(&r);
    buf_init(&all, 1 << 24);
    for (i = 1; i <= 700; i++) { /* more than a page */
        begin(&r.one, i);
        live_requeue(r.one.live, T, STR("a"));
    }
    begin(&r.one, i);
    say(&r.one, "end");
    await("XLEN " KEY, "1402");
    watch(&r);
    AWAIT(hot_is_loaded(r.gateway, r.stream));
    CHECK_STR(events(r.fx->live, &r.seen), events(r.one.live, &all).p);
    live_watch(r.fx->live, T, STR("a"), &waits); /* for the end alone */
    leave(&r);
    say(&r.one, "less");
    await("XLEN " KEY, "1403");
    watch(&r); /* once more */
    AWAIT(sees(&r, "less"));
    live_unwatch(r.fx->live, &waits);
    CHECK_STR(events(r.fx->live, &r.seen), events(r.one.live, &all).p);
    live_end(r.one.live, T, STR("a"));
    AWAIT(atoi(ask("PTTL " KEY).p) <= 60000);
    CHECK(atoi(ask("PTTL " KEY).p) > 0);
    leave(&r);
    buf_release(&all);
    close_rig(&r);
}

TEST(many_watchers_are_as_one)
{
    struct watcher more = {.on_wake = on_wake};
    struct hot_stream *second;
    struct rig r;

    open_rig(&r);
    begin(&r.one, 1);
    say(&r.one, "x");
    watch(&r);
    live_watch(r.fx->live, T, STR("a"), &more);
    second = hot_watch(r.gateway, T, STR("a"));
    AWAIT(sees(&r, "\"x\""));
    leave(&r);
    say(&r.one, "y");
    AWAIT(sees(&r, "\"y\""));
    CHECK_INT(count(buf_str(&r.seen), "\"x\""), 1);
    CHECK_STR(ask("PUBSUB CHANNELS"), KEY);
    hot_unwatch(r.gateway, second);
    live_unwatch(r.fx->live, &more);
    await("PUBSUB CHANNELS", "");
    close_rig(&r);
}

TEST(who_begins_last_is_heard)
{
    struct rig r;

    open_rig(&r);
    watch(&r);
    begin(&r.one, 1);
    say(&r.one, "void");
    AWAIT(sees(&r, "void"));
    begin(&r.two, 1);
    say(&r.two, "new");
    AWAIT(sees(&r, "new"));
    say(&r.one, "late"); /* of one that had been asleep */
    say(&r.one, "later");
    say(&r.two, "er");
    AWAIT(sees(&r, "\"er\""));
    CHECK_INT(count(buf_str(&r.seen), "void"), 0);
    CHECK_INT(count(buf_str(&r.seen), "late"), 0);
    CHECK_INT(count(buf_str(&r.seen), "event: restart"), 1);
    CHECK_STR(str_of(r.seen.p, 24), "id: 3\nevent: restart\ndat");
    leave(&r);
    close_rig(&r);
}

TEST(a_redis_that_was_emptied_has_it_again)
{
    struct rig r;

    open_rig(&r);
    watch(&r);
    begin(&r.one, 1);
    say(&r.one, "x");
    AWAIT(sees(&r, "\"x\""));
    CHECK_STR(ask("FLUSHALL"), "OK");
    say(&r.one, "y");
    AWAIT(sees(&r, "y\""));
    AWAIT(count(events(r.fx->live, &r.seen), "\"text\":\"xy\"") == 1);
    CHECK_INT(count(buf_str(&r.seen), "event: restart"), 1);
    CHECK_STR(ask("FLUSHALL"), "OK");
    begin(&r.two, 1); /* elsewhere, where nobody knows how far it was */
    say(&r.two, "z");
    AWAIT(sees(&r, "\"z\""));
    CHECK_INT(count(buf_str(&r.seen), "xy"), 0);
    leave(&r);
    watch(&r);
    AWAIT(sees(&r, "\"z\""));
    leave(&r);
    close_rig(&r);
}

TEST(a_redis_that_was_full_has_it_later)
{
    struct err e = {0};
    struct rig r;

    open_rig(&r);
    watch(&r);
    begin(&r.one, 1);
    AWAIT(sees(&r, "running"));
    ask("CONFIG SET maxmemory 1");
    say(&r.one, "x");
    AWAIT(hot_health(r.one.hot, &e) == ERR_FULL);
    say(&r.one, "y");
    CHECK(!sees(&r, "delta"));
    ask("CONFIG SET maxmemory 0");
    AWAIT(sees(&r, "\"xy\""));
    leave(&r);
    close_rig(&r);
}

static void write_event(const char *idz, const char *eventz, const char *dataz, const char *runz)
{
    char words[300];

    snprintf(words, sizeof words, "XADD " KEY " %s event %s attempt 1 data %s run %s number 1", idz,
             eventz, dataz, runz);
    CHECK_STR(ask(words), idz);
}

/* It was lost and written again by another worker, and has come just past where we were. */
TEST(another_run_is_read_from_its_beginning)
{
    struct rig r;

    open_rig(&r);
    watch(&r);
    await("PUBSUB NUMSUB " KEY " | tail -1", "1");
    write_event("1-0", "running", "gpu0", "r1");
    write_event("2-0", "delta", "old", "r1");
    ask("PUBLISH " KEY " '2 r1'");
    AWAIT(sees(&r, "old"));
    ask("DEL " KEY);
    write_event("1-0", "running", "gpu0", "r2");
    write_event("2-0", "delta", "abc", "r2");
    write_event("3-0", "delta", "def", "r2");
    ask("PUBLISH " KEY " '3 r2'");
    AWAIT(sees(&r, "def"));
    CHECK(sees(&r, "abc") && !sees(&r, "old"));
    CHECK_INT(count(buf_str(&r.seen), "event: restart"), 1);
    leave(&r);
    close_rig(&r);
}

TEST(what_others_write_there_does_no_harm)
{
    struct rig r;

    open_rig(&r);
    watch(&r);
    await("PUBSUB NUMSUB " KEY " | tail -1", "1");
    ask("XADD " KEY " 1-0 a b");
    ask("XADD " KEY " 1-1 event delta attempt x data y run z");
    write_event("2-0", "nonsense", "x", "r");
    ask("PUBLISH " KEY " nonsense");
    ask("PUBLISH " KEY " '99999999999999999999 r'");
    write_event("3-0", "delta", "fine", "r");
    ask("PUBLISH " KEY " '3 r'");
    AWAIT(sees(&r, "fine"));
    begin(&r.one, 1);
    say(&r.one, "taken over");
    AWAIT(sees(&r, "taken over") && !sees(&r, "fine"));
    leave(&r);
    close_rig(&r);
}

TEST(a_key_that_is_no_stream_holds_nothing_up)
{
    struct rig r;

    open_rig(&r);
    ask("SET " KEY " mine");
    watch(&r);
    AWAIT(hot_is_loaded(r.gateway, r.stream));
    begin(&r.one, 1);
    say(&r.one, "x");
    live_start(r.one.live, T, STR("b"), 1, STR("gpu0"), clock_wall_ms(), true);
    await("XLEN genq:stream:t/b", "1");
    CHECK_STR(ask("GET " KEY), "mine");
    leave(&r);
    close_rig(&r);
}

TEST(what_redis_does_not_take_is_not_kept)
{
    struct live_view v;
    struct watcher w = {.on_wake = on_wake};
    struct rig r;
    char text[1000];
    int i;

    open_rig(&r);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    begin(&r.one, 1);
    await("XLEN " KEY, "1");
    kill(r.redis, SIGSTOP);
    say(&r.one, text);
    live_end(r.one.live, T, STR("a"));
    CHECK(events(r.one.live, &r.seen).n > 0);
    for (i = 0; i < 3; i++) { /* others come and go meanwhile */
        live_start(r.one.live, T, STR("b"), 1, STR("gpu0"), clock_wall_ms(), true);
        live_end(r.one.live, T, STR("b"));
    }
    AWAIT(events(r.one.live, &r.seen).n == 0);
    CHECK(!live_get(r.one.live, T, STR("a"), &v));
    kill(r.redis, SIGCONT);
    live_watch(r.one.live, T, STR("c"), &w);
    live_start(r.one.live, T, STR("c"), 1, STR("gpu0"), clock_wall_ms(), true);
    await("XLEN genq:stream:t/c", "1");
    live_unwatch(r.one.live, &w);
    close_rig(&r);
}

/* ---- states ---- */

static void on_ready(void *data)
{
    ++*(atomic_int *)data;
}

static bool look(struct rig *r, struct live_view *v)
{
    atomic_int n_ready = 0;
    struct hot_look *k = hot_look_new(r->gateway, on_ready, &n_ready);
    bool is_known;

    CHECK(hot_look_add(k, T, STR("other")));
    CHECK(hot_look_add(k, T, STR("a")));
    CHECK(!hot_look_get(k, T, STR("a"), v));
    hot_look_ask(k);
    AWAIT(hot_look_is_ready(k));
    CHECK(!hot_look_get(k, T, STR("other"), v));
    is_known = hot_look_get(k, T, STR("a"), v);
    hot_look_leave(k);
    CHECK_INT(n_ready, 1);
    return is_known;
}

static void on_running(void *data, struct str tenant, struct str id)
{
    struct buf *b = data;

    buf_addf(b, "%.*s/%.*s ", STR_ARG(tenant), STR_ARG(id));
}

/* Names and their attempts, as far as they are given. */
static struct str all_running(struct rig *r)
{
    atomic_int n_ready = 0;
    struct hot_look *k = hot_look_new(r->gateway, on_ready, &n_ready);

    hot_look_all(k);
    hot_look_ask(k);
    AWAIT(hot_look_is_ready(k));
    buf_clear(&r->seen);
    hot_look_each(k, on_running, &r->seen);
    hot_look_leave(k);
    return r->seen.n ? buf_str(&r->seen) : STR("");
}

TEST(a_look_finds_all_that_run)
{
    struct rig r;
    int64_t now_ms = clock_wall_ms();

    open_rig(&r);
    CHECK_STR(all_running(&r), "");
    live_start(r.one.live, T, STR("a"), 1, STR("gpu0"), now_ms, false);
    live_start(r.two.live, T, STR("b"), 1, STR("gpu0"), now_ms, false);
    live_start(r.two.live, T, STR("c"), 1, STR("gpu0"), now_ms, false);
    AWAIT(all_running(&r).n == 12);
    live_requeue(r.two.live, T, STR("c"));
    ask("DEL genq:job:t/b"); /* as one whose end and hash are long gone */
    AWAIT(str_eqz(all_running(&r), "t/a "));
    CHECK_STR(ask("SMEMBERS genq:running"), "t/a");
    end_worker(&r.one);
    CHECK_STR(all_running(&r), "");
    ask("DEL genq:running");
    ask("SET genq:running mine");
    CHECK_STR(all_running(&r), "");
    close_rig(&r);
}

TEST(a_look_knows_what_runs_elsewhere)
{
    struct rig r;
    struct live_view v;
    int64_t now_ms = clock_wall_ms();

    open_rig(&r);
    AWAIT(!look(&r, &v));
    live_start(r.one.live, T, STR("a"), 2, STR("gpu0"), now_ms, false);
    AWAIT(look(&r, &v));
    CHECK(v.is_running);
    CHECK_INT(v.attempts, 2);
    CHECK_INT(v.started_at, now_ms);
    CHECK_STR(str_z(v.node), "gpu0");
    live_requeue(r.one.live, T, STR("a"));
    AWAIT(look(&r, &v) && !v.is_running);
    CHECK_INT(v.attempts, 2);
    CHECK_STR(str_z(v.node), "");
    live_start(r.one.live, T, STR("a"), 3, STR("gpu1"), now_ms, false);
    AWAIT(look(&r, &v) && v.is_running);
    live_start(r.two.live, T, STR("a"), 1, STR("gpu2"), now_ms, false); /* it was lost */
    AWAIT(look(&r, &v) && v.attempts == 1);
    live_requeue(r.one.live, T, STR("a")); /* … and found: what is newer stays */
    usleep(600000);
    CHECK(look(&r, &v) && v.is_running);
    CHECK_STR(str_z(v.node), "gpu2");
    ask("DEL genq:worker:$(redis-cli -s r HGET genq:job:t/a worker)"); /* as after a kill */
    CHECK(look(&r, &v) && !v.is_running);
    close_rig(&r);
}

TEST(a_redis_that_was_emptied_knows_again_what_runs)
{
    struct rig r;
    struct live_view v;

    open_rig(&r);
    live_start(r.one.live, T, STR("a"), 1, STR("gpu0"), clock_wall_ms(), false);
    AWAIT(look(&r, &v));
    ask("FLUSHALL");
    CHECK(!look(&r, &v));
    AWAIT(look(&r, &v) && v.is_running);
    ask("SCRIPT FLUSH");
    AWAIT(look(&r, &v) && v.is_running);
    close_rig(&r);
}

struct chatter {
    struct worker *worker;
    atomic_bool is_over;
};

static void *chat(void *data)
{
    struct chatter *c = data;

    while (!atomic_load(&c->is_over)) {
        say(c->worker, "x");
        usleep(20);
    }
    return NULL;
}

/* A batch of tokens follows the other without a gap. */
TEST(many_tokens_do_not_hold_up_the_rest)
{
    struct live_view v;
    struct chatter c = {.is_over = false};
    pthread_t thread;
    struct rig r;

    open_rig(&r);
    begin(&r.one, 1);
    c.worker = &r.one;
    CHECK_INT(pthread_create(&thread, NULL, chat, &c), 0);
    AWAIT(look(&r, &v) && v.is_running);
    atomic_store(&c.is_over, true);
    pthread_join(thread, NULL);
    close_rig(&r);
}

TEST(who_leaves_early_is_not_told)
{
    atomic_int n_ready = 0;
    struct hot_look *k;
    struct rig r;
    int i;

    open_rig(&r);
    await("HEXISTS genq:feed:kafka.genq position", "1"); /* the gateway is there */
    kill(r.redis, SIGSTOP);
    for (i = 0; i < 100; i++) {
        k = hot_look_new(r.gateway, on_ready, &n_ready);
        hot_look_add(k, T, STR("a"));
        if (i % 3)
            hot_look_ask(k);
        hot_look_leave(k);
    }
    k = hot_look_new(r.gateway, on_ready, &n_ready);
    hot_look_add(k, T, STR("a"));
    hot_look_ask(k);
    usleep(50000);
    hot_look_leave(k);
    CHECK_INT(n_ready, 0);
    kill(r.redis, SIGCONT);
    close_rig(&r);
}
