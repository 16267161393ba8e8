"""What is done to the doors of tests/lib/network.py, for the chaos tests of networks."""
import collections
import threading
import time

from rig import RANDOM


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
