"""Every command and option of genq against a real server: what is printed where, and exit codes."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import World, read_file, run, wait_for, LIMIT_S  # noqa: E402

GENQ = os.environ["GENQ"]
WELL, SOME_FAILED, USAGE, NO_SERVER, TIMED_OUT = 0, 1, 2, 3, 4
NOBODY = "http://127.0.0.1:1"  # nothing listens there


class Done:
    def __init__(self, p, out, err):
        self.code, self.out, self.err = p.returncode, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return "exit %d\n--- stdout\n%s\n--- stderr\n%s" % (self.code, self.out[-3000:],
                                                            self.err[-3000:])


def clean_environment(**more):
    e = {k: v for k, v in os.environ.items() if not k.startswith("GENQ_")}
    return {**e, **more}


def genq(*arguments, stdin="", env=None, cwd=None, limit_s=LIMIT_S * 2):
    p = subprocess.Popen([GENQ, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=clean_environment(**(env or {})), cwd=cwd,
                         text=True)
    try:
        return Done(p, *p.communicate(stdin, timeout=limit_s))
    except subprocess.TimeoutExpired:
        p.kill()
        raise AssertionError("did not end: %s" % (arguments,)) from None


def cli(w, *arguments, **more):
    """A command against w's server."""
    return genq("--server", "http://127.0.0.1:%d" % w.port, *arguments, **more)


def start(w, *arguments, **more):
    """The same, left running; its stdout is a pipe."""
    p = subprocess.Popen([GENQ, *arguments, "--server", "http://127.0.0.1:%d" % w.port],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env=clean_environment(), text=True, **more)
    p.ahead = ""  # read, and not yet given
    return p


def read_line(p, limit_s=LIMIT_S):
    """The next line; "" at the end; None when none came in time."""
    end = time.monotonic() + limit_s
    while "\n" not in p.ahead:
        if not select.select([p.stdout], [], [], max(0, end - time.monotonic()))[0]:
            return None
        data = os.read(p.stdout.fileno(), 65536).decode()
        if not data:
            return ""
        p.ahead += data
    line, _, p.ahead = p.ahead.partition("\n")
    return line + "\n"


def expect(done, code, out=None, err=None):
    assert done.code == code, done
    if out is not None:
        assert re.fullmatch(out, done.out, re.S), done
    if err is not None:
        assert re.search(err, done.err, re.S), done
    return done


# ---- the command line itself


def test_no_words_show_the_commands():
    done = expect(genq(), USAGE, "", "Usage: genq")
    assert "batch results" in done.err and "doctor" not in done.err
    done = expect(genq("--help"), WELL, None)
    assert "Usage: genq" in done.out and done.err == ""
    assert expect(genq("help"), WELL).out == done.out
    expect(genq("--version"), WELL, r"genq \d+\.\d+\.\d+\n")


def commands():
    text = genq("--help").out.split("Commands:\n")[1].split("\n\n")[0]
    names = []
    for line in text.splitlines():
        head = line[2:].split("  ")[0].split()
        names.append(" ".join(w for w in head if re.fullmatch("[a-z]+", w)))
    return names


def test_every_command_has_help():
    names = commands()
    assert len(names) >= 16 and "config check" in names, names
    for name in names:
        done = expect(genq(*name.split(), "--help"), WELL)
        assert done.out.startswith("Usage: genq " + name) and done.err == "", done
        assert "Example" in done.out, done
        assert genq("help", *name.split()).out == done.out
        assert genq(*name.split(), "-h").out == done.out
    done = expect(genq("batch", "--help"), WELL)
    assert "batch cancel" in done.out and "nodes" not in done.out
    expect(genq("batch"), USAGE, "", "batch cancel")


def test_up_says_what_is_wrong_with_its_address():
    with World() as w:
        data = os.path.join(w.folder, "second")
        for address, code, words in (("127.0.0.1:%d" % w.port, SOME_FAILED, "in use"),
                                     ("0.0.0.0:0", USAGE, "not loopback"),
                                     ("nowhere", USAGE, "not host:port")):
            expect(genq("up", "--data", data, "--listen", address), code, "", "genq: .*" + words)
        expect(genq("up", "--data", w.data, "--listen", "127.0.0.1:0"), SOME_FAILED, "",
               "another genq has")
        told = os.path.join(w.data, "listen")
        assert read_file(told) == "127.0.0.1:%d\n" % w.port
        assert w.genq.end() == WELL
        assert not os.path.exists(told)  # nobody asks at an address that is another's by now


def test_wrong_words_get_a_hint():
    expect(genq("sumbit", "x"), USAGE, "", r"did you mean 'submit'\?\nTry 'genq --help'")
    expect(genq("batch", "stauts"), USAGE, "", "did you mean 'batch status'")
    expect(genq("nodes", "--jsn"), USAGE, "", r"did you mean '--json'\?\nTry 'genq nodes --help'")
    expect(genq("get"), USAGE, "", "needs ID")
    expect(genq("get", "a", "b"), USAGE, "", "one argument too many")
    expect(genq("get", "--tenant"), USAGE, "", "--tenant needs a value")
    expect(genq("get", "--json=yes", "a"), USAGE, "", "takes no value")
    expect(genq("wait", "a", "--timeout", "soon"), USAGE, "", "no duration")


