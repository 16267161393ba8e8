/* What `genq up`, `genq gateway` and `genq worker` have in common: roles in this process, with an
 * HTTP server, until a signal. */
#pragma once
#include "producer/cli/cli.h"

/* Runs the roles (enum embedded_role; one alone needs Kafka) with the config and the options
 * --data,
 * --listen, --engine. Gives an enum cli_exit. */
int serve(struct cli *c, unsigned roles);
