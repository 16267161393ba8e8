"""Every key of genq.yaml has a case here that changes it and sees what comes of it from outside. The
keys are those of broker-config/setting.def; one without a case fails the first test. Cases that need
Kafka stand in the files of 70 and up."""
import ctypes.util
import datetime
import glob
import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import (IS_SLOW, LIMIT_S, Nodes, Process, Stub, World, read_file, request, run,  # noqa: E402
                  wait_for)
from redis import RedisServer  # noqa: E402

GENQ = os.environ["GENQ"]
DEFINITIONS = os.path.join(os.environ["SOURCE_DIR"], "broker-config", "setting.def")
HEALTH = "/api/version"


def rows(macro):
    """Of each row: path, type, default, min, max."""
    pattern = macro + r'\("([\w.]+)", \w+, (\w+), ("[^"]*"|\w+), (-?\d+), (\d+),'
    return re.findall("^" + pattern, read_file(DEFINITIONS), re.M)


class Up(World):
    """`genq up` that is told nothing but its config, in which %(stub)s is the stub's URL."""

    def __init__(self, config, stub=(), environment=None, listen="127.0.0.1:0", data="data"):
        super().__init__(stub=stub, engines=[])
        self.text, self.environment, self.listen, self.data_name = config, environment or {}, listen, data

    def start(self):
        text = self.text % {"stub": "http://127.0.0.1:%d" % self.stub_port}
        for line, key in (("data: %s" % self.data_name, "data:"), ("listen: '%s'" % self.listen, "listen:"),
                          ("worker: {drain_ms: 100}", "worker:"),
                          ("engines: [{url: 'http://127.0.0.1:%d'}]" % self.stub_port, "engines:")):
            if not re.search("^" + key, text, re.M):
                text += line + "\n"
        with open(os.path.join(self.folder, "genq.yaml"), "w", encoding="utf-8") as f:
            f.write(text)
        self.data = os.path.join(self.folder, self.data_name)
        told = os.path.join(self.data, "listen")
        if os.path.exists(told):
            os.unlink(told)
        self.genq = Process([GENQ, "up"], self.folder, "genq", {**clean(), **self.environment})
        wait_for(lambda: self.genq.check() or read_file(told).endswith("\n"), "genq's port")
        self.port = int(read_file(told).strip().rpartition(":")[2])

    def log_events(self, name):
        lines = [json.loads(line) for line in read_file(self.genq.log).splitlines()
                 if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == name]

    def checks(self, event="sent", until=None):
        """How many the stub saw, until a time of the wall clock."""
        lines = [line.split() for line in read_file(self.stub_log).splitlines()]
        ahead = time.time() - time.monotonic()
        return len([e for e in lines if len(e) == 8 and e[1] == event and e[4] == HEALTH and
                    (until is None or int(e[0]) / 1e6 + ahead < until + 0.002)])

    def node(self):
        return self.get("/api/v1/nodes").json["data"][0]

    def await_state(self, state):
        wait_for(lambda: self.node()["state"] == state, state)


def clean():
    return {"GENQ_CONFIG": "", "GENQ_SERVER": ""}