def test_one_role_alone_needs_kafka():
    for name in ("gateway", "worker"):
        expect(genq(name), USAGE, "", "genq: 'genq %s' meets other processes in Kafka.*'genq up'" % name)


def test_what_is_not_built_says_so():
    for name in ("label", "eval", "explain", "models", "keys", "top", "doctor", "bench"):
        expect(genq(name), USAGE, "", "genq: '%s' is not built in this version" % name)


def test_where_the_server_is():
    with World() as w:
        url = "http://127.0.0.1:%d" % w.port
        for arguments in (("--server", url, "nodes"), ("nodes", "--server=" + url),
                          ("nodes", "--server", url + "/"),
                          ("nodes", "--server", "127.0.0.1:%d" % w.port)):
            expect(genq(*arguments), WELL, "NODE .*", None)
        expect(genq("nodes", env={"GENQ_SERVER": url}), WELL, "NODE .*")
        expect(genq("nodes", "--server", url, env={"GENQ_SERVER": NOBODY}), WELL, "NODE .*")
        config = os.path.join(w.folder, "client.yaml")
        with open(config, "w") as f:
            f.write("listen: 127.0.0.1:%d\n" % w.port)
        expect(genq("nodes", "--config", config), WELL, "NODE .*")
        expect(genq("nodes", env={"GENQ_CONFIG": config}), WELL, "NODE .*")
        with open(config, "w") as f:  # port 0: the server wrote down which it got
            f.write("listen: 127.0.0.1:0\ndata: %s\n" % w.data)
        expect(genq("nodes", "--config", config), WELL, "NODE .*")
        with open(config, "w") as f:
            f.write("lisen: x\n")
        expect(genq("nodes", "--config", config), USAGE, "", "client.yaml:1:1: .*lisen")
        expect(genq("nodes", "--api-key", "k", "--server", url), WELL)
        expect(genq("nodes", "--api-key", "k\nX: y", "--server", url), USAGE)


def test_no_server_is_exit_code_3():
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write('{"model":"m","prompt":"x"}\n')
        f.flush()
        for arguments in (["submit", "-m", "m", "x"], ["submit", "x"], ["get", "a"], ["wait", "a"],
                          ["watch"], ["cancel", "a"], ["batch", "submit", f.name],
                          ["batch", "status", "b"], ["batch", "status", "b", "--wait"],
                          ["batch", "results", "b"], ["batch", "cancel", "b"], ["batch", "list"],
                          ["usage"], ["nodes"]):
            done = genq(*arguments, "--server", NOBODY)
            expect(done, NO_SERVER, "", "cannot reach http://127.0.0.1:1: .*is `genq up` running")


def test_no_genq_at_the_address():
    with World() as w:
        done = genq("nodes", "--server", "http://127.0.0.1:%d" % w.stub_port)
        expect(done, SOME_FAILED, "", "not as genq does")


# ---- jobs


def test_submit_prints_the_id():
    with World() as w:
        done = expect(cli(w, "submit", "-m", "stub", "hello"), WELL, r"[0-9A-Z]{26}\n", None)
        assert done.err == "", done
        assert w.finished(done.out.strip())["output"]["text"] == "echo: hello"


def test_options_of_submit():
    with World() as w:
        expect(cli(w, "submit", "--model=stub", "--id", "a.1", "--tenant", "t", "--priority",
                   "high", "--max-tokens", "7", "--temperature", "0.5", "--system", "be brief",
                   "hi"), WELL, "a.1\n")
        job = w.finished("a.1", "t")
        assert job["priority"] == "high" and job["tenant"] == "t", job
        assert job["output"]["message"]["content"] == "echo: hi", job
        expect(cli(w, "get", "a.1"), SOME_FAILED, "", "no job")
        expect(cli(w, "get", "a.1", "--tenant", "t"), WELL, ".*high.*")
        # The same again is the same job; another one under the id is refused.
        expect(cli(w, "submit", "-mstub", "--id", "b", "hi"), WELL, "b\n")
        expect(cli(w, "submit", "-mstub", "--id", "b", "hi"), WELL, "b\n")
        expect(cli(w, "submit", "-mstub", "--id", "b", "other"), SOME_FAILED, "", "genq: ")
        job = expect(cli(w, "submit", "-m", "stub", "hi", "--json"), WELL).json
        assert job["object"] == "job" and job["status"] == "queued"


def test_submit_refuses_what_is_wrong():
    with World() as w:
        expect(cli(w, "submit", "-m", "stub", ""), USAGE, "", "empty")
        expect(cli(w, "submit", "-m", "stub", stdin=""), USAGE, "", "empty")
        expect(cli(w, "submit", "-m", "stub", "--id", "a b", "x"), USAGE, "", "--id")
        expect(cli(w, "submit", "-m", "stub", "--max-tokens", "many", "x"), USAGE, "", "no number")
        expect(cli(w, "submit", "-m", "stub", "--temperature", "warm", "x"), USAGE, "", "no number")
        expect(cli(w, "submit", "-m", "stub", "--temperature", "9", "x"), USAGE, "", "temperature")
        expect(cli(w, "submit", "-m", "stub", "--priority", "urgent", "x"), USAGE, "", "priority")
        expect(cli(w, "submit", "-m", "stub", "--timeout", "1s", "x"), USAGE, "", "--wait")
        expect(cli(w, "submit", "-m", "stub", b"\xff".decode(errors="surrogateescape")), USAGE, "",
               "UTF-8")


