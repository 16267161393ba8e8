"""`genq batch run`: a file of prompts to a file of results, in one process, stopped and killed at any
point, fed through pipes, with lines of all forms and lines that are none."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import IS_SLOW, LIMIT_S, Stub, read_file, run, wait_for  # noqa: E402

GENQ = os.environ["GENQ"]
WELL, SOME_FAILED, USAGE = 0, 1, 2


class Place:
    """A folder with a stub engine, an input and an output."""

    def __init__(self, *stub, config=None, slots=4, has_stub=True):
        self.owner = tempfile.TemporaryDirectory(prefix="genq-run-")
        self.folder = self.owner.name
        self.in_, self.out = self("in.jsonl"), self("out.jsonl")
        self.stub = Stub(self.folder, "stub", *stub) if has_stub else None
        self.children = []
        url = self.stub.url if self.stub else "http://127.0.0.1:1"
        with open(self("genq.yaml"), "w", encoding="utf-8") as f:
            f.write("engines: [{url: '%s', slots: %d}]\n%s" % (url, slots, config or ""))

    def __call__(self, name):
        return os.path.join(self.folder, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        if self.stub:
            self.stub.stop()
        self.owner.cleanup()

    def write(self, lines, name="in.jsonl", end="\n"):
        with open(self(name), "wb") as f:
            for line in lines:
                text = line if isinstance(line, str) else json.dumps(line)
                f.write((text + end).encode())

    def start(self, *arguments, in_=None, out=None, fds=None, **more):
        """The command, left running; its output in files unless told."""
        e = {k: v for k, v in os.environ.items() if not k.startswith("GENQ_")}
        fds = fds or {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                      "stderr": open(self("stderr"), "wb")}
        child = subprocess.Popen([GENQ, "batch", "run", in_ or self.in_, "-o", out or self.out,
                                  *arguments], env=e, cwd=self.folder, **fds, **more)
        self.children.append(child)
        return child

    def run(self, *arguments, code=WELL, limit_s=LIMIT_S * 2, **more):
        """Runs it to its end, which is to have this exit code; gives what it said on stderr."""
        child = self.start(*arguments, **more)
        self.stdout = child.communicate(timeout=limit_s)[0]
        said = read_file(self("stderr"))
        assert child.returncode == code, "exit %d\n%s" % (child.returncode, said)
        return said

    def results(self, name="out.jsonl"):
        with open(self(name), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def texts(self):
        return [(r.get("output") or {}).get("text") for r in self.results()]

    def keys(self, event="recv"):
        return [e[3] for e in self.stub.events(event)]


def prompts(n, prefix="k"):
    return [{"prompt": "key=%s%d" % (prefix, i)} for i in range(n)]


def openai(custom_id, url, body):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


# ---- lines and results

def test_all_forms_of_lines_mixed():
    chat = [{"role": "user", "content": "of a chat"}]
    lines = [{"prompt": "plain"}, {"messages": chat}, {"input": ["a", "b"]},
             {"id": "own-id", "model": "stub", "prompt": "a job", "custom_id": "c", "priority": "high",
              "metadata": {"k": 1}, "max_tokens": 3},
             openai("o1", "/v1/chat/completions", {"model": "stub", "messages": chat, "top_p": 0.5}),
             openai("o2", "/v1/completions", {"prompt": "of OpenAI", "n": 1}),
             openai("o3", "/v1/embeddings", {"model": "stub", "input": ["x", "y"]}),
             {"prompt": "last"}]
    with Place("--jitter-ms", "5") as p:
        p.write(lines)
        p.run("-m", "stub")
        r = p.results()
    assert len(r) == 8
    assert [x.get("batch_line") for x in r] == [0, 1, 2, 3, None, None, None, 7]
    for x in r[:4] + r[7:]:
        assert x["object"] == "job" and x["status"] == "succeeded" and x["error"] is None, x
    assert r[0]["output"]["text"] == "echo: plain" and r[7]["output"]["text"] == "echo: last"
    assert r[1]["output"]["message"]["content"] == "echo: of a chat", r[1]
    assert [len(v) for v in r[2]["output"]["embedding"]] == [4, 4], r[2]
    assert (r[3]["id"], r[3]["custom_id"], r[3]["metadata"], r[3]["priority"]) == \
        ("own-id", "c", {"k": 1}, "high"), r[3]
    for x, custom_id in zip(r[4:7], ("o1", "o2", "o3")):
        assert set(x) == {"id", "custom_id", "response", "error"} and x["error"] is None, x
        assert x["custom_id"] == custom_id and x["id"].startswith("batch_req_"), x
        assert x["response"]["status_code"] == 200 and x["response"]["request_id"], x
        assert x["response"]["body"]["model"] == "stub" and x["response"]["body"]["usage"], x
    bodies = [x["response"]["body"] for x in r[4:7]]
    assert bodies[0]["object"] == "chat.completion", bodies[0]
    assert bodies[0]["choices"][0]["message"] == {"role": "assistant", "content": "echo: of a chat"}
    assert bodies[0]["choices"][0]["finish_reason"] == "stop"
    assert bodies[1]["object"] == "text_completion", bodies[1]
    assert bodies[1]["choices"][0]["text"] == "echo: of OpenAI", bodies[1]
    assert bodies[2]["object"] == "list" and [d["index"] for d in bodies[2]["data"]] == [0, 1]
    assert all(len(d["embedding"]) == 4 for d in bodies[2]["data"]), bodies[2]


def test_failed_openai_lines_have_openais_shape():
    with Place("--fault", "kind=status,code=400,match=wrong") as p:
        p.write([openai("bad", "/v1/completions", {"model": "stub", "prompt": "wrong"})])
        p.run(code=SOME_FAILED)
        line, = p.results()
        assert line["response"] is None and line["custom_id"] == "bad", line
        assert line["error"]["code"] == "invalid_request" and line["error"]["message"], line


def test_results_stand_in_input_order():
    with Place("--jitter-ms", "25", slots=16) as p:
        p.write(prompts(300))
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(300)]
        assert p.keys("sent") != p.keys(), "the answers came in order: the test shows nothing"


def test_the_model_for_lines_without_one():
    with Place("--model", "a", "--model", "b") as p:
        p.write([{"prompt": "key=x"}, {"prompt": "key=y", "model": "b"}])
        p.run("-m", "a")
        assert [r["model"] for r in p.results()] == ["a", "b"]
        assert sorted(r["body"]["model"] for r in p.stub.requests()) == ["a", "b"]
        said = p.run(code=SOME_FAILED)  # the same lines without it
        assert "in.jsonl:1: model is missing" in said, said
        assert [r["status"] for r in p.results()] == ["failed", "succeeded"]


def test_engines_of_the_command_line():
    with Place() as p, Stub(p.folder, "two", "--latency-ms", "5") as two, \
            Stub(p.folder, "three", "--latency-ms", "5") as three:
        p.write(prompts(40))
        p.run("-m", "stub", "--engine", two.url, "--engine", three.url)
        assert not p.keys() and two.events("sent") and three.events("sent")
        assert len(two.events("sent")) + len(three.events("sent")) == 40


def test_a_line_may_wait_for_its_time():
    with Place() as p:
        due = int(time.time() * 1000) + (12000 if IS_SLOW else 4000)
        p.write([{"prompt": "key=later", "not_before": due}, {"prompt": "key=now"}])
        p.run("-m", "stub")
        first, second = p.results()
        assert first["started_at"] >= due > second["started_at"], (first, second)


# ---- stopped, killed, run again

def test_interrupted_and_run_again():
    n_lines = 600  # more than are answered before the signal comes, however late
    for number in (signal.SIGINT, signal.SIGTERM):
        with Place("--latency-ms", "60") as p:
            p.write(prompts(n_lines))
            child = p.start("-m", "stub")
            wait_for(lambda: read_file(p.out).count("\n") >= 9, "some results")
            child.send_signal(number)
            assert child.wait(LIMIT_S) == SOME_FAILED
            said = read_file(p("stderr"))
            assert "the same command goes on where it was" in said, said
            assert sorted(p.keys("sent")) == sorted(p.keys()), "running calls were broken off"
            n = len(p.results())
            assert 9 <= n < n_lines and p.texts() == ["echo: key=k%d" % i for i in range(n)]
            p.stub.latency(0)
            p.run("-m", "stub")
            assert p.texts() == ["echo: key=k%d" % i for i in range(n_lines)]
            assert sorted(p.keys()) == sorted("k%d" % i for i in range(n_lines)), "some ran twice"


def test_a_second_interrupt_stops_at_once():
    with Place("--latency-ms", "100000") as p:
        p.write(prompts(8))
        child = p.start("-m", "stub")
        wait_for(lambda: len(p.keys()) == 4)
        child.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping" in read_file(p("stderr")))
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(LIMIT_S) == SOME_FAILED
        wait_for(lambda: len(p.keys("abort")) == 4)
        p.stub.latency(0)
        p.run("-m", "stub")
        assert len(p.results()) == 8


def n_on_disk(p, state=""):
    """How many of the run's jobs its log has; state: an expression that they fulfil."""
    try:
        db = sqlite3.connect("file:%s.genq/genq.db?mode=ro" % p.out, uri=True)
        count, = db.execute("SELECT count(*) FROM job " + state).fetchone()
        db.close()
        return count
    except sqlite3.OperationalError:  # not made yet
        return 0


