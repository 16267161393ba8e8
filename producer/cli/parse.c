#include "producer/cli/parse.h"
#include <stdlib.h>

/* ---- tables ---- */

#define COMMAND(symbol) extern const struct cli_command symbol;
#include "producer/cli/command.def"
#undef COMMAND

const struct cli_command *const cli_commands[] = {
#define COMMAND(symbol) &symbol,
#include "producer/cli/command.def"
#undef COMMAND
    NULL,
};

const struct cli_option cli_globals[] = {
    {"--config", 0, "FILE",
     "the settings; else $GENQ_CONFIG, ./genq.yaml, /etc/genq/genq.yaml", false},
    {"--server", 0, "URL", "the server to talk to; else $GENQ_SERVER, or the config's listen",
     false},
    {"--api-key", 0, "KEY", "sent as Authorization: Bearer; else $GENQ_API_KEY", false},
    {"--json", 0, NULL, "print JSON", false},
    {"--help", 'h', NULL, "show this and exit", false},
    {"--version", 0, NULL, "show the version and exit", false},
    {NULL, 0, NULL, NULL, false},
};

/* Of the contract, and not in this version. */
static const char *const unbuilt[] = {
    "label", "eval", "explain", "models", "keys", "top", "doctor", "bench",
};

bool cli_is_unbuilt(const char *namez)
{
    size_t i;

    for (i = 0; i < sizeof unbuilt / sizeof unbuilt[0]; i++)
        if (strcmp(unbuilt[i], namez) == 0)
            return true;
    return false;
}

bool cli_is_group(const char *namez)
{
    size_t i, n = strlen(namez);

    for (i = 0; cli_commands[i]; i++)
        if (strncmp(cli_commands[i]->namez, namez, n) == 0 && cli_commands[i]->namez[n] == ' ')
            return true;
    return false;
}

/* ---- nearest names ---- */

enum { WORD_MAX = 64 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Three rows of the matrix of optimal string alignment. */
size_t cli_distance(struct str a, struct str b)
{
    size_t rows[3][WORD_MAX + 1], *above = rows[0], *row = rows[1], *two_above = rows[2], *spare;
    size_t i, j;

    a.n = least(a.n, WORD_MAX);
    b.n = least(b.n, WORD_MAX);
    for (j = 0; j <= b.n; j++)
        above[j] = j;
    for (i = 1; i <= a.n; i++) {
        row[0] = i;
        for (j = 1; j <= b.n; j++) {
            row[j] = least(least(above[j], row[j - 1]) + 1,
                           above[j - 1] + (a.p[i - 1] != b.p[j - 1]));
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = least(row[j], two_above[j - 2] + 1);
        }
        spare = two_above;
        two_above = above;
        above = row;
        row = spare;
    }
    return above[b.n];
}

struct nearest {
    struct str word, name; /* name: STR_NONE when none is near */
    size_t distance;
};

/* Keeps the nearer one; a name is near when a third of the word, at most, is wrong. */
static void consider(struct nearest *near, struct str name)
{
    size_t d = cli_distance(near->word, name);

    if (d < near->distance && d * 3 <= (near->word.n > 3 ? near->word.n : 3)) {
        near->distance = d;
        near->name = name;
    }
}

static struct str near_option(const struct cli_command *command, struct str word)
{
    struct nearest near = {word, STR_NONE, SIZE_MAX};
    const struct cli_option *o;

    for (o = command ? command->options : NULL; o && o->namez; o++)
        consider(&near, str_z(o->namez));
    for (o = cli_globals; o->namez; o++)
        consider(&near, str_z(o->namez));
    return near.name;
}

static struct str near_command(struct str word)
{
    struct nearest near = {word, STR_NONE, SIZE_MAX};
    const char *namez;
    size_t i;