def test_the_prompt_may_come_from_a_pipe():
    with World() as w:
        for arguments in (["-"], []):
            done = cli(w, "submit", "-m", "stub", "--wait", *arguments, stdin="from a pipe\n\n")
            expect(done, WELL, "echo: from a pipe\n")
        expect(cli(w, "submit", "-m", "stub", "--wait", "--", "--wait"), WELL, "echo: --wait\n")


def test_the_only_model_need_not_be_named():
    with World(stub=["--model", "only"]) as w:
        wait_for(lambda: w.get("/api/v1/nodes").json["data"][0]["models"], "the model")
        expect(cli(w, "submit", "--wait", "x"), WELL, "echo: x\n")
    with World(stub=["--model", "one", "--model", "two"]) as w:
        wait_for(lambda: w.get("/api/v1/nodes").json["data"][0]["models"], "the models")
        expect(cli(w, "submit", "--wait", "x"), USAGE, "", "there are: one.*two")


def test_submit_and_wait():
    with World() as w:
        expect(cli(w, "submit", "-m", "stub", "--wait", "x"), WELL, "echo: x\n", "^$")
        job = expect(cli(w, "submit", "-m", "stub", "--wait", "--json", "x"), WELL).json
        assert job["status"] == "succeeded" and job["output"]["text"] == "echo: x"
        w.faults("kind=status,code=400")
        done = cli(w, "submit", "-m", "stub", "--wait", "x")
        expect(done, SOME_FAILED, "", r"job \w+ failed: \w+: ")
        done = cli(w, "submit", "-m", "stub", "--wait", "--json", "x")
        assert done.code == SOME_FAILED and done.json["error"]["code"], done
        w.faults("kind=hang")
        done = cli(w, "submit", "-m", "stub", "--wait", "--timeout", "3s", "--id", "h", "x")
        expect(done, TIMED_OUT, "", "genq wait h")
        assert w.get("/api/v1/jobs/h").json["finished_at"] is None
        w.delete("/api/v1/jobs/h")


def test_tokens_as_they_come():
    with World(stub=["--tokens", "5", "--chunk-ms", "100"]) as w:
        w.faults("kind=stall,times=1")  # the first token and no other
        p = start(w, "submit", "-m", "stub", "--stream", "--id", "stalls", "one two three four five")
        text = os.read(p.stdout.fileno(), 1000).decode()
        assert text and "echo: one two three four five".startswith(text), text
        w.delete("/api/v1/jobs/stalls")
        p.communicate(timeout=LIMIT_S)
        assert p.returncode == SOME_FAILED
        p = start(w, "submit", "-m", "stub", "--stream", "one two three four five")
        seen = []
        while True:
            text = os.read(p.stdout.fileno(), 1000).decode()
            if not text:
                break
            seen.append(text)
        assert p.wait() == WELL
        assert "".join(seen) == "echo: one two three four five\n", seen
        done = cli(w, "submit", "-m", "stub", "--stream", "--json", "x")
        events = [json.loads(line) for line in expect(done, WELL).out.splitlines()]
        assert "".join(e.get("text", "") for e in events) == "echo: x", events
        assert [e for e in events if e.get("object")] == events[-1:], events
        w.faults("kind=status,code=400")
        expect(cli(w, "submit", "-m", "stub", "--stream", "x"), SOME_FAILED, "", "failed: ")
        w.faults("kind=hang")
        done = cli(w, "submit", "-m", "stub", "--stream", "--timeout", "3s", "--id", "h", "x")
        expect(done, TIMED_OUT, "", "genq wait h")
        w.delete("/api/v1/jobs/h")


def test_a_failed_attempt_starts_the_answer_anew():
    with World(stub=["--tokens", "4", "--chunk-ms", "30"],
               config="retry: {base_ms: 1, cap_ms: 1}\n") as w:
        w.faults("kind=midstream_error,times=1")
        done = expect(cli(w, "submit", "-m", "stub", "--stream", "abcdef"), WELL)
        assert done.out.endswith("echo: abcdef\n"), done


def test_tokens_over_a_restart_of_the_server():
    with World(stub=["--tokens", "8", "--chunk-ms", "50", "--fault", "kind=stall,times=1"]) as w:
        p = start(w, "submit", "-m", "stub", "--stream", "one two three")
        text = os.read(p.stdout.fileno(), 1000).decode()
        port = w.port
        w.stop(signal.SIGKILL)
        restart_at(w, port)
        out, err = p.communicate(timeout=LIMIT_S)
        assert p.returncode == WELL, (p.returncode, err)
        assert (text + out).endswith("\necho: one two three\n"), (text, out)
        assert "starts anew" in err, err


