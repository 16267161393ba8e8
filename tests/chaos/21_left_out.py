"""Proof that the verdict means something: with one step of a job's life left out (GENQ_SKIP, see
base/test_hook.h), the same run that is green without it turns red, and by the check that is meant for
it."""
import os
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import Folder, Lives, mono_us, wait_for  # noqa: E402


IDLE_S = 12  # what has not come to its end by then never does


def jobs(n, **more):
    return [{"id": f"j{i}", "model": "stub", "prompt": f"key=j{i} go", **more} for i in range(n)]


def to_the_end(lives, env):
    """A last life, which may leave things open."""
    lives.start(**env)
    try:
        lives.wait_idle(IDLE_S)
    except AssertionError:
        pass
    time.sleep(1)  # what was finished without a successor is deleted within 50 ms
    lives.stop()


def plain(lives, env):
    lives.start(**env)
    lives.post(jobs(40))
    try:
        lives.wait_idle(IDLE_S)
    except AssertionError:
        pass
    lives.kill()
    to_the_end(lives, env)


def in_flight_thrice(lives, env):
    for i in range(3):
        lives.start(**env)
        if i == 0:
            lives.post(jobs(3))
        n = lives.calls_seen()
        try:
            wait_for("the jobs in flight", IDLE_S, lambda: lives.stub.stats()["in_flight"] == 3)
        except AssertionError:
            assert lives.calls_seen() == n  # poison: they do not run again
        lives.kill()
    to_the_end(lives, env)


def later(lives, env):
    lives.start(**env)
    lives.post(jobs(20, not_before=int(time.time() * 1000) + 3000))
    try:
        wait_for("half of the calls", 3 + IDLE_S, lambda: lives.calls_seen() >= 10)
    except AssertionError:
        pass  # without its source a due job is a repeat
    lives.kill()
    to_the_end(lives, env)


def cancelled(lives, env):
    lives.start(**env)
    lives.post(jobs(4))
    wait_for("the jobs in flight", 30, lambda: lives.stub.stats()["in_flight"] == 4)
    for i in range(4):
        status, _ = lives.server.ask("DELETE", f"/api/v1/jobs/j{i}")
        assert status == 202, status
        lives.judge.cancelled[f"j{i}"] = mono_us()
    wait_for("the calls' end", 30, lambda: lives.stub.stats()["in_flight"] == 0)
    lives.stop()


def log_refuses(lives, env):
    """No file may grow while the answers come; then it may again."""
    lives.start(**env)
    lives.post(jobs(8))
    wait_for("the jobs in flight", 30, lambda: lives.stub.stats()["in_flight"] == 8)
    pid = lives.server.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    wait_for("the answers", 30, lambda: lives.stub.stats()["sent"] == 8)
    wait_for("the failure to write", 30, lambda: "publish_failed" in lives.server.words())
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        lives.wait_idle(IDLE_S)
    except AssertionError:
        pass
    lives.stop()


# step left out, run, latency of the engine in ms, the checks of which one must catch it
CASES = (
    ("journal", in_flight_thrice, 4000, {"poison"}),
    ("source", plain, 5, {"open", "repeat"}),
    ("finish_publish", plain, 5, {"open"}),
    ("due_source", later, 5, {"open"}),
    ("cancel_abort", cancelled, 10000, {"cancel"}),
    ("ack", log_refuses, 4000, {"open", "ledger"}),
)


def judged(folder, name, run, latency_ms, env):
    lives = Lives(folder, name, Judge, "--latency-ms", latency_ms)
    run(lives, env)
    lives.judge.verdict()
    return lives.judge


def main():
    folder = Folder("left_out")
    for step, run, latency_ms, wanted in CASES:
        judge = judged(folder, f"{step}-in", run, latency_ms, {})
        print(f"{step} done: green; ", end="")
        judge.require()
        judge = judged(folder, f"{step}-out", run, latency_ms, {"GENQ_SKIP": step})
        print(f"{step} left out: {', '.join(judge.names()) or 'green'}", flush=True)
        for _, text in judge.violations[:2]:
            print(f"    {text}")
        assert wanted <= set(judge.names()), f"without {step}: expected {wanted}"
    folder.remove()


if __name__ == "__main__":
    main()
