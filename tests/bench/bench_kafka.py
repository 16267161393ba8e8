#!/usr/bin/env python3
"""What genq costs over Kafka: one broker, one Redis, a gateway, a worker and a stub engine beside each other.

    bench_kafka.py BUILD_DIR [throughput|lone|flight|partition|queue|backlog]… [--jobs 20000] [--pairs 3]

The baseline of each figure, measured in the same run, is the embedded `genq up` with the same jobs and
the same engine; that one stands beside a floor in bench.py. Servers run on free loopback ports. Kafka's
jars are looked for as the tests do (GENQ_KAFKA_LIBS).
"""
import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from bench import LONE_S, Bench, Stub, Up, engine_ms  # noqa: E402
from distributed import Distributed  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402

LONE_JOBS = 200


def environment(build):
    os.environ.update(SOURCE_DIR=os.path.join(HERE, "..", ".."), BINARY_DIR=build, VARIANT="plain",
                      GENQ=os.path.join(build, "genq"), STUB=os.path.join(build, "stub_engine"),
                      KAFKA_ADMIN=os.path.join(build, "kafka_admin"))


class Cluster:
    """Gateways and one worker over Kafka, with Redis; its engine is the caller's."""

    n = 0

    def __init__(self, bench, url, slots=64, gateways=1, broker=""):
        Cluster.n += 1
        self.after = ""
        common = (f"redis: {{url: \"{bench.redis.url}\"}}\nlog: {{level: warn}}\n"
                  "limits: {disk_free_bytes: 0}\n")
        self.distributed = Distributed(bench.kafka, gateways=gateways, workers=0, config=common,
                                       prefix=f"b{Cluster.n}", session_ms=10000, broker=broker)
        worker = self.distributed.new_worker(f"engines: [{{url: \"{url}\", slots: {slots}}}]\n")
        worker.arguments = worker.arguments[:worker.arguments.index("--engine")]

    def __enter__(self):
        self.distributed.__enter__()
        self.ports = [g.port for g in self.distributed.gateways]
        run_batch(self, "warm", 100)  # the group has met, the engine is known
        return self

    def __exit__(self, *reason):
        self.distributed.__exit__(*reason)

    def pids(self):
        return [m.process.pid for m in self.distributed.members]


class Embedded(Up):
    """`genq up` as the baseline, told of as a Cluster is."""

    def __enter__(self):
        self.ports, self.after = [self.port, self.port], ""
        run_batch(self, "warm", 100)
        return super().__enter__()

    def pids(self):
        return [self.proc.pid]


def lines(n, size=400):
    """n jobs as NDJSON, each prompt of about `size` bytes."""
    return "".join(json.dumps({"model": "stub", "prompt": f"{i} " + "x" * size}) + "\n" for i in range(n))


