"""Kills the worker that moves scheduled jobs on Kafka at each named step, the n-th time it comes there:
with the record read again; with it in its job topic, but without its tombstone. Another start goes on,
and each job is called once."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()
N = 40


def killed_at(step, nth):
    prefix = "%s%d" % (step.replace("_", ""), nth)
    with Distributed(KAFKA, prefix=prefix, workers=0) as d:
        gateway, ids = d.gateways[0], ["j%d" % i for i in range(N)]
        due = int(time.time() * 1000) + 1000
        reply = gateway.post("/api/v1/jobs", [{"id": i, "model": "stub", "prompt": "key=" + i,
                                               "not_before": due + 5 * n}
                                              for n, i in enumerate(ids)])
        assert reply.status == 200, reply
        os.environ["GENQ_CRASH_AT"] = "%s:%d" % (step, nth)
        worker = d.add_worker()
        del os.environ["GENQ_CRASH_AT"]
        wait_for(lambda: worker.process.child.poll() is not None, "the kill")
        # The kill may cut calls of jobs that were moved before.
        cut = {e[3] for e in d.engine.events("recv")}
        worker.start()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        calls = [e[3] for e in d.engine.events("recv")]
        assert set(calls) == set(ids)
        assert not [i for i in ids if calls.count(i) > (2 if i in cut else 1)], calls
        wait_for(lambda: {r["key"] for r in d.kafka.client().consume("%s.scheduled" % prefix)
                          if r["payload"] is None} == set(ids), "the tombstones")
        assert len(gateway.get("/api/v1/jobs?limit=1000").json["data"]) == N
        return worker.said().count("repeat_dropped")


def test_a_kill_with_the_record_read():
    for nth in (1, 4):
        killed_at("due_read", nth)


def test_a_kill_between_the_job_and_its_tombstone():
    n_dropped = sum(killed_at("due_published", nth) for nth in (1, 9, N))
    assert n_dropped > 0  # else the step was not where it says


with KAFKA:
    run(globals())
