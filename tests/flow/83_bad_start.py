"""The network is cut, silent, slow, or open in one direction only while a gateway and a worker start, to Kafka
or to Redis, and heals after a while. They wait, say so, and go on; what runs meanwhile elsewhere runs once."""
import collections
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import SESSION_MS, Distributed, Member  # noqa: E402
from genq import Stub, read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from network import Network  # noqa: E402
from redis import RedisServer  # noqa: E402

CUT, SILENT, MUTE = {"is_cut": True}, {"up": False, "down": False}, {"down": False}
SLOW = {"delay_ms": (200, 500)}
ENGINE = ["--latency-ms", "50", "--jitter-ms", "100"]
CONFIG = 'redis: {url: "redis://127.0.0.1:%d"}\nlog: {level: info}\n'
STOP_S = 10  # a few seconds, on a machine that others keep busy


class Late(Distributed):
    """One gateway and one worker that see all well, and a client that posts all the time; late() starts
    further ones, behind the doors."""
    n = 0

    def __init__(self):
        Late.n += 1
        super().__init__(KAFKA, prefix="b%d" % Late.n, workers=1, config=CONFIG % REDIS.port, stub=ENGINE)
        self.engines.append(Stub(self.folder, "late_stub", *ENGINE))
        self.ids, self.is_over = [], False
        self.poster = threading.Thread(target=self.post, daemon=True)

    def common_of(self, name):
        if not name.startswith("late"):
            return self.common
        return self.common.replace(KAFKA.servers, KAFKA.servers_of("LATE")) \
            .replace(":%d" % REDIS.port, ":%d" % DOORS["redis"].port)

    def __enter__(self):
        REDIS.cli("FLUSHALL")
        super().__enter__()
        self.poster.start()
        return self

    def __exit__(self, *reason):
        self.is_over = True
        for door in DOORS.values():
            door.heal()
        self.poster.join()
        super().__exit__(*reason)

    def post(self):
        while not self.is_over:
            self.submit(self.gateways[0])
            time.sleep(0.02)

    def submit(self, gateway):
        self.ids.append("%s-%d" % (self.prefix, len(self.ids)))
        return gateway.submit(id=self.ids[-1], prompt="key=%s go" % self.ids[-1])["id"]

    def late(self, role, i=0):
        """Does not wait for it."""
        member = Member(self, role, "late_%s%d" % (role, i), "", [self.engines[1].url] * (role == "worker"))
        (self.workers if role == "worker" else self.gateways).append(member)
        member.launch()
        return member

    def end(self, gateway):
        """All that was posted has ended, once, and everybody knows it."""
        self.is_over = True
        self.poster.join()
        for job_id in self.ids:
            assert gateway.finished(job_id)["status"] == "succeeded", job_id
        calls = collections.Counter(e[3] for engine in self.engines for e in engine.events("recv"))
        assert len(calls) == len(self.ids) == sum(calls.values()), \
            (len(self.ids), [i for i, n in calls.items() if n > 1])
        feeds = [feed_of(g, len(self.ids)) for g in self.gateways]
        assert all(f == feeds[0] for f in feeds) and sorted(feeds[0]) == sorted(self.ids)
        wait_for(lambda: counted() == len(self.ids), lambda: "counted in Redis: %s" % counted())
        print("# %d jobs, %d at the late worker" % (len(self.ids), len(self.engines[1].events("recv"))))


def feed_of(gateway, n):
    ids, after = [], 0
    while len(ids) < n:
        page = gateway.get("/api/v1/completions?wait=30s&limit=1000&after=%d" % after).json
        assert page["data"], (len(ids), n)
        ids += [j["id"] for j in page["data"]]
        after = page["next"]
    return ids


def counted():
    return sum(int(REDIS.cli("HGET", key, "succeeded") or 0) for key in REDIS.cli("KEYS", "genq:usage:*").split())


def works(d, gateway, worker):
    """Both are ready and have their share."""
    gateway.await_port()
    worker.await_port()
    for member in (gateway, worker):
        wait_for(lambda m=member: m.get("/readyz").status == 200, member.name + " is ready")
    wait_for(lambda: d.engines[1].events("recv"), "a job at the late worker")
    assert gateway.finished(d.submit(gateway))["status"] == "succeeded"


def waits(gateway, worker):
    """They say what they wait for, and are not ready."""
    wait_for(lambda: '"event":"waiting_for_kafka"' in gateway.said(), "the gateway's word")
    wait_for(lambda: '"event":"topics_unknown"' in worker.said(), "the worker's word")
    for member in (gateway, worker):
        assert "Kafka cannot be reached at " + KAFKA.servers_of("LATE") in member.said(), member.said()
        member.process.check()
    worker.await_port()
    assert not os.path.exists(os.path.join(gateway.data, "listen"))
    ready = worker.get("/readyz")
    assert ready.status == 503 and ready.json["checks"]["log"]["error"], ready


