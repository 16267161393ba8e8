/* The inside of struct worker, for the files of this folder that are its roles. One loop thread. */
#pragma once
#include "base/map.h"
#include "store/cache.h"
#include "worker/alarm.h"
#include "worker/journal.h"
#include "worker/outbox.h"
#include "worker/pool.h"
#include "worker/schedule.h"
#include "worker/settled.h"
#include "worker/worker.h"

/* Bodies in memory: load.c. */
struct loader {
    size_t n_loaded, loaded_bytes;       /* of tasks that wait */
    size_t n_asked;                      /* tasks whose read is under way */
    struct list loaded[PRIORITY_COUNT_]; /* bodies that may be dropped, newest last */
    struct list single;                  /* tasks to be read one by one (TASK_READING) */
    struct list stalled;                 /* flows whose read the broker refused */
    uv_timer_t retry;
    int n_reads, n_single_reads; /* under way; those of `single` among them */
    bool is_past; /* the last arrival's body was dropped: so are most of those behind it */
};

/* Scheduled jobs: due.c. */
struct due {
    struct map names;     /* entries, by tenant and id */
    struct alarms alarms; /* those that wait */
    struct list ready;    /* due, to be read at the end of the turn */
    bool is_behind;       /* a partition has come, and was not read to its end yet */
    int n_reads;
    size_t n_out;         /* being read, or on their way to the log */
    struct outbox outbox; /* of its own: nothing here is to be kept on this machine's disk */
};

struct worker {
    const struct config *config;
    const struct topics *topics;
    struct broker *broker;
    struct live *live;
    bool has_store;
    uv_loop_t *loop;
    uint64_t *topic_hashes; /* by topic, for the journal */

    struct inbox *inbox; /* acknowledgements */
    struct tasks tasks;
    struct schedule *schedule;
    struct pool *pool;
    struct cache *cache;
    struct journal *journal;
    struct outbox outbox;
    struct loader loader;
    struct due due;
    struct settled settled;   /* stays empty where the log is ours alone */
    struct alarms retries;    /* tasks, monotonic */
    struct alarms not_before; /* tasks, wall */
    struct alarms deadlines;  /* struct deadline, wall */
    struct list runs;         /* struct run */
    int n_runs;
    int64_t n_ending; /* tasks that are the outbox's */
    bool *tried;              /* nodes asked in one round of pump() */

    uv_prepare_t before;      /* both end a turn: one before the loop waits, */
    uv_check_t after;         /* one after what it waited for */
    uv_timer_t drain;
    int64_t wall_ms, mono_ms; /* of this turn; 0: to be read */
    size_t n_behind;          /* job topics not caught up, and one more while is_widening */
    bool *is_taken;           /* by topic: subscribed to */
    bool is_widening;         /* the nodes' models are not all known yet */
    bool is_widen_due;
    bool is_control_read;     /* cancellations are known: jobs may run */
    bool is_pump_due;
    bool is_stopping, is_stopped;
    void (*on_stopped)(void *data);
    void *on_stopped_data;
    uint64_t random;
    int n_handles; /* libuv's, not yet closed */
    char trouble[600];
    int read_failure; /* ERR_CORRUPT once records cannot be read any more */
};

/* ---- worker.c: small things for all roles ---- */
int64_t worker_wall_ms(struct worker *w); /* read once a turn */
int64_t worker_mono_ms(struct worker *w);
uint64_t worker_random(struct worker *w);
struct journal_key worker_journal_key(const struct worker *w, const struct task *t);
/* The log could not be read: for a while, or (ERR_CORRUPT) for good. */
void worker_read_failed(void *worker, int code);

/* ---- intake.c ---- */
int intake_start(struct worker *w, struct err *e);
/* Takes further queues, where the nodes turned out to have their models. */
int intake_widen(struct worker *w, struct err *e);
/* A record's job, or NULL when it is none (e tells why). Caller frees as a body's job. */
struct job *intake_parse(const struct worker *w, const struct record *r, struct err *e);
/* Publishes a record that is no job to the dead-letter topic, which finishes it. */
void intake_bury(struct worker *w, const struct record *r, const char *whyz);
/* Publishes a job that failed to the same topic, from which `genq dead redrive` takes it. Before
 * its completion goes out. */
