#include "broker-config/config_load.h"
#include "base/buf.h"
#include "base/id.h"
#include "base/redis_url.h"
#include "broker-config/setting.h"
#include <stdlib.h>
#include <strings.h>

enum { PATH_MAX_BYTES = 1024, QUEUES_MAX = 1024, ENGINES_MAX = 1024 };

struct loader {
    struct config *c;
    const char *namez;
    const char *listz; /* "", or the list that is being read: "engines: " */
    struct err *e;
};

/* Puts place and key before the reason that is set already. */
static int fail_value(struct loader *l, const struct yaml *at, struct str path)
{
    return err_prefix(l->e, "%s:%d:%d: %s%.*s", l->namez, at->line, at->column, l->listz,
                      STR_ARG(path));
}

static bool has_dot(struct str name)
{
    return name.n && memchr(name.p, '.', name.n);
}

static int fail_key(struct loader *l, const struct settings *s, const struct yaml *y,
                    struct str group, struct str path)
{
    struct str hint = settings_hint(s, group, y->name);

    if (settings_is_unbuilt(s, path))
        err_set(l->e, ERR_INVALID, "not built yet");
    else if (has_dot(y->name) && settings_find(s, path))
        err_set(l->e, ERR_INVALID, "unknown key; write a map in place of each dot");
    else if (hint.n)
        err_set(l->e, ERR_INVALID, "unknown key; did you mean %.*s?", STR_ARG(hint));
    else
        err_set(l->e, ERR_INVALID, "unknown key");
    return err_prefix(l->e, "%s:%d:%d: %s%.*s", l->namez, y->name_line, y->name_column, l->listz,
                      STR_ARG(path));
}

/* A map, or nothing at all, which is an empty one. */
static int want_map(struct loader *l, const struct yaml *y, struct str path)
{
    if (y->type == YAML_MAP || yaml_is_null(y))
        return 0;
    err_set(l->e, ERR_INVALID, "must be a map");
    return fail_value(l, y, path);
}

static int load_value(struct loader *l, const struct settings *s, const struct setting *row,
                      void *base, const struct yaml *y)
{
    struct buf both;
    int rc = setting_read(row, base, y, l->e);

    if (rc == 0)
        return 0;
    buf_init(&both, PATH_MAX_BYTES);
    buf_addf(&both, "%s: %.*s", row->pathz, STR_ARG(y->scalar));
    if (y->type == YAML_SCALAR && settings_is_unbuilt(s, buf_str(&both)))
        err_set(l->e, ERR_INVALID, "%.*s: not built yet", STR_ARG(y->scalar));
    fail_value(l, y, str_z(row->pathz));
    buf_release(&both);
    return rc;
}

static int load_map(struct loader *l, const struct settings *s, void *base, const struct yaml *map,
                    struct str group, bool (*is_other)(struct str path));

static int load_member(struct loader *l, const struct settings *s, void *base, const struct yaml *y,
                       struct str group, bool (*is_other)(struct str path))
{
    const struct setting *row;
    struct buf path;
    int rc;

    buf_init(&path, PATH_MAX_BYTES);
    buf_addf(&path, "%.*s%s%.*s", STR_ARG(group), group.n ? "." : "", STR_ARG(y->name));
    /* A dotted name would be a way past the checks of its map. */
    row = has_dot(y->name) ? NULL : settings_find(s, buf_str(&path));
    if (is_other && is_other(buf_str(&path)))
        rc = 0;
    else if (row)
        rc = load_value(l, s, row, base, y);
    else if (path.n > 0 && !has_dot(y->name) && settings_has_group(s, buf_str(&path)))
        rc = load_map(l, s, base, y, buf_str(&path), is_other);
    else
        rc = fail_key(l, s, y, group, path.n ? buf_str(&path) : STR("(a key)"));
    buf_release(&path);
    return rc;
}

static int load_map(struct loader *l, const struct settings *s, void *base, const struct yaml *map,
                    struct str group, bool (*is_other)(struct str path))
{
    const struct yaml *y;
    int rc = want_map(l, map, group.n ? group : STR("this"));

    for (y = map->child; rc == 0 && y; y = y->next)
        rc = load_member(l, s, base, y, group, is_other);
    return rc;
}

/* ---- engines ---- */

