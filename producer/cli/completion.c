/* `genq completion`: scripts that complete genq's words in bash and zsh, from the tables. Both ask
 * the same thing: the words so far name a command (one or two words) or not yet; then its options,
 * or the commands, or files. */
#include "producer/cli/parse.h"
#include <stdio.h>

#define SCRIPT_MAX_BYTES ((size_t)1 << 20)

static size_t first_word(const char *namez)
{
    return strcspn(namez, " ");
}

/* The words that may stand first: each once. */
static void put_first_words(struct buf *b)
{
    size_t i, n, n_before = 0;
    const char *beforez = "";

    for (i = 0; cli_commands[i]; i++) {
        n = first_word(cli_commands[i]->namez);
        if (n == n_before && strncmp(cli_commands[i]->namez, beforez, n) == 0)
            continue; /* the group's commands stand together in the table */
        buf_addf(b, "%s%.*s", i > 0 ? " " : "", (int)n, cli_commands[i]->namez);
        beforez = cli_commands[i]->namez;
        n_before = n;
    }
    buf_addz(b, " help");
}

static void put_options(struct buf *b, const struct cli_option *o)
{
    for (; o && o->namez; o++) {
        buf_addf(b, " %s", o->namez);
        if (o->letter)
            buf_addf(b, " -%c", o->letter);
    }
}

/* `case` arms: a command's name to its options. */
static void put_option_arms(struct buf *b)
{
    size_t i;

    for (i = 0; cli_commands[i]; i++) {
        buf_addf(b, "    '%s') offers=\"$globals", cli_commands[i]->namez);
        put_options(b, cli_commands[i]->options);
        buf_addz(b, "\" ;;\n");
    }
}

/* `case` arms: a group to its second words. */
static void put_group_arms(struct buf *b)
{
    const char *namez;
    size_t i, at, n;

    for (i = 0; cli_commands[i]; i = at) {
        namez = cli_commands[i]->namez;
        n = first_word(namez);
        at = i + 1;
        if (namez[n] == '\0')
            continue;
        buf_addf(b, "    %.*s) offers=\"%s", (int)n, namez, namez + n + 1);
        for (; cli_commands[at] && strncmp(cli_commands[at]->namez, namez, n + 1) == 0; at++)
            buf_addf(b, " %s", cli_commands[at]->namez + n + 1);
        buf_addz(b, "\" ;;\n");
    }
}

static void put_groups(struct buf *b)
{
    const char *sepz = "", *namez;
    size_t i, n, n_before = 0;

    for (i = 0; cli_commands[i]; i++) {
        namez = cli_commands[i]->namez;
        n = first_word(namez);
        if (namez[n] != '\0' && (i == 0 || n != n_before ||
                                 strncmp(cli_commands[i - 1]->namez, namez, n) != 0)) {
            buf_addf(b, "%s%.*s", sepz, (int)n, namez);
            sepz = "|";
        }
        n_before = n;
    }
}

/* Options that take a value, as a pattern of `case`: behind them stands a file or the user's
 * word. */
static void put_value_pattern(struct buf *b)
{
    const struct cli_option *o;
    const char *sepz = "";
    size_t i;

    for (o = cli_globals; o->namez; o++)
        if (o->valuez) {
            buf_addf(b, "%s%s", sepz, o->namez);
            sepz = "|";
        }
    for (i = 0; cli_commands[i]; i++)
        for (o = cli_commands[i]->options; o && o->namez; o++)
            if (o->valuez) {
                buf_addf(b, "|%s", o->namez);
                if (o->letter)
                    buf_addf(b, "|-%c", o->letter);
            }
}

/* Sets `offers` from the words before the cursor, $1 the one just before it. */
static void put_body(struct buf *b)
{
    buf_addz(b, "_genq_words() {\n  local before=$1 name= word skip= globals=\"");
    put_options(b, cli_globals);
    buf_addz(b, "\"\n  shift\n  offers=\n  case \"$before\" in\n    ");
    put_value_pattern(b);
    buf_addz(b, ") return ;;\n  esac\n"
                "  for word in \"$@\"; do\n"
                "    if [ -n \"$skip\" ]; then skip=; continue; fi\n"
                "    case \"$word\" in\n      ");
    put_value_pattern(b);
    buf_addz(b, ") skip=1 ;;\n"
                "      -*) ;;\n"
                "      help) ;;\n"
                "      *) case \"$name\" in\n"
                "           '') name=$word ;;\n"
                "           ");
    put_groups(b);
    buf_addz(b, ") name=\"$name $word\" ;;\n"
                "         esac ;;\n"
                "    esac\n"
                "  done\n"
                "  case \"$name\" in\n    '') offers=\"");
    put_first_words(b);
    buf_addz(b, "$globals\" ;;\n");
    put_group_arms(b);
    put_option_arms(b);
    buf_addz(b, "  esac\n}\n");
}

static void put_bash(struct buf *b)
{
    buf_addz(b, "# bash completion of genq: source <(genq completion bash)\n");
    put_body(b);
    buf_addz(b, "_genq() {\n"
                "  local offers\n"
                "  _genq_words \"${COMP_WORDS[COMP_CWORD-1]}\" "
                "\"${COMP_WORDS[@]:1:COMP_CWORD-1}\"\n"
                "  COMPREPLY=($(compgen -W \"$offers\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
                "}\n"
                "complete -o default -F _genq genq\n");
}

static void put_zsh(struct buf *b)
{
    buf_addz(b, "#compdef genq\n"
                "# zsh completion of genq: source <(genq completion zsh), or _genq in $fpath\n");
    put_body(b);
    buf_addz(b, "_genq() {\n"
                "  local -a given=(\"${(@)words[2,CURRENT-1]}\")\n"
                "  local before=\"${words[CURRENT-1]}\" offers\n"
                "  _genq_words \"$before\" \"${given[@]}\"\n"
                "  compadd -- ${=offers}\n"
                "  [[ $PREFIX == -* ]] || _files\n"
                "}\n"
                "if [ \"$funcstack[1]\" = _genq ]; then _genq \"$@\"\n"
                "else compdef _genq genq; fi\n");
}

static int run(struct cli *c)
{
    const char *shellz = c->args[0];
    struct buf b;

    buf_init(&b, SCRIPT_MAX_BYTES);
    if (strcmp(shellz, "bash") == 0)
        put_bash(&b);
    else if (strcmp(shellz, "zsh") == 0)
        put_zsh(&b);
    else
        return cli_usage(c, "'%s' is neither bash nor zsh", shellz);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
    return EXIT_WELL;
}

const struct cli_command command_completion = {
    .namez = "completion",
    .argumentsz = "bash|zsh",
    .summaryz = "print a script that completes genq's words in a shell",
    .run = run,
    .examplez = "source <(genq completion bash)",
};
