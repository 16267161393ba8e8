"""Gateways and workers as processes of their own, on a real Kafka: one job seen from everywhere."""
import json
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import SESSION_MS, Distributed, Member  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from kafka_client import KafkaClient  # noqa: E402
import steps  # noqa: E402

KAFKA = KafkaCluster()


def distributed(**options):
    distributed.n += 1
    return Distributed(KAFKA, prefix="t%d" % distributed.n, **options)


distributed.n = 0


def feed_of(member, n):
    """The first n completions, as that gateway tells them."""
    seen, after = [], ""
    while len(seen) < n:
        page = member.get("/api/v1/completions?wait=30s&limit=1000" + after).json
        assert page["data"], (len(seen), n)
        seen += page["data"]
        after = "&after=%s" % page["next"]
    return seen


def test_a_job_from_post_to_answer():
    with distributed() as d:
        gateway = d.gateways[0]
        reply = gateway.post("/api/v1/jobs?wait=30s", {"model": "stub", "prompt": "hi", "id": "a"})
        assert reply.status == 201 and reply.json["status"] == "succeeded", reply
        assert reply.json["position"].startswith("t%d.jobs.default.normal/" % distributed.n), reply
        again = gateway.post("/api/v1/jobs", {"model": "stub", "prompt": "hi", "id": "a"})
        assert again.status == 200 and again.json["status"] == "succeeded", again
        other = gateway.post("/api/v1/jobs", {"model": "stub", "prompt": "other", "id": "a"})
        assert other.status == 409, other
        assert len(d.engine.events("recv")) == 1


def steps_of(member, job_id, last):
    """What it told of the job, once the last step of its side is there."""
    told = wait_for(lambda: (lambda t: t and last in [x["event"] for x in t] and t)
                    (steps.told(member.process.log, job_id)), "%s's last step" % member.name)
    assert [x["ts"] for x in told] == sorted(x["ts"] for x in told), told
    return told


def side(rows, who):
    return [step for step, told_by, _ in rows if told_by == who]


def test_a_job_passes_the_steps_of_the_embedded_log():
    """The worker starts when the client has its answer, so that only 14 may overtake 12 and 13."""
    rows = steps.documented("trace kafka")
    assert [step for step, _, _ in rows] == steps.STEPS, rows
    with distributed(workers=0, config=steps.CONFIG) as d:
        gateway = d.gateways[0]
        gateway.submit(id="t1")
        worker = d.add_worker()
        assert gateway.finished("t1")["status"] == "succeeded"
        told = [*steps_of(gateway, "t1", "wake"), *steps_of(worker, "t1", "ended")]
        assert [x["event"] for x in told] == side(rows, "gateway") + side(rows, "worker"), told
        rank = [rows.index(r) for who in ("gateway", "worker") for r in rows if r[1] == who]
        told = [x for _, _, x in sorted(zip((x["ts"] for x in told), rank, told))]  # by ms
        order = [x["event"] for x in told]
        print("# " + " -> ".join(order))
        assert order[:11] == steps.STEPS[:11] and sorted(order[11:]) == ["apply", "ended", "wake"], told
        assert order.index("wake") > order.index("apply", 11), told
        assert told[1]["topic"] == "t%d.jobs.default.normal" % distributed.n, told
        assert told[10]["topic"] == "t%d.completions" % distributed.n, told


def test_up_on_kafka_tells_all_steps():
    rows = steps.documented("trace kafka")
    with distributed(gateways=0, workers=0, config=steps.CONFIG) as d:
        up = Member(d, "up", "both", urls=[d.engine.url])
        d.workers.append(up)  # to be stopped with the others
        up.start()
        assert up.finished(up.submit(id="t2")["id"])["status"] == "succeeded"
        steps_of(up, "t2", "ended")
        steps_of(up, "t2", "wake")
        lines = steps_of(up, "t2", "acked")
        told = [x["event"] for x in lines]
        both = {"append", "apply"}  # of the job, and of the completion
        assert sorted(told) == sorted(steps.STEPS), told
        for who in ("gateway", "worker"):
            mine = set(side(rows, who)) - both - {"acked"}  # whose topic may be read after the other
            assert [s for s in told if s in mine] == [s for s in side(rows, who) if s in mine], told
        for before, after in (("submit", "append"), ("append", "deliver")):
            assert told.index(before) < told.index(after), told
        at = {(x["event"], x["topic"].split(".")[1]): n for n, x in enumerate(lines) if x["event"] in both}
        assert at["apply", "jobs"] < told.index("acked"), told
        assert told.index("published") < at["append", "completions"] < at["apply", "completions"], told
        assert at["apply", "completions"] < told.index("wake"), told


