/* What models a node has: as it lists them, or as the config says. */
#include "worker/pool.h"
#include <stdio.h>

bool node_has_model(const struct node *n, const struct model *m)
{
    size_t i;

    for (i = 0; i < n->has.n_models; i++)
        if (n->models[i] == m)
            return true;
    return n->has.has_any;
}

bool node_shows_model(const struct node *n, const struct model *m)
{
    return n->ops->api != ENGINE_API_OLLAMA || strchr(m->name, ':');
}

void node_drop_models(struct node *n)
{
    size_t i;

    for (i = 0; i < n->has.n_models; i++) {
        n->models[i]->n_nodes = 0; /* pool_recount follows */
        schedule_unref_model(n->pool->schedule, n->models[i]);
    }
    n->has.n_models = 0;
}

static void add_model(struct node *n, struct str name)
{
    struct model *m = schedule_model(n->pool->schedule, name);
    size_t i;

    for (i = 0; i < n->has.n_models; i++)
        if (n->models[i] == m) {
            schedule_unref_model(n->pool->schedule, m);
            return;
        }
    n->models = xrealloc(n->models, (n->has.n_models + 1) * sizeof n->models[0]);
    n->models[n->has.n_models++] = m;
    n->has.models = n->models;
}

/* To Ollama `x` and `x:latest` are one. */
static void add_name(struct node *n, struct str name)
{
    struct str latest = STR(":latest");
    char with[300];
    int len;

    add_model(n, name);
    if (n->ops->api != ENGINE_API_OLLAMA)
        return;
    if (name.n > latest.n && str_eq(str_of(name.p + name.n - latest.n, latest.n), latest)) {
        add_model(n, str_of(name.p, name.n - latest.n));
    } else if (!memchr(name.p, ':', name.n)) {
        len = snprintf(with, sizeof with, "%.*s:latest", STR_ARG(name));
        if (len > 0 && (size_t)len < sizeof with)
            add_model(n, str_of(with, (size_t)len));
    }
}

static bool is_listed(const struct node *n, struct str name)
{
    struct str latest = STR(":latest");
    size_t at, len;

    for (at = 0; at < n->listed.n; at += len + 1) {
        len = strlen(n->listed.p + at);
        if (str_eq(str_of(n->listed.p + at, len), name))
            return true;
        if (len == name.n + latest.n && str_starts(str_of(n->listed.p + at, len), name) &&
            str_eqz(latest, n->listed.p + at + name.n))
            return true;
    }
    return false;
}

/* All that is listed, or what the config names; of an Ollama, which lists truly, only what is
 * there. */
static void build_models(struct node *n)
{
    size_t at;
    char **name = n->config->models;

    node_drop_models(n);
    for (; name && *name; name++)
        if (n->ops->api != ENGINE_API_OLLAMA || is_listed(n, str_z(*name)))
            add_name(n, str_z(*name));
    if (n->config->models && n->config->models[0])
        return;
    for (at = 0; at < n->listed.n; at += strlen(n->listed.p + at) + 1)
        add_name(n, str_z(n->listed.p + at));
}

void pool_set_models(struct node *n, const struct buf *names)
{
    bool has_any = !names && !(n->config->models && n->config->models[0]);
    struct str now = names ? buf_str(names) : STR_NONE;

    if (n->is_built && has_any == n->has.has_any && str_eq(now, buf_str(&n->listed)))
        return;
    buf_clear(&n->listed);
    buf_adds(&n->listed, now);
    n->is_built = true;
    n->has.has_any = has_any;
    build_models(n);
    pool_recount(n->pool);
}

/* A 404 may be about this one request (a path that the engine lacks, say), so it is only the list
 * that says that a model is gone: it is read at once. But where others have the model they get its
 * jobs until the next regular check, for a list may be wrong for long. */
void pool_no_model(struct node *n, const struct model *m)
{
    struct model *gone;
    size_t i;

    for (i = 0; i < n->has.n_models && n->models[i] != m; i++)
        ;
    if (i == n->has.n_models && !n->has.has_any)
        return; /* a call that ran beside the one that told */
    n->is_built = false;
    if (m->n_nodes < 2 || i == n->has.n_models) {
        pool_suspect(n);
        return;
    }
    gone = n->models[i];
    n->models[i] = n->models[--n->has.n_models];
    pool_recount(n->pool);
    schedule_unref_model(n->pool->schedule, gone);
}
