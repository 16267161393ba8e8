"""The disk is full for just one write, and has room for all others: the record that makes a batch, and
the note of how far a batch run's output is. full_disk.c picks the write."""
import http.client
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge  # noqa: E402
from rig import Folder, Lives, Process, Stub, check_sane, mono_us, skip, wait_for, write_config  # noqa: E402

LIBRARY = os.environ.get("FULL_DISK_LIBRARY",
                         os.path.join(os.environ.get("BINARY_DIR", "."), "libfull_disk.so"))


class Full:
    """The one write: to files whose names end so."""

    def __init__(self, folder, name, tail):
        self.path, self.tail = folder(f"{name}.full"), tail
        self.met = self.path + ".met"

    def env(self):
        return {"LD_PRELOAD": LIBRARY, "FULL_DISK": self.path, "FULL_DISK_NAME": self.tail,
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def start(self):
        with open(self.path, "w"):
            pass

    def wait_met(self, what):
        wait_for(what, 20, lambda: os.path.exists(self.met))

    def end(self):
        """The write is refused, and there is room again."""
        os.unlink(self.met)
        os.unlink(self.path)


def line(key):
    return json.dumps({"model": "stub", "prompt": f"key={key} go", "custom_id": key}) + "\n"


def upload(folder):
    """Lines that reach the log behind a batch that was not made may not run without it."""
    full = Full(folder, "upload", "genq.db-wal")
    lives = Lives(folder, "upload", Judge, "--latency-ms", 5)
    lives.start(**full.env())
    keys = [f"u{i}" for i in range(600)]
    c = http.client.HTTPConnection("127.0.0.1", lives.server.port, timeout=20)
    c.putrequest("POST", "/api/v1/batches?id=one")
    c.putheader("Transfer-Encoding", "chunked")
    c.endheaders()

    def send(text):
        c.send(f"{len(text):x}\r\n{text}\r\n".encode())

    full.start()
    send(line(keys[0]))
    full.wait_met("the batch's record on its way to the disk")
    send("".join(line(k) for k in keys[1:]))
    c.send(b"0\r\n\r\n")
    time.sleep(0.3)  # nothing tells that the lines do not go out
    full.end()
    r = c.getresponse()
    reply = json.loads(r.read())
    assert r.status == 503 and r.getheader("Retry-After"), f"{r.status} {reply}"
    assert "disk" in reply["error"]["message"] and reply["accepted"] == 0, reply
    print(f"upload: 503: {reply['error']['message']}")
    status, jobs = lives.server.ask("GET", "/api/v1/jobs?limit=5")
    assert status == 200 and jobs["data"] == [], f"jobs of a batch that is not there: {jobs}"
    assert lives.server.ask("GET", "/api/v1/batches/one")[0] == 404
    status, reply = lives.server.ask("POST", "/api/v1/batches?id=one", "".join(map(line, keys)))
    assert status == 201 and reply["total"] == len(keys), f"{status} {reply}"
    lives.wait_idle()
    lives.stop()
    lives.judge.verdict()
    print("upload, repeated: ", end="")
    lives.judge.require()
    assert len(lives.judge.ends) == len(keys)


class Run:
    """`batch run` whose input the test writes as it goes."""

    def __init__(self, folder, name, tail):
        self.full = Full(folder, name, tail)
        self.stub = Stub(folder, "--latency-ms", 5, name=f"{name}-stub")
        self.inz, self.outz = folder(f"{name}.in"), folder(f"{name}.out")
        self.judge = Judge(self.outz + ".genq", self.stub.log)
        self.arguments = ["--config", write_config(folder(f"{name}.yaml"), self.stub.url), "batch",
                          "run", self.inz, "-o", self.outz]
        self.errors = folder(f"{name}.err")
        os.mkfifo(self.inz)
        self.judge.started(mono_us())
        self.process = Process(self.arguments, self.errors, self.full.env())

    def open_input(self):
        self.input = open(self.inz, "w")

    def feed(self, keys):
        self.input.writelines(map(line, keys))
        self.input.flush()

    def wait_answered(self, n):
        wait_for(f"{n} answers", 30, lambda: self.stub.stats()["sent"] >= n)

    def fill_once(self, what):
        self.full.start()
        self.full.wait_met(what)
        self.full.end()

    def require(self, keys):
        """It ends well; and the same command again finds all done, by the mark it left."""
        code = self.process.wait(60)
        check_sane(self.process)
        assert code == 0, f"exit code {code}: {self.process.words()[-2000:]}"
        self.judge.ended(self.process.killed_us, False)
        self.judge.verdict()
        self.judge.check_output(self.outz, [(k, f"echo: key={k} go") for k in keys])
        self.judge.require()
        assert self.stub.stats()["sent"] == len(keys)
        with open(self.outz + ".genq/mark") as f:
            mark = json.load(f)
        assert mark["end"]["lines"] == len(keys), mark
        assert mark["end"]["bytes"] == os.path.getsize(self.outz), mark


def batch_record(folder):
    """`batch run` waits for room, as it does for lines."""
    run = Run(folder, "record", "genq.db-wal")
    wait_for("the run's first mark", 20, lambda: os.path.exists(run.outz + ".genq/mark"))
    run.full.start()
    run.open_input()  # which the run has waited for: the batch's record is next
    run.full.wait_met("the batch's record on its way to the disk")
    run.full.end()
    keys = [f"r{i}" for i in range(300)]
    run.feed(keys)
    run.input.close()
    print("batch record: ", end="")
    run.require(keys)


def mark_of_output(folder):
    """Its mark can be written later; the output is as it is."""
    run = Run(folder, "mark", "/mark.new")
    keys = [f"m{i}" for i in range(900)]
    wait_for("the run's first mark", 20, lambda: os.path.exists(run.outz + ".genq/mark"))
    run.full.start()
    run.open_input()
    run.feed(keys[:300])
    run.full.wait_met("the mark that empties the output")
    run.full.end()
    run.wait_answered(300)
    run.full.start()
    run.feed(keys[300:600])
    run.full.wait_met("the mark of each second")
    run.full.end()
    run.wait_answered(600)
    run.feed(keys[600:])
    run.wait_answered(900)
    run.full.start()
    run.input.close()
    run.full.wait_met("the last mark")
    run.full.end()
    print("mark: ", end="")
    run.require(keys)


def main():
    if not os.path.exists(LIBRARY):
        skip(f"{LIBRARY} is not built")
    folder = Folder("full_once")
    upload(folder)
    batch_record(folder)
    mark_of_output(folder)
    folder.remove()


if __name__ == "__main__":
    main()
