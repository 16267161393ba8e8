/* genq: a queue for LLM work. The one file that sees both sides: it hands the worker to the command
 * line, which runs it (`genq up`, `genq batch run`) or talks to a server that does. */
#include "producer/cli/cli.h"
#include "worker/worker.h"
#include <signal.h>

static void *start(const struct gateway *g, uv_loop_t *loop, struct err *e)
{
    struct worker_options options = {
        .config = g->config,
        .topics = g->topics,
        .broker = g->broker,
        .live = g->live,
        .has_store = g->store != NULL,
        .nodes = g->nodes,
        .loop = loop,
    };

    return worker_start(&options, e);
}

static void stop(void *worker, int64_t drain_ms, void (*on_stopped)(void *data), void *data)
{
    worker_stop(worker, drain_ms, on_stopped, data);
}

static void free_worker(void *worker)
{
    worker_free(worker);
}

static const char *trouble(void *worker)
{
    return worker_trouble(worker);
}

static int failure(void *worker)
{
    return worker_failure(worker);
}

int main(int argc, char **argv)
{
    static const struct worker_side side = {start, stop, free_worker, trouble, failure};

    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, not an end without a word */
    signal(SIGXFSZ, SIG_IGN); /* and a limit on files (ulimit -f) is a full disk */
    return cli_main(argc, argv, &side);
}
