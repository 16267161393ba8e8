"""Single jobs and arrays: submitting, reading, listing, cancelling; every field that HTTP shows."""
import os
import re
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import World, run, wait_for  # noqa: E402

MEMBERS = {"id", "object", "status", "model", "priority", "queue", "batch_id", "custom_id", "tenant",
           "metadata", "created_at", "started_at", "finished_at", "attempts", "node", "cached",
           "output", "error", "usage", "calls", "timing", "cost", "batch_line", "key_id"}


def test_one_job_from_post_to_result():
    with World() as w:
        reply = w.post("/api/v1/jobs", {"model": "stub", "prompt": "hello"})
        assert reply.status == 201, reply
        job = reply.json
        assert set(job) == MEMBERS | {"position"}, set(job) ^ MEMBERS
        assert job["object"] == "job" and job["status"] == "queued"
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", job["id"])
        assert re.fullmatch(r"genq\.jobs\.default\.normal/0/\d+", job["position"])
        assert abs(job["created_at"] - time.time() * 1000) < 60000
        assert job["output"] is None and job["error"] is None and job["usage"] is None
        done = w.finished(job["id"])
        assert set(done) == MEMBERS, set(done) ^ MEMBERS
        assert done["status"] == "succeeded" and done["error"] is None
        assert done["output"]["text"] == "echo: hello" and done["output"]["finish_reason"] == "stop"
        assert done["attempts"] == 1 and done["cached"] is False
        assert done["node"] == "127.0.0.1:%d" % w.stub_port
        usage = done["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert len(done["calls"]) == 1
        call = done["calls"][0]
        assert set(call) >= {"id", "attempt", "node", "model", "prompt_tokens", "completion_tokens",
                             "cached_tokens", "outcome", "ms"}, call
        assert call["attempt"] == 1 and call["model"] == "stub"
        assert set(done["timing"]) == {"queue_ms", "engine_ms", "first_token_ms", "total_ms"}
        assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_fields_are_echoed():
    with World() as w:
        job = w.submit(id="my.id-1_A", priority="high", tenant="acme", batch_id="g1",
                       custom_id="it's \u00fc", session="s", metadata={"a": [1, {"b": None}]},
                       timeout_ms=1000, max_attempts=2, temperature=0, max_tokens=5, seed=1,
                       stop=["x"], options={"num_ctx": 512})
        assert job["position"].startswith("genq.jobs.default.high/0/")
        for got in (job, w.finished("my.id-1_A", "acme")):
            assert got["id"] == "my.id-1_A" and got["priority"] == "high"
            assert got["tenant"] == "acme" and got["batch_id"] == "g1"
            assert got["custom_id"] == "it's \u00fc" and got["metadata"] == {"a": [1, {"b": None}]}
            assert got["queue"] == "default" and got["model"] == "stub"
        assert w.get("/api/v1/jobs/my.id-1_A").status == 404  # another tenant's
        assert w.finished(w.submit(priority="low")["id"])["priority"] == "low"


def test_metadata_over_lines_stays_one_event_and_one_line():
    with World() as w:
        body = '{"model":"stub","prompt":"p","id":"m1","metadata":{\n "a":\r\n "b\\nc"\n}}'
        assert w.post("/api/v1/jobs", body).status == 201
        assert w.finished("m1")["metadata"] == {"a": "b\nc"}
        with w.events("/api/v1/jobs/m1/events") as events:
            assert [e for e in events if e.get("event") == "completion"][0]["data"]["id"] == "m1"
        with w.events("/api/v1/completions/events?after=0") as events:
            assert next(events)["data"]["metadata"] == {"a": "b\nc"}


def test_chat_and_embedding():
    with World() as w:
        chat = w.submit(prompt=None, messages=[{"role": "user", "content": "hi there"}])
        done = w.finished(chat["id"])
        assert done["status"] == "succeeded", done
        assert done["output"]["message"]["content"] == "echo: hi there", done
        embedding = w.finished(w.submit(prompt=None, input=["a", "b"])["id"])
        assert embedding["status"] == "succeeded", embedding
        assert len(embedding["output"]["embedding"]) == 2, embedding


def test_repeat_and_conflict():
    with World() as w:
        body = {"model": "stub", "prompt": "p", "id": "r1", "temperature": 0.5}
        assert w.post("/api/v1/jobs", body).status == 201
        again = w.post("/api/v1/jobs", dict(reversed(body.items())))
        assert again.status == 200 and again.json["id"] == "r1", again
        other = w.post("/api/v1/jobs", {**body, "prompt": "q"})
        assert other.status == 409 and other.error["code"] == "id_conflict", other
        assert other.error["param"] == "id"
        w.finished("r1")
        again = w.post("/api/v1/jobs", body)
        assert again.status == 200 and again.json["status"] == "succeeded", again
        assert w.post("/api/v1/jobs", {**body, "tenant": "other"}).status == 201
        w.finished("r1", "other")
        assert len(w.stub_events("recv")) == 2, w.stub_events("recv")
        assert w.metric("genq_jobs_repeated_total") == 2
        assert w.metric("genq_jobs_conflicted_total") == 1


def test_idempotency_key_is_the_id():
    with World() as w:
        body = {"model": "stub", "prompt": "p"}
        first = w.post("/api/v1/jobs", body, Idempotency_Key="k-1")
        assert first.status == 201 and first.json["id"] == "k-1"
        assert w.post("/api/v1/jobs", body, Idempotency_Key="k-1").status == 200
        own = w.post("/api/v1/jobs", {**body, "id": "mine"}, Idempotency_Key="k-2")
        assert own.status == 201 and own.json["id"] == "mine"
        bad = w.post("/api/v1/jobs", body, Idempotency_Key="no spaces")
        assert bad.status == 400 and bad.error["param"] == "Idempotency-Key", bad
        bad = w.post("/api/v1/jobs", [body], Idempotency_Key="k-3")
        assert bad.status == 400 and bad.error["param"] == "Idempotency-Key", bad


def test_wrong_jobs_are_refused_by_name():
    with World() as w:
        def refused(fields, param, words):
            reply = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p", **fields})
            assert reply.status == 400, reply
            assert reply.error["type"] == "invalid_request_error"
            assert reply.error["code"] == "invalid_request"
            assert reply.error["param"] == param and words in reply.error["message"], reply

        refused({"temprature": 1}, None, "did you mean 'temperature'")
        refused({"temperature": "hot"}, "temperature", "temperature")
        refused({"id": "a b"}, "id", "id")
        refused({"id": "x" * 65}, "id", "id")
        refused({"priority": "urgent"}, "priority", "priority")
        refused({"queue": "nope"}, "queue", "nope")
        refused({"n": 2}, "n", "n")
        refused({"messages": []}, "messages", "messages")
        refused({"metadata": {"a": "x" * 20000}}, "metadata", "16384")
        refused({"not_before": "tomorrow"}, "not_before", "RFC 3339")
        refused({"model": None}, "model", "model")
        refused({"prompt": None}, None, "prompt")
        for body in ("", "nul", "{", '{"model":"stub"} {}', "[", '["a"', '{"prompt":"a","prompt":"b"}'):
            assert w.post("/api/v1/jobs", body).status == 400, body
        reply = w.post("/api/v1/jobs?colour=red", {"model": "stub", "prompt": "p"})
        assert reply.status == 400 and reply.error["param"] == "colour"


def test_array_keeps_order_and_takes_the_good_ones():
    with World() as w:
        body = '[{"model":"stub","prompt":"a, ] \\" [","id":"a1"} ,\n {"model":"stub"},' \
               '{"model":"stub","prompt":"b","id":"a2","metadata":{"k":[1,{}]}},' \
               '{"id":"a1","model":"stub","prompt":"other"}, 7,' \
               '{"model":"stub","prompt":"b","id":"a2","metadata":{"k":[1,{}]}}]'
        reply = w.post("/api/v1/jobs", body)
        assert reply.status == 200, reply
        assert reply.json["object"] == "list"
        data = reply.json["data"]
        assert [d.get("id") for d in data] == ["a1", None, "a2", None, None, "a2"], data
        assert data[1]["error"]["code"] == "invalid_request"
        assert data[3]["error"]["code"] == "id_conflict"
        assert data[4]["error"]["type"] == "invalid_request_error"
        assert re.fullmatch(r"genq\.jobs\.default\.normal/0/\d+", data[0]["position"])
        assert w.finished("a1")["output"]["text"] == 'echo: a, ] " ['
        assert w.finished("a2")["metadata"] == {"k": [1, {}]}
        assert w.post("/api/v1/jobs", "[]").status == 400
        assert w.post("/api/v1/jobs", [{"model": "stub", "prompt": "p"}] * 10001).status == 400
        assert w.post("/api/v1/jobs?wait=1s", [{"model": "stub", "prompt": "p"}]).status == 400
        many = w.post("/api/v1/jobs", [{"model": "stub", "prompt": "p", "id": "m%d" % i}
                                       for i in range(10000)])
        assert many.status == 200
        assert [d["id"] for d in many.json["data"]] == ["m%d" % i for i in range(10000)]


def test_list_and_filters():
    with World() as w:
        for i in range(25):
            w.submit(id="l%d" % i, batch_id="b%d" % (i % 2), tenant="t%d" % (i % 5),
                     priority="low" if i % 2 else "high")
        for i in range(25):
            w.finished("l%d" % i, "t%d" % (i % 5))

        def ids(query):
            reply = w.get("/api/v1/jobs?" + query)
            assert reply.status == 200, reply
            return [job["id"] for job in reply.json["data"]]

        assert ids("") == ["l%d" % i for i in range(24, -1, -1)]
        page, seen, after = None, [], ""
        while page is None or page["has_more"]:
            page = w.get("/api/v1/jobs?limit=10" + after).json
            seen += [job["id"] for job in page["data"]]
            after = "&after=%s" % page["next"]
        assert seen == ids("limit=1000") and page["next"] is None
        assert ids("tenant=t3") == ["l23", "l18", "l13", "l8", "l3"]
        assert ids("batch_id=b1&tenant=t1") == ["l21", "l11", "l1"]
        assert len(ids("status=succeeded")) == 25 and ids("status=failed") == []
        assert len(ids("model=stub")) == 25 and ids("model=other") == []
        assert len(ids("queue=default")) == 25 and ids("queue=other") == []
        middle = w.get("/api/v1/jobs/l12?tenant=t2").json["created_at"]
        newer, older = ids("created_after=%d" % middle), ids("created_before=%d" % middle)
        assert "l12" not in newer + older and "l24" in newer and "l0" in older
        assert len(ids("created_after=2001-02-03T04:05:06Z")) == 25
        for query in ("limit=0", "limit=1001", "limit=x", "after=x", "after=-1", "status=done",
                      "created_after=yesterday", "colour=red", "tenant=a%20b"):
            reply = w.get("/api/v1/jobs?" + query)
            assert reply.status == 400, (query, reply)
            assert reply.error["param"] == query.partition("=")[0], (query, reply)


def test_a_job_whose_queue_left_the_config_can_be_cancelled():
    with World(config="queues: {big: {}}\n", stub=["--latency-ms", "100000"]) as w:
        w.submit(id="a", queue="big")
        w.stop()
        w.config = ""
        w.start()
        assert w.delete("/api/v1/jobs/a").status == 202
        assert w.delete("/api/v1/jobs/a").status == 409
        w.stop()
        w.config, w.stub_arguments = "queues: {big: {}}\n", []
        w.start()  # its record is there still
        assert w.get("/api/v1/jobs/a").json["status"] == "cancelled"


def test_cancel():
    with World(stub=["--latency-ms", "20000", "--slots", "1"]) as w:
        w.submit(id="c1")
        wait_for(lambda: w.stub_events("recv"), "the call to start")
        assert wait_for(lambda: w.get("/api/v1/jobs/c1").json["status"] == "running")
        running = w.get("/api/v1/jobs/c1").json
        assert running["attempts"] == 1 and running["node"]
        assert [j["id"] for j in w.get("/api/v1/jobs?status=running").json["data"]] == ["c1"]
        w.submit(id="c2", not_before=int(time.time() * 1000) + 3600000)
        assert w.get("/api/v1/jobs/c2").json["status"] == "scheduled"
        for job_id in ("c1", "c2"):
            reply = w.delete("/api/v1/jobs/" + job_id)
            assert reply.status == 202, reply
            assert reply.json["status"] == "cancelled", reply
            assert reply.json["error"]["code"] == "cancelled" and reply.json["output"] is None
            again = w.delete("/api/v1/jobs/" + job_id)
            assert again.status == 409 and again.error["code"] == "already_terminal", again
        wait_for(lambda: w.stub_events("abort"), "the call to be aborted")
        assert w.delete("/api/v1/jobs/c3").status == 404
        assert w.delete("/api/v1/jobs/c1?tenant=other").status == 404
        assert w.delete("/api/v1/jobs/no%20id").status == 404


def test_not_before_and_deadline():
    with World(stub=["--latency-ms", "20"]) as w:
        due = int(time.time() * 1000) + 3000
        later = w.submit(id="n1", not_before=due)
        assert later["status"] == "scheduled" and later["position"].startswith("genq.scheduled/0/")
        done = w.finished("n1")
        assert done["status"] == "succeeded" and done["started_at"] >= due, done
        past = w.submit(not_before="2001-02-03T04:05:06+01:00")
        assert past["status"] == "queued"
        late = w.finished(w.submit(deadline=int(time.time() * 1000) - 1000)["id"])
        assert late["status"] == "expired" and late["error"]["code"] == "deadline_exceeded", late


def test_timeout_and_attempts():
    with World() as w:
        w.faults("kind=hang,match=stuck")
        done = w.finished(w.submit(prompt="stuck", timeout_ms=300, max_attempts=1)["id"])
        assert done["status"] == "failed" and done["attempts"] == 1, done
        assert done["error"]["code"] in ("engine_timeout", "attempts_exhausted"), done
        w.faults("kind=status,code=500,match=once,times=1")
        done = w.finished(w.submit(prompt="once")["id"])
        assert done["status"] == "succeeded" and done["attempts"] == 2, done
        assert [c["outcome"] for c in done["calls"]][-1] == "ok", done


def test_etag():
    with World() as w:
        w.finished(w.submit(id="e1")["id"])
        first = w.get("/api/v1/jobs/e1")
        tag = first.headers["ETag"]
        assert re.fullmatch(r'"[0-9a-f]+"', tag)
        for match in (tag, '"x", ' + tag, "*", "W/" + tag):
            same = w.get("/api/v1/jobs/e1", If_None_Match=match)
            assert same.status == 304 and same.body == b"" and same.headers["ETag"] == tag, same
        assert w.get("/api/v1/jobs/e1", If_None_Match='"other"').status == 200


def db_execute(w, statement):
    db = sqlite3.connect(os.path.join(w.data, "genq.db"), isolation_level=None)
    db.execute(statement)
    db.close()


def test_after_position():
    with World() as w:
        position = w.submit(id="p1")["position"]
        assert w.get("/api/v1/jobs/p1?after_position=" + position).status == 200
        # As a follower of Kafka leaves it: read up to the record before.
        topic, partition, offset = position.rsplit("/", 2)
        db = sqlite3.connect(os.path.join(w.data, "genq.db"), isolation_level=None)
        db.execute("INSERT INTO position VALUES(?,?,?)", (topic, int(partition), int(offset)))
        waits = threading.Timer(0.5, db_execute, (w, "UPDATE position SET next=next+1"))
        began = time.monotonic()
        waits.start()
        assert w.get("/api/v1/jobs/p1?after_position=" + position).status == 200
        assert time.monotonic() - began > 0.4
        waits.join()
        # Having caught up it goes on waiting, for the job's end.
        w.latency(1000)
        position = w.submit(id="p2")["position"]
        waits = threading.Timer(0.1, db_execute, (w, "UPDATE position SET next=next+1"))
        waits.start()
        job = w.get("/api/v1/jobs/p2?wait=30s&after_position=" + position)
        assert job.json["status"] == "succeeded", job
        waits.join()
        offset = position.rsplit("/", 1)[1]
        behind = w.get("/api/v1/jobs/p1?after_position=%s/%s/%d" % (topic, partition, int(offset) + 1))
        assert behind.status == 503 and behind.error["code"] == "unavailable", behind
        assert behind.headers["Retry-After"] == "1", behind
        bad = w.get("/api/v1/jobs/p1?after_position=nowhere")
        assert bad.status == 400 and bad.error["param"] == "after_position"


def test_paths_and_methods():
    with World() as w:
        missing = w.get("/nope")
        assert missing.status == 404 and missing.error["code"] == "not_found"
        for path in ("/", "/api/v1/jobs/", "/api/v1/jobs/a/b", "/api/v1/keys", "//healthz"):
            assert w.get(path).status == 404, path
        reply = w.request("PUT", "/api/v1/jobs")
        assert reply.status == 405 and reply.error["code"] == "method_not_allowed"
        assert reply.headers["Allow"] == "GET, HEAD, POST"
        assert w.request("PATCH", "/api/v1/jobs/x").headers["Allow"] == "GET, HEAD, DELETE"
        head = w.request("HEAD", "/healthz")
        assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) > 0
        assert w.get("/api/v1/jobs/none").error["code"] == "not_found"