HAVE_ENDED = "WHERE state >= 3"


def n_lost_by_killing(p, child):
    """How many calls began, by now, that have left no end on disk: those run again, and no others."""
    child.kill()
    child.wait()
    wait_for(lambda: p.stub.stats()["in_flight"] == 0, "the calls' end")
    return len(p.keys()) - n_on_disk(p, HAVE_ENDED)


def test_killed_again_and_again():
    n, n_kills = 300, 5
    with Place("--latency-ms", "4", "--jitter-ms", "8") as p:
        p.write(prompts(n))
        for kill in range(1, n_kills + 1):
            child = p.start("-m", "stub")
            wait_for(lambda: n_on_disk(p, HAVE_ENDED) >= kill * n // (n_kills + 2), "ends")
            lost = n_lost_by_killing(p, child)
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(n)]
        keys = p.keys()
        assert set(keys) == {"k%d" % i for i in range(n)}
        assert len(keys) == n + lost, (len(keys), lost)
        p.run("-m", "stub")
        assert len(p.keys()) == n + lost, "a finished run was run again"


def test_changed_input_runs_what_is_new():
    with Place() as p:
        p.write(prompts(20))
        p.run("-m", "stub")
        lines = prompts(20)
        changed = [{"prompt": "key=new0"}] + lines[10:] + [{"prompt": "key=k3", "top_k": 2}] + lines[:5]
        p.write(changed)
        p.run("-m", "stub")
        assert p.texts() == ["echo: " + line["prompt"] for line in changed]
        assert [r["batch_line"] for r in p.results()] == list(range(len(changed)))
        assert sorted(p.keys()) == sorted(["k%d" % i for i in range(20)] + ["new0", "k3"])
        p.write(lines + [{"prompt": "key=end"}])  # the old ones again, and one appended
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(20)] + ["echo: key=end"]
        assert len(p.keys()) == 23
        p.write(lines[:3])  # shortened
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(3)] and len(p.keys()) == 23


