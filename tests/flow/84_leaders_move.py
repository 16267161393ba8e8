"""Three brokers, and partitions whose leaders are others than they were when a worker began."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import SESSION_MS, Distributed  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

TAKEN_S = SESSION_MS / 1000 + 25  # a machine that others keep busy; without the new leaders it took 90


def test_a_takeover_finds_the_new_leaders():
    with KafkaCluster(3) as kafka, Distributed(kafka, workers=2, stub=["--latency-ms", "50"]) as d:
        gateway = d.gateways[0]
        for member in d.workers:
            wait_for(lambda m=member: '"completions":' in m.said(), "both have looked at their partitions")
        for broker in kafka.brokers:  # each was some partitions' leader, and is not when it is back
            broker.kill()
            gateway.finished(gateway.submit()["id"])
            broker.start()
        ids = [gateway.submit(id="t%d" % i)["id"] for i in range(40)]
        d.workers[1].kill()
        began = time.monotonic()
        for job_id in ids:
            assert gateway.finished(job_id)["status"] == "succeeded"
        took_s = time.monotonic() - began
        print("# taken over in %.1f s" % took_s)
        assert took_s < TAKEN_S, d.workers[0].said()[-2000:]
        d.workers[1].start()


run(globals())
