/* The settings of a process: genq.yaml, checked, with defaults. An immutable snapshot: threads read
 * it without a lock. Rows: setting.def. */
#pragma once
#include "base/err.h"
#include "base/str.h"

enum engine_api { ENGINE_API_AUTO, ENGINE_API_OLLAMA, ENGINE_API_OPENAI };
enum broker_kind { BROKER_KIND_SQLITE, BROKER_KIND_KAFKA };
enum broker_sync { BROKER_SYNC_FULL, BROKER_SYNC_NORMAL };
enum without_redis { WITHOUT_REDIS_LOCAL, WITHOUT_REDIS_DENY };
enum log_format_setting { LOG_FORMAT_AUTO, LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

struct config_engine {
    char *name, *url; /* url without a trailing slash */
    enum engine_api api;
    int weight;
    int slots;          /* 0: auto */
    char *api_key;      /* "" for none */
    char **models;      /* NULL-terminated; empty: all */
    char **headers;     /* NULL-terminated "Name: value", the API key's among them */
    double cost_prompt, cost_completion; /* of a million tokens */
};

struct config_model {
    char *alias, *target, *queue;
};

struct config {
    char *data, *listen;
    enum broker_kind broker_kind;
    enum broker_sync broker_sync;
    char *broker_servers, *broker_prefix;
    char **broker_properties, **broker_producer, **broker_consumer; /* NULL-terminated "name: value" */
    int64_t broker_partitions, broker_replication, broker_min_insync; /* the last two 0: auto */
    char *redis_url; /* "" for none */
    int64_t redis_hot_s;
    char *worker_name, *worker_listen; /* name: "" for none */
    char **worker_queues; /* NULL-terminated; empty: all */
    int64_t worker_lookahead, worker_prefetch, worker_drain_ms;
    int64_t worker_first_token_ms, worker_between_tokens_ms, worker_connect_ms;
    int64_t health_interval_ms, health_timeout_ms, health_fall, health_rise;
    int64_t retry_attempts, retry_base_ms, retry_cap_ms;
    int64_t cache_ttl_s, cache_max_bytes;
    int64_t retention_jobs_days;
    int64_t limits_body_bytes, limits_record_bytes, limits_queued_jobs, limits_disk_free_bytes;
    int64_t limits_connections, limits_stream_bytes, limits_outbox_bytes;
    enum without_redis limits_without_redis;
    int log_level; /* enum log_level */
    enum log_format_setting log_format;
    struct config_engine *engines; /* at least one */
    size_t n_engines;
    struct config_model *models;
    size_t n_models;
    char **queues; /* NULL-terminated; always holds "default" */
};

/* Reads a file (pathz; NULL: $GENQ_CONFIG, ./genq.yaml, /etc/genq/genq.yaml, the first that is there,
 * else only defaults). NULL and *e ("file:line:column: key: why") when something is wrong. Free with
 * config_free. */
struct config *config_load(const char *pathz, struct err *e);
struct config *config_parse(struct str text, const char *namez, struct err *e);
void config_free(struct config *c);

/* Overrides from the command line, before use: replaces all engines by these URLs. */
int config_set_engines(struct config *c, const char *const *urls, size_t n, struct err *e);
int config_set_text(char **member, const char *value);

/* The model's row, or NULL: `model` is then the engine's own name and its queue is "default". */
const struct config_model *config_model(const struct config *c, struct str model);
/* The queue of jobs that name this model, by its alias or by the engine's own name. */
struct str config_queue(const struct config *c, struct str model);
bool config_has_queue(const struct config *c, struct str queue);

/* Appends all settings with their values as YAML (`genq config check`), and the reference table that
 * stands in docs/configuration.md. Secrets are shown as "***". */
struct buf;
void config_print(const struct config *c, struct buf *b);
void config_print_reference(struct buf *b);