def check_config(text, name="genq.yaml", env=None):
    """(exit code, stdout, stderr) of `genq config check`."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
        done = subprocess.run([GENQ, "config", "check", name], cwd=folder, capture_output=True, text=True,
                              timeout=LIMIT_S, check=False, env={**os.environ, **(env or {})})
        return done.returncode, done.stdout, done.stderr


def case_name(path, kind=""):
    return "test_key_" + kind + path.replace(".", "_")


def test_every_key_has_a_case():
    names = [case_name(r[0]) for r in rows("SETTING")]
    names += [case_name(r[0], "engine_") for r in rows("ENGINE_SETTING")]
    names += [case_name(r[0], "model_") for r in rows("MODEL_SETTING")]
    assert len(names) == len(re.findall(r"^\w*SETTING\(", read_file(DEFINITIONS), re.M)) > 30, names
    cases = [n for n in globals() if n.startswith("test_key_")]
    for path in glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "[78]*.py")):
        cases += re.findall(r"^def (test_key_\w+)\(", read_file(path), re.M)
    missing = [n for n in names if n not in cases]
    assert not missing, "no case: %s" % missing
    stale = [n for n in cases if n not in names]
    assert not stale, "cases for what is no key: %s" % stale


# ---- place and broker

def test_key_data():
    with Up("", data="some/where else") as w:
        w.finished(w.submit()["id"])
        assert os.path.getsize(os.path.join(w.folder, "some", "where else", "genq.db")) > 0


def test_key_listen():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with Up("", listen="127.0.0.1:%d" % port) as w:
        assert w.port == port and request(port, "GET", "/healthz").status == 200
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") and read_file("/proc/net/if_inet6"):
        with Up("", listen="[::1]:0") as w:
            with socket.create_connection(("::1", w.port), LIMIT_S) as s:
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
                assert s.recv(100).startswith(b"HTTP/1.1 200")


def test_key_broker_kind():
    code, _, said = check_config("broker: {kind: sqlite}\n")
    assert code == 0, said
    code, out, said = check_config("broker: {kind: kafka, servers: 'a:9092'}\n")
    assert code == 0 and "\n  kind: kafka\n" in out, said
    code, _, said = check_config("broker: {kind: zookeeper}\n")
    assert code == 2 and "genq.yaml:1:16: broker.kind: must be one of sqlite, kafka" in said, said


SYNC_COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
static int count(const char *namez, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, namez);
    int to = open(getenv("SYNCS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (to >= 0 && write(to, "x", 1) == 1)
        close(to);
    return real(fd);
}
int fsync(int fd) { return count("fsync", fd); }
int fdatasync(int fd) { return count("fdatasync", fd); }
"""


