/* The words of a command line to a struct cli. No output, no environment: cli.c says what was wrong
 * and fills in the defaults. */
#pragma once
#include "producer/cli/cli.h"

/* All commands, from command.def, NULL-terminated; and the options that every command takes. */
extern const struct cli_command *const cli_commands[];
extern const struct cli_option cli_globals[];

struct cli_wish {
    bool is_help, is_version;
    const char *groupz; /* "batch": its second word is missing; else NULL */
};

/* Parses argv[1…]. 0, with c->command NULL when no command stood there; or ERR_INVALID and *e, with
 * c->command or w->groupz as far as they are known. c borrows from argv; cli_release frees its
 * own. */
int cli_parse(struct cli *c, struct cli_wish *w, int argc, char **argv, struct err *e);
void cli_release(struct cli *c);

/* How many arguments an argumentsz takes (see cli.h); *max is SIZE_MAX where the last is
 * repeated. */
void cli_count_args(const char *argumentsz, size_t *min, size_t *max);
/* Checks c->n_args against the command: 0, or ERR_INVALID that names what is missing or too
 * much. */
int cli_check_args(const struct cli *c, struct err *e);

/* Whether the contract has a command of this name that this version lacks. */
bool cli_is_unbuilt(const char *namez);
/* Whether `namez` is the first of a command's two words. */
bool cli_is_group(const char *namez);

/* Edits (insert, delete, change, swap neighbours) that make b of a; at most 64 bytes of each
 * count. */
size_t cli_distance(struct str a, struct str b);
