#include "store/nodes.h"
#include "base/json.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct node {
    struct node_status s; /* its strings are owned; namez is NULL until the first put */
};

struct nodes {
    pthread_mutex_t lock;
    size_t n;
    struct node nodes[];
};

struct nodes *nodes_new(size_t n)
{
    struct nodes *ns = xcalloc(1, sizeof *ns + n * sizeof ns->nodes[0]);

    pthread_mutex_init(&ns->lock, NULL);
    ns->n = n;
    return ns;
}

static void clear(struct node *node)
{
    const char *owned[] = {node->s.namez, node->s.urlz, node->s.apiz, node->s.statez,
                           node->s.errorz};
    size_t i;

    for (i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free((void *)(uintptr_t)owned[i]);
    for (i = 0; node->s.models && node->s.models[i]; i++)
        free((void *)(uintptr_t)node->s.models[i]);
    free((void *)(uintptr_t)node->s.models);
}

void nodes_free(struct nodes *ns)
{
    size_t i;

    for (i = 0; i < ns->n; i++)
        clear(&ns->nodes[i]);
    pthread_mutex_destroy(&ns->lock);
    free(ns);
}

size_t nodes_count(const struct nodes *ns)
{
    return ns->n;
}

static const char *copy(const char *z)
{
    return xstrdup(str_z(z ? z : ""));
}

static const char *const *copy_models(const char *const *models)
{
    const char **copies;
    size_t n = 0, i;

    while (models && models[n])
        n++;
    copies = xcalloc(n + 1, sizeof copies[0]);
    for (i = 0; i < n; i++)
        copies[i] = copy(models[i]);
    return (const char *const *)copies;
}

void nodes_put(struct nodes *ns, size_t i, const struct node_status *s)
{
    struct node fresh = {*s}, old;

    assert(i < ns->n);
    fresh.s.namez = copy(s->namez);
    fresh.s.urlz = copy(s->urlz);
    fresh.s.apiz = copy(s->apiz);
    fresh.s.statez = copy(s->statez);
    fresh.s.errorz = copy(s->errorz);
    fresh.s.models = copy_models(s->models);
    pthread_mutex_lock(&ns->lock);
    old = ns->nodes[i];
    ns->nodes[i] = fresh;
    pthread_mutex_unlock(&ns->lock);
    clear(&old);
}

static void put_time(struct buf *b, const char *namez, int64_t v, int64_t none)
{
    if (v == none)
        json_put_member_raw(b, namez, STR_NONE);
    else
        json_put_member_int(b, namez, v);
}

static void put_texts(struct buf *b, const struct node_status *s)
{
    json_put_member_str(b, "name", str_z(s->namez));
    buf_addc(b, ',');
    json_put_member_str(b, "url", str_z(s->urlz));
    buf_addc(b, ',');
    json_put_member_str(b, "api", str_z(s->apiz));
    buf_addc(b, ',');
    json_put_member_str(b, "state", str_z(s->statez));
    buf_addc(b, ',');
    json_put_member_opt(b, "error", *s->errorz ? str_z(s->errorz) : STR_NONE);
}

static void put_node(struct buf *b, const struct node_status *s)
{
    size_t i;

    buf_addc(b, '{');
    put_texts(b, s);
    buf_addf(b, ",\"slots\":%d,\"busy\":%d,\"weight\":%d,\"calls\":%lld,\"failed\":%lld,", s->slots,
             s->busy, s->weight, (long long)s->n_calls, (long long)s->n_failed);
    put_time(b, "checked_at", s->checked_at, 0);
    buf_addz(b, ",\"latency_ms\":{");
    put_time(b, "p50", s->latency_ms_p50, -1);
    buf_addc(b, ',');
    put_time(b, "p95", s->latency_ms_p95, -1);
    buf_addz(b, "},\"models\":[");
    for (i = 0; s->models[i]; i++) {
        if (i > 0)
            buf_addc(b, ',');
        json_put_str(b, str_z(s->models[i]));
    }
    buf_addz(b, "]}");
}

void nodes_each(struct nodes *ns, void (*fn)(void *data, struct str name, struct str json),
                void *data)
{
    struct buf b;
    size_t i;

    buf_init(&b, SIZE_MAX);
    pthread_mutex_lock(&ns->lock);
    for (i = 0; i < ns->n; i++) {
        if (!ns->nodes[i].s.namez)
            continue;
        buf_clear(&b);
        put_node(&b, &ns->nodes[i].s);
        fn(data, str_z(ns->nodes[i].s.namez), buf_str(&b));
    }
    pthread_mutex_unlock(&ns->lock);
    buf_release(&b);
}

void nodes_print(struct nodes *ns, struct buf *b, int *n_up, int *n_slots)
{
    const struct node_status *s;
    const char *sepz = "";
    size_t i;

    *n_up = *n_slots = 0;
    buf_addc(b, '[');
    pthread_mutex_lock(&ns->lock);
    for (i = 0; i < ns->n; i++) {
        s = &ns->nodes[i].s;
        if (!s->namez)
            continue;
        buf_addz(b, sepz);
        sepz = ",";
        put_node(b, s);
        if (str_eqz(str_z(s->statez), "up")) {
            *n_up += 1;
            *n_slots += s->slots;
        }
    }
    pthread_mutex_unlock(&ns->lock);
    buf_addc(b, ']');
}