def test_unfinished_jobs_are_known_from_the_start():
    with World(config="limits: {queued_jobs: 3}\n") as w:
        for i in range(3):
            w.submit(id="u%d" % i, not_before=int(time.time() * 1000) + 3600000)
        assert w.metric("genq_jobs_unfinished") == 3
        w.stop()
        w.start()
        assert w.metric("genq_jobs_unfinished") == 3


def test_health_and_metrics():
    with World() as w:
        assert w.get("/healthz").json == {"status": "ok"}
        ready = w.get("/readyz")
        assert ready.status == 200 and ready.json["status"] == "ready", ready
        checks = ready.json["checks"]
        assert set(checks) == {"log", "engines", "disk"} and checks["engines"]["total"] == 1
        wait_for(lambda: w.get("/readyz").json["checks"]["engines"]["up"] == 1)
        w.finished(w.submit()["id"])
        # The log's numbers are told after the commit that ends a wait.
        wait_for(lambda: 'genq_topic_waiting{topic="genq.jobs.default.normal"} 0' in
                 w.get("/metrics").body.decode(), "the finished record's leave")
        reply = w.get("/metrics")
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = reply.body.decode()
        assert 'genq_job_events_total{event="succeed"} 1' in text, text
        assert w.metric("genq_jobs_submitted_total") == 1
        assert w.metric("genq_jobs_unfinished") == 0
        for line in text.splitlines():
            assert line.startswith("# ") or re.fullmatch(
                r'[a-z_]+(\{[a-z]+="[^"]*"\})? -?[0-9.e+]+', line), line
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names))


