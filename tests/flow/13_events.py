"""One job as server-sent events."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import OneSlot, World, run, wait_for  # noqa: E402


def text_of(events):
    """The text of the last attempt, as a client puts it together."""
    text = ""
    for event in events:
        if event.get("event") == "restart":
            text = ""
        if event.get("event") == "delta":
            text += event["data"]["text"]
    return text


def test_stream_from_first_token_to_completion():
    with OneSlot(stub=["--tokens", "6"]) as w:
        w.block()
        w.submit(id="e", prompt="one two three four", stream=True)
        with w.events("/api/v1/jobs/e/events") as stream:
            w.latency(1500)
            w.release()
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            assert stream.response.headers["Cache-Control"] == "no-cache"
            events = list(stream)
        kinds = [e["event"] for e in events]
        assert kinds[0] == "status" and kinds[-1] == "completion", kinds
        assert kinds.count("completion") == 1 and kinds.count("delta") >= 2, kinds
        done = events[-1]["data"]
        assert done["status"] == "succeeded" and text_of(events) == done["output"]["text"], events
        running = [e for e in events if e["event"] == "status"][-1]["data"]
        assert running == {"status": "running", "attempt": 1, "node": done["node"]}, running
        ids = [int(e["id"]) for e in events if "id" in e]
        assert ids == sorted(set(ids))
        for e in events:
            if e["event"] == "delta":
                assert e["data"]["attempt"] == 1 and e["data"]["seq"] == int(e["id"])


def test_late_joiner_and_resumer_get_all():
    with World(stub=["--latency-ms", "6000", "--tokens", "10"]) as w:
        w.submit(id="l", prompt="one two three four", stream=True)
        early = w.events("/api/v1/jobs/l/events")
        first = []
        while sum(e.get("event") == "delta" for e in first) < 3:
            first.append(next(early))
        late = w.events("/api/v1/jobs/l/events")
        resumed = w.events("/api/v1/jobs/l/events", {"Last-Event-ID": first[-1]["id"]})
        early.close()
        late_events, resumed_events = list(late), list(resumed)
        text = late_events[-1]["data"]["output"]["text"]
        assert text_of(late_events) == text, late_events
        assert text_of(first + resumed_events) == text, resumed_events
        assert int(resumed_events[0]["id"]) == int(first[-1]["id"]) + 1


def test_queued_and_ended_jobs():
    with World(stub=["--latency-ms", "400", "--slots", "1"]) as w:
        w.submit(id="q0")
        later = int(time.time() * 1000) + 3000
        w.submit(id="q1", not_before=later)
        with w.events("/api/v1/jobs/q1/events") as stream:
            first = next(stream)
            assert first["event"] == "status" and first["data"]["status"] == "scheduled", first
            assert list(stream)[-1]["data"]["status"] == "succeeded"

        def alone():
            """What came before the end is kept while somebody still listens: the first stream, a moment."""
            with w.events("/api/v1/jobs/q1/events") as stream:
                events = list(stream)
            assert events[-1]["event"] == "completion", events
            return events if len(events) == 1 else None
        assert wait_for(alone, "the end alone")[0]["data"] == w.get("/api/v1/jobs/q1").json
        assert w.get("/api/v1/jobs/none/events").status == 404
        with w.events("/api/v1/jobs/q1/events", {"Last-Event-ID": "x"}) as stream:
            assert stream.status == 400


def test_a_new_attempt_restarts():
    with OneSlot("retry: {base_ms: 10, cap_ms: 20}\n", stub=["--tokens", "8"]) as w:
        w.block()
        w.faults("kind=midstream_error,times=1")
        w.submit(id="r", prompt="one two three four five", stream=True)
        with w.events("/api/v1/jobs/r/events") as stream:
            w.latency(400)
            w.release()
            events = list(stream)
        kinds = [e["event"] for e in events]
        done = events[-1]["data"]
        assert done["status"] == "succeeded" and done["attempts"] == 2, done
        assert "restart" in kinds, kinds
        restart = kinds.index("restart")
        assert events[restart]["data"]["attempt"] == 2
        assert all(e["data"]["attempt"] == 2 for e in events[restart:] if e["event"] == "delta")
        assert text_of(events) == done["output"]["text"]


def test_cancel_ends_the_stream():
    with World(stub=["--latency-ms", "30000"]) as w:
        w.submit(id="c", stream=True)
        with w.events("/api/v1/jobs/c/events") as stream:
            wait_for(lambda: w.get("/api/v1/jobs/c").json["status"] == "running")
            w.delete("/api/v1/jobs/c")
            assert list(stream)[-1]["data"]["status"] == "cancelled"


def test_heartbeat():
    with World(stub=["--latency-ms", "60000"]) as w:
        w.submit(id="h")
        with w.events("/api/v1/jobs/h/events") as job, w.events("/api/v1/completions/events") as feed:
            assert next(feed) == {"comment": "heartbeat"}
            event = next(job)
            while "event" in event:
                event = next(job)
            assert event == {"comment": "heartbeat"}
        w.delete("/api/v1/jobs/h")


run(globals())
