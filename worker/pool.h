/* The engine nodes: which are up, what models they have, which slots are free. Policy of health is
 * health.c's, the checks themselves are check.c's, which node gets a job is balance_*.c's. What
 * calls tell by the way (refused, overloaded, no such model) comes in here too. Loop thread
 * only. */
#pragma once
#include "base/fetch.h"
#include "store/nodes.h"
#include "worker/engine.h"
#include "worker/health.h"
#include "worker/schedule.h"

#define NODE_SLOTS_DEFAULT 4 /* where neither the config nor the engine tells */
#define NODE_LATENCIES 64

struct pool;

enum check_step { CHECK_IDLE, CHECK_PROBE, CHECK_HEALTH, CHECK_MODELS, CHECK_SLOTS };

struct check {
    enum check_step step;
    const struct engine_ops *trying; /* CHECK_PROBE: as which */
    struct fetch *fetch;
    struct buf body;
    uv_timer_t timer; /* to the next check */
    bool is_wanted;   /* again, as soon as this one ends */
};

struct node {
    struct pool *pool;
    const struct config_engine *config;
    size_t at; /* number in the config */
    const struct engine_ops *ops; /* NULL: not known yet */
    struct fetch_pool *fetches;
    struct health health;
    struct check check;
    int slots, busy;
    bool has_asked_slots;
    int64_t paused_until;  /* monotonic ms; 0: not */
    int64_t pause_ms;      /* length of the last pause, doubled by the next */
    bool is_denied;        /* the pause is for its settings */
    uv_timer_t resume;     /* end of the pause */
    struct buf listed;     /* model names as last read, NUL-separated */
    bool is_built;         /* `models` is what `listed` says */
    struct schedule_node has;
    struct model **models; /* has.models, with a reference each */
    int64_t n_calls, n_failed, checked_at;
    int64_t latencies[NODE_LATENCIES]; /* ring of the newest */
    size_t n_latencies;
    bool is_dirty;         /* nodes_put is due */
    char error[256];       /* why it is not up; "" */
};

struct pool {
    const struct config *config;
    struct schedule *schedule;
    struct nodes *nodes; /* NULL allowed */
    uv_loop_t *loop;
    struct node *node;
    size_t n;
    int slots, busy; /* of nodes that are up */
    uv_timer_t report;
    /* Slots, models or states changed. */
    void (*on_change)(void *data);
    void *data;
};

struct pool_options {
    const struct config *config;
    struct schedule *schedule;
    struct nodes *nodes;
    uv_loop_t *loop;
    void (*on_change)(void *data);
    void *data;
};

/* Makes the pool and starts the first checks. */
struct pool *pool_new(const struct pool_options *o);
/* Stops checks and calls. Then, in this order: pool_drop_models, while the schedule is there;
 * pool_each_handle, to close the timers; pool_free, once they are closed. */
void pool_stop(struct pool *p);
void pool_drop_models(struct pool *p);
void pool_each_handle(struct pool *p, void (*fn)(uv_handle_t *h, void *data), void *data);
void pool_free(struct pool *p);

/* Whether a node takes jobs now, and has a slot free. */
bool node_is_open(const struct node *n);
bool node_has_model(const struct node *n, const struct model *m);
/* Whether the name is one to show: of an Ollama not the short forms. */
bool node_shows_model(const struct node *n, const struct model *m);
/* Every node was asked for its models, or is told them by the config. */
bool pool_knows_models(const struct pool *p);
/* Every node is up and probed, and none takes any model: what no node has, nobody has. */
bool pool_knows_all(const struct pool *p);
/* Appends up to `max` names of models that exist: "a, b, c". */
void pool_list_models(const struct pool *p, struct buf *b, int max);
/* Why no node is up, or "" when one is. dst has room bytes. */
void pool_trouble(const struct pool *p, char *dst, size_t room);

/* A call takes, and gives back, a slot. */
void pool_take(struct node *n);
void pool_give(struct node *n);
/* What a call told about its node. */
void pool_called(struct node *n, bool is_ok, int64_t ms);
void pool_refused(struct node *n, const char *whyz);
void pool_suspect(struct node *n);
void pool_pause(struct node *n, int64_t retry_after_ms); /* -1: not told */
void pool_deny(struct node *n, const char *whyz);
void pool_no_model(struct node *n, const struct model *m);

/* For the pool's own files. Counts anew what hangs on nodes being up; tells nodes_put of one. */
void pool_recount(struct pool *p);
void pool_report(struct node *n);
void node_drop_models(struct node *n);

/* What a check found out (check.c). */
void pool_check_good(struct node *n);
void pool_check_bad(struct node *n, bool is_refused, const char *whyz);
/* names: NUL-separated; NULL: the engine does not list any. */
void pool_set_models(struct node *n, const struct buf *names);
void pool_set_slots(struct node *n, int slots);

/* The node's own request headers; NULL: none. */
const char *const *node_headers(const struct node *n);
/* Joins a node's URL and a path below it. */
void node_url(const struct node *n, const char *pathz, struct buf *b);
