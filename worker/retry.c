#include "worker/retry.h"

static const struct verdict of_fault[] = {
    [FETCH_NO_CONNECT] = {RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED, NODE_REFUSED},
    [FETCH_CUT] = {RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_CUT, NODE_SUSPECT},
    [FETCH_TIMEOUT_CONNECT] = {RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED, NODE_REFUSED},
    [FETCH_TIMEOUT_TOTAL] = {RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT, NODE_FINE},
    [FETCH_TIMEOUT_FIRST] = {RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT, NODE_SUSPECT},
    [FETCH_TIMEOUT_IDLE] = {RETRY_AGAIN, REASON_ENGINE_TIMEOUT, CALL_TIMEOUT, NODE_SUSPECT},
    [FETCH_TOO_LARGE] = {RETRY_FAIL, REASON_TOO_LARGE, CALL_FAILED, NODE_FINE},
    [FETCH_BAD] = {RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_FAILED, NODE_SUSPECT},
};

static const struct verdict of_class[] = {
    [ENGINE_OK] = {RETRY_DONE, REASON_NONE, CALL_OK, NODE_FINE},
    [ENGINE_TRANSIENT] = {RETRY_AGAIN, REASON_ATTEMPTS_EXHAUSTED, CALL_FAILED, NODE_FINE},
    [ENGINE_OVERLOADED] = {RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED, NODE_PAUSED},
    [ENGINE_INVALID] = {RETRY_FAIL, REASON_INVALID_REQUEST, CALL_FAILED, NODE_FINE},
    [ENGINE_NO_MODEL] = {RETRY_ELSEWHERE, REASON_MODEL_NOT_FOUND, CALL_REFUSED, NODE_NO_MODEL},
    [ENGINE_DENIED] = {RETRY_WAIT, REASON_ENGINE_UNAVAILABLE, CALL_REFUSED, NODE_DENIED},
};

struct verdict retry_judge(enum fetch_fault fault, enum engine_class class, bool was_sent)
{
    if (fault == FETCH_OK)
        return of_class[class];
    if (fault == FETCH_CUT && !was_sent)
        return of_fault[FETCH_NO_CONNECT];
    return of_fault[fault];
}

int64_t retry_wait_ms(int64_t base_ms, int64_t cap_ms, int n, uint64_t random)
{
    int64_t most = base_ms;

    while (--n > 0 && most < cap_ms)
        most *= 2;
    if (most > cap_ms)
        most = cap_ms;
    return (int64_t)(random % ((uint64_t)most + 1));
}
