#include "producer/cli/serve.h"

static int run(struct cli *c)
{
    return serve(c, ROLE_BOTH);
}

static const struct cli_option options[] = {
    {"--data", 0, "DIR", "data directory (default ./genq-data)", false},
    {"--listen", 0, "ADDR", "address to serve, host:port (default 127.0.0.1:7070)", false},
    {"--engine", 0, "URL", "an engine's base URL (default http://127.0.0.1:11434); may be repeated",
     true},
    {0},
};

const struct cli_command command_up = {
    .namez = "up",
    .argumentsz = "[--data DIR] [--listen ADDR] [--engine URL]…",
    .summaryz = "run everything in one process: queue, worker, results, HTTP",
    .detailsz = "Jobs posted to http://ADDR/api/v1/jobs are kept in DIR and run on the engines.\n"
                "Ctrl-C lets running calls end (worker.drain_ms); a second one stops at once.\n"
                "No job is lost either way.\n"
                "\n"
                "Example:\n"
                "  genq up --engine http://127.0.0.1:11434 &\n"
                "  genq submit -m llama3.2 --wait \"Why is the sky blue?\"\n",
    .options = options,
    .run = run,
};
