#include "producer/cli/help.h"
#include "producer/cli/parse.h"
#include "producer/cli/table.h"

enum { COLUMNS = 100, COMMAND_COLUMN = 28, OPTION_COLUMN = 28 };

static void pad(struct buf *b, size_t used, size_t wanted)
{
    for (; used < wanted; used++)
        buf_addc(b, ' ');
}

/* A text behind what stands in the line already (`used` columns of it), broken at spaces and always
 * from `column` on. */
static void put_wrapped(struct buf *b, size_t used, size_t column, const char *textz)
{
    struct str word;
    size_t at = used;

    if (used + 2 > column) {
        buf_addc(b, '\n');
        at = 0;
    }
    pad(b, at, column);
    for (at = column; *textz; at += table_width(word)) {
        word = str_of(textz, strcspn(textz, " "));
        if (at > column && at + 1 + table_width(word) > COLUMNS) {
            buf_addc(b, '\n');
            pad(b, 0, column);
            at = column;
        } else if (at > column) {
            buf_addc(b, ' ');
            at++;
        }
        buf_adds(b, word);
        textz += word.n;
        textz += strspn(textz, " ");
    }
    buf_addc(b, '\n');
}

static void put_command_line(struct buf *b, const struct cli_command *c)
{
    size_t start = b->n;

    buf_addf(b, "  %s", c->namez);
    if (c->argumentsz && table_width(str_z(c->argumentsz)) + strlen(c->namez) + 5 <= COMMAND_COLUMN)
        buf_addf(b, " %s", c->argumentsz);
    put_wrapped(b, table_width(str_of(b->p + start, b->n - start)), COMMAND_COLUMN, c->summaryz);
}

static void put_option(struct buf *b, const struct cli_option *o)
{
    size_t start = b->n;

    if (o->letter)
        buf_addf(b, "  -%c, %s", o->letter, o->namez);
    else
        buf_addf(b, "      %s", o->namez);
    if (o->valuez)
        buf_addf(b, " %s", o->valuez);
    if (o->is_many)
        buf_addz(b, "…");
    put_wrapped(b, table_width(str_of(b->p + start, b->n - start)), OPTION_COLUMN, o->helpz);
}

static void put_globals(struct buf *b)
{
    const struct cli_option *o;

    buf_addz(b, "\nOptions of every command:\n");
    for (o = cli_globals; o->namez; o++)
        put_option(b, o);
}

void help_print_all(struct buf *b)
{
    size_t i;

    buf_addz(b, "genq: a queue for LLM work\n\nUsage: genq COMMAND [OPTION]… [ARGUMENT]…\n\n"
                "Commands:\n");
    for (i = 0; cli_commands[i]; i++)
        put_command_line(b, cli_commands[i]);
    put_globals(b);
    buf_addz(b, "\n'genq COMMAND --help' tells more.\n");
}

void help_print_group(struct buf *b, const char *groupz)
{
    size_t i, n = strlen(groupz);

    buf_addf(b, "Usage: genq %s COMMAND [OPTION]… [ARGUMENT]…\n\nCommands:\n", groupz);
    for (i = 0; cli_commands[i]; i++)
        if (strncmp(cli_commands[i]->namez, groupz, n) == 0 && cli_commands[i]->namez[n] == ' ')
            put_command_line(b, cli_commands[i]);
    buf_addf(b, "\n'genq %s COMMAND --help' tells more.\n", groupz);
}

static struct str without_break(struct str s)
{
    while (s.n > 0 && s.p[s.n - 1] == '\n')
        s.n--;
    return s;
}

void help_print_command(struct buf *b, const struct cli_command *c)
{
    const struct cli_option *o;
    bool has_arguments = c->argumentsz && *c->argumentsz;
    bool has_options = c->options && c->options->namez;
    bool names_options = has_arguments && strncmp(c->argumentsz, "[-", 2) == 0;

    buf_addf(b, "Usage: genq %s%s%s%s\n\n%s\n", c->namez,
             has_options && !names_options ? " [OPTION]…" : "", has_arguments ? " " : "",
             has_arguments ? c->argumentsz : "", c->summaryz);
    if (c->detailsz)
        buf_addf(b, "\n%.*s\n", STR_ARG(without_break(str_z(c->detailsz))));
    if (has_options)
        buf_addz(b, "\nOptions:\n");
    for (o = c->options; has_options && o->namez; o++)
        put_option(b, o);
    put_globals(b);
    if (c->examplez)
        buf_addf(b, "\nExample:\n  %s\n", c->examplez);
}

void help_print_try(struct buf *b, const struct cli_command *command, const char *groupz)
{
    const char *namez = command ? command->namez : groupz;

    buf_addf(b, "Try 'genq %s%s--help'.\n", namez ? namez : "", namez ? " " : "");
}