def test_key_broker_sync():
    """full syncs for every group of jobs, normal does not: counted by a preloaded library."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not cc or IS_SLOW or not ctypes.util.find_library("c"):
        print("# skipped: needs a compiler and a build without sanitizers")
        return
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, "syncs.so")
        subprocess.run([cc, "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"],
                       input=SYNC_COUNTER, text=True, check=True)
        for sync in ("full", "normal"):
            syncs = os.path.join(folder, sync)
            env = {"LD_PRELOAD": library, "SYNCS": syncs}
            with Up("broker: {sync: %s}\n" % sync, environment=env) as w:
                before = len(read_file(syncs))
                for _ in range(10):
                    w.finished(w.submit()["id"])
                counts[sync] = len(read_file(syncs)) - before
    assert counts["full"] >= 20 and counts["normal"] <= 2, counts


# ---- the worker

ONE_SLOT = "engines: [{url: '%(stub)s', slots: 1}]\n"


def queue(w, n, **fields):
    body = [{"model": "stub", "prompt": "p%d" % i, "id": "q%d" % i, **fields} for i in range(n)]
    assert w.post("/api/v1/jobs", body).status == 200


def test_key_worker_lookahead():
    for lookahead, waiting in ((5, 4), (1000, 39)):
        with Up(ONE_SLOT + "worker: {lookahead: %d, drain_ms: 100}\n" % lookahead) as w:
            w.latency(100000)
            queue(w, 40)
            wait_for(lambda: w.metric("genq_jobs_running") == 1)
            wait_for(lambda: w.metric("genq_jobs_waiting") == waiting, "%d waiting" % waiting)
            if lookahead == 5:  # all are done all the same
                w.latency(0)
                w.delete("/api/v1/jobs/q0")
                for i in range(1, 40):
                    assert w.finished("q%d" % i)["status"] == "succeeded"
                assert w.metric("genq_jobs_waiting") <= waiting


def test_key_worker_prefetch():
    """How many jobs are in memory whole: seen in the size of a process that took them from its log."""
    resident = {}
    if IS_SLOW:
        print("# skipped: sanitizers keep what was freed")
        return
    for prefetch in (1, 4096):
        with Up(ONE_SLOT + "worker: {prefetch: %d, drain_ms: 0}\n" % prefetch) as w:
            w.latency(100000)
            for k in range(8):
                body = [{"model": "stub", "prompt": "x" * 100000, "id": "m%d-%d" % (k, i)}
                        for i in range(64)]
                assert w.post("/api/v1/jobs", body).status == 200
            w.stop()
            w.start()
            wait_for(lambda: w.metric("genq_jobs_waiting") == 511 and w.metric("genq_jobs_running") == 1)
            status = read_file("/proc/%d/status" % w.genq.pid)
            resident[prefetch] = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) // 1024
    assert resident[1] < resident[4096] - 25, resident  # MiB; the bodies are 49


def test_key_worker_drain_ms():
    for drain_ms, latency_ms, event in ((60000, 1000, "sent"), (0, 100000, "abort")):
        with Up("worker: {drain_ms: %d}\n" % drain_ms) as w:
            w.latency(latency_ms)
            w.submit(id="j", prompt="key=j")
            wait_for(lambda: w.stub_events("recv"))
            w.stop()
            seen = wait_for(lambda: w.stub_events("sent") + w.stub_events("abort"))
            assert [e[1] for e in seen] == [event], (drain_ms, seen)
            w.latency(0)
            w.start()
            assert w.finished("j")["status"] == "succeeded"
            assert len(w.stub_events("recv")) == (1 if event == "sent" else 2)


def one_stream(worker, fault, timeout_ms):
    with Up("worker: {drain_ms: 100, %s}\n" % worker, stub=["--fault", fault]) as w:
        done = w.finished(w.submit(stream=True, max_attempts=1, timeout_ms=timeout_ms)["id"])
        assert done["error"]["code"] == "engine_timeout", done
        return done["calls"][0]["ms"]


def test_key_worker_first_token_ms():
    assert 100 <= one_stream("first_token_ms: 120", "kind=hang", 30000) < 20000
    assert one_stream("first_token_ms: 0", "kind=hang", 700) >= 690  # the job's timeout alone


def test_key_worker_between_tokens_ms():
    assert 100 <= one_stream("between_tokens_ms: 120", "kind=stall", 30000) < 20000
    assert one_stream("between_tokens_ms: 0", "kind=stall", 700) >= 690


class Freezing:
    """An Ollama that answers its checks, and then accepts no connection any more, nor refuses one."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.held = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for body in (b'{"version":"0.1"}', b'{"models":[{"name":"stub:latest"}]}'):
            with self.listener.accept()[0] as s:
                s.recv(65536)
                s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                          % (len(body), body))

    def freeze(self):
        """Fills the backlog: until a connection is not taken at once."""
        self.thread.join(LIMIT_S)
        while True:
            s = socket.socket()
            self.held.append(s)
            s.settimeout(0.2)
            try:
                s.connect(self.listener.getsockname())
            except TimeoutError:
                return

    def close(self):
        for s in self.held + [self.listener]:
            s.close()


def test_key_worker_connect_ms():
    """After this time a node that takes no connection counts as away."""
    engine = Freezing()
    config = "engines: [{name: n, url: '%s'}]\nhealth: {interval_ms: 3600000}\n" % engine.url
    with Up(config + "worker: {connect_ms: 150, drain_ms: 0}\n") as w:
        w.await_state("up")
        engine.freeze()
        started = time.monotonic()
        w.submit(id="j")
        w.await_state("down")
        took = time.monotonic() - started
        assert 0.14 <= took < 4, took  # by default: 5 s
        assert w.get("/api/v1/jobs/j").json["status"] == "queued"
    engine.close()


# ---- redis

def test_key_redis_url():
    """Where it is is shown, the password is not (80_redis has what it does)."""
    url = "redis://me:s3cret@127.0.0.1:1/2"
    code, out, said = check_config("redis: {url: '%s'}\n" % url)
    assert code == 0 and "s3cret" not in out + said and "***" in out, (out, said)
    with Up("redis: {url: '%s'}\n" % url) as w:
        wait_for(lambda: "redis 127.0.0.1:1: " in w.get("/readyz").json["checks"]["redis"]["error"],
                 "its address")
        assert w.finished(w.submit()["id"])["status"] == "succeeded"


