/* The command line: one file a command, one row in command.def. Data goes to stdout, progress and
 * messages to stderr. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "producer/embedded.h"

enum cli_exit {
    EXIT_WELL = 0,        /* all well */
    EXIT_SOME_FAILED = 1, /* some jobs failed */
    EXIT_USAGE = 2,       /* wrong usage or config */
    EXIT_NO_SERVER = 3,   /* a needed server cannot be reached, or the database is damaged */
    EXIT_TIMED_OUT = 4,
};

/* An option of a command (or a global one); rows end with namez == NULL. */
struct cli_option {
    const char *namez;   /* "--model" */
    char letter;         /* 'm', or 0 */
    const char *valuez;  /* "MODEL": takes a value; NULL: a flag */
    const char *helpz;
    bool is_many;        /* may be given several times */
};

struct cli;

struct cli_command {
    const char *namez;       /* "batch run" */
    const char *argumentsz;  /* "IN.jsonl -o OUT.jsonl"; also says how many are taken: a plain word
                              * is required, one in [brackets] is not, one that ends in … is
                              * repeated; options in it do not count */
    const char *summaryz;    /* one line */
    const char *detailsz;    /* further help text, or NULL */
    const struct cli_option *options; /* NULL: only the global ones */
    int (*run)(struct cli *c); /* gives an enum cli_exit */
    const char *examplez;    /* "genq get 01JD…", or NULL */
    bool is_client;          /* talks to a server: serverz is always set when it runs */
};

struct cli {
    const struct cli_command *command;
    const struct worker_side *side;
    const char *configz; /* --config, or NULL */
    const char *serverz; /* URL without a slash at its end: --server or $GENQ_SERVER, or (for
                          * is_client commands) the config's listen address; else NULL */
    const char *api_keyz; /* --api-key or $GENQ_API_KEY, or NULL */
    bool is_json;        /* --json */
    const char **args;   /* positional arguments */
    size_t n_args;
    struct {
        const struct cli_option *option;
        const char *valuez;
    } given[64];         /* options in the order given */
    size_t n_given;
};

/* Parses argv, runs the command, gives its exit code. Prints help for --help, the version for
 * --version. */
int cli_main(int argc, char **argv, const struct worker_side *side);

/* The last value given for an option ("" for a flag), or NULL. */
const char *cli_get(const struct cli *c, const char *namez);
bool cli_has(const struct cli *c, const char *namez);
/* i-th value of an option that may be given several times, or NULL. */
const char *cli_get_nth(const struct cli *c, const char *namez, size_t i);
/* A duration option ("30s", "2m", bare seconds); false and a message on stderr when it is none. */
bool cli_duration(const struct cli *c, const char *namez, int64_t default_ms, int64_t *ms);

/* "genq: message" on stderr; returns code. */
int cli_fail(int code, const char *fmtz, ...) __attribute__((format(printf, 2, 3)));
/* The same, then "Try 'genq COMMAND --help'."; returns EXIT_USAGE. */
int cli_usage(const struct cli *c, const char *fmtz, ...) __attribute__((format(printf, 2, 3)));

/* Loads the config (--config …) with --data, --listen, --engine over it; NULL after a message. Sets
 * up the log. */
struct config *cli_config(const struct cli *c);

/* One HTTP call to c->serverz (which must be set), blocking; the body is appended to *out. Returns
 * the HTTP status; or 0 after a message ("cannot reach http://…: …; is `genq up` running?"): exit
 * with EXIT_NO_SERVER. body's type: JSON unless content_typez is given. timeout_ms 0: no limit. */
int cli_call(const struct cli *c, const char *methodz, const char *pathz, struct str body,
             const char *content_typez, int64_t timeout_ms, struct buf *out);
/* The same, with the body given as it arrives (SSE, JSONL results); on_data returns non-zero to
 * stop. The body of a reply that is not 2xx is not given but printed as by cli_print_error: exit
 * with cli_exit_code(status). */
int cli_call_stream(const struct cli *c, const char *methodz, const char *pathz, struct str body,
                    int (*on_data)(void *data, struct str bytes), void *data);
/* Prints the error of a reply that is not 2xx; gives the exit code for its status. */
int cli_print_error(int status, struct str body);
/* 2xx: EXIT_WELL; 429, 502, 503 (full or stopping): EXIT_NO_SERVER; 408, 504: EXIT_TIMED_OUT; what
 * is wrong with the request itself (400, 401, 403, 405, 411, 413, 415, 422): EXIT_USAGE; else
 * EXIT_SOME_FAILED (404, 409, 410, 500 …). */
int cli_exit_code(int status);
/* The same for what went wrong in this process: ERR_INVALID, ERR_NOT_FOUND (a topic): EXIT_USAGE;
 * ERR_UNREACHABLE, ERR_TIMEOUT (Kafka): EXIT_NO_SERVER; else EXIT_SOME_FAILED. */
int cli_exit_err(const struct err *e);

/* Appends s percent-encoded for a URL's path segment or query value. */
void cli_escape(struct buf *b, struct str s);