    for (i = 0; cli_commands[i]; i++) {
        namez = cli_commands[i]->namez;
        consider(&near, str_z(namez));
        consider(&near, str_of(namez, strcspn(namez, " "))); /* a group's first word */
    }
    consider(&near, STR("help"));
    return near.name;
}

/* ---- words ---- */

struct parser {
    struct cli *c;
    struct cli_wish *w;
    char **argv;
    int argc, at;
    struct err *e;
};

static int refuse(struct parser *p, const char *whatz, struct str word, struct str near)
{
    if (near.n > 0)
        return err_set(p->e, ERR_INVALID, "unknown %s '%.*s'; did you mean '%.*s'?", whatz,
                       STR_ARG(word), STR_ARG(near));
    return err_set(p->e, ERR_INVALID, "unknown %s '%.*s'", whatz, STR_ARG(word));
}

static const struct cli_command *find_command(const char *namez)
{
    size_t i;

    for (i = 0; cli_commands[i]; i++)
        if (strcmp(cli_commands[i]->namez, namez) == 0)
            return cli_commands[i];
    return NULL;
}

/* The word behind "batch". */
static int take_second(struct parser *p, const char *wordz)
{
    struct buf name;

    if (strcmp(wordz, "help") == 0) {
        p->w->is_help = true;
        return 0;
    }
    buf_init(&name, 4096);
    buf_addf(&name, "%s %s", p->w->groupz, wordz);
    p->c->command = name.is_over ? NULL : find_command(name.p);
    if (p->c->command)
        p->w->groupz = NULL;
    else
        refuse(p, "command", buf_str(&name), near_command(buf_str(&name)));
    buf_release(&name);
    return p->c->command ? 0 : ERR_INVALID;
}

static int take_command(struct parser *p, const char *wordz)
{
    if (p->w->groupz)
        return take_second(p, wordz);
    p->c->command = find_command(wordz);
    if (p->c->command)
        return 0;
    if (strcmp(wordz, "help") == 0 && !p->w->is_help) {
        p->w->is_help = true;
        return 0;
    }
    if (cli_is_group(wordz)) {
        p->w->groupz = wordz;
        return 0;
    }
    if (cli_is_unbuilt(wordz))
        return err_set(p->e, ERR_INVALID, "'%s' is not built in this version", wordz);
    return refuse(p, "command", str_z(wordz), near_command(str_z(wordz)));
}

static int take_argument(struct parser *p, const char *wordz)
{
    if (!p->c->command)
        return take_command(p, wordz);
    p->c->args[p->c->n_args++] = wordz;
    return 0;
}

/* ---- options ---- */

static const struct cli_option *find_in(const struct cli_option *o, struct str name, char letter)
{
    for (; o && o->namez; o++)
        if (letter ? o->letter == letter : str_eqz(name, o->namez))
            return o;
    return NULL;
}

/* By name, or by letter when that is given; the command's own first. */
static const struct cli_option *find_option(const struct parser *p, struct str name, char letter)
{
    const struct cli_option *own = p->c->command ? p->c->command->options : NULL;
    const struct cli_option *o = find_in(own, name, letter);

    return o ? o : find_in(cli_globals, name, letter);
}

static void apply_global(struct parser *p, const char *namez, const char *valuez)
{
    if (strcmp(namez, "--config") == 0)
        p->c->configz = valuez;
    else if (strcmp(namez, "--server") == 0)
        p->c->serverz = valuez;
    else if (strcmp(namez, "--api-key") == 0)
        p->c->api_keyz = valuez;
    else if (strcmp(namez, "--json") == 0)
        p->c->is_json = true;
    else if (strcmp(namez, "--help") == 0)
        p->w->is_help = true;
    else if (strcmp(namez, "--version") == 0)
        p->w->is_version = true;
}

/* valuez: what was attached to it, or NULL. */
static int take_option(struct parser *p, const struct cli_option *o, const char *valuez)
{
    struct cli *c = p->c;

    if (o->valuez && !valuez) {
        if (p->at + 1 >= p->argc)
            return err_set(p->e, ERR_INVALID, "%s needs a value: %s", o->namez, o->valuez);
        valuez = p->argv[++p->at];
    }
    if (c->n_given == sizeof c->given / sizeof c->given[0])
        return err_set(p->e, ERR_INVALID, "too many options; at most %zu are taken", c->n_given);
    c->given[c->n_given].option = o;
    c->given[c->n_given++].valuez = valuez ? valuez : "";
    apply_global(p, o->namez, valuez);
    return 0;
}

static int take_long(struct parser *p, const char *wordz)
{
    const char *equalz = strchr(wordz, '=');
    struct str name = {wordz, equalz ? (size_t)(equalz - wordz) : strlen(wordz)};
    const struct cli_option *o = find_option(p, name, 0);

    if (!o)
        return refuse(p, "option", name, near_option(p->c->command, name));
    if (equalz && !o->valuez)
        return err_set(p->e, ERR_INVALID, "%s takes no value", o->namez);
    return take_option(p, o, equalz ? equalz + 1 : NULL);
}

/* "-mVALUE", "-m VALUE", or several flags in one word. */
static int take_letters(struct parser *p, const char *wordz)
{
    const struct cli_option *o;
    const char *letterz;
    int rc = 0;

    for (letterz = wordz + 1; *letterz && rc == 0; letterz++) {
        o = find_option(p, STR_NONE, *letterz);
        if (!o)
            return err_set(p->e, ERR_INVALID, "unknown option '-%c'", *letterz);
        if (o->valuez)
            return take_option(p, o, letterz[1] ? letterz + 1 : NULL);
        rc = take_option(p, o, NULL);
    }
    return rc;
}

int cli_parse(struct cli *c, struct cli_wish *w, int argc, char **argv, struct err *e)
{
    struct parser p = {c, w, argv, argc, 1, e};
    bool is_ended = false; /* "--" stood there: no options from here on */
    const char *wordz;
    int rc = 0;

    memset(c, 0, sizeof *c);
    memset(w, 0, sizeof *w);
    c->args = xcalloc((size_t)argc + 1, sizeof c->args[0]);
    for (; p.at < argc && rc == 0; p.at++) {
        wordz = argv[p.at];
        if (is_ended || wordz[0] != '-' || wordz[1] == '\0')
            rc = take_argument(&p, wordz);
        else if (strcmp(wordz, "--") == 0)
            is_ended = true;
        else
            rc = wordz[1] == '-' ? take_long(&p, wordz) : take_letters(&p, wordz);
    }
    return rc;
}

void cli_release(struct cli *c)
{
    free(c->args);
    c->args = NULL;
}

/* ---- how many arguments ---- */

/* Takes the next word off *z that names an argument: skips options and their values. */
static struct str next_argument(const char **z)
{
    struct str word;
    bool is_option;

