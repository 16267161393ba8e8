"""The network fails, and no process: between each gateway or worker and Kafka, between each and Redis, and
between each worker and its engine stands a door (tests/lib/network.py) that is cut (RST), half-open,
slow (200 to 500 ms), or open in one direction only, at random, several at a time. Clients, foreign readers
and the verdict are those of 40_distributed, and Redis is judged as well.

A longer run: CHAOS_KILLS=150 (faults) CHAOS_JOBS=10000.
"""
import collections
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
os.environ.setdefault("CHAOS_JOBS", "3000")
os.environ.setdefault("CHAOS_KILLS", "40")
import rig_distributed as rig  # noqa: E402
from distributed import SESSION_MS, Distributed  # noqa: E402
from judge_distributed import CANCELLED_WITHIN_US, Fault, Judge  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from network import Network  # noqa: E402
from redis import RedisServer  # noqa: E402
from rig import RANDOM, Folder, Thread, mono_us  # noqa: E402
from rig_network import DoorFaults, judged  # noqa: E402

GATEWAYS, WORKERS = 2, rig.WORKERS
MEMBERS = ["gateway%d" % i for i in range(GATEWAYS)] + ["worker%d" % i for i in range(WORKERS)]
GAP_S = 2.5         # the longest pause between the beginnings of two faults
FIRST_TOKEN_MS = 5000
LONG_S = SESSION_MS / 1000 + 2
# Heartbeats are half a session apart, so a partition may be lost after the other half.
LOST_AFTER_US = SESSION_MS * 1000 // 2
# An answer is with its worker this long after the engine sent it, where a door is slow.
ON_THE_WAY_US = 1_500_000
CONFIG = rig.CONFIG.replace("base_ms: 10", "attempts: 50, base_ms: 10")
WORKER_CONFIG = "worker: {drain_ms: 10000, first_token_ms: %d}\n" % FIRST_TOKEN_MS


class Networked(Distributed):
    """Gateways and workers that see everything through doors: doors[member][what]."""

    def __init__(self, kafka, network, redis):
        self.network, self.redis, self.doors = network, redis, collections.defaultdict(dict)
        for name in MEMBERS:
            broker = kafka.brokers[0]
            listener = name.upper()
            self.doors[name]["kafka"] = network.door(broker.ports[listener], broker.doors[listener])
            self.doors[name]["redis"] = network.door(redis.port)
        super().__init__(kafka, gateways=GATEWAYS, workers=WORKERS, config=CONFIG,
                         stub=["--dialect", "openai", "--latency-ms", "100", "--jitter-ms", "400",
                               "--props", "8"],
                         worker_config=WORKER_CONFIG, has_engine_each=True)

    def common_of(self, name):
        common = self.common.replace(self.kafka.servers, self.kafka.servers_of(name.upper()))
        return common + 'redis: {url: "redis://127.0.0.1:%d"}\n' % self.doors[name]["redis"].port

    def engine_url(self, engine, name):
        door = self.doors[name]["engine"] = self.network.door(engine.port)
        return "http://127.0.0.1:%d" % door.port


class NetworkFaults(DoorFaults):
    """One at a time for each door; at times all doors to Kafka together."""

    def __init__(self, d):
        super().__init__()
        self.d, self.busy = d, {}

    def run(self):
        for i in range(rig.FAULTS):
            if i % 8 == 4:  # so that no run is without
                how = RANDOM.choice((self.cut, self.half_open, self.one_way))
                self.begin([(RANDOM.choice(MEMBERS[GATEWAYS:]), "kafka")], how, LONG_S)
            else:
                self.begin(*self.choose())
            time.sleep(RANDOM.uniform(0, GAP_S))
        for thread in self.busy.values():
            thread.join(rig.PATIENCE_S)

    def choose(self):
        what = RANDOM.choices(("kafka", "broker", "engine", "redis"), (5, 1, 3, 2))[0]
        names = MEMBERS if what == "broker" else \
            [RANDOM.choice([m for m in MEMBERS if what in self.d.doors[m]])]
        hows = self.cut, self.reset, self.half_open, self.slow, self.one_way
        return ([(name, "kafka" if what == "broker" else what) for name in names],
                RANDOM.choices(hows, (2, 1, 3, 1, 3))[0],
                LONG_S if RANDOM.random() < 0.3 else RANDOM.uniform(0.3, 3))

    def begin(self, places, how, lasts_s):
        for place in places:
            if place in self.busy and self.busy[place].is_alive():
                continue
            if place in self.busy:
                self.busy[place].join()
            self.busy[place] = Thread(self.hit, place, how, lasts_s)

    def hit(self, place, how, lasts_s):
        name, what = place
        begin_us = mono_us()
        ends_calls = how([self.d.doors[name][what]], lasts_s)
        end_us = mono_us()
        lasts_us = end_us - begin_us
        if what == "engine" and not (ends_calls or lasts_us > FIRST_TOKEN_MS * 1000):
            what = "engine, no call ended"
        if what == "kafka" and (how == self.slow or lasts_us < LOST_AFTER_US):
            what = "kafka, too short to lose a partition"
        with self.lock:
            self.told.append(Fault(name, what, begin_us, end_us))
            print("# %s %s: %s, %.1f s" % (*place, how.__name__, lasts_us / 1e6), flush=True)


class NetworkJudge(Judge):
    """A repeat is allowed where a call's connection was cut, or the worker could have lost its partitions."""

    def excuse(self, name, call, done_us):
        for f in self.faults[name]:
            if f.kind == "engine" and self.is_hit(f, call):
                return f.kind
            if f.kind in ("kafka", "loss") and f.end_us >= call.recv_us and f.begin_us <= done_us:
                return f.kind
        return None

    @staticmethod
    def is_hit(fault, call):
        return fault.end_us >= call.recv_us and \
            (call.end_us is None or fault.begin_us <= call.end_us + ON_THE_WAY_US)

    def is_stale(self, name, call):
        """It began at a worker that was cut off, and did not know yet what it had lost."""
        return any(f.kind == "kafka" and f.begin_us <= call.recv_us <= f.end_us + CANCELLED_WITHIN_US
                   for f in self.faults[name])

    def is_cut(self, worker, call):
        return any(f.kind == "engine" and self.is_hit(f, call) for f in self.faults[worker])


def main():
    folder = Folder("network")
    with Network() as network, RedisServer() as redis, \
            KafkaCluster(doors=[name.upper() for name in MEMBERS]) as kafka, \
            Networked(kafka, network, redis) as d:
        try:
            judged(d, NetworkFaults(d), rig.FAULTS * GAP_S / 2, NetworkJudge).require()
        except BaseException:
            shutil.copytree(d.folder, folder("world"))
            raise
    folder.remove()


if __name__ == "__main__":
    main()
