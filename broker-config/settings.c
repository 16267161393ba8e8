/* The tables made from setting.def, and looking keys up in them. */
#include "broker-config/config.h"
#include "broker-config/setting.h"

static const char *const kind_names[] = {"sqlite", "kafka", NULL};
static const char *const sync_names[] = {"full", "normal", NULL};
static const char *const without_redis_names[] = {"local", "deny", NULL};
static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_names[] = {"auto", "json", "text", NULL};
static const char *const api_names[] = {"auto", "ollama", "openai", NULL};

#define AS_text(dflt) .type = SETTING_TEXT, .defaultz = dflt
#define AS_secret(dflt) .type = SETTING_SECRET, .defaultz = dflt
#define AS_int(dflt) .type = SETTING_INT, .defaultz = #dflt /* they stand bare in the rows */
#define AS_auto_int(dflt) .type = SETTING_AUTO_INT, .defaultz = dflt
#define AS_real(dflt) .type = SETTING_REAL, .defaultz = dflt
#define AS_names(dflt) .type = SETTING_NAMES, .defaultz = dflt
#define AS_auto_names(dflt) .type = SETTING_AUTO_NAMES, .defaultz = dflt
#define AS_pairs(dflt) .type = SETTING_PAIRS, .defaultz = dflt
#define OF(names_, dflt) .type = SETTING_ENUM, .names = names_, .defaultz = dflt
#define AS_enum_broker_kind(dflt) OF(kind_names, dflt)
#define AS_enum_without_redis(dflt) OF(without_redis_names, dflt)
#define AS_enum_full_normal(dflt) OF(sync_names, dflt)
#define AS_enum_log_level(dflt) OF(level_names, dflt)
#define AS_enum_log_format(dflt) OF(format_names, dflt)
#define AS_enum_engine_api(dflt) OF(api_names, dflt)

#define ROW(struct_, path, member, type_, dflt, min_, max_, doc) \
    {.pathz = path, \
     AS_##type_(dflt), \
     .at = offsetof(struct struct_, member), \
     .size = sizeof(((struct struct_ *)0)->member), \
     .min = min_, \
     .max = max_, \
     .docz = doc},

static const struct setting main_rows[] = {
#define SETTING(...) ROW(config, __VA_ARGS__)
#include "broker-config/setting.def"
#undef SETTING
};
static const struct setting engine_rows[] = {
#define ENGINE_SETTING(...) ROW(config_engine, __VA_ARGS__)
#include "broker-config/setting.def"
#undef ENGINE_SETTING
};
static const struct setting model_rows[] = {
#define MODEL_SETTING(...) ROW(config_model, __VA_ARGS__)
#include "broker-config/setting.def"
#undef MODEL_SETTING
};

static const char *const main_unbuilt[] = {"auth", "filter", "telemetry", NULL};
static const char *const main_others[] = {"engines", "models", "queues", NULL};
static const char *const model_unbuilt[] = {"fallback", NULL};
static const char *const none[] = {NULL};

#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])
const struct settings settings_main = {main_rows, COUNT(main_rows), main_unbuilt, main_others};
const struct settings settings_engine = {engine_rows, COUNT(engine_rows), none, none};
const struct settings settings_model = {model_rows, COUNT(model_rows), model_unbuilt, none};

const struct setting *settings_find(const struct settings *s, struct str path)
{
    size_t i;

    for (i = 0; i < s->n; i++)
        if (str_eqz(path, s->rows[i].pathz))
            return &s->rows[i];
    return NULL;
}

/* What stands in `path` after "group."; STR_NONE when it is elsewhere. */
static struct str inside(struct str path, struct str group)
{
    if (group.n == 0)
        return path;
    if (!str_starts(path, group) || path.n <= group.n || path.p[group.n] != '.')
        return STR_NONE;
    return str_of(path.p + group.n + 1, path.n - group.n - 1);
}

bool settings_has_group(const struct settings *s, struct str path)
{
    size_t i;

    for (i = 0; i < s->n; i++)
        if (inside(str_z(s->rows[i].pathz), path).n > 0)
            return true;
    return false;
}

bool settings_is_unbuilt(const struct settings *s, struct str path)
{
    size_t i;

    for (i = 0; s->unbuilt[i]; i++)
        if (str_eqz(path, s->unbuilt[i]))
            return true;
    return false;
}

/* Takes `key` as the best hint when it is nearer to name than *near. */
static void try_hint(struct str name, struct str key, size_t *near, struct str *best)
{
    const char *dot = key.n ? memchr(key.p, '.', key.n) : NULL;
    size_t d;

    key.n = dot ? (size_t)(dot - key.p) : key.n;
    if (key.n == 0)
        return;
    d = str_distance(name, key);
    if (d < *near) {
        *near = d;
        *best = key;
    }
}

struct str settings_hint(const struct settings *s, struct str group, struct str name)
{
    struct str best = STR_NONE;
    size_t i, near = name.n / 3 + 2;

    for (i = 0; i < s->n; i++)
        try_hint(name, inside(str_z(s->rows[i].pathz), group), &near, &best);
    for (i = 0; group.n == 0 && s->others[i]; i++)
        try_hint(name, str_z(s->others[i]), &near, &best);
    return best;
}

void settings_init(const struct settings *s, void *base)
{
    size_t i;

    for (i = 0; i < s->n; i++)
        setting_set_default(&s->rows[i], base);
}

void settings_release(const struct settings *s, void *base)
{
    size_t i;

    for (i = 0; i < s->n; i++)
        setting_release(&s->rows[i], base);
}
