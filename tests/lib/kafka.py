"""A real Kafka for tests: brokers of our own on 127.0.0.1, from the jars of Maven Central.

    with KafkaCluster() as kafka:               # or KafkaCluster(3): replication 3, two in sync
        ... kafka.servers ...                   # what clients call bootstrap.servers
        kafka.client().produce("topic", ("key", "value"))
        kafka.brokers[0].kill()                 # and stop, pause, resume
        kafka.brokers[0].start()

For C tests and for people, the same from a command line:

    kafka.py run [--brokers N] -- COMMAND…      runs it with KAFKA_SERVERS=host:port,…; ends as it does
    kafka.py collect                            gets the jars, once; prints their folder

The jars are kept in $GENQ_KAFKA_LIBS, else beside the build directory BINARY_DIR, for all its variants.
Where they cannot be got, or a program is missing, a test ends with 77 (ctest: skipped), and so does every
test when GENQ_NO_KAFKA is set.
"""
import argparse
import base64
import fcntl
import glob
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from certificates import Authority
from genq import read_file
from kafka_client import KafkaClient
from server import Server, free_ports, require, skip

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kafka")
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
VERSION = re.search("<kafka.version>(.*)</kafka.version>",
                    read_file(os.path.join(HERE, "pom.xml"))).group(1)
COLLECT_S = 300
READY = "Kafka Server started"
SCRAM = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
LINKED = ("LINK", "CONTROLLER")

# One compiler of two and one thread for garbage: a start takes half the time and a third of the CPU.
JVM = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
       "-Xlog:disable", "-Xlog:all=error:stderr",
       "-Dlog4j2.configurationFile=" + os.path.join(HERE, "log4j2.properties")]


def libs_folder():
    beside = os.path.join(os.environ.get("BINARY_DIR", os.path.join(ROOT, "build-tests", "x")), "..")
    return os.path.abspath(os.environ.get("GENQ_KAFKA_LIBS") or os.path.join(beside, "kafka-libs"))


def java(libs, *options):
    """A JVM's command line. The class archive halves a start; it must see the same class path again."""
    jars = sorted(glob.glob(os.path.join(libs, "*.jar")))
    return [*JVM, *(options or ["-XX:SharedArchiveFile=" + os.path.join(libs, "kafka.jsa")]),
            "-cp", ":".join(jars)]


def download(libs):
    """Fills the folder libs, which appears only when it is complete."""
    require("mvn")
    coming = libs + ".coming"
    shutil.rmtree(coming, ignore_errors=True)
    try:
        done = subprocess.run(["mvn", "-B", "-q", "-C", "-f", os.path.join(HERE, "pom.xml"),
                               "dependency:copy-dependencies", "-DoutputDirectory=" + coming],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=COLLECT_S)
        why = done.stdout if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = "Maven did not end in %d s" % COLLECT_S
    if why:
        skip("no Kafka, since its jars cannot be got from Maven Central:\n" + why[:1000])
    os.rename(coming, libs)


def archive_classes(libs):
    """Writes the class archive, which a broker does when it ends."""
    archive = os.path.join(libs, "kafka.jsa")
    with KafkaCluster(libs=libs, jvm=["-XX:ArchiveClassesAtExit=" + archive + ".coming"]) as kafka:
        kafka.stop()
    os.rename(archive + ".coming", archive)


