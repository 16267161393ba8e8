"""The network between the brokers fails, and no process: three brokers, each topic on all, two in sync at least.
Between any two stands a door for each direction, one for replication and one for what controllers and brokers
tell each other (KafkaCluster(has_links=True)). Links are cut (RST), half-open, slow, or open in one direction
only: one alone, all of one broker's, or those by which others copy from it, it from others, or it stays in the
quorum. So leaders move, copies fall out of sync, partitions cannot be written to, and a broker that does not
know that it is replaced goes on answering. Clients, foreign readers and the verdict are those of
40_distributed, and Redis is judged as well.

A longer run: CHAOS_KILLS=150 (faults) CHAOS_JOBS=10000.
"""
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
os.environ.setdefault("CHAOS_JOBS", "3000")
os.environ.setdefault("CHAOS_KILLS", "24")
import rig_distributed as rig  # noqa: E402
from distributed import SESSION_MS  # noqa: E402
from judge_distributed import Fault, Judge  # noqa: E402
from kafka import LINKED, KafkaCluster, link_host  # noqa: E402
from network import Network  # noqa: E402
from redis import RedisServer  # noqa: E402
from rig import RANDOM, Folder, Thread, mono_us  # noqa: E402
from rig_network import DoorFaults, judged  # noqa: E402

GATEWAYS, BROKERS = 2, 3
GAP_S = 4.0         # the longest pause between the beginnings of two faults
FAULT_S = 6.0       # what one adds to a run
LONG_S = SESSION_MS / 1000 + 6  # a broker is replaced after three, and a group's member expelled after six more
# A coordinator that is cut off by then has been replaced; its members hear from it alone, and do not know.
REPLACED_AFTER_US = 3_000_000


def group_partition(group):
    """As Kafka has it: Java's hash of the name, modulo offsets.topic.num.partitions."""
    h = 0
    for c in group.encode():
        h = (31 * h + c) & 0xFFFFFFFF
    return (h & 0x7FFFFFFF) % 4


class LinkFaults(DoorFaults):
    """Several at a time, each door in one only; half of them at the workers' coordinator."""

    def __init__(self, doors, watch, group):
        super().__init__()
        self.doors, self.watch, self.busy, self.threads = doors, watch, set(), []
        self.group_at = "__consumer_offsets", group_partition(group)

    def run(self):
        while len(self.threads) < rig.FAULTS:
            if self.begin(*self.what_comes(len(self.threads))):
                time.sleep(RANDOM.uniform(0, GAP_S))
            else:
                time.sleep(0.1)
        for thread in self.threads:
            thread.join(rig.PATIENCE_S)
        self.watch.stop()

    def what_comes(self, i):
        hows = self.cut, self.half_open, self.one_way, self.reset, self.slow
        if i % 4 in (1, 3):  # so that no run is without
            return "away" if i % 4 == 1 else "leader", RANDOM.choice(hows[:2]), LONG_S
        return (RANDOM.choices(("link", "away", "leader", "follower", "quorum"), (4, 2, 3, 2, 3))[0],
                RANDOM.choices(hows, (3, 3, 3, 1, 1))[0],
                LONG_S if RANDOM.random() < 0.2 else RANDOM.uniform(0.3, 5))

    def choose(self, what):
        b = self.watch.leaders.get(self.group_at) if RANDOM.random() < 0.5 else None
        b = b or 1 + RANDOM.randrange(BROKERS)
        fits = {"link": lambda here, there, _: (here, there) == link,
                "away": lambda here, there, _: b in (here, there),
                "leader": lambda here, there, listener: there == b and listener == "LINK",
                "follower": lambda here, there, listener: here == b and listener == "LINK",
                "quorum": lambda here, there, listener: b in (here, there) and listener == "CONTROLLER"}
        link = (b, RANDOM.choice([n for n in range(1, BROKERS + 1) if n != b]))
        return b, [at for at in self.doors if fits[what](*at)]

    def begin(self, what, how, lasts_s):
        b, ats = self.choose(what)
        with self.lock:
            if self.busy & set(ats):
                return False
            self.busy |= set(ats)
        self.threads.append(Thread(self.hit, b, ats, what, how, lasts_s))
        return True

    def hit(self, b, ats, what, how, lasts_s):
        begin_us = mono_us()
        how([self.doors[at] for at in ats], lasts_s)
        end_us = mono_us()
        with self.lock:
            self.busy -= set(ats)
            self.told.append(Fault("broker", f"{what}, {how.__name__}", begin_us, end_us))
            print("# broker %d %s: %s, %.1f s" % (b, what, how.__name__, (end_us - begin_us) / 1e6),
                  flush=True)


class Watch:
    """What the brokers themselves say of the partitions, one after the other."""

    def __init__(self, kafka):
        self.kafka, self.is_over = kafka, False
        self.views = [{} for _ in kafka.brokers]
        self.leaders, self.n_moved, self.n_shrunk, self.n_unwritable = {}, 0, 0, 0
        self.thread = Thread(self.run)

    def run(self):
        while not self.is_over:
            for broker, view in zip(self.kafka.brokers, self.views):
                done = subprocess.run(["kcat", "-L", "-J", "-m", "2", "-b", broker.server()],
                                      capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    self.look(json.loads(done.stdout)["topics"], view)
            for at in self.views[0]:
                self.agree(at)
            time.sleep(0.3)

    def look(self, topics, view):
        for topic in topics:
            for p in topic["partitions"]:
                view[topic["topic"], p["partition"]] = p["leader"]
                self.n_shrunk += len(p["isrs"]) < BROKERS
                self.n_unwritable += len(p["isrs"]) < 2

    def agree(self, at):
        """A leader is one of whom all know."""
        said = {view.get(at) for view in self.views}
        if len(said) == 1:
            leader = said.pop()
            self.n_moved += leader != self.leaders.setdefault(at, leader)
            self.leaders[at] = leader

    def stop(self):
        self.is_over = True
        self.thread.join(60)
        print(f"leaders seen to move: {self.n_moved}; partitions seen with copies out of sync: "
              f"{self.n_shrunk}, with one in sync: {self.n_unwritable}")
        assert self.n_moved and self.n_shrunk and self.n_unwritable, "nothing was put to the test"


class LinkJudge(Judge):
    """A repeat is allowed where a worker's coordinator could have been replaced without its knowledge."""

    def excuse(self, name, call, done_us):
        return super().excuse(name, call, done_us) or next(
            (f"fault between brokers ({f.kind.partition(',')[0]})" for f in self.faults["broker"]
             if f.end_us - f.begin_us > REPLACED_AFTER_US and f.end_us >= call.recv_us and f.begin_us <= done_us),
            None)


def links(network, kafka):
    return {(here.node_id, there.node_id, listener):
            network.door(there.ports[listener], there.ports[listener], link_host(here, there))
            for here in kafka.brokers for there in kafka.brokers if here is not there for listener in LINKED}


def main():
    folder = Folder("brokers-network")
    with Network() as network, RedisServer() as redis:
        kafka = KafkaCluster(BROKERS, has_links=True)
        doors = links(network, kafka)
        with kafka, rig.distributed(kafka, GATEWAYS, 50, 150, redis=redis) as d:
            try:
                faults = LinkFaults(doors, Watch(kafka), d.prefix + ".workers")
                judged(d, faults, rig.FAULTS * FAULT_S, LinkJudge).require()
            except BaseException:
                shutil.copytree(d.folder, folder("world"))
                for broker in kafka.brokers:
                    shutil.copy(broker.log, folder.path)
                raise
    folder.remove()


if __name__ == "__main__":
    main()
