/* Several gateways on one log and one Redis; the flow test 80_redis has one gateway and Redis'
 * faults. */
#include "store/hot.h"
#include "tests/store/fixture.h"
#include "tests/store/redis_rig.h"

enum { N_GATEWAYS = 3, N_JOBS = 300 };

struct gateways {
    struct fixture *fx;
    struct hot *hot[N_GATEWAYS];
    pid_t redis;
};

static void on_commit(void *data)
{
    struct gateways *g = data;

    for (int i = 0; i < N_GATEWAYS; i++)
        if (g->hot[i])
            hot_changed(g->hot[i]);
}

static struct hot *new_hot(struct gateways *g)
{
    struct hot *h = hot_new(&g->fx->config, g->fx->live, g->fx->writer, NULL);
    struct err e = {0};

    CHECK_INT(hot_start(h, &e), 0);
    return h;
}

static void open_gateways(struct gateways *g)
{
    static char data[] = ".", prefix[] = "genq";
    char *url;

    g->redis = start_redis(&url);
    g->fx = fx_new();
    g->fx->config.data = data;
    g->fx->config.broker_kind = BROKER_KIND_KAFKA; /* whose log is everybody's */
    g->fx->config.broker_prefix = prefix;
    g->fx->config.redis_url = url;
    g->fx->config.redis_hot_s = 3600;
    g->fx->now_ms = clock_wall_ms();
    store_set_on_commit(g->fx->writer, on_commit, g);
    for (int i = 0; i < N_GATEWAYS; i++)
        g->hot[i] = NULL;
}

static void close_gateways(struct gateways *g)
{
    for (int i = 0; i < N_GATEWAYS; i++)
        if (g->hot[i])
            hot_free(g->hot[i]);
    fx_free(g->fx);
    end_redis(g->redis);
}

static void end_jobs(struct gateways *g, int from, int to)
{
    char json[200];

    for (int i = from; i < to; i++) {
        snprintf(json, sizeof json,
                 "{\"id\":\"j%d\",\"model\":\"m\",\"prompt\":\"p\",\"tenant\":\"t\"}", i);
        fx_begin(g->fx);
        CHECK_INT(fx_job(g->fx, json), 0);
        CHECK_INT(fx_end_job(g->fx, json, STATE_SUCCEEDED, 2, NULL), 0);
        CHECK_INT(fx_end(g->fx, true), 0);
    }
}

/* What an hour's counters say of n jobs of two calls each, one of them wasted. */
static void await_counted(int n)
{
    char want[20];
    static const struct {
        const char *namez;
        int of_one;
    } counters[] = {{"succeeded", 1},          {"calls", 2},         {"prompt_tokens", 20},
                    {"completion_tokens", 10}, {"cached_tokens", 4}, {"total_tokens", 30},
                    {"wasted_tokens", 15}};
    char words[100];

    await("HGET genq:feed:kafka.genq position", (snprintf(want, sizeof want, "%d", n), want));
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        snprintf(words, sizeof words, "HGET $(redis-cli -s r KEYS 'genq:usage:t:*') %s",
                 counters[i].namez);
        snprintf(want, sizeof want, "%d", n * counters[i].of_one);
        CHECK_STR(ask(words), want);
    }
    snprintf(words, sizeof words, "HGET $(redis-cli -s r KEYS 'genq:usage:t:*') cost");
    snprintf(want, sizeof want, "%g", n * 0.5);
    CHECK_STR(ask(words), want);
}

TEST(several_gateways_count_and_publish_once)
{
    const char *const args[] = {"redis-cli", "-s", "r", "subscribe", "genq:completions", NULL};
    struct gateways g;
    pid_t subscriber;
    char line[8192];
    int n = 0;
    FILE *f;

    open_gateways(&g);
    subscriber = start_program("redis-cli", args, "published");
    await("PUBSUB NUMSUB genq:completions | tail -1", "1");
    g.hot[0] = new_hot(&g);
    g.hot[1] = new_hot(&g);
    end_jobs(&g, 0, N_JOBS);
    g.hot[2] = new_hot(&g); /* one that comes later, to a log that is there */
    end_jobs(&g, N_JOBS, 2 * N_JOBS);
    await_counted(2 * N_JOBS);
    await("PUBSUB NUMSUB genq:completions | tail -1", "1");
    kill(subscriber, SIGTERM);
    waitpid(subscriber, NULL, 0);
    f = fopen("published", "r");
    CHECK(f);
    while (fgets(line, sizeof line, f))
        n += line[0] == '{';
    fclose(f);
    CHECK_INT(n, 2 * N_JOBS);
    close_gateways(&g);
}

/* Its end was long ago: it is counted, and not kept. */
TEST(old_ends_are_counted_alone)
{
    struct gateways g;

    open_gateways(&g);
    g.fx->now_ms -= 2 * 3600 * 1000;
    end_jobs(&g, 0, 3);
    g.hot[0] = new_hot(&g);
    await_counted(3);
    CHECK_STR(ask("KEYS genq:job:*"), "");
    close_gateways(&g);
}

TEST(closed_before_it_is_started)
{
    struct fixture *fx = fx_new();

    hot_free(hot_new(&fx->config, fx->live, fx->writer, NULL));
    fx_free(fx);
}
