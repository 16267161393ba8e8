"""The disk fills up under genq and is freed again: a clear message, no crash, POST answers 503, nothing
that was paid for is lost, and everything ends. Needs root, for a small disk of its own."""
import atexit
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import (NO_ANSWER, Folder, Lives, Process, Stub, check_sane, mono_us, skip,  # noqa: E402
                 wait_for, write_config)

DISK_MIB = 32


def make_disk(folder, name):
    path = folder(name)
    os.mkdir(path)
    if os.geteuid() != 0:
        skip("a disk can only be mounted by root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", path],
                          capture_output=True)
    if done.returncode != 0:
        skip(f"no disk can be mounted: {done.stderr.decode().strip()}")
    atexit.register(subprocess.run, ["umount", "-l", path], capture_output=True)
    return path


class Ballast:
    """A file that takes all the room there is."""

    def __init__(self, disk):
        self.path = os.path.join(disk, "ballast")

    def fill(self, leave=0):
        """Again and again: what is freed meanwhile is taken as well."""
        with open(self.path, "ab", buffering=0) as f:
            for size in (65536, 4096, 512, 1):
                try:
                    while leave <= 0 or os.statvfs(self.path).f_bavail * 4096 > leave + size:
                        f.write(b"x" * size)
                except OSError:
                    pass

    def free(self):
        os.unlink(self.path)


def batch(folder):
    disk = make_disk(folder, "batch-disk")
    stub = Stub(folder, "--latency-ms", 10, "--jitter-ms", 10, name="batch-stub")
    config = write_config(folder("batch.yaml"), stub.url)
    inz, outz = folder("in"), os.path.join(disk, "out")
    keys = [f"f{i}" for i in range(2500)]
    with open(inz, "w") as f:
        f.writelines(json.dumps({"model": "stub", "prompt": f"key={k} go", "custom_id": k}) + "\n"
                     for k in keys)
    judge, ballast = Judge(outz + ".genq", stub.log), Ballast(disk)
    judge.started(mono_us())
    p = Process(["--config", config, "batch", "run", inz, "-o", outz], folder("batch.err"))
    wait_for("a part of the run", 60, lambda: stub.stats()["sent"] > 300)
    ballast.fill()
    end = time.monotonic() + 30
    while "full" not in p.words() and time.monotonic() < end:
        ballast.fill()
        time.sleep(0.05)
        assert p.process.poll() is None, f"ended with {p.process.returncode}:\n{p.words()}"
    assert "full" in p.words(), f"no word of a full disk:\n{p.words()}"
    time.sleep(1.5)  # through some of its retries
    assert p.process.poll() is None, f"ended with {p.process.returncode}:\n{p.words()}"
    before = stub.stats()["sent"]
    ballast.free()
    code = p.wait(120)
    check_sane(p)
    assert code == 0, f"exit code {code}:\n{p.words()[-2000:]}"
    judge.ended(p.killed_us, False)
    judge.verdict()
    judge.check_output(outz, [(k, f"echo: key={k} go") for k in keys])
    print(f"batch run, full after {before} answers: ", end="")
    judge.require()
    assert stub.stats()["sent"] == len(keys), "an answer was lost, and asked for again"


