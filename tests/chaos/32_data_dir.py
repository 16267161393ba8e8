"""A data directory that is in use, damaged, another program's, or a newer genq's: refused with a clear
message and an exit code, and left byte for byte as it was."""
import hashlib
import json
import os
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import RANDOM, Folder, Lives, Process, check_sane  # noqa: E402


def jobs(n, head="j"):
    return [{"id": f"{head}{i}", "model": "stub", "prompt": f"key={head}{i} go"} for i in range(n)]


def fingerprint(folder):
    """Every file's bytes, but for the lock, which is genq's to take, and what SQLite makes to look
    into a file with a write-ahead log: its index and an empty log."""
    found = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name == "lock" or name.endswith("-shm") or (name.endswith("-wal") and
                                                       os.path.getsize(path) == 0):
            continue
        with open(path, "rb") as f:
            found[name] = hashlib.sha256(f.read()).hexdigest()
    return found


def refused(folder, lives, data, words, name):
    """`up` and `batch run` on it: no start, a message with one of the words, nothing touched."""
    inz = folder("in.jsonl")
    with open(inz, "w") as f:
        f.write(json.dumps(jobs(1)[0]) + "\n")
    before = fingerprint(data)
    outz = folder("refused.out")
    for arguments in (["up", "--data", data, "--listen", "127.0.0.1:0"],
                      ["batch", "run", inz, "-o", outz, "--data", data]):
        p = Process(["--config", lives.config, *arguments], folder("refused.err"))
        code = p.wait(30)
        check_sane(p)
        said = p.words()
        print(f"{name}: {arguments[0]}: exit {code}: {said.strip().splitlines()[-1][:200]}",
              flush=True)
        assert code == 3, f"{name}: exit code {code}"
        assert any(w in said for w in words), f"{name}: expected one of {words}: {said}"
        after = fingerprint(data)
        assert after == before, f"{name}: {[n for n in after | before if after.get(n) != before.get(n)]}"
        assert not os.path.exists(outz), f"{name}: an output was made"


def in_use(folder, lives):
    lives.start()
    lives.post(jobs(20, "a"))
    p = Process(["--config", lives.config, "up", "--data", lives.data, "--listen", "127.0.0.1:0"],
                folder("second.err"))
    code = p.wait(30)
    assert code == 1 and "another genq has" in p.words(), f"{code}: {p.words()}"
    inz = folder("second.jsonl")
    with open(inz, "w") as f:
        f.write('{"model":"stub","prompt":"x"}\n')
    for more in ([], ["--fresh"]):
        p = Process(["--config", lives.config, "batch", "run", inz, "-o", folder("second.out"),
                     "--data", lives.data, *more], folder("second.err"))
        code = p.wait(30)
        assert code == 1 and ("another genq has" in p.words() or "in use" in p.words()), \
            f"{code}: {p.words()}"
    lives.post(jobs(20, "b"))
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    lives.judge.require()
    assert len(lives.judge.ends) == 40


