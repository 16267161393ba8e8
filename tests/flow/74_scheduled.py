"""Jobs with not_before on a real Kafka: who keeps them, who runs them, and what a kill costs. What was
called and when is what the stub engine's log says."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from distributed import Distributed, Member  # noqa: E402
from genq import run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402

KAFKA = KafkaCluster()


def distributed(**options):
    distributed.n += 1
    return Distributed(KAFKA, prefix="s%d" % distributed.n, **options)


distributed.n = 0


def now_ms():
    return int(time.time() * 1000)


def later(gateway, ids, due, **fields):
    """Posts a job of each id, whose prompt names it."""
    for at in range(0, len(ids), 5000):
        body = [{"model": "stub", "prompt": "key=%s" % i, "id": i, "not_before": due, **fields}
                for i in ids[at:at + 5000]]
        reply = gateway.post("/api/v1/jobs", body)
        assert reply.status == 200 and all("error" not in j or not j["error"]
                                           for j in reply.json["data"]), reply


def calls(d):
    """{key: how many calls} of all engines."""
    n = {}
    for engine in d.engines:
        for event in engine.events("recv"):
            n[event[3]] = n.get(event[3], 0) + 1
    return n


def holder(d):
    """The worker that has the scheduled jobs: the last one that was given them, and lives."""
    topic = '"topic":"%s.scheduled"' % d.prefix

    def has(worker):
        if worker.process.child.poll() is not None:
            return False
        lines = [line for line in worker.said().splitlines() if topic in line and "group_" in line]
        return bool(lines) and "group_assigned" in lines[-1]
    return wait_for(lambda: next((w for w in d.workers if has(w)), None), "an owner")


def table(d):
    """The scheduled topic by key, as compaction would leave it."""
    rows = {}
    for record in d.kafka.client().consume("%s.scheduled" % d.prefix):
        rows[record["key"]] = record["payload"]
    return {key: value for key, value in rows.items() if value}


def is_empty(d):
    """False also while a broker that was away has not taken its partitions back."""
    try:
        return not table(d)
    except AssertionError:
        return False


def status(gateway, id_, tenant="default"):
    reply = gateway.get("/api/v1/jobs/%s?tenant=%s" % (id_, tenant))
    return reply.status == 200 and reply.json["status"]


def test_it_runs_when_it_is_due_and_is_scheduled_until_then():
    with distributed(gateways=2) as d:
        due, due_mono = now_ms() + 3000, int(time.monotonic() * 1000) + 3000
        job = d.gateways[0].submit(id="a", prompt="key=a", not_before=due)
        assert job["status"] == "scheduled", job
        assert job["position"].startswith("%s.scheduled/0/" % d.prefix), job
        for gateway in d.gateways:
            wait_for(lambda g=gateway: g.get("/api/v1/jobs/a").status == 200)
            assert gateway.get("/api/v1/jobs/a").json["status"] == "scheduled"
            listed = gateway.get("/api/v1/jobs?status=scheduled").json["data"]
            assert [j["id"] for j in listed] == ["a"], listed
        for gateway in d.gateways:
            assert gateway.finished("a")["status"] == "succeeded"
        came = int(d.engine.events("recv")[0][0]) / 1e3
        assert came >= due_mono, (came, due_mono)
        assert calls(d) == {"a": 1}
        wait_for(lambda: not table(d), "the tombstone")
        again = d.gateways[1].post("/api/v1/jobs", {"model": "stub", "prompt": "key=a", "id": "a",
                                                    "not_before": due})
        assert again.status == 200 and again.json["status"] == "succeeded", again
        for gateway in d.gateways:
            assert len(gateway.get("/api/v1/jobs").json["data"]) == 1


def test_others_do_not_wait_for_them():
    with distributed() as d:
        gateway = d.gateways[0]
        later(gateway, ["f%d" % i for i in range(1000)], now_ms() + 3600000)
        later(gateway, ["n%d" % i for i in range(1000)], now_ms() + 6000)
        for i in range(100):
            assert gateway.finished(gateway.submit(prompt="key=x%d" % i)["id"])["status"] == "succeeded"
        for i in range(1000):
            assert gateway.finished("n%d" % i)["status"] == "succeeded"
        assert all(n == 1 for n in calls(d).values()) and len(calls(d)) == 1100
        assert len(table(d)) >= 1000


def test_a_killed_owners_jobs_run_elsewhere_each_once():
    with distributed(workers=3, gateways=1) as d:
        gateway, ids = d.gateways[0], ["k%d" % i for i in range(300)]
        later(gateway, ids, now_ms() + 9000)
        holder(d).kill()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        assert calls(d) == {i: 1 for i in ids}
        wait_for(lambda: not table(d), "the tombstones")


def test_an_owner_killed_while_they_become_due():
    """Whatever of the two publishes it came to: each is called once, but for those in flight."""
    with distributed(workers=2) as d:
        gateway, ids = d.gateways[0], ["m%d" % i for i in range(3000)]
        due = now_ms() + 4000
        later(gateway, ids, due)
        owner = holder(d)
        wait_for(lambda: len(d.engine.events("recv")) > 100)
        in_flight = len(d.engine.events("recv")) - len(d.engine.events("sent"))
        owner.kill()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        n = calls(d)
        assert sorted(n) == sorted(ids)
        again = [i for i in n if n[i] > 1]
        assert len(again) <= in_flight + 64, (len(again), in_flight)
        wait_for(lambda: not table(d), "the tombstones")


def test_an_owner_that_stood_still():
    """It was given up for dead; when it goes on, what it kept is another's, and over."""
    with distributed(workers=2) as d:
        gateway, ids = d.gateways[0], ["z%d" % i for i in range(200)]
        later(gateway, ids, now_ms() + 9000)
        owner = holder(d)
        wait_for(lambda: "scheduled_read" in owner.said() and
                 all("group_takeover" in w.said() for w in d.workers), "the take-over")
        owner.pause()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        owner.resume()
        wait_for(lambda: "group_lost" in owner.said() or "group_revoked" in owner.said(), "the loss")
        gateway.finished(gateway.submit(id="last", prompt="key=last")["id"])
        wait_for(lambda: not table(d), "the tombstones")
        assert calls(d) == {i: 1 for i in ids + ["last"]}


