/* `genq batch status`: how far a batch is. */
#include "producer/cli/batch_text.h"

enum { GET_MS = 60000 };

static int run(struct cli *c)
{
    int64_t timeout_ms;

    if (!cli_duration(c, "--timeout", -1, &timeout_ms))
        return EXIT_USAGE;
    if (timeout_ms >= 0 && !cli_has(c, "--wait"))
        return cli_usage(c, "--timeout goes with --wait");
    return cli_has(c, "--wait") ? batch_await_and_print(c, c->args[0], timeout_ms)
                                : batch_call_and_print(c, "GET", GET_MS);
}

static const struct cli_option options[] = {
    {"--wait", 0, NULL, "wait for the end, with progress", false},
    {"--timeout", 0, "TIME", "give up waiting after 30s, 5m …; the batch goes on", false},
    {"--tenant", 0, "NAME", "whose batch it is (default: default)", false},
    {0},
};

const struct cli_command command_batch_status = {
    .namez = "batch status",
    .argumentsz = "ID",
    .summaryz = "show how far a batch is; --wait: until it has ended",
    .detailsz = "With --wait the exit code is 1 when jobs of the batch did not succeed, 4 when it\n"
                "has not ended in time.",
    .options = options,
    .run = run,
    .examplez = "genq batch status 01JD3V0Y6ZC0R4M7H5Q8K2T9XW --wait",
    .is_client = true,
};
