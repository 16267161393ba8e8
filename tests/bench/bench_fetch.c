/* What one HTTP call costs through base/fetch: keeps `connections` POSTs under way against a server
 * on loopback for `seconds`, and prints the rate, this thread's CPU time a call, and the latency.
 *
 * Usage: bench_fetch http://127.0.0.1:PORT/api/generate [connections 64] [seconds 5] [limits 1]
 * The stub engine (tests/lib/stub_engine) is a server that is fast enough. Measure it with
 * --latency-ms 2 as well as 0: at 0 the answer is often there before libcurl has returned from
 * sending, and the loop's part, which engines with real latency make us pay for, is not seen.
 *
 * CPU a request, two cores, engine on the other one; beside it a plain curl_multi_poll loop:
 *   64 connections, 0 ms: 7.3 us (poll loop 7.2)      64, 2 ms: 12.9 us (16.8)
 *   1000 connections, 2 ms: 18.6 us (17.2)            1000, 200 ms: 22 us (34)
 * Keeping each uv_poll_t armed over requests is worth 2 to 3 us of it; time limits through one heap
 * instead of CURLOPT_TIMEOUT_MS 0.2 us. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/fetch.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_SLOTS 20000
#define MAX_SAMPLES (4 << 20)

struct bench;

struct slot {
    struct bench *bench;
    int64_t started_us;
};

struct bench {
    struct fetch_pool *pool;
    struct fetch_request request;
    int64_t end_ms;
    uint64_t n_ok, n_failed, n_bytes;
    uint32_t *latency_us;
    size_t n_latency;
    struct slot slots[MAX_SLOTS];
};

static void start(struct slot *s);

static int on_data(void *data, struct str bytes)
{
    ((struct slot *)data)->bench->n_bytes += bytes.n;
    return 0;
}

static void on_done(void *data, const struct fetch_result *r)
{
    struct slot *s = data;
    struct bench *b = s->bench;

    if (r->fault == FETCH_OK && r->status == 200)
        b->n_ok++;
    else if (b->n_failed++ == 0)
        fprintf(stderr, "fault %d, status %d: %s\n", (int)r->fault, r->status, r->message);
    if (b->n_latency < MAX_SAMPLES)
        b->latency_us[b->n_latency++] = (uint32_t)(clock_mono_us() - s->started_us);
    if (clock_mono_ms() < b->end_ms)
        start(s);
}

static void start(struct slot *s)
{
    struct fetch_handler h = {.on_data = on_data, .on_done = on_done, .data = s};

    s->started_us = clock_mono_us();
    if (!fetch_start(s->bench->pool, &s->bench->request, &h, NULL))
        abort();
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void report(struct bench *b, double wall_s, double used_s)
{
    uint64_t n = b->n_ok + b->n_failed;

    if (n == 0)
        return;
    qsort(b->latency_us, b->n_latency, sizeof *b->latency_us, by_value);
    printf("%.0f req/s, %.2f us CPU a request, p50 %u us, p99 %u us, %" PRIu64 " failed, "
           "%" PRIu64 " B an answer\n",
           (double)n / wall_s, used_s * 1e6 / (double)n, b->latency_us[b->n_latency / 2],
           b->latency_us[b->n_latency * 99 / 100], b->n_failed, b->n_bytes / n);
}

int main(int argc, char **argv)
{
    static const char body[] = "{\"model\":\"m\",\"prompt\":\"Say hello to the world, and then "
                               "tell it again, at some length.\",\"stream\":false}";
    struct bench *b = xcalloc(1, sizeof *b);
    int n = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 64;
    int64_t seconds = argc > 3 ? strtol(argv[3], NULL, 10) : 5;
    bool has_limits = argc <= 4 || strtol(argv[4], NULL, 10) != 0;
    double cpu_before = cpu_s();
    int64_t began_us = clock_mono_us();
    uv_loop_t loop;

    if (argc < 2 || n < 1 || n > MAX_SLOTS || uv_loop_init(&loop) != 0) {
        fprintf(stderr, "usage: bench_fetch URL [connections] [seconds] [limits 0|1]\n");
        return 1;
    }
    b->latency_us = xmalloc(MAX_SAMPLES * sizeof *b->latency_us);
    b->pool = fetch_pool_new(&loop, n);
    b->request = (struct fetch_request){.methodz = "POST", .urlz = argv[1], .body = str_z(body)};
    if (has_limits) {
        b->request.total_ms = 300000;
        b->request.first_byte_ms = 60000;
        b->request.idle_ms = 30000;
    }
    b->end_ms = clock_mono_ms() + seconds * 1000;
    for (int i = 0; i < n; i++) {
        b->slots[i].bench = b;
        start(&b->slots[i]);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    report(b, (double)(clock_mono_us() - began_us) / 1e6, cpu_s() - cpu_before);
    fetch_pool_free(b->pool);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    free(b->latency_us);
    free(b);
    return 0;
}
