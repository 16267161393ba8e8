"""Waiting for a job's end: POST and GET with ?wait."""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, World, run, wait_for  # noqa: E402


def test_post_waits_for_the_result():
    with World(stub=["--latency-ms", "300"]) as w:
        started = time.monotonic()
        reply = w.post("/api/v1/jobs?wait=30s", {"model": "stub", "prompt": "hi"})
        took = time.monotonic() - started
        assert reply.status == 201 and reply.json["status"] == "succeeded", reply
        assert reply.json["output"]["text"] == "echo: hi" and reply.json["position"]
        assert 0.25 < took < 25, took
        again = w.post("/api/v1/jobs?wait=30s",
                       {"model": "stub", "prompt": "hi", "id": reply.json["id"]})
        assert again.status == 200 and again.json["status"] == "succeeded", again


def test_post_gives_the_unfinished_job_when_time_is_up():
    with World(stub=["--latency-ms", "20000"]) as w:
        started = time.monotonic()
        reply = w.post("/api/v1/jobs?wait=300ms", {"model": "stub", "prompt": "hi"})
        took = time.monotonic() - started
        assert reply.status == 201 and reply.json["finished_at"] is None, reply
        assert 0.29 < took < 15, took


def test_get_waits():
    with World(stub=["--latency-ms", "60000"]) as w:
        job = w.submit(prompt="key=long")
        started = time.monotonic()
        early = w.get("/api/v1/jobs/%s?wait=50ms" % job["id"])
        assert early.json["finished_at"] is None and 0.04 < time.monotonic() - started < 30
        wait_for(lambda: w.stub_events("recv"), "the long one at the engine")
        w.latency(300)
        job = w.submit()
        assert w.get("/api/v1/jobs/%s?wait=30" % job["id"]).json["status"] == "succeeded"
        assert w.get("/api/v1/jobs/none?wait=30s").status == 404


def test_wrong_waits_are_refused():
    with World() as w:
        job_id = w.submit()["id"]
        for wait in ("", "soon", "-1s", "121s", "3h", "1e9", "99999999999999999999"):
            for reply in (w.get("/api/v1/jobs/%s?wait=%s" % (job_id, wait)),
                          w.post("/api/v1/jobs?wait=" + wait, {"model": "stub", "prompt": "p"}),
                          w.get("/api/v1/completions?wait=" + wait)):
                assert reply.status == 400 and reply.error["param"] == "wait", (wait, reply)


def test_cancel_wakes_those_that_wait():
    with World(stub=["--latency-ms", "20000"]) as w:
        w.submit(id="c")
        replies = []
        waiter = threading.Thread(
            target=lambda: replies.append(w.get("/api/v1/jobs/c?wait=60s").json))
        waiter.start()
        wait_for(lambda: w.metric("genq_http_waiting") == 1)
        w.delete("/api/v1/jobs/c")
        waiter.join(LIMIT_S)
        assert replies and replies[0]["status"] == "cancelled", replies


def test_many_wait_for_one_job():
    with World(stub=["--latency-ms", "2000"]) as w:
        w.submit(id="m")
        sockets = [w.socket() for _ in range(500)]
        for s in sockets:
            s.sendall(b"GET /api/v1/jobs/m?wait=60s HTTP/1.1\r\nHost: localhost\r\n"
                      b"Connection: close\r\n\r\n")
        for s in sockets:
            with s, s.makefile("rb") as f:
                assert b'"status":"succeeded"' in f.read()
        wait_for(lambda: w.metric("genq_http_waiting") == 0)


def test_clients_that_leave_are_let_go():
    with World(stub=["--latency-ms", "60000"]) as w:
        w.submit(id="g")
        sockets = [w.socket() for _ in range(200)]
        for i, s in enumerate(sockets):
            path = ("/api/v1/jobs/g?wait=120s", "/api/v1/completions?wait=120s",
                    "/api/v1/jobs/g/events", "/api/v1/completions/events")[i % 4]
            s.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        wait_for(lambda: w.metric("genq_http_waiting") == 200)
        for s in sockets:
            s.close()
        wait_for(lambda: w.metric("genq_http_waiting") == 0)
        # Those who leave before their job is known leave it in the queue all the same.
        s = w.socket()
        body = b'{"model":"stub","prompt":"p","id":"left"}'
        s.sendall(b"POST /api/v1/jobs?wait=100s HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for(lambda: w.get("/api/v1/jobs/left").status == 200)
        s.close()
        wait_for(lambda: w.metric("genq_http_waiting") == 0)


def test_stopping_answers_those_that_wait():
    with World(stub=["--latency-ms", "60000"]) as w:
        w.submit(id="s")
        s = w.socket()
        s.sendall(b"GET /api/v1/completions?wait=100s&after=latest HTTP/1.1\r\n"
                  b"Host: localhost\r\nConnection: close\r\n\r\n")
        wait_for(lambda: w.metric("genq_http_waiting") == 1)
        w.stop()
        with s, s.makefile("rb") as f:
            assert f.readline().startswith(b"HTTP/1.1 200"), "an answer, not a cut"


run(globals())
