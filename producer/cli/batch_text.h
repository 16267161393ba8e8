/* Batches (their JSON, as the server gives it) as people read them, and waiting for their end. */
#pragma once
#include "producer/cli/follow.h"

struct batch_counts {
    bool is_ended;  /* done or cancelled, with nothing open */
    int64_t total, queued, succeeded, failed, cancelled, expired;
    int64_t tokens;
};

void batch_text_counts(const struct json *batch, struct batch_counts *n);
/* Jobs that ended otherwise than succeeded. */
int64_t batch_text_n_bad(const struct batch_counts *n);
void batch_text_details(struct buf *b, const struct json *batch);

/* Waits for the batch's end, with progress on stderr. As follow_get; *batch: the last state seen,
 * caller frees. */
int batch_await(struct follow *f, const char *idz, const char *tenantz, struct buf *out,
                struct json **batch);
/* Waits as batch_await, then prints the batch: the end of `batch submit` and `batch status`.
 * timeout_ms negative: none. EXIT_SOME_FAILED when jobs did not succeed. */
int batch_await_and_print(const struct cli *c, const char *idz, int64_t timeout_ms);
/* Asks the server about the batch that the first argument and --tenant name ("DELETE": cancels it).
 * Gives its JSON: as text, appended to `text`, and parsed, in *batch (caller frees; NULL on failure,
 * which is told). An exit code. */
int batch_call(const struct cli *c, const char *methodz, int64_t limit_ms, struct buf *text,
               struct json **batch);
/* The same, and prints it. */
int batch_call_and_print(const struct cli *c, const char *methodz, int64_t limit_ms);
/* Prints a batch's JSON, or details, on stdout. */
void batch_print(const struct cli *c, const struct json *batch, struct str text);
