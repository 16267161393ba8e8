#include "base/map.h"
#include "base/buf.h"
#include "base/id.h"
#include <assert.h>
#include <endian.h>
#include <stdlib.h>

enum { FIRST_SLOTS = 16 };

static uint64_t rotate(uint64_t v, int bits)
{
    return v << bits | v >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* SipHash-1-3 (Aumasson and Bernstein, 2012): fast on short keys, and safe with hostile ones. */
static uint64_t hash_key(const uint64_t seed[2], struct str key)
{
    uint64_t v[4] = {seed[0] ^ 0x736F6D6570736575, seed[1] ^ 0x646F72616E646F6D,
                     seed[0] ^ 0x6C7967656E657261, seed[1] ^ 0x7465646279746573};
    uint64_t word;
    size_t i;

    for (i = 0; key.n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, key.p + i, sizeof word);
        sip_word(v, le64toh(word));
    }
    word = 0;
    if (i < key.n)
        memcpy(&word, key.p + i, key.n - i);
    sip_word(v, le64toh(word) | (uint64_t)key.n << 56);
    v[2] ^= 0xFF;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_init(struct map *m)
{
    *m = (struct map){.slots = NULL};
    id_random(m->seed, sizeof m->seed);
}

void map_release(struct map *m)
{
    free(m->slots);
    m->slots = NULL;
    m->n_slots = m->n = 0;
}

static struct map_node **slot_of(const struct map *m, uint64_t hash)
{
    return &m->slots[hash & (m->n_slots - 1)];
}

struct map_node *map_get(const struct map *m, struct str key)
{
    struct map_node *node;
    uint64_t hash;

    if (m->n == 0)
        return NULL;
    hash = hash_key(m->seed, key);
    for (node = *slot_of(m, hash); node; node = node->next)
        if (node->hash == hash && str_eq(node->key, key))
            return node;
    return NULL;
}

static void push(struct map *m, struct map_node *node)
{
    struct map_node **slot = slot_of(m, node->hash);

    node->next = *slot;
    *slot = node;
}

static void grow(struct map *m)
{
    struct map_node **old = m->slots, *node, *next;
    size_t n_old = m->n_slots, i;

    m->n_slots = n_old ? 2 * n_old : FIRST_SLOTS;
    m->slots = xcalloc(m->n_slots, sizeof m->slots[0]);
    for (i = 0; i < n_old; i++) {
        for (node = old[i]; node; node = next) {
            next = node->next;
            push(m, node);
        }
    }
    free(old);
}

void map_put(struct map *m, struct map_node *node, struct str key)
{
    if (m->n == m->n_slots)
        grow(m);
    node->key = key;
    node->hash = hash_key(m->seed, key);
    push(m, node);
    m->n++;
}

void map_remove(struct map *m, struct map_node *node)
{
    struct map_node **at;

    assert(m->n > 0);
    for (at = slot_of(m, node->hash); *at != node; at = &(*at)->next)
        assert(*at);
    *at = node->next;
    node->next = NULL;
    m->n--;
}

void map_each(struct map *m, void (*fn)(struct map_node *node, void *data), void *data)
{
    struct map_node *node, *next;
    size_t i;

    for (i = 0; i < m->n_slots; i++) {
        for (node = m->slots[i]; node; node = next) {
            next = node->next;
            fn(node, data);
        }
    }
}
