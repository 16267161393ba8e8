"""The same id at several gateways of one Kafka: with Redis exactly one body has it, without Redis the later
record goes to the dead letters; and nobody waits for a Redis that does not answer."""
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "lib"))
from distributed import Distributed  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from kafka_client import KafkaClient  # noqa: E402
from redis import RedisServer  # noqa: E402

PRIORITIES = ("high", "normal", "low")  # other topics, so that no partition's order decides


def body(i, text):
    return {"id": "i%d" % i, "model": "stub", "prompt": "%s key=i%d" % (text, i),
            "priority": PRIORITIES[i % 3] if text == "a" else PRIORITIES[(i + 1) % 3]}


def together(*calls):
    """Runs them at once; gives what they gave."""
    gate, given = threading.Barrier(len(calls)), [None] * len(calls)

    def at(n):
        gate.wait()
        given[n] = calls[n]()
    threads = [threading.Thread(target=at, args=(n,)) for n in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return given


KAFKA = KafkaCluster()


class Rig:
    """Two gateways, a worker and a Redis; the Kafka is all cases', with topics of each one's own."""
    n = 0

    def __init__(self, has_redis=True, config=""):
        self.redis = RedisServer() if has_redis else None
        self.config = config
        Rig.n += 1
        self.prefix = "t%d" % Rig.n

    def __enter__(self):
        config = self.config
        if self.redis:
            self.redis.start()
            config += 'redis: {url: "%s"}\n' % self.redis.url
        self.d = Distributed(KAFKA, gateways=2, workers=1, config=config, prefix=self.prefix)
        self.d.__enter__()
        self.here, self.there = self.d.gateways
        if self.redis:
            for n, g in enumerate(self.d.gateways):
                wait_for(lambda: self.claims_of(g, n), "a gateway that claims")
        return self

    def __exit__(self, *reason):
        try:
            self.d.__exit__(*reason)
        finally:
            if self.redis:
                self.redis.__exit__()

    def claims_of(self, gateway, n):
        """Once it is connected."""
        at = "warm%d-%d" % (n, time.monotonic_ns())
        assert gateway.post("/api/v1/jobs", {"id": at, "model": "stub", "prompt": "key=w"}).status in (201, 503)
        return self.redis.cli("EXISTS", "genq:idem:default/" + at) == "1"

    def unclaimed(self):
        return self.here.metric("genq_ids_unclaimed_total")

    def dead(self):
        return self.here.get("/api/v1/dead?limit=1000").json["data"]

    def produce(self, value):
        KafkaClient(KAFKA.servers).produce(self.prefix + ".jobs.default.normal", ("late", value))

    def calls(self, key):
        return len([e for e in self.d.engine.events("recv") if e[3] == key])


def test_one_body_has_an_id():
    with Rig() as r:
        unclaimed = r.unclaimed()
        for i in range(60):
            a, b = together(lambda: r.here.post("/api/v1/jobs", body(i, "a")),
                            lambda: r.there.post("/api/v1/jobs", body(i, "b")))
            assert sorted((a.status, b.status)) == [201, 409], (i, a, b)
            loser = a if a.status == 409 else b
            assert loser.error["code"] == "id_conflict" and loser.error["param"] == "id", loser
            winner, gateway = ("a", r.there) if a.status == 201 else ("b", r.here)
            again = gateway.post("/api/v1/jobs", body(i, winner))  # at the one that refused the other
            assert again.status in (200, 201) and again.json["id"] == "i%d" % i, again
        for i in range(60):
            for gateway in (r.here, r.there):
                assert wait_for(lambda: gateway.get("/api/v1/jobs/i%d" % i).status == 200)
                assert gateway.finished("i%d" % i)["status"] == "succeeded"
            assert r.calls("i%d" % i) == 1
        assert r.dead() == [] and r.unclaimed() == unclaimed
        assert 0 < int(r.redis.cli("PTTL", "genq:idem:default/i0")) <= 600000
        assert r.here.metric("genq_jobs_conflicted_total") + r.there.metric("genq_jobs_conflicted_total") == 60


def test_the_same_body_is_a_repeat():
    with Rig() as r:
        for i in range(30):
            replies = together(*[lambda g=g: g.post("/api/v1/jobs", body(i, "a")) for g in (r.here, r.there)] * 2)
            assert all(x.status in (200, 201) for x in replies), replies
        for i in range(30):
            assert r.here.finished("i%d" % i)["status"] == "succeeded"
        wait_for(lambda: [r.calls("i%d" % i) for i in range(30)] == [1] * 30, "each called once")
        assert r.dead() == []


def test_arrays_and_batches():
    with Rig() as r:
        mixed = [body(i, "a") if i % 2 else {**body(i, "a"), "id": None} for i in range(1000)]
        other = [body(i, "b") for i in range(1000)]
        a, b = together(lambda: r.here.post("/api/v1/jobs", mixed), lambda: r.there.post("/api/v1/jobs", other))
        assert a.status == b.status == 200
        for i in range(1000):
            one, two = a.json["data"][i], b.json["data"][i]
            if i % 2:
                assert [("error" in one and bool(one["error"])), bool(two.get("error"))].count(True) == 1, (one, two)
            else:
                assert not one.get("error") and not two.get("error"), (one, two)
        lines = ["".join(json.dumps({"prompt": "%s %d" % (text, i)}) + "\n" for i in range(700)) for text in "ab"]
        replies = together(*[lambda g=g, n=n: g.post("/api/v1/batches?id=bb&model=stub", lines[n],
                                                     Content_Type="application/x-ndjson")
                             for n, g in enumerate((r.here, r.there))])
        assert all(x.status in (200, 201) for x in replies), replies
        assert sum(x.json["refused"] for x in replies) == 700, [x.json["refused"] for x in replies]
        before = int(r.redis.cli("DBSIZE"))
        made = r.here.post("/api/v1/batches?model=stub", lines[0], Content_Type="application/x-ndjson")
        assert made.status == 201 and made.json["refused"] == 0, made
        assert r.redis.cli("KEYS", "genq:idem:default/%s-*" % made.json["id"]) == "", before


def test_ids_of_ours_are_not_claimed():
    with Rig() as r:
        before = r.redis.cli("KEYS", "genq:idem:*").count("genq:")
        assert r.here.submit()["id"]
        assert r.redis.cli("KEYS", "genq:idem:*").count("genq:") == before
        key = r.here.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "tenant": "t"}, Idempotency_Key="k1")
        assert key.status == 201 and r.redis.cli("EXISTS", "genq:idem:t/k1") == "1"


