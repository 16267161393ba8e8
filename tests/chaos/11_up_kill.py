"""`genq up` is killed again and again under clients that post single jobs, arrays and batches, some for
later, some streamed, some cancelled. What was answered 200 or 201 ends once; who got no answer, or 503,
repeats with the same id; a reader of the feed goes on by its cursor and misses nothing."""
import collections
import itertools
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import (IS_SLOW, NO_ANSWER, RANDOM, Folder, Lives, Thread, ask, mono_us,  # noqa: E402
                 n_kills, wait_for)

KILLS = n_kills(25 if IS_SLOW else 55)
CLIENTS = 3


class World:
    """What clients know: where the server is, what it accepted."""

    def __init__(self):
        self.port = 0
        self.is_over = False      # no new jobs
        self.accepted = set()     # ids
        self.cancelled = {}       # id -> True: 202, False: 409, None: no answer
        self.not_before = {}      # id -> monotonic us
        self.feed = []
        self.cursor = 0
        self.n_requests = collections.Counter()
        self.is_read = False

    def until_answered(self, method, path, body, headers=None):
        """Repeats through kills and 503; gives the first answer that is one."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                status, reply = ask(self.port, method, path, body, headers)
            except NO_ANSWER:
                self.n_requests["no answer"] += 1
                time.sleep(0.01)
                continue
            self.n_requests[status] += 1
            if status not in (503, 429):
                return status, reply
            time.sleep(0.02)
        raise AssertionError(f"{method} {path}: no answer in two minutes")


def make_job(world, id_):
    job = {"id": id_, "model": "stub", "prompt": f"key={id_} say something"}
    kind = RANDOM.randrange(10)
    if kind < 3:
        later_ms = RANDOM.randrange(200, 2000)
        job["not_before"] = int(time.time() * 1000) + later_ms
        world.not_before[id_] = mono_us() + later_ms * 1000
    elif kind == 3:
        job["stream"] = True
    elif kind == 4:
        job["priority"] = RANDOM.choice(("high", "low"))
    elif kind == 5:
        job["session"] = f"s{RANDOM.randrange(5)}"
    return job


def cancel(world, id_):
    try:
        status, _ = ask(world.port, "DELETE", f"/api/v1/jobs/{id_}")
    except NO_ANSWER:
        world.cancelled[id_] = None
        return
    if status != 503:
        assert status in (202, 409), f"DELETE {id_}: {status}"
    world.cancelled[id_] = {202: True, 409: False}.get(status)


def post_single(world, id_):
    job = make_job(world, id_)
    status, reply = world.until_answered("POST", "/api/v1/jobs", job)
    assert status in (200, 201), f"{status} {reply}"
    assert reply["id"] == id_
    world.accepted.add(id_)
    if RANDOM.random() < 0.2:
        cancel(world, id_)


def post_array(world, id_):
    jobs = [make_job(world, f"{id_}.{i}") for i in range(RANDOM.randrange(2, 40))]
    status, reply = world.until_answered("POST", "/api/v1/jobs", jobs)
    assert status == 200, f"{status} {reply}"
    assert [j.get("id") for j in reply["data"]] == [j["id"] for j in jobs], f"{reply}"[:500]
    world.accepted.update(j["id"] for j in jobs)


def post_batch(world, id_):
    keys = [f"{id_}.{i}" for i in range(RANDOM.randrange(20, 200))]
    body = "".join(json.dumps({"id": k, "model": "stub", "prompt": f"key={k} line"}) + "\n"
                   for k in keys)
    status, reply = world.until_answered("POST", f"/api/v1/batches?id={id_}", body,
                                         {"Content-Type": "application/x-ndjson"})
    assert status in (200, 201) and not reply["refused"], f"{status} {reply}"
    world.accepted.update(keys)


def client(world, name):
    for n in itertools.count():
        if world.is_over:
            return
        post = RANDOM.choices((post_single, post_array, post_batch), (30, 3, 1))[0]
        post(world, f"{name}-{n}")
        time.sleep(0.005)


def follow(world):
    """The feed, by cursor, through all restarts."""
    while not world.is_read:
        try:
            status, page = ask(world.port, "GET", f"/api/v1/completions?after={world.cursor}&wait=1s"
                                                  f"&limit={RANDOM.choice((7, 100, 1000))}")
        except NO_ANSWER:
            time.sleep(0.01)
            continue
        if status == 200:
            world.feed += [(j["id"], j["status"]) for j in page["data"]]
            world.cursor = page["next"]
        else:
            assert status == 503, f"feed: {status} {page}"


def check_world(world, judge):
    ends = {e.id: e for e in judge.ends}
    for id_ in world.accepted - ends.keys():
        judge.violate("open", f"{id_} was accepted and has no end")
    for id_ in ends.keys() - world.accepted:
        judge.violate("twice", f"{id_} ended and nobody posted it")
    if world.feed != [(e.id, e.status) for e in judge.ends]:
        judge.violate("changed", f"the feed as read has {len(world.feed)} completions, "
                                 f"{len(set(world.feed))} different; the topic {len(judge.ends)}")
    for id_, answer in world.cancelled.items():
        is_cancelled = ends[id_].status == "cancelled"
        if answer is not None and answer != is_cancelled:
            judge.violate("changed", f"DELETE {id_} said {answer}, it ended {ends[id_].status}")
    for e in judge.ends:
        if e.status != "succeeded" and e.reason != "poison" and e.id not in world.cancelled:
            judge.violate("changed", f"{e}: unexpected end")
    for p in judge.periods:
        for c in p.calls:
            if c.recv_us < world.not_before.get(c.key, 0) - 2000:  # ms are cut off
                judge.violate("repeat", f"{c.key} ran before its time")


def main():
    folder = Folder("up_kill")
    lives = Lives(folder, "up", Judge, "--latency-ms", 5, "--jitter-ms", 5)
    judge, world = lives.judge, World()
    n_slow = 3 if IS_SLOW else 1
    threads = []
    for i in range(KILLS + 1):
        world.port = lives.start().port
        if not threads:
            threads = [Thread(client, world, f"c{n}") for n in range(CLIENTS)]
            follower = Thread(follow, world)
        if i == KILLS:
            break
        time.sleep(RANDOM.uniform(0.02, 0.4) * n_slow)
        lives.kill()
    world.is_over = True
    for t in threads:
        t.join(60)
    lives.wait_idle()
    n = len(world.accepted)
    wait_for("the feed's reader", 20, lambda: len(world.feed) >= n)
    world.is_read = True
    follower.join(20)
    lives.stop()
    judge.verdict()
    check_world(world, judge)
    print(f"{len(world.accepted)} accepted, {len(world.not_before)} for later, "
          f"{sum(a is True for a in world.cancelled.values())} cancelled; answers: "
          f"{dict(world.n_requests)}")
    judge.require()
    folder.remove()


if __name__ == "__main__":
    main()
