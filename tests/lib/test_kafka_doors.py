"""The rig itself: a Kafka whose further listeners want TLS, passwords, or both."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402


def is_refused(client, words):
    """A client asks until its time is over; a busy broker may not have answered by then."""
    done = subprocess.run(client.command("kcat", "-L", "-m", "1", "-b", client.servers),
                          capture_output=True, text=True)
    assert done.returncode != 0, done
    return words in done.stderr


def test_locked_doors():
    """TLS and passwords let their own in, and nobody else."""
    doors = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
    with KafkaCluster(listeners=doors, users={"genq": "right"}) as kafka:
        kafka.client().create("jobs")
        for door in doors:
            kafka.client(door, "genq").produce("jobs", (None, door))
        assert [r["payload"] for r in kafka.client("SASL_SSL", "genq").consume("jobs")] == list(doors)
        kafka.users["genq"] = "wrong"
        wait_for(lambda: is_refused(kafka.client("SASL_SSL", "genq"), "Authentication failed"))
        stranger = kafka.client("SSL")
        del stranger.properties["ssl.ca.location"]
        wait_for(lambda: is_refused(stranger, "certificate verify failed"))


run(globals())