def test_ready_without_engine():
    with World(engines=["http://127.0.0.1:1"]) as w:
        ready = w.get("/readyz")
        assert ready.status == 200, ready
        assert ready.json["checks"]["engines"] == {"status": "degraded", "up": 0, "total": 1,
                                                   "slots": 0}, ready
        assert w.submit()["status"] == "queued"


def test_nodes():
    with World() as w:
        wait_for(lambda: w.get("/api/v1/nodes").json["data"][0]["models"])
        node = w.get("/api/v1/nodes").json["data"][0]
        assert all(m.startswith("stub") for m in node["models"]), node
        assert node["url"] == "http://127.0.0.1:%d" % w.stub_port and node["state"] == "up"
        assert w.get("/api/v1/nodes?x=1").status == 400


def test_usage():
    with World() as w:
        for i in range(4):
            w.finished(w.submit(tenant="u%d" % (i % 2), id="u%d" % i)["id"], "u%d" % (i % 2))
        rows = w.get("/api/v1/usage?group_by=tenant,model").json
        assert rows["object"] == "list"
        assert sorted(r["tenant"] for r in rows["data"]) == ["u0", "u1"], rows
        for row in rows["data"]:
            assert row["model"] == "stub" and row["calls"] == 2 and row["jobs"] == 2, row
            assert row["total_tokens"] == row["prompt_tokens"] + row["completion_tokens"] > 0
            assert row["wasted_tokens"] == 0
        assert len(w.get("/api/v1/usage?group_by=tenant&tenant=u1").json["data"]) == 1
        assert w.get("/api/v1/usage?group_by=day&to=2001-01-01T00:00:00Z").json["data"] == []
        table = w.get("/api/v1/usage?group_by=tenant&format=csv")
        assert table.headers["Content-Type"].startswith("text/csv")
        lines = table.body.decode().splitlines()
        assert lines[0].startswith("tenant,") and len(lines) == 3, lines
        for query, param in (("group_by=colour", "group_by"), ("format=xml", "format"),
                             ("from=x", "from"), ("colour=red", "colour")):
            reply = w.get("/api/v1/usage?" + query)
            assert reply.status == 400 and reply.error["param"] == param, reply


