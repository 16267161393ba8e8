/* Engines as codecs without I/O: job to request bytes, answer bytes to deltas, usage, finish reason
 * and error class. Timeouts, aborts, retries and metering exist once, around them (run.c). Each
 * driver is one file engine_<name>.c with one const struct engine_ops, tested on recorded
 * replies. */
#pragma once
#include "broker-config/config.h"
#include "schema/completion.h"

/* What an answer means for the job. */
enum engine_class {
    ENGINE_OK,         /* a whole answer */
    ENGINE_TRANSIENT,  /* about this job, may go better next time: 500, cut, garbage */
    ENGINE_OVERLOADED, /* 429, 503, loading: wait, no attempt spent */
    ENGINE_INVALID,    /* the job's own fault: 400, 413, 422 … */
    ENGINE_NO_MODEL,   /* this node does not have the model */
    ENGINE_DENIED,     /* 401, 403: the node's settings are wrong; wait as if it were away */
};

struct engine_request {
    const char *pathz;  /* below the node's URL */
    struct buf body;    /* made by the driver, released by the caller, also after a failure */
};

#define ENGINE_REQUEST_MAX_BYTES ((size_t)1 << 30) /* bodies are bounded where jobs come in */

/* An answer being read. */
struct engine_reply {
    enum job_kind kind;
    bool is_stream;           /* asked for a stream */
    struct buf raw;           /* what has not been decoded yet: a line, or the whole plain body */
    struct buf text;          /* output text so far */
    struct buf message;       /* JSON of output.message (chat), when whole */
    struct buf embedding;     /* JSON of output.embedding */
    struct buf tool_calls;    /* streams: tool calls gathered so far, driver's own form */
    struct buf reasoning;     /* streams: reasoning gathered so far */
    struct usage usage;
    bool has_usage, is_done;  /* is_done: the engine said that this is all */
    char finish_reason[32];
    char error[400];          /* an error told inside the body */
    char model[257];          /* as the engine answered */
};

void engine_reply_init(struct engine_reply *r, enum job_kind kind, bool is_stream,
                       size_t max_bytes);
void engine_reply_release(struct engine_reply *r);

struct engine_ops {
    const char *namez; /* "ollama", "openai" */
    enum engine_api api;
    /* Builds the request for job j with the engine's model name. */
    int (*build)(const struct job *j, struct str model, bool is_stream, struct engine_request *out,
                 struct err *e);
    /* Takes bytes of a 2xx answer's body; new output text is appended to `delta` (NULL: not
     * wanted). 0, or negative: the answer is garbage. */
    int (*feed)(struct engine_reply *r, struct str bytes, struct buf *delta);
    /* The answer has ended with HTTP `status`; for others than 2xx `body` is the whole body. Judges
     * it: success only when the engine said so (done:true; [DONE] after a finish reason), never by
     * the status alone. Fills r->error when not ENGINE_OK. */
    enum engine_class (*end)(struct engine_reply *r, int status, struct str body);
    /* Path of the health check, and of the list of models; parses that list into names (appended to
     * b, NUL-separated), and how many slots the engine tells (0: not told). */
    const char *health_pathz, *models_pathz;
    int (*read_models)(struct str body, struct buf *names, struct err *e);
    const char *slots_pathz; /* NULL: the engine does not tell */
    int (*read_slots)(struct str body);
};

/* All drivers, NULL-terminated; made by the build from engine_*.c. */
extern const struct engine_ops *const engine_drivers[];
const struct engine_ops *engine_by_api(enum engine_api api);
