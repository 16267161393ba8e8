/* What `genq dead list` and `genq dead redrive` share. */
#pragma once
#include "base/json.h"
#include "producer/cli/cli.h"

/* The rows of both commands' options. */
#define DEAD_FILTERS \
    {"--model", 'm', "MODEL", "only jobs of this model", false}, \
        {"--code", 0, "CODE", "only this error code; also malformed, id_conflict", false}, \
        {"--tenant", 0, "NAME", "only jobs of this tenant", false}, \
        {"--queue", 0, "NAME", "only jobs of this queue", false}, \
        {"--batch", 0, "ID", "only jobs of this batch", false}, \
        {"--since", 0, "TIME", "came then or later: 2026-11-21, RFC 3339, or ms since the epoch", \
         false}, \
        {"--until", 0, "TIME", "came before then", false}, \
    { \
        "--after", 0, "CURSOR", "came behind this place of the topic", false \
    }

/* Calls until all letters that match were given, page by page, or `most` were; not those
 * that come meanwhile, of jobs that fail again. on_letter prints one.
 * An exit code, after a message when it is not EXIT_WELL. *next: where more may stand; -1: none. */
int dead_pages(const struct cli *c, const char *methodz, const char *pathz, struct str body,
               int64_t most, void (*on_letter)(void *data, const struct json *letter), void *data,
               int64_t *next);
