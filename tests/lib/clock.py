"""A wall clock that jumps ahead and back while jobs run, wait, and are scheduled (wall_clock.c). Environment:
WALL_CLOCK_LIBRARY."""
import contextlib
import mmap
import os
import struct
import tempfile
import time

from genq import wait_for

HOUR_MS = 3600000


class Clock:
    """What a preloaded genq takes for the time of day."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="genq-clock-")
        self.file.write(bytes(8))
        self.file.flush()
        self.bytes = mmap.mmap(self.file.fileno(), 8)

    def set(self, ms):
        self.bytes[:] = struct.pack("=q", ms)

    def now_ms(self):
        return int(time.time() * 1000) + struct.unpack("=q", self.bytes[:])[0]

    @contextlib.contextmanager
    def preloaded(self):
        before = dict(os.environ)
        os.environ.update(
            {"LD_PRELOAD": os.environ["WALL_CLOCK_LIBRARY"], "WALL_CLOCK": self.file.name,
             "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def feed(server):
    return [j["id"] for j in server.get("/api/v1/completions?limit=1000").json["data"]]


def check_ended(server, ids):
    for i in ids:
        job = server.finished(i)
        assert job["status"] == "succeeded" and job["attempts"] == 1, job
        assert min(ms for ms in job["timing"].values() if ms is not None) >= 0, job


def jump(server, clock, engines, to_ms, name):
    """Jobs that run and wait while the clock jumps, and some after it. Gives their ids, once all have ended."""
    ids, n_before = [], sum(len(e.events("recv")) for e in engines)
    for engine in engines:
        engine.latency(700)
    for n in range(16):
        if n == 4:
            wait_for(lambda: sum(len(e.events("recv")) for e in engines) >= n_before + 4, "the calls")
        if n == 12:
            clock.set(to_ms)
            for engine in engines:
                engine.latency(5)
        ids.append("%s%d" % (name, n))
        server.submit(id=ids[-1], prompt="key=" + ids[-1], timeout_ms=30000)
    began = time.monotonic()
    check_ended(server, ids)
    assert time.monotonic() - began < 20
    return ids


def later(server, clock, name, in_ms, **more):
    server.submit(id=name, prompt="key=" + name, not_before=clock.now_ms() + in_ms, **more)
    return [name]


def status(server, name):
    return server.get("/api/v1/jobs/" + name).json["status"]


def jumps(server, clock, engines, rest_s, has_times):
    """To and fro; once while nothing happens, and for a while after it, in which what sleeps until a time of day
    would miss its turn. has_times: all processes have this clock. Gives all ids, each of which has ended."""
    ids = []
    if has_times:
        ids += later(server, clock, "hour", HOUR_MS)
        later(server, clock, "day", 24 * HOUR_MS)
    ids += jump(server, clock, engines, 2 * HOUR_MS, "ahead")
    if has_times:
        # A worker looks at the clock when the next one was due, and every 5 s.
        ids += later(server, clock, "soon", 300, deadline=clock.now_ms() + 300000)
        check_ended(server, ids)
        ids += later(server, clock, "early", 700)
    ids += jump(server, clock, engines, -2 * HOUR_MS, "back")
    clock.set(-4 * HOUR_MS)
    time.sleep(rest_s)
    ids += jump(server, clock, engines, -2 * HOUR_MS, "still")
    if has_times:
        ids += later(server, clock, "back-soon", 300, deadline=clock.now_ms() + 300000)
        check_ended(server, [i for i in ids if i != "early"])
        assert status(server, "early") == "scheduled"  # it is, by four hours
    ids += jump(server, clock, engines, 2 * HOUR_MS, "again")
    if has_times:
        ids += later(server, clock, "again-soon", 300)
    check_ended(server, ids)
    assert not has_times or status(server, "day") == "scheduled"
    calls = sorted(line[3] for e in engines for line in e.events("recv"))
    assert calls == sorted(ids), set(calls) ^ set(ids)
    assert sorted(feed(server)) == sorted(ids)
    return ids
