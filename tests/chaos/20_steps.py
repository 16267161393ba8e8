"""genq kills itself at each step of a job's life (base/test_hook.h); after the next start the verdict
is green: first `genq up`, for finish, due and cancel, then `genq batch run`."""
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import Folder, Lives, Process, Stub, check_sane, mono_us, write_config  # noqa: E402

FINISH = ("start_journalled", "called", "answered", "published", "acked")
DUE = ("due_read", "due_published")
CANCEL = ("cancel_seen",)


def jobs(n, **more):
    return [{"id": f"j{i}", "model": "stub", "prompt": f"key=j{i} go", **more} for i in range(n)]


def until_death(lives, step, nth, post):
    """Gives whether the process died while `post` was at work."""
    lives.start(GENQ_CRASH_AT=f"{step}:{nth}")
    try:
        post()
    except OSError:
        pass
    lives.wait_death()


def check(lives, n_jobs):
    """The next life brings all to their ends."""
    lives.start()
    try:
        lives.post(jobs(n_jobs))  # those of which no answer came back
    except AssertionError as e:
        raise AssertionError(f"repeat refused: {e}")
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    lives.judge.require()
    assert len(lives.judge.ends) == n_jobs, f"{len(lives.judge.ends)} jobs ended, not {n_jobs}"


def finish(folder, step, nth):
    lives = Lives(folder, f"{step}-{nth}", Judge, "--latency-ms", 2, "--jitter-ms", 8)
    until_death(lives, step, nth, lambda: lives.post(jobs(80)))
    check(lives, 80)


def due(folder, step, nth):
    lives = Lives(folder, f"{step}-{nth}", Judge, "--latency-ms", 2)

    def post():
        lives.post([dict(j, not_before=at + 5 * i) for i, j in enumerate(jobs(40))])
    at = int(time.time() * 1000) + 300
    until_death(lives, step, nth, post)
    lives.start()
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    lives.judge.require()
    assert len(lives.judge.ends) == 40


def cancel(folder, step, nth):
    """Ten running, ten waiting, ten for later: half of each is cancelled."""
    lives = Lives(folder, f"{step}-{nth}", Judge, "--latency-ms", 400, slots=10)
    cancelled = set()

    def post():
        lives.post(jobs(20) + [dict(j, not_before=int(time.time() * 1000) + 1500)
                               for j in jobs(30)[20:]])
        for i in range(0, 30, 2):
            cancelled.add(f"j{i}")
            status, _ = lives.server.ask("DELETE", f"/api/v1/jobs/j{i}")
            assert status == 202, status
            lives.judge.cancelled[f"j{i}"] = mono_us()
    until_death(lives, step, nth, post)
    lives.start()
    for i in range(0, 30, 2):
        status, _ = lives.server.ask("DELETE", f"/api/v1/jobs/j{i}")
        assert status in (202, 409), status
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    lives.judge.require()
    ended = {e.id: e.status for e in lives.judge.ends}
    assert all(ended[f"j{i}"] == ("cancelled" if i % 2 == 0 else "succeeded") for i in range(30)), \
        ended


def batch(folder, step, nth):
    stub = Stub(folder, "--latency-ms", 3, "--jitter-ms", 3, name=f"batch-{step}-{nth}")
    config = write_config(folder(f"batch-{step}-{nth}.yaml"), stub.url)
    inz, outz = folder(f"{step}-{nth}.in"), folder(f"{step}-{nth}.out")
    prompts = [f"key=b{i} go" for i in range(300)]
    with open(inz, "w") as f:
        for i, p in enumerate(prompts):
            f.write(json.dumps({"model": "stub", "prompt": p, "custom_id": f"b{i}"}) + "\n")
    judge = Judge(outz + ".genq", stub.log)
    for env, wanted in (({"GENQ_CRASH_AT": f"{step}:{nth}"}, -signal.SIGKILL), ({}, 0)):
        judge.started(mono_us())
        p = Process(["--config", config, "batch", "run", inz, "-o", outz], folder("batch.err"), env)
        code = p.wait(60)
        check_sane(p)
        assert code == wanted, f"exit code {code}, not {wanted}"
        stub.settle()
        judge.ended(p.killed_us, bool(env))
    judge.verdict()
    judge.check_output(outz, [(f"b{i}", "echo: " + p) for i, p in enumerate(prompts)])
    judge.require()


def main():
    folder = Folder("steps")
    for run, steps, counts in ((finish, FINISH, (1, 30)), (due, DUE, (1, 9)),
                               (cancel, CANCEL, (1, 8)), (batch, FINISH, (1, 60))):
        for step in steps:
            for nth in counts:
                # publishes and their acknowledgements are one for many jobs
                nth = min(nth, 3) if step in ("published", "acked") + DUE else nth
                print(f"{run.__name__} {step}:{nth}: ", end="", flush=True)
                run(folder, step, nth)
    folder.remove()


if __name__ == "__main__":
    main()
