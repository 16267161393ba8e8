"""The world of the distributed chaos tests: gateways and workers on a real Kafka, clients that post and
cancel at any of them, readers that are not genq's, and what is done to the processes. Who got no answer,
or 503, repeats with the same id; a reader of the feed goes on by its cursor at any gateway, and so do subscribers
to its events.

Environment: CHAOS_BROKERS (1), CHAOS_WORKERS (2), CHAOS_JOBS, CHAOS_KILLS (faults; see rig.py).
"""
import calendar
import collections
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import SESSION_MS, Distributed  # noqa: E402
from judge_distributed import Fault, Judge  # noqa: E402
from judge_redis import counted  # noqa: E402
from kafka_client import KafkaClient  # noqa: E402
from rig import NO_ANSWER, RANDOM, Thread, ask, mono_us, n_kills, wait_for  # noqa: E402

FAULTS = n_kills(12)
JOBS = int(os.environ.get("CHAOS_JOBS", 1500))
BROKERS = int(os.environ.get("CHAOS_BROKERS", 1))
WORKERS = int(os.environ.get("CHAOS_WORKERS", 2))
CLIENTS = 4
FAULT_S = 4.0  # the longest pause between two
SLEEP_S = SESSION_MS / 1000 + 2
PATIENCE_S = 180  # for what must come at the end
CONFIG = """
log: {level: info, format: json}
limits: {disk_free_bytes: 0}
retry: {base_ms: 10, cap_ms: 50}
"""
WORKER_CONFIG = "worker: {drain_ms: 10000}\n"

Seen = collections.namedtuple("Seen", "at_us record")


def distributed(kafka, gateways, latency_ms, jitter_ms, prefix="genq", redis=None):
    engine = ["--dialect", "openai", "--latency-ms", latency_ms, "--jitter-ms", jitter_ms]
    config = CONFIG + ('redis: {url: "%s"}\n' % redis.url if redis else "")
    d = Distributed(kafka, gateways=gateways, workers=WORKERS, config=config, prefix=prefix,
                    stub=map(str, engine), worker_config=WORKER_CONFIG, has_engine_each=True)
    d.redis = redis
    return d


def job_topics(d):
    return [f"{d.prefix}.jobs.default.{priority}" for priority in ("high", "normal", "low")]


class World:
    """What clients know."""

    def __init__(self, d):
        self.d = d
        self.is_over = False      # the faults are
        self.is_read = False
        self.n_posted = 0
        self.accepted = set()     # keys
        self.cancelled = {}       # id -> True: 202, False: 409, None: no answer
        self.feed, self.cursor, self.streams = [], 0, []
        self.n_requests = collections.Counter()

    def report(self):
        return (f"{len(self.accepted)} accepted, "
                f"{sum(a is True for a in self.cancelled.values())} cancelled; answers: "
                f"{dict(self.n_requests)}; " + ", ".join(s.report() for s in self.streams))

    def subscribe(self):
        """At each gateway one that stays until it is cut off, and one that moves about."""
        self.streams = [Stream(self, f"stream{i}{'+' if moves else ''}", gateway, moves)
                        for i, gateway in enumerate(self.d.gateways) for moves in (False, True)]

    def gateway(self):
        return RANDOM.choice(self.d.gateways)

    def wants_more(self):
        return not self.is_over or self.n_posted < JOBS

    def ask(self, method, path, body=None, headers=None):
        """One try at any gateway; None when there was no answer."""
        try:
            status, reply = ask(self.gateway().port, method, path, body, headers, 10)
        except NO_ANSWER:
            status, reply = None, None
        self.n_requests[status] += 1
        return status, reply

    def until_answered(self, method, path, body, headers=None):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            status, reply = self.ask(method, path, body, headers)
            if status not in (None, 429, 503):
                return status, reply
            time.sleep(0.05)
        raise AssertionError(f"{method} {path}: no answer in {PATIENCE_S} s")


# ---- clients ----

def make_job(id_):
    job = {"id": id_, "model": "stub", "prompt": f"key={id_} say something"}
    kind = RANDOM.randrange(10)
    if kind < 2:
        job["stream"] = True
    elif kind < 5:
        job["priority"] = RANDOM.choice(("high", "low"))
    elif kind == 5:
        job["session"] = f"s{RANDOM.randrange(5)}"
    return job


