"""genq distributed: gateways and workers as processes of their own on one Kafka.

    with KafkaCluster() as kafka, Distributed(kafka, gateways=2, workers=2) as d:
        job = d.gateways[0].submit(prompt="hi")
        d.gateways[1].finished(job["id"])
        d.workers[0].kill(); d.workers[0].start()
"""
import os
import signal
import subprocess
import sys
import tempfile

from genq import Http, Process, Stub, read_file, wait_for

# Short, so that what a kill costs is seen in a test's time; the broker's floor is lower still.
SESSION_MS = 6000


class Member(Http):
    """One process, gateway or worker: start, stop, kill, pause, resume. Its data stay over a restart."""

    def __init__(self, world, role, name, config="", urls=()):
        self.role, self.name = role, name
        self.folder = os.path.join(world.folder, name)
        self.data = os.path.join(self.folder, "data")
        self.config = os.path.join(self.folder, "genq.yaml")
        os.makedirs(self.folder)
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(world.common_of(name) + config)
        self.arguments = [os.environ["GENQ"], role, "--data", self.data, "--listen", "127.0.0.1:0"]
        self.arguments += [word for url in urls for word in ("--engine", url)]
        self.process, self.port = None, 0

    def launch(self):
        listen = os.path.join(self.data, "listen")
        if os.path.exists(listen):
            os.unlink(listen)
        self.process = Process(self.arguments, self.folder, self.name, {"GENQ_CONFIG": self.config})

    def await_port(self):
        listen = os.path.join(self.data, "listen")
        text = wait_for(lambda: self.process.check() or
                        (read_file(listen).endswith("\n") and read_file(listen)), self.name + "'s port")
        self.port = int(text.strip().rpartition(":")[2])

    def start(self):
        self.launch()
        self.await_port()

    def stop(self):
        """SIGTERM; it must end well."""
        code = self.process.end()
        assert code == 0, "%s ended with %s:\n%s" % (self.name, code, self.said())

    def kill(self):
        self.process.end(signal.SIGKILL)

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def said(self):
        return read_file(self.process.log)

    def finished(self, job_id, tenant="default"):
        """Also where this one has not read of the job yet."""
        wait_for(lambda: self.get("/api/v1/jobs/%s?tenant=%s" % (job_id, tenant)).status != 404, job_id)
        return super().finished(job_id, tenant)


class Distributed:
    """The topics are made by `genq topics apply`. config: genq.yaml for all; broker: more
    of its broker map ("partitions: 1,"); stub: the engine's options.
    All workers share one stub engine, or have one each: engines[i] is that of workers[i]."""

    def __init__(self, kafka, gateways=1, workers=1, config="", stub=(), worker_config="",
                 session_ms=SESSION_MS, prefix="genq", has_engine_each=False, broker=""):
        self.kafka, self.prefix = kafka, prefix
        self.folder_owner = tempfile.TemporaryDirectory(prefix="genq-dist-")
        self.folder = self.folder_owner.name
        self.common = ("broker: {kind: kafka, servers: \"%s\", prefix: %s, %s\n"
                       "  consumer: {session.timeout.ms: %d}}\n" %
                       (kafka.servers, prefix, broker, session_ms)) + config
        stub = list(stub)
        self.engines = [Stub(self.folder, "stub%d" % i, *stub)
                        for i in range(workers if has_engine_each else 1)]
        self.gateways = [Member(self, "gateway", "gateway%d" % i) for i in range(gateways)]
        self.workers = []
        for _ in range(workers):
            self.new_worker(worker_config)

    @property
    def engine(self):
        return self.engines[0]

    def new_worker(self, config):
        i = len(self.workers)
        engine = self.engines[i % len(self.engines)]
        name = "worker%d" % i
        self.workers.append(Member(self, "worker", name, config, [self.engine_url(engine, name)]))
        return self.workers[-1]

    def common_of(self, name):
        """The config of that member, which may see others by other ways."""
        return self.common

    def engine_url(self, engine, name):
        return engine.url

    @property
    def members(self):
        return self.gateways + self.workers

    def __enter__(self):
        try:
            self.genq("topics", "apply")
            for member in self.members:
                member.launch()
            for member in self.members:
                member.await_port()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            for member in self.members:
                if kind is None and member.process and member.process.child.poll() is None:
                    member.stop()
        finally:
            for member in self.members:
                if not member.process:
                    continue
                if kind is not None:
                    sys.stderr.write("== %s\n%s" % (member.name, member.said()[-3000:]))
                member.kill()
            for engine in self.engines:
                engine.stop()
            self.folder_owner.cleanup()

    def add_worker(self, config=""):
        worker = self.new_worker(config)
        worker.start()
        return worker

    def genq(self, *arguments):
        """Runs a command with everybody's config; gives what it printed."""
        path = os.path.join(self.folder, "genq.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.common)
        done = subprocess.run([os.environ["GENQ"], "--config", path, *arguments], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done
        return done.stdout
