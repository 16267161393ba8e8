"""The power goes off again and again: genq runs on a directory of which power_cut.c keeps what was
really made durable, is killed, and goes on from that. With `sync: full` every job answered 201 is there
and ends once, and a batch run's output comes out right; with `sync: normal` the database opens."""
import json
import os
import shutil
import sqlite3
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import (IS_SLOW, NO_ANSWER, RANDOM, Folder, Process, Server, Stub, Thread,  # noqa: E402
                 check_sane, mono_us, n_kills, skip, wait_for, write_config)

LIBRARY = os.environ.get("POWER_CUT", os.path.join(os.environ.get("BINARY_DIR", "."),
                                                   "libpower_cut.so"))
CUTS = n_kills(12 if IS_SLOW else 24)
TORN = (0, 30, 90)


class Disk:
    """A directory that loses, at each cut, what was not made durable."""

    def __init__(self, folder, name):
        self.folder, self.name, self.n = folder, name, 0
        self.path = folder(f"{name}0")
        os.mkdir(self.path)

    def env(self):
        """For a process that writes to self.path."""
        self.shadow = self.folder(f"{self.name}-shadow")
        shutil.rmtree(self.shadow, ignore_errors=True)
        os.mkdir(self.shadow)
        return {"LD_PRELOAD": LIBRARY, "POWER_CUT_REAL": self.path, "POWER_CUT_DISK": self.shadow,
                "POWER_CUT_TORN": str(RANDOM.choice(TORN)),
                "POWER_CUT_SEED": str(RANDOM.randrange(1 << 30)),
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def cut(self):
        """The process is dead: from here on self.path is what the disk has."""
        if not os.path.exists(os.path.join(self.shadow, "ready")):
            return  # it had not begun
        tree, dirs = os.path.join(self.shadow, "tree"), os.listdir(os.path.join(self.shadow, "dirs"))
        self.n += 1
        old, self.path = self.path, self.folder(f"{self.name}{self.n}")
        shutil.copytree(tree, self.path)  # copies: the shadow's are links
        for base, names, _ in os.walk(self.path):
            for name in list(names):
                below = os.path.join(base, name)[len(self.path):]
                if below.replace("/", "%") not in dirs:
                    shutil.rmtree(os.path.join(base, name))
                    names.remove(name)
        shutil.rmtree(old)


def check_opens(path):
    if not os.path.exists(path):
        return
    db = sqlite3.connect(path)
    found = db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    assert found == [("ok",)], f"after the cut: {found[:3]}"


class Client:
    """Posts jobs, one or a few at a time, and remembers what was promised."""

    def __init__(self):
        self.accepted, self.seen, self.n = [], {}, 0
        self.lost = []  # to be posted again

    def work(self, server):
        while True:
            jobs = [{"id": f"p{self.n + i}", "model": "stub", "prompt": f"key=p{self.n + i} go"}
                    for i in range(RANDOM.choice((1,) * 12 + (5, 40)))]
            self.n += len(jobs)
            try:
                status, reply = server.ask("POST", "/api/v1/jobs", jobs if len(jobs) > 1 else jobs[0])
                if status in (200, 201):
                    self.accepted += [j["id"] for j in jobs]
                status, page = server.ask("GET", f"/api/v1/completions?after={len(self.seen)}"
                                                 "&limit=1000")
                if status == 200:
                    for i, j in enumerate(page["data"], len(self.seen)):
                        self.seen[i] = (j["id"], j["status"])
            except NO_ANSWER:
                return


def up(folder, sync):
    stub = Stub(folder, "--latency-ms", 5, "--jitter-ms", 5, name=f"up-{sync}")
    config = write_config(folder(f"up-{sync}.yaml"), stub.url,
                          broker=f"{{kind: sqlite, sync: {sync}}}")
    disk, client = Disk(folder, f"up-{sync}"), Client()
    judge = Judge(os.path.join(disk.path, "data"), stub.log)
    judge.has_journal = False
    for i in range(CUTS + 1):
        if sync == "normal":
            client = Client()
            client.n = i * 1000000
            judge = Judge(os.path.join(disk.path, "data"), stub.log)
        judge.started(mono_us())
        server = Server(folder, config, os.path.join(disk.path, "data"), disk.env(), "up.err")
        if i == CUTS:
            break
        server_up(server)
        thread = Thread(client.work, server)
        time.sleep(RANDOM.uniform(0.0, 0.3) * (3 if IS_SLOW else 1))
        assert server.kill(), server.words()[-2000:]
        thread.join(30)
        check_sane(server)
        stub.settle()
        disk.cut()
        check_opens(os.path.join(disk.path, "data", "genq.db"))
        judge.data = os.path.join(disk.path, "data")
        if sync == "full":
            judge.ended(server.killed_us, True)
    server_up(server)
    wait_for("all jobs' ends", 60, lambda: server.unfinished() == 0)
    assert server.stop() == 0
    check_sane(server)
    if sync == "normal":
        print(f"sync: normal: {CUTS} cuts, the database was whole after each")
        return
    judge.ended(server.killed_us, False)
    judge.verdict()
    ended = {e.id for e in judge.ends}
    for id_ in client.accepted:
        if id_ not in ended:
            judge.violate("open", f"{id_} was answered 201 and is lost")
    for i, who in client.seen.items():
        e = judge.ends[i] if i < len(judge.ends) else None
        if not e or (e.id, e.status) != who:
            judge.violate("changed", f"the feed gave {who} at {i}, it is {e}")
    print(f"sync: full: {CUTS} cuts, {len(client.accepted)} accepted, {len(client.seen)} completions "
          "seen; ", end="")
    judge.require()


def server_up(server):
    try:
        server.wait_up()
    except AssertionError:
        print(server.words()[-2000:])
        raise


def batch(folder):
    stub = Stub(folder, "--latency-ms", 20, "--jitter-ms", 20, name="batch")
    config = write_config(folder("batch.yaml"), stub.url)
    disk = Disk(folder, "batch")
    inz = folder("batch.in")
    lines = [f"a{i}" for i in range(1500)]
    judge = Judge(os.path.join(disk.path, "out.genq"), stub.log)
    judge.has_journal = False
    n_cuts, all_keys = 0, set()
    for i in range(CUTS + 1):
        if i % 4 == 3:  # what an earlier output begins with changes, and comes back
            lines = [f"b{i}-0", *lines] if lines[0][0] == "a" else lines[1:]
        all_keys.update(lines)
        with open(inz, "w") as f:
            f.writelines(json.dumps({"model": "stub", "prompt": f"key={k} go", "custom_id": k}) + "\n"
                         for k in lines)
        is_last = i == CUTS
        judge.started(mono_us())
        p = Process(["--config", config, "batch", "run", inz, "-o", os.path.join(disk.path, "out"),
                     "--data", os.path.join(disk.path, "out.genq")], folder("batch.err"), disk.env())
        was_killed = not is_last and p.wait_or_kill(RANDOM.uniform(0.05, 0.5) *
                                                    (3 if IS_SLOW else 1))
        if not was_killed:
            code = p.wait(120)
            assert code == 0, f"exit code {code}: {p.words()[-1000:]}"
        check_sane(p)
        stub.settle()
        disk.cut()  # also after a good end: what it wrote must be there
        n_cuts += 1
        check_opens(os.path.join(disk.path, "out.genq", "genq.db"))
        judge.data = os.path.join(disk.path, "out.genq")
        judge.ended(p.killed_us, was_killed)
    judge.verdict(left_over=all_keys - set(lines))
    judge.check_output(os.path.join(disk.path, "out"), [(k, f"echo: key={k} go") for k in lines])
    print(f"batch run: {n_cuts} cuts; ", end="")
    judge.require()


def main():
    if not os.path.exists(LIBRARY):
        skip(f"{LIBRARY} is not built")
    folder = Folder("power_cut")
    up(folder, "full")
    batch(folder)
    up(folder, "normal")
    folder.remove()


if __name__ == "__main__":
    main()