def cancel(world, id_):
    """At any gateway: one that has not heard of the job yet says 404."""
    time.sleep(RANDOM.uniform(0, 0.3))
    for _ in range(50):
        status, reply = world.ask("DELETE", f"/api/v1/jobs/{id_}")
        assert status in (None, 202, 404, 409, 503), f"DELETE {id_}: {status} {reply}"
        if status != 404:
            break
        time.sleep(0.05)
    world.cancelled[id_] = {202: True, 409: False}.get(status)


def post_single(world, id_):
    status, reply = world.until_answered("POST", "/api/v1/jobs", make_job(id_))
    assert status in (200, 201) and reply["id"] == id_, f"{status} {reply}"
    world.accepted.add(id_)
    world.n_posted += 1
    if RANDOM.random() < 0.15:
        cancel(world, id_)


def post_array(world, id_):
    jobs = [make_job(f"{id_}.{i}") for i in range(RANDOM.randrange(2, 20))]
    status, reply = world.until_answered("POST", "/api/v1/jobs", jobs)
    assert status == 200, f"{status} {reply}"
    assert [j.get("id") for j in reply["data"]] == [j["id"] for j in jobs], f"{reply}"[:800]
    world.accepted.update(j["id"] for j in jobs)
    world.n_posted += len(jobs)


def post_batch(world, id_):
    keys = [f"{id_}.{i}" for i in range(RANDOM.randrange(10, 60))]
    body = "".join(json.dumps({"id": k, "model": "stub", "prompt": f"key={k} line"}) + "\n"
                   for k in keys)
    status, reply = world.until_answered("POST", f"/api/v1/batches?id={id_}", body,
                                         {"Content-Type": "application/x-ndjson"})
    assert status in (200, 201) and not reply["refused"], f"{status} {reply}"
    world.accepted.update(keys)
    world.n_posted += len(keys)


def post_bare(world, id_):
    """A record of a foreign producer, without an id. What kcat could not deliver may be there or not."""
    keys = [f"{id_}.{i}" for i in range(RANDOM.randrange(1, 8))]
    client = KafkaClient(world.d.kafka.servers, {"enable.idempotence": "true"})
    try:
        client.produce(RANDOM.choice(job_topics(world.d)),
                       *((None, json.dumps({"model": "stub", "custom_id": k,
                                            "prompt": f"key={k} bare"})) for k in keys))
    except AssertionError:
        world.n_requests["kcat failed"] += 1
        return
    world.accepted.update(keys)
    world.n_posted += len(keys)


def client(world, name, lasts_s=FAULTS * FAULT_S):
    pace_s = CLIENTS * lasts_s / JOBS * 2.5  # a post is so many jobs
    for n in itertools.count():
        if not world.wants_more():
            return
        post = RANDOM.choices((post_single, post_array, post_batch, post_bare), (30, 3, 1, 2))[0]
        post(world, f"{name}-{n}")
        if not world.is_over:
            time.sleep(RANDOM.uniform(0, 2 * pace_s))


# ---- readers ----

def follow(world):
    """The feed by cursor, each page at any gateway."""
    while not world.is_read:
        status, page = world.ask("GET", f"/api/v1/completions?after={world.cursor}&wait=1s"
                                        f"&limit={RANDOM.choice((7, 100, 1000))}")
        if status == 200:
            world.feed += [(j["id"], j["status"]) for j in page["data"]]
            world.cursor = page["next"]
        else:
            assert status in (None, 503), f"feed: {status} {page}"
            time.sleep(0.05)