def test_a_broker_that_is_away_when_they_are_due():
    with distributed() as d:
        gateway, broker, ids = d.gateways[0], KAFKA.brokers[0], ["b%d" % i for i in range(50)]
        later(gateway, ids, now_ms() + 2000)
        wait_for(lambda: "scheduled_read" in d.workers[0].said(), "the owner")
        broker.pause()
        time.sleep(4)
        assert not calls(d)
        broker.resume()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        assert calls(d) == {i: 1 for i in ids}
        wait_for(lambda: is_empty(d), "the tombstones")


def test_both_roles_in_one_process():
    with distributed(workers=0, gateways=0) as d:
        both = Member(d, "up", "both", urls=[d.engine.url])
        d.gateways.append(both)
        both.start()
        for id_, session in (("u", None), ("s", "one")):
            body = {"id": id_, "session": session} if session else {"id": id_}
            both.submit(prompt="key=" + id_, not_before=now_ms() + 1000, **body)
        both.submit(id="gone", prompt="key=gone", not_before=now_ms() + 1000)
        assert both.delete("/api/v1/jobs/gone").status == 202
        both.kill()
        both.start()
        for id_ in ("u", "s"):
            assert both.finished(id_)["status"] == "succeeded"
        assert both.finished("gone")["status"] == "cancelled"
        assert calls(d) == {"u": 1, "s": 1}
        wait_for(lambda: not table(d), "the tombstones")


def test_restarts_and_kills_of_all():
    with distributed() as d:
        gateway, worker = d.gateways[0], d.workers[0]
        ids = ["r%d" % i for i in range(100)]
        later(gateway, ids, now_ms() + 15000)
        later(gateway, ["far"], now_ms() + 3600000)
        worker.kill()
        gateway.kill()
        worker.start()
        gateway.start()
        assert status(gateway, "r0") == "scheduled"
        worker.stop()
        gateway.stop()
        gateway.start()
        worker.start()
        for i in ids:
            assert gateway.finished(i)["status"] == "succeeded"
        assert calls(d) == {i: 1 for i in ids}
        assert status(gateway, "far") == "scheduled" and list(table(d)) == ["far"]


def test_a_cancelled_one_is_never_called():
    with distributed(gateways=2) as d:
        one, two = d.gateways
        due = now_ms() + 12000
        later(one, ["c%d" % i for i in range(40)], due)
        wait_for(lambda: status(two, "c39"))
        for i in range(10):
            assert two.delete("/api/v1/jobs/c%d" % i).status == 202
        wait_for(lambda: len(table(d)) == 30, "the tombstones")
        d.workers[0].kill()
        for i in range(10, 20):  # while nobody has them
            assert two.delete("/api/v1/jobs/c%d" % i).status == 202
        d.workers[0].start()
        for i in range(40):
            end = one.finished("c%d" % i)
            assert end["status"] == ("cancelled" if i < 20 else "succeeded"), end
        assert calls(d) == {"c%d" % i: 1 for i in range(20, 40)}
        wait_for(lambda: not table(d), "the tombstones")
        assert two.delete("/api/v1/jobs/c0").status == 409