def test_get():
    with World() as w:
        w.submit(id="g", batch_id="b", custom_id="c")
        w.finished("g")
        done = expect(cli(w, "get", "g"), WELL)
        for what in ("id        g\n", "status    succeeded", "model     stub\n", "batch     b\n",
                     "custom_id c\n", "tokens    ", "time      ", "\n\necho: hello\n"):
            assert what in done.out, (what, done)
        assert expect(cli(w, "get", "g", "--json"), WELL).json["id"] == "g"
        expect(cli(w, "get", "nope"), SOME_FAILED, "", "no job 'nope'")
        expect(cli(w, "get", "no/../pe?"), SOME_FAILED, "", "genq: ")
        w.faults("kind=status,code=400,body={\"error\":\"bad \\u001b[31m\"}")
        w.submit(id="f")
        w.finished("f")
        done = expect(cli(w, "get", "f"), WELL)
        assert "status    failed" in done.out and "error     " in done.out, done
        assert "\x1b" not in done.out, done


def test_wait():
    with World(stub=["--latency-ms", "200"]) as w:
        for i in range(3):
            w.submit(id="w%d" % i)
        done = expect(cli(w, "wait", "w0", "w1", "w2"), WELL)
        lines = done.out.splitlines()
        assert [line.split()[:3] for line in lines] == [
            ["w%d" % i, "succeeded", "stub"] for i in range(3)], done
        done = expect(cli(w, "wait", "w0", "w2", "--json"), WELL)
        assert [json.loads(line)["id"] for line in done.out.splitlines()] == ["w0", "w2"]
        w.submit(id="t", tenant="acme")
        expect(cli(w, "wait", "t", "--tenant", "acme"), WELL, "t  succeeded.*")
        w.faults("kind=status,code=400,times=1")
        w.submit(id="bad")
        done = cli(w, "wait", "bad", "w0")
        expect(done, SOME_FAILED, r"bad  failed  stub  \w+: .*\nw0  succeeded.*")
        expect(cli(w, "wait", "nope", "w0"), SOME_FAILED, "w0 .*", "no job 'nope'")
        w.faults("kind=hang")
        w.submit(id="long")
        began = time.monotonic()
        done = cli(w, "wait", "w0", "long", "w1", "--timeout", "5s")
        expect(done, TIMED_OUT, "w0 .*\nw1 .*", "job long has not ended")
        assert 4.9 < time.monotonic() - began < LIMIT_S
        w.delete("/api/v1/jobs/long")


def test_wait_outlives_a_restart_of_the_server():
    with World(config="listen: 127.0.0.1:0\n") as w:
        w.faults("kind=hang")
        w.submit(id="r")
        wait_for(lambda: w.stub_events("recv"), "the call")
        w.faults()
        w.submit(id="ended")
        p = start(w, "wait", "ended", "r")
        assert read_line(p).startswith("ended  succeeded")
        port = w.port
        w.stop(signal.SIGKILL)
        restart_at(w, port)
        out, err = p.communicate(timeout=LIMIT_S * 2)
        assert p.returncode == WELL and out.startswith("r  succeeded"), (out, err)
        assert err.count("went away") <= 1, err


def test_a_server_that_hangs_does_not_hold_a_timeout():
    with World() as w:
        w.submit(id="a")
        w.finished("a")
        w.genq.child.send_signal(signal.SIGSTOP)
        try:
            expect(cli(w, "wait", "a", "--timeout", "200ms"), TIMED_OUT, "", "not ended in time")
        finally:
            w.genq.child.send_signal(signal.SIGCONT)


def restart_at(w, port):
    """Starts w's server again, at the address it had."""
    listen = os.path.join(w.data, "listen")
    os.unlink(listen)
    w.genq = type(w.genq)([GENQ, "up", "--data", w.data, "--listen", "127.0.0.1:%d" % port,
                           "--engine", "http://127.0.0.1:%d" % w.stub_port], w.folder, "genq")
    wait_for(lambda: w.genq.check() or os.path.exists(listen), "the server")
    w.port = port


def test_watch():
    with World() as w:
        w.submit(id="before")
        w.finished("before")
        p = start(w, "watch")
        q = start(w, "watch", "--json", "--batch", "b", "--after", "0")
        t = start(w, "watch", "--tenant", "acme", "--after", "0")
        try:
            line = None
            for i in range(1000):  # until the first watch has begun
                w.submit(id="probe%d" % i)
                line = read_line(p, 0.1)
                if line:
                    break
            assert re.match(r"probe\d+  succeeded  stub  \d+ tokens  ", line), line
            w.submit(id="one", batch_id="b")
            w.submit(id="two", tenant="acme")
            job = json.loads(read_line(q))
            assert job["id"] == "one" and job["status"] == "succeeded", job
            assert read_line(t).startswith("two  succeeded")
            assert wait_for(lambda: read_line(p).startswith("two"))
        finally:
            for child in (p, q, t):
                child.kill()
                child.communicate()
        expect(cli(w, "watch", "--after", "soon"), USAGE, "", "cursor")
        expect(cli(w, "watch", "--batch", "a b"), USAGE, "", "batch_id")