def test_key_redis_hot_s():
    with RedisServer() as redis, Up("redis: {url: '%s', hot_s: 7}\n" % redis.url) as w:
        w.finished(w.submit(id="j")["id"])
        left = wait_for(lambda: redis.cli("HGET", "genq:job:default/j", "status") == "succeeded" and
                        int(redis.cli("PTTL", "genq:job:default/j")), "the job in Redis")
        assert 1000 < left <= 7000, left


# ---- health

def test_key_health_interval_ms():
    with Up("health: {interval_ms: 20}\n") as w:
        wait_for(lambda: w.checks() >= 10, "ten checks")
    with Up("health: {interval_ms: 3600000}\n") as w:
        w.await_state("up")
        for _ in range(20):
            w.finished(w.submit()["id"])
        assert w.checks() == 1, w.checks()


def test_key_health_timeout_ms():
    times = {}
    for timeout in (50, 6000):  # by default: 2000
        with Up("health: {interval_ms: 10, timeout_ms: %d, fall: 1}\n" % timeout) as w:
            w.await_state("up")
            started = time.monotonic()
            w.faults("kind=hang,path=" + HEALTH)
            w.await_state("down")
            times[timeout] = time.monotonic() - started
            w.faults()
    assert times[50] < times[6000] and times[6000] >= 6, times


def test_key_health_fall():
    for fall, n_down in ((1, 1), (4, 0)):
        with Up("health: {interval_ms: 20, fall: %d, rise: 1}\nlog: {format: json}\n" % fall) as w:
            w.await_state("up")
            w.faults("kind=status,code=500,times=3,path=" + HEALTH)
            wait_for(lambda: w.checks("fault") == 3)
            n = w.checks()
            wait_for(lambda: w.checks() > n + 1 and w.node()["state"] == "up")
            assert min(1, len(w.log_events("node_down"))) == n_down, w.log_events("node_down")


def test_key_health_rise():
    for rise in (1, 6):
        with Up("health: {interval_ms: 20, fall: 1, rise: %d}\nlog: {format: json}\n" % rise) as w:
            w.await_state("up")
            w.faults("kind=status,code=500,path=" + HEALTH)
            w.await_state("down")
            n = w.checks()
            w.faults()
            wait_for(lambda: len(w.log_events("node_up")) == 2, "the node back")
            back = datetime.datetime.fromisoformat(w.log_events("node_up")[1]["ts"].replace("Z", "+00:00"))
            seen = w.checks(until=back.timestamp()) - n
            assert rise <= seen <= rise + 1, (rise, seen)


# ---- retry

def failures(config, n=12):
    """Waits in ms between the attempts of n jobs that all fail."""
    with Up(config, stub=["--fault", "kind=status,code=500"]) as w:
        ids = ["r%d" % i for i in range(n)]
        body = [{"model": "stub", "prompt": "key=" + i, "id": i} for i in ids]
        assert w.post("/api/v1/jobs", body).status == 200
        waits = []
        for i in ids:
            w.finished(i)
            at = [int(e[0]) for e in w.stub_events("recv") if e[3] == i]
            waits.append([(b - a) / 1000 for a, b in zip(at, at[1:])])
        return waits


def test_key_retry_attempts():
    for attempts in (1, 3):
        assert {len(w) for w in failures("retry: {attempts: %d, base_ms: 1}\n" % attempts)} == \
            {attempts - 1}


def test_key_retry_base_ms():
    """Its jitter is anything from nothing: a slow machine adds to that, so the middle is looked at."""
    waits = {base_ms: sorted(w[0] for w in failures("retry: {attempts: 2, base_ms: %d}\n" % base_ms))
             for base_ms in (1, 4000)}  # by default: 1000
    assert waits[1][6] < waits[4000][6] and 1300 < waits[4000][11], waits


def test_key_retry_cap_ms():
    waits = failures("retry: {attempts: 3, base_ms: 3600000, cap_ms: 30}\n")
    assert max(max(w) for w in waits) < 10000, waits  # by default: 60 s


# ---- retention and limits

def is_cached(w, **fields):
    return w.finished(w.submit(seed=1, **fields)["id"])["cached"]


