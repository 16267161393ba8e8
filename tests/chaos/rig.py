"""What the chaos tests share: the stub engine, genq as a process that is killed, a folder per test.

Environment (set by ctest): GENQ and STUB are the programs, BINARY_DIR a place for folders, CHAOS_KILLS
the number of kills (default: what fits into a minute), CHAOS_SEED repeats a run.
"""
import atexit
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

GENQ = os.environ.get("GENQ", "build/genq")
STUB = os.environ.get("STUB", "build/stub_engine")
IS_SLOW = os.environ.get("VARIANT", "plain") != "plain"  # sanitizers: three to five times slower
SLOTS = 16
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 30)))
RANDOM = random.Random(SEED)
SKIPPED = 77


def n_kills(default):
    return int(os.environ.get("CHAOS_KILLS", default))


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def mono_us():
    return time.monotonic_ns() // 1000


def wait_for(what, limit_s, test):
    """Gives test()'s first true value; what names the event in the failure."""
    end = time.monotonic() + limit_s
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s} s: {what}")
        time.sleep(0.005)


class Folder:
    """A test's own directory; kept when the test fails."""

    def __init__(self, name):
        base = os.path.join(os.environ.get("BINARY_DIR", tempfile.gettempdir()), "chaos")
        os.makedirs(base, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix=f"{name}-", dir=base)
        print(f"{name}: seed {SEED} (CHAOS_SEED repeats it), {self.path}", flush=True)

    def __call__(self, *parts):
        return os.path.join(self.path, *parts)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Stub:
    """The stub engine. Its log is the judge's view of what was really run."""

    def __init__(self, folder, *options, name="stub"):
        self.log = folder(f"{name}.log")
        port_file = folder(f"{name}.port")
        self.process = subprocess.Popen(
            [STUB, "--port", "0", "--port-file", port_file, "--log", self.log, "--model", "stub",
             *map(str, options)], stdout=subprocess.DEVNULL)
        atexit.register(self.stop)

        def read_port():
            try:
                with open(port_file) as f:
                    return int(f.read() or 0)
            except (OSError, ValueError):
                return 0
        self.port = wait_for("the stub engine's port", 20, read_port)
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        c.request(method, path, body)
        text = c.getresponse().read()
        c.close()
        return text

    def stats(self):
        return json.loads(self.ask("GET", "/_stub/stats"))

    def settle(self):
        """After a kill: waits until all that the dead process sent has been read and logged."""
        wait_for("the stub to see the end of a dead process' calls", 20,
                 lambda: self.stats()["in_flight"] == 0)
        self.stats()  # one more turn of its loop, behind every connection that was there

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def write_config(path, engine_url, text="", slots=SLOTS, **sections):
    """genq.yaml with one engine; sections are further top-level keys, as YAML flow text."""
    with open(path, "w") as f:
        f.write(f'engines:\n  - {{name: e, url: "{engine_url}", slots: {slots}}}\n')
        f.write("log: {level: info, format: json}\n")
        sections.setdefault("limits", "{disk_free_bytes: 0}")
        sections.setdefault("retry", "{base_ms: 10, cap_ms: 50}")
        for key, value in sections.items():
            f.write(f"{key}: {value}\n")
        f.write(text)
    return path


class Process:
    """One genq process."""

    def __init__(self, arguments, error_file, env=None, stdin=None, stdout=subprocess.DEVNULL):
        self.errors = open(error_file, "ab")
        self.errors_from = self.errors.tell()
        self.error_file = error_file
        self.started_us = mono_us()
        self.process = subprocess.Popen([GENQ, *arguments], stdin=stdin, stdout=stdout,
                                        stderr=self.errors, env={**os.environ, **(env or {})})
        atexit.register(self.end)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.errors.close()
        atexit.unregister(self.end)

    def kill(self):
        """SIGKILL; gives whether it was still running."""
        was_running = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.killed_us = mono_us()
        self.errors.close()
        atexit.unregister(self.end)
        return was_running and self.process.returncode == -signal.SIGKILL

    def wait(self, limit_s):
        """Gives the exit code, negative for a signal."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"genq did not end within {limit_s} s; its last words:\n"
                                 + self.words()[-2000:])
        finally:
            self.end()
        self.killed_us = mono_us()
        return self.process.returncode

    def wait_or_kill(self, seconds):
        """True when it was killed after that time, False when it had ended by itself."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        return self.kill()

    def words(self):
        with open(self.error_file, "rb") as f:
            f.seek(self.errors_from)
            return f.read().decode(errors="replace")