def test_watch_goes_on_after_a_restart():
    with World() as w:
        p = start(w, "watch", "--after", "0")
        try:
            w.submit(id="a")
            assert read_line(p).startswith("a ")
            port = w.port
            w.stop(signal.SIGKILL)
            assert select.select([p.stderr], [], [], LIMIT_S)[0], "no word of it"
            restart_at(w, port)
            w.submit(id="b")
            line = read_line(p)  # none lost, none twice
            assert line.startswith("b "), line
        finally:
            p.kill()
            _, err = p.communicate()
        assert "went away" in err, err


def test_a_reader_that_leaves_is_no_error():
    with World() as w:
        p = start(w, "watch", "--after", "0")
        w.submit(id="a")
        assert read_line(p).startswith("a ")
        p.stdout.close()
        end = time.monotonic() + LIMIT_S
        while p.poll() is None:  # it notices with the next line
            w.submit()
            time.sleep(0.05)
            assert time.monotonic() < end, "it runs on"
        assert p.returncode == WELL, p.returncode
        assert p.stderr.read() == ""
        p.stderr.close()
        shell = 'for i in 1 2 3; do "$GENQ" completion bash | head -1; echo ${PIPESTATUS[0]}; done'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
        assert done.stderr == "" and "1" not in done.stdout.split("\n")[1::2], done


def test_output_that_cannot_be_written_is_an_error():
    with World() as w:
        with open("/dev/full", "w") as full:
            p = subprocess.run([GENQ, "nodes", "--server", "http://127.0.0.1:%d" % w.port],
                               stdout=full, stderr=subprocess.PIPE, env=clean_environment(),
                               text=True)
        assert p.returncode == SOME_FAILED and "cannot write" in p.stderr, p


def test_cancel():
    with World() as w:
        w.faults("kind=hang")
        for name in ("a", "b", "c"):
            w.submit(id=name)
        w.submit(id="t", tenant="acme")
        expect(cli(w, "cancel", "a", "b"), WELL, "a  cancelled\nb  cancelled\n")
        done = expect(cli(w, "cancel", "a", "nope", "c"), SOME_FAILED, "c  cancelled\n")
        assert "a: " in done.err and "nope: " in done.err, done
        expect(cli(w, "cancel", "t"), SOME_FAILED, "", "t: ")
        job = expect(cli(w, "cancel", "t", "--tenant", "acme", "--json"), WELL).json
        assert job["status"] == "cancelled", job


# ---- batches


def lines(n, **more):
    return "".join(json.dumps({"model": "stub", "prompt": "p%d" % i, **more}) + "\n"
                   for i in range(n))


def write(w, name, text):
    path = os.path.join(w.folder, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def test_a_batch_from_submit_to_results():
    with World() as w:
        path = write(w, "in.jsonl", lines(10))
        done = expect(cli(w, "batch", "submit", path), WELL, r"[0-9A-Z]{26}\n")
        batch = done.out.strip()
        done = expect(cli(w, "batch", "status", batch, "--wait"), WELL)
        assert "status    done\n" in done.out and "jobs      10: 10 succeeded\n" in done.out, done
        assert re.search(r"10/10 \(100%\).* in \d", done.err), done
        out = os.path.join(w.folder, "out.jsonl")
        expect(cli(w, "batch", "results", batch, "-o", out), WELL, "", "^$")
        with open(out) as f:
            rows = [json.loads(line) for line in f]
        assert [r["output"]["text"] for r in rows] == ["echo: p%d" % i for i in range(10)]
        assert not os.path.exists(out + ".part")
        done = expect(cli(w, "batch", "results", batch), WELL)
        with open(out) as f:
            assert done.out == f.read()
        done = expect(cli(w, "batch", "results", batch, "--order", "completed", "-o", "-"), WELL)
        assert sorted(done.out.splitlines()) == sorted(open(out).read().splitlines())
        expect(cli(w, "batch", "results", batch, "--order", "best"), USAGE, "", "--order")
        expect(cli(w, "batch", "results", batch, "-o", "/no/such/dir/x"), USAGE, "", "/no/such")


def test_options_of_batch_submit():
    with World() as w:
        done = cli(w, "batch", "submit", "-", "--id", "b1", "--tenant", "acme", stdin=lines(3))
        expect(done, WELL, "b1\n")
        expect(cli(w, "batch", "status", "b1"), SOME_FAILED, "", "no batch")
        expect(cli(w, "batch", "status", "b1", "--tenant", "acme", "--wait"), WELL)
        done = expect(cli(w, "batch", "results", "b1", "--tenant", "acme"), WELL)
        assert len(done.out.splitlines()) == 3
        # Again: what is there stays, what is missing comes.
        done = cli(w, "batch", "submit", "-", "--id", "b1", "--tenant", "acme", "--wait", "--json",
                   stdin=lines(5))
        batch = expect(done, WELL).json
        assert batch["id"] == "b1" and batch["total"] == 5, batch
        assert len(w.stub_events("sent")) == 5
        done = cli(w, "batch", "submit", "-", "--json", stdin=lines(1))
        assert expect(done, WELL).json["object"] == "batch"
        done = cli(w, "batch", "submit", "-", "-m", "stub", "--wait",
                   stdin='{"prompt":"no model"}\n')
        expect(done, WELL, None)


def test_batch_submit_refuses_what_is_wrong():
    with World() as w:
        expect(cli(w, "batch", "submit", "/no/such/file"), USAGE, "", "/no/such/file")
        expect(cli(w, "batch", "submit", "/"), USAGE, "", "directory")
        expect(cli(w, "batch", "submit", "-", stdin=""), USAGE, "", "empty")
        expect(cli(w, "batch", "submit", "-", "--id", "a b", stdin=lines(1)), USAGE, "", "id")
        expect(cli(w, "batch", "submit", "-", "--timeout", "1s"), USAGE, "", "--wait")
        done = cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(1) + "rubbish\n" + lines(1))
        expect(done, SOME_FAILED, "b\n", "line 2: .*1 of the lines")
        done = expect(cli(w, "batch", "status", "b", "--wait"), SOME_FAILED)
        assert "2 succeeded, 1 failed" in done.out, done
        done = expect(cli(w, "batch", "results", "b"), SOME_FAILED, None, "1 of 3 jobs did not")
        assert len(done.out.splitlines()) == 3


