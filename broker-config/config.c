/* Finding genq.yaml, and what is asked of a config. */
#include "broker-config/config.h"
#include "base/file.h"
#include "broker-config/config_load.h"
#include "broker-config/setting.h"
#include <stdlib.h>
#include <unistd.h>

#define ENGINE_URL "http://127.0.0.1:11434"

enum { FILE_MAX_BYTES = 1 << 20 };

void config_free(struct config *c)
{
    size_t i;

    if (!c)
        return;
    for (i = 0; i < c->n_engines; i++)
        settings_release(&settings_engine, &c->engines[i]);
    for (i = 0; i < c->n_models; i++) {
        free(c->models[i].alias);
        settings_release(&settings_model, &c->models[i]);
    }
    settings_release(&settings_main, c);
    strings_free(c->queues);
    free(c->engines);
    free(c->models);
    free(c);
}

struct config *config_parse(struct str text, const char *namez, struct err *e)
{
    static const char *const engines[] = {ENGINE_URL};
    struct yaml *tree = yaml_parse(text, namez, e);
    struct config *c;
    int rc;

    if (!tree)
        return NULL;
    c = xcalloc(1, sizeof *c);
    settings_init(&settings_main, c);
    rc = config_load_tree(c, tree, namez, e);
    yaml_tree_free(tree);
    if (rc == 0 && c->n_engines == 0)
        rc = config_set_engines(c, engines, 1, e);
    if (rc == 0)
        return c;
    config_free(c);
    return NULL;
}

static const char *find_file(void)
{
    static const char *const paths[] = {"genq.yaml", "/etc/genq/genq.yaml"};
    const char *envz = getenv("GENQ_CONFIG");
    size_t i;

    if (envz && *envz)
        return envz;
    for (i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (access(paths[i], F_OK) == 0)
            return paths[i];
    return NULL;
}

struct config *config_load(const char *pathz, struct err *e)
{
    struct config *c = NULL;
    struct buf b;

    if (!pathz)
        pathz = find_file();
    if (!pathz)
        return config_parse(STR_NONE, "defaults", e);
    buf_init(&b, FILE_MAX_BYTES);
    if (file_read(pathz, &b, e) == 0)
        c = config_parse(buf_str(&b), pathz, e);
    buf_release(&b);
    return c;
}

static int add_url(struct config *c, const char *urlz, struct err *e)
{
    struct config_engine *en = config_add_engine(c);
    int rc;

    config_set_text(&en->url, urlz);
    rc = config_engine_complete(en, e);
    if (rc == 0 && config_same_name(c, en))
        rc = err_set(e, ERR_INVALID, "url: a second engine named \"%s\"", en->name);
    return rc ? err_prefix(e, "engine %s", urlz) : 0;
}

int config_set_engines(struct config *c, const char *const *urls, size_t n, struct err *e)
{
    struct config fresh = {0}, old = {.engines = c->engines, .n_engines = c->n_engines};
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < n; i++)
        rc = add_url(&fresh, urls[i], e);
    if (rc == 0) {
        c->engines = fresh.engines;
        c->n_engines = fresh.n_engines;
        fresh = old;
    }
    for (i = 0; i < fresh.n_engines; i++)
        settings_release(&settings_engine, &fresh.engines[i]);
    free(fresh.engines);
    return rc;
}

int config_set_text(char **member, const char *value)
{
    char *copy;

    if (!value || !*value)
        return ERR_INVALID;
    copy = xstrdup(str_z(value));
    free(*member);
    *member = copy;
    return 0;
}

const struct config_model *config_model(const struct config *c, struct str model)
{
    size_t i;

    for (i = 0; i < c->n_models; i++)
        if (str_eqz(model, c->models[i].alias))
            return &c->models[i];
    return NULL;
}

/* To Ollama `x` and `x:latest` are one. */
static struct str without_latest(struct str name)
{
    struct str latest = STR(":latest");

    if (name.n > latest.n && str_eq(str_of(name.p + name.n - latest.n, latest.n), latest))
        name.n -= latest.n;
    return name;
}

struct str config_queue(const struct config *c, struct str model)
{
    const struct config_model *m = config_model(c, model);
    struct str name = without_latest(model);
    size_t i;

    for (i = 0; !m && i < c->n_models; i++)
        if (str_eq(name, without_latest(str_z(c->models[i].alias))) ||
            str_eq(name, without_latest(str_z(c->models[i].target))))
            m = &c->models[i];
    return m ? str_z(m->queue) : STR("default");
}

bool config_has_queue(const struct config *c, struct str queue)
{
    size_t i;

    for (i = 0; c->queues[i]; i++)
        if (str_eqz(queue, c->queues[i]))
            return true;
    return false;
}
