/* A place where cached answers lie: cache.c's drivers. Loop thread, but for what they say. */
#pragma once
#include "base/list.h"
#include "store/cache.h"

enum { CACHE_KEPT_BYTES = 16 << 20 }; /* being written at one time */

struct cache_ask {
    struct list node; /* in cache->asks while somebody waits */
    struct cache *cache;
    cache_fn fn; /* NULL: nobody waits */
    void *data;
    int64_t due_ms; /* loop's time */
    bool is_late;
};

struct cache_ops {
    /* NULL: it cannot be used, which was logged. */
    void *(*open)(const struct config *c, uv_loop_t *loop);
    /* 0: cache_answer comes once, later, on the loop; negative: it does not. */
    int (*look)(void *driver, const uint8_t key[SHA256_LEN], struct cache_ask *a);
    void (*keep)(void *driver, const uint8_t key[SHA256_LEN], struct str output);
    /* Answers all that was asked within this call. */
    void (*close)(void *driver);
};

extern const struct cache_ops cache_redis_ops, cache_sqlite_ops;

/* Tells what was found (p == NULL: nothing). Frees a. */
void cache_answer(struct cache_ask *a, struct str output);