def test_a_batch_that_has_not_ended():
    with World() as w:
        w.faults("kind=hang,match=p1")
        expect(cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(3)), WELL)
        wait_for(lambda: w.get("/api/v1/batches/b").json["counts"]["succeeded"] == 2, "two")
        done = expect(cli(w, "batch", "status", "b"), WELL)
        assert "status    running\n" in done.out and "3: 1 to do, 2 succeeded" in done.out, done
        assert expect(cli(w, "batch", "status", "b", "--json"), WELL).json["total"] == 3
        done = cli(w, "batch", "status", "b", "--wait", "--timeout", "3s")
        expect(done, TIMED_OUT, ".*running.*", "not ended in time")
        expect(cli(w, "batch", "status", "b", "--timeout", "1s"), USAGE, "", "--wait")
        done = expect(cli(w, "batch", "results", "b"), SOME_FAILED, None, "1 of 3 .*not ended")
        assert len(done.out.splitlines()) == 2
        expect(cli(w, "batch", "cancel", "b"), WELL, ".*1 cancelled.*")
        expect(cli(w, "batch", "status", "b", "--wait"), SOME_FAILED, ".*cancelled.*")
        expect(cli(w, "batch", "cancel", "nope"), SOME_FAILED, "", "no ")
        expect(cli(w, "batch", "cancel", "b", "--tenant", "x"), SOME_FAILED, "", "no ")


def test_batch_list():
    with World() as w:
        expect(cli(w, "batch", "list"), WELL, "", "no batches")
        for i in range(3):
            expect(cli(w, "batch", "submit", "-", "--id", "b%d" % i, stdin=lines(2)), WELL)
        expect(cli(w, "batch", "submit", "-", "--id", "t", "--tenant", "x", stdin=lines(1)), WELL)
        rows = expect(cli(w, "batch", "list"), WELL).out.splitlines()
        assert rows[0].split() == ["ID", "STATUS", "JOBS", "ENDED", "BAD", "TOKENS", "CREATED"]
        assert [r.split()[0] for r in rows[1:]] == ["t", "b2", "b1", "b0"], rows
        done = expect(cli(w, "batch", "list", "-n", "1"), WELL, None, "there are more")
        assert len(done.out.splitlines()) == 2
        done = expect(cli(w, "batch", "list", "--tenant", "x"), WELL)
        assert [r.split()[0] for r in done.out.splitlines()[1:]] == ["t"]
        assert len(expect(cli(w, "batch", "list", "--json"), WELL).json["data"]) == 4
        expect(cli(w, "batch", "list", "--limit", "0"), USAGE, "", "--limit")


def test_a_batch_of_a_pipe_may_be_large():
    with World() as w:
        n = 2000
        done = cli(w, "batch", "submit", "-", "--id", "big", "--wait", stdin=lines(n))
        expect(done, WELL, None)
        done = expect(cli(w, "batch", "results", "big"), WELL)
        assert len(done.out.splitlines()) == n


# ---- on a terminal


class Terminal:
    """A command with a pseudo-terminal as stderr (and stdout, unless that is a pipe)."""

    def __init__(self, arguments, columns=80, env=None, stdout=None):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.master, self.text = master, ""
        self.child = subprocess.Popen([GENQ, *arguments], stdin=slave, stdout=stdout or slave,
                                      stderr=slave, env=clean_environment(**{"TERM": "xterm",
                                                                             **(env or {})}))
        os.close(slave)

    def read(self, until=None, limit_s=LIMIT_S):
        """Reads until a pattern is there, or the end."""
        end = time.monotonic() + limit_s
        while not (until and re.search(until, self.text)):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, "did not come: %r" % self.text[-1000:]
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.text += data.decode()
        return self.text

    def screen(self):
        """What stands there in the end: of the few sequences that genq uses."""
        rows, at, x = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.text):
            if part == "\r":
                x = 0
            elif part == "\n":
                at += 1
                rows += [""] * (at + 1 - len(rows))
            elif part == "\x1b[J":
                rows = rows[:at] + [rows[at][:x]]
            elif part == "\x1b[A":
                at -= 1
            else:
                assert not part.startswith("\x1b"), part
                rows[at] = rows[at][:x].ljust(x) + part + rows[at][x + len(part):]
                x += len(part)
        return [r for r in rows if r]

    def end(self):
        self.read()
        code = self.child.wait(LIMIT_S)
        os.close(self.master)
        return code


