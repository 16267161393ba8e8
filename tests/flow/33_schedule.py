"""Which job goes next: priorities with a floor, tenants in turn, oldest first. One slot, held by a
blocker while the jobs are queued, shows the order at the engine."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import OneSlot, run, wait_for  # noqa: E402

FLOOR_EVERY = 10  # of so many picks, one is for a class that waits


class Queue(OneSlot):
    def release(self):
        wait_for(lambda: self.metric("genq_jobs_waiting") == self.metric("genq_jobs_unfinished") - 1,
                 "the worker to know all jobs")
        super().release()

    def queue(self, prefix, n, **fields):
        jobs = [{"model": "stub", "id": "%s%d" % (prefix, i), "prompt": "key=%s%d" % (prefix, i), **fields}
                for i in range(n)]
        reply = self.post("/api/v1/jobs", jobs)
        assert reply.status == 200 and not any(j.get("error") for j in reply.json["data"]), reply
        return [j["id"] for j in jobs]

    def order(self, n):
        """The first n keys at the engine after the blocker."""
        return wait_for(lambda: (lambda seen: len(seen) >= n and seen[:n])(
            [e[3] for e in self.stub_events("recv") if e[3] != "blocker"]), "%d jobs at the engine" % n)


def classes(order):
    return [key.rstrip("0123456789") for key in order]


def test_oldest_first():
    with Queue() as w:
        w.block()
        ids = w.queue("a", 150) + w.queue("b", 150)
        w.release()
        assert w.order(300) == ids, w.order(300)


def test_higher_priorities_first_but_a_floor_for_the_lower():
    with Queue() as w:
        w.block()
        w.queue("low", 8, priority="low")
        w.queue("normal", 8, priority="normal")
        w.queue("high", 60, priority="high")
        w.release()
        order = classes(w.order(76))
        first = order[:50]
        print("# " + " ".join(c[0] for c in order))
        assert first[:FLOOR_EVERY - 1] == ["high"] * (FLOOR_EVERY - 1), first
        for c in ("low", "normal"):
            turns = [i for i, o in enumerate(first) if o == c]
            gaps = [b - a for a, b in zip([-1] + turns, turns + [len(first)])]
            assert max(gaps) <= FLOOR_EVERY + 2, (c, turns)
            assert len(turns) <= 50 // FLOOR_EVERY, (c, turns)
        assert sorted(order) == ["high"] * 60 + ["low"] * 8 + ["normal"] * 8


def test_a_low_priority_alone_is_not_slowed():
    with Queue() as w:
        w.block()
        ids = w.queue("low", 50, priority="low")
        w.release()
        assert w.order(50) == ids


def test_tenants_in_turn():
    """Ten jobs that come last are not held up by another tenant's two thousand."""
    with Queue() as w:
        w.block()
        w.queue("big", 2000, tenant="big")
        w.queue("small", 10, tenant="small")
        w.release()
        order = classes(w.order(22))
        turns = [i for i, c in enumerate(order) if c == "small"]
        assert len(turns) == 10 and turns[-1] <= 20, order


def test_tenants_in_turn_past_prefetch():
    """Jobs that are not in memory lose turns while they are read, so how many depends on the disk; but
    they are not held up by all that came before them."""
    with Queue("worker: {prefetch: 64, drain_ms: 100}\n") as w:
        w.block()
        w.queue("big", 5000, tenant="big")
        w.queue("small", 10, tenant="small")
        w.latency(10)
        w.release()
        for i in range(10):
            assert w.finished("small%d" % i, "small")["status"] == "succeeded"
        order = classes([e[3] for e in w.stub_events("recv")])
        last = max(i for i, c in enumerate(order) if c == "small")
        print("# the last at %d" % last)
        assert last < 1000, last


def test_many_tenants_all_get_their_turn():
    with Queue() as w:
        w.block()
        for t in range(20):
            w.queue("t%dx" % t, 5, tenant="t%d" % t)
        w.release()
        order = classes(w.order(100))
        for at in range(0, 100, 20):
            assert len(set(order[at:at + 20])) == 20, order[at:at + 20]


def test_turns_are_of_tokens_not_of_jobs():
    with Queue() as w:
        w.block()
        w.queue("long", 20, tenant="long", max_tokens=1000)
        w.queue("short", 100, tenant="short", max_tokens=80)
        w.release()
        order = classes(w.order(60))
        assert 3 <= order.count("long") <= 8, order  # one for about ten short ones


def test_an_idle_tenant_saves_nothing_up():
    with Queue() as w:
        for i in w.queue("first", 60, tenant="busy"):
            w.finished(i, "busy")
        w.finished(w.queue("idle", 1, tenant="idle")[0], "idle")
        before = len(w.order(61))
        w.block()
        w.queue("busy", 20, tenant="busy")
        w.queue("idler", 20, tenant="idle")
        w.release()
        order = classes(w.order(before + 40))[before:]
        assert 4 <= order[:10].count("busy") <= 6, order


def test_priorities_hold_inside_one_tenant_and_across_tenants():
    with Queue() as w:
        w.block()
        w.queue("al", 5, tenant="a", priority="low")
        w.queue("bn", 5, tenant="b")
        w.queue("ah", 5, tenant="a", priority="high")
        w.release()
        order = classes(w.order(15))
        assert order[:5] == ["ah"] * 5, order
        assert order.index("bn") < order.index("al"), order


def test_jobs_beyond_prefetch_keep_their_order():
    """What does not fit in memory is read again: in order, none lost, none twice."""
    with Queue("worker: {prefetch: 8, drain_ms: 100}\n") as w:
        w.block()
        ids = w.queue("p", 400)
        w.release()
        assert w.order(400) == ids


run(globals())
