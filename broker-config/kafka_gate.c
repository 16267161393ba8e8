/* What librdkafka's own threads tell of the membership: whether it joins, and how long it is sure.
 *
 * The lease. The coordinator expels a member that it has not heard for the session's time, and
 * gives its partitions away. A member that was stopped meanwhile (SIGSTOP, a paused machine) finds
 * that out only when it is answered, and librdkafka tells it later still; until then it would run
 * what another one runs. So jobs start only within a session's time, less a tenth, of a heartbeat
 * (or SyncGroup) that the coordinator took. An answer's error code is not seen here, but after a
 * bad one librdkafka joins again: a heartbeat was taken when the next one goes out.
 *
 * While JoinGroup waits for the others there are no heartbeats, for as long as those take to drain,
 * and the coordinator does not expel: then each turn moves a lease that still holds on a little. */
#include "base/clock.h"
#include "base/log.h"
#include "broker-config/kafka_inside.h"

enum { API_JOIN_GROUP = 11, API_HEARTBEAT = 12, API_SYNC_GROUP = 14, JOINING_MS = 2000 };

/* ---- librdkafka's threads ---- */

static void on_beat(struct kafka_gate *gate)
{
    if (atomic_load(&gate->is_beat_answered))
        atomic_store(&gate->proven_ms, atomic_load(&gate->beat_ms));
    atomic_store(&gate->is_beat_answered, false);
    atomic_store(&gate->beat_ms, clock_boot_ms());
}

static rd_kafka_resp_err_t on_request(rd_kafka_t *rk, int fd, const char *broker, int32_t id,
                                      int16_t api, int16_t version, int32_t correlation,
                                      size_t size, void *data)
{
    struct kafka_gate *gate = data;

    (void)rk, (void)fd, (void)broker, (void)id, (void)version, (void)correlation, (void)size;
    if (api == API_JOIN_GROUP) {
        atomic_store(&gate->is_beat_answered, false);
        atomic_store(&gate->is_joining, true);
    }
    if (api == API_SYNC_GROUP || api == API_HEARTBEAT)
        on_beat(gate);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_response(rd_kafka_t *rk, int fd, const char *broker, int32_t id,
                                       int16_t api, int16_t version, int32_t correlation,
                                       size_t size, int64_t rtt, rd_kafka_resp_err_t err,
                                       void *data)
{
    struct kafka_gate *gate = data;

    (void)rk, (void)fd, (void)broker, (void)id, (void)version, (void)correlation, (void)size;
    (void)rtt;
    if (api == API_SYNC_GROUP || api == API_HEARTBEAT)
        atomic_store(&gate->is_beat_answered, !err);
    if (api == API_SYNC_GROUP)
        atomic_store(&gate->is_joining, false);
    if (!err)
        atomic_store(&gate->is_answered, true);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *data,
                                  char *why, size_t n)
{
    (void)conf, (void)why, (void)n;
    rd_kafka_interceptor_add_on_request_sent(rk, "genq", on_request, data);
    return rd_kafka_interceptor_add_on_response_received(rk, "genq", on_response, data);
}

void kafka_gate_watch(struct kafka_gate *gate, rd_kafka_conf_t *conf)
{
    rd_kafka_conf_interceptor_add_on_new(conf, "genq", on_new, gate);
}

/* ---- the loop's thread ---- */

bool kafka_gate_has_lease(const struct kafka_group *g)
{
    return clock_boot_ms() < g->lease_ms;
}

void kafka_gate_renew(struct kafka_group *g)
{
    int64_t now_ms = clock_boot_ms(), proven_ms = atomic_load(&g->gate.proven_ms);
    int64_t end_ms = proven_ms > 0 ? proven_ms + g->session_ms * 9 / 10 : 0;

    if (now_ms < g->lease_ms && atomic_load(&g->gate.is_joining) && end_ms < now_ms + JOINING_MS)
        end_ms = now_ms + JOINING_MS;
    if (g->lease_ms < end_ms)
        g->lease_ms = end_ms;
    if (g->lease_told_ms)
        *g->lease_told_ms = g->lease_ms;
}

void kafka_gate_tell(struct kafka_group *g)
{
    bool is_sure = kafka_gate_has_lease(g);

    if (is_sure != g->is_sure)
        log_info(is_sure ? "group_sure" : "group_unsure",
                 LI("unheard_ms", clock_boot_ms() - atomic_load(&g->gate.proven_ms)));
    if (g->is_sure && !is_sure) /* librdkafka tells of a silence only after a minute */
        kafka_group_set_health(g, RD_KAFKA_RESP_ERR__TIMED_OUT,
                               "the group's coordinator is silent");
    g->is_sure = is_sure;
}
