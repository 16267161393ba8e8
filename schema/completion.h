/* The completion: a terminal job as clients read it (contract, "What a client reads"), and the
 * value of a record on the completions topic. The same JSON is what GET answers for a finished job;
 * an unfinished one has the same members with nulls. */
#pragma once
#include "schema/job.h"
#include "schema/reason.h"

struct json;

struct usage {
    int64_t prompt_tokens, completion_tokens, cached_tokens; /* 0 where the engine told none */
};

enum call_outcome { CALL_OK, CALL_FAILED, CALL_TIMEOUT, CALL_CUT, CALL_CANCELLED, CALL_REFUSED };

/* One engine call: a row of the usage ledger. */
struct call {
    char id[ULID_LEN + 1];
    int attempt;            /* from 1 */
    struct str node, model; /* node's name; model as sent to the engine. Borrowed */
    struct usage usage;
    enum call_outcome outcome;
    int64_t ms;  /* monotonic */
    double cost; /* in the config's unit; 0 where the node has no prices */
};

#define CALLS_MAX 32 /* of one job that are told one by one; older ones are dropped */

struct completion {
    enum job_state state;
    int attempts;
    struct str node;                 /* p == NULL: none */
    int64_t started_at, finished_at; /* wall ms, 0: null */
    bool is_cached;                  /* the answer is one that was given before */
    struct str output;               /* JSON source text of all of output; n == 0: the members below */
    struct str text;                 /* output.text; p == NULL: null */
    struct str message;              /* JSON source text; n == 0: null */
    struct str embedding;            /* JSON source text; n == 0: null */
    struct str json; /* JSON source text: the answer parsed, when response_format asked for JSON */
    struct str finish_reason; /* p == NULL: null */
    enum reason reason;       /* REASON_NONE when it succeeded */
    struct str error_message;
    struct usage usage; /* of the answering call */
    const struct call *calls;
    size_t n_calls;
    int64_t queue_ms, engine_ms, first_token_ms, total_ms; /* -1: null */
    double cost;
};

/* Appends the JSON of job j that stands at c (c->state may be any state; unfinished: output null).
 */
int completion_write(const struct job *j, const struct completion *c, struct buf *b);

/* The job that a completion record's value tells of, for a store that does not know it. Its strs
 * are its own: `value` need not stay. (A job that is known takes from the value only
 * what its end adds: store/writer_end.c.) */
struct completion_view {
    struct str id, tenant, model, queue, batch_id; /* p == NULL: absent */
    enum priority priority;
    enum job_state state;
    int64_t created_at, batch_line; /* 0, -1: absent */
    struct json *owned;             /* private */
};

/* 0 (release v), or ERR_INVALID: no completion, or one without id, tenant or status. */
int completion_read(struct completion_view *v, struct str value, struct err *e);
void completion_view_release(struct completion_view *v);

const char *outcome_name(enum call_outcome o);
/* By name; false when there is no such outcome. */
bool outcome_parse(struct str name, enum call_outcome *out);
