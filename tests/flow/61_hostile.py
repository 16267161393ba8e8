"""What a hostile or broken client sends: an answer, or a closed connection; never harm."""
import json
import os
import resource
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import IS_SLOW, World, read_file, run, wait_for  # noqa: E402


def talk(w, data, limit_s=60, is_cut=True):
    """Sends bytes, and the end of them if is_cut; gives all that comes until the server closes."""
    with w.socket(limit_s) as s:
        try:
            s.sendall(data)
            if is_cut:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        out = b""
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    return out
                out += piece
        except OSError:
            return out


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(headers, body):
    return b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + \
        b"\r\n\r\n" + body


def test_bodies_that_are_no_jobs():
    deep = b'{"model":"stub","messages":' + b"[" * 100000 + b"]" * 100000 + b"}"
    bodies = [b"\x00", b"\xff\xfe", b'{"model":"stub","prompt":"\xff"}', deep, b"[" * 100000,
              b'{"model":"stub","prompt":"a\x00b"}', b'{"model":"stub","prompt":"a\\u0000b"}',
              b'{"model":"stub","prompt":"\\ud800"}', b'{"model":"stub","prompt":"p"', b"{}", b"[]",
              b'{"model":"stub","prompt":"p","options":' + b'{"a":' * 70 + b"1" + b"}" * 71,
              b'{"model":"stub","prompt":"p","seed":1e999}',
              b'{"model":"stub","prompt":"p","temperature":' + b"9" * 100000 + b"}",
              b'{"model":"stub","model":"stub","prompt":"p"}', b'"' + b"\\" * 99999,
              b'{"model":"%s","prompt":"p"}' % (b"m" * 257), b'{"model":"","prompt":"p"}',
              b'{"model":"stub","prompt":"p","id":"../../etc"}',
              b'{"model":"stub","prompt":"p","id":"a\\nb"}', b"\xef\xbb\xbf{}", b"NaN", b"-",
              json.dumps({"x" * 5000: 1}).encode()]
    with World() as w:
        for body in bodies:
            for sent in (body, b"[" + body + b"]"):
                reply = w.request("POST", "/api/v1/jobs", sent)
                assert reply.status in (400, 200), (sent[:80], reply)
                if reply.status == 200:
                    assert all("error" in item for item in reply.json["data"]), (sent[:80], reply)
                else:
                    assert reply.error["code"] == "invalid_request"
                json.loads(reply.body)
            assert w.request("POST", "/api/v1/batches", body).status in (201, 400), body[:80]
        assert w.get("/api/v1/jobs?status=succeeded").json["data"] == []
        assert w.finished(w.submit()["id"])["status"] == "succeeded"