def kill_under_way(p, *arguments, **more):
    """Killed with four calls under way, and no line that has ended; the engine is fast from then on."""
    child = p.start("-m", "stub", *arguments, **more)
    if child.stdin:
        child.stdin.write("".join(json.dumps(line) + "\n" for line in prompts(30)).encode())
        child.stdin.flush()
    wait_for(lambda: len(p.keys()) == 4, "four calls")
    child.kill()
    child.wait()
    wait_for(lambda: len(p.keys("abort")) == 4, "their end")
    p.stub.latency(1)
    return p.keys()


def test_all_that_is_still_there_goes_on_as_it_is():
    n = 5000
    with Place("--latency-ms", "60000") as p:
        p.write(prompts(n))
        child = p.start("-m", "stub")
        wait_for(lambda: n_on_disk(p) >= 2000, "a full window")
        child.kill()
        child.wait()
        begun = len(p.keys())
        p.stub.latency(0)
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(n)]
        assert not any(".r" in r["id"] for r in p.results()), "a line that was there was cancelled"
        assert len(p.keys()) == begun + n


def test_lines_that_are_gone_are_not_run():
    kept = [{"prompt": "key=new"}] + prompts(30)[3:7] + prompts(30)[20:]
    with Place("--latency-ms", "60000") as p:
        p.write(prompts(30))
        begun = kill_under_way(p)
        p.write(kept)
        said = p.run("-m", "stub")
        assert "failed" not in said, said
        assert p.texts() == ["echo: " + line["prompt"] for line in kept]
        assert not any(".r" in r["id"] for r in p.results()), p.results()
        again = p.keys()[len(begun):]
        assert sorted("key=" + key for key in again) == sorted(line["prompt"] for line in kept), again
        p.write(prompts(30))  # they are back: under their next ids
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(30)]
        assert len(p.keys()) == len(begun) + len(kept) + 30 - (len(kept) - 1)


