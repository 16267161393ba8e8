"""The wall clock jumps hours ahead and back while jobs run, wait, and are scheduled: nothing is lost, called
twice, broken off or left standing."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from clock import Clock, feed, jumps  # noqa: E402
from genq import World, run  # noqa: E402


class Jumping(World):
    def start_stub(self):
        self.clock = Clock()
        self.engines = [self.add_stub("engine").url]

    def start(self):
        with self.clock.preloaded():
            super().start()


def test_jumps():
    with Jumping(engines=[]) as w:
        ids = jumps(w, w.clock, w.stubs, 1, True)
        seen = feed(w)
        w.stop()
        w.clock.set(0)
        w.start()
        assert feed(w) == seen  # nothing of it is too old
        assert w.finished(w.submit(id="new")["id"])["status"] == "succeeded"
        assert feed(w) == seen + ["new"] and len(ids) == len(seen)


run(globals())
