/* `genq batch cancel`: the jobs of a batch that have not ended. */
#include "producer/cli/batch_text.h"

enum { CANCEL_MS = 600000 };

static int run(struct cli *c)
{
    return batch_call_and_print(c, "DELETE", CANCEL_MS);
}

static const struct cli_option options[] = {
    {"--tenant", 0, "NAME", "whose batch it is (default: default)", false},
    {0},
};

const struct cli_command command_batch_cancel = {
    .namez = "batch cancel",
    .argumentsz = "ID",
    .summaryz = "cancel the jobs of a batch that have not ended",
    .options = options,
    .run = run,
    .examplez = "genq batch cancel 01JD3V0Y6ZC0R4M7H5Q8K2T9XW",
    .is_client = true,
};
