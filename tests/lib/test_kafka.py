"""The rig itself: a real Kafka that is killed and comes back with all it acknowledged, and the
command line."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from genq import read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from server import fails  # noqa: E402

HEADERS = [("traceparent", "00-1-2-01"), ("empty", "")]


def seen(records):
    return [(r["partition"], r["offset"], r["key"], r["payload"], r["headers"]) for r in records]


def check_records(kafka):
    client = kafka.client()
    fails(lambda: client.offsets("jobs"), "UNKNOWN_TOPIC_OR_PART")  # and asking has not made it
    client.create("jobs", 1, cleanup_policy="compact")
    fails(lambda: client.create("jobs"), "TOPIC_ALREADY_EXISTS")
    assert {"name": "cleanup.policy", "value": "compact"} in client.admin("settings", "jobs")
    client.admin("set", "jobs", "retention.ms=-1")
    assert {"name": "cleanup.policy", "value": "delete"} in client.admin("settings", "jobs")
    client.admin("partitions", "jobs", 2)
    client.produce("jobs", ("k", '{"two": "lines\n"}'), (None, "no key"), ("k", None), partition=1,
                   headers=HEADERS)
    client.admin("commit", "workers", "jobs", 1, 2, '{"done": "é"}')


def check_crash(kafka):
    """A killed broker and a paused one come back with the same records and commits."""
    client, broker = kafka.client(), kafka.brokers[0]
    wanted = [(1, 0, "k", '{"two": "lines\n"}', HEADERS), (1, 1, None, "no key", HEADERS),
              (1, 2, "k", None, HEADERS)]
    assert seen(client.consume("jobs")) == wanted, client.consume("jobs")
    broker.kill()
    assert not broker.is_running
    broker.start()
    broker.pause()
    wait_for(lambda: "T (stopped)" in read_file("/proc/%d/status" % broker.pid), "the pause")
    broker.resume()
    assert seen(client.consume("jobs", 1)) == wanted
    assert client.consume("jobs", 0) == []
    assert client.group("workers") == {("jobs", 1): (2, '{"done": "é"}')}


def check_trim(kafka):
    client = kafka.client()
    client.admin("trim", "jobs", 1, 2)
    assert client.offsets("jobs") == {0: (0, 0), 1: (2, 3)}
    assert [r["offset"] for r in client.consume("jobs")] == [2]
    client.admin("delete", "jobs")
    fails(lambda: client.offsets("jobs"), "UNKNOWN_TOPIC_OR_PART")


def test_one_broker():
    with KafkaCluster() as kafka:
        check_records(kafka)
        check_crash(kafka)
        check_trim(kafka)


def test_command_line():
    script = 'kcat -L -b "$KAFKA_SERVERS" && kill -TERM $$'
    done = subprocess.run([sys.executable, os.path.join(os.path.dirname(__file__), "kafka.py"), "run",
                           "--", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM and "1 brokers" in done.stdout, done


run(globals())