static int check_port(struct str s)
{
    int64_t port;

    return str_int(s, &port) && port >= 0 && port <= 65535 && s.p[0] != '-' ? 0 : ERR_INVALID;
}

/* "host", "host:port", "[v6]:port": the port, p == NULL when there is none; false when it is
 * neither. */
static bool cut_port(struct str authority, struct str *host, struct str *port)
{
    const char *end = authority.n ? memchr(authority.p, ']', authority.n) : NULL;
    size_t n = 0;

    if (authority.n && authority.p[0] == '[') {
        if (!end)
            return false;
        n = (size_t)(end - authority.p) + 1;
    } else {
        while (n < authority.n && authority.p[n] != ':')
            n++;
    }
    *host = str_of(authority.p, n);
    *port = STR_NONE;
    if (n < authority.n && authority.p[n] != ':')
        return false;
    if (n < authority.n)
        *port = str_of(authority.p + n + 1, authority.n - n - 1);
    return host->n > 0;
}

static int bad_url(struct err *e, const char *whyz)
{
    return err_set(e, ERR_INVALID, "url: %s", whyz);
}

static int check_url(const char *urlz, struct str *authority, struct err *e)
{
    struct str url = str_z(urlz), host, port;
    size_t i, n = str_starts(url, STR("http://")) ? 7 : str_starts(url, STR("https://")) ? 8 : 0;

    if (url.n == 0)
        return bad_url(e, "must be given");
    if (n == 0)
        return bad_url(e, "must begin with http:// or https://");
    for (i = n; i < url.n; i++)
        if ((unsigned char)url.p[i] <= 0x20 || url.p[i] == 0x7f ||
            strchr("?#\"<>\\^`{|}", url.p[i]))
            return bad_url(e, "must hold no spaces, ?, # or quotes");
    *authority = str_of(url.p + n, strcspn(url.p + n, "/"));
    if (authority->n && memchr(authority->p, '@', authority->n))
        return bad_url(e, "must hold no user name; credentials belong in api_key or headers");
    if (!cut_port(*authority, &host, &port) || (port.p && check_port(port) != 0))
        return bad_url(e, "must hold a host, and a port from 0 to 65535 if any");
    return 0;
}

/* Names stand in paths (/api/v1/nodes/{name}) and metrics. */
static int check_name(const char *namez, struct err *e)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:[]";

    if (strspn(namez, allowed) == strlen(namez) && strlen(namez) <= 64)
        return 0;
    return err_set(e, ERR_INVALID, "name: must be at most 64 letters, digits or ._-:[]");
}

static int add_api_key(struct config_engine *en, struct err *e)
{
    struct buf b;
    size_t i;

    if (!en->api_key[0])
        return 0;
    for (i = 0; en->headers[i]; i++)
        if (strncasecmp(en->headers[i], "authorization:", 14) == 0)
            return err_set(e, ERR_INVALID, "api_key: headers hold an Authorization already");
    buf_init(&b, 1 << 16);
    buf_addf(&b, "Authorization: Bearer %s", en->api_key);
    strings_add(&en->headers, buf_take(&b, NULL));
    return 0;
}

int config_engine_complete(struct config_engine *en, struct err *e)
{
    struct str authority;
    size_t n = strlen(en->url);
    int rc = check_url(en->url, &authority, e);

    if (rc)
        return rc;
    if (!en->name[0]) {
        free(en->name);
        en->name = xstrdup(authority);
    }
    while (en->url[n - 1] == '/')
        en->url[--n] = '\0';
    rc = check_name(en->name, e);
    return rc ? rc : add_api_key(en, e);
}

struct config_engine *config_add_engine(struct config *c)
{
    struct config_engine *en;

    c->engines = xrealloc(c->engines, (c->n_engines + 1) * sizeof *c->engines);
    en = &c->engines[c->n_engines++];
    *en = (struct config_engine){0};
    settings_init(&settings_engine, en);
    return en;
}

const struct config_engine *config_same_name(const struct config *c, const struct config_engine *en)
{
    size_t i;

    for (i = 0; i < c->n_engines; i++)
        if (&c->engines[i] != en && strcmp(c->engines[i].name, en->name) == 0)
            return &c->engines[i];
    return NULL;
}