def test_lines_that_are_gone_are_not_run_where_few_may_queue():
    with Place("--latency-ms", "60000", config="limits: {queued_jobs: 10}\n") as p:
        p.write(prompts(30))
        begun = kill_under_way(p)
        new = prompts(40, "n")
        p.write(new)
        p.run("-m", "stub")
        assert p.texts() == ["echo: " + line["prompt"] for line in new]
        assert all(key.startswith("n") for key in p.keys()[len(begun):])


def test_lines_that_a_pipe_no_longer_gives_are_not_run():
    with Place("--latency-ms", "60000") as p:
        begun = kill_under_way(p, in_="-", fds=pipes())
        child = p.start("-m", "stub", in_="-", fds=pipes())
        child.stdin.write("".join(json.dumps(line) + "\n" for line in prompts(2, "n")).encode())
        child.stdin.flush()  # and not closed: the engine is not kept waiting for ever
        wait_for(lambda: len(p.keys("sent")) == 2, "the new lines")
        child.communicate(json.dumps(prompts(30)[1]).encode(), timeout=LIMIT_S)  # too late for its id
        assert child.returncode == WELL
        assert p.texts() == ["echo: key=n0", "echo: key=n1", "echo: key=k1"]
        assert sorted(p.keys()[len(begun):]) == ["k1", "n0", "n1"]


def test_another_model_is_another_run():
    with Place() as p:
        p.write(prompts(3))
        p.run("-m", "stub")
        p.run("-m", "stub:latest")
        assert [r["model"] for r in p.results()] == ["stub:latest"] * 3 and len(p.keys()) == 6


def test_repeated_lines_each_get_a_result():
    with Place() as p:
        p.write([{"prompt": "key=same"}] * 5 + [{"prompt": "key=other"}] + [{"prompt": "key=same"}] * 2)
        p.run("-m", "stub")
        results = p.results()
        assert len(results) == 8 and len({r["id"] for r in results}) == 8, results
        assert p.keys().count("same") == 7
        p.run("-m", "stub")
        assert len(p.keys()) == 8
        p.write([{"prompt": "key=same"}] * 9)
        p.run("-m", "stub")
        assert len(p.results()) == 9 and p.keys().count("same") == 9


def test_lines_of_one_id():
    """The same job twice is one job; another one of that id runs under the id's next form."""
    lines = [{"id": "one", "prompt": "key=a"}, {"id": "one", "prompt": "key=a"},
             {"id": "one", "prompt": "key=b"}, {"prompt": "key=c"}]
    with Place() as p:
        for _ in range(2):
            p.write(lines)
            p.run("-m", "stub")
            assert p.texts() == ["echo: key=" + k for k in "aabc"]
            assert [r["id"] for r in p.results()[:3]] == ["one", "one", "one.r1"], p.results()
            assert sorted(p.keys()) == ["a", "b", "c"], p.keys()


def test_a_changed_line_with_its_own_id():
    with Place() as p:
        for n, prompt in enumerate(("old", "new", "newer", "new", "old")):
            p.write([{"id": "mine", "prompt": "key=" + prompt}, {"prompt": "key=x"}])
            p.run("-m", "stub")
            assert p.texts() == ["echo: key=" + prompt, "echo: key=x"], (n, p.texts())
        assert sorted(p.keys()) == ["new", "newer", "old", "x"], p.keys()


