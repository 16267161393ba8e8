/* A config as YAML, and the reference of all keys. */
#include "broker-config/config.h"
#include "broker-config/setting.h"
#include <stdlib.h>

static size_t group_bytes(const char *pathz)
{
    const char *dot = strchr(pathz, '.');

    return dot ? (size_t)(dot - pathz) : 0;
}

/* Rows of one group stand together in setting.def. `indent` spaces before each line but, in a
 * list's element, the first, which has its "- ". */
static void print_rows(const struct settings *s, const void *base, int indent, bool is_element,
                       struct buf *b)
{
    struct str group = STR_NONE, before;
    const struct setting *row;
    size_t i;

    for (i = 0; i < s->n; i++) {
        row = &s->rows[i];
        before = group;
        group = str_of(row->pathz, group_bytes(row->pathz));
        buf_addf(b, "%*s", is_element && i == 0 ? 0 : indent, "");
        if (group.n && !str_eq(group, before))
            buf_addf(b, "%.*s:\n%*s", STR_ARG(group), indent, "");
        buf_addf(b, "%s%s: ", group.n ? "  " : "", row->pathz + (group.n ? group.n + 1 : 0));
        setting_print(row, base, b);
        buf_addc(b, '\n');
    }
}

/* The last header is made from the API key: it would stand there twice. */
static void print_engine(const struct config_engine *en, struct buf *b)
{
    struct config_engine shown = *en;
    size_t n = 0;

    while (en->headers[n])
        n++;
    shown.headers = xcalloc(n + 1, sizeof *shown.headers);
    if (en->api_key[0] && n > 0)
        n--;
    memcpy(shown.headers, en->headers, n * sizeof *shown.headers);
    buf_addz(b, "  - ");
    print_rows(&settings_engine, &shown, 4, true, b);
    free(shown.headers);
}

void config_print(const struct config *c, struct buf *b)
{
    size_t i;

    print_rows(&settings_main, c, 0, false, b);
    buf_addz(b, "engines:\n");
    for (i = 0; i < c->n_engines; i++)
        print_engine(&c->engines[i], b);
    buf_addz(b, c->n_models ? "models:\n" : "models: {}\n");
    for (i = 0; i < c->n_models; i++) {
        buf_addz(b, "  ");
        setting_print_quoted(b, str_z(c->models[i].alias));
        buf_addz(b, ":\n");
        print_rows(&settings_model, &c->models[i], 4, false, b);
    }
    buf_addz(b, "queues:\n");
    for (i = 0; c->queues[i]; i++)
        buf_addf(b, "  \"%s\": {}\n", c->queues[i]);
}

/* ---- docs/configuration.md ---- */

static void print_range(const struct setting *row, struct buf *b)
{
    int i;

    if (row->type == SETTING_ENUM) {
        for (i = 0; row->names[i]; i++)
            buf_addf(b, "%s`%s`", i ? ", " : "", row->names[i]);
    } else if (row->type == SETTING_INT || row->type == SETTING_AUTO_INT) {
        buf_addf(b, "%s%lld to %lld", row->type == SETTING_INT ? "" : "`auto`, or ",
                 (long long)row->min, (long long)row->max);
    } else if (row->type == SETTING_REAL) {
        buf_addz(b, "number, not negative");
    } else if (row->type == SETTING_NAMES) {
        buf_addf(b, "list of up to %lld", (long long)row->max);
    } else if (row->type == SETTING_AUTO_NAMES) {
        buf_addf(b, "`auto`, or list of up to %lld", (long long)row->max);
    } else if (row->type == SETTING_PAIRS) {
        buf_addf(b, "map of up to %lld", (long long)row->max);
    } else {
        buf_addf(b, "text, %lld to %lld bytes", (long long)row->min, (long long)row->max);
    }
}

static void print_table(const struct settings *s, struct buf *b)
{
    const struct setting *row;
    size_t i;

    buf_addz(b, "| key | default | values | meaning |\n| --- | --- | --- | --- |\n");
    for (i = 0; i < s->n; i++) {
        row = &s->rows[i];
        buf_addf(b, "| `%s` | ", row->pathz);
        buf_addf(b, row->defaultz[0] ? "`%s`" : "%s", row->defaultz);
        buf_addz(b, row->defaultz[0] ? " | " : "| ");
        print_range(row, b);
        buf_addf(b, " | %s |\n", row->docz);
    }
}

static const char head[] = "\
# Configuration\n\
\n\
This page is made from `broker-config/setting.def` (`genq config check` prints the settings in\n\
force). The file is the one that `--config` names, else `$GENQ_CONFIG`, `./genq.yaml`,\n\
`/etc/genq/genq.yaml`; with none of them, the defaults hold. It is YAML of at most 1 MiB, without\n\
anchors and tags. `${NAME}` in a value is replaced from the environment. An unknown key, a wrong\n\
type or a value out of range is an error with file, line and column.\n\
\n\
A key `a.b` stands as `b` inside the map `a`:\n\
\n\
    broker: {sync: normal}\n\
\n";

static const char engines_head[] = "\
\n\
## engines\n\
\n\
A list of the engine nodes; without it, one at `http://127.0.0.1:11434`. Names are unique.\n\
\n\
    engines:\n\
      - {url: \"http://gpu0:11434\", slots: 8}\n\
      - {name: cloud, url: \"https://llm.example/v1\", api_key: \"${LLM_KEY}\"}\n\
\n";

static const char models_head[] = "\
\n\
## models\n\
\n\
A map from the name that clients use to the engine's name and to a queue. Models that do not\n\
stand here go by the engine's name, through the queue `default`.\n\
\n\
    models:\n\
      small: {target: \"qwen2.5:0.5b\", queue: fast}\n\
\n";

static const char queues_head[] = "\
\n\
## queues\n\
\n\
A map whose keys are the queues, 1 to 64 letters, digits or `._-`; the values are empty maps.\n\
`default` is always there. Each queue has a job topic for each priority.\n\
\n\
    queues: {default: {}, fast: {}}\n";

void config_print_reference(struct buf *b)
{
    buf_addz(b, head);
    print_table(&settings_main, b);
    buf_addz(b, engines_head);
    print_table(&settings_engine, b);
    buf_addz(b, models_head);
    print_table(&settings_model, b);
    buf_addz(b, queues_head);
}