def test_a_gateway_that_comes_later_shows_them():
    with distributed(gateways=2) as d:
        one, two = d.gateways
        two.kill()
        later(one, ["g%d" % i for i in range(50)], now_ms() + 3600000)
        later(one, ["soon"], now_ms() + 100)
        one.finished("soon")
        two.start()
        wait_for(lambda: status(two, "soon") == "succeeded")
        listed = two.get("/api/v1/jobs?status=scheduled&limit=1000").json["data"]
        assert sorted(j["id"] for j in listed) == sorted("g%d" % i for i in range(50))
        assert [status(g, "g7") for g in (one, two)] == ["scheduled"] * 2


def test_a_record_that_was_moved_already_runs_once():
    """As after a kill between the job's record and the tombstone: the next owner finds both."""
    with distributed(gateways=2, workers=2) as d:
        client, topic = d.kafka.client(), "%s.scheduled" % d.prefix
        due = now_ms() + 1500
        later(d.gateways[0], ["t%d" % i for i in range(20)], due)
        records = [r for r in client.consume(topic) if r["payload"]]
        assert len(records) == 20
        for i in range(20):
            d.gateways[0].finished("t%d" % i)
        wait_for(lambda: not table(d), "the tombstones")
        holder(d).kill()
        for r in records:
            client.produce(topic, (r["key"], r["payload"]), headers=r["headers"])
        d.gateways[0].submit(id="last")
        wait_for(lambda: not table(d), "the tombstones again")
        d.gateways[0].finished("last")
        assert {k: n for k, n in calls(d).items() if k.startswith("t")} == \
            {"t%d" % i: 1 for i in range(20)}
        for gateway in d.gateways:
            wait_for(lambda g=gateway: status(g, "last") == "succeeded")
            assert len(gateway.get("/api/v1/jobs").json["data"]) == 21


def jobs_written(d):
    """How many records were ever put into the job topics."""
    return sum(end for p in ("high", "normal", "low") for _, end in
               d.kafka.client().offsets("%s.jobs.default.%s" % (d.prefix, p)).values())


def test_what_is_over_is_not_moved_again():
    """A new owner reads records that a tombstone has taken away, for nothing was compacted yet."""
    with distributed(workers=0) as d:
        client, gateway, n = d.kafka.client(), d.gateways[0], 20000
        rows = [("o%d" % i, json.dumps({"id": "o%d" % i, "model": "stub", "prompt": "x" * 1000,
                                        "not_before": 1000})) for i in range(n)]
        client.produce("%s.scheduled" % d.prefix, *rows)
        client.produce("%s.scheduled" % d.prefix, *((key, None) for key, _ in rows))
        d.add_worker()
        later(gateway, ["p"], now_ms() + 100)
        gateway.finished("p")
        assert jobs_written(d) == 1 and calls(d) == {"p": 1}


def rss_kib(member):
    with open("/proc/%d/status" % member.process.pid, encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_many_cost_little_memory():
    n = 100000
    with distributed() as d:
        worker, gateway, pad = d.workers[0], d.gateways[0], "x" * 1000
        wait_for(lambda: "scheduled_read" in worker.said(), "the owner")
        before = rss_kib(worker)
        rows = [("w%d" % i, json.dumps({"id": "w%d" % i, "model": "stub", "prompt": pad,
                                        "not_before": now_ms() + 3600000})) for i in range(n)]
        d.kafka.client().produce("%s.scheduled" % d.prefix, *rows)
        later(gateway, ["w"], now_ms() + 100)  # behind them all
        gateway.finished("w")
        each = (rss_kib(worker) - before) * 1024 / n
        print("# %d bytes a job" % each)
        assert each < 250, each
        worker.kill()
        later(gateway, ["v"], now_ms() + 100)
        worker.start()
        assert gateway.finished("v")["status"] == "succeeded"
        assert len(d.engine.events("recv")) == 2


def test_the_first_of_an_id_counts_and_tenants_have_their_own():
    with distributed() as d:
        client, topic, gateway = d.kafka.client(), "%s.scheduled" % d.prefix, d.gateways[0]
        due = now_ms() + 4000
        gateway.submit(id="same", prompt="key=first", not_before=due)
        gateway.submit(id="same", prompt="key=other", not_before=due, tenant="other")
        assert sorted(table(d)) == ["other/same", "same"]
        bad = {"model": "stub", "prompt": "key=second", "id": "same", "not_before": due}
        client.produce(topic, ("same", json.dumps(bad)), ("no", "job"))
        wait_for(lambda: len(client.consume("%s.dead" % d.prefix)) == 2, "two dead letters")
        wait_for(lambda: "key=first" in table(d).get("same", ""), "the first one again")
        for tenant in ("default", "other"):
            assert gateway.finished("same", tenant)["status"] == "succeeded"
        assert calls(d) == {"first": 1, "other": 1}
        wait_for(lambda: not table(d), "the tombstones")
        reasons = [dict(r["headers"])["genq_reason"] for r in client.consume("%s.dead" % d.prefix)]
        assert "id_conflict" in reasons and len(reasons) == 2, reasons


with KAFKA:
    run(globals())
