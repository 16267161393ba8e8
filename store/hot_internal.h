/* What the files of hot.h share. Loop here is hot's own; all of it is on its thread, but for what
 * is under the lock. */
#pragma once
#include "base/map.h"
#include "base/redis.h"
#include "broker-config/config.h"
#include "store/hot.h"
#include "store/reader.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    HOT_KEY_BYTES = 192,
    HOT_SHA_BYTES = 41,
    HOT_SWEEP_MS = 250 /* how often the jobs that run here are looked at */
};

enum hot_step {
    HOT_AWAY,    /* not connected, or waits to try again */
    HOT_SYNCING, /* asks Redis how far it is */
    HOT_READY,
};

enum hot_script { HOT_END, HOT_STATE, HOT_LOOK, HOT_STREAM, HOT_SCRIPT_COUNT_ };

struct hot {
    const struct config *config;
    struct live *live;
    struct store_writer *store;
    struct nodes *nodes;   /* NULL: no worker here */
    struct reader *reader; /* NULL: no store in this process, a worker */
    struct redis *redis;
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wake;
    uv_timer_t retry, sweep, last_call;
    bool is_started;
    atomic_bool is_closing;

    enum hot_step step;
    char feed_key[HOT_KEY_BYTES];
    char sha[HOT_SCRIPT_COUNT_][HOT_SHA_BYTES];
    int64_t position; /* offset that Redis has next; -1: unknown */
    int64_t done_to;  /* completions before it were published by somebody */
    int64_t job_seq;  /* jobs up to it were looked at */
    int64_t backoff_ms;

    /* The batch on its way. */
    int n_sent;        /* unanswered */
    struct err failed; /* the first failure; code 0: none */
    int64_t batch_position, batch_job_seq;
    size_t batch_bytes;
    int batch_n;

    struct err fault; /* what the last batches failed with; code 0: nothing */

    struct map running; /* what hot_running has told, struct told */
    int64_t sweep_n;
    bool is_sweep_due;
    struct map told_streams;   /* of jobs that run here, struct told_stream */
    bool has_dropped;          /* … some, and said so */
    struct list known_streams; /* of jobs that run elsewhere, as far as asked for */
    struct redis *messages;    /* the subscriber's connection; NULL while it has not been needed */

    char id[ULID_LEN + 1]; /* this process, as a worker */
    char who[512];         /* ,"worker":…,"host":… */
    int64_t started_at;
    int64_t beat_ms; /* monotonic; 0: none yet */
    int64_t beat_n_up, beat_n_slots;
    bool is_member; /* of genq:workers, as far as we know */
    bool is_asking; /* for other workers' nodes */

    pthread_mutex_t lock;
    struct err health; /* from here on under lock */
    struct buf view;   /* other processes' nodes */
    int64_t view_ms;   /* monotonic; 0: never looked */
    bool is_view_wanted;
    struct list waiters;         /* of struct hot_waiter */
    struct map watched;          /* streams of jobs that run elsewhere, struct hot_stream */
    struct list watch_changes;   /* … that somebody began or ceased to watch */
    struct list looks;           /* of struct hot_look, not asked yet */
    pthread_mutex_t stream_lock; /* taken under live's */
    struct list new_streams, changed_streams; /* of struct told_stream; under stream_lock */
};

extern const char *const hot_scripts[HOT_SCRIPT_COUNT_];

/* Whether the batch takes more. */
bool hot_has_room(const struct hot *h);
/* Sends a command of the batch; where it cannot, the batch has failed. */
void hot_send(struct hot *h, const struct str *args, size_t n, redis_fn fn);
/* Notes a failure: the batch is to be done again. */
void hot_fail(struct hot *h, int code, struct str why);
/* The same with a function that is given `data`. False when it cannot. */
bool hot_send_to(struct hot *h, const struct str *args, size_t n, redis_fn fn, void *data);
/* To be called first by each reply's function: counts it, notes a failure. */
bool hot_answered(struct hot *h, int code, const struct redis_reply *reply);
/* To be called last by it. */
void hot_go_on(struct hot *h);

/* Names the log of which Redis has a copy (hot_feed.c). */
int hot_set_feed_key(struct hot *h, struct err *e);
/* Sends completions from `position` on. */
void hot_send_ends(struct hot *h);
/* Sends jobs that are new (hot_jobs.c). */
void hot_send_jobs(struct hot *h);
/* Looks which jobs run here, and sends what is new of that. */
void hot_send_running(struct hot *h);
void hot_forget_running(struct hot *h);

/* Asks Redis anew how far it is, scripts and all, where nothing else is on its way. */
void hot_sync(struct hot *h);

/* Partial tokens of jobs that run here (hot_stream.c): the worker's thread notes them, a batch
 * takes what is new, a sweep leaves out what Redis did not take in time. */
void hot_tell_streams(struct hot *h);
void hot_send_streams(struct hot *h);
void hot_drop_streams(struct hot *h);
void hot_forget_streams(struct hot *h);
/* What an event is called in a stream. False: it is none. */
bool hot_stream_kind(struct str name, enum stream_kind *kind);

/* Partial tokens of jobs that run elsewhere (hot_watch.c): begins and ends what was asked for. */
void hot_look_at_watched(struct hot *h);
/* Reads all of them again. */
void hot_read_watched(struct hot *h);
void hot_forget_watched(struct hot *h);
/* States of jobs that run elsewhere (hot_look.c): asks what was asked for. */
void hot_send_looks(struct hot *h);

/* The heartbeat (hot_beat.c). */
void hot_name_worker(struct hot *h);
/* Sends it, if it is due, and looks whether Redis still has what it was given. */
void hot_send_beat(struct hot *h);
/* Takes it back. False: there is nothing to take back. */
bool hot_send_farewell(struct hot *h);
/* Asks for the others' nodes, if somebody waits for them. */
void hot_look_around(struct hot *h);