class Stream:
    """A subscriber as event sources are: it keeps whole events only, and goes on behind the last one, at any
    gateway. events: (id of the event, job's id, status)."""

    def __init__(self, world, name, gateway, moves):
        self.world, self.name, self.gateway, self.moves = world, name, gateway, moves
        self.events, self.last, self.n_begun, self.n_moved = [], None, 0, 0
        self.thread = Thread(self.run)

    def run(self):
        while not self.world.is_read:
            try:
                self.read()
            except NO_ANSWER:
                pass
            time.sleep(0.05)
            other = self.world.gateway()
            self.n_moved += other is not self.gateway
            self.gateway = other

    def read(self):
        c = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=RANDOM.uniform(2, 20))
        try:
            c.request("GET", "/api/v1/completions/events?after=0",
                      headers={"Last-Event-ID": self.last} if self.last else {})
            response = c.getresponse()
            assert response.status in (200, 503), f"{self.name}: {response.status} {response.read()}"
            if response.status == 200:
                self.n_begun += 1
                self.take(response, time.monotonic() + (RANDOM.uniform(0, 4) if self.moves else 1e9))
        finally:
            c.close()

    def take(self, lines, until_s):
        event = {}
        while not self.world.is_read and time.monotonic() < until_s:
            line = lines.readline()
            if not line.endswith(b"\n"):
                return
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                event[name] = value
            elif "event" in event:
                assert event["event"] == "completion", f"{self.name}: {event}"
                job = json.loads(event["data"])
                self.last = event["id"]
                self.events.append((int(self.last), job["id"], job["status"]))
            if not name:
                event = {}

    def report(self):
        return f"{self.name}: {len(self.events)} events in {self.n_begun} pieces, moved {self.n_moved} times"


class Tail:
    """What a foreign reader sees of a topic, and when: {(partition, offset): Seen}. It also keeps what is
    deleted later. kcat ends when all brokers are away, and is then started again."""

    def __init__(self, servers, topic):
        self.servers, self.topic, self.records = servers, topic, {}
        self.child, self.is_over = None, False
        self.thread = Thread(self.read)

    def read(self):
        while not self.is_over:
            with subprocess.Popen(["kcat", "-C", "-b", self.servers, "-t", self.topic, "-u", "-J",
                                   "-o", "beginning", "-X", "fetch.wait.max.ms=10"], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as self.child:
                for line in self.child.stdout:
                    record = json.loads(line)
                    at = record["partition"], record["offset"]
                    self.records.setdefault(at, Seen(mono_us(), record))
            time.sleep(0.1)

    def stop(self):
        self.is_over = True
        self.child.kill()
        self.thread.join(10)


class Tails:
    def __init__(self, d):
        self.completions = Tail(d.kafka.servers, d.prefix + ".completions")
        self.jobs = [Tail(d.kafka.servers, t) for t in job_topics(d)]

    def n_ended(self):
        return len({seen.record["key"] for seen in list(self.completions.records.values())})

    def stop(self):
        for tail in [self.completions, *self.jobs]:
            tail.stop()


# ---- faults ----

class Faults:
    """One at a time for each member; those of a broker while no other broker is away."""

    def __init__(self, d):
        self.d, self.told, self.busy = d, [], {}
        self.lock = threading.Lock()
        self.n_begun = 0

    def note(self, name, kind, begin_us):
        with self.lock:
            self.told.append(Fault(name, kind, begin_us, mono_us()))

    def kill(self, member, away_s=None):
        begin_us = mono_us()
        member.kill()
        self.note(member.name, "kill", begin_us)
        if away_s is None:
            away_s = RANDOM.choice((0, 0, RANDOM.uniform(0, 3), SLEEP_S))
        time.sleep(away_s)
        member.start()

    def term(self, member):
        begin_us = mono_us()
        member.stop()
        self.note(member.name, "term", begin_us)
        time.sleep(RANDOM.choice((0, RANDOM.uniform(0, 3))))
        member.start()

    def pause(self, member):
        begin_us = mono_us()
        member.pause()
        time.sleep(SLEEP_S if member.role == "worker" else RANDOM.uniform(0.5, 4))
        member.resume()
        self.note(member.name, "pause", begin_us)

    def hit_member(self, kind):
        name = RANDOM.choices(("worker", "gateway"), (2, 1))[0]
        free = [m for m in self.d.members if m.role == name and not self.is_busy(m)]
        if not free:
            return
        member = RANDOM.choice(free)
        member.process.check()
        self.busy[member.name] = Thread(getattr(self, kind), member)
        self.n_begun += 1

    def is_busy(self, member):
        thread = self.busy.get(member.name)
        if thread and not thread.is_alive():
            thread.join()
        return thread is not None and thread.is_alive()

    def hit_server(self, name, server):
        """A broker or Redis; in this thread, with which a server that it started would end."""
        begin_us = mono_us()
        self.n_begun += 1
        kind = RANDOM.choice(("kill", "pause"))
        if kind == "kill":
            server.kill()
            time.sleep(RANDOM.uniform(0, 2))
            server.start()
        else:
            server.pause()
            time.sleep(RANDOM.uniform(1, 4))
            server.resume()
        self.note(name, kind, begin_us)

    def run(self):
        while self.n_begun < FAULTS:
            time.sleep(RANDOM.uniform(0, FAULT_S))
            kind = RANDOM.choices(("kill", "pause", "term", "broker", "redis"),
                                  (6, 3, 2, 2, 2 if self.d.redis else 0))[0]
            if kind == "broker":
                self.hit_server(kind, RANDOM.choice(self.d.kafka.brokers))
            elif kind == "redis":
                self.hit_server(kind, self.d.redis)
            else:
                self.hit_member(kind)
        for thread in self.busy.values():
            thread.join(PATIENCE_S)

    def report(self):
        n = collections.Counter((f.name.rstrip("0123456789"), f.kind) for f in self.told)
        return ", ".join(f"{name} {kind}: {k}" for (name, kind), k in sorted(n.items()))


# ---- the end ----

def losses(worker):
    """When (us of the monotonic clock) it said that its partitions were lost."""
    ahead_s = time.time() - time.monotonic()
    times = []
    for line in worker.said().splitlines():
        if '"event":"group_lost"' in line:
            whole, part = json.loads(line)["ts"].rstrip("Z").split(".")
            at_s = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + part)
            times.append(int((at_s - ahead_s) * 1e6))
    return sorted(set(times))


