/* The job: what a client sends (contract, Job), checked, and the value of a record on a job topic.
 *
 * A job's texts point into its source text, which the job owns. What the engine gets (messages,
 * options, sampling fields, metadata) is kept as source text, so numbers and order survive untouched.
 * Any thread; a job has one owner at a time. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "base/sha256.h"
#include "schema/state.h"

enum priority { PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_COUNT_ };
enum job_kind { JOB_COMPLETION, JOB_CHAT, JOB_EMBEDDING };
/* How a batch's result line looks. */
enum line_form { LINE_JOB, LINE_OPENAI };
/* Whether an answer that was given before does, and whether this one is kept for others. */
enum cache_mode { CACHE_BYPASS, CACHE_USE, CACHE_REFRESH, CACHE_MODE_COUNT_ };

enum job_field {
#define JOB_FIELD(id, name, type, doc) FIELD_##id,
#include "schema/job.def"
#undef JOB_FIELD
    FIELD_COUNT_
};

enum sampling {
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) SAMPLING_##id,
#include "schema/job.def"
#undef SAMPLING
    SAMPLING_COUNT_
};

#define JOB_METADATA_MAX_BYTES 16384
#define JOB_NAME_MAX_BYTES 256 /* of model, queue, session */
#define JOB_TIMEOUT_MS_DEFAULT 300000
#define JOB_TIMEOUT_MS_MAX 86400000
#define JOB_ATTEMPTS_MAX 1000
#define JOB_ATTEMPTS_DEFAULT 5

struct job {
    enum job_state state; /* written by job_step() alone */
    enum job_kind kind;
    enum priority priority;
    enum line_form form;
    enum cache_mode cache; /* where the client did not say: the default of its other fields */
    bool is_stream;
    bool is_id_chosen; /* by the client; set by job_complete */
    struct str id, tenant, model, queue;          /* set by job_complete at the latest */
    struct str batch_id, custom_id, session;      /* decoded; p == NULL when absent */
    struct str redrive_of;                        /* id of the job that it repeats; the same */
    struct str body;      /* prompt, messages or input: JSON source text (a prompt has its quotes) */
    struct str metadata, options;                 /* JSON source text of an object; n == 0: absent */
    struct str sampling[SAMPLING_COUNT_];         /* JSON source text; n == 0: absent */
    int64_t created_at, not_before, deadline;     /* wall ms; 0: none */
    int64_t timeout_ms;                           /* one engine call */
    int max_attempts;                             /* 0: the config's */
    int64_t batch_line;                           /* from 0; -1: none */
    char *text;           /* owned: the source text; NULL after job_look */
    struct buf extra;     /* owned: decoded strings and what was filled in */
    bool is_partial;      /* not all fields are here: without has_digest its digest is not known */
    bool has_digest;      /* `digest` is known: job_keep_digest or job_take_digest was called */
    uint8_t digest[SHA256_LEN];
};

/* Parses and checks one job from JSON: an HTTP body, a JSONL line's job, or a record's value (which
 * also carries created_at, batch_line and the like: `is_record`). Copies what it needs. 0, or
 * ERR_INVALID with e->msg naming the field and the reason, and *param (NULL allowed; a static name or
 * "") the field; j then needs no release. Unknown fields are refused by name, with the nearest
 * known name as a hint. A record's job is STATE_QUEUED, any other STATE_NEW. */
int job_parse(struct job *j, struct str json, bool is_record, const char **param, struct err *e);
/* As job_parse of a record, but the texts stay in `json`, which must outlive j. */
int job_look(struct job *j, struct str json, struct err *e);
void job_release(struct job *j);

/* What a submission fills in where the client left a field out. */
struct job_defaults {
    struct str model;   /* p == NULL: none, the job must name one */
    struct str tenant;
    struct str id;      /* p == NULL: a ULID is made */
    struct str batch_id; /* p == NULL: none */
    int64_t batch_line; /* -1: none */
    int64_t wall_ms;    /* becomes created_at */
    struct str queue;   /* p == NULL: `default` */
};

/* Fills in id, tenant, created_at, batch … from `d` (never over the client's own). ERR_INVALID when
 * model is missing, or d->id (a batch's name and line) is no id; j is then unchanged. */
int job_complete(struct job *j, const struct job_defaults *d, struct err *e);

/* Appends the record's value: the job as JSON, fields in job.def's order, then sampling fields,
 * then created_at, batch_line, line_form, redrive_of. job_parse(is_record) reads it back. */
int job_write(const struct job *j, struct buf *b);
/* A bound on the bytes that job_write appends. */
size_t job_room(const struct job *j);

/* SHA-256 of the canonical job without what the gateway filled in (id, created_at, batch_line …):
 * two submissions of one id are the same job exactly when these agree. */
void job_digest(const struct job *j, uint8_t digest[SHA256_LEN]);
bool job_knows_digest(const struct job *j); /* else job_digest's is another job's */
/* Makes it once and keeps it; the job's fields but its id must not change any more. */
void job_keep_digest(struct job *j);
/* SHA-256 of all that the answer depends on: tenant (answers are not shared between tenants), the
 * engine's name of the model, prompt, options, sampling fields. Jobs with the same key may have the
 * same answer. */
void job_cache_key(const struct job *j, struct str engine_model, uint8_t key[SHA256_LEN]);

/* Takes a digest that was made before, as a record's header has it; no 64 hex digits: none. */
void job_take_digest(struct job *j, struct str digits);

const char *priority_name(enum priority p);
bool priority_parse(struct str s, enum priority *out);
bool cache_mode_parse(struct str s, enum cache_mode *out);
/* What a job does that does not say: it uses the cache where its answer is meant to repeat. */
enum cache_mode job_cache_default(const struct job *j);
/* Whether job_parse takes a field of this name from clients. */
bool job_knows(struct str name);
/* Nearest of the known field names, or NULL when none is near. */
const char *job_field_hint(struct str name);
