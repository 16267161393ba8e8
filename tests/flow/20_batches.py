"""Batches: JSONL in, results out; repeats, cuts, wrong lines, cancelling, memory."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import IS_SLOW, World, read_file, run, wait_for  # noqa: E402


def lines_of(n, prompt="p%d", **more):
    return "".join(json.dumps({"model": "stub", "prompt": prompt % i, **more}) + "\n"
                   for i in range(n))


def done(w, batch_id, status="done"):
    def look():
        batch = w.get("/api/v1/batches/" + batch_id).json
        return batch if batch["status"] == status and not batch["counts"]["queued"] else None
    return wait_for(look, "the batch to be " + status)


def results(w, batch_id, query=""):
    reply = w.get("/api/v1/batches/%s/results%s" % (batch_id, query))
    assert reply.status == 200, reply
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in reply.body.decode().splitlines()]


def test_batch_from_upload_to_results():
    with World(stub=["--latency-ms", "10", "--jitter-ms", "20"]) as w:
        reply = w.post("/api/v1/batches?id=b", lines_of(1000), Content_Type="application/x-ndjson")
        assert reply.status == 201, reply
        assert reply.json["id"] == "b" and reply.json["object"] == "batch"
        assert reply.json["total"] == 1000 and reply.json["refused"] == 0
        assert reply.json["errors"] == []
        batch = done(w, "b")
        assert batch["counts"] == {"queued": 0, "succeeded": 1000, "failed": 0, "cancelled": 0,
                                   "expired": 0}, batch
        assert batch["usage"]["total_tokens"] > 0 and batch["finished_at"] >= batch["created_at"]
        jobs = results(w, "b")
        assert [j["id"] for j in jobs] == ["b-%d" % i for i in range(1000)]
        assert [j["output"]["text"] for j in jobs] == ["echo: p%d" % i for i in range(1000)]
        assert [j["batch_line"] for j in jobs] == list(range(1000))
        assert all(j["batch_id"] == "b" for j in jobs)
        completed = results(w, "b", "?order=completed")
        feed = w.get("/api/v1/completions?limit=1000&batch_id=b").json["data"]
        assert [j["id"] for j in completed] == [j["id"] for j in feed]
        assert results(w, "b", "?order=input") == jobs
        assert w.get("/api/v1/batches/b/results?order=x").error["param"] == "order"
        assert w.get("/api/v1/batches/none/results").status == 404
        assert w.get("/api/v1/batches/none").status == 404
        assert w.get("/api/v1/batches/b?tenant=other").status == 404


def test_list():
    with World() as w:
        for i in range(5):
            w.post("/api/v1/batches?id=l%d&tenant=t%d" % (i, i % 2), lines_of(2))
        page = w.get("/api/v1/batches?limit=3").json
        assert [b["id"] for b in page["data"]] == ["l4", "l3", "l2"] and page["has_more"]
        page = w.get("/api/v1/batches?limit=3&after=%s" % page["next"]).json
        assert [b["id"] for b in page["data"]] == ["l1", "l0"] and not page["has_more"]
        assert [b["id"] for b in w.get("/api/v1/batches?tenant=t1").json["data"]] == ["l3", "l1"]
        assert w.get("/api/v1/batches?colour=red").error["param"] == "colour"


def test_names():
    with World() as w:
        first = w.post("/api/v1/batches", lines_of(1)).json
        assert len(first["id"]) == 26
        named = w.post("/api/v1/batches", lines_of(1), Idempotency_Key="key-1").json
        assert named["id"] == "key-1"
        for bad in ("a%20b", "x" * 53, ""):
            reply = w.post("/api/v1/batches?id=" + bad, lines_of(1))
            assert reply.status == 400 and reply.error["param"] == "id", reply
        for body in ("", "\n \r\n\n"):
            assert w.post("/api/v1/batches?id=empty", body).status == 400
        assert w.get("/api/v1/batches/empty").status == 404


def test_all_forms_of_lines():
    with World() as w:
        body = '{"model":"stub","prompt":"a"}\r\n\n' \
               '  {"model":"stub","messages":[{"role":"user","content":"b"}],"custom_id":"c1"}\n' \
               '{"custom_id":"c2","method":"POST","url":"/v1/chat/completions","body":' \
               '{"model":"stub","messages":[{"role":"user","content":"d"}]}}\n' \
               '{"model":"stub","prompt":"own","id":"own-1","tenant":"default"}\n' \
               '{"model":"stub","prompt":"last without newline"}'
        reply = w.post("/api/v1/batches?id=f", body)
        assert reply.status == 201 and reply.json["refused"] == 0, reply
        assert reply.json["total"] == 5
        done(w, "f")
        out = results(w, "f")
        assert out[0]["output"]["text"] == "echo: a" and out[0]["id"] == "f-0"
        assert out[1]["custom_id"] == "c1"
        assert out[2]["custom_id"] == "c2" and out[2]["error"] is None, out[2]
        content = out[2]["response"]["body"]["choices"][0]["message"]["content"]
        assert out[2]["response"]["status_code"] == 200 and content == "echo: d", out[2]
        assert out[3]["id"] == "own-1"
        assert out[4]["output"]["text"].startswith("echo: last without")


def test_wrong_lines_fail_and_others_run():
    with World(config="limits: {body_bytes: 4096}\n") as w:
        good = '{"model":"stub","prompt":"good"}\n'
        wrong = ["{\n", '{"prompt":"no model"}\n', '{"model":"stub","prompt":"p","colour":1}\n',
                 '{"model":"stub","prompt":"%s"}\n' % ("x" * 5000), "[1]\n",
                 '{"model":"stub","prompt":"p","batch_id":"other"}\n',
                 '{"model":"stub","prompt":"p","tenant":"other"}\n',
                 '{"model":"stub","prompt":"p","queue":"none"}\n', "\u00ff\n".encode("latin-1"),
                 '{"custom_id":"c9","method":"POST","url":"/v1/nope","body":{"model":"stub"}}\n',
                 '{"model":"stub","prompt":"\\u0000"}\n', '{"a":' * 70 + "1" + "}" * 70 + "\n"]
        body = good.encode()
        for line in wrong:
            body += (line if isinstance(line, bytes) else line.encode()) + good.encode()
        n = 2 * len(wrong) + 1
        reply = w.post("/api/v1/batches?id=w", body)
        assert reply.status == 201, reply
        assert reply.json["total"] == n and reply.json["refused"] == len(wrong), reply
        assert [e["line"] for e in reply.json["errors"]] == list(range(2, 22, 2)), reply
        assert reply.json["errors"][1]["id"] == "w-3"
        assert reply.json["errors"][1]["message"] == "line 4: 'model' is missing", reply
        batch = done(w, "w")
        assert batch["counts"]["failed"] == len(wrong), batch
        assert batch["counts"]["succeeded"] == len(wrong) + 1, batch
        out = results(w, "w")
        assert len(out) == n
        for i, job in enumerate(out):
            if "response" in job:
                assert job["custom_id"] == "c9" and job["error"]["code"] == "invalid_request", job
                continue
            assert job["id"] == "w-%d" % i
            if i % 2:
                assert job["status"] == "failed" and job["error"]["code"] == "invalid_request"
                assert job["error"]["message"].startswith("line %d: " % (i + 1)), job
            else:
                assert job["status"] == "succeeded", job


def test_repeat_adds_only_what_is_missing():
    with World(stub=["--latency-ms", "1"]) as w:
        body = lines_of(4000)
        # A client that dies in the middle of a line.
        s = w.socket()
        half = body.encode()[:len(body) // 2 - 5]
        s.sendall(b"POST /api/v1/batches?id=r HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body))
        s.sendall(half)
        wait_for(lambda: w.get("/api/v1/batches/r").status == 200 and
                 w.get("/api/v1/batches/r").json["total"] >= 256)
        s.close()
        wait_for(lambda: w.metric("genq_jobs_unfinished") == 0)
        cut = w.get("/api/v1/batches/r").json
        assert cut["status"] == "receiving" and 256 <= cut["total"] <= half.count(b"\n"), cut
        again = w.post("/api/v1/batches?id=r", body)
        assert again.status == 200 and again.json["total"] == 4000, again
        assert done(w, "r")["counts"]["succeeded"] == 4000
        assert w.post("/api/v1/batches?id=r", body).status == 200
        assert [j["id"] for j in results(w, "r")] == ["r-%d" % i for i in range(4000)]
        assert len(w.stub_events("sent")) == 4000
        other = w.post("/api/v1/batches?id=r", lines_of(1, "q%d"))
        assert other.status == 200 and other.json["refused"] == 1, other
        assert "another job" in other.json["errors"][0]["message"]


def test_a_wrong_repeat_does_no_harm():
    with World(stub=["--latency-ms", "300"]) as w:
        w.post("/api/v1/batches?id=h", lines_of(1))
        again = w.post("/api/v1/batches?id=h", '{"prompt":"no model"}\n')
        assert again.status == 200 and again.json["refused"] == 1, again
        assert done(w, "h")["counts"]["succeeded"] == 1


def test_unfinished_lines_are_left_out():
    with World(stub=["--latency-ms", "0"]) as w:
        w.faults("kind=hang,match=stuck")
        w.post("/api/v1/batches?id=u", '{"model":"stub","prompt":"stuck"}\n' + lines_of(3))
        wait_for(lambda: w.get("/api/v1/batches/u").json["counts"]["succeeded"] == 3)
        assert [j["id"] for j in results(w, "u")] == ["u-1", "u-2", "u-3"]
        assert w.get("/api/v1/batches/u").json["status"] == "running"
        w.delete("/api/v1/batches/u")
        assert [j["status"] for j in results(w, "u")] == ["cancelled"] + ["succeeded"] * 3


def test_cancel():
    with World(stub=["--latency-ms", "60000", "--slots", "2"]) as w:
        n = 1300
        w.post("/api/v1/batches?id=c", lines_of(n))
        wait_for(lambda: w.stub_events("recv"), "a call to start")
        reply = w.delete("/api/v1/batches/c")
        assert reply.status == 202 and reply.json["status"] == "cancelled", reply
        assert reply.json["counts"]["cancelled"] == n, reply
        wait_for(lambda: w.stub_events("abort"), "the calls to be aborted")
        assert w.metric("genq_jobs_unfinished") == 0
        assert w.delete("/api/v1/batches/c").status == 202
        assert w.delete("/api/v1/batches/none").status == 404
        again = w.post("/api/v1/batches?id=c", lines_of(n))
        assert again.status == 409 and again.json["error"]["code"] == "batch_cancelled", again


def memory_kib(pid):
    for line in read_file("/proc/%d/status" % pid).splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])


def test_memory_does_not_grow_with_the_body():
    n = 5000 if IS_SLOW else 60000
    line = json.dumps({"model": "stub", "prompt": "x" * 2500}).encode() + b"\n"
    with World(engines=["http://127.0.0.1:1"], config="worker: {prefetch: 1000}\n") as w:
        w.post("/api/v1/batches?id=warm", line * 3000)
        before = memory_kib(w.genq.pid)
        s = w.socket(120)
        s.sendall(b"POST /api/v1/batches?id=big HTTP/1.1\r\nHost: localhost\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        block = line * 100
        for _ in range(n // 100):
            s.sendall(b"%x\r\n%s\r\n" % (len(block), block))
        s.sendall(b"0\r\n\r\n")
        with s, s.makefile("rb") as f:
            assert f.readline().startswith(b"HTTP/1.1 201"), "the batch is kept"
        grown = memory_kib(w.genq.pid) - before
        assert w.get("/api/v1/batches/big").json["total"] == n
        assert IS_SLOW or grown < 64 * 1024, "%d KiB for %d MiB" % (grown, n * len(line) >> 20)


def test_a_slow_client_is_served():
    with World() as w:
        s = w.socket()
        s.sendall(b"POST /api/v1/batches?id=s HTTP/1.1\r\nHost: localhost\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        for i in range(3):
            line = lines_of(1, "slow %d").encode()
            s.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            wait_for(lambda: w.get("/api/v1/batches/s").status == 200 and
                     w.get("/api/v1/batches/s").json["total"] >= i)
        s.sendall(b"0\r\n\r\n")
        with s, s.makefile("rb") as f:
            assert f.readline().startswith(b"HTTP/1.1 201")
        assert done(w, "s")["counts"]["succeeded"] == 3


def test_a_kill_during_the_upload():
    with World(stub=["--latency-ms", "2"]) as w:
        body = lines_of(3000)
        s = w.socket()
        s.sendall(b"POST /api/v1/batches?id=k HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body.encode()[:len(body) // 2])
        wait_for(lambda: w.get("/api/v1/batches/k").status == 200)
        w.stop(9)
        s.close()
        w.start()
        assert w.post("/api/v1/batches?id=k", body).status == 200
        assert done(w, "k")["counts"]["succeeded"] == 3000
        assert [j["id"] for j in results(w, "k")] == ["k-%d" % i for i in range(3000)]


run(globals())