static int load_engine(struct loader *l, const struct yaml *y)
{
    struct config_engine *en = config_add_engine(l->c);
    int rc;

    l->listz = "engines: ";
    rc = load_map(l, &settings_engine, en, y, STR_NONE, NULL);
    l->listz = "";
    if (rc)
        return rc;
    rc = config_engine_complete(en, l->e);
    if (rc == 0 && config_same_name(l->c, en))
        rc = err_set(l->e, ERR_INVALID, "name: \"%s\" is the name of another engine", en->name);
    return rc ? fail_value(l, y, STR("engines")) : 0;
}

static int load_engines(struct loader *l, const struct yaml *list)
{
    const struct yaml *y;
    int rc = 0;

    if (list->type != YAML_LIST && !yaml_is_null(list))
        rc = err_set(l->e, ERR_INVALID, "must be a list");
    for (y = list->child; rc == 0 && y; y = y->next) {
        if (l->c->n_engines == ENGINES_MAX)
            rc = err_set(l->e, ERR_INVALID, "more than %d", ENGINES_MAX);
        else if ((rc = load_engine(l, y)) != 0)
            return rc;
    }
    return rc ? fail_value(l, list, STR("engines")) : 0;
}

/* ---- queues and models ---- */

static int add_queue(struct config *c, struct str name, struct err *e)
{
    size_t i;

    if (!id_is_valid(name))
        return err_set(e, ERR_INVALID, "must be 1 to 64 letters, digits or ._-");
    for (i = 0; c->queues && c->queues[i]; i++)
        if (strlen(c->queues[i]) == name.n && strncasecmp(c->queues[i], name.p, name.n) == 0)
            return err_set(e, ERR_INVALID, "is %s, but for the case of its letters", c->queues[i]);
    if (i == QUEUES_MAX)
        return err_set(e, ERR_INVALID, "more than %d queues", QUEUES_MAX);
    strings_add(&c->queues, xstrdup(name));
    return 0;
}

static int load_queues(struct loader *l, const struct yaml *map)
{
    const struct yaml *y;
    int rc = want_map(l, map, STR("queues"));

    for (y = map->child; rc == 0 && y; y = y->next) {
        rc = want_map(l, y, STR("queues"));
        if (rc == 0 && y->child)
            return fail_key(l, &settings_main, y->child, STR("queues"), y->child->name);
        if (rc == 0 && (rc = add_queue(l->c, y->name, l->e)) != 0) {
            err_prefix(l->e, "%.*s", STR_ARG(y->name));
            return fail_value(l, y, STR("queues"));
        }
    }
    return rc;
}

static int load_model(struct loader *l, const struct yaml *y)
{
    struct config_model *m;
    int rc;

    l->c->models = xrealloc(l->c->models, (l->c->n_models + 1) * sizeof *l->c->models);
    m = &l->c->models[l->c->n_models++];
    *m = (struct config_model){.alias = xstrdup(y->name)};
    settings_init(&settings_model, m);
    l->listz = "models: ";
    rc = load_map(l, &settings_model, m, y, STR_NONE, NULL);
    l->listz = "";
    if (rc)
        return rc;
    rc = setting_check_text(y->name, 1, 256, l->e);
    if (rc)
        err_prefix(l->e, "a model's name");
    else if (!config_has_queue(l->c, str_z(m->queue)))
        rc =
            err_set(l->e, ERR_INVALID, "%s: queue: \"%s\" is not among queues", m->alias, m->queue);
    if (rc)
        return fail_value(l, y, STR("models"));
    if (!m->target[0]) {
        free(m->target);
        m->target = xstrdup(y->name);
    }
    return 0;
}

static int load_models(struct loader *l, const struct yaml *map)
{
    const struct yaml *y;
    int rc = want_map(l, map, STR("models"));

    for (y = map->child; rc == 0 && y; y = y->next)
        rc = load_model(l, y);
    return rc;
}

/* ---- the file ---- */

static bool is_list_key(struct str path)
{
    return str_eq(path, STR("engines")) || str_eq(path, STR("models")) ||
           str_eq(path, STR("queues"));
}

/* y: where the address stands in the file; NULL: it is the default. */
static int check_listen(struct loader *l, const struct yaml *y, const char *pathz,
                        const char *addressz)
{
    struct str host, port;

    if (!y || (cut_port(str_z(addressz), &host, &port) && port.p && check_port(port) == 0))
        return 0;
    err_set(l->e, ERR_INVALID, "must be an address and a port, such as 127.0.0.1:7070");
    return fail_value(l, y, str_z(pathz));
}