def test_key_cache_ttl_s():
    with Up("cache: {ttl_s: 1}\n") as w:
        is_cached(w)
        wait_for(lambda: not is_cached(w), "the end of the answer's second")
    for ttl, hit in ((0, False), (1000, True)):
        with Up("cache: {ttl_s: %d}\n" % ttl) as w:
            assert [is_cached(w), is_cached(w)] == [False, hit], ttl


def test_key_cache_max_bytes():
    for most, hit in ((0, False), (100, False), (300, True), (3000, True)):
        with Up("cache: {max_bytes: %d}\n" % most) as w:
            assert [is_cached(w), is_cached(w)] == [False, hit], most
            is_cached(w, prompt="another")  # 300 has room for one
            assert is_cached(w) is (most == 3000), most


def test_key_retention_jobs_days():
    for days, is_kept in ((1, False), (5, True)):
        with Up("retention: {jobs_days: %d}\n" % days) as w:
            w.finished(w.submit(id="old")["id"])
            w.stop()
            db = sqlite3.connect(os.path.join(w.data, "genq.db"))
            db.execute('UPDATE "genq.completions" SET ts=ts-3*86400000')
            db.commit()
            db.close()
            w.start()
            w.finished(w.submit(id="new")["id"])
            w.finished(w.submit(id="newer")["id"])
            assert w.get("/api/v1/jobs/old").status == (200 if is_kept else 404), days
            assert w.get("/api/v1/jobs/new").status == 200


def test_key_limits_body_bytes():
    with Up("limits: {body_bytes: 2048}\n") as w:
        job = {"model": "stub", "prompt": "x" * 1900}
        assert w.post("/api/v1/jobs", job).status == 201
        job["prompt"] += "x" * 200
        reply = w.post("/api/v1/jobs", job)
        assert reply.status == 413, reply


def test_key_limits_queued_jobs():
    with Up(ONE_SLOT + "limits: {queued_jobs: 3}\n") as w:
        w.latency(100000)
        for _ in range(3):
            w.submit()
        reply = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p"})
        assert reply.status == 429 and int(reply.headers["Retry-After"]) >= 1, reply


def test_key_limits_disk_free_bytes():
    for free, status in ((0, 201), (1099511627776, 503)):
        with Up("limits: {disk_free_bytes: %d}\n" % free) as w:
            assert w.post("/api/v1/jobs", {"model": "stub", "prompt": "p"}).status == status


def served(w, n, least):
    """Opens n connections and keeps them; gives how many are served while the others are open."""
    text = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets = [w.socket() for _ in range(n)]
    for s in sockets:
        try:
            s.sendall(text)
        except OSError:
            pass
    open_, count = list(sockets), 0
    while open_:
        ready, _, _ = select.select(open_, [], [], LIMIT_S if count < least else 0.5)
        for s in ready:
            open_.remove(s)
            try:
                count += s.recv(20).startswith(b"HTTP/1.1 200")
            except OSError:
                pass
        if not ready:
            break
    for s in sockets:
        s.close()
    return count


def test_key_limits_connections():
    with Up("limits: {connections: 16}\n") as w:
        assert 1 <= served(w, 24, 1) <= 16
        wait_for(lambda: w.get("/healthz").status == 200)
    with Up("limits: {connections: 100}\n") as w:
        assert served(w, 24, 24) == 24


def test_key_limits_stream_bytes():
    for limit, is_cut in ((1024, True), (16777216, False)):
        with Up(ONE_SLOT + "limits: {stream_bytes: %d}\n" % limit, stub=["--tokens", "400"]) as w:
            w.block()
            w.faults("kind=huge,bytes=1")
            job = w.submit(stream=True)
            with w.events("/api/v1/jobs/%s/events" % job["id"]) as events:
                w.latency(200)
                w.release()
                seen = list(events)
            cuts = [e for e in seen if e.get("event") == "delta" and e["data"].get("is_cut")]
            assert bool(cuts) == is_cut, (limit, seen[:3])
            assert seen[-1]["event"] == "completion" and seen[-1]["data"]["status"] == "succeeded"


# ---- log