def heal(what, loses):
    """What was held arrives late, or never."""
    if loses:
        DOORS[what].reset()
    DOORS[what].heal()


def kafka_is_away(state, loses):
    with Late() as d:
        DOORS["kafka"].set(**state)
        gateway, worker = d.late("gateway"), d.late("worker")
        waits(gateway, worker)
        heal("kafka", loses)
        works(d, gateway, worker)
        d.end(gateway)


def redis_is_away(state, loses):
    with Late() as d:
        DOORS["redis"].set(**state)
        gateway, worker = d.late("gateway"), d.late("worker")
        works(d, gateway, worker)
        for member in (gateway, worker):
            wait_for(lambda m=member: m.get("/readyz").json["checks"]["redis"]["status"] == "down", "it is told")
            wait_for(lambda m=member: '"event":"redis_down"' in m.said(), "it is in the log")
        heal("redis", loses)
        for member in (gateway, worker):
            wait_for(lambda m=member: m.get("/readyz").json["checks"]["redis"]["status"] == "ok", "it is back")
        d.end(gateway)


def test_kafka_refuses():
    kafka_is_away(CUT, False)


def test_kafka_is_silent():
    kafka_is_away(SILENT, True)


def test_kafka_answers_late():
    kafka_is_away(MUTE, False)


def test_redis_refuses():
    redis_is_away(CUT, False)


def test_redis_is_silent():
    redis_is_away(SILENT, True)


def test_redis_answers_late():
    redis_is_away(MUTE, False)


def test_both_are_slow():
    with Late() as d:
        for door in DOORS.values():
            door.set(**SLOW)
        gateway, worker = d.late("gateway"), d.late("worker")
        works(d, gateway, worker)
        for door in DOORS.values():
            door.heal()
        d.end(gateway)


def test_a_fault_in_the_middle_of_the_start():
    """At any moment of the first second and a half, too short for a partition to be lost."""
    for i, state in enumerate((CUT, SILENT, MUTE, CUT, SILENT, MUTE)):
        with Late() as d:
            gateway, worker = d.late("gateway"), d.late("worker")
            time.sleep(random.uniform(0, 1.5))
            for what in DOORS:
                DOORS[what].set(**state)
            time.sleep(SESSION_MS / 1000 / 3)
            for what in DOORS:
                heal(what, i % 2 == 0)
            works(d, gateway, worker)
            d.end(gateway)


def test_a_silence_later_on():
    """Its end is not told by anybody: a worker notices that it has not been heard."""
    with Late() as d:
        gateway, worker = d.late("gateway"), d.late("worker")
        works(d, gateway, worker)
        d.end(gateway)
        DOORS["kafka"].set(**SILENT)
        for member in (gateway, worker):
            away = wait_for(lambda m=member: m.get("/readyz").status == 503 and m.get("/readyz"), "not ready")
            assert away.json["checks"]["log"]["error"], away
        heal("kafka", True)
        works(d, gateway, worker)
        d.end(gateway)


def catches(member, number):
    for line in read_file("/proc/%d/status" % member.process.pid).splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16) >> (number - 1) & 1
    return False


def end(members, member, number):
    began = time.monotonic()
    code = member.process.end(number)
    took_s = time.monotonic() - began
    print("# %s: %d after %.1f s" % (member.name, code, took_s))
    assert code == 0 and took_s < STOP_S, (code, took_s, member.said()[-2000:])
    members.remove(member)


def stopped(number, await_moment):
    with Late() as d:
        for i, state in enumerate((CUT, SILENT)):
            for door in DOORS.values():
                door.set(**state)
            gateway, worker = d.late("gateway", i), d.late("worker", i)
            await_moment(gateway, worker)
            end(d.gateways, gateway, number)
            end(d.workers, worker, number)
        d.end(d.gateways[0])


def test_a_stop_at_once():
    stopped(signal.SIGTERM, lambda *members: wait_for(
        lambda: all(catches(m, signal.SIGTERM) for m in members), "their handlers"))


def test_a_stop_while_it_waits():
    stopped(signal.SIGINT, waits)


if __name__ == "__main__":
    with Network() as network, RedisServer() as REDIS, KafkaCluster(doors=["LATE"]) as KAFKA:
        listener = KAFKA.brokers[0]
        DOORS = {"kafka": network.door(listener.ports["LATE"], listener.doors["LATE"]),
                 "redis": network.door(REDIS.port)}
        run(globals())
