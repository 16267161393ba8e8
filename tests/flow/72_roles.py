"""`genq gateway`, `genq worker`, and `genq up` on Kafka: what each process is and says, and what is refused.
That jobs get through is 71_distributed's matter."""
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import SESSION_MS, Distributed, Member  # noqa: E402
from genq import LIMIT_S, VARIANT, read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

GENQ = os.environ["GENQ"]
WELL, USAGE = 0, 2
FULL = "limits: {queued_jobs: 5}\n"


def distributed(**options):
    distributed.n += 1
    return Distributed(KAFKA, prefix="r%d" % distributed.n, **options)


distributed.n = 0


def starts_not(role, config, words):
    """The command ends with exit code 2 and these words, without a data directory."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "genq.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(config)
        done = subprocess.run([GENQ, role, "--config", path], cwd=folder, text=True, check=False,
                              capture_output=True, timeout=LIMIT_S)
        assert done.returncode == USAGE and re.search(words, done.stderr), (role, done)
        return os.listdir(folder)


def test_each_process_serves_what_is_its_own():
    with distributed() as d:
        gateway, worker = d.gateways[0], d.workers[0]
        assert '"role":"gateway"' in gateway.said() and '"role":"worker"' in worker.said()
        for member, checks in ((gateway, {"log", "disk"}), (worker, {"log", "disk", "engines"})):
            assert member.get("/healthz").status == 200
            ready = wait_for(lambda: member.get("/readyz").status == 200 and member.get("/readyz").json)
            assert set(ready["checks"]) == checks, ready
            assert member.metric("genq_jobs_submitted_total") == 0
        assert gateway.get("/api/v1/nodes").json["data"] == []
        wait_for(lambda: worker.get("/readyz").json["checks"]["engines"]["up"] == 1)
        for path in ("/api/v1/jobs", "/api/v1/nodes", "/openapi.json", "/api/v1/completions"):
            assert worker.get(path).status == 404, path
        assert worker.post("/api/v1/jobs", {"model": "stub", "prompt": "x"}).status == 404
        assert worker.post("/healthz", {}).status == 405
        assert "genq.db" in os.listdir(gateway.data) and "genq.db" not in os.listdir(worker.data)
        assert "starts.journal" in os.listdir(worker.data)
        for member in d.members:
            again = subprocess.run(member.arguments, env={**os.environ, "GENQ_CONFIG": member.config},
                                   text=True, capture_output=True, timeout=LIMIT_S, check=False)
            assert again.returncode == 1 and "another genq has" in again.stderr, again


def test_up_is_both_in_one_process():
    with distributed(gateways=0, workers=0) as d:
        both = Member(d, "up", "both", urls=[d.engine.url])
        d.workers.append(both)  # to be stopped with the others
        both.start()
        job = both.submit(prompt="hi")
        assert both.finished(job["id"])["status"] == "succeeded"
        assert len(both.get("/api/v1/nodes").json["data"]) == 1
        assert job["position"].startswith("r%d.jobs.default.normal/" % distributed.n), job


def test_without_topics_none_starts():
    for role in ("gateway", "worker", "up"):
        config = "broker: {kind: kafka, servers: '%s', prefix: nowhere}\n" % KAFKA.servers
        left = starts_not(role, config, "no topic nowhere.completions; 'genq topics apply' makes it")
        assert left == ["genq.yaml"], left


def test_past_queued_jobs_the_door_is_shut():
    with distributed(workers=0, config=FULL) as d:
        gateway = d.gateways[0]

        def refused(reply):
            assert reply.status == 429 and reply.headers["Retry-After"], reply
            assert reply.json["error"]["code"] == "quota_exceeded", reply
        job = {"model": "stub", "prompt": "x"}
        refused(gateway.post("/api/v1/jobs", [job] * 6))
        for i in range(5):
            gateway.submit(id="q%d" % i)
        assert gateway.metric("genq_jobs_unfinished") == 5
        refused(gateway.post("/api/v1/jobs", job))
        lines = '{"model":"stub","prompt":"x"}\n'
        refused(gateway.request("POST", "/api/v1/batches", lines, {"Content-Type": "application/x-ndjson"}))
        assert gateway.delete("/api/v1/jobs/q0").status == 202
        wait_for(lambda: gateway.metric("genq_jobs_unfinished") == 4)
        gateway.submit(id="again")
        refused(gateway.post("/api/v1/jobs", job))
        d.add_worker()
        for name in ("q1", "q2", "q3", "q4", "again"):  # what was accepted runs
            assert gateway.finished(name)["status"] == "succeeded"
        assert len(d.engine.events("recv")) == 5  # and nothing else
        gateway.submit()


def test_ready_tells_of_kafka():
    with KafkaCluster() as own, Distributed(own) as d:
        for member in d.members:
            wait_for(lambda: member.get("/readyz").status == 200, "ready")
        own.brokers[0].kill()
        for member in d.members:
            away = wait_for(lambda: member.get("/readyz").status == 503 and member.get("/readyz"), "not ready")
            assert away.json["status"] == "not_ready" and away.headers["Retry-After"], away
            assert away.json["checks"]["log"]["status"] == "fault" and away.json["checks"]["log"]["error"], away
            assert member.get("/healthz").status == 200
        own.brokers[0].start()
        for member in d.members:
            wait_for(lambda: member.get("/readyz").status == 200, "ready again")
        gateway = d.gateways[0]
        assert gateway.finished(gateway.submit()["id"])["status"] == "succeeded"


def test_batch_run_keeps_its_own_log():
    """Wherever the config says that servers keep theirs."""
    with distributed(gateways=0, workers=0) as d:
        with open(os.path.join(d.folder, "in.jsonl"), "w", encoding="utf-8") as f:
            f.write('{"prompt": "x"}\n')
        d.common = "broker: {kind: kafka, servers: '127.0.0.1:1'}\n"
        out = os.path.join(d.folder, "out.jsonl")
        d.genq("batch", "run", f.name, "-o", out, "-m", "stub", "--engine", d.engine.url)
        assert '"status":"succeeded"' in read_file(out)


# ---- keys of genq.yaml

def test_key_broker_producer():
    config = "broker: {kind: kafka, servers: '%s', prefix: %s, producer: {%s}}\n"
    with distributed(gateways=0, workers=0):
        prefix = "r%d" % distributed.n
        starts_not("gateway", config % (KAFKA.servers, prefix, "linger.ms: long"), "Kafka property linger.ms: ")


def test_key_worker_listen():
    with distributed(workers=0) as d:
        worker = Member(d, "worker", "listens", "worker: {listen: 'localhost:0'}\n")
        at = worker.arguments.index("--listen")
        del worker.arguments[at:at + 2]
        d.workers.append(worker)
        worker.start()
        assert read_file(os.path.join(worker.data, "listen")).startswith("localhost:")
        assert worker.get("/healthz").status == 200
    starts_not("worker", "worker: {listen: '7071'}\n", "worker.listen: must be an address and a port")


def moves(member):
    """What its log says of partitions that came and went."""
    lines = [json.loads(line) for line in member.said().splitlines() if '"event":"group_' in line]
    return [(e["event"], e["topic"], e["partition"]) for e in lines
            if e["event"] in ("group_assigned", "group_revoked")]


def held(member):
    have = set()
    for event, *partition in moves(member):
        (have.add if event == "group_assigned" else have.discard)(tuple(partition))
    return have


def test_key_worker_name():
    """With a name, a worker that is soon back has its partitions back, and the others notice nothing."""
    for names, is_named in ((("{name: a}", "{name: b}"), True), (("{}", "{}"), False)):
        with distributed(workers=0) as d:
            leaves, stays = [d.add_worker("worker: %s\n" % name) for name in names]
            wait_for(lambda: len(held(leaves)) >= 12 and len(held(stays)) >= 12, "both have their share")
            before, had = moves(stays), held(leaves)
            leaves.stop()
            if not is_named:  # they are the other's at once, not only after the session's time
                wait_for(lambda: moves(stays) != before, "the other takes over", SESSION_MS / 1000)
                continue
            leaves.start()
            wait_for(lambda: held(leaves) == had, "its own again")
            for job in [d.gateways[0].submit()["id"] for _ in range(40)]:
                d.gateways[0].finished(job)
            assert moves(stays) == before, moves(stays)


def test_a_library_that_hangs_does_not_hold_up_the_end():
    if VARIANT != "plain":  # a sanitizer must be the first library
        return
    with distributed(gateways=1, workers=0) as d:
        os.environ["LD_PRELOAD"] = os.environ["STUCK_DESTROY"]
        try:
            worker = d.add_worker()
        finally:
            del os.environ["LD_PRELOAD"]
        d.gateways[0].finished(d.gateways[0].submit()["id"])
        worker.stop()
        assert '"event":"group_left_behind"' in worker.said(), worker.said()


def test_key_worker_queues():
    queues = "queues: {fast: {}, slow: {}}\nmodels: {f: {target: stub, queue: fast}, s: {target: stub, queue: slow}}\n"
    with distributed(workers=0, config=queues) as d:
        gateway = d.gateways[0]
        for i in range(10):
            for model in "fs":
                gateway.submit(id="%s%d" % (model, i), model=model)
        fast = d.add_worker("worker: {queues: [fast]}\n")
        for i in range(10):
            assert gateway.finished("f%d" % i)["status"] == "succeeded"
        slow = d.add_worker("worker: {queues: [slow, default]}\n")
        for i in range(10):
            assert gateway.finished("s%d" % i)["status"] == "succeeded"
        gateway.finished(gateway.submit()["id"])
        assert fast.metric("genq_engine_calls_total") == 10
        assert slow.metric("genq_engine_calls_total") == 11


if __name__ == "__main__":
    with KafkaCluster() as KAFKA:
        run(globals())