    for (;;) {
        *z += strspn(*z, " ");
        word = str_of(*z, strcspn(*z, " "));
        *z += word.n;
        if (word.n == 0)
            return STR_NONE;
        is_option = word.p[0] == '-' || (word.n > 1 && word.p[0] == '[' && word.p[1] == '-');
        if (!is_option)
            return word;
        if (word.p[0] == '-' || word.p[word.n - 1] != ']') { /* its value stands behind it */
            *z += strspn(*z, " ");
            *z += strcspn(*z, " ");
        }
    }
}

static bool is_repeated(struct str word)
{
    struct str dots = STR("…");

    return word.n > dots.n && memcmp(word.p + word.n - dots.n, dots.p, dots.n) == 0;
}

void cli_count_args(const char *argumentsz, size_t *min, size_t *max)
{
    const char *z = argumentsz ? argumentsz : "";
    struct str word;

    *min = *max = 0;
    while ((word = next_argument(&z)).n > 0) {
        *min += word.p[0] != '[';
        *max = is_repeated(word) || *max == SIZE_MAX ? SIZE_MAX : *max + 1;
    }
}

int cli_check_args(const struct cli *c, struct err *e)
{
    const char *z = c->command->argumentsz ? c->command->argumentsz : "";
    struct str word = STR_NONE;
    size_t i, min, max;

    cli_count_args(c->command->argumentsz, &min, &max);
    if (c->n_args > max)
        return err_set(e, ERR_INVALID, "'%s' is one argument too many for '%s'", c->args[max],
                       c->command->namez);
    if (c->n_args >= min)
        return 0;
    for (i = 0; i <= c->n_args; i++)
        word = next_argument(&z);
    if (is_repeated(word))
        word.n -= STR("…").n;
    return err_set(e, ERR_INVALID, "'%s' needs %.*s", c->command->namez, STR_ARG(word));
}