def test_many_jobs_each_once_in_one_order():
    n = 2000
    with distributed(gateways=2, workers=2) as d:
        one, two = d.gateways
        wait_for(lambda: all(w.metric("genq_kafka_partitions") > 0 for w in d.workers),
                 "a part for each worker")
        body = "".join('{"model":"stub","prompt":"p%d"}\n' % i for i in range(n))
        reply = one.request("POST", "/api/v1/batches?id=b", body,
                            {"Content-Type": "application/x-ndjson"})
        assert reply.status == 201, reply
        feeds = [feed_of(g, n) for g in (one, two)]
        assert [c["id"] for c in feeds[0]] == [c["id"] for c in feeds[1]]
        assert sorted(c["id"] for c in feeds[0]) == sorted("b-%d" % i for i in range(n))
        assert len(d.engine.events("recv")) == n
        for g in (one, two):
            batch = wait_for(lambda: g.get("/api/v1/batches/b").status == 200 and
                             g.get("/api/v1/batches/b").json)
            assert batch["counts"]["succeeded"] == n, batch
            assert len(g.get("/api/v1/batches/b/results").body.splitlines()) == n
        took_part = [w for w in d.workers if w.metric("genq_engine_calls_total") > 0]
        assert len(took_part) == 2


def test_a_backlog_that_fills_whole_fetches():
    """Kafka's answer is as long as it may be, and says a little of each partition besides."""
    n, config = 3000, "limits: {body_bytes: 20000, record_bytes: 40000}\n"
    with distributed(workers=0, config=config) as d:
        body = "".join('{"model":"stub","prompt":"%d %s"}\n' % (i, "x" * 500) for i in range(n))
        reply = d.gateways[0].request("POST", "/api/v1/batches?id=b", body, {"Content-Type": "application/x-ndjson"})
        assert reply.status == 201, reply
        d.add_worker()
        assert len(feed_of(d.gateways[0], n)) == n


def test_a_cursor_is_good_at_a_gateway_that_is_behind():
    with distributed(gateways=2) as d:
        ahead, behind = d.gateways
        behind.pause()
        ids = [ahead.submit()["id"] for _ in range(3)]
        cursor = 0
        while cursor < 2:
            cursor = ahead.get("/api/v1/completions?wait=30s&limit=1&after=%d" % cursor).json["next"]
        behind.resume()
        page = behind.get("/api/v1/completions?wait=30s&after=%d" % cursor)
        assert page.status == 200, page
        assert [c["id"] for c in page.json["data"]][0] in ids and page.json["next"] > cursor, page
        far = behind.get("/api/v1/completions?after=1000")
        assert far.status == 200 and far.json["data"] == [] and far.json["next"] == 1000, far


def test_posted_here_waited_there_cancelled_elsewhere():
    with distributed(gateways=3, stub=["--latency-ms", "60000"]) as d:
        job = d.gateways[0].submit(id="slow")
        wait_for(lambda: d.engine.events("recv"), "the engine's call")
        wait_for(lambda: d.gateways[2].get("/api/v1/jobs/slow").status == 200)
        assert d.gateways[2].delete("/api/v1/jobs/slow").status == 202
        done = d.gateways[1].finished(job["id"])
        assert done["status"] == "cancelled", done
        wait_for(lambda: d.engine.events("abort"), "the call's end")
        # Whoever says that it was cancelled says of which job: the gateway, which has it from its store, and
        # the worker, for its call.
        [record] = KAFKA.client().consume(d.prefix + ".jobs.default.normal")
        digest = dict(record["headers"])["genq_digest"]

        def ends():
            found = KAFKA.client().consume(d.prefix + ".completions")
            return len(found) == 2 and [dict(r["headers"]).get("genq_digest") for r in found]
        assert wait_for(ends, "both completions") == [digest] * 2


