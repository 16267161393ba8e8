"""For the flow tests: a stub engine, a genq, an HTTP client, and a runner of cases.

A case is a function test_*(); each makes its own World, in a temporary directory of its own:

    def test_echo():
        with World() as w:
            assert w.post("/api/v1/jobs", {...}).status == 201

    run(globals())

Environment: GENQ and STUB, the two programs; VARIANT, the build's kind (plain, asan, tsan …).
"""
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

VARIANT = os.environ.get("VARIANT", "plain")
IS_SLOW = VARIANT in ("asan", "tsan", "address", "thread")
LIMIT_S = 120 if IS_SLOW else 60  # how long anything is waited for

JOB_PATHS = {"/api/generate", "/api/chat", "/api/embed", "/v1/completions", "/v1/chat/completions",
             "/v1/embeddings"}


def wait_for(look, what="", limit_s=LIMIT_S):
    """Calls look() until it gives something true, and gives that."""
    end = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("not in %d s: %s" % (limit_s, what or look))
        time.sleep(0.005)


def read_file(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


class Process:
    def __init__(self, arguments, folder, name, environment=None):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log, cwd=folder,
                                          env={**os.environ, **(environment or {})})
        self.pid = self.child.pid

    def check(self):
        if self.child.poll() is not None:
            raise AssertionError("ended with %s:\n%s" % (self.child.returncode,
                                                         read_file(self.log)))

    def end(self, number=signal.SIGTERM, limit_s=LIMIT_S):
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            return self.child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError("did not end:\n" + read_file(self.log)) from None


class Reply:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The error object, of the one shape that all have."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        return error

    def __repr__(self):
        return "%d %s %s" % (self.status, dict(self.headers), self.body[:2000])


def request(port, method, path, body=None, headers=None, limit_s=LIMIT_S + 120):
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        c.request(method, path, body, headers or {})
        response = c.getresponse()
        return Reply(response, response.read())
    finally:
        c.close()


