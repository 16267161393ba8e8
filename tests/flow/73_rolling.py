"""Gateways and workers come and go by SIGTERM under a steady load, on a real Kafka. Judged by the engines'
logs and the feed: every accepted job is called once and ends once, and a client needs no more than
another try at another gateway. And a worker that was asleep for longer than its session starts nothing
that another one has taken over."""
import collections
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import SESSION_MS, Distributed  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()
CLIENTS, PACE_S = 4, 0.1
CYCLES = 20
STUB = ["--latency-ms", "20", "--jitter-ms", "180"]  # far below worker.drain_ms
PARTITIONS = "genq_kafka_partitions"


class Load:
    """Clients that post a job after the other. Who is refused, cut off, or answered 503 asks the next
    gateway for the same job; any other answer ends the load."""

    def __init__(self, d):
        self.d, self.is_over = d, False
        self.accepted, self.tries, self.wrong = [], collections.Counter(), []
        self.threads = [threading.Thread(target=self.client, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        for t in self.threads:
            t.join()

    def client(self, name):
        n = 0
        while not self.is_over and not self.wrong:
            self.post("c%d-%d" % (name, n), n + name)
            n += 1
            time.sleep(PACE_S)

    def post(self, id_, first):
        job = {"id": id_, "model": "stub", "prompt": "key=%s x" % id_}
        for n in range(first, first + 200):
            gateway = self.d.gateways[n % len(self.d.gateways)]
            try:
                reply = gateway.request("POST", "/api/v1/jobs", job, limit_s=20)
                self.tries[reply.status] += 1
            except OSError as e:  # http.client's cut answers are one, too
                self.tries[type(e).__name__] += 1
                time.sleep(0.02)
                continue
            if reply.status in (200, 201):
                self.accepted.append(id_)
                return
            if reply.status != 503:
                break
            time.sleep(0.05)
        self.wrong.append((id_, reply))

    def await_more(self, n=40):
        """Until so many more were accepted."""
        wanted = len(self.accepted) + n
        wait_for(lambda: self.wrong or len(self.accepted) >= wanted, "accepted jobs")


def judge(d, load):
    assert not load.wrong, load.wrong
    n = len(load.accepted)
    seen, after = collections.Counter(), ""
    while sum(seen.values()) < n:
        page = d.gateways[0].get("/api/v1/completions?wait=30s&limit=1000" + after).json
        assert page["data"], (sum(seen.values()), n)
        seen.update(c["id"] for c in page["data"])
        assert all(c["status"] == "succeeded" for c in page["data"]), page["data"]
        after = "&after=%s" % page["next"]
    assert seen == collections.Counter(load.accepted), seen - collections.Counter(load.accepted)
    calls = collections.Counter(e[3] for engine in d.engines for e in engine.events("recv"))
    again = {k: v for k, v in calls.items() if v > 1}
    print("# %d jobs, answers %s, called again: %s" % (n, dict(load.tries), again))
    assert not again and set(calls) == set(load.accepted), again


def has_share(worker):
    wait_for(lambda: worker.metric(PARTITIONS) > 0, worker.name + "'s share")


def test_workers_then_gateways_restart_one_by_one():
    with Distributed(KAFKA, gateways=2, workers=3, prefix="a", stub=STUB) as d:
        with Load(d) as load:
            for worker in d.workers:
                has_share(worker)
            for member in d.workers + d.gateways:
                load.await_more()
                member.stop()
                load.await_more()
                member.start()
                if member in d.workers:
                    has_share(member)
            load.await_more()
        judge(d, load)


def test_workers_join_and_leave():
    with Distributed(KAFKA, gateways=2, workers=3, prefix="b", stub=STUB) as d:
        with Load(d) as load:
            for i in range(CYCLES):
                has_share(d.add_worker())
                load.await_more(10)
                d.workers[i].stop()
                load.await_more(10)
        judge(d, load)


def keys(engine):
    return [e[3] for e in engine.events("recv")]


def test_a_worker_that_slept_past_its_session_starts_nothing_of_others():
    stub = ["--latency-ms", "200"]
    with Distributed(KAFKA, workers=2, prefix="c", stub=stub, has_engine_each=True) as d:
        gateway, (sleeper, other) = d.gateways[0], d.workers
        for worker in d.workers:
            has_share(worker)
        ids = ["j%d" % i for i in range(400)]
        for i in ids:
            gateway.submit(id=i, prompt="key=%s x" % i)
        wait_for(lambda: len(keys(d.engines[0])) > 8, "the first calls")
        sleeper.pause()
        before = keys(d.engines[0])
        for i in ids:  # the other one has them after the sleeper's session
            assert gateway.finished(i)["status"] == "succeeded"
        sleeper.resume()
        wait_for(lambda: "group_lost" in sleeper.said(), "the loss", SESSION_MS / 1000 + 30)
        has_share(sleeper)
        for i in range(40):
            gateway.submit(id="k%d" % i, prompt="key=k%d x" % i)
        for i in range(40):
            assert gateway.finished("k%d" % i)["status"] == "succeeded"
        late = [k for k in keys(d.engines[0])[len(before):] if not k.startswith("k")]
        assert not late, late
        calls = collections.Counter(keys(d.engines[0]) + keys(d.engines[1]))
        again = [k for k, n in calls.items() if n > 1]
        print("# %d in flight when it fell asleep ran again" % len(again))
        assert len(again) <= 8, again


with KAFKA:
    run(globals())
