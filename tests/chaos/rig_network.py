"""The chaos tests of networks: what is done to the doors of tests/lib/network.py, and a run under it."""
import collections
import threading
import time

import rig_distributed as rig
from judge_redis import Subscriber, check_redis
from rig import RANDOM, Thread


class DoorFaults:
    """Each kind takes doors that fail together, and gives whether connections were ended by it."""

    def __init__(self):
        self.told, self.lock = [], threading.Lock()

    def all(self, doors, method, **state):
        with self.lock:
            for door in doors:
                getattr(door, method)(**state)

    def heal(self, doors):
        """What was held arrives late, or never."""
        loses = RANDOM.random() < 0.5
        if loses:
            self.all(doors, "reset")
        self.all(doors, "heal")
        return loses

    def cut(self, doors, lasts_s):
        self.all(doors, "set", is_cut=True)
        time.sleep(lasts_s)
        self.all(doors, "heal")
        return True

    def reset(self, doors, _):
        self.all(doors, "reset")
        return True

    def half_open(self, doors, lasts_s):
        self.all(doors, "set", up=False, down=False)
        time.sleep(lasts_s)
        return self.heal(doors)

    def one_way(self, doors, lasts_s):
        self.all(doors, "set", **{RANDOM.choice(("up", "down")): False})
        time.sleep(lasts_s)
        return self.heal(doors)

    def slow(self, doors, lasts_s):
        self.all(doors, "set", delay_ms=(200, 500))
        time.sleep(lasts_s)
        self.all(doors, "heal")
        return False

    def report(self):
        n = collections.Counter((f.name.rstrip("0123456789"), f.kind) for f in self.told)
        return ", ".join(f"{name} {kind}: {k}" for (name, kind), k in sorted(n.items()))


def judged(d, faults, lasts_s, judge_class):
    """Clients send jobs for about so long, and faults.run() does its worst meanwhile."""
    world, tails, subscriber = rig.World(d), rig.Tails(d), Subscriber(d.redis, d.folder)
    clients = [Thread(rig.client, world, f"c{n}", lasts_s) for n in range(rig.CLIENTS)]
    reader = Thread(rig.follow, world)
    world.subscribe()
    started = time.monotonic()
    faults.run()
    print(f"{len(faults.told)} faults in {time.monotonic() - started:.0f} s; {faults.report()}", flush=True)
    world.is_over = True
    for thread in clients:
        thread.join(rig.PATIENCE_S)
    rig.settle(world, tails, reader)
    reader.join(30)
    judge = rig.judge_all(d, world, faults, tails, judge_class)
    check_redis(judge, d.redis, subscriber, is_all_heard=True)
    print(f"{world.report()}; {time.monotonic() - started:.0f} s")
    return judge
