"""The wall clocks of gateways and workers jump hours ahead and back, all together or one alone, on a real Kafka
with a Redis: nothing is lost, called twice, broken off or left standing, and no heartbeat is missed."""
import contextlib
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from clock import Clock, feed, jumps  # noqa: E402
from distributed import SESSION_MS, Distributed, Member  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402


class JumpingMember(Member):
    clock = None

    def launch(self):
        with self.clock.preloaded() if self.clock else contextlib.nullcontext():
            super().launch()


class Jumped(Distributed):
    """Whose clock jumps: the names of members; () for all."""
    n = 0

    def __init__(self, kafka, who=(), **options):
        Jumped.n += 1
        self.clock = Clock()
        super().__init__(kafka, prefix="c%d" % Jumped.n, has_engine_each=True, **options)
        for member in self.members:
            member.__class__ = JumpingMember
            member.clock = self.clock if not who or member.name in who else None


def nodes_of(gateway):
    return sorted(n["url"] for n in gateway.get("/api/v1/nodes").json["data"])


def watch_nodes(d, stop, seen):
    while not stop.is_set():
        seen.append(nodes_of(d.gateways[0]))
        time.sleep(0.05)


def on_kafka(who):
    with KafkaCluster() as kafka, RedisServer() as redis, \
            Jumped(kafka, who, workers=2, config='redis: {url: "%s"}\n' % redis.url) as d:
        gateway = d.gateways[0]
        urls = sorted(e.url for e in d.engines)
        wait_for(lambda: nodes_of(gateway) == urls, "the nodes")
        stop, seen = threading.Event(), []
        watcher = threading.Thread(target=watch_nodes, args=(d, stop, seen))
        watcher.start()
        try:
            ids = jumps(gateway, d.clock, d.engines, 1.5 * SESSION_MS / 1000, not who)
        finally:
            stop.set()
            watcher.join()
        assert len(seen) > 20 and not [n for n in seen if n != urls], [n for n in seen if n != urls]
        ends = [r["key"] for r in kafka.client().consume("%s.completions" % d.prefix)]
        assert ends == feed(gateway) and len(ends) == len(ids)
        for member in d.members:
            assert "group_lost" not in member.said() and "group_unsure" not in member.said(), member.name


def test_all():
    on_kafka(())


def test_one_worker():
    on_kafka(("worker0",))


def test_the_gateway():
    on_kafka(("gateway0",))


run(globals())
