#include "producer/cli/serve.h"

static int run(struct cli *c)
{
    return serve(c, ROLE_WORKER);
}

static const struct cli_option options[] = {
    {"--data", 0, "DIR", "data directory, of this process alone (default ./genq-data)", false},
    {"--listen", 0, "ADDR",
     "address of /healthz, /readyz and /metrics (default: worker.listen, 127.0.0.1:7071)", false},
    {"--engine", 0, "URL", "an engine's base URL (default http://127.0.0.1:11434); may be repeated",
     true},
    {0},
};

const struct cli_command command_worker = {
    .namez = "worker",
    .argumentsz = "[--data DIR] [--listen ADDR] [--engine URL]…",
    .summaryz = "run jobs from Kafka on engines",
    .detailsz =
        "One of several processes, with 'genq gateway', that meet in Kafka: the config needs\n"
        "broker: {kind: kafka, servers: …}, and 'genq topics apply' makes the topics.\n"
        "Ctrl-C lets running calls end (worker.drain_ms); a second one stops at once. Other\n"
        "workers take what has not ended.",
    .options = options,
    .run = run,
    .examplez = "genq worker --config genq.yaml --data /var/lib/genq/worker",
};
