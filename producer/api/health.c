/* /healthz, /readyz, /metrics. Ready means that jobs can be accepted: engines that are away are
 * told, but make nothing unready, for jobs wait for them; nor does Redis. */
#include "base/json.h"
#include "base/metric.h"
#include "broker-config/config.h"
#include "producer/api/api.h"
#include "producer/api/routes.h"

#define METRICS_MAX_BYTES ((size_t)4 << 20)

void health_live(struct request *q)
{
    struct buf b;

    buf_init(&b, 64);
    buf_addz(&b, "{\"status\":\"ok\"}");
    request_reply_json(q, 200, &b);
}

/* {"status":"ok"} or {"status":"fault","error":…} */
static void put_check(struct buf *b, const char *namez, int code, const struct err *e)
{
    json_put_name(b, namez);
    buf_addc(b, '{');
    json_put_member_str(b, "status", code < 0 ? STR("fault") : STR("ok"));
    buf_addc(b, ',');
    json_put_member_opt(b, "error", code < 0 ? str_z(e->msg) : STR_NONE);
    buf_addc(b, '}');
}

/* It makes nothing unready: jobs run without it. */
static void put_redis(struct buf *b, const struct gateway *g)
{
    struct err e = {0};
    int code = hot_health(g->hot, &e);

    json_put_name(b, "redis");
    buf_addc(b, '{');
    json_put_member_str(b, "status", code < 0 ? STR("down") : STR("ok"));
    buf_addc(b, ',');
    json_put_member_opt(b, "error", code < 0 ? str_z(e.msg) : STR_NONE);
    buf_addc(b, '}');
}

/* Nothing where no worker is in this process. */
static void put_engines(struct buf *b, const struct gateway *g)
{
    size_t n = nodes_count(g->nodes);
    int n_up, n_slots;
    struct buf unused;

    if (n == 0)
        return;
    buf_init(&unused, METRICS_MAX_BYTES);
    nodes_print(g->nodes, &unused, &n_up, &n_slots);
    buf_release(&unused);
    json_put_name(b, "engines");
    buf_addc(b, '{');
    json_put_member_str(b, "status", n_up ? STR("ok") : STR("degraded"));
    buf_addf(b, ",\"up\":%d,\"total\":%zu,\"slots\":%d},", n_up, n, n_slots);
}

void health_ready(struct request *q)
{
    struct err log_error = {0}, disk_error = {0};
    int log_code = broker_health(q->gateway->broker, &log_error);
    int disk_code = gateway_has_room(q->gateway, &disk_error);
    bool is_ready = log_code == 0 && disk_code == 0;
    struct buf b;

    buf_init(&b, 65536);
    buf_addc(&b, '{');
    json_put_member_str(&b, "status", is_ready ? STR("ready") : STR("not_ready"));
    buf_addz(&b, ",\"checks\":{");
    put_check(&b, "log", log_code, &log_error);
    buf_addc(&b, ',');
    put_engines(&b, q->gateway);
    put_check(&b, "disk", disk_code, &disk_error);
    if (q->gateway->hot) {
        buf_addc(&b, ',');
        put_redis(&b, q->gateway);
    }
    buf_addz(&b, "}}");
    if (!is_ready)
        request_add_header(q, "Retry-After", "1");
    request_reply_json(q, is_ready ? 200 : 503, &b);
}

static void put_events(struct buf *b)
{
    buf_addz(b, "# HELP genq_job_events_total Steps of jobs from state to state, in this process.\n"
                "# TYPE genq_job_events_total counter\n");
    for (enum job_event i = 0; i < EVENT_COUNT_; i++)
        buf_addf(b, "genq_job_events_total{event=\"%s\"} %lld\n", event_name(i),
                 (long long)event_count(i));
    buf_addf(b,
             "# HELP genq_job_events_refused_total Steps that the table of states does not have.\n"
             "# TYPE genq_job_events_refused_total counter\n"
             "genq_job_events_refused_total %lld\n",
             (long long)event_refused_count());
}

static void put_unfinished(struct buf *b, const struct gateway *g)
{
    buf_addf(b,
             "# HELP genq_jobs_unfinished Jobs accepted and not ended.\n"
             "# TYPE genq_jobs_unfinished gauge\n"
             "genq_jobs_unfinished %lld\n",
             (long long)store_unfinished(g->store));
}

static void put_queues(struct buf *b, const struct gateway *g)
{
    struct broker_stat stat;

    buf_addz(b, "# HELP genq_topic_waiting Records of a topic that are not finished.\n"
                "# TYPE genq_topic_waiting gauge\n");
    for (size_t i = 0; i < topics_count(g->topics); i++) {
        broker_stat(g->broker, (int)i, &stat);
        buf_addf(b, "genq_topic_waiting{topic=\"%s\"} %lld\n", topics_name(g->topics, (int)i),
                 (long long)stat.n_waiting);
    }
}

void health_metrics(struct request *q)
{
    struct buf b;

    buf_init(&b, METRICS_MAX_BYTES);
    metric_print(&b);
    put_events(&b);
    if (q->gateway->store)
        put_unfinished(&b, q->gateway);
    put_queues(&b, q->gateway);
    request_reply(q, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}
