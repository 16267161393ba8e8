#include "broker-config/kafka_owed.h"
#include "base/buf.h"
#include <assert.h>
#include <stdlib.h>

struct owed {
    struct map_node node; /* first */
    struct position source;
    int n;
};

static_assert(sizeof(struct position) == 16, "a position without gaps, for its bytes are the key");

static struct str key_of(const struct position *at)
{
    return str_of(at, sizeof *at);
}

void kafka_owed_init(struct kafka_owed *o)
{
    pthread_mutex_init(&o->lock, NULL);
    map_init(&o->map);
}

static void free_one(struct map_node *node, void *data)
{
    (void)data;
    free(node);
}

void kafka_owed_release(struct kafka_owed *o)
{
    map_each(&o->map, free_one, NULL);
    map_release(&o->map);
    pthread_mutex_destroy(&o->lock);
}

void kafka_owed_add(struct kafka_owed *o, struct position source)
{
    struct owed *one;

    pthread_mutex_lock(&o->lock);
    one = (struct owed *)(void *)map_get(&o->map, key_of(&source));
    if (!one) {
        one = xcalloc(1, sizeof *one);
        one->source = source;
        map_put(&o->map, &one->node, key_of(&one->source));
    }
    one->n++;
    pthread_mutex_unlock(&o->lock);
}

void kafka_owed_remove(struct kafka_owed *o, struct position source)
{
    struct owed *one;

    pthread_mutex_lock(&o->lock);
    one = (struct owed *)(void *)map_get(&o->map, key_of(&source));
    assert(one && one->n > 0);
    if (--one->n == 0) {
        map_remove(&o->map, &one->node);
        free(one);
    }
    pthread_mutex_unlock(&o->lock);
}

bool kafka_owed_has(struct kafka_owed *o, struct position source)
{
    bool has;

    pthread_mutex_lock(&o->lock);
    has = map_get(&o->map, key_of(&source)) != NULL;
    pthread_mutex_unlock(&o->lock);
    return has;
}
