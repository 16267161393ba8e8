/* The states of a job and the events that move it, from schema/state.def. */
#pragma once
#include "base/str.h"

enum job_state {
#define JOB_STATE(id, name, is_terminal, meaning) STATE_##id,
#include "schema/state.def"
#undef JOB_STATE
    STATE_COUNT_,
    STATE_NEW = STATE_COUNT_ /* before submit; never stored */
};

enum job_event {
#define JOB_EVENT(id, name, from, to, who) EVENT_##id,
#include "schema/state.def"
#undef JOB_EVENT
    EVENT_COUNT_
};

struct job;

/* The only function that changes job->state: moves it along `event` and counts it. Returns 0, or
 * ERR_CONFLICT when the table has no such step (state unchanged, counted as refused). */
int job_step(struct job *job, enum job_event event);

/* The event that ends a job in `state`, which must be terminal. */
enum job_event state_end_event(enum job_state state);

const char *state_name(enum job_state s);
bool state_is_terminal(enum job_state s);
/* By name; false when there is no such state. */
bool state_parse(struct str name, enum job_state *out);
const char *event_name(enum job_event e);
/* Times each event was taken in this process, and steps refused. */
int64_t event_count(enum job_event e);
int64_t event_refused_count(void);