def test_a_claim_without_a_job_is_taken_up():
    """Killed between claim and publish: who repeats it has it, another body has not."""
    with Rig() as r:
        r.here.submit(id="x", prompt="p")
        r.redis.cli("SET", "genq:idem:default/y", r.redis.cli("GET", "genq:idem:default/x"))
        other = r.there.post("/api/v1/jobs", {"model": "stub", "id": "y", "prompt": "q"})
        assert other.status == 409, other
        assert r.there.submit(id="y", prompt="p")["id"] == "y"
        assert r.there.finished("y")["status"] == "succeeded"
        r.redis.cli("DEL", "genq:idem:default/z")
        r.redis.cli("LPUSH", "genq:idem:default/z", "not ours")  # holds nothing up
        assert r.there.submit(id="z", prompt="p")["id"] == "z"


def test_without_redis_nobody_waits():
    with Rig() as r:
        def quickest(n, what):
            times = []
            for i in range(n):
                start = time.monotonic()
                r.here.submit(id="%s%d" % (what, i))
                times.append(time.monotonic() - start)
            return sorted(times)
        quick = quickest(20, "up")
        r.redis.pause()
        hung = quickest(20, "hung")
        assert hung[10] < quick[-1] + 0.09, (quick, hung)  # most did not wait
        wait_for(lambda: r.unclaimed() >= 20)
        r.redis.kill()
        gone = quickest(20, "gone")
        assert gone[10] < quick[-1] + 0.09, (quick, gone)
        assert r.here.post("/api/v1/jobs", {"id": "gone1", "model": "stub", "prompt": "other"}).status == 409
        r.redis.start()
        wait_for(lambda: r.claims_of(r.here, 9), "claims, again")
        r.redis.cli("SCRIPT", "FLUSH")  # it is loaded again
        wait_for(lambda: r.claims_of(r.here, 10), "claims, again")
        r.redis.cli("CONFIG", "SET", "maxmemory", "1")
        before = r.unclaimed()
        r.here.submit(id="full")
        assert r.unclaimed() == before + 1


