/* Help texts, made from the tables of commands and options. */
#pragma once
#include "producer/cli/cli.h"

/* All commands in a line each, and the global options. */
void help_print_all(struct buf *b);
/* The commands of a group ("batch"). */
void help_print_group(struct buf *b, const char *groupz);
/* One command: usage, what it does, options, an example. */
void help_print_command(struct buf *b, const struct cli_command *command);
/* "Try 'genq batch run --help'." for a command or group; both NULL: 'genq --help'. */
void help_print_try(struct buf *b, const struct cli_command *command, const char *groupz);