def test_key_log_level():
    seen = {}
    for level in ("debug", "info", "warn", "error"):
        with Up("log: {level: %s, format: json}\nhealth: {fall: 1, interval_ms: 20}\n" % level) as w:
            w.finished(w.submit(id="j")["id"])
            w.faults("kind=status,code=500,path=" + HEALTH)
            w.await_state("down")
            lines = re.findall(r"^\{.*\}$", read_file(w.genq.log), re.M)
            seen[level] = {json.loads(line)["level"] for line in lines}
    assert seen == {"debug": {"debug", "info", "warn"}, "info": {"info", "warn"}, "warn": {"warn"},
                    "error": set()}, seen


def test_key_log_format():
    for form, pattern in (("json", r'^\{"ts":"[^"]+","level":"info","event":"listening",'),
                          ("auto", r'^\{"ts":'),  # into a file
                          ("text", r"^\S+Z info  listening port=\d+ ")):
        with Up("log: {format: %s}\n" % form) as w:
            wait_for(lambda: re.search(pattern, read_file(w.genq.log), re.M), form)
            assert (form == "text") != bool(w.log_events("listening")), form


# ---- engines

def engine(settings, stub=()):
    return Up("engines: [{url: '%%(stub)s', %s}]\n" % settings, stub=stub)


def test_key_engine_name():
    with engine("name: 'gpu-0:[x]'") as w:
        assert w.finished(w.submit()["id"])["node"] == "gpu-0:[x]"
        assert w.get("/api/v1/usage?group_by=node").json["data"][0]["node"] == "gpu-0:[x]"
    with Up("") as w:
        assert w.finished(w.submit()["id"])["node"] == "127.0.0.1:%d" % w.stub_port


def test_key_engine_url():
    with Up("engines: [{url: 'http://127.0.0.1:1'}, {url: '%(stub)s'}]\n") as w:
        assert w.finished(w.submit()["id"])["node"] == "127.0.0.1:%d" % w.stub_port
        assert [n["url"] for n in w.get("/api/v1/nodes").json["data"]] == \
            ["http://127.0.0.1:1", "http://127.0.0.1:%d" % w.stub_port]


def test_key_engine_api():
    for api, path in (("ollama", "/api/generate"), ("openai", "/v1/completions"), ("auto", "/api/generate")):
        with engine("api: " + api) as w:
            w.finished(w.submit(model="stub:latest")["id"])
            assert [e[4] for e in w.stub_events("recv")] == [path], w.stub_events("recv")


def test_key_engine_weight():
    with Nodes({"a": (["--latency-ms", "3000"], "slots: 10, weight: 80"),
                "b": (["--latency-ms", "3000"], "slots: 10, weight: 20")}) as w:
        w.await_nodes()
        queue(w, 10)
        wait_for(lambda: sum(len(w.node[n].events("recv")) for n in "ab") == 10)
        assert [len(w.node[n].events("recv")) for n in "ab"] == [8, 2]


def test_key_engine_slots():
    for slots, latency_ms in ((1, 20), (7, 500)):  # all of them at once at the engine, even if it is slow
        with engine("slots: %d" % slots, ["--latency-ms", str(latency_ms)]) as w:
            queue(w, 21)
            for i in range(21):
                w.finished("q%d" % i)
            assert request(w.stub_port, "GET", "/_stub/stats").json["max_in_flight"] == slots


def header_seen(settings, environment=None):
    with tempfile.TemporaryDirectory() as folder, Stub(folder, "seen") as stub:
        config = "engines: [{url: '%s', %s}]\n" % (stub.url, settings)
        with Up(config, environment=environment) as w:
            w.finished(w.submit()["id"])
        return stub.requests()[0]["headers"]


def test_key_engine_api_key():
    assert header_seen("api_key: 'sk x'")["authorization"] == "Bearer sk x"
    assert "authorization" not in header_seen("slots: 1")


def test_key_engine_headers():
    seen = header_seen("headers: {X-A: one, Authorization: 'Basic Og=='}")
    assert seen["x-a"] == "one" and seen["authorization"] == "Basic Og==", seen


def test_key_engine_models():
    with engine("models: [b]", ["--model", "a", "--model", "b"]) as w:
        assert w.finished(w.submit(model="b")["id"])["status"] == "succeeded"
        assert w.finished(w.submit(model="a")["id"])["error"]["code"] == "model_not_found"


