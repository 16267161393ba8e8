"""`genq topics plan` and `apply` on real brokers, judged by kcat and by Kafka's own ConfigCommand. Each case
has a prefix of its own. The keys of genq.yaml that are seen by topics have their cases here."""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import LIMIT_S, run  # noqa: E402
from kafka import SCRAM, KafkaCluster  # noqa: E402

GENQ = os.environ["GENQ"]
WELL, SOME, USAGE, NO_SERVER = 0, 1, 2, 3
FIXED = ["completions", "scheduled", "control", "meta", "dead"]
DAY_MS = 86400000
SCRAM_SINCE = 0x020601ff  # the first librdkafka whose SCRAM is right


class Topics:
    """One prefix on a cluster."""

    def __init__(self, cluster, prefix):
        self.cluster, self.prefix = cluster, prefix

    def config(self, broker="", rest=""):
        return "broker: {kind: kafka, servers: '%s', prefix: %s%s}\n%s" % (
            self.cluster.servers, self.prefix, broker and ", " + broker, rest)

    def start(self, verb, *arguments, broker="", rest=""):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as f:
            f.write(self.config(broker, rest))
        return subprocess.Popen([GENQ, "topics", verb, *arguments, "--config", f.name], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE), f.name

    def genq(self, verb, *arguments, broker="", rest=""):
        """(exit code, stdout, stderr)"""
        child, path = self.start(verb, *arguments, broker=broker, rest=rest)
        out, said = child.communicate(timeout=LIMIT_S)
        os.unlink(path)
        return child.returncode, out, said

    def settles(self, **options):
        """apply does something, and then there is nothing left to do; gives what it said."""
        code, out, said = self.genq("apply", **options)
        assert code == WELL and "nothing to do" not in out, (code, out, said)
        code, rest, said = self.genq("plan", **options)
        assert code == WELL and rest.splitlines()[-1] == "nothing to do", (code, rest, said)
        return out

    def there(self):
        """By kcat: of each topic, partitions and replicas of the first."""
        done = subprocess.run(["kcat", "-b", self.cluster.servers, "-L", "-J"], text=True, check=True,
                              capture_output=True, timeout=LIMIT_S)
        return {t["topic"][len(self.prefix) + 1:]: (len(t["partitions"]), len(t["partitions"][0]["replicas"]))
                for t in json.loads(done.stdout)["topics"] if t["topic"].startswith(self.prefix + ".")}

    def settings(self, name, *change):
        """By Kafka's tool: what is set at the topic itself, after a change ("--add-config", "a=b")."""
        def tool(*words):
            return subprocess.run([*self.cluster.command, "kafka.admin.ConfigCommand", "--bootstrap-server",
                                   self.cluster.servers, "--entity-type", "topics", "--entity-name",
                                   self.prefix + "." + name, *words], text=True, check=True,
                                  capture_output=True, timeout=LIMIT_S).stdout
        if change:
            tool("--alter", *change)
        return dict(re.findall(r"^  ([a-z.]+)=(\S*) sensitive", tool("--describe"), re.M))