def test_failed_lines_are_tried_again():
    with Place("--fault", "kind=status,code=400,match=bad") as p:
        p.write([{"prompt": "key=good1"}, {"prompt": "key=bad1"}, {"prompt": "key=good2"},
                 {"prompt": "key=bad2"}, {"id": "mine", "prompt": "key=bad3"}])
        for n in (1, 2):
            said = p.run("-m", "stub", code=SOME_FAILED)
            assert "3 lines did not succeed" in said and "tries them again" in said, said
            assert [r["status"] for r in p.results()] == \
                ["succeeded", "failed", "succeeded", "failed", "failed"]
            keys = p.keys()
            assert [keys.count(k) for k in ("good1", "good2", "bad1", "bad2", "bad3")] == [1, 1, n, n, n]
        p.stub.faults("kind=status,code=400,match=bad2")
        assert "1 line did not succeed" in p.run("-m", "stub", code=SOME_FAILED)
        p.stub.faults()
        p.run("-m", "stub")
        assert [r["status"] for r in p.results()] == ["succeeded"] * 5
        assert [p.keys().count(k) for k in ("good1", "bad1", "bad2", "bad3")] == [1, 3, 4, 3]
        assert p.texts() == ["echo: key=%s" % k for k in ("good1", "bad1", "good2", "bad2", "bad3")]


def test_fresh_starts_over():
    with Place() as p:
        p.write(prompts(5))
        p.run("-m", "stub")
        first = [r["finished_at"] for r in p.results()]
        p.run("-m", "stub", "--fresh")
        assert len(p.keys()) == 10 and len(p.results()) == 5
        assert all(a < r["finished_at"] for a, r in zip(first, p.results()))
        p.run("-m", "stub")
        assert len(p.keys()) == 10


def test_a_file_of_somebody_else_is_not_written_over():
    with Place() as p:
        p.write(prompts(3))
        with open(p.out, "w", encoding="utf-8") as f:
            f.write("precious\n")
        said = p.run("-m", "stub", code=USAGE)
        assert "out.jsonl" in said and "--fresh" in said, said
        assert read_file(p.out) == "precious\n" and not p.keys()
        os.symlink(p.in_, p("link"))
        for out in (p.in_, p("link")):  # --fresh would empty the input
            for more in ((), ("--fresh",)):
                assert "is the input" in p.run("-m", "stub", *more, code=USAGE, out=out)
        assert read_file(p.in_).count("\n") == 3
        p.run("-m", "stub", "--fresh")
        assert len(p.results()) == 3


def test_two_at_a_time_of_one_output():
    with Place("--latency-ms", "100000") as p:
        p.write(prompts(3))
        first = p.start("-m", "stub")
        wait_for(p.keys)
        for more in ((), ("--fresh",)):
            fds = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            second = p.start("-m", "stub", *more, fds=fds)
            said = second.communicate(timeout=LIMIT_S)[1].decode()
            assert second.returncode == SOME_FAILED and "out.jsonl.genq" in said, said
        p.stub.latency(0)
        first.kill()
        first.wait()
        p.run("-m", "stub")
        assert len(p.results()) == 3


# ---- pipes