class Events:
    """A stream of server-sent events: iterate, or next(). Each is a dict of event, id, data (parsed);
    comments are {"comment": text}."""

    def __init__(self, port, path, headers=None, limit_s=LIMIT_S):
        self.c = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
        self.c.request("GET", path, headers={"Accept": "text/event-stream", **(headers or {})})
        self.response = self.c.getresponse()
        self.status = self.response.status

    def __iter__(self):
        return self

    def __next__(self):
        event, lines = {}, 0
        while True:
            line = self.response.readline()
            if not line:
                raise StopIteration
            line = line.decode().rstrip("\n")
            if not line and lines:
                return event
            if line.startswith(":"):
                event["comment"] = line[1:].strip()
            elif line:
                name, _, value = line.partition(": ")
                event[name] = json.loads(value) if name == "data" else value
            lines += bool(line)

    def close(self):
        if self.response.fp is not None:
            self.response.close()
        self.c.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stub:
    """A further stub engine: Stub(folder, "name", option…). start() again keeps its port and logs."""

    def __init__(self, folder, name, *arguments):
        self.folder, self.name, self.arguments = folder, name, list(arguments)
        self.log = os.path.join(folder, name + ".calls")
        self.bodies = os.path.join(folder, name + ".bodies")
        self.port, self.process = 0, None
        self.start()

    def start(self):
        port_file = os.path.join(self.folder, self.name + ".port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        self.process = Process([os.environ["STUB"], "--port", str(self.port), "--port-file",
                                port_file, "--log", self.log, "--bodies", self.bodies,
                                *self.arguments], self.folder, self.name)
        self.port = int(wait_for(lambda: self.process.check() or read_file(port_file).strip(),
                                 "a stub engine's port"))
        self.url = "http://127.0.0.1:%d" % self.port

    def stop(self):
        self.process.end(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def control(self, method, path, body=None):
        reply = request(self.port, method, "/_stub/" + path, body)
        assert reply.status in (200, 204), reply
        return reply

    def faults(self, *specs):
        self.control("POST", "faults", "\n".join(specs))

    def latency(self, ms):
        self.control("POST", "latency", str(ms))

    def stats(self):
        return self.control("GET", "stats").json

    def events(self, name, paths=JOB_PATHS):
        """Lines of the log with this event; paths None: probes and health checks as well."""
        lines = [line.split() for line in read_file(self.log).splitlines()]
        return [line for line in lines if len(line) == 8 and line[1] == name and
                (paths is None or line[4] in paths)]

    def requests(self, paths=JOB_PATHS):
        """What came, as dicts of method, path, headers, body."""
        text = read_file(self.bodies)
        lines = [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]
        return [r for r in lines if paths is None or r["path"] in paths]


class Http:
    """What a client does with the genq that listens on self.port."""

    def request(self, method, path, body=None, headers=None, **more):
        return request(self.port, method, path, body, headers, **more)

    def get(self, path, **headers):
        return self.request("GET", path, None, {k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, body, **headers):
        return self.request("POST", path, body,
                            {k.replace("_", "-"): v for k, v in headers.items()})

    def delete(self, path):
        return self.request("DELETE", path)

    def events(self, path, headers=None, **more):
        return Events(self.port, path, headers, **more)

    def socket(self, limit_s=LIMIT_S):
        return socket.create_connection(("127.0.0.1", self.port), limit_s)

    def submit(self, **fields):
        """Posts one job; gives it as it was answered."""
        reply = self.post("/api/v1/jobs", {"model": "stub", "prompt": "hello", **fields})
        assert reply.status == 201, reply
        return reply.json

    def finished(self, job_id, tenant="default"):
        """The job, once it has ended."""
        reply = self.get("/api/v1/jobs/%s?wait=%ds&tenant=%s" % (job_id, LIMIT_S, tenant))
        assert reply.status == 200, reply
        job = reply.json
        assert job["finished_at"], job
        return job

    def metric(self, name):
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise AssertionError("no metric " + name)


class World(Http):
    """A stub engine and a genq. config: text of genq.yaml, or None, or what gives it from the world
    (whose folder, stub_port are known by then). engines: URLs for --engine; [] when config has them."""

    def __init__(self, stub=(), config=None, engines=None):
        self.folder_owner = tempfile.TemporaryDirectory(prefix="genq-flow-")
        self.folder = self.folder_owner.name
        self.stub_arguments, self.config, self.engines = list(stub), config, engines
        self.stub = self.genq = None
        self.stubs = []  # the further ones

    def __enter__(self):
        try:
            self.start_stub()
            self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if self.genq:
                code = self.genq.end()
                if kind is None:
                    assert code == 0, "genq ended with %s:\n%s" % (code, read_file(self.genq.log))
        finally:
            if kind is not None and self.genq:
                sys.stderr.write(read_file(self.genq.log)[-4000:])
            if self.genq:
                self.genq.end(signal.SIGKILL)
            if self.stub:
                self.stub.end(signal.SIGKILL)
            for stub in self.stubs:
                stub.stop()
            self.folder_owner.cleanup()

    def start_stub(self):
        port_file = os.path.join(self.folder, "stub.port")
        self.stub_log = os.path.join(self.folder, "stub.calls")
        self.stub = Process([os.environ["STUB"], "--port-file", port_file, "--log", self.stub_log,
                             *self.stub_arguments], self.folder, "stub")
        self.stub_port = int(wait_for(lambda: self.stub.check() or read_file(port_file).strip(),
                                      "the stub engine's port"))

    def add_stub(self, name, *arguments):
        """A further stub engine, which ends with the world. A config function may call it."""
        self.stubs.append(Stub(self.folder, name, *arguments))
        return self.stubs[-1]

    def start(self):
        """Starts genq (again): on the same data."""
        self.data = os.path.join(self.folder, "data")
        listen = os.path.join(self.data, "listen")
        if os.path.exists(listen):
            os.unlink(listen)
        environment = {"GENQ_CONFIG": os.path.join(self.folder, "genq.yaml")}
        with open(environment["GENQ_CONFIG"], "w", encoding="utf-8") as f:
            config = self.config(self) if callable(self.config) else self.config or ""
            f.write(config)
            if "worker:" not in config:
                f.write("worker: {drain_ms: 100}\n")  # a case's end waits for no engine
        engines = self.engines
        if engines is None:
            engines = ["http://127.0.0.1:%d" % self.stub_port]
        arguments = [os.environ["GENQ"], "up", "--data", self.data, "--listen", "127.0.0.1:0"]
        for url in engines:
            arguments += ["--engine", url]
        self.genq = Process(arguments, self.folder, "genq", environment)
        text = wait_for(lambda: self.genq.check() or
                        (read_file(listen).endswith("\n") and read_file(listen)), "genq's port")
        self.port = int(text.strip().rpartition(":")[2])

    def stop(self, number=signal.SIGTERM):
        self.genq.end(number)

    def faults(self, *specs):
        reply = request(self.stub_port, "POST", "/_stub/faults", "\n".join(specs))
        assert reply.status in (200, 204), reply

    def latency(self, ms):
        reply = request(self.stub_port, "POST", "/_stub/latency", str(ms))
        assert reply.status in (200, 204), reply

    def block(self):
        """Holds the only slot, so that what is submitted then stays queued. release() lets go."""
        self.latency(100000)
        self.submit(id="blocker", prompt="key=blocker", tenant="nobody")
        wait_for(lambda: any(e[3] == "blocker" for e in self.stub_events("recv")), "the blocker")
        self.latency(0)

    def release(self):
        assert self.delete("/api/v1/jobs/blocker?tenant=nobody").status == 202

    def stub_events(self, name):
        """Lines of the stub's log with this event (recv, sent, abort, fault), of jobs only."""
        lines = [line.split() for line in read_file(self.stub_log).splitlines()]
        return [line for line in lines if len(line) == 8 and line[1] == name and
                line[4] in JOB_PATHS]


class OneSlot(World):
    """A genq whose only node does one job at a time."""

    def __init__(self, more="", stub=()):
        super().__init__(stub=stub, engines=[], config=lambda w:
                         "engines: [{url: 'http://127.0.0.1:%d', slots: 1}]\n" % w.stub_port + more)


class Nodes(World):
    """A genq with stub engines of its own as nodes: {name: (stub's options, engine's settings)}, such as
    {"a": (["--dialect", "openai"], "slots: 2, weight: 10")}. w.node[name] is a Stub."""

    def __init__(self, nodes, config=""):
        super().__init__(config=self.make_config, engines=[])
        self.nodes, self.more = nodes, config
        self.node = {}

    def start_stub(self):
        for name, (options, _) in self.nodes.items():
            self.node[name] = self.add_stub(name, *options)

    def make_config(self, _):
        lines = ["engines:\n"]
        for name, (_, settings) in self.nodes.items():
            url = "" if "url:" in settings else ", url: %s" % self.node[name].url
            lines.append("  - {name: %s%s%s}\n" % (name, url, ", " + settings if settings else ""))
        return "".join(lines) + self.more

    def state_of(self, name):
        return {n["name"]: n for n in self.get("/api/v1/nodes").json["data"]}[name]

    def await_nodes(self, **states):
        """Waits until the named nodes (all, when none is named) are up, or as said: a="down"."""
        states = states or {name: "up" for name in self.nodes}
        wait_for(lambda: all(self.state_of(n)["state"] == s for n, s in states.items()), states)


def run(names):
    """Runs the cases, or those named in the arguments; TAP on stdout; exits."""
    cases = [(n, f) for n, f in names.items() if n.startswith("test_") and callable(f)]
    wanted = {name.removeprefix("test_") for name in sys.argv[1:]}
    unknown = wanted - {name[5:] for name, _ in cases}
    if unknown:
        sys.exit("no case: %s" % ", ".join(unknown))
    failed = n_run = 0
    for name, case in cases:
        if wanted and name[5:] not in wanted:
            continue
        n_run += 1
        started = time.monotonic()
        try:
            case()
            word = "ok"
        except Exception:  # a case's failure is a result, not the end
            traceback.print_exc()
            failed += 1
            word = "not ok"
        print("%s %d - %s (%.1f s)" % (word, n_run, name[5:], time.monotonic() - started),
              flush=True)
    print("1..%d" % n_run)
    sys.exit(1 if failed or not n_run else 0)