def check_sane(d):
    for member in d.members:
        for sign in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "Assertion"):
            assert sign not in member.said(), f"{member.name}: {sign}:\n{member.said()[-6000:]}"


def settle(world, tails, reader):
    """All has ended and every reader knows it."""
    d = world.d
    wait_for("the accepted jobs' ends", PATIENCE_S, lambda: (
        tails.n_ended() >= len(world.accepted) and
        sum(w.metric("genq_jobs_waiting") + w.metric("genq_jobs_running") for w in d.workers) == 0))
    wait_for("the feed's reader", PATIENCE_S, lambda: (
        not reader.is_alive() or len(world.feed) >= tails.n_ended()))
    wait_for("the subscribers", PATIENCE_S, lambda: all(
        not s.thread.is_alive() or len(s.events) >= tails.n_ended() for s in world.streams))
    if d.redis:
        wait_for("the ends in Redis", PATIENCE_S,
                 lambda: sum(counted(d.redis).values()) >= tails.n_ended())
    time.sleep(1)  # late completions, and the commits behind them
    world.is_read = True
    for member in d.members:
        member.stop()
    check_sane(d)


def judge_all(d, world, faults, tails, make=Judge):
    judge, client_ = make(), d.kafka.client()
    completions = client_.consume(d.prefix + ".completions", 0)
    wait_for("the foreign reader", PATIENCE_S,
             lambda: len(tails.completions.records) >= len(completions))
    tails.stop()
    judge.take_topics([seen.record for t in tails.jobs for seen in t.records.values()], completions,
                      {off: seen.at_us for (_, off), seen in tails.completions.records.items()})
    judge.take_calls({w.name: e.log for w, e in zip(d.workers, d.engines)}, faults.told,
                     {w.name: losses(w) for w in d.workers})
    judge.check_jobs(world.accepted, world.cancelled)
    judge.check_feed(world.feed)
    for stream in world.streams:
        stream.thread.join(PATIENCE_S)
        judge.check_stream(stream.name, stream.events)
    judge.check_commits({at: off for at, (off, _) in client_.group(d.prefix + ".workers").items()},
                        {(t, p): high for t in job_topics(d)
                         for p, (_, high) in client_.offsets(t).items()})
    judge.verdict({g.name: g.data for g in d.gateways})
    return judge
