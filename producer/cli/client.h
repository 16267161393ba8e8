/* The HTTP client of the commands: blocking calls, each on a loop and a connection of its own. What
 * most commands need is cli_call and cli_call_stream of cli.h; this is for those that want to know
 * why a call failed. */
#pragma once
#include "producer/cli/cli.h"

struct client_call {
    const char *methodz, *pathz; /* path with its query */
    struct str body;
    const char *content_typez;   /* NULL: JSON */
    const char *headerz;         /* one more header, "Name: value", or NULL */
    int64_t total_ms, idle_ms;   /* 0: no limit */
    /* Given the body of a 2xx as it comes; returns non-zero to stop. NULL: it goes to *out. */
    int (*on_data)(void *data, struct str bytes);
    void *data;
    struct buf *out;             /* appended; the body of any reply that is not given to on_data */
    bool was_stopped;            /* result: on_data stopped it, or *out is full */
};

/* Makes the call. Returns the HTTP status, also where on_data stopped the body; or a negative code
 * and *e (NULL allowed): ERR_UNREACHABLE (nothing was sent), ERR_CLOSED (cut in the middle),
 * ERR_TIMEOUT, ERR_TOO_LARGE, ERR_INVALID (URL or header). */
int client_send(const struct cli *c, struct client_call *call, struct err *e);

/* Says on stderr why there is no answer. */
void client_explain(const struct cli *c, const struct err *e);

/* Appends the server's URL (see cli.h), or nothing where none is given and the command needs none.
 * EXIT_WELL, or EXIT_USAGE after a message. */
int client_find_server(const struct cli *c, struct buf *url);
/* Appends `givenz` as a URL: http:// where no scheme is given, without a slash at its end. */
void client_make_url(struct buf *b, struct str given);