def test_key_limits_without_redis():
    """deny; what local does, the other cases show."""
    with Rig(config="limits: {without_redis: deny}\n") as r:
        r.redis.kill()
        batch = {"path": "/api/v1/batches?id=b&model=stub", "body": '{"prompt":"p"}\n'}
        for post in (lambda: r.here.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "id": "x"}),
                     lambda: r.here.post("/api/v1/jobs", [{"model": "stub", "prompt": "p", "id": "y"}]),
                     lambda: r.here.post(**batch, Content_Type="application/x-ndjson")):
            reply = post()
            assert reply.status == 503 and reply.headers["Retry-After"], reply
            assert "limits.without_redis" in reply.error["message"], reply
        assert r.here.submit()["id"]  # an id of ours needs no claim
        assert r.here.get("/api/v1/jobs/x").status == 404
        r.redis.start()
        wait_for(lambda: r.here.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "id": "x"}).status == 201,
                 "Redis, again")
        assert r.here.post(**batch, Content_Type="application/x-ndjson").status in (200, 201)
        assert r.here.finished("b-0")["status"] == "succeeded"


def test_without_redis_the_later_one_is_a_dead_letter():
    with Rig(has_redis=False) as r:
        wanted = {"late"}  # letters of these, and maybe of others that were told apart late
        for i in range(20):
            if i == 15:
                r.d.engine.latency(300)  # the first runs yet; before, it may have ended
            a, b = together(lambda: r.here.post("/api/v1/jobs", body(i, "a")),
                            lambda: r.there.post("/api/v1/jobs", body(i, "b")))
            assert {a.status, b.status} <= {201, 409}, (a, b)
            wanted |= {"i%d" % i} if a.status == b.status else set()
        # and long after its end, by a client that knows no gateway
        r.d.engine.latency(0)
        assert r.here.submit(id="late", prompt="first")["id"] and r.here.finished("late")
        r.produce(json.dumps({"id": "late", "model": "stub", "prompt": "second"}))
        r.produce(json.dumps({"id": "late", "model": "stub", "prompt": "first"}))  # no letter
        wait_for(lambda: wanted <= {d["job_id"] for d in r.dead()}, "letters of %s" % wanted)
        letters = r.dead()
        assert {d["code"] for d in letters} == {"id_conflict"}, letters
        assert len({d["job_id"] for d in letters}) == len(letters), letters
        for i in range(20):
            assert r.here.finished("i%d" % i)["status"] == "succeeded"
            assert r.calls("i%d" % i) == 1
        assert r.here.finished("late")["output"]["text"] == "echo: first"
        # what was cancelled, or comes again to a worker that has just started, is no other job
        r.d.engine.latency(100000)
        cancelled = {"id": "late2", "model": "stub", "prompt": "p"}
        assert r.here.post("/api/v1/jobs", cancelled).status == 201
        assert r.here.delete("/api/v1/jobs/late2").status == 202
        r.d.engine.latency(0)
        r.d.workers[0].stop()
        r.d.workers[0].start()
        r.produce(json.dumps(cancelled))
        r.produce(json.dumps({"id": "late", "model": "stub", "prompt": "first"}))
        assert r.here.submit(id="end") and r.here.finished("end") and len(r.dead()) == len(letters), r.dead()


if __name__ == "__main__":
    with KAFKA:
        run(globals())