def jobs(queue, normal):
    quarter = max(1, normal // 4)
    return {"jobs.%s.%s" % (queue, p): n for p, n in
            (("high", quarter), ("normal", normal), ("low", quarter))}


def expected(copies=1, **queues):
    counts = dict.fromkeys(FIXED, 1)
    for queue, n in queues.items():
        counts.update(jobs(queue, n))
    return {name: (n, copies) for name, n in counts.items()}


def test_all_topics_are_made_once():
    t = Topics(ONE, "made")
    code, planned, _ = t.genq("plan")
    assert code == SOME and t.there() == {}, planned
    done = t.settles()
    assert done == re.sub("^create ", "created ", planned, flags=re.M), (planned, done)
    assert t.there() == expected(default=16), t.there()
    common = {"max.message.bytes": str(10485760 + 65536), "min.insync.replicas": "1",
              "message.timestamp.type": "LogAppendTime"}
    kept = {"retention.ms": str(30 * DAY_MS), "retention.bytes": "-1"}
    for name, wanted in (("completions", {"cleanup.policy": "delete", **kept}),
                         ("scheduled", {"cleanup.policy": "compact"}),
                         ("control", {"cleanup.policy": "compact,delete", **kept}),
                         ("meta", {"cleanup.policy": "compact"}),
                         ("dead", {"cleanup.policy": "delete", **kept}),
                         ("jobs.default.low", {"cleanup.policy": "delete", "retention.ms": "-1",
                                               "retention.bytes": "-1"})):
        got = t.settings(name)
        assert got == {**common, **wanted}, (name, got)
    code, out, _ = t.genq("apply")
    assert (code, out) == (WELL, "nothing to do\n"), out
    assert t.genq("plan", "--json")[:2] == (WELL, "")


def test_only_what_differs_is_changed():
    t = Topics(ONE, "changed")
    t.settles(broker="partitions: 4")
    before = t.settings("completions", "--add-config", "segment.ms=600000")
    t.settings("dead", "--add-config", "retention.ms=5")
    options = {"broker": "partitions: 16", "rest": "retention: {jobs_days: 2}\n"}
    wanted = {"add partitions changed.jobs.default.high: 1 -> 4",
              "add partitions changed.jobs.default.normal: 4 -> 16",
              "add partitions changed.jobs.default.low: 1 -> 4",
              "alter changed.completions: retention.ms %d -> %d" % (30 * DAY_MS, 2 * DAY_MS),
              "alter changed.control: retention.ms %d -> %d" % (30 * DAY_MS, 2 * DAY_MS),
              "alter changed.dead: retention.ms 5 -> %d" % (30 * DAY_MS)}
    code, out, _ = t.genq("plan", **options)
    assert code == SOME and set(out.splitlines()) == wanted, out
    code, out, _ = t.genq("plan", "--json", **options)
    lines = {(s["topic"], s["step"]): s for s in map(json.loads, out.splitlines())}
    assert lines["changed.jobs.default.normal", "add_partitions"] == {
        "object": "topic.step", "step": "add_partitions", "topic": "changed.jobs.default.normal",
        "from": 4, "to": 16}, out
    assert lines["changed.dead", "alter"]["settings"] == {
        "retention.ms": {"from": "5", "to": str(30 * DAY_MS)}}, out
    done = t.settles(**options)
    assert {line.replace("added", "add").replace("altered", "alter") for line in done.splitlines()} == wanted
    assert t.there() == expected(default=16), t.there()
    # what genq has no opinion on stays
    assert t.settings("completions") == {**before, "retention.ms": str(2 * DAY_MS)}
    assert t.settings("dead")["retention.ms"] == str(30 * DAY_MS)


def test_what_cannot_be_done_is_told_and_no_error():
    t = Topics(ONE, "left")
    t.settles(broker="partitions: 8", rest="queues: {gone: {}}\n")
    there = t.there()
    for verb in ("plan", "apply"):
        code, out, said = t.genq(verb, broker="partitions: 2, replication: 3, min_insync: 2")
        assert code == WELL and out.splitlines()[-1] == "nothing to do", (code, out, said)
        assert ("note left.jobs.default.normal: has 8 partitions, the config wants 2; Kafka cannot take "
                "partitions away\n") in out, out
        assert re.search("^note left.meta: has replication factor 1, the config wants 3; .*reassign", out, re.M)
        assert "note left.meta: min.insync.replicas stays as it is: 2, " in out, out
        assert "note left.jobs.gone.low: the config has no such queue" in out, out
    code, out, _ = t.genq("plan", "--json", broker="partitions: 2")
    notes = [json.loads(line) for line in out.splitlines()]
    assert code == WELL and {n["object"] for n in notes} == {"topic.note"}, out
    assert {n["topic"] for n in notes if "no such queue" in n["message"]} == {
        "left." + name for name in jobs("gone", 8)}, out
    assert t.there() == there


def test_several_at_once_make_each_topic_once():
    t = Topics(ONE, "race")
    for broker in ("partitions: 4", "partitions: 8"):
        children = [t.start("apply", broker=broker, rest="queues: {a: {}, b: {}}\n") for _ in range(4)]
        lines = []
        for child, path in children:
            out, said = child.communicate(timeout=LIMIT_S)
            os.unlink(path)
            assert child.returncode == WELL, (out, said)
            lines += [line for line in out.splitlines() if line.startswith(("created", "added"))]
        assert len(lines) == len(set(lines)), lines
        n = int(broker.split()[1])
        assert t.there() == expected(default=n, a=n, b=n), t.there()
        changed = 5 + 9 if n == 4 else 9
        assert len(lines) == changed, lines


def test_three_brokers_three_copies():
    with KafkaCluster(3) as three:
        t = Topics(three, "copies")
        t.settles(broker="partitions: 3")
        assert t.there() == expected(copies=3, default=3), t.there()
        assert t.settings("completions")["min.insync.replicas"] == "2"
        one = Topics(three, "single")
        one.settles(broker="partitions: 1, replication: 1")
        assert one.there() == expected(copies=1, default=1), one.there()
        code, out, _ = one.genq("plan", broker="partitions: 1")  # else nothing could be written
        assert code == WELL and "has replication factor 1, the config wants 3" in out, out
        assert one.settings("completions")["min.insync.replicas"] == "1"
        three.brokers[2].stop()  # of three copies, one is away
        code, out, said = t.genq("plan", broker="partitions: 3")
        assert (code, out) == (WELL, "nothing to do\n"), (out, said)


def test_what_is_wrong_is_told():
    t = Topics(ONE, "wrong")
    for verb in ("plan", "apply"):
        code, out, said = t.genq(verb, broker="min_insync: 2")
        assert code == USAGE and not out and "broker.min_insync is 2" in said, said
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            done = subprocess.run([GENQ, "topics", verb, "--config", f.name], text=True, check=False,
                                  capture_output=True, timeout=LIMIT_S)
            assert done.returncode == USAGE and "broker: {kind: sqlite}" in done.stderr, done
    code, out, said = t.genq("apply", broker="replication: 3")
    assert code == SOME and re.search(r"topic wrong\.\w+: .*replication factor", said, re.I), (out, said)
    assert t.there() == {}


def test_no_kafka():
    with socket.socket() as s:  # bound and not listening: nobody else gets the port
        s.bind(("127.0.0.1", 0))
        server = "127.0.0.1:%d" % s.getsockname()[1]
        away = Topics(type("Away", (), {"servers": server}), "away")
        for verb in ("plan", "apply"):
            code, out, said = away.genq(verb)
            assert code == NO_SERVER and not out, (code, out)
            assert "Kafka cannot be reached at " + server in said and "refused" in said, said


def test_tls_and_passwords():
    """As docs/kafka.md has it."""
    with KafkaCluster(listeners=("SSL", "SASL_SSL"), users={"genq": "right"}) as locked:
        trust = "ssl.ca.location: %s" % locked.authority.certificate
        door = Topics(type("Door", (), {"servers": locked.servers_of("SSL")}), "tls")
        done = door.settles(broker="properties: {security.protocol: ssl, %s}" % trust)
        assert done.count("created") == 8, done
        assert door.genq("plan", broker="properties: {security.protocol: ssl}")[0] == NO_SERVER
        door = Topics(type("Door", (), {"servers": locked.servers_of("SASL_SSL")}), "tls")
        login = ("properties: {security.protocol: sasl_ssl, %s, sasl.mechanism: PLAIN, sasl.username: genq, "
                 "sasl.password: %%s}" % trust)
        code, out, said = door.genq("plan", broker=login % "right")
        assert (code, out) == (WELL, "nothing to do\n"), (out, said)
        code, _, said = door.genq("plan", broker=login % "wrong")
        assert code == NO_SERVER and "uthentication failed" in said and "wrong" not in said, said


def test_scram():
    """A job comes and goes by either mechanism, with a librdkafka that can do it; an older one is told of.
    As docs/kafka.md has it."""
    with KafkaCluster(listeners=("SASL_SSL",), users={"genq": "right"}) as locked:
        door = type("Door", (), {"servers": locked.servers_of("SASL_SSL")})
        library, = locked.client().admin("version")
        for mechanism in SCRAM:
            def login(password, mechanism=mechanism):
                return ("properties: {security.protocol: sasl_ssl, ssl.ca.location: %s, sasl.mechanism: %s, "
                        "sasl.username: genq, sasl.password: %s}" %
                        (locked.authority.certificate, mechanism, password))
            topics = Topics(door, mechanism)
            code, _, said = topics.genq("plan", broker=login("wrong"))
            assert code == NO_SERVER and "uthentication failed" in said and "wrong" not in said, said
            if library["number"] < SCRAM_SINCE:
                code, _, said = topics.genq("plan", broker=login("right"))
                assert code == NO_SERVER and "uthentication failed" in said, said
                assert "kafka_scram" in said and library["version"] in said, said
                print("# skipped: a login by %s; librdkafka %s is older than 2.6.1" %
                      (mechanism, library["version"]))
                continue
            with Distributed(door, broker=login("right") + ",", prefix=mechanism) as d:
                job = d.gateways[0].submit()
                assert d.gateways[0].finished(job["id"])["status"] == "succeeded"
                for member in d.members:
                    assert "kafka_scram" not in member.said(), member.said()


# ---- keys of genq.yaml

def test_key_broker_servers():
    code, _, said = Topics(type("None", (), {"servers": ""}), "key").genq("plan")
    assert code == USAGE and "kind: kafka needs servers" in said, said
    t = Topics(type("Two", (), {"servers": "127.0.0.1:1," + ONE.servers}), "servers")
    assert t.genq("plan")[0] == SOME


def test_key_broker_prefix():
    for prefix in ("a.b-c_D", "x" * 64):
        code, out, _ = Topics(ONE, prefix).genq("plan")
        assert code == SOME and "create %s.jobs.default.normal: " % prefix in out, out
    code, _, said = Topics(ONE, "a/b").genq("plan")
    assert code == USAGE and "broker.prefix: must be of letters" in said, said


def test_key_broker_properties():
    t = Topics(ONE, "properties")
    code, _, said = t.genq("plan", broker="properties: {security.protocol: nonsense}")
    assert code == USAGE and "Kafka property security.protocol: " in said, said
    code, _, said = t.genq("plan", broker="properties: {security.protocol: ssl}")
    assert code == NO_SERVER, said  # it speaks TLS to a broker that does not
    assert t.genq("plan", broker="properties: {security.protocol: plaintext}")[0] == SOME


def test_key_broker_consumer():
    code, _, said = Topics(ONE, "consumer").genq("plan", broker="consumer: {fetch.max.bytes: many}")
    assert code == USAGE and "Kafka property fetch.max.bytes: " in said, said


def test_key_broker_partitions():
    for n in (1, 5, 100):
        code, out, _ = Topics(ONE, "partitions").genq("plan", broker="partitions: %d" % n)
        for name, count in jobs("default", n).items():
            assert "create partitions.%s: %d partition" % (name, count) in out, out


def test_key_broker_replication():
    for value, n in (("auto", 1), ("1", 1), ("4", 4)):
        _, out, _ = Topics(ONE, "replication").genq("plan", broker="replication: " + value)
        assert "create replication.meta: 1 partition, replication factor %d\n" % n in out, out


def test_key_broker_min_insync():
    for value, n in (("auto", 2), ("3", 3), ("1", 1)):
        _, out, _ = Topics(ONE, "insync").genq("plan", broker="replication: 3, min_insync: " + value)
        assert out.count("    min.insync.replicas = %d\n" % n) == 8, out


def test_key_limits_record_bytes():
    for rest, n in (("", 10485760 + 65536), ("limits: {record_bytes: 12345}\n", 12345),
                    ("limits: {body_bytes: 5000}\n", 5000 + 65536)):
        _, out, _ = Topics(ONE, "bytes").genq("plan", rest=rest)
        assert out.count("    max.message.bytes = %d\n" % n) == 8, out


if __name__ == "__main__":
    with KafkaCluster() as ONE:
        run(globals())