static int check_addresses(struct loader *l, const struct yaml *tree)
{
    const struct yaml *worker = yaml_member(tree, STR("worker"));
    int rc = check_listen(l, yaml_member(tree, STR("listen")), "listen", l->c->listen);

    if (rc || !worker)
        return rc;
    return check_listen(l, yaml_member(worker, STR("listen")), "worker.listen",
                        l->c->worker_listen);
}

/* What Kafka takes in a topic's name. */
static int check_prefix(struct loader *l, const struct yaml *y)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    if (l->c->broker_kind != BROKER_KIND_KAFKA && strcmp(l->c->broker_prefix, "genq") != 0) {
        err_set(l->e, ERR_INVALID, "is for kind: kafka");
        return fail_value(l, y, STR("broker.prefix"));
    }
    if (l->c->broker_prefix[strspn(l->c->broker_prefix, letters)] == '\0')
        return 0;
    err_set(l->e, ERR_INVALID, "must be of letters, digits, '.', '_' and '-'");
    return fail_value(l, y, STR("broker.prefix"));
}

static int check_broker(struct loader *l, const struct yaml *tree)
{
    const struct yaml *broker = yaml_member(tree, STR("broker"));
    const struct yaml *prefix = broker ? yaml_member(broker, STR("prefix")) : NULL;
    int rc = prefix ? check_prefix(l, prefix) : 0;

    if (rc || l->c->broker_kind != BROKER_KIND_KAFKA || l->c->broker_servers[0])
        return rc;
    err_set(l->e, ERR_INVALID, "kind: kafka needs servers: \"host:port,…\"");
    return fail_value(l, broker, STR("broker"));
}

static int check_redis(struct loader *l, const struct yaml *tree)
{
    const struct yaml *redis = yaml_member(tree, STR("redis"));
    const struct yaml *url = redis ? yaml_member(redis, STR("url")) : NULL;
    struct redis_url unused;

    if (!l->c->redis_url[0])
        return 0;
    if (redis_url_parse(&unused, str_z(l->c->redis_url), l->e))
        return fail_value(l, url, STR("redis.url"));
    redis_url_release(&unused);
    return 0;
}

/* A name that is none would be a worker that waits for nothing. */
static int check_worker_queues(struct loader *l, const struct yaml *tree)
{
    const struct yaml *worker = yaml_member(tree, STR("worker"));
    size_t i;

    for (i = 0; l->c->worker_queues[i]; i++) {
        if (config_has_queue(l->c, str_z(l->c->worker_queues[i])))
            continue;
        err_set(l->e, ERR_INVALID, "\"%s\" is not among queues", l->c->worker_queues[i]);
        return fail_value(l, yaml_member(worker, STR("queues")), STR("worker.queues"));
    }
    return 0;
}

/* Queues come before the models and workers that name them. */
static int load_lists(struct loader *l, const struct yaml *tree)
{
    const struct yaml *queues = yaml_member(tree, STR("queues"));
    const struct yaml *models = yaml_member(tree, STR("models"));
    const struct yaml *engines = yaml_member(tree, STR("engines"));
    int rc = queues ? load_queues(l, queues) : 0;

    if (rc == 0 && (!l->c->queues || !config_has_queue(l->c, STR("default"))))
        rc = add_queue(l->c, STR("default"), l->e);
    if (rc == 0)
        rc = check_worker_queues(l, tree);
    if (rc == 0 && models)
        rc = load_models(l, models);
    if (rc == 0 && engines)
        rc = load_engines(l, engines);
    return rc;
}

int config_load_tree(struct config *c, const struct yaml *tree, const char *namez, struct err *e)
{
    struct loader l = {.c = c, .namez = namez, .listz = "", .e = e};
    int rc = load_map(&l, &settings_main, c, tree, STR_NONE, is_list_key);

    if (rc == 0)
        rc = check_addresses(&l, tree);
    if (rc == 0)
        rc = check_broker(&l, tree);
    if (rc == 0)
        rc = check_redis(&l, tree);
    return rc ? rc : load_lists(&l, tree);
}