def test_progress_on_a_terminal():
    with World(stub=["--latency-ms", "200", "--slots", "2"]) as w:
        url = "http://127.0.0.1:%d" % w.port
        cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(40))
        t = Terminal(["batch", "status", "b", "--wait", "--server", url])
        t.read(r"\[#+\.+\] \d+/40  [0-9.]+ jobs/s.*ETA \d:\d\d")
        assert t.end() == WELL
        screen = t.screen()
        end = r"\[#+\] 40/40  [0-9.]+ jobs/s  \S+ tokens  in \d:\d\d"
        assert re.fullmatch(end, screen[0]), screen
        assert screen[1].startswith("id        b"), screen
        assert max(len(line) for line in re.split(r"[\r\n]|\x1b\[\w", t.text)) <= 79
        n_drawn = t.text.count("jobs/s")
        assert 2 <= n_drawn < 100, n_drawn


def test_progress_on_a_narrow_terminal():
    with World() as w:
        url = "http://127.0.0.1:%d" % w.port
        cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(5))
        t = Terminal(["batch", "status", "b", "--wait", "--json", "--server", url], columns=20,
                     stdout=subprocess.DEVNULL)
        assert t.end() == WELL
        assert max(len(line) for line in re.split(r"[\r\n]|\x1b\[\w", t.text)) <= 19, t.text


def test_progress_says_when_no_engine_is_up():
    with World(engines=[NOBODY]) as w:
        url = "http://127.0.0.1:%d" % w.port
        cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(2))
        t = Terminal(["batch", "status", "b", "--wait", "--server", url])
        t.read("waiting: no engine node is up")
        w.request("DELETE", "/api/v1/batches/b")
        assert t.end() == SOME_FAILED
        assert not [row for row in t.screen() if "waiting" in row], t.screen()


def test_a_dumb_terminal_gets_plain_lines():
    with World() as w:
        url = "http://127.0.0.1:%d" % w.port
        cli(w, "batch", "submit", "-", "--id", "b", stdin=lines(2))
        for env in ({"TERM": "dumb"}, {"TERM": ""}):
            t = Terminal(["batch", "status", "b", "--wait", "--server", url], env=env)
            assert t.end() == WELL
            assert "\x1b" not in t.text and "2/2 (100%)" in t.text, t.text


def test_wait_for_many_on_a_terminal():
    with World(stub=["--latency-ms", "300", "--slots", "1"]) as w:
        url = "http://127.0.0.1:%d" % w.port
        names = ["w%d" % i for i in range(4)]
        for name in names:
            w.submit(id=name)
        t = Terminal(["wait", *names, "--server", url])
        t.read(r"\[\S+\] \d/4")
        assert t.end() == WELL
        screen = t.screen()
        assert [row.split()[0] for row in screen] == names, screen


def test_submit_on_a_terminal_asks_for_a_prompt():
    t = Terminal(["submit", "-m", "stub", "--server", NOBODY])
    assert t.end() == USAGE
    assert "needs PROMPT" in t.text, t.text


# ---- operation


def test_usage():
    with World() as w:
        expect(cli(w, "usage"), WELL)
        w.submit(id="a", tenant="acme")
        w.submit(id="b")
        w.finished("a", "acme")
        w.finished("b")
        rows = expect(cli(w, "usage"), WELL).out.splitlines()
        assert "CALLS" in rows[0] and rows[1].split()[0] == "2", rows
        rows = expect(cli(w, "usage", "--by", "tenant,model"), WELL).out.splitlines()
        assert rows[0].split()[:2] == ["TENANT", "MODEL"] and len(rows) == 3, rows
        assert {tuple(r.split()[:2]) for r in rows[1:]} == {("acme", "stub"), ("default", "stub")}
        rows = expect(cli(w, "usage", "--by=tenant", "--tenant", "acme"), WELL).out.splitlines()
        assert len(rows) == 2 and rows[1].startswith("acme"), rows
        rows = expect(cli(w, "usage", "--by", "tenant", "--csv"), WELL).out.splitlines()
        assert rows[0].startswith("tenant,") and len(rows) == 3, rows
        data = expect(cli(w, "usage", "--by", "tenant", "--json"), WELL).json["data"]
        assert {d["tenant"] for d in data} == {"acme", "default"}
        old = ["usage", "--by", "tenant", "--json", "--to", "2020-01-01"]
        assert expect(cli(w, *old), WELL).json["data"] == []
        for since in ("2020-01-01", "2020-01-01T00:00:00Z", "1577836800000"):
            done = cli(w, "usage", "--by", "tenant", "--json", "--from", since)
            assert len(expect(done, WELL).json["data"]) == 2
        future = cli(w, "usage", "--by", "tenant", "--json", "--from", "2999-01-01")
        assert expect(future, WELL).json["data"] == []
        expect(cli(w, "usage", "--by", "colour"), USAGE, "", "colour")
        expect(cli(w, "usage", "--from", "yesterday"), USAGE, "", "from")
        expect(cli(w, "usage", "--csv", "--json"), USAGE, "", "exclude")