def test_a_cancel_is_answered_when_the_log_has_it():
    """Not before: until then nobody knows whether the job has ended otherwise."""
    with distributed(stub=["--latency-ms", "60000"]) as d:
        gateway, broker, answers = d.gateways[0], KAFKA.brokers[0], []
        for i in range(2):
            gateway.submit(id="s%d" % i)
        wait_for(lambda: len(d.engine.events("recv")) == 2, "the engine's calls")
        assert gateway.delete("/api/v1/jobs/s0").status == 202  # its producer is warm
        broker.pause()
        asked = threading.Thread(
            target=lambda: answers.append(gateway.delete("/api/v1/jobs/s1").status))
        asked.start()
        asked.join(2)
        broker.resume()
        assert answers == []
        asked.join(60)
        assert answers == [202] and gateway.finished("s1")["status"] == "cancelled", answers


def test_a_cancel_that_fails_leaves_the_job():
    """An order without its completion would take the job from its worker, and nothing would ever end it."""
    with distributed(workers=0) as d:
        gateway, client, completions = d.gateways[0], KAFKA.client(), d.prefix + ".completions"
        gateway.submit(id="kept")
        client.admin("set", completions, "max.message.bytes=10")
        refused = gateway.delete("/api/v1/jobs/kept")
        assert refused.status >= 400, refused
        client.admin("set", completions, "max.message.bytes=1048576")
        d.add_worker()
        assert gateway.finished("kept")["status"] == "succeeded"


def test_a_completion_that_comes_again_is_in_the_ledger_once():
    """A worker killed behind its outbox's back sends what Kafka has already."""
    with distributed() as d:
        gateway, client, completions = d.gateways[0], KAFKA.client(), d.prefix + ".completions"
        gateway.finished(gateway.submit()["id"])
        [first] = client.consume(completions)
        client.produce(completions, (first["key"], first["payload"]), headers=first["headers"])
        gateway.finished(gateway.submit()["id"])  # behind it
        found = client.consume(completions)
        assert [r["payload"] for r in found[:2]] == [first["payload"]] * 2 and len(found) == 3, found
        [row] = gateway.get("/api/v1/usage?group_by=tenant").json["data"]
        assert (row["jobs"], row["calls"], row["wasted_tokens"]) == (2, 2, 0), row


def test_a_cancelled_job_never_runs():
    """Also when the worker hears of the cancellation before it reads the job."""
    with distributed(workers=0, gateways=1) as d:
        gateway = d.gateways[0]
        for i in range(20):
            gateway.submit(id="c%d" % i)
            if i % 2:
                assert gateway.delete("/api/v1/jobs/c%d" % i).status == 202
        worker = d.add_worker()
        for i in range(0, 20, 2):
            assert gateway.finished("c%d" % i)["status"] == "succeeded"
        assert len(d.engine.events("recv")) == 10
        assert worker.metric("genq_jobs_waiting") == 0


def later(gateway, ids, ms):
    body = [{"model": "stub", "prompt": "key=" + i, "id": i,
             "not_before": int(time.time() * 1000) + ms} for i in ids]
    reply = gateway.post("/api/v1/jobs", body)
    assert reply.status == 200 and all(j["status"] == "scheduled" for j in reply.json["data"]), reply


def test_a_scheduled_job_waits_for_its_time():
    """Everywhere it is seen as scheduled, others do not wait for it, and a cancelled one never runs."""
    with distributed(gateways=2) as d:
        one, two = d.gateways
        later(one, ["far%d" % i for i in range(1000)], 3600000)
        due = time.monotonic() * 1e6 + 3e6
        later(one, ["due", "gone"], 3000)
        one.finished(one.submit(prompt="key=now")["id"])
        wait_for(lambda: two.get("/api/v1/jobs/gone").status == 200)
        assert two.get("/api/v1/jobs/due").json["status"] == "scheduled"
        assert two.delete("/api/v1/jobs/gone").status == 202
        assert two.finished("due")["status"] == "succeeded"
        assert one.finished("gone")["status"] == "cancelled"
        came = {e[3]: int(e[0]) for e in d.engine.events("recv")}
        assert sorted(came) == ["due", "now"] and len(d.engine.events("recv")) == 2, came
        assert came["due"] >= due, (came, due)


