/* One attempt of a job: shared by run.c, which walks its steps, and judge.c, which says what came
 * of it. */
#pragma once
#include "worker/inside.h"
#include "worker/retry.h"

struct run {
    struct list node; /* in worker->runs while its call is under way */
    struct worker *w;
    struct task *task;
    struct node *at;
    struct fetch *fetch;
    struct cache_ask *ask; /* while an answer is looked for that was given before */
    struct engine_request request;
    struct engine_reply reply;
    struct buf refusal, delta, json;
    uint8_t key[SHA256_LEN]; /* in the cache; of a job that uses one */
    int status;
    bool is_stream, is_garbage;
    int64_t started_ms; /* monotonic */
    struct fetch_result result;
    struct verdict verdict;
    char error[500];
};

static inline struct job *run_job(const struct run *r)
{
    return r->task->body->job;
}

static inline void run_set_error(struct run *r, const char *whyz)
{
    str_copyz(r->error, sizeof r->error, str_z(whyz));
}

/* What came, in the policy's words; its text goes into r->error. */
struct verdict run_classify(struct run *r);
/* Notes the call in the job's ledger. */
void run_add_to_ledger(struct run *r, enum call_outcome outcome, int64_t ms);
/* Tells the pool what the call's end means for its node. */
void run_tell_node(struct run *r);
