"""Full means no: each limit's answer, and that nothing is taken that cannot be kept."""
import http.client
import json
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, World, run, wait_for  # noqa: E402

JOB = {"model": "stub", "prompt": "p"}


def test_body_too_large():
    with World(config="limits: {body_bytes: 2000}\n") as w:
        for size, status in ((1900, 201), (2100, 413), (1000000, 413)):
            body = json.dumps({**JOB, "prompt": "x" * (size - 40)})
            reply = w.post("/api/v1/jobs", body)
            assert reply.status == status, (size, reply)
            if status == 413:
                assert reply.error["code"] == "too_large", reply

            def chunks():
                for i in range(0, len(body), 700):
                    yield body[i:i + 700].encode()

            reply = w.request("POST", "/api/v1/jobs", chunks())
            assert reply.status == status, (size, reply)


def test_too_many_jobs_wait():
    with World(stub=["--latency-ms", "60000"], config="limits: {queued_jobs: 5}\n") as w:
        ids = [w.submit(id="q%d" % i)["id"] for i in range(5)]
        full = w.post("/api/v1/jobs", {**JOB, "id": "more"})
        assert full.status == 429, full
        assert full.json["error"]["code"] == "quota_exceeded" and full.json["id"] == "more", full
        assert full.json["error"]["type"] == "rate_limit_error"
        assert int(full.headers["Retry-After"]) >= 1
        assert w.get("/api/v1/jobs/more").status == 404
        repeat = w.post("/api/v1/jobs", {"model": "stub", "prompt": "hello", "id": "q1"})
        assert repeat.status == 200, repeat
        array = w.post("/api/v1/jobs", [{**JOB, "id": "a1"}, {**JOB, "id": "a2"}])
        assert array.status == 429 and array.json["ids"] == ["a1", "a2"], array
        assert w.get("/api/v1/jobs/a1").status == 404
        w.delete("/api/v1/jobs/" + ids[0])
        assert w.post("/api/v1/jobs", {**JOB, "id": "more"}).status == 201
        assert w.metric("genq_jobs_unfinished") == 5


def test_no_descriptors_are_left():
    """Connections that are there are answered, whichever thread has them; others once there is room."""
    with World() as w:
        w.finished(w.submit(id="j")["id"])
        open_ = [http.client.HTTPConnection("127.0.0.1", w.port, timeout=LIMIT_S) for _ in range(32)]
        for c in open_:  # an answer says that it was accepted
            c.request("GET", "/healthz")
            assert c.getresponse().read()
        pid = w.genq.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        for c in open_:
            c.request("GET", "/api/v1/jobs/j")
            reply = c.getresponse()
            assert reply.status == 200 and json.loads(reply.read())["id"] == "j", reply.status
            c.request("POST", "/api/v1/jobs", json.dumps(JOB))  # kept, until an engine can be called
            reply = c.getresponse()
            assert reply.status == 201 and reply.read()
        w.genq.check()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for c in open_:
            c.close()
        wait_for(lambda: w.metric("genq_jobs_unfinished") == 0, "the jobs to end")


def test_a_batch_past_the_limit_can_be_repeated():
    body = "".join('{"model":"stub","prompt":"%d"}\n' % i for i in range(1500))
    with World(stub=["--latency-ms", "60000"], config="limits: {queued_jobs: 1000}\n") as w:
        full = w.post("/api/v1/batches?id=b", body)
        assert full.status == 429, full
        assert full.json["error"]["code"] == "quota_exceeded", full
        accepted = full.json["accepted"]
        assert 0 <= accepted <= 1000 and full.headers["Retry-After"], full
        batch = w.get("/api/v1/batches/b").json
        assert batch["status"] == "receiving" and batch["total"] == accepted, (batch, accepted)
        w.latency(0)
        for i in range(accepted):
            w.delete("/api/v1/jobs/b-%d" % i)

        def repeated():
            reply = w.post("/api/v1/batches?id=b", body)
            assert reply.status in (200, 429), reply
            return reply.status == 200

        wait_for(repeated, "room for all of it")
        assert w.get("/api/v1/batches/b").json["total"] == 1500


def test_disk_full():
    with World(config="limits: {disk_free_bytes: 1099511627776}\n") as w:
        for path, body in (("/api/v1/jobs", json.dumps(JOB)), ("/api/v1/jobs", json.dumps([JOB])),
                           ("/api/v1/batches", json.dumps(JOB))):
            full = w.post(path, body)
            assert full.status == 503 and full.error["code"] == "unavailable", full
            assert int(full.headers["Retry-After"]) >= 1
        ready = w.get("/readyz")
        assert ready.status == 503 and ready.json["status"] == "not_ready", ready
        assert ready.json["checks"]["disk"]["status"] == "fault"
        assert ready.json["checks"]["log"]["status"] == "ok"
        assert w.get("/healthz").status == 200
        assert w.get("/api/v1/jobs").json["data"] == []


def test_connections_past_the_limit_wait_their_turn():
    with World(config="limits: {connections: 16}\n") as w:
        sockets = [w.socket() for _ in range(40)]
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for s in sockets:
            s.sendall(request)
        for s in sockets:
            with s, s.makefile("rb") as f:
                assert f.readline() in (b"HTTP/1.1 200 OK\r\n", b""), "served, or told no"
        assert w.get("/healthz").status == 200


run(globals())