def test_scheduled_jobs_outlive_their_worker():
    with distributed() as d:
        gateway, worker, ids = d.gateways[0], d.workers[0], ["l%d" % i for i in range(50)]
        later(gateway, ids, 3000)
        wait_for(lambda: "scheduled_read" in worker.said(), "the owner")
        worker.kill()
        worker.start()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        assert sorted(e[3] for e in d.engine.events("recv")) == sorted(ids)


def test_a_killed_workers_jobs_run_elsewhere():
    with distributed(workers=2, stub=["--latency-ms", "300"]) as d:
        gateway = d.gateways[0]
        ids = [gateway.submit()["id"] for _ in range(40)]
        wait_for(lambda: len(d.engine.events("sent")) > 4)
        killed = time.monotonic()
        d.workers[0].kill()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        took = time.monotonic() - killed
        assert took < SESSION_MS / 1000 + 10, took
        assert len(feed_of(gateway, 40)) == 40


def test_a_repeat_after_the_end_does_not_run():
    """A client that had no answer sent it again; the worker that ran the first one is gone."""
    with distributed() as d:
        job = json.dumps({"id": "r", "model": "stub", "prompt": "x"})
        topic = "t%d.jobs.default.normal" % distributed.n
        d.kafka.client().produce(topic, ("r", job))
        feed_of(d.gateways[0], 1)
        d.workers[0].stop()
        d.kafka.client().produce(topic, ("r", job))
        d.workers[0].start()
        d.gateways[0].finished(d.gateways[0].submit(id="r2")["id"])
        wait_for(lambda: "repeat_dropped" in d.workers[0].said(), "the repeat")
        assert len(d.engine.events("recv")) == 2


def test_restarts_run_nothing_again():
    with distributed() as d:
        gateway, worker = d.gateways[0], d.workers[0]
        for round_ in range(3):
            for i in range(50):
                gateway.submit(id="r%d-%d" % (round_, i))
            for i in range(50):
                gateway.finished("r%d-%d" % (round_, i))
            worker.kill() if round_ else worker.stop()
            worker.start()
        gateway.submit(id="last")
        gateway.finished("last")
        assert len(d.engine.events("recv")) == 151


def test_a_wiped_gateway_rebuilds_itself():
    with distributed() as d:
        gateway = d.gateways[0]
        for i in range(30):
            gateway.submit(id="w%d" % i)
        for i in range(30):
            gateway.finished("w%d" % i)
        before = feed_of(gateway, 30)
        usage = gateway.get("/api/v1/usage").json
        gateway.stop()
        shutil.rmtree(gateway.data)
        gateway.start()
        assert [c["id"] for c in feed_of(gateway, 30)] == [c["id"] for c in before]
        assert gateway.get("/api/v1/usage").json == usage


def test_a_bare_record_waits_like_a_job_that_was_posted():
    with distributed(workers=0) as d:
        gateway = d.gateways[0]
        topic = "t%d.jobs.default.high" % distributed.n
        bare = json.dumps({"model": "stub", "prompt": "x"})
        KafkaClient(KAFKA.servers).produce(topic, (None, bare), ("its-key", bare))
        jobs = wait_for(lambda: (lambda data: len(data) == 2 and data)(gateway.get("/api/v1/jobs").json["data"]))
        for job in jobs:
            assert job["id"].startswith("k") and len(job["id"]) == 17, jobs
            assert (job["status"], job["queue"], job["priority"]) == ("queued", "default", "high"), jobs
        assert gateway.delete("/api/v1/jobs/" + jobs[0]["id"]).status == 202
        assert gateway.finished(jobs[0]["id"])["status"] == "cancelled"
        d.add_worker()
        assert gateway.finished(jobs[1]["id"])["status"] == "succeeded"
        assert len(d.engine.events("recv")) == 1
        assert len(gateway.get("/api/v1/jobs").json["data"]) == 2


def test_a_bare_record_is_a_job():
    with distributed() as d:
        client = KafkaClient(KAFKA.servers)
        topic = "t%d.jobs.default.normal" % distributed.n
        client.produce(topic, (None, json.dumps({"model": "stub", "prompt": "x"})))
        done = feed_of(d.gateways[0], 1)[0]
        assert done["status"] == "succeeded" and done["id"].startswith("k") and len(done["id"]) == 17
        client.produce(topic, (None, "no job"))
        wait_for(lambda: d.gateways[0].metric("genq_records_dead_total") or
                 d.workers[0].metric("genq_records_dead_total"))
        dead = wait_for(lambda: client.consume("t%d.dead" % distributed.n), "the dead letter")
        assert dead[0]["payload"] == "no job", dead
        headers = dict(dead[0]["headers"])
        assert headers["genq_reason"] and headers["genq_source"].startswith(topic), dead