def collect():
    """Gives the folder with the jars and the class archive, made where it is missing; one process at a
    time makes it."""
    if os.environ.get("GENQ_NO_KAFKA"):
        skip("GENQ_NO_KAFKA is set")
    require("java", "kcat", "openssl", "setpriv")
    libs = os.path.join(libs_folder(), VERSION)
    os.makedirs(libs_folder(), exist_ok=True)
    with open(libs + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(libs):
            download(libs)
        if not os.path.exists(os.path.join(libs, "kafka.jsa")):
            archive_classes(libs)
    return libs


def link_host(here, there):
    return "127.1.%d.%d" % (here.node_id, there.node_id)


class KafkaBroker(Server):
    """One broker of a cluster: start, stop, kill, pause, resume; is_running, pid, log. ports: by listener;
    doors: the port that it tells clients of a listener instead of its own."""

    def __init__(self, cluster, node_id, ports, doors):
        self.node_id, self.ports, self.doors = node_id, ports, doors
        self.data = os.path.join(cluster.folder, "data%d" % node_id)
        self.properties = os.path.join(cluster.folder, "%d.properties" % node_id)
        self.hosts = os.path.join(cluster.folder, "%d.hosts" % node_id)
        names = ["-Djdk.net.hosts.file=" + self.hosts] if cluster.has_links else []
        super().__init__(cluster.folder, "kafka%d" % node_id,
                         [*cluster.command, *names, "kafka.Kafka", self.properties], READY)

    def server(self, listener="PLAINTEXT"):
        if self.is_linked(listener):
            return "broker%d:%d" % (self.node_id, self.ports[listener])
        return "127.0.0.1:%d" % self.doors.get(listener, self.ports[listener])

    def is_linked(self, listener):
        return "LINK" in self.ports and listener in LINKED

    def know(self, brokers):
        """By its own names of the others, each at an address of its own; itself is here."""
        with open(self.hosts, "w", encoding="utf-8") as f:
            f.write("127.0.0.1 localhost %s broker%d\n" % (socket.gethostname(), self.node_id))
            f.writelines("%s broker%d\n" % (link_host(self, b), b.node_id)
                         for b in brokers if b is not self)

    def configure(self, common):
        settings = {"node.id": self.node_id, "log.dirs": self.data,
                    "listeners": ",".join("%s://127.0.0.1:%d" % at for at in self.ports.items()),
                    "advertised.listeners": ",".join("%s://%s" % (l, self.server(l))
                                                     for l in self.ports
                                                     if l != "CONTROLLER" or self.is_linked(l)),
                    **common}
        with open(self.properties, "w", encoding="utf-8") as f:
            f.write(read_file(os.path.join(HERE, "server.properties")))
            f.writelines("%s=%s\n" % pair for pair in settings.items())


class KafkaCluster:
    """n brokers. settings: of every broker, before ours. listeners: further ones, of SASL_PLAINTEXT, SSL and
    SASL_SSL. users: {name: password} of SASL/PLAIN, and of SCRAM at the start. Without a listener named,
    all is for PLAINTEXT.
    doors: names of further listeners, plain, whose clients are told of another port: something must stand at
    broker.doors[name] and lead to broker.ports[name] (network.py). servers_of(name) leads there, too.
    has_links: the brokers see each other, for replication (LINK) and as controllers, at addresses of their own:
    for each pair and both of LINKED something must stand at link_host(here, there), with the port
    there.ports[…], and lead to that port of 127.0.0.1."""

    def __init__(self, n=1, settings=None, listeners=(), users=None, libs=None, jvm=(), doors=(),
                 has_links=False):
        self.has_links = has_links
        self.command = java(libs or collect(), *jvm)
        self.folder_owner = tempfile.TemporaryDirectory(prefix="genq-kafka-")
        self.folder, self.users = self.folder_owner.name, users or {}
        self.authority = Authority(self.folder) if {"SSL", "SASL_SSL"} & set(listeners) else None
        names = ["PLAINTEXT", *listeners, *doors, *(["LINK"] if has_links else []), "CONTROLLER"]
        ports = iter(free_ports(n * (len(names) + len(doors))))
        self.brokers = [KafkaBroker(self, 1 + i, {name: next(ports) for name in names},
                                    {name: next(ports) for name in doors}) for i in range(n)]
        common = {**self.copies(), **self.protocols(doors), **(self.tls() if self.authority else {}),
                  **(self.sasl() if users else {}), **(self.linked() if has_links else {}),
                  **(settings or {})}
        for broker in self.brokers:
            broker.configure(common)
            if has_links:
                broker.know(self.brokers)

    @staticmethod
    def linked():
        """Faults are noticed, and given up on, in seconds."""
        return {"inter.broker.listener.name": "LINK", "replica.lag.time.max.ms": 2000,
                "replica.socket.timeout.ms": 3000, "controller.socket.timeout.ms": 3000}

    def servers_of(self, listener):
        return ",".join(b.server(listener) for b in self.brokers)

    @property
    def servers(self):
        return self.servers_of("PLAINTEXT")

    def client(self, listener="PLAINTEXT", user=None):
        """A client that the listener lets in; its properties are what another client needs as well."""
        properties = {"security.protocol": listener}
        if listener.endswith("SSL"):
            properties["ssl.ca.location"] = self.authority.certificate
        if listener.startswith("SASL"):
            properties.update({"sasl.mechanism": "PLAIN", "sasl.username": user,
                               "sasl.password": self.users[user]})
        return KafkaClient(self.servers_of(listener), properties)

    @staticmethod
    def protocols(doors):
        return {"listener.security.protocol.map": ",".join(
            "%s:%s" % (name, name if name.startswith(("SASL", "SSL")) else "PLAINTEXT")
            for name in ("PLAINTEXT", "CONTROLLER", "LINK", "SASL_PLAINTEXT", "SSL", "SASL_SSL", *doors))}

    def copies(self):
        n, in_sync = min(len(self.brokers), 3), min(len(self.brokers), 2)
        return {"controller.quorum.voters": ",".join(
                    "%d@%s" % (b.node_id, b.server("CONTROLLER")) for b in self.brokers),
                "default.replication.factor": n, "min.insync.replicas": in_sync,
                "offsets.topic.replication.factor": n,
                "transaction.state.log.replication.factor": n,
                "transaction.state.log.min.isr": in_sync}

    def tls(self):
        certificate, key = self.authority.issue("broker")
        store = os.path.join(self.folder, "broker.store")
        with open(store, "w", encoding="ascii") as f:
            f.write(read_file(key) + read_file(certificate))
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": store,
                "ssl.truststore.type": "PEM", "ssl.truststore.location": self.authority.certificate}

    def sasl(self):
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = " ".join('user_%s="%s"' % user for user in self.users.items())
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        doors = ["listener.name.sasl_plaintext", "listener.name.sasl_ssl"]
        return {"sasl.enabled.mechanisms": ",".join(["PLAIN", *SCRAM]),
                **{door + ".plain.sasl.jaas.config": "%s %s;" % (module, users) for door in doors},
                **{"%s.%s.sasl.jaas.config" % (door, mechanism.lower()): scram
                   for door in doors for mechanism in SCRAM}}

    def __enter__(self):
        try:
            self.format()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for broker in self.brokers:
            broker.kill()
        self.folder_owner.cleanup()

    def format(self):
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        logins = [word for user in self.users.items() for mechanism in SCRAM
                  for word in ("--add-scram", "%s=[name=%s,password=%s]" % (mechanism, *user))]
        tools = [subprocess.Popen([*self.command, "kafka.tools.StorageTool", "format",
                                   "--cluster-id=" + cluster_id,  # it may begin with a dash
                                   "-c", b.properties, *logins], stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                 for b in self.brokers]
        for tool in tools:
            said = tool.communicate()[0]
            assert tool.returncode == 0, said

    def start(self):
        """Starts the brokers that do not run."""
        down = [b for b in self.brokers if not b.is_running]
        for broker in down:
            broker.launch()
        for broker in down:
            broker.await_ready()

    def stop(self):
        """Cleanly, all together: one by one, the last would wait for a quorum that is gone."""
        for broker in self.brokers:
            broker.ask_to_stop()
        for broker in self.brokers:
            broker.stop()


def run(brokers, command):
    """Runs the command beside a cluster; gives its exit status, as a shell does."""
    with KafkaCluster(brokers) as kafka:
        child = subprocess.Popen(command, env={**os.environ, "KAFKA_SERVERS": kafka.servers})
        try:
            status = child.wait()
        finally:
            child.kill()
            child.wait()
    return status if status >= 0 else 128 - status


def main():
    parser = argparse.ArgumentParser(prog="kafka.py")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("collect")
    run_parser = verbs.add_parser("run")
    run_parser.add_argument("--brokers", type=int, default=1)
    run_parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if arguments.verb == "collect":
        print(collect())
        return 0
    return run(arguments.brokers, arguments.command)


if __name__ == "__main__":
    sys.exit(main())
