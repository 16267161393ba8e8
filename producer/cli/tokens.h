/* The tokens of one job on stdout, as they come (server-sent events). */
#pragma once
#include "producer/cli/follow.h"

/* Prints deltas until the job has ended, over cut connections; what was dropped on the way is
 * printed from the completion. With --json each event in a line. As follow_job. */
int tokens_follow(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
                  struct json **job);
/* After it: the error of a job that failed, on stderr; gives the exit code. */
int tokens_print_end(const struct json *job);
