#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metric.h"
#include "producer/cli/cli.h"
#include "producer/cli/progress.h"
#include "producer/filerun.h"
#include "schema/migrate.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOW_MS 200

struct batch_run {
    struct embedded embedded;
    uv_loop_t loop;
    uv_signal_t signals[2];
    uv_timer_t timer;
    struct filerun *run;
    struct progress progress;
    struct filerun_options options;
    char state[4200];
    int n_told; /* refused lines shown */
    bool is_temporary, is_stopping, was_interrupted;
    struct err start_error; /* of the worker */
};

/* ---- where the state is kept ---- */

/* OUT.genq; for stdout IN.genq; for a pipe through and through a directory that goes with the
 * run. */
static int find_state(struct batch_run *b, const struct cli *c)
{
    const char *inz = b->options.inz, *outz = b->options.outz;

    if (cli_has(c, "--data")) {
        snprintf(b->state, sizeof b->state, "%s", cli_get(c, "--data"));
    } else if (strcmp(outz, "-") != 0 || strcmp(inz, "-") != 0) {
        snprintf(b->state, sizeof b->state, "%s.genq", strcmp(outz, "-") != 0 ? outz : inz);
    } else {
        const char *tmp = getenv("TMPDIR");

        snprintf(b->state, sizeof b->state, "%s/genq-run-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(b->state))
            return cli_fail(EXIT_SOME_FAILED, "cannot make a directory for the run's state");
        b->is_temporary = true;
    }
    b->options.statez = b->state;
    return EXIT_WELL;
}

/* Removes the files of a state directory, but not its lock. */
static void clear_state(const char *pathz)
{
    DIR *dir = opendir(pathz);
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

/* Results over their own input would be lost work; emptied by --fresh, lost input. */
static bool is_same_file(const char *az, const char *bz)
{
    struct stat a, b;

    return stat(az, &a) == 0 && stat(bz, &b) == 0 && S_ISREG(a.st_mode) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* A mistyped directory is told, not made: the state's would make it along with its own. */
static bool has_directory(const char *outz)
{
    char dir[4200];
    const char *slash = strrchr(outz, '/');
    struct stat st;

    if (stat(outz, &st) == 0)
        return !S_ISDIR(st.st_mode);
    if (!slash || slash == outz)
        return true;
    return str_copyz(dir, sizeof dir, str_of(outz, (size_t)(slash - outz))) &&
           stat(dir, &st) == 0 && S_ISDIR(st.st_mode);
}

/* --fresh: forgets the earlier run, unless one is running. */
static int start_over(struct batch_run *b, struct err *e)
{
    char path[4300];
    int fd;

    if (access(b->state, F_OK) == 0) {
        snprintf(path, sizeof path, "%s/lock", b->state);
        if (file_lock(path, &fd, e) < 0)
            return e->code;
        clear_state(b->state);
        close(fd);
    }
    if (strcmp(b->options.outz, "-") != 0 && access(b->options.outz, F_OK) == 0 &&
        truncate(b->options.outz, 0) < 0)
        return err_set(e, ERR_IO, "cannot empty %s", b->options.outz);
    return 0;
}

/* ---- the run ---- */

/* Lines that are no jobs are told as they are found, so that a wrong file is stopped early. */
static void show_refused(struct batch_run *b)
{
    char message[700];

    while (filerun_refused(b->run, b->n_told, message, sizeof message)) {
        progress_clear(&b->progress);
        fprintf(stderr, "genq: %s\n", message);
        b->n_told++;
    }
}

static void show(struct batch_run *b, bool is_end)
{
    struct filerun_counts counts;
    struct progress *p = &b->progress;
    /* what is cancelled is no line of this input */
    int64_t n_failed = event_count(EVENT_FAIL) + event_count(EVENT_EXPIRE);
    const char *trouble = b->is_stopping ? "" : embedded_trouble(&b->embedded);

    show_refused(b);
    filerun_get_counts(b->run, &counts);
    p->total = counts.n_total;
    p->failed = n_failed; /* refused lines among them */
    p->n_before = counts.n_found;
    p->done = event_count(EVENT_SUCCEED) + p->failed + counts.n_found;
    p->tokens = metric_get(METRIC_PROMPT_TOKENS) + metric_get(METRIC_COMPLETION_TOKENS);
    progress_note(p, is_end ? "" : counts.notez[0] ? counts.notez : trouble);
    if (is_end)
        progress_end(p, clock_mono_ms());
    else
        progress_update(p, clock_mono_ms());
}

static void on_stopped(void *data)
{
    struct batch_run *b = data;

    uv_stop(&b->loop);
}

static void stop(struct batch_run *b, int64_t drain_ms)
{
    embedded_stop(&b->embedded, drain_ms, on_stopped, b);
    b->is_stopping = true;
}

static void on_timer(uv_timer_t *timer)
{
    struct batch_run *b = timer->data;

    show(b, false);
    if (!b->is_stopping && embedded_failure(&b->embedded, NULL) < 0) {
        filerun_interrupt(b->run);
        stop(b, 0);
    }
}

static void on_end(void *data, int code)
{
    struct batch_run *b = data;

    (void)code; /* conclude() asks */
    if (!b->is_stopping)
        stop(b, 0);
}

static void on_ready(void *data)
{
    struct batch_run *b = data;

    if (b->is_stopping || embedded_start(&b->embedded, &b->start_error) == 0)
        return;
    filerun_interrupt(b->run);
    stop(b, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct batch_run *b = handle->data;

    (void)number;
    progress_clear(&b->progress);
    if (!b->is_stopping)
        fprintf(stderr, "genq: stopping; running calls may end first (again: stop at once)\n");
    b->was_interrupted = true;
    filerun_interrupt(b->run);
    stop(b, b->is_stopping ? 0 : b->embedded.gateway.config->worker_drain_ms);
}

static void start_handles(struct batch_run *b)
{
    static const int numbers[] = {SIGINT, SIGTERM};

    for (int i = 0; i < 2; i++) {
        uv_signal_init(&b->loop, &b->signals[i]);
        b->signals[i].data = b;
        uv_signal_start(&b->signals[i], on_signal, numbers[i]);
    }
    uv_timer_init(&b->loop, &b->timer);
    b->timer.data = b;
    uv_timer_start(&b->timer, on_timer, SHOW_MS, SHOW_MS);
}

static void close_handles(struct batch_run *b)
{
    for (int i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&b->signals[i], NULL);
    uv_close((uv_handle_t *)&b->timer, NULL);
}

static int exit_of(const struct err *e)
{
    if (e->code == ERR_NOT_FOUND)
        return EXIT_USAGE;
    return e->code == ERR_CORRUPT ? EXIT_NO_SERVER : EXIT_SOME_FAILED;
}

/* What the user should know at the end, and the exit code. After filerun_stop. */
static int conclude(struct batch_run *b)
{
    const char *outz = strcmp(b->options.outz, "-") == 0 ? "stdout" : b->options.outz;
    const struct err *error = filerun_error(b->run);
    struct filerun_counts counts;
    struct err damage;

    if (embedded_failure(&b->embedded, &damage) < 0)
        return cli_fail(EXIT_NO_SERVER, "%s; --fresh starts over", damage.msg);
    if (b->start_error.code < 0)
        error = &b->start_error;
    if (error->code == ERR_CORRUPT) /* met by one who reads it */
        return cli_fail(EXIT_NO_SERVER, "%s/" DB_FILE " is damaged: %s; --fresh starts over",
                        b->state, error->msg);
    if (error->code < 0)
        return cli_fail(exit_of(error), "%s", error->msg);
    if (b->was_interrupted && !filerun_is_complete(b->run))
        return cli_fail(EXIT_SOME_FAILED, b->is_temporary
                                              ? "stopped; what is missing was not kept"
                                              : "stopped; the same command goes on where it was");
    filerun_get_counts(b->run, &counts);
    if (counts.n_bad == 0)
        return EXIT_WELL;
    if (b->n_told < counts.n_bad && counts.first_bad[0])
        fprintf(stderr, "genq: the first that failed: %s\n", counts.first_bad);
    return cli_fail(EXIT_SOME_FAILED,
                    "%lld line%s did not succeed (see \"error\" in %s); the same command tries %s "
                    "again",
                    (long long)counts.n_bad, counts.n_bad == 1 ? "" : "s", outz,
                    counts.n_bad == 1 ? "it" : "them");
}

static int run_embedded(struct batch_run *b, struct err *e)
{
    int code;

    b->run = filerun_start(&b->embedded, &b->options, on_ready, on_end, b, e);
    if (!b->run) {
        stop(b, 0);
        uv_run(&b->loop, UV_RUN_DEFAULT);
        return cli_fail(e->code == ERR_EXISTS ? EXIT_USAGE : EXIT_SOME_FAILED, "%s", e->msg);
    }
    start_handles(b);
    progress_init(&b->progress, -1);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    close_handles(b); /* now Ctrl-C ends us at once: the writer may wait for a pipe's reader */
    filerun_stop(b->run);
    show(b, true);
    code = conclude(b);
    filerun_free(b->run);
    return code;
}

static int run_in(struct batch_run *b, const struct cli *c, struct config *config)
{
    struct err e = {0};
    int rc;

    config_set_text(&config->data, b->state);
    config->broker_kind = BROKER_KIND_SQLITE; /* a run keeps its own log, wherever servers' is */
    if (config->log_level == LOG_INFO) /* the bar tells the rest */
        log_setup(LOG_ERROR, isatty(STDERR_FILENO) ? LOG_TEXT : LOG_JSON);
    if (cli_has(c, "--fresh") && start_over(b, &e) < 0)
        return cli_fail(EXIT_SOME_FAILED, "%s", e.msg);
    uv_loop_init(&b->loop);
    if (embedded_open(&b->embedded, config, &b->loop, c->side, ROLE_BOTH, &e) < 0) {
        rc = cli_fail(exit_of(&e), "%s", e.msg);
    } else {
        rc = run_embedded(b, &e);
        embedded_close(&b->embedded);
    }
    embedded_close_loop(&b->loop);
    return rc;
}

static int read_options(struct cli *c, struct filerun_options *o)
{
    o->inz = c->args[0];
    o->outz = cli_get(c, "--output");
    o->modelz = cli_get(c, "--model");
    o->tenantz = cli_has(c, "--tenant") ? cli_get(c, "--tenant") : "default";
    if (!o->outz)
        return cli_usage(c, "say where the results go: -o OUT.jsonl (or -o - for stdout)");
    if (cli_has(c, "--server"))
        return cli_usage(c,
                         "'batch run' runs in this process; for a server see 'genq batch submit'");
    if (strcmp(o->inz, "-") != 0 && access(o->inz, R_OK) < 0)
        return cli_fail(EXIT_USAGE, "cannot read %s", o->inz);
    if (is_same_file(o->inz, o->outz))
        return cli_fail(EXIT_USAGE, "%s is the input: the results need another file", o->outz);
    if (strcmp(o->outz, "-") != 0 && !has_directory(o->outz))
        return cli_fail(EXIT_USAGE, "-o %s: it is a directory, or in none that is there", o->outz);
    if (!id_is_valid(str_z(o->tenantz)))
        return cli_usage(c, "--tenant: '%s' is not 1 to 64 of A-Z a-z 0-9 . _ -", o->tenantz);
    return EXIT_WELL;
}

static int run(struct cli *c)
{
    struct batch_run b = {.n_told = 0};
    struct config *config;
    int rc = read_options(c, &b.options);

    if (rc != EXIT_WELL)
        return rc;
    config = cli_config(c);
    if (!config)
        return EXIT_USAGE;
    rc = find_state(&b, c);
    if (rc == EXIT_WELL)
        rc = run_in(&b, c, config);
    if (b.is_temporary) {
        clear_state(b.state);
        char lock[4300];

        snprintf(lock, sizeof lock, "%s/lock", b.state);
        unlink(lock);
        rmdir(b.state);
    }
    config_free(config);
    return rc;
}

static const struct cli_option options[] = {
    {"--output", 'o', "OUT", "results, one JSON line each, in input order; - is stdout",
     false},
    {"--model", 'm', "MODEL", "model for lines that name none", false},
    {"--engine", 0, "URL", "an engine's base URL (default http://127.0.0.1:11434); may be repeated",
     true},
    {"--fresh", 0, NULL, "forget the earlier run and start over", false},
    {"--tenant", 0, "TENANT", "whose usage it is (default: default)", false},
    {"--data", 0, "DIR", "directory for the run's state (default: OUT.genq)", false},
    {0},
};

const struct cli_command command_batch_run = {
    .namez = "batch run",
    .argumentsz = "IN.jsonl -o OUT.jsonl",
    .summaryz = "run a file of prompts on your engines, in this one process",
    .detailsz =
        "IN has one JSON object a line: {\"prompt\":…}, {\"messages\":…}, a whole job, or an\n"
        "OpenAI batch line; - reads stdin. OUT gets one result a line, in the same order.\n"
        "Stop it or kill it at any point: the same command goes on where it was, runs what is new\n"
        "in IN, and tries failed lines again. Its state is in OUT.genq; remove it when done.",
    .options = options,
    .run = run,
    .examplez = "genq batch run prompts.jsonl -o answers.jsonl -m llama3.2",
};
