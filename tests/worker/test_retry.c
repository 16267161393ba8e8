#include "tests/lib/test.h"
#include "worker/retry.h"

static const struct {
    enum fetch_fault fault;
    enum engine_class class;
    bool was_sent;
    enum retry_action action;
    enum reason reason;
    enum call_outcome outcome;
    enum node_effect effect;
} rows[] = {
    {FETCH_OK, ENGINE_OK, true, RETRY_DONE, REASON_NONE, CALL_OK, NODE_FINE},
    {FETCH_OK, ENGINE_TRANSIENT, true, RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_FAILED,
     NODE_FINE},
    {FETCH_OK, ENGINE_OVERLOADED, true, RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED,
     NODE_PAUSED},
    {FETCH_OK, ENGINE_INVALID, true, RETRY_FAIL, REASON_INVALID_REQUEST, CALL_FAILED, NODE_FINE},
    {FETCH_OK, ENGINE_NO_MODEL, true, RETRY_ELSEWHERE, REASON_MODEL_NOT_FOUND, CALL_REFUSED,
     NODE_NO_MODEL},
    {FETCH_OK, ENGINE_DENIED, true, RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED,
     NODE_DENIED},
    {FETCH_NO_CONNECT, ENGINE_OK, false, RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED,
     NODE_REFUSED},
    {FETCH_TIMEOUT_CONNECT, ENGINE_OK, false, RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED,
     NODE_REFUSED},
    {FETCH_CUT, ENGINE_OK, true, RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_CUT, NODE_SUSPECT},
    {FETCH_CUT, ENGINE_OK, false, RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED,
     NODE_REFUSED},
    {FETCH_TIMEOUT_TOTAL, ENGINE_OK, true, RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT,
     NODE_FINE},
    {FETCH_TIMEOUT_FIRST, ENGINE_OK, true, RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT,
     NODE_SUSPECT},
    {FETCH_TIMEOUT_IDLE, ENGINE_OK, true, RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT,
     NODE_SUSPECT},
    {FETCH_TOO_LARGE, ENGINE_OK, true, RETRY_FAIL, REASON_TOO_LARGE, CALL_FAILED, NODE_FINE},
    {FETCH_BAD, ENGINE_OK, true, RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_FAILED,
     NODE_SUSPECT},
};

TEST(every_end_of_a_call_has_its_row)
{
    struct verdict v;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        v = retry_judge(rows[i].fault, rows[i].class, rows[i].was_sent);
        CHECK_INT(v.action, rows[i].action);
        CHECK_INT(v.reason, rows[i].reason);
        CHECK_INT(v.outcome, rows[i].outcome);
        CHECK_INT(v.effect, rows[i].effect);
    }
}

TEST(waits_double_up_to_the_cap)
{
    CHECK_INT(retry_wait_ms(1000, 60000, 1, 1000), 1000);
    CHECK_INT(retry_wait_ms(1000, 60000, 2, 2000), 2000);
    CHECK_INT(retry_wait_ms(1000, 60000, 6, 32000), 32000);
    CHECK_INT(retry_wait_ms(1000, 60000, 7, 60000), 60000);
    CHECK_INT(retry_wait_ms(1000, 60000, 1000, 60000), 60000);
}

TEST(jitter_takes_any_part_of_a_wait)
{
    int64_t wait, least = INT64_MAX, most = -1;
    uint64_t random = 88172645463325252U;
    int i;

    for (i = 0; i < 10000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        wait = retry_wait_ms(100, 60000, 3, random);
        CHECK(wait >= 0 && wait <= 400);
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
    }
    CHECK_INT(least, 0);
    CHECK_INT(most, 400);
}

TEST(no_base_means_no_wait)
{
    CHECK_INT(retry_wait_ms(0, 60000, 5, 12345), 0);
    CHECK_INT(retry_wait_ms(1000, 0, 5, 12345), 0);
}
