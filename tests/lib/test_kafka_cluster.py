"""The rig itself: three brokers, of which one may be lost."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from genq import run  # noqa: E402
from kafka import KafkaCluster  # noqa: E402


def test_three_brokers():
    with KafkaCluster(3) as kafka:
        client = kafka.client()
        client.create("jobs", 3)
        client.produce("jobs", (None, "before"))
        kafka.brokers[0].kill()
        client.produce("jobs", (None, "after"))
        found = sorted(r["payload"] for r in client.consume("jobs"))
        assert found == ["after", "before"], found


run(globals())