def letters_at(d, i, *arguments):
    """What `genq dead …` tells of gateway i."""
    done = subprocess.run([os.environ["GENQ"], "dead", *arguments, "--json", "--server",
                           "http://127.0.0.1:%d" % d.gateways[i].port], capture_output=True,
                          text=True, check=False, timeout=60)
    assert done.returncode <= 1, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_dead_letters_are_listed_and_redriven_at_each_gateway():
    with distributed(gateways=2) as d:
        topic = "t%d.jobs.default.normal" % distributed.n
        client = KafkaClient(KAFKA.servers)
        client.produce(topic, ("k", "no job"))
        bad = wait_for(lambda: letters_at(d, 1, "list"), "the record that is no job")[0]
        assert bad["code"] == "malformed" and bad["preview"] == "no job" and bad["reason"], bad
        assert bad["source"].startswith(topic + "/") and not bad["can_redrive"], bad
        job = d.gateways[0].submit(id="a", model="none", prompt="key=again")
        assert d.gateways[0].finished(job["id"])["error"]["code"] == "model_not_found"
        wait_for(lambda: letters_at(d, 1, "list", "a"), "the job that failed, at the other gateway")
        told = letters_at(d, 1, "redrive", "--set-model", "stub")
        assert [x["result"] for x in told] == ["refused", "redriven"], told
        again = letters_at(d, 0, "redrive", "a", "--set-model", "stub")
        assert again[0]["id"] == told[1]["id"], (told, again)
        for gateway in d.gateways:
            wait_for(lambda g=gateway: g.get("/api/v1/jobs/" + told[1]["id"]).status == 200)
            new = gateway.finished(told[1]["id"])
            assert new["status"] == "succeeded" and new["redrive_of"] == "a", new
        wait_for(lambda: letters_at(d, 0, "redrive", "a")[0]["result"] == "already")
        # A job of an id that another has, from a client that no gateway saw.
        d.engine.latency(2000)
        for prompt in "key=first", "key=second":
            client.produce(topic, ("c", json.dumps({"id": "c", "model": "stub", "prompt": prompt})))
        twin = wait_for(lambda: letters_at(d, 0, "list", "--code", "id_conflict"), "the conflict")[0]
        d.engine.latency(0)
        new = letters_at(d, 0, "redrive", "--code", "id_conflict")[0]
        assert twin["can_redrive"] and new["result"] == "redriven", (twin, new)
        wait_for(lambda: d.gateways[0].get("/api/v1/jobs/" + new["id"]).status == 200)
        assert d.gateways[0].finished(new["id"])["redrive_of"] == "c"
        d.gateways[0].finished("c")
        calls = sorted(line[3] for line in d.engine.events("recv"))
        assert calls == ["again", "first", "second"], calls


def outbox_while_kafka_is_away(config):
    """The outbox's bytes when answers of 1 MiB to the four slots' calls came while the broker stood still."""
    with distributed(worker_config=config) as d:
        d.engine.faults("kind=huge,bytes=1,times=4")
        d.engine.latency(1500)
        ids = []
        for n in range(1, 5):  # one after the other: a group of answers that is alone may be larger
            ids.append(d.gateways[0].submit()["id"])
            wait_for(lambda: len(d.engine.events("recv")) == n, "the calls")
            time.sleep(0.2)
        KAFKA.brokers[0].pause()
        try:
            wait_for(lambda: len(d.engine.events("sent")) == 4, "all answers")
            time.sleep(2)
            n_bytes = d.workers[0].metric("genq_outbox_bytes")
        finally:
            KAFKA.brokers[0].resume()
        for i in ids:
            assert d.gateways[0].finished(i)["status"] == "succeeded"
        return n_bytes


def test_key_limits_outbox_bytes():
    small = outbox_while_kafka_is_away("limits: {outbox_bytes: 3500000}\n")
    assert small <= 3500000 < outbox_while_kafka_is_away(""), small


with KAFKA:
    run(globals())