def test_key_engine_cost_prompt():
    with engine("cost: {prompt: 4}") as w:
        assert abs(w.finished(w.submit(prompt="x" * 39)["id"])["cost"] - 10 * 4e-6) < 1e-12


def test_key_engine_cost_completion():
    with engine("cost: {completion: 0.5}", ["--tokens", "20"]) as w:
        assert abs(w.finished(w.submit()["id"])["cost"] - 20 * 0.5e-6) < 1e-12


# ---- models and queues

def test_key_model_target():
    with Up("models: {nick: {target: real}}\n", stub=["--model", "real"]) as w:
        done = w.finished(w.submit(model="nick")["id"])
        assert done["status"] == "succeeded" and done["calls"][0]["model"] == "real", done


def test_key_model_queue():
    config = "queues: {fast: {}}\nmodels: {nick: {target: stub, queue: fast}}\n"
    with Up(config) as w:
        job = w.submit(model="nick")
        assert job["position"].startswith("genq.jobs.fast.") and job["queue"] == "fast", job
        assert w.finished(job["id"])["status"] == "succeeded"
        assert w.submit()["queue"] == "default"
        assert w.submit(model="nick", queue="default")["queue"] == "default"  # the job's word is stronger


# ---- what is wrong

def test_values_out_of_range_are_told_with_their_place():
    n = 0
    for macro, wrap in (("SETTING", None), ("ENGINE_SETTING", "engines:\n  - url: http://h\n    %s: %s\n")):
        for path, kind, _, low, high in rows(macro):
            if kind not in ("int", "auto_int"):
                continue
            n += 1
            group, _, key = path.rpartition(".")
            form = wrap or (group + ":\n  %s: %s\n" if group else "%s: %s\n")
            line = form.count("\n")
            for value, is_good in ((low, True), (high, True), (int(low) - 1, False), (int(high) + 1, False),
                                   ("many", False), ("1.5", False), ("'7'", False), ("[1]", False),
                                   ("", False), ("99999999999999999999", False)):
                code, out, said = check_config(form % (key, value))
                assert code == (0 if is_good else 2), (path, value, code, said)
                column = len(form.splitlines()[-1].split("%s:")[0]) + len(key) + 3
                if is_good:
                    assert out.startswith("# OK\n"), out
                elif value != "":
                    assert re.search(r"genq.yaml:%d:%d: .*%s: must be " % (line, column, key), said), \
                        (path, value, said)
                else:
                    assert re.search(r"genq.yaml:\d+:\d+: .*%s: has no value" % key, said), said
    assert n > 15, n


