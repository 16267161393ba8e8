#include "producer/cli/serve.h"

static int run(struct cli *c)
{
    return serve(c, ROLE_GATEWAY);
}

static const struct cli_option options[] = {
    {"--data", 0, "DIR", "data directory, of this process alone (default ./genq-data)", false},
    {"--listen", 0, "ADDR", "address to serve, host:port (default 127.0.0.1:7070)", false},
    {0},
};

const struct cli_command command_gateway = {
    .namez = "gateway",
    .argumentsz = "[--data DIR] [--listen ADDR]",
    .summaryz = "serve HTTP: jobs into Kafka, results out of it",
    .detailsz =
        "One of several processes, with 'genq worker', that meet in Kafka: the config needs\n"
        "broker: {kind: kafka, servers: …}, and 'genq topics apply' makes the topics.\n"
        "What is in DIR is read from Kafka again where it is missing.",
    .options = options,
    .run = run,
    .examplez = "genq gateway --config genq.yaml --data /var/lib/genq/gateway",
};