def batch_killed(folder):
    """Killed while the disk is full; the next run, with room, ends it."""
    disk = make_disk(folder, "killed-disk")
    stub = Stub(folder, "--latency-ms", 10, "--jitter-ms", 10, name="killed-stub")
    config = write_config(folder("killed.yaml"), stub.url)
    inz, outz = folder("in"), os.path.join(disk, "out")
    keys = [f"f{i}" for i in range(2500)]
    judge, ballast = Judge(outz + ".genq", stub.log), Ballast(disk)
    judge.data = outz + ".genq"
    judge.started(mono_us())
    p = Process(["--config", config, "batch", "run", inz, "-o", outz], folder("batch.err"))
    wait_for("a part of the run", 60, lambda: stub.stats()["sent"] > 300)
    end = time.monotonic() + 30
    while "full" not in p.words() and time.monotonic() < end:
        ballast.fill()
        time.sleep(0.05)
    assert p.kill(), p.words()
    check_sane(p)
    stub.settle()
    # a start without any room: an error, not a crash
    p2 = Process(["--config", config, "batch", "run", inz, "-o", outz], folder("batch.err"))
    time.sleep(1)
    if p2.process.poll() is None:
        p2.process.send_signal(signal.SIGTERM)
    code = p2.wait(60)
    check_sane(p2)
    assert code == 1 and p2.words().strip(), f"exit code {code}: {p2.words()}"
    print(f"a start on a full disk: {p2.words().strip().splitlines()[-1][:150]}")
    ballast.free()
    stub.settle()
    judge.ended(p.killed_us, True)  # copies: they need no room there
    judge.started(mono_us())
    p = Process(["--config", config, "batch", "run", inz, "-o", outz], folder("batch.err"))
    code = p.wait(120)
    check_sane(p)
    assert code == 0, f"exit code {code}:\n{p.words()[-2000:]}"
    judge.ended(p.killed_us, False)
    judge.verdict()
    judge.check_output(outz, [(k, f"echo: key={k} go") for k in keys])
    print("batch run, killed on a full disk: ", end="")
    judge.require()


def post(lives, key, n_bytes=600):
    """The status, or None where there was no answer."""
    job = {"id": key, "model": "stub", "prompt": f"key={key} " + "x" * n_bytes}
    try:
        return lives.server.ask("POST", "/api/v1/jobs", job)
    except NO_ANSWER:
        return None, None


def up(folder, by_reserve):
    """by_reserve: limits.disk_free_bytes keeps room for the results of what was accepted."""
    name = "reserve" if by_reserve else "up"
    disk = make_disk(folder, f"{name}-disk")
    lives = Lives(folder, name, Judge, "--latency-ms", 100, data=os.path.join(disk, "data"),
                  limits=f"{{disk_free_bytes: {3 << 20 if by_reserve else 0}}}")
    ballast, accepted, refused = Ballast(disk), set(), set()
    lives.start()
    for i in range(200):
        status, _ = post(lives, f"u{i}")
        assert status == 201, status
        accepted.add(f"u{i}")
    ballast.fill(2 << 20 if by_reserve else 0)
    if by_reserve:  # it looks at the disk once a second
        wait_for("a disk seen as full", 5, lambda: lives.server.ask("GET", "/readyz")[0] == 503)
    end = time.monotonic() + 20
    while len(refused) < 20 and time.monotonic() < end:
        key = f"v{len(accepted) + len(refused)}"
        status, reply = post(lives, key)
        assert status in (201, 503), f"{status} {reply}"
        (accepted if status == 201 else refused).add(key)
        if not by_reserve:
            ballast.fill()
    assert len(refused) == 20, "no 503 on a full disk"
    status, reply = post(lives, "w")
    assert status == 503 and "disk" in reply["error"]["message"], reply
    assert not by_reserve or "limits.disk_free_bytes" in reply["error"]["message"], reply
    print(f"{name}: 503: {reply['error']['message']}")
    ready, checks = lives.server.ask("GET", "/readyz")
    assert ready == 503, f"{ready} {checks}"
    assert lives.server.ask("GET", "/healthz")[0] == 200
    assert lives.server.ask("GET", "/api/v1/jobs?limit=5")[0] == 200, "reading needs no room"
    time.sleep(1)
    ballast.free()
    wait_for("readiness, with room", 20, lambda: lives.server.ask("GET", "/readyz")[0] == 200)
    for key in sorted(refused):
        status, reply = post(lives, key)
        assert status in (200, 201), f"{status} {reply}"
        accepted.add(key)
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    ended = {e.id: e for e in lives.judge.ends}
    for key in accepted:
        if key not in ended or ended[key].status != "succeeded":
            lives.judge.violate("open", f"{key}: {ended.get(key)}")
    print(f"{name}: {len(accepted)} accepted: ", end="")
    lives.judge.require()


def main():
    folder = Folder("disk_full")
    batch(folder)
    batch_killed(folder)
    up(folder, False)
    up(folder, True)
    folder.remove()


if __name__ == "__main__":
    main()
