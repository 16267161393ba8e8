#include "base/err.h"
#include "schema/job.h"
#include "schema/state.h"
#include "tests/lib/test.h"

#define START(state_) ((struct job){.state = (state_)})

TEST(a_job_that_is_retried_and_succeeds)
{
    static const enum job_event events[] = {EVENT_SUBMIT_LATER, EVENT_DUE,  EVENT_TAKE,
                                            EVENT_RETRY,        EVENT_TAKE, EVENT_SUCCEED};
    static const enum job_state states[] = {STATE_SCHEDULED, STATE_QUEUED,  STATE_RUNNING,
                                            STATE_QUEUED,    STATE_RUNNING, STATE_SUCCEEDED};
    struct job j = START(STATE_NEW);
    size_t i;

    for (i = 0; i < sizeof events / sizeof events[0]; i++) {
        CHECK_INT(job_step(&j, events[i]), 0);
        CHECK_INT(j.state, states[i]);
    }
    CHECK_INT(event_count(EVENT_TAKE), 2);
    CHECK_INT(event_count(EVENT_FAIL), 0);
}

TEST(terminal_states_never_change)
{
    enum job_state s;
    enum job_event e;

    for (s = STATE_SUCCEEDED; s <= STATE_EXPIRED; s++)
        for (e = 0; e < EVENT_COUNT_; e++) {
            struct job j = START(s);

            CHECK(state_is_terminal(s));
            CHECK_INT(job_step(&j, e), ERR_CONFLICT);
            CHECK_INT(j.state, s);
        }
    CHECK_INT(event_refused_count(), 4 * EVENT_COUNT_);
}

TEST(what_may_end_a_job)
{
    static const enum job_state live[] = {STATE_SCHEDULED, STATE_QUEUED, STATE_RUNNING};
    size_t i;

    for (i = 0; i < 3; i++) {
        struct job fails = START(live[i]), is_cancelled = START(live[i]), expires = START(live[i]);
        struct job succeeds = START(live[i]);

        CHECK_INT(job_step(&fails, EVENT_FAIL), 0);
        CHECK_INT(job_step(&is_cancelled, EVENT_CANCEL), 0);
        CHECK_INT(job_step(&expires, EVENT_EXPIRE), 0);
        CHECK_INT(job_step(&succeeds, EVENT_SUCCEED),
                  live[i] == STATE_SCHEDULED ? ERR_CONFLICT : 0);
    }
}

TEST(a_new_job_can_only_be_submitted)
{
    enum job_event e;

    for (e = EVENT_DUE; e < EVENT_COUNT_; e++) {
        struct job j = START(STATE_NEW);

        CHECK_INT(job_step(&j, e), ERR_CONFLICT);
    }
}

TEST(the_event_that_ends)
{
    CHECK_INT(state_end_event(STATE_SUCCEEDED), EVENT_SUCCEED);
    CHECK_INT(state_end_event(STATE_FAILED), EVENT_FAIL);
    CHECK_INT(state_end_event(STATE_CANCELLED), EVENT_CANCEL);
    CHECK_INT(state_end_event(STATE_EXPIRED), EVENT_EXPIRE);
}

TEST(names)
{
    enum job_state s, back;

    for (s = 0; s < STATE_COUNT_; s++) {
        CHECK(state_parse(str_z(state_name(s)), &back));
        CHECK_INT(back, s);
    }
    CHECK(!state_parse(STR("new"), &back));
    CHECK(!state_parse(STR(""), &back));
    CHECK(!state_is_terminal(STATE_NEW) && !state_is_terminal(STATE_RUNNING));
    CHECK_STR(str_z(event_name(EVENT_SUBMIT_LATER)), "submit_later");
}