def test_framing_that_smuggles_is_refused():
    body = b'{"model":"stub","prompt":"p"}'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with World() as w:
        for headers, data in (
                (b"Content-Length: %d\r\nTransfer-Encoding: chunked" % len(body), chunked),
                (b"Transfer-Encoding: chunked\r\nContent-Length: %d" % len(chunked), chunked),
                (b"Content-Length: %d\r\nContent-Length: 3" % len(body), body),
                (b"Content-Length: %d\r\ncontent-length: %d" % (len(body), len(body)), body),
                (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", chunked),
                (b"Content-Length: -1", body), (b"Content-Length: 1x", body),
                (b"Content-Length: 99999999999999999999999", body),
                (b"Transfer-Encoding: gzip", body)):
            answer = talk(w, post(headers, data), 1)
            assert status_of(answer) in (0, 400, 411, 413, 501), (headers, answer)
            assert b"HTTP/1.1 2" not in answer, answer
        assert w.get("/api/v1/jobs").json["data"] == []
        whole = post(b"Transfer-Encoding: chunked", chunked)
        assert status_of(talk(w, whole, is_cut=False)) == 201


def test_truncated_requests():
    whole = post(b"Content-Length: 29", b'{"model":"stub","prompt":"p"}')
    with World() as w:
        for n in range(0, len(whole) - 1, 7):
            assert status_of(talk(w, whole[:n], 0.3)) in (0, 400), n
        chunked = post(b"Transfer-Encoding: chunked", b'1d\r\n{"model":"stub","prompt":"p"}\r\n')
        assert status_of(talk(w, chunked, 0.3)) in (0, 400)
        assert w.get("/api/v1/jobs").json["data"] == []
        assert status_of(talk(w, whole, is_cut=False)) == 201


def test_garbage_instead_of_http():
    with World() as w:
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\r\n" * 1000,
                     b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 100000 + b" HTTP/1.1\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100000 + b"\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
                     b"GET /api/v1/jobs/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /api/v1/jobs/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /api/v1/jobs/..%2f..%2fetc HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /api/v1/jobs?model=%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET /api/v1/usage?group_by=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"POST /api/v1/jobs HTTP/1.0\r\n\r\n", os.urandom(5000)):
            talk(w, data, 1)
        assert w.get("/healthz").status == 200


def test_only_this_machine():
    with World() as w:
        for headers in ({"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"},
                        {"Host": "localhost.evil.example"}, {"Host": "[::1].evil.example"},
                        {"Origin": "http://evil.example"}, {"Origin": "null"},
                        {"Origin": "https://127.evil.example"}):
            reply = w.request("POST", "/api/v1/jobs", {"model": "stub", "prompt": "p"}, headers)
            assert reply.status == 403 and reply.error["code"] == "forbidden", (headers, reply)
        for headers in ({"Host": "localhost:7070"}, {"Host": "[::1]:80"}, {"Host": "127.0.0.1"},
                        {"Origin": "http://localhost:3000"}, {"Origin": "http://127.0.0.1"}):
            assert w.request("GET", "/healthz", None, headers).status == 200, headers
        assert w.get("/api/v1/jobs").json["data"] == []


def test_slow_senders_hold_up_nobody():
    with World() as w:
        slow = [w.socket(60) for _ in range(300)]
        for i, s in enumerate(slow):
            s.sendall((b"GET /healthz HTTP/1.1\r\nHost: lo", post(b"Content-Length: 1000", b"{"),
                       b"P")[i % 3])
        assert w.finished(w.submit()["id"])["status"] == "succeeded"
        for s in slow:  # each is closed in its time, which is half a minute
            try:
                while s.recv(4096):
                    pass
            except ConnectionError:
                pass
            s.close()


def test_refused_bodies_are_read_to_their_end():
    with World(config="limits: {body_bytes: 10000}\n") as w:
        for size in (20000, 1000000, 15000000):
            reply = w.request("POST", "/api/v1/jobs", b"x" * size)
            assert reply.status == 413, reply
        # Without a length it is counted; past 16 MiB the connection is closed.
        with w.socket() as s:
            s.sendall(b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(1000):
                    s.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                raise AssertionError("64 MiB were taken")
            except ConnectionError:
                pass


def test_ten_thousand_idle_connections():
    n = 1000 if IS_SLOW else 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n + 600:
        n = hard - 600
    resource.setrlimit(resource.RLIMIT_NOFILE, (n + 500, hard))
    with World(stub=["--latency-ms", "3000"]) as w:
        w.submit(id="i")
        idle = []
        for i in range(n):
            s = w.socket()
            if i % 2:
                s.sendall(b"GET /api/v1/jobs/i?wait=100s HTTP/1.1\r\nHost: localhost\r\n"
                          b"Connection: close\r\n\r\n")
            idle.append(s)
        reply = w.post("/api/v1/jobs?wait=60s", {"model": "stub", "prompt": "p"})
        assert reply.json["status"] == "succeeded", reply
        for s in idle[1::2]:
            with s.makefile("rb") as f:
                assert f.readline() == b"HTTP/1.1 200 OK\r\n"
        for line in read_file("/proc/%d/status" % w.genq.pid).splitlines():
            if line.startswith("VmRSS") and not IS_SLOW:
                assert int(line.split()[1]) < 512 * 1024, line
        for s in idle:
            s.close()
        wait_for(lambda: w.metric("genq_http_waiting") == 0)


def test_clients_that_leave_while_they_send():
    with World() as w:
        for i in range(60):
            with w.socket() as s:
                s.sendall(b"POST /api/v1/batches?id=l%d HTTP/1.1\r\nHost: localhost\r\n"
                          b"Content-Length: 100000\r\n\r\n" % i +
                          b'{"model":"stub","prompt":"p"}\n' * (i * 30))
        for _ in range(200):
            with w.socket() as s:
                s.sendall(post(b"Content-Length: 29", b'{"model":"stub","prompt":"p"}'))
        wait_for(lambda: w.metric("genq_jobs_unfinished") == 0)
        assert w.finished(w.submit()["id"])["status"] == "succeeded"


def cpu_s(pid):
    with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_waiters_that_leave_take_no_time():
    body = b'{"id":"slow","model":"stub","prompt":"p"}'
    with World(stub=["--latency-ms", "60000"]) as w:
        w.submit(id="slow", prompt="p")  # a POST also counts as waiting until its job is on disk
        waiters = []
        for request in (post(b"Content-Length: %d" % len(body), body).replace(b"jobs ", b"jobs?wait=60s "),
                        b"GET /api/v1/jobs/slow?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                        b"GET /api/v1/completions?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                        b"GET /api/v1/jobs/slow/events HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            for leaves in (socket.socket.close, lambda s: s.shutdown(socket.SHUT_WR)):
                s = w.socket()
                waiters.append((s, leaves))
                s.sendall(request)
                wait_for(lambda: w.metric("genq_http_waiting") == len(waiters), "the wait's begin")
        for s, leaves in waiters:
            leaves(s)
        wait_for(lambda: w.metric("genq_http_waiting") == 0, "word that they left")
        before = cpu_s(w.genq.pid)
        time.sleep(1)  # nothing is to happen in it
        assert cpu_s(w.genq.pid) - before < 0.5, cpu_s(w.genq.pid) - before
        for s, _ in waiters:
            s.close()


run(globals())