def test_nodes():
    with World(stub=["--model", "stub"]) as w:
        w.submit()
        wait_for(lambda: w.get("/api/v1/nodes").json["data"][0]["models"], "the model")
        rows = expect(cli(w, "nodes"), WELL).out.splitlines()
        assert rows[0].split()[:2] == ["NODE", "STATE"] and len(rows) == 2, rows
        assert rows[1].split()[1] == "up" and "stub" in rows[1], rows
        assert expect(cli(w, "nodes", "--json"), WELL).json["data"][0]["state"] == "up"
    with World(engines=[NOBODY]) as w:
        done = wait_for(lambda: [d for d in [cli(w, "nodes")] if "error: " in d.out], "the error")
        expect(done[0], WELL, ".*127.0.0.1:1 .*")


def test_config_check():
    with tempfile.TemporaryDirectory() as folder:
        done = expect(genq("config", "check", cwd=folder), WELL)
        assert done.out.startswith("# OK\n") and "jobs_days: 30" in done.out, done
        path = os.path.join(folder, "genq.yaml")
        with open(path, "w") as f:
            f.write("retention: {jobs_days: 7}\nengines:\n  - {url: http://e:1, api_key: secret}\n")
        for done in (genq("config", "check", cwd=folder), genq("config", "check", path),
                     genq("config", "check", "--config", path),
                     genq("config", "check", env={"GENQ_CONFIG": path})):
            assert "jobs_days: 7" in expect(done, WELL).out, done
            assert "secret" not in done.out + done.err, done
        expect(genq("config", "check", path, "--config", path), USAGE, "", "not both")
        settings = expect(genq("config", "check", path, "--json"), WELL).json
        assert settings["retention"]["jobs_days"] == 7
        assert settings["engines"][0]["url"] == "http://e:1"
        with open(path, "w") as f:
            f.write("data: x\nretention:\n  jobs_dais: 7\n")
        expect(genq("config", "check", path), USAGE, "", r"genq.yaml:3:3: .*jobs_dais")
        expect(genq("config", "check", "/no/such"), USAGE, "", "/no/such")
        # What was printed is a config again.
        printed = genq("config", "check", cwd="/").out
        with open(path, "w") as f:
            f.write(printed)
        assert expect(genq("config", "check", path), WELL).out == printed


def complete(*words):
    """What bash would offer for the last word."""
    script = 'source <("$GENQ" completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _genq; ' \
             'echo "${COMPREPLY[@]}"'
    p = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True,
                       env={**os.environ, "GENQ": GENQ})
    assert p.returncode == 0 and p.stderr == "", p
    return p.stdout.split()


def test_completion():
    offered = complete("genq", "")
    for name in commands():
        assert name.split()[0] in offered, name
    assert complete("genq", "sub") == ["submit"]
    assert set(complete("genq", "batch", "")) == {"run", "submit", "status", "results", "cancel",
                                                  "list"}
    assert complete("genq", "batch", "status", "--wa") == ["--wait"]
    assert complete("genq", "--server", "x", "batch", "res") == ["results"]
    assert complete("genq", "submit", "--model", "") == []
    assert complete("genq", "get", "--ten") == ["--tenant"]
    assert complete("genq", "config", "") == ["check"]
    expect(genq("completion", "fish"), USAGE, "", "neither bash nor zsh")
    done = expect(genq("completion", "zsh"), WELL)
    assert done.out.startswith("#compdef genq\n"), done
    zsh = subprocess.run(["sh", "-c", "command -v zsh"], capture_output=True, text=True)
    if zsh.returncode == 0:
        assert subprocess.run(["zsh", "-n"], input=done.out, text=True).returncode == 0


# ---- the reference


def test_the_reference_names_every_command_and_option():
    docs = os.path.join(os.environ.get("SOURCE_DIR", "."), "docs", "cli.md")
    with open(docs, encoding="utf-8") as f:
        text = f.read()
    sections = dict(re.findall(r"^### genq ([a-z ]+)\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    assert sorted(sections) == sorted(commands()), sorted(set(sections) ^ set(commands()))
    for name, section in sections.items():
        shown = genq(*name.split(), "--help").out
        own = shown.split("Options of every command:")[0].split("\nOptions:\n")
        listed = own[1] if own[1:] else ""
        wanted = set(re.findall(r"^ {2,6}(?:-\w, )?(--[a-z-]+)", listed, re.M))
        told = set(re.findall(r"^- `(?:-\w, )?(--[a-z-]+)", section, re.M))
        assert told == wanted, (name, told ^ wanted)
    for option in ("--config", "--server", "--api-key", "--json", "--help", "--version"):
        assert "`%s" % option in text, option


run(globals())
