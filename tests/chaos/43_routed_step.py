"""Kills the worker that sends jobs on to their model's queue when a copy is in Kafka, and its source is not yet
finished. Another start sends them again; each job is called once, and ends once."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import Stub, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()
CONFIG = "queues: {big: {}}\nmodels: {big: {queue: big}}\n"
N = 40


def killed_at(nth):
    """Gives how many copies were dropped."""
    with Distributed(KAFKA, prefix="routed%d" % nth, workers=0, config=CONFIG) as d:
        d.engines[0].stop()
        d.engines = [Stub(d.folder, "stub-" + m, "--model", m) for m in ("small", "big")]
        os.environ["GENQ_CRASH_AT"] = "routed:%d" % nth
        sender = d.add_worker("worker: {name: sender}\n")
        del os.environ["GENQ_CRASH_AT"]
        other = d.add_worker()
        ids = ["j%d" % i for i in range(N)]
        d.kafka.client().produce("%s.jobs.default.normal" % d.prefix, *[
            (None, json.dumps({"id": i, "model": "big", "prompt": "key=" + i})) for i in ids])
        wait_for(lambda: sender.process.child.poll() is not None, "the kill")
        sender.start()
        for i in ids:
            wait_for(lambda: d.gateways[0].get("/api/v1/jobs/" + i).status == 200)
            assert d.gateways[0].finished(i)["status"] == "succeeded"
        wait_for(lambda: len(d.kafka.client().consume("%s.jobs.big.normal" % d.prefix)) >= N)
        assert sorted(e[3] for e in d.engines[1].events("recv")) == sorted(ids)
        assert d.engines[0].events("recv") == []
        ends = [r["key"] for r in d.kafka.client().consume("%s.completions" % d.prefix)]
        assert sorted(ends) == sorted(ids), ends
        return sum(w.said().count("repeat_dropped") for w in (sender, other))


def test_a_kill_between_the_copy_and_the_end_of_its_source():
    n_dropped = sum(killed_at(nth) for nth in (1, 9, N))
    assert n_dropped > 0  # else the step was not where it says


with KAFKA:
    run(globals())