def cpu_s(pids):
    fields = [open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0


def call(conn, method, path, body=None, headers=None):
    conn.request(method, path, body, headers or {})
    reply = conn.getresponse()
    text = reply.read()
    if reply.status >= 300:
        sys.exit(f"{method} {path}: {reply.status} {text[:300]}")
    return json.loads(text)


def run_batch(place, name, n):
    """n jobs in one NDJSON POST, and the feed until all have ended. Gives the seconds it took."""
    conn, start = http.client.HTTPConnection("127.0.0.1", place.ports[0]), time.monotonic()
    call(conn, "POST", f"/api/v1/batches?id={name}", lines(n), {"Content-Type": "application/x-ndjson"})
    read_feed(conn, place, n)
    return time.monotonic() - start


def read_feed(conn, place, n):
    """Until n more completions have come. Gives when the first were there."""
    seen, first = 0, None
    while seen < n:
        page = call(conn, "GET", f"/api/v1/completions?wait=30s&limit=1000{place.after}")
        seen += len(page["data"])
        first = first or (seen and time.monotonic())
        place.after = f"&after={page['next']}"
    return first


def throughput_row(place, n):
    with place:
        run_batch(place, "hot", n)  # the broker's code is compiled as it runs
        before = cpu_s(place.pids())
        seconds = run_batch(place, "bench", n)
        return n / seconds, (cpu_s(place.pids()) - before) / n * 1000


def throughput(bench):
    n = bench.args.jobs
    print(f"{n} jobs of 400 bytes in one NDJSON POST, zero-latency engine, 64 slots, median of "
          f"{bench.args.pairs} pairs")
    with Stub(bench) as stub:
        rows = [throughput_row(make(bench, stub.url), n)
                for _ in range(bench.args.pairs) for make in (Embedded, Cluster)]
    (speed0, cpu0), (speed, cpu) = ([statistics.median(column) for column in zip(*rows[i::2])]
                                    for i in (0, 1))
    print(f"  embedded {speed0:8.0f} jobs/s {cpu0:6.4f} CPU-s/1000\n"
          f"  Kafka    {speed:8.0f} jobs/s {cpu:6.4f} CPU-s/1000 (aims 7000, 0.12) | "
          f"speed {speed / speed0:.2f} CPU {cpu / cpu0:.2f}")


def lone_ms(place, pause_s):
    """Posted at the first gateway and waited for at the last."""
    here, there = (http.client.HTTPConnection("127.0.0.1", place.ports[i]) for i in (0, -1))
    times = []
    for i in range(LONE_JOBS):
        body = json.dumps({"model": "stub", "prompt": f"{i} " + "x" * 400})
        start = time.perf_counter()
        job = call(here, "POST", "/api/v1/jobs", body)
        job = call(there, "GET", f"/api/v1/jobs/{job['id']}?wait=30s&after_position={job['position']}")
        times.append((time.perf_counter() - start) * 1000)
        if job["status"] != "succeeded":
            sys.exit(f"the job ended {job['status']}")
        time.sleep(pause_s)
    return statistics.median(times)


def hop_ms(bench, pause_s):
    """One record from a producer to a consumer that waits for it."""
    pause_ms = str(round(pause_s * 1000))
    topic = f"hop-{pause_ms}"
    bench.kafka.client().create(topic, 1)
    done = subprocess.run([os.path.join(bench.args.build, "hop"), bench.kafka.servers, topic, str(LONE_JOBS), pause_ms],
                          stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def lone(bench):
    print("a lone job, posted at one gateway and waited for at another")
    with Stub(bench) as stub:
        with Cluster(bench, stub.url) as cluster:
            run_batch(cluster, "bench", 20000)  # the broker's code is compiled as it gets warm
        for pause_s in 0, LONE_S:
            lone_row(bench, stub.url, pause_s)


def lone_row(bench, url, pause_s):
    engine, hop = engine_ms(url, pause_s), hop_ms(bench, pause_s)
    with Embedded(bench, url) as up:
        embedded = lone_ms(up, pause_s)
    with Cluster(bench, url, gateways=2) as cluster:
        kafka = lone_ms(cluster, pause_s)
    print(f"  {pause_s * 1000:.0f} ms after the one before: engine's own {engine:.2f} ms, a bare hop over the broker "
          f"{hop:.2f}; embedded {embedded:.2f}; Kafka {kafka:.2f}: {kafka - engine:.2f} over the engine's (aim 4), "
          f"{kafka - engine - 2 * hop:.2f} over two hops (3.3)", flush=True)


def flight(bench):
    n = 10000
    print(f"{n} jobs in flight in one worker, an engine that takes 20 s, {n} slots")
    with Stub(bench, 20000) as stub, Cluster(bench, stub.url, slots=n) as cluster:
        seconds = run_batch(cluster, "bench", n)
        mb = peak_mb(cluster.pids()[-1])
    print(f"  worker's peak {mb:.0f} MB (aim 256); {seconds:.1f} s, 20 of them the engine's")


def partition(bench):
    n = 10000
    print(f"{n} jobs that wait on one partition, 100 in flight, an engine of 2 ms: first completion to last")
    with Stub(bench, 2) as stub, Cluster(bench, stub.url, slots=100, broker="partitions: 1,") as cluster:
        worker = cluster.distributed.workers[0]
        worker.stop()
        submit(cluster, "bench", n, "default")
        worker.start()
        conn = http.client.HTTPConnection("127.0.0.1", cluster.ports[0])
        first = read_feed(conn, cluster, n)
        print(f"  {time.monotonic() - first:.2f} s (aim 1.0); {n / 100 * 0.002:.2f} of them the engine's")


def submit(place, name, n, tenant):
    conn, start = http.client.HTTPConnection("127.0.0.1", place.ports[0]), time.monotonic()
    call(conn, "POST", f"/api/v1/batches?id={name}&tenant={tenant}", lines(n),
         {"Content-Type": "application/x-ndjson"})
    return time.monotonic() - start


def poll_ms(conn, name, n):
    """GET of jobs here and there among n."""
    times = []
    for i in range(0, n, max(1, n // 500)):
        start = time.perf_counter()
        call(conn, "GET", f"/api/v1/jobs/{name}-{i}?tenant=many")
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def finished(conn, name, tenant):
    batch = call(conn, "GET", f"/api/v1/batches/{name}?tenant={tenant}")
    return batch["counts"]["succeeded"]


def queue_row(bench, url, n):
    """n jobs of one tenant wait, and ten of another after them, when the worker comes."""
    step = 10000
    with Cluster(bench, url) as cluster:
        worker = cluster.distributed.workers[0]
        worker.stop()
        seconds = [submit(cluster, f"m{i}", step, "many") for i in range(n // step)]
        submit(cluster, "few", 10, "few")
        conn = http.client.HTTPConnection("127.0.0.1", cluster.ports[0])
        while not all(is_known(conn, f"m{n // step - 1}-{i}") for i in range(step - 500, step)):  # of all partitions
            time.sleep(0.2)
        poll = poll_ms(conn, "m0", step)
        start, few, first, last = time.monotonic(), None, None, 0
        worker.start()
        while few is None:
            now = time.monotonic()
            last = sum(finished(conn, f"m{i}", "many") for i in range(n // step))
            if last and first is None:
                first = (now, last)
            if finished(conn, "few", "few") == 10:
                few = (now - start, last)
            time.sleep(0.02)
        rates = [(last - first[1]) / max(now - first[0], 0.001)]
        now, before = time.monotonic(), last
        while last < min(before + step, n):
            last = sum(finished(conn, f"m{i}", "many") for i in range(n // step))
            time.sleep(0.02)
        rates.append((last - before) / (time.monotonic() - now))
    print(f"  {n:8} queued: submit {step / statistics.median(seconds[-10:]):6.0f} jobs/s, GET {poll:.2f} ms; the other "
          f"tenant's ten after {few[0]:.1f} s, {few[1]} of the many before them; run {rates[0]:.0f} jobs/s until "
          f"then, {rates[1]:.0f} afterwards", flush=True)


def queue(bench):
    print("jobs that wait of one tenant, ten of another behind them, zero-latency engine, 64 slots")
    with Stub(bench) as stub:
        for n in (10000, bench.args.queued):
            queue_row(bench, stub.url, n)


# ---- a backlog that other clients put there, and one worker ----

BACKLOG_S = 5  # of running on, once the worker has read what waits


def as_gateways_do(tenant):
    """kcat's options for the headers that a gateway gives to a job."""
    headers = {"ce_specversion": "1.0", "ce_id": "b1-123456.job", "ce_type": "genq.job.v1", "ce_source": "genq",
               "ce_time": "2026-01-01T00:00:00.000Z", "content-type": "application/json",
               "genq_tenant": tenant, "genq_model": "stub", "genq_digest": "8a38f0c4" * 8}
    return [word for pair in headers.items() for word in ("-H", "%s=%s" % pair)]


def produce(bench, topic, tenant, n):
    """n jobs of 400 bytes straight into the topic."""
    command = ["kcat", "-P", "-b", bench.kafka.servers, "-t", topic, "-K", "\t", "-X", "linger.ms=20", "-X",
               "queue.buffering.max.messages=200000", *as_gateways_do(tenant)]
    prompt = "x" * 400
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as kcat:
        for i in range(n):
            kcat.stdin.write(f'{tenant}-{i}\t{{"id":"{tenant}-{i}","model":"stub","prompt":"{i} {prompt}",'
                             f'"queue":"default","tenant":"{tenant}","created_at":1795304109694}}\n')
        kcat.stdin.close()
    if kcat.returncode:
        sys.exit("kcat: %d" % kcat.returncode)


def metric(conn, name):
    conn.request("GET", "/metrics")
    for line in conn.getresponse().read().decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return 0


def ends(bench, prefix):
    """When each job ended, by the broker's clock in ms, and its tenant."""
    command = ["kcat", "-C", "-q", "-e", "-b", bench.kafka.servers, "-t", prefix + ".completions", "-o", "beginning",
               "-f", "%T %h\\n"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kcat:
        for line in kcat.stdout:
            at, _, headers = line.partition(" ")
            yield int(at), headers.partition("genq_tenant=")[2].partition(",")[0]


def speed(times, since, until):
    """Jobs a second of those that ended in the time."""
    return sum(since <= at < until for at in times) / max(until - since, 1) * 1000


def read_backlog(worker, n, started):
    """Waits until the worker knows of all n jobs, but for some that it runs; gives the seconds since its start."""
    conn = http.client.HTTPConnection("127.0.0.1", worker.port)
    while metric(conn, "genq_jobs_waiting") + metric(conn, "genq_kafka_records_total") < n - 1000:
        if time.monotonic() - started > 600:
            sys.exit("the worker reads no more: %d wait" % metric(conn, "genq_jobs_waiting"))
        time.sleep(0.02)
    return time.monotonic() - started


def ask_gateway(bench, world, n):
    """What a client meets while n jobs wait, once the gateway has read of them."""
    started = time.monotonic()
    conn = http.client.HTTPConnection("127.0.0.1", world.gateways[0].port)
    while not all(is_known(conn, f"many-{i}") for i in range(n - 500, n)):  # of all partitions
        time.sleep(0.5)
    world.ports = [world.gateways[0].port]
    behind_s = time.monotonic() - started
    poll = poll_ms(conn, "many", n)
    seconds = [submit(world, f"s{i}", 1000, "third") for i in range(10)]
    print(f"  {n:8} wait: the gateway had read of them after {behind_s:.0f} s more, {peak_mb(world.gateways[0].process.pid):.0f} "
          f"MB; GET {poll:.2f} ms, submit {1000 / statistics.median(seconds):.0f} jobs/s", flush=True)


def is_known(conn, job):
    conn.request("GET", f"/api/v1/jobs/{job}?tenant=many")
    reply = conn.getresponse()
    reply.read()
    return reply.status == 200


def backlog_row(bench, url, n):
    config = (f"worker: {{lookahead: {max(n * 2, 1000000)}}}\nlog: {{level: warn}}\n"
              f"limits: {{disk_free_bytes: 0, queued_jobs: {n * 2}}}\n")
    Cluster.n += 1
    with Distributed(bench.kafka, gateways=int(bench.args.gateway), workers=0, config=config,
                     prefix=f"b{Cluster.n}", session_ms=10000) as world:
        topic = world.prefix + ".jobs.default.normal"
        produce(bench, topic, "many", n)
        produce(bench, topic, "few", 10)
        if bench.args.gateway:
            ask_gateway(bench, world, n)
        worker = world.new_worker(f"engines: [{{url: \"{url}\", slots: 64}}]\n")
        worker.arguments = worker.arguments[:worker.arguments.index("--engine")]
        start, started = time.time() * 1000, time.monotonic()
        worker.start()
        read_s, rss = read_backlog(worker, n + 10, started), peak_mb(worker.process.pid)
        if bench.args.gateway:
            print(f"  {n:8} wait, while they run: GET "
                  f"{get_ms(http.client.HTTPConnection('127.0.0.1', world.gateways[0].port), n):.2f} ms")
        time.sleep(BACKLOG_S)
        worker.stop()
        tell_backlog(n, list(ends(bench, world.prefix)), start, read_s, rss)


def tell_backlog(n, both, start, read_s, rss):
    times = sorted(at for at, _ in both)
    few = [at for at, tenant in both if tenant == "few"]
    read = start + read_s * 1000
    if len(times) > n:
        print(f"  {n:8} wait: {speed(times, times[0], times[-1]):.0f} jobs/s until all have ended, the other tenant's "
              f"{len(few)} after {(max(few) - start) / 1000:.2f} s; worker {rss:.0f} MB", flush=True)
        return
    while_ = speed(times, times[0], read)
    after = speed(times, read + 500, min(read + BACKLOG_S * 1000, times[-1]))
    print(f"  {n:8} wait: first end after {(times[0] - start) / 1000:.2f} s, all read after {read_s:.2f} s, the other "
          f"tenant's {len(few)} have ended after {(max(few) - start) / 1000 if few else 0:.2f} s; {while_:.0f} jobs/s until "
          f"read, {after:.0f} afterwards: {while_ / max(after, 1):.2f}; worker {rss:.0f} MB", flush=True)


def backlog(bench):
    print("jobs that wait of one tenant, ten of another behind them, one worker of 64 slots")
    for latency_ms in (50, 0):
        with Stub(bench, latency_ms) as stub:
            print(f" an engine of {latency_ms} ms")
            for n in (10000, bench.args.queued):
                backlog_row(bench, stub.url, n)


PARTS = {"throughput": throughput, "lone": lone, "flight": flight, "partition": partition, "queue": queue,
         "backlog": backlog}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("what", nargs="*", default=[name for name in PARTS if name not in ("queue", "backlog")])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--queued", type=int, default=1000000, help="jobs that wait, for `queue` and `backlog`")
    parser.add_argument("--gateway", action="store_true", help="`backlog`: a gateway reads it too, and is asked")
    parser.add_argument("--sync", default="full", choices=("full", "normal"))
    parser.add_argument("--dir", help="where data is written (default: the temporary directory)")
    bench = Bench(parser.parse_args())
    environment(bench.args.build)
    try:
        with KafkaCluster() as bench.kafka, RedisServer() as bench.redis:
            for what in bench.args.what:
                PARTS[what](bench)
    finally:
        shutil.rmtree(bench.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