void intake_keep(struct worker *w, const struct job *j, const char *codez, struct str message,
                 const char *sourcez);

/* ---- load.c: which waiting jobs are in memory ---- */
void load_init(struct worker *w);
void load_release(struct worker *w);
/* Whether there is room for the body of an arriving task, which load_give then hands over. Before
 * the task is queued. */
bool load_wants(const struct worker *w, const struct task *t);
void load_give(struct worker *w, struct task *t, struct job *job, size_t bytes); /* takes job */
/* Reads more of a flow when few of its tasks are ready. */
void load_flow(struct worker *w, struct flow *f);
/* Reads one task's body that is in no flow; it then comes to waiting_loaded. */
void load_task(struct worker *w, struct task *t);
void load_flush(struct worker *w); /* at the end of a turn */
/* A ready task leaves (its body is no longer counted), or comes back, to waiting. */
void load_leave(struct worker *w, struct task *t);
void load_return(struct worker *w, struct task *t);

/* ---- waiting.c: tasks between intake and run ---- */
void waiting_init(struct worker *w);
/* A new task, assigned and with or without its body: queue it, or let it wait for its
 * not_before. */
void waiting_add(struct worker *w, struct task *t, int64_t not_before);
void waiting_set_deadline(struct worker *w, struct task *t, int64_t deadline);
/* After an attempt: back into the queue now (its tenant is not charged), or after a time; or
 * forgotten, where its partition is another worker's by now. */
void waiting_again(struct worker *w, struct task *t);
void waiting_later(struct worker *w, struct task *t, int64_t wait_ms);
/* Takes a waiting task out of wherever it waits. */
void waiting_detach(struct worker *w, struct task *t);
/* A task of load_task has its body again. */
void waiting_loaded(struct worker *w, struct task *t);
/* Ends the task without a word: its job has ended already. It must be nowhere. */
void waiting_forget(struct worker *w, struct task *t);

/* ---- pump.c ---- */
/* Starts jobs while slots are free. At the end of a turn. */
void pump(struct worker *w);

/* ---- run.c ---- */
/* Starts an attempt of a picked task on a node that has a slot free. */
void run_start(struct worker *w, struct task *t, struct node *n);
/* Breaks off the task's call, which goes into its ledger as `outcome`; the task is then nowhere. */
void run_abort(struct worker *w, struct task *t, enum call_outcome outcome);
/* Breaks off all calls and hands their jobs back to the log. */
void run_abort_all(struct worker *w);

/* ---- route.c ---- */
/* Whether a job whose model no node has is to go to another queue. The task has its job. */
bool route_is_open(const struct worker *w, const struct task *t);
/* Sends it there; the task, which is nowhere, is the outbox's then. */
void route_away(struct worker *w, struct task *t);

/* ---- finish.c ---- */
/* How a job ended: what of struct completion its run knows. */
struct ending {
    enum job_state state;
    enum reason reason;                /* REASON_NONE when it succeeded */
    struct str message;                /* for people */
    const struct engine_reply *reply;  /* the answer; NULL: none */
    struct str json;                   /* the answer as one line of JSON; n == 0: none was asked */
    struct str cached;                 /* the answer, as the cache had it; n == 0: it is `reply` */
    int64_t engine_ms, first_token_ms; /* -1: none */
    const uint8_t *cache_key;          /* NULL: the answer is not kept for others */
};
/* Publishes the task's completion; the task, which is nowhere and has its job, is the outbox's
 * then. */
void finish_task(struct worker *w, struct task *t, const struct ending *end);
/* The same for a state without an answer. */
void finish_failed(struct worker *w, struct task *t, enum job_state state, enum reason reason,
                   const char *messagez);

/* ---- cancel.c, due.c ---- */
int cancel_start(struct worker *w, struct err *e);
void due_init(struct worker *w);
int due_start(struct worker *w, struct err *e);
void due_flush(struct worker *w); /* at the end of a turn */
/* The job waits here no more: it was cancelled. */
void due_cancel(struct worker *w, struct str tenant, struct str id);
void due_release(struct worker *w);
