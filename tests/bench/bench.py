"""The benchmarks of docs/performance.md, each beside a floor measured in the same run.

    bench.py BUILD_DIR [throughput|slots|lone|memory|waiters]… [--pairs 5] [--jobs 20000] [--sync full]

The floor (floor.c) is one C loop of SQLite, libcurl multi and cJSON that does the same work and
nothing else. Runs are interleaved: floor, genq, floor, genq …; medians are printed, and the ratio.
Server tests start their own servers on free loopback ports.
"""
import argparse
import http.client
import json
import multiprocessing
import os
import resource
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

LONE_S = 0.03  # between lone calls, engine's own and fsyncs too: an idle machine takes longer to wake
ENGINE_S = 30    # of the job that all the waiters wait for
HERE = os.path.dirname(os.path.abspath(__file__))


class Bench:
    def __init__(self, args):
        self.args = args
        self.genq = os.path.join(args.build, "genq")
        self.dir = tempfile.mkdtemp(prefix="genq-bench-", dir=args.dir)
        self.jobs = {}

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def jobs_file(self, n):
        if n not in self.jobs:
            self.jobs[n] = self.path(f"jobs-{n}.jsonl")
            with open(self.jobs[n], "w") as f:
                subprocess.run([sys.executable, os.path.join(HERE, "../lib/make_jobs.py"), str(n),
                                "--bytes", "400"], stdout=f, check=True)
        return self.jobs[n]

    def config(self, url, slots=64):
        path = self.path("genq.yaml")
        with open(path, "w") as f:
            f.write(f"engines:\n  - {{url: \"{url}\", slots: {slots}}}\n"
                    f"broker: {{sync: {self.args.sync}}}\nlog: {{level: warn}}\n"
                    "limits: {disk_free_bytes: 0}\n")
        return path


class Stub:
    def __init__(self, bench, latency_ms=0):
        self.proc = subprocess.Popen([os.path.join(bench.args.build, "stub_engine"), "--port", "0",
                                      "--latency-ms", str(latency_ms)], stdout=subprocess.PIPE,
                                     text=True)
        self.url = self.proc.stdout.readline().split()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.wait()