def test_wrong_names_and_types():
    for text, words in (
            ("nonsense: 1\n", "genq.yaml:1:1: nonsense: unknown key"),
            ("worker:\n  drain_m: 5\n", "genq.yaml:2:3: worker.drain_m: unknown key; did you mean drain_ms?"),
            ("worker: 5\n", "genq.yaml:1:9: worker: must be a map"),
            ("data: x\n\nlog: {level: loud}\n",
             "genq.yaml:3:14: log.level: must be one of debug, info, warn, error"),
            ("listen: 7070\n", "genq.yaml:1:9: listen: must be an address and a port"),
            ("engines: {url: x}\n", "genq.yaml:1:10: engines: must be a list"),
            ("engines:\n  - {name: a}\n", "genq.yaml:2:5: engines: url: must be given"),
            ("engines:\n  - {url: 'ftp://x'}\n", "url: must begin with http:// or https://"),
            ("engines: [{url: 'http://u:p@h'}]\n", "url: must hold no user name"),
            ("engines: [{url: 'http://h:99999'}]\n", "url: must hold a host, and a port"),
            ("engines: [{url: 'http://a'}, {url: 'http://a/'}]\n", 'name: "a" is the name of another'),
            ("engines: [{url: 'http://a', cost: {prompt: -1}}]\n", "cost.prompt: must be a number"),
            ("engines: [{url: 'http://a', headers: {'b c': d}}]\n", '"b c" is no name'),
            ("engines: [{url: 'http://a', api_key: k, headers: {authorization: x}}]\n",
             "api_key: headers hold an Authorization already"),
            ("models: {a: {queue: nowhere}}\n", '"nowhere" is not among queues'),
            ("queues: {'a b': {}}\n", "queues: a b: must be 1 to 64 letters"),
            ("data: a\ndata: b\n", "genq.yaml:2:1: "),
            ("data: [a\n", "genq.yaml:"),
            ("data: &x a\n", "genq.yaml:1:"),
            ("\tdata: a\n", "genq.yaml:1:"),
            ("redis: {url: x}\n", "genq.yaml:1:14: redis.url: must be redis://"),
            ("auth: {}\n", "genq.yaml:1:1: auth: not built yet")):
        code, out, said = check_config(text)
        assert code == 2 and words in said and not out, (text, code, said)
        assert len(said.strip().splitlines()) == 1, said
    with tempfile.TemporaryDirectory() as folder:  # the other commands say the same
        path = os.path.join(folder, "genq.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write("nonsense: 1\n")
        for command in (["up"], ["batch", "run", "in", "-o", "out"]):
            open(os.path.join(folder, "in"), "w", encoding="utf-8").close()
            done = subprocess.run([GENQ, *command], cwd=folder, capture_output=True, text=True, check=False,
                                  timeout=LIMIT_S, env={**os.environ, "GENQ_CONFIG": path})
            assert done.returncode == 2 and "genq.yaml:1:1: nonsense: unknown key" in done.stderr, done
        assert sorted(os.listdir(folder)) == ["genq.yaml", "in"], os.listdir(folder)


def test_environment():
    env = {"MY_KEY": "sk-env", "MY_SLOTS": "3", "EMPTY": "", "QUOTES": "a\": 'b"}
    seen = header_seen("api_key: '${MY_KEY}', slots: '${MY_SLOTS}', headers: {X-Q: '<${QUOTES}>'}", env)
    assert seen["authorization"] == "Bearer sk-env" and seen["x-q"] == "<a\": 'b>", seen
    code, out, said = check_config("engines:\n  - url: http://${HOST_NAME}:${PORT}/x\n    slots: ${SLOTS}\n"
                                   "    cost: {prompt: '${PRICE}'}\n",
                                   env={"HOST_NAME": "h", "PORT": "81", "SLOTS": "9", "PRICE": "0.5"})
    assert code == 0 and "http://h:81/x" in out and "slots: 9" in out and "0.5" in out, (out, said)
    code, _, said = check_config("health: {fall: '7'}\n")  # a text of one's own stays a text
    assert code == 2 and "must be a whole number" in said, said
    code, _, said = check_config("data: a\nlisten: ${NOT_SET_AT_ALL}\n")
    assert code == 2 and "genq.yaml:2:" in said and "NOT_SET_AT_ALL" in said, said
    code, _, said = check_config("health: {fall: '${FALL}'}\n", env={"FALL": "1000"})
    assert code == 2 and re.search(r"genq.yaml:1:\d+: health.fall: must be from 1 to 100", said), said


def test_where_the_config_is_looked_for():
    """--config, then $GENQ_CONFIG, then ./genq.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        for name, days in (("a.yaml", 1), ("b.yaml", 2), ("genq.yaml", 3)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write("retention: {jobs_days: %d}\n" % days)

        def days(*arguments, **env):
            e = {k: v for k, v in os.environ.items() if not k.startswith("GENQ_")}
            out = subprocess.run([GENQ, "config", "check", "--json", *arguments], cwd=folder, text=True,
                                 capture_output=True, timeout=LIMIT_S, check=True, env={**e, **env})
            return json.loads(out.stdout)["retention"]["jobs_days"]
        assert days("--config", "a.yaml", GENQ_CONFIG="b.yaml") == 1
        assert days(GENQ_CONFIG="b.yaml") == 2
        assert days() == 3


def test_sighup_does_no_harm():
    with Up("") as w:
        os.kill(w.genq.pid, signal.SIGHUP)
        wait_for(lambda: "reload_not_built" in read_file(w.genq.log), "word that it does nothing yet")
        assert w.finished(w.submit()["id"])["status"] == "succeeded"


run(globals())
