/* A worker with everything below it (log, store, live, nodes) in the case's own directory, and stub
 * engines in processes of their own. One of each in a process. */
#pragma once
#include "store/reader.h"
#include "store/writer.h"
#include "tests/lib/test.h"
#include "worker/worker.h"
#include <stdatomic.h>
#include <uv.h>

struct rig {
    uv_loop_t loop;
    struct config *config;
    struct topics *topics;
    struct live *live;
    struct live *worker_live; /* a case's own; NULL: the worker shares `live` with the store */
    struct nodes *nodes;
    struct store_writer *store;
    struct broker *broker;
    struct reader *reader;
    struct worker *worker;
    bool is_stopped;
    _Atomic int64_t ended[STATE_COUNT_]; /* durable completions */
    int64_t ending[STATE_COUNT_];        /* of the transaction under way; the log's thread */
    int64_t ended_before[STATE_COUNT_];  /* when the worker was started */
};

/* Starts a stub engine with further arguments (NULL-terminated); gives its process and port. Port 0
 * takes a free one. */
int stub_start(int port, int *pid, const char *const *args);
void stub_kill(int pid);
/* Number of lines of the stub's log (stub.log) that hold all of textz. */
int stub_count(const char *textz);

/* yaml: config without `data`. */
void rig_open(struct rig *r, const char *yamlz);
void rig_start_worker(struct rig *r);
/* Stops the worker, waiting for it; then frees it and closes the log, which the next one opens. */
void rig_stop_worker(struct rig *r, int64_t drain_ms);
void rig_close(struct rig *r);

/* Publishes a job from its JSON as a gateway would, and waits until it is durable. Gives its
 * position. */
struct position rig_submit(struct rig *r, const char *jsonz);
/* n jobs with ids "<prefix><i>" and the members of extraz (may be ""). */
void rig_submit_many(struct rig *r, const char *prefixz, int n, const char *extraz);
/* Puts any value on a topic, past the store, which would not have it. Before the worker starts. */
struct position rig_publish_raw(struct rig *r, int topic, struct str value);
/* Cancels as a gateway would. */
void rig_cancel(struct rig *r, const char *idz, struct position at);

/* Runs the loop until is_true gives true, at most 20 s; a check otherwise. */
void rig_until(struct rig *r, bool (*is_true)(struct rig *r, void *data), void *data);
/* Runs the loop for a time. */
void rig_run(struct rig *r, int64_t ms);
/* Jobs that have ended, durably, since the worker was started. */
int64_t rig_ended(struct rig *r, enum job_state state);
/* Until n jobs have, in any state. */
void rig_until_ended(struct rig *r, int64_t n);
/* Until the job has ended; gives its JSON (appended to b). */
void rig_job(struct rig *r, const char *idz, struct buf *b);
/* Checks that the job's JSON holds each text of the list (NULL-terminated). */
void rig_check_job(struct rig *r, const char *idz, const char *const *texts);
#define RIG_CHECK_JOB(r, id, ...) rig_check_job(r, id, (const char *const[]){__VA_ARGS__, NULL})