class Up:
    """`genq up` on a fresh data directory."""

    def __init__(self, bench, url, slots=64):
        self.data = bench.path("data")
        shutil.rmtree(self.data, ignore_errors=True)
        self.proc = subprocess.Popen([bench.genq, "--config", bench.config(url, slots), "up",
                                      "--data", self.data, "--listen", "127.0.0.1:0"],
                                     stderr=subprocess.DEVNULL)
        listen = os.path.join(self.data, "listen")
        while not os.path.exists(listen) or not open(listen).read().endswith("\n"):
            time.sleep(0.01)
        self.port = int(open(listen).read().strip().rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.wait()

    def cpu_s(self):
        fields = open(f"/proc/{self.proc.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self):
        for line in open(f"/proc/{self.proc.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0

    def read_feed(self, n):
        """Reads the feed until n completions have come."""
        conn = http.client.HTTPConnection("127.0.0.1", self.port)
        after, seen = "", 0
        while seen < n:
            conn.request("GET", f"/api/v1/completions?wait=30s&limit=1000{after}")
            page = json.loads(conn.getresponse().read())
            seen += len(page["data"])
            after = f"&after={page['next']}"
        return seen


def run_floor(bench, url, n, latency_ms=0):
    db, out = bench.path("floor.db"), bench.path("floor.out")
    for path in (db, db + "-wal", db + "-shm", out):
        if os.path.exists(path):
            os.unlink(path)
    cmd = [os.path.join(bench.args.build, "floor"), "--in", bench.jobs_file(n), "--out", out, "--db",
           db, "--url", url, "--slots", "64", "--sync", bench.args.sync]
    if latency_ms:
        cmd += ["--latency-ms", str(latency_ms)]
    return run_process(cmd, out, n)


def run_process(cmd, out, n):
    """A whole process, from its start to its end: wall time, CPU and memory as the system counts."""
    start = time.monotonic()
    proc = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = proc.stdout.read()
    _, status, usage = os.wait4(proc.pid, 0)
    wall = time.monotonic() - start
    if status != 0 or sum(1 for _ in open(out)) != n:
        sys.exit(f"{cmd[0]} failed: {said.decode()[-500:]}")
    return {"jobs_per_s": n / wall, "cpu": (usage.ru_utime + usage.ru_stime) / n * 1000,
            "rss_mb": usage.ru_maxrss / 1024}


def run_batch(bench, url, n):
    out = bench.path("batch.out")
    shutil.rmtree(out + ".genq", ignore_errors=True)
    if os.path.exists(out):
        os.unlink(out)
    cmd = [bench.genq, "--config", bench.config(url), "batch", "run", bench.jobs_file(n), "-o", out]
    return run_process(cmd, out, n)


def run_ndjson(bench, url, n):
    with Up(bench, url) as up:
        cpu, start = up.cpu_s(), time.monotonic()
        body = open(bench.jobs_file(n), "rb").read()
        conn = http.client.HTTPConnection("127.0.0.1", up.port)
        conn.request("POST", "/api/v1/batches?id=bench", body,
                     {"Content-Type": "application/x-ndjson"})
        reply = conn.getresponse()
        text = reply.read()
        if reply.status != 201:
            sys.exit(f"POST /api/v1/batches: {reply.status} {text[:300]}")
        up.read_feed(n)
        wall = time.monotonic() - start
        return {"jobs_per_s": n / wall, "cpu": (up.cpu_s() - cpu) / n * 1000}


def run_posts(bench, url, n):
    with Up(bench, url) as up:
        cpu, start = up.cpu_s(), time.monotonic()
        subprocess.run([os.path.join(bench.args.build, "post"), "--port", str(up.port), "--in",
                        bench.jobs_file(n)], check=True, stdout=subprocess.DEVNULL)
        up.read_feed(n)
        wall = time.monotonic() - start
        return {"jobs_per_s": n / wall, "cpu": (up.cpu_s() - cpu) / n * 1000}


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def pairs(bench, name, mine, url, n, want_speed, want_cpu):
    floor, genq = [], []
    for _ in range(bench.args.pairs):
        floor.append(run_floor(bench, url, n))
        genq.append(mine(bench, url, n))
    speed = statistics.median(g["jobs_per_s"] / f["jobs_per_s"] for g, f in zip(genq, floor))
    cpu = statistics.median(g["cpu"] / f["cpu"] for g, f in zip(genq, floor))
    print(f"{name:34} {median(genq, 'jobs_per_s'):8.0f} jobs/s {median(genq, 'cpu'):6.4f} CPU-s/1000 | "
          f"floor {median(floor, 'jobs_per_s'):8.0f} {median(floor, 'cpu'):6.4f} | "
          f"speed {speed:5.2f} (aim {want_speed}) CPU {cpu:5.2f} (aim {want_cpu})", flush=True)


def throughput(bench):
    n = bench.args.jobs
    print(f"{n} jobs of 400 bytes, zero-latency engine, 64 slots, sync {bench.args.sync}, median of "
          f"{bench.args.pairs} interleaved pairs")
    with Stub(bench) as stub:
        pairs(bench, "batch run", run_batch, stub.url, n, 0.60, 2.2)
        pairs(bench, "one NDJSON POST and the feed", run_ndjson, stub.url, n, 0.50, 2.6)
        pairs(bench, "POSTs on 64 connections, the feed", run_posts, stub.url, n, 0.25, 4)


def slots(bench):
    n = 10000
    print(f"{n} jobs of 50 ms on 64 slots: share of the ideal {64 / 0.05:.0f} jobs/s")
    with Stub(bench, 50) as stub:
        rows = []
        for _ in range(bench.args.pairs):
            floor, genq = run_floor(bench, stub.url, n, 50), run_batch(bench, stub.url, n)
            rows.append([row["jobs_per_s"] * 0.05 / 64 * 100 for row in (floor, genq)] +
                        [row["cpu"] for row in (floor, genq)])
        floor, genq, floor_cpu, cpu = (statistics.median(column) for column in zip(*rows))
        print(f"  floor {floor:.2f} %, genq {genq:.2f} %: {floor - genq:.2f} less (aim 0.5)")
        print(f"  CPU-s per 1000 jobs: floor {floor_cpu:.4f}, genq {cpu:.4f} (aim 0.08): {cpu / floor_cpu:.2f}")


def fsync_ms(bench):
    """What the disk asks for one synced append, as SQLite's log does it."""
    times = []
    with open(bench.path("fsync"), "wb", buffering=0) as f:
        for _ in range(300):
            f.write(b"x" * 8192)
            start = time.perf_counter()
            os.fdatasync(f.fileno())
            times.append((time.perf_counter() - start) * 1000)
            time.sleep(LONE_S)
    return statistics.median(times)


def engine_ms(url, pause_s=LONE_S):
    """The engine's own time for such a call, over a warm connection."""
    host = url.split("//")[1]
    conn = http.client.HTTPConnection(host)
    body = json.dumps({"model": "stub", "prompt": "x" * 400, "stream": False})
    times = []
    for _ in range(300):
        start = time.perf_counter()
        conn.request("POST", "/api/generate", body, {"Content-Type": "application/json"})
        conn.getresponse().read()
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(pause_s)
    return statistics.median(times)


def lone(bench):
    print("a lone job on an idle `genq up`: POST ?wait to its answer (one Python client)")
    with Stub(bench) as stub, Up(bench, stub.url) as up:
        conn = http.client.HTTPConnection("127.0.0.1", up.port)
        times = []
        for i in range(300):
            body = json.dumps({"model": "stub", "prompt": f"{i} " + "x" * 400})
            start = time.perf_counter()
            conn.request("POST", "/api/v1/jobs?wait=30s", body, {"Content-Type": "application/json"})
            reply = json.loads(conn.getresponse().read())
            times.append((time.perf_counter() - start) * 1000)
            if reply["status"] != "succeeded":
                sys.exit(f"the job ended {reply['status']}")
            time.sleep(LONE_S)
        times.sort()
        engine, fsync = engine_ms(stub.url), fsync_ms(bench)
        p50 = statistics.median(times)
        print(f"  p50 {p50:.2f} ms, p99 {times[int(len(times) * 0.99)]:.2f} ms; engine's own "
              f"{engine:.2f} ms; one fsync {fsync:.2f} ms, two in a row")
        print(f"  overhead beyond engine and fsyncs: {p50 - engine - 2 * fsync:.2f} ms (aim 1)")


def memory(bench):
    n = bench.args.lines
    with Stub(bench) as stub:
        with Up(bench, stub.url) as up:
            print(f"idle `genq up`: {up.rss_mb():.1f} MB (aim 30)", flush=True)
        row = run_batch(bench, stub.url, n)
        print(f"batch run of {n} lines: {row['rss_mb']:.1f} MB at most (aim 64), "
              f"{row['jobs_per_s']:.0f} jobs/s, {row['cpu']:.4f} CPU-s/1000")


def wait_on(port, request, n, barrier, pipe):
    """n clients that send `request` and wait. Tells when the last has its answer; None: one left without."""
    with selectors.DefaultSelector() as waiting:
        for _ in range(n):
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(request)
            waiting.register(s, selectors.EVENT_READ, b"")
        barrier.wait()
        answered = 0
        while answered < n:
            for key, _ in waiting.select():
                data = key.data + key.fileobj.recv(65536)
                if data == key.data:
                    return pipe.send(None)
                waiting.modify(key.fileobj, selectors.EVENT_READ, data)
                if b"succeeded" in data:
                    waiting.unregister(key.fileobj)
                    answered += 1
        pipe.send(time.time())


def waiters(bench):
    """Half of them ask with ?wait, half watch events, of one job."""
    room = min(bench.args.waiters, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
    n = room // 4  # of each process
    with Stub(bench, ENGINE_S * 1000) as stub, Up(bench, stub.url) as up:
        conn = http.client.HTTPConnection("127.0.0.1", up.port)
        conn.request("POST", "/api/v1/jobs", json.dumps({"model": "stub", "prompt": "x", "id": "slow"}))
        conn.getresponse().read()
        conn.close()
        before, barrier, ends, clients = up.rss_mb(), multiprocessing.Barrier(5), [], []
        for i in range(4):
            path = ("slow?wait=60s", "slow/events")[i % 2]
            end, far = multiprocessing.Pipe()
            request = f"GET /api/v1/jobs/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            clients.append(multiprocessing.Process(target=wait_on, args=(up.port, request, n, barrier, far)))
            clients[-1].start()
            ends.append(end)
        barrier.wait()
        cpu, rss = up.cpu_s(), up.rss_mb()
        time.sleep(5)
        cpu = up.cpu_s() - cpu
        times = [end.recv() for end in ends]
        for client in clients:
            client.join()
        conn.request("GET", "/api/v1/jobs/slow")
        job = json.loads(conn.getresponse().read())
    if None in times:
        sys.exit("a waiter was left without an answer")
    print(f"{4 * n} clients wait for one job: {(rss - before) * 1024 / 4 / n:.1f} KiB each, {cpu / 5 * 100:.1f} % of a core; "
          f"all had their answer {max(times) * 1000 - job['finished_at']:.0f} ms after it ended")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("what", nargs="*", default=["throughput", "slots", "lone", "memory"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--lines", type=int, default=1000000)
    parser.add_argument("--waiters", type=int, default=20000)
    parser.add_argument("--sync", default="full", choices=("full", "normal"))
    parser.add_argument("--dir", help="where data is written (default: the temporary directory)")
    bench = Bench(parser.parse_args())
    try:
        for what in bench.args.what:
            {"throughput": throughput, "slots": slots, "lone": lone, "memory": memory,
             "waiters": waiters}[what](bench)
    finally:
        shutil.rmtree(bench.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