def pipes():
    return {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def read_line(child):
    ready, _, _ = select.select([child.stdout], [], [], LIMIT_S)
    assert ready, "no result came"
    return json.loads(child.stdout.readline())


def test_a_slow_pipe_through_and_through():
    """Each result comes before the next line is written."""
    with Place() as p:
        child = p.start("-m", "stub", in_="-", out="-", fds=pipes(), bufsize=0)
        for i in range(5):
            line = json.dumps({"prompt": "key=p%d" % i}).encode()
            child.stdin.write(line[:7])
            child.stdin.write(line[7:] + b"\n")
            assert read_line(child)["output"]["text"] == "echo: key=p%d" % i
        child.stdin.write(json.dumps({"prompt": "key=end"}).encode())  # without a newline
        child.stdin.close()
        assert read_line(child)["output"]["text"] == "echo: key=end"
        assert child.wait(LIMIT_S) == WELL
        assert sorted(os.listdir(p.folder)) == sorted(
            f for f in os.listdir(p.folder) if not f.endswith(".genq")), "state was left behind"


def test_a_pipe_that_is_fed_again():
    text = "".join(json.dumps(line) + "\n" for line in prompts(40)).encode()
    with Place("--latency-ms", "10") as p:
        child = p.start("-m", "stub", in_="-", fds=pipes())
        child.stdin.write(text)
        child.stdin.flush()  # and not closed
        wait_for(lambda: n_on_disk(p, HAVE_ENDED) >= 12)
        lost = n_lost_by_killing(p, child)
        child = p.start("-m", "stub", in_="-", fds=pipes())
        child.communicate(text, timeout=LIMIT_S)
        assert child.returncode == WELL
        assert p.texts() == ["echo: key=k%d" % i for i in range(40)]
        assert len(p.keys()) == 40 + lost, (lost, p.keys())


def test_interrupted_while_the_pipe_is_silent():
    with Place() as p:
        child = p.start("-m", "stub", in_="-", fds=pipes(), bufsize=0)
        child.stdin.write(b'{"prompt":"key=a"}\n{"prompt":"key=unended"')
        wait_for(lambda: p.keys("sent") == ["a"])
        child.send_signal(signal.SIGINT)
        assert child.wait(LIMIT_S) == SOME_FAILED
        assert p.texts() == ["echo: key=a"], p.texts()


def test_results_to_a_pipe_are_given_again_but_not_run_again():
    with Place() as p:
        p.write(prompts(10))
        for _ in range(2):
            p.run("-m", "stub", out="-")
            lines = [json.loads(line) for line in p.stdout.splitlines()]
            assert [r["output"]["text"] for r in lines] == ["echo: key=k%d" % i for i in range(10)]
        assert len(p.keys()) == 10 and os.path.isdir(p.in_ + ".genq")


def test_a_reader_that_leaves():
    with Place() as p:
        p.write(prompts(3000))
        child = p.start("-m", "stub", out="-")
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(LIMIT_S) in (SOME_FAILED, -signal.SIGPIPE), child.returncode


# ---- lines that are none

def test_bad_lines_are_told_and_the_others_run():
    lines = ['{"prompt":"key=a"}', "", "no json", '{"prompt":"key=b","nonsense":1}',
             '{"prompt":"x","input":"y"}', "[]", '{"prompt":"key=c"}', '{"prompt":"x","n":2}',
             '{"custom_id":"o","method":"GET","url":"/v1/completions","body":{}}',
             '{"prompt":"x","tenant":"other"}', "\xff", '{"prompt":"key=d"}']
    with Place() as p:
        p.write(lines)
        said = p.run("-m", "stub", code=SOME_FAILED)
        r = p.results()
        wanted = [(1, None), (3, "JSON"), (4, "nonsense"), (5, "prompt"), (6, "object"), (7, None),
                  (8, "n"), (9, "method"), (10, "tenant"), (11, "JSON"), (12, None)]
        assert len(r) == len(wanted), r
        for result, (line, word) in zip(r, wanted):
            if word is None:
                assert result["status"] == "succeeded", result
                continue
            assert result["status"] == "failed" and result["error"]["code"] == "invalid_request", result
            place = "%s:%d: " % (p.in_, line)
            assert result["error"]["message"].startswith(place), result
            assert word in result["error"]["message"], result
            assert "genq: " + result["error"]["message"] in said, (said, result)
        assert sorted(p.keys()) == ["a", "b", "c", "d"][:1] + ["c", "d"], p.keys()
        assert "8 lines did not succeed" in said, said
        lines[2], lines[3] = '{"prompt":"key=fixed"}', '{"prompt":"key=b"}'
        p.write(lines[:4] + [lines[6], lines[11]])
        p.run("-m", "stub")
        assert sorted(p.keys()) == ["a", "b", "c", "d", "fixed"], p.keys()


def test_only_the_first_bad_lines_are_shown():
    with Place() as p:
        p.write(["bad"] * 500 + ['{"prompt":"key=good"}'])
        said = p.run("-m", "stub", code=SOME_FAILED)
        assert 5 <= said.count("in.jsonl:") <= 20, said
        assert "500 lines did not succeed" in said and p.keys() == ["good"], said
        assert len(p.results()) == 501


def test_long_lines():
    config = "limits: {body_bytes: 100000}\n"
    with Place(config=config) as p:
        p.write([{"prompt": "key=a"}, {"prompt": "key=fits " + "x" * 90000},
                 {"prompt": "key=over " + "x" * 101000}, {"prompt": "key=b"},
                 {"prompt": "key=huge " + "x" * 3000000}, {"prompt": "key=c"}])
        said = p.run("-m", "stub", code=SOME_FAILED)
        r = p.results()
        assert [x["status"] for x in r] == ["succeeded"] * 2 + ["failed", "succeeded", "failed", "succeeded"]
        for at in (2, 4):
            assert r[at]["error"]["code"] == "too_large", r[at]
            assert "limits.body_bytes (100000)" in r[at]["error"]["message"], r[at]
            assert "in.jsonl:%d: " % (at + 1) in said, said
        assert sorted(p.keys()) == ["a", "b", "c", "fits"], p.keys()


def test_empty_files():
    with Place() as p:
        for lines in ([], ["", "   ", "\t"]):
            p.write(lines)
            p.run("-m", "stub")
            assert p.results() == [] and not p.keys()
        child = p.start("-m", "stub", in_="-", out="-", fds=pipes())
        out, _ = child.communicate(b"", timeout=LIMIT_S)
        assert child.returncode == WELL and out == b""


def test_a_late_last_line_ends_the_run():
    """The output's regular sync once hid that the last line had come: the run then sat for a minute."""
    with Place("--latency-ms", "1500") as p:
        p.write(['{"prompt":"key=late"}'])
        started = time.monotonic()
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=late"]
        assert time.monotonic() - started < 45


def test_marks_of_other_systems():
    with Place() as p:
        lines = ["\ufeff" + '{"prompt":"key=bom"}', '{"prompt":"key=crlf"}', "", '{"prompt":"key=z"}']
        p.write(lines, end="\r\n")
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=bom", "echo: key=crlf", "echo: key=z"]
        with open(p.in_, "a", encoding="utf-8") as f:
            f.write('{"prompt":"key=unended"}')
        p.run("-m", "stub")
        assert p.texts()[3:] == ["echo: key=unended"] and len(p.keys()) == 4


def test_wrong_words_and_files():
    with Place() as p:
        assert "no.jsonl" in p.run("-m", "stub", code=USAGE, in_=p("no.jsonl"))
        p.write(prompts(1))
        os.mkdir(p("folder"))
        said = p.run("-m", "stub", code=USAGE, out=p("folder"))
        assert "folder" in said and "directory" in said.lower(), said
        said = p.run("-m", "stub", code=SOME_FAILED, in_=p.folder)
        assert "directory" in said.lower(), said
        assert "--tenant" in p.run("-m", "stub", "--tenant", "a b", code=USAGE)
        assert "server" in p.run("-m", "stub", "--server", "http://127.0.0.1:1", code=USAGE)
        p.run("-m", "stub", "--tenant", "blue")
        assert p.results()[0]["tenant"] == "blue"
        p.run("-m", "stub", "--data", p("elsewhere"), out=p("second.jsonl"))
        assert os.path.isdir(p("elsewhere")) and not os.path.exists(p("second.jsonl.genq"))


# ---- engines that are away; terminals

class Terminal:
    """The command on a pseudo terminal of 100 columns."""

    def __init__(self, p, *arguments, **more):
        self.master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        os.environ["TERM"] = "xterm"
        fds = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": child}
        self.child = p.start(*arguments, fds=fds, **more)
        os.close(child)
        self.text = ""

    def read(self):
        """What has come so far; at the end of the program all of it."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # closed at the other end
                break
            if not piece:
                break
            self.text += piece.decode()
        return self.text

    def end(self):
        wait_for(lambda: self.read() is None or self.child.poll() is not None, "the end")
        self.read()
        os.close(self.master)
        return self.child.returncode


def test_a_missing_engine_is_waited_for():
    with Place() as p:
        p.write(prompts(5))
        p.stub.stop()
        t = Terminal(p, "-m", "stub")
        wait_for(lambda: "no engine node is up: " + p.stub.url in t.read(), "word of it")
        assert t.child.poll() is None
        p.stub.start()
        assert t.end() == WELL, t.text
        assert p.texts() == ["echo: key=k%d" % i for i in range(5)]
        assert all(r["attempts"] == 1 for r in p.results()), p.results()


def test_an_unknown_model_ends_the_line_with_words():
    with Place("--model", "real") as p:
        p.write(prompts(2))
        said = p.run("-m", "fake", code=SOME_FAILED)
        assert "the first that failed: no engine node has the model fake; there are: real" in said, said
        for r in p.results():
            assert r["error"]["code"] == "model_not_found" and "real:latest" in r["error"]["message"], r


def test_progress_on_a_terminal():
    with Place("--latency-ms", "400", "--fault", "kind=status,code=400,match=key=k7") as p:
        p.write(prompts(20))
        t = Terminal(p, "-m", "stub")
        assert t.end() == SOME_FAILED, t.text
        bars = re.findall(r"\[([#.]+)\] (\d+)/(\d+) ", t.text)
        done = [int(b[1]) for b in bars]
        assert len(bars) >= 3 and done == sorted(done) and {b[2] for b in bars} == {"20"}, t.text
        assert any(0 < d < 20 for d in done), done
        assert re.search(r"\[#+\] 20/20  [\d.]+ jobs/s  \d+ tokens  1 failed  in 0:0\d", t.text), t.text
        assert re.search(r"ETA \d:\d\d", t.text), t.text
        p.stub.faults()
        t = Terminal(p, "-m", "stub")
        assert t.end() == WELL and "20/20" in t.text, t.text


def test_progress_in_a_file_is_lines():
    with Place() as p:
        p.write(prompts(20))
        said = p.run("-m", "stub")
        assert "\r" not in said and "\x1b" not in said, said
        assert re.search(r"^20/20 \(100%\)", said, re.M), said


# ---- size

def peak_kib(child):
    text = read_file("/proc/%d/status" % child.pid)
    found = re.search(r"VmHWM:\s+(\d+)", text)
    return int(found.group(1)) if found else 0


def test_a_mistyped_output_directory_is_not_made():
    with Place() as p:
        p.write(prompts(1))
        for out in (p("no/where/out.jsonl"), p.folder):
            assert "-o %s:" % out in p.run("-m", "stub", out=out, code=USAGE)
        assert not os.path.exists(p("no")) and not os.path.exists(p.folder + ".genq")
        p.run("-m", "stub", out="out.jsonl")


def test_a_queue_limit_below_a_publish_only_slows():
    with Place(config="limits: {queued_jobs: 7}\n") as p:
        p.write(prompts(50))
        p.run("-m", "stub")
        assert p.texts() == ["echo: key=k%d" % i for i in range(50)]


def test_a_second_interrupt_ends_a_run_whose_output_nobody_reads():
    with Place() as p:
        p.write([{"prompt": "key=k%d %s" % (i, "x" * 2000)} for i in range(200)])
        child = p.start("-m", "stub", out="-")
        wait_for(lambda: len(p.keys()) >= 150, "more results than a pipe takes")

        def ends():
            child.send_signal(signal.SIGINT)
            time.sleep(0.3)
            return child.poll() is not None
        wait_for(ends, "the end")


def test_memory_does_not_grow_with_the_input():
    peaks = {}
    if IS_SLOW:
        print("# skipped: sanitizers keep what was freed")
        return
    for n in (10000, 100000):
        with Place(slots=64, config="broker: {sync: normal}\n") as p:
            with open(p.in_, "w", encoding="utf-8") as f:
                for i in range(n):
                    f.write('{"prompt":"line %d %s"}\n' % (i, "x" * 100))
            child = p.start("-m", "stub")
            peak = 0

            def look():
                nonlocal peak
                peak = max(peak, peak_kib(child))
                return child.poll() is not None
            wait_for(look, "the end of %d lines" % n, 120)
            assert child.returncode == WELL, read_file(p("stderr"))
            peaks[n] = peak
            with open(p.out, encoding="utf-8") as f:
                for i, line in enumerate(f):
                    if i % 997 == 0:
                        assert json.loads(line)["output"]["text"].startswith("echo: line %d " % i)
            assert i == n - 1
            print("# %d lines: %d KiB; %s" % (n, peak, read_file(p("stderr")).strip()))
    small, large = peaks[min(peaks)], peaks[max(peaks)]
    assert large < small + 40 * 1024 and large < 200 * 1024, peaks


run(globals())
