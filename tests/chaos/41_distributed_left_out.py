"""Proof that the distributed verdict means something: with one step left out (GENQ_SKIP, see
base/test_hook.h), the same run that is green without it turns red, and by the check that is meant for it."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from rig_distributed import (Faults, Tails, World, check_sane, distributed, follow,  # noqa: E402
                             judge_all)
from kafka import KafkaCluster  # noqa: E402
from rig import Thread, wait_for  # noqa: E402

END_S = 30  # for jobs to end; some never will


def n_answered(d):
    return sum(engine.stats()["sent"] for engine in d.engines)


def submit(world, prefix):
    ids = [f"{prefix}{i}" for i in range(600)]
    status, _ = world.until_answered("POST", "/api/v1/jobs", [
        {"id": i, "model": "stub", "prompt": f"key={i} go"} for i in ids])
    assert status == 200, status
    world.accepted.update(ids)


def killed(d, world, faults):
    """Each worker is killed once, in the middle of its jobs; both at once, so that one is not left that
    knows what the other has done."""
    submit(world, "j")
    for _ in range(2):
        n = n_answered(d)
        wait_for("some answers", END_S, lambda: n_answered(d) >= n + 100)
        threads = [Thread(faults.kill, worker, 0) for worker in d.workers]
        for thread in threads:
            thread.join(60)


def cancelled(d, world, faults):
    for i in range(4):
        world.accepted.add(d.gateways[0].submit(id=f"c{i}", prompt=f"key=c{i} go")["id"])
    wait_for("the calls", END_S, lambda: sum(e.stats()["in_flight"] for e in d.engines) == 4)
    for i in range(4):
        status, _ = world.ask("DELETE", f"/api/v1/jobs/c{i}")
        assert status == 202, status
        world.cancelled[f"c{i}"] = True


def streamed(d, world, faults):
    """The gateway is killed twice under its subscribers."""
    world.subscribe()
    submit(world, "s")
    for _ in range(2):
        n = len(world.streams[0].events)
        wait_for("some events", END_S, lambda: len(world.streams[0].events) >= n + 50)
        faults.kill(d.gateways[0], 0)


# step left out, run, the engine's latency, the checks of which one must catch it
CASES = (
    ("takeover", killed, 20, {"repeat"}),
    ("low_mark", killed, 100, {"lost"}),
    ("source", killed, 20, {"open"}),
    ("finish_publish", killed, 20, {"lost"}),
    ("cancel_abort", cancelled, 6000, {"cancel"}),
    ("resume", streamed, 20, {"twice", "changed"}),
)


def is_all_done(d, world, tails):
    return tails.n_ended() >= len(world.accepted) and len(world.feed) >= tails.n_ended() and \
        all(len(s.events) >= tails.n_ended() for s in world.streams) and \
        not any(e.stats()["in_flight"] for e in d.engines)


def judged(kafka, run, latency_ms, step):
    os.environ["GENQ_SKIP"] = step
    judged.n += 1
    with distributed(kafka, 1, latency_ms, latency_ms, f"s{judged.n}") as d:
        world, faults, tails = World(d), Faults(d), Tails(d)
        reader = Thread(follow, world)
        run(d, world, faults)
        end = time.monotonic() + END_S
        while time.monotonic() < end and not is_all_done(d, world, tails):
            time.sleep(0.05)
        time.sleep(1)
        world.is_read = True
        reader.join(30)
        for member in d.members:
            member.stop()
        check_sane(d)
        return judge_all(d, world, faults, tails)


judged.n = 0


def main():
    with KafkaCluster() as kafka:
        green = set()
        for step, run, latency_ms, wanted in CASES:
            if (run, latency_ms) not in green:
                judged(kafka, run, latency_ms, "").require()
                green.add((run, latency_ms))
            judge = judged(kafka, run, latency_ms, step)
            print(f"{step} left out: {', '.join(judge.names()) or 'green'}", flush=True)
            for _, text in judge.violations[:2]:
                print(f"    {text}")
            assert wanted <= set(judge.names()), f"without {step}: expected {wanted}"


if __name__ == "__main__":
    main()
