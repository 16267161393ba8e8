"""The completion feed, polled and streamed: no loss, no repeat."""
import os
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, World, run, wait_for  # noqa: E402


def read_all(w, query="", limit=100):
    """All pages from the start: ids, and the last cursor."""
    ids, after, more = [], "", True
    while more:
        page = w.get("/api/v1/completions?limit=%d%s%s" % (limit, query, after)).json
        ids += [job["id"] for job in page["data"]]
        after, more = "&after=%s" % page["next"], page["has_more"]
    return ids, page["next"]


def test_pages():
    with World() as w:
        for i in range(30):
            w.submit(id="p%d" % i, batch_id="b%d" % (i % 3), tenant="t%d" % (i % 2))
        for i in range(30):
            w.finished("p%d" % i, "t%d" % (i % 2))
        ids, end = read_all(w, limit=7)
        assert sorted(ids) == sorted("p%d" % i for i in range(30)) and len(ids) == 30
        assert read_all(w)[0] == ids
        assert sorted(read_all(w, "&batch_id=b1")[0]) == sorted("p%d" % i for i in range(1, 30, 3))
        assert read_all(w, "&batch_id=b1&tenant=t0", 1)[0] == [
            i for i in ids if i in {"p4", "p10", "p16", "p22", "p28"}]
        empty = w.get("/api/v1/completions?after=%s" % end).json
        assert empty == {"object": "list", "data": [], "has_more": False, "next": end}
        assert w.get("/api/v1/completions?after=latest").json["next"] == end
        for query in ("after=%d" % (end + 1), "after=x", "after=-1", "limit=0", "limit=1001",
                      "batch_id=a%20b", "tenant=%2F", "colour=red"):
            reply = w.get("/api/v1/completions?" + query)
            assert reply.status == 400, (query, reply)
            assert reply.error["param"] == query.partition("=")[0], (query, reply)


def test_wait_ends_with_the_next_completion():
    with World(stub=["--latency-ms", "300"]) as w:
        started = time.monotonic()
        late = w.get("/api/v1/completions?wait=200ms").json
        assert late["data"] == [] and 0.19 < time.monotonic() - started < 20
        pages = []
        waiter = threading.Thread(target=lambda: pages.append(
            w.get("/api/v1/completions?wait=60s&batch_id=mine&after=%s" % late["next"]).json))
        waiter.start()
        wait_for(lambda: w.metric("genq_http_waiting") == 1)
        w.finished(w.submit(batch_id="other")["id"])
        assert not pages
        job = w.submit(batch_id="mine")
        waiter.join(LIMIT_S)
        assert [j["id"] for j in pages[0]["data"]] == [job["id"]], pages
        assert pages[0]["next"] == 2


def test_stream_resumes_without_loss_or_repeat():
    with World() as w:
        n, seen, last = 300, [], None
        poster = threading.Thread(target=lambda: [w.submit(id="s%d" % i) for i in range(n)])
        first = w.events("/api/v1/completions/events?after=0")
        assert first.response.headers["Content-Type"].startswith("text/event-stream")
        poster.start()
        events = first
        while len(seen) < n:
            event = next(events)
            if "comment" in event:
                continue
            assert event["event"] == "completion"
            seen.append(event["data"]["id"])
            last = event["id"]
            if len(seen) % 37 == 0:  # a broken connection
                events.close()
                events = w.events("/api/v1/completions/events?after=0", {"Last-Event-ID": last})
        events.close()
        poster.join()
        assert seen == read_all(w)[0] and len(set(seen)) == n
        assert int(last) == read_all(w)[1]


def test_stream_starts_at_the_end_and_filters():
    with World() as w:
        w.finished(w.submit(id="old")["id"])
        with w.events("/api/v1/completions/events") as events, \
                w.events("/api/v1/completions/events?batch_id=b") as of_batch, \
                w.events("/api/v1/completions/events?tenant=t") as of_tenant:
            wait_for(lambda: w.metric("genq_http_waiting") == 3)
            w.finished(w.submit(id="n1")["id"])
            w.finished(w.submit(id="n2", batch_id="b")["id"])
            w.finished(w.submit(id="n3", tenant="t")["id"], "t")
            assert [next(events)["data"]["id"] for _ in range(3)] == ["n1", "n2", "n3"]
            assert next(of_batch)["data"]["id"] == "n2"
            assert next(of_tenant)["data"]["id"] == "n3"
        for bad in ("x", "-1", "9999"):
            with w.events("/api/v1/completions/events", {"Last-Event-ID": bad}) as events:
                assert events.status == 400, bad


def test_cursor_of_what_retention_took_is_gone():
    with World() as w:
        for i in range(6):
            w.finished(w.submit(id="r%d" % i)["id"])
        w.stop()
        db = sqlite3.connect(os.path.join(w.data, "genq.db"))
        db.execute("UPDATE fact SET value=4 WHERE name='oldest'")
        db.execute('DELETE FROM "genq.completions" WHERE off<4')
        db.commit()
        db.close()
        w.start()
        for path in ("/api/v1/completions?after=3", "/api/v1/completions/events?after=0"):
            reply = w.get(path)
            assert reply.status == 410 and reply.json["error"]["code"] == "cursor_expired", reply
            assert reply.json["oldest"] == 4
        assert read_all(w)[0] == ["r4", "r5"]
        assert [j["id"] for j in w.get("/api/v1/completions?after=4").json["data"]] == ["r4", "r5"]


def test_feed_is_the_same_after_a_kill():
    with World(stub=["--latency-ms", "20"]) as w:
        ids = [w.submit()["id"] for _ in range(20)]
        for job_id in ids[:10]:
            w.finished(job_id)
        before, cursor = read_all(w)
        w.stop(9)
        w.start()
        for job_id in ids:
            w.finished(job_id)
        after, _ = read_all(w)
        assert after[:len(before)] == before and sorted(after) == sorted(ids)
        rest = w.get("/api/v1/completions?after=%d" % cursor).json
        assert before + [j["id"] for j in rest["data"]] == after


run(globals())
