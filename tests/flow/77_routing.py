"""Jobs find the worker that has their model: by their queue, and from a wrong one. On a real Kafka, with two
workers whose engines have different models."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import Distributed  # noqa: E402
from genq import Stub, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()
QUEUES = "queues: {big: {}}\nmodels: {big: {target: large, queue: big}, small: {}}\n"


class Routed(Distributed):
    """Worker 0 has `small`, worker 1 has `large`, known as `big`."""
    n = 0

    def __init__(self, worker_config="", config="", **options):
        Routed.n += 1
        super().__init__(KAFKA, prefix="r%d" % Routed.n, workers=0, config=QUEUES + config, **options)
        self.engines[0].stop()
        self.engines = [Stub(self.folder, "stub-%s" % m, "--model", m) for m in ("small", "large")]
        for _ in self.engines:
            self.new_worker(worker_config)
        self.small, self.large = self.engines

    def topic(self, queue, priority="normal"):
        return "%s.jobs.%s.%s" % (self.prefix, queue, priority)

    def produce(self, queue, *jobs):
        """As some client of Kafka's that knows nothing of genq's headers."""
        KAFKA.client().produce(self.topic(queue), *[(None, json.dumps(j)) for j in jobs])

    def ended(self, n):
        """The first n completions of the feed, by the prompt's key."""
        def look():
            found = self.gateways[0].get("/api/v1/completions?limit=1000").json["data"]
            return len(found) >= n and found
        return wait_for(look, "%d completions" % n)


def keys(engine):
    return sorted(line[3] for line in engine.events("recv"))


def test_auto_takes_the_queues_of_its_models():
    with Routed() as d:
        ids = [d.gateways[0].submit(model=m, prompt="key=%s%d" % (m, i))["id"]
               for i in range(12) for m in ("small", "big")]
        for i in ids:
            assert d.gateways[0].finished(i)["status"] == "succeeded"
        assert keys(d.small) == sorted("small%d" % i for i in range(12))
        assert keys(d.large) == sorted("big%d" % i for i in range(12))
        for worker, queue in ((d.workers[0], "big"), (d.workers[1], "default")):
            assert d.topic(queue) not in worker.said(), worker.said()
            assert worker.metric("genq_jobs_routed_total") == 0


def test_a_queue_comes_with_the_engine_that_has_its_model():
    with Routed() as d:
        d.workers[1].stop()
        d.large.stop()
        d.workers[1].start()
        ids = [d.gateways[0].submit(model=m)["id"] for m in ("big", "small")]
        assert d.gateways[0].finished(ids[1])["status"] == "succeeded"
        assert d.gateways[0].get("/api/v1/jobs/" + ids[0]).json["status"] == "queued"
        d.large.start()
        assert d.gateways[0].finished(ids[0])["status"] == "succeeded"


def test_records_in_the_wrong_topic():
    with Routed() as d:
        d.produce("default", *[{"model": m, "prompt": "key=%s-%d" % (m, i)}
                               for i in range(20) for m in ("big", "large")])
        d.produce("big", *[{"id": "s%d" % i, "model": "small", "prompt": "key=s%d" % i} for i in range(20)])
        found = d.ended(60)
        assert [j["status"] for j in found] == ["succeeded"] * 60, found
        assert len({j["id"] for j in found}) == 60
        assert keys(d.large) == sorted("%s-%d" % (m, i) for m in ("big", "large") for i in range(20))
        assert keys(d.small) == sorted("s%d" % i for i in range(20))
        assert [w.metric("genq_jobs_routed_total") for w in d.workers] == [40, 20]
        # Each once: the copy says where it comes from.
        copies = [r for r in KAFKA.client().consume(d.topic("big")) if "genq_source" in dict(r["headers"])]
        assert len(copies) == 40, copies
        wait_for(lambda: not d.gateways[0].get("/api/v1/jobs?status=queued").json["data"])


def test_once_and_no_farther():
    """A worker that takes both queues; a model that nobody has; one in its own queue."""
    with Routed("worker: {queues: [default, big]}\n") as d:
        d.workers[1].stop()  # so that the copy comes to the one that sent it
        g = d.gateways[0]
        g.submit(id="both", model="big", queue="default", prompt="key=both")
        g.submit(id="none", model="other", queue="big", prompt="key=none")
        g.submit(id="home", model="big", prompt="key=home")
        for i in ("both", "none", "home"):
            job = g.finished(i)
            assert (job["status"], job["error"]["code"]) == ("failed", "model_not_found"), job
        assert d.workers[0].metric("genq_jobs_routed_total") == 2
        assert keys(d.large) == keys(d.small) == []
        d.workers[1].start()


def test_an_engine_that_does_not_have_what_it_lists():
    """Calls tell so, not the list: the job has come as far as a node."""
    with Routed() as d:
        for worker, queue in zip(d.workers, ("default", "big")):
            worker.stop()
            with open(worker.config, "a", encoding="utf-8") as f:
                f.write("worker: {queues: [%s]}\n" % queue)
        d.small.stop()
        d.small.arguments += ["--model", "large", "--fault", "kind=status,match=key=a,code=404,times=100,"
                              "body={\"error\":\"model 'large' not found\"}"]
        d.small.start()
        for worker in d.workers:
            worker.start()
        d.produce("default", {"id": "a", "model": "large", "prompt": "key=a"})
        job = d.ended(1)[0]
        assert (job["id"], job["status"]) == ("a", "succeeded"), job
        assert keys(d.large) == ["a"] and d.workers[0].metric("genq_jobs_routed_total") == 1


def test_a_kill_while_jobs_are_routed():
    """SIGKILL at the worker that sends them on; each ends once, and is called once."""
    with Routed() as d:
        n = 0
        for _ in range(3):
            d.produce("default", *[{"id": "j%d" % i, "model": "big", "prompt": "key=j%d" % i}
                                   for i in range(n, n + 150)])
            n += 150
            wait_for(lambda: d.workers[0].metric("genq_jobs_routed_total"))
            d.workers[0].kill()
            d.workers[0].start()
        found = d.ended(n)
        assert sorted(j["id"] for j in found) == sorted("j%d" % i for i in range(n))
        assert {j["status"] for j in found} == {"succeeded"}
        assert keys(d.large) == sorted("j%d" % i for i in range(n))


def test_a_cancel_meets_a_routed_job():
    with Routed(worker_config="engines: []\n") as d:
        d.workers[1].stop()
        d.gateways[0].submit(id="c", model="big", queue="default", prompt="key=c")
        wait_for(lambda: d.workers[0].metric("genq_jobs_routed_total") == 1)
        assert d.gateways[0].delete("/api/v1/jobs/c").status == 202
        d.workers[1].start()
        d.gateways[0].submit(id="next", model="big", prompt="key=next")
        assert d.gateways[0].finished("next")["status"] == "succeeded"
        assert d.gateways[0].finished("c")["status"] == "cancelled"
        assert keys(d.large) == ["next"]


with KAFKA:
    run(globals())