def test_openapi():
    with World() as w:
        spec = w.get("/openapi.json").json
        assert spec["openapi"].startswith("3.1")
        assert set(spec["paths"]["/api/v1/jobs/{id}"]) == {"get", "delete"}
        job = spec["components"]["schemas"]["Job"]["properties"]
        assert job["temperature"]["maximum"] == 2 and "webhook" not in job
        view = spec["components"]["schemas"]["JobView"]["properties"]
        assert set(view) == MEMBERS | {"position", "redrive_of"}, set(view) ^ MEMBERS
        for path, methods in spec["paths"].items():  # all are served
            for method in methods:
                reply = w.request(method.upper(), path.replace("{id}", "none"), limit_s=30) \
                    if not path.endswith("/events") else w.get("/api/v1/jobs/none/events")
                assert reply.status != 405, (method, path, reply)


def test_openapi_tells_the_arguments_that_are_taken():
    with World() as w:
        paths = w.get("/openapi.json").json["paths"]
        for path, methods in paths.items():
            for method, operation in methods.items():
                told = operation["parameters"]
                assert len({(p["in"], p["name"]) for p in told}) == len(told), (method, path)
                assert all("{%s}" % p["name"] in path for p in told if p["in"] == "path"), path
                if not path.startswith("/api/"):
                    continue
                query = [p["name"] for p in told if p["in"] == "query"]
                url = path.replace("{id}", "none") + "?"
                reply = w.request(method.upper(), url + "colour=red&Idempotency-Key=1", limit_s=30)
                assert (reply.status, reply.error["param"]) == (400, "colour"), (method, path, reply)
                for name in query:  # a value that is none: the argument is read, or a filter
                    reply = w.request(method.upper(), url + name + "=%21", limit_s=30)
                    if reply.status == 400:
                        assert "unknown" not in reply.error["message"], (method, path, reply)
        names = {p["name"] for p in paths["/api/v1/jobs"]["post"]["parameters"]}
        assert names == {"wait", "tenant", "Idempotency-Key"}, names


def test_survives_a_kill():
    with World(stub=["--latency-ms", "300"]) as w:
        ids = [w.submit()["id"] for _ in range(20)]
        w.stop(9)
        w.start()
        for job_id in ids:
            assert w.finished(job_id)["status"] == "succeeded"


run(globals())