def check_sane(p):
    """A death that nobody asked for is a crash, and a sanitizer's report too."""
    words = p.words()
    code = p.process.returncode
    assert code >= 0 or code == -signal.SIGKILL, f"genq died of signal {-code}:\n{words[-4000:]}"
    for sign in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "Assertion"):
        assert sign not in words, f"genq: {sign}:\n{words[-6000:]}"


class Server(Process):
    """`genq up` on a port of its own, on a data directory that outlives it."""

    def __init__(self, folder, config, data, env=None, log="up.err"):
        self.listen = os.path.join(data, "listen")
        self.port = 0
        if os.path.exists(self.listen):
            os.unlink(self.listen)
        super().__init__(["--config", config, "up", "--data", data, "--listen", "127.0.0.1:0"],
                         folder(log), env)

    def wait_up(self, limit_s=30):
        def look():
            try:
                with open(self.listen) as f:
                    text = f.read()
            except OSError:
                text = ""
            if not text.endswith("\n"):
                assert self.process.poll() is None, "genq up ended:\n" + self.words()[-2000:]
                return False
            self.port = int(text.rsplit(":", 1)[1])
            return True
        wait_for("genq up's port", limit_s, look)
        return self

    def ask(self, method, path, body=None, headers=None, timeout=20):
        return ask(self.port, method, path, body, headers, timeout)

    def unfinished(self):
        """Records that wait in the job topics: exact from the first moment on."""
        _, text = self.ask("GET", "/metrics")
        return sum(int(line.split()[1]) for line in text.splitlines()
                   if line.startswith(('genq_topic_waiting{topic="genq.jobs.',
                                       'genq_topic_waiting{topic="genq.scheduled"')))

    def stop(self, limit_s=60):
        self.process.send_signal(signal.SIGTERM)
        return self.wait(limit_s)


def ask(port, method, path, body=None, headers=None, timeout=20):
    """Gives (status, decoded body); OSError or HTTPException when there was no whole answer."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        text = r.read()
        try:
            return r.status, json.loads(text) if text else None
        except ValueError:
            return r.status, text.decode(errors="replace")
    finally:
        c.close()


NO_ANSWER = (OSError, http.client.HTTPException, socket.timeout)


class Thread(threading.Thread):
    """A thread whose exception is the test's: join() raises it."""

    def __init__(self, target, *args):
        super().__init__(daemon=True)
        self.work, self.args, self.error = target, args, None
        self.start()

    def run(self):
        try:
            self.work(*self.args)
        except BaseException as e:  # told by join
            self.error = e

    def join(self, limit_s=None):
        super().join(limit_s)
        assert not self.is_alive(), f"{self.work.__name__} did not end within {limit_s} s"
        if self.error:
            raise self.error


class Lives:
    """`genq up` on one data directory, life after life, with a judge who looks at it after each."""

    def __init__(self, folder, name, judge_of, *stub_options, data=None, **sections):
        self.folder, self.name = folder, name
        self.stub = Stub(folder, *stub_options, name=f"{name}-stub")
        self.config = write_config(folder(f"{name}.yaml"), self.stub.url, **sections)
        self.data = data or folder(f"{name}-data")
        self.judge = judge_of(self.data, self.stub.log)
        self.server = None

    def start(self, **env):
        self.judge.started(mono_us())
        self.server = Server(self.folder, self.config, self.data, env, f"{self.name}.err")
        return self.server.wait_up()

    def kill(self):
        assert self.server.kill(), "genq up had ended: " + self.server.words()[-2000:]
        self.buried()

    def wait_death(self, limit_s=30):
        """Until it has killed itself at a crash point."""
        code = self.server.wait(limit_s)
        assert code == -signal.SIGKILL, f"exit code {code}, it should have died"
        self.buried()

    def buried(self):
        check_sane(self.server)
        self.stub.settle()
        self.judge.ended(self.server.killed_us, True)

    def stop(self):
        code = self.server.stop()
        check_sane(self.server)
        assert code == 0, f"exit code {code} at SIGTERM"
        self.judge.ended(self.server.killed_us, False)

    def post(self, jobs):
        status, reply = self.server.ask("POST", "/api/v1/jobs", jobs)
        assert status in (200, 201), f"{status} {reply}"
        return reply

    def unfinished(self):
        return self.server.unfinished()

    def wait_idle(self, limit_s=60):
        wait_for("all jobs' ends", limit_s, lambda: self.unfinished() == 0)

    def calls_seen(self):
        return self.stub.stats()["requests"]