def damaged(path, how):
    with open(path, "r+b") as f:
        size = os.path.getsize(path)
        if how == "zero header":
            f.write(bytes(100))
        elif how == "cut short":
            f.truncate(size // 2 // 4096 * 4096)
        elif how == "cut inside a page":
            f.truncate(size // 2 // 4096 * 4096 + 1000)
        elif how == "random header":
            f.write(RANDOM.randbytes(100))
        elif how == "schema page":
            f.seek(100)
            f.write(RANDOM.randbytes(3996))
        elif how == "empty":
            f.truncate(0)


def corrupt(folder, lives):
    words = ("genq.db",)
    for how in ("zero header", "cut short", "cut inside a page", "random header", "schema page"):
        data = folder("corrupt")
        shutil.copytree(lives.data, data)
        damaged(os.path.join(data, "genq.db"), how)
        refused(folder, lives, data, words, how)
        shutil.rmtree(data)


def scribbled(folder, lives):
    """Random bytes over the first page of each table and index: told at the start or when it is met,
    and the end of the run; never a crash, and never a run that goes on and on."""
    db = sqlite3.connect(os.path.join(lives.data, "genq.db"))
    trees = db.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 1").fetchall()
    db.close()
    inz = folder("scribbled.jsonl")
    with open(inz, "w") as f:
        f.writelines(json.dumps(dict(j, custom_id=j["id"])) + "\n" for j in jobs(40, "s"))
    n_told = 0
    for n, (name, page) in enumerate(trees):
        data = folder("scribbled")
        shutil.copytree(lives.data, data)
        with open(os.path.join(data, "genq.db"), "r+b") as f:
            f.seek(4096 * (page - 1))
            f.write(RANDOM.randbytes(4096))
        p = Process(["--config", lives.config, "batch", "run", inz, "-o", folder(f"s{n}.out"),
                     "--data", data], folder("scribbled.err"))
        code = p.wait(30)
        check_sane(p)
        last = (p.words().strip().splitlines() or [""])[-1]
        print(f"{name} scribbled: exit {code}: {last}"[:250], flush=True)
        if code == 0:  # it is not needed for this
            judge = Judge(data, lives.stub.log)
            judge.check_output(folder(f"s{n}.out"),
                               [(f"s{i}", f"echo: key=s{i} go") for i in range(40)])
            assert not judge.violations, judge.violations
        else:
            assert code == 3 and "genq.db" in last and "no batch" not in p.words(), p.words()
            n_told += 1
        shutil.rmtree(data)
    assert n_told > len(trees) // 2, f"{n_told} of {len(trees)}"


def damaged_under_way(folder, lives):
    """The pages go bad under a server that runs: it says so, and ends."""
    data = folder("under-way")
    big = "x" * 30000  # past SQLite's cache, so that pages are read again
    server = Lives(folder, "under-way", Judge, "--latency-ms", 40, data=data, slots=4,
                   worker="{prefetch: 10}")
    server.start()
    server.post([dict(j, prompt=j["prompt"] + big) for j in jobs(300, "w")])
    for head in ("x", "y", "z"):
        server.post([dict(j, prompt=j["prompt"] + big) for j in jobs(300, head)])
    path = os.path.join(data, "genq.db")
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # else the log has newer pages
    db.close()
    with open(path, "r+b") as f:
        for at in range(50 * 4096, os.path.getsize(path), 4096):
            f.seek(at)
            f.write(RANDOM.randbytes(4096))
    code = server.server.wait(60)
    check_sane(server.server)
    last = server.server.words().strip().splitlines()[-1]
    print(f"damaged under way: exit {code}: {last}"[:250], flush=True)
    assert code == 3 and "genq.db is damaged" in last, server.server.words()[-2000:]


def foreign(folder, lives):
    for mode in ("DELETE", "WAL"):
        data = folder("foreign")
        os.mkdir(data)
        db = sqlite3.connect(os.path.join(data, "genq.db"))
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("CREATE TABLE mine(x)")
        db.executemany("INSERT INTO mine VALUES(?)", [(i,) for i in range(1000)])
        db.commit()
        db.close()
        refused(folder, lives, data, ("another program",), f"foreign, {mode}")
        shutil.rmtree(data)
    data = folder("text")
    os.mkdir(data)
    with open(os.path.join(data, "genq.db"), "w") as f:
        f.write("not a database at all\n" * 1000)
    refused(folder, lives, data, ("genq.db",), "a text file")


def newer(folder, lives):
    data = folder("newer")
    shutil.copytree(lives.data, data)
    db = sqlite3.connect(os.path.join(data, "genq.db"))
    db.execute("PRAGMA user_version=99")
    db.commit()
    db.close()
    refused(folder, lives, data, ("newer genq",), "newer version")


def unwritable(folder, lives):
    """The path is a file, or its folder is missing where none can be made."""
    path = folder("a-file")
    with open(path, "w") as f:
        f.write("x")
    p = Process(["--config", lives.config, "up", "--data", os.path.join(path, "data")],
                folder("refused.err"))
    code = p.wait(30)
    assert code in (1, 2) and "a-file" in p.words(), f"{code}: {p.words()}"


def main():
    folder = Folder("data_dir")
    lives = Lives(folder, "first", Judge, "--latency-ms", 30, worker="{drain_ms: 300}")
    in_use(folder, lives)
    corrupt(folder, lives)
    scribbled(folder, lives)
    damaged_under_way(folder, lives)
    foreign(folder, lives)
    newer(folder, lives)
    unwritable(folder, lives)
    folder.remove()


if __name__ == "__main__":
    main()
