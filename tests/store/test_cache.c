#include "base/buf.h"
#include "store/cache_file.h"
#include "store/cache_internal.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const uint8_t *key(int i)
{
    static uint8_t bytes[SHA256_LEN];

    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &i, sizeof i);
    return bytes;
}

static void put(struct cache_file *f, int i, struct str output)
{
    cache_file_put(f, key(i), output);
    cache_file_commit(f);
}

static bool has(struct cache_file *f, int i, struct str output)
{
    struct str found = cache_file_get(f, key(i));
    bool is_same = found.p && str_eq(found, output);

    free((char *)(uintptr_t)found.p);
    return is_same;
}

TEST(a_file_gives_back_what_it_was_given)
{
    struct cache_file f;

    cache_file_init(&f, ".", 60, 1 << 20);
    CHECK(!cache_file_is_there(&f));
    CHECK(!has(&f, 1, STR("{\"text\":\"a\"}")));
    put(&f, 1, STR("{\"text\":\"a\"}"));
    put(&f, 2, STR("{}"));
    CHECK(has(&f, 1, STR("{\"text\":\"a\"}")) && has(&f, 2, STR("{}")) && !has(&f, 3, STR("")));
    put(&f, 1, STR("{\"text\":\"b\"}")); /* another in its place */
    CHECK(has(&f, 1, STR("{\"text\":\"b\"}")));
    CHECK_INT(f.n, 2);
    cache_file_close(&f);
    cache_file_init(&f, ".", 60, 1 << 20);
    CHECK(cache_file_is_there(&f) && has(&f, 1, STR("{\"text\":\"b\"}")));
    CHECK_INT(f.n, 2);
    cache_file_close(&f);
}

TEST(the_oldest_go_when_there_is_no_room)
{
    struct cache_file f;
    struct str output = STR("{\"text\":\"0123456789\"}");
    int64_t one;
    int i;

    cache_file_init(&f, ".", 60, 1 << 20);
    put(&f, 0, output);
    one = f.bytes;
    f.max_bytes = 10 * one;
    for (i = 1; i < 25; i++)
        put(&f, i, output);
    CHECK_INT(f.n, 10);
    CHECK_INT(f.bytes, 10 * one);
    CHECK(!has(&f, 14, output) && has(&f, 15, output) && has(&f, 24, output));
    put(&f, 15, output); /* young again */
    put(&f, 25, output);
    CHECK(has(&f, 15, output) && !has(&f, 16, output));
    f.max_bytes = 5 * one; /* of a config that was changed */
    put(&f, 26, output);
    CHECK_INT(f.n, 5);
    cache_file_close(&f);
}

TEST(what_is_older_than_its_time_is_not_found_and_goes)
{
    struct cache_file f;
    struct str output = STR("{}");
    int i;

    cache_file_init(&f, ".", 60, 1 << 20);
    for (i = 0; i < 300; i++)
        put(&f, i, output);
    f.ttl_ms = -1;
    CHECK(!has(&f, 0, output));
    put(&f, 300, output); /* so many at a time */
    CHECK_INT(f.n, 301 - 256);
    put(&f, 301, output);
    CHECK_INT(f.n, 0);
    CHECK_INT(f.bytes, 0);
    cache_file_close(&f);
}

TEST(what_was_kept_by_a_clock_that_ran_ahead_goes)
{
    struct cache_file f;
    struct err e;

    cache_file_init(&f, ".", 60, 1 << 20);
    put(&f, 1, STR("{}"));
    put(&f, 2, STR("{}"));
    CHECK_INT(db_exec(f.db, "UPDATE answer SET at=at+3600000 WHERE row=1", &e), 0);
    CHECK(!has(&f, 1, STR("{}")) && has(&f, 2, STR("{}")));
    put(&f, 3, STR("{}"));
    CHECK_INT(f.n, 2);
    CHECK(has(&f, 2, STR("{}")) && has(&f, 3, STR("{}")));
    cache_file_close(&f);
}

TEST(a_file_that_is_no_cache_is_replaced)
{
    struct cache_file f;
    FILE *other;

    cache_file_init(&f, ".", 60, 1 << 20);
    other = fopen(f.path, "w");
    CHECK(other);
    fputs("something else, and long enough to be told from an empty file of SQLite's", other);
    fclose(other);
    put(&f, 1, STR("{}"));
    CHECK(has(&f, 1, STR("{}")));
    cache_file_close(&f);
}

/* ---- who waits ---- */

struct waiting {
    int n_calls;
    char found[64];
};

static void on_found(void *data, struct str output)
{
    struct waiting *w = data;

    w->n_calls++;
    str_copyz(w->found, sizeof w->found, output.p ? output : STR("nothing"));
}

static void run_until(uv_loop_t *loop, const int *n, int wanted)
{
    while (*n < wanted)
        uv_run(loop, UV_RUN_ONCE);
}

static void close_loop(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(loop), 0);
}

TEST(who_looks_is_answered_once_and_who_leaves_is_not)
{
    struct config *c = config_parse(STR("data: ."), "c", NULL);
    struct waiting a = {0}, b = {0};
    struct cache_ask *left;
    struct cache *cache;
    uv_loop_t loop;

    uv_loop_init(&loop);
    cache = cache_open(c, &loop);
    cache_keep(cache, key(1), STR("{\"text\":\"a\"}"));
    CHECK(cache_look(cache, key(1), on_found, &a));
    CHECK_INT(a.n_calls, 0);
    left = cache_look(cache, key(1), on_found, &b);
    cache_leave(left);
    run_until(&loop, &a.n_calls, 1);
    CHECK_STR(str_z(a.found), "{\"text\":\"a\"}");
    CHECK(cache_look(cache, key(2), on_found, &a));
    run_until(&loop, &a.n_calls, 2);
    CHECK_STR(str_z(a.found), "nothing");
    CHECK(cache_look(cache, key(1), on_found, &b));
    cache_keep(cache, key(3), STR("{}"));
    cache_close(cache); /* with one on its way, and one to be kept */
    close_loop(&loop);
    CHECK_INT(b.n_calls, 0);
    uv_loop_init(&loop);
    cache = cache_open(c, &loop);
    CHECK(cache_look(cache, key(3), on_found, &a));
    run_until(&loop, &a.n_calls, 3);
    CHECK_STR(str_z(a.found), "{}");
    cache_close(cache);
    close_loop(&loop);
    config_free(c);
}

TEST(a_cache_that_is_off_finds_nothing)
{
    struct config *c = config_parse(STR("cache: {ttl_s: 0}"), "c", NULL);
    struct waiting a = {0};
    struct cache *cache;
    uv_loop_t loop;

    uv_loop_init(&loop);
    cache = cache_open(c, &loop);
    cache_keep(cache, key(1), STR("{}"));
    CHECK(!cache_look(cache, key(1), on_found, &a));
    cache_close(cache);
    close_loop(&loop);
    config_free(c);
}
