#include "schema/state.h"
#include "base/err.h"
#include "schema/job.h"
#include <assert.h>
#include <stdatomic.h>

enum {
    IN_SCHEDULED = 1 << STATE_SCHEDULED,
    IN_QUEUED = 1 << STATE_QUEUED,
    IN_RUNNING = 1 << STATE_RUNNING,
    IN_LIVE = IN_SCHEDULED | IN_QUEUED | IN_RUNNING,
    IN_NEW = 1 << STATE_NEW,
};

static const struct {
    const char *namez;
    bool is_terminal;
} states[] = {
#define JOB_STATE(id, name, is_terminal, meaning) {name, is_terminal},
#include "schema/state.def"
#undef JOB_STATE
};

static const struct {
    const char *namez;
    unsigned from; /* set of 1 << state */
    enum job_state to;
} events[] = {
#define JOB_EVENT(id, name, from, to, who) {name, from, STATE_##to},
#include "schema/state.def"
#undef JOB_EVENT
};

static _Atomic int64_t taken[EVENT_COUNT_], refused;

int job_step(struct job *job, enum job_event event)
{
    assert(event < EVENT_COUNT_);
    if (!(events[event].from & 1u << job->state)) {
        atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        return ERR_CONFLICT;
    }
    job->state = events[event].to;
    atomic_fetch_add_explicit(&taken[event], 1, memory_order_relaxed);
    return 0;
}

enum job_event state_end_event(enum job_state state)
{
    enum job_event event = EVENT_COUNT_;

    assert(state_is_terminal(state));
    do
        event--;
    while (event > 0 && events[event].to != state);
    return event;
}

const char *state_name(enum job_state s)
{
    return s < STATE_COUNT_ ? states[s].namez : "new";
}

bool state_is_terminal(enum job_state s)
{
    return s < STATE_COUNT_ && states[s].is_terminal;
}

bool state_parse(struct str name, enum job_state *out)
{
    enum job_state s;

    for (s = 0; s < STATE_COUNT_; s++)
        if (str_eqz(name, states[s].namez)) {
            *out = s;
            return true;
        }
    return false;
}

const char *event_name(enum job_event e)
{
    assert(e < EVENT_COUNT_);
    return events[e].namez;
}

int64_t event_count(enum job_event e)
{
    assert(e < EVENT_COUNT_);
    return atomic_load_explicit(&taken[e], memory_order_relaxed);
}

int64_t event_refused_count(void)
{
    return atomic_load_explicit(&refused, memory_order_relaxed);
}
