"""What runs now, and its tokens as they come, at gateways that run nothing: real Kafka, real Redis."""
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from distributed import Distributed, Member  # noqa: E402
from genq import Process, read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402

KAFKA = KafkaCluster()
PROMPT = "one two three four five six seven eight nine"  # the stub echoes 40 characters of it


class Live(Distributed):
    """Gateways and workers on Kafka, with a Redis of their own (or none)."""
    n = 0

    def __init__(self, has_redis=True, config="", user="", **options):
        Live.n += 1
        self.redis = RedisServer(**({"user": "genq on >secret " + user} if user else {})) if has_redis else None
        if has_redis:
            self.redis.start()
            url = self.redis.url.replace("//", "//genq:secret@") if user else self.redis.url
            config += 'redis: {url: "%s"}\n' % url
        options.setdefault("stub", ["--latency-ms", "3000", "--tokens", "20"])
        options.setdefault("gateways", 2)
        super().__init__(KAFKA, prefix="live%d" % Live.n, config=config, **options)

    def __exit__(self, *reason):
        try:
            super().__exit__(*reason)
        finally:
            if self.redis:
                self.redis.__exit__()

    def hash(self, job_id):
        lines = self.redis.cli("HGETALL", "genq:job:default/" + job_id).split("\n")
        return dict(zip(lines[::2], lines[1::2]))

    def shows(self, gateway, job_id, status, limit_s=60):
        """The job, once that gateway says so."""
        def look():
            job = gateway.get("/api/v1/jobs/" + job_id)
            return job.status == 200 and job.json["status"] == status and job.json
        return wait_for(look, "%s to be %s at %s" % (job_id, status, gateway.name), limit_s)

    def known(self, gateway, job_id):
        wait_for(lambda: gateway.get("/api/v1/jobs/" + job_id).status == 200)


def watch(gateway, job_id, headers=None):
    return gateway.events("/api/v1/jobs/%s/events" % job_id, headers)


def text_of(events):
    """The text of the last attempt, as a client puts it together."""
    text = ""
    for e in events:
        if e.get("event") == "restart":
            text = ""
        if e.get("event") == "delta":
            text += e["data"]["text"]
    return text


def count(events, kind):
    return sum(e.get("event") == kind for e in events)


def until(stream, n, kind="delta"):
    """The next events, up to the n-th of that kind."""
    events = []
    while count(events, kind) < n:
        events.append(next(stream))
    return events


def check_whole(events, is_all=True):
    """Status first, each event once and in order, the end last; its text begins with the deltas'. The last
    of these may still be on their way when the completion comes over Kafka."""
    ids = [int(e["id"]) for e in events if "id" in e]
    assert ids == sorted(set(ids)), ids
    assert events[-1]["event"] == "completion" and count(events, "completion") == 1, events
    done = events[-1]["data"]
    assert done["status"] == "succeeded", done
    text = text_of(events)
    assert done["output"]["text"].startswith(text), (text, done)
    assert text or not is_all, events
    return done


def test_tokens_come_to_other_gateways_and_to_late_joiners():
    with Live() as d:
        one, two = d.gateways
        one.submit(id="a", prompt=PROMPT, stream=True)
        d.known(two, "a")
        early, here = watch(two, "a"), watch(one, "a")
        events = until(early, 6)
        late = watch(two, "a")  # to a stream that this gateway has
        other = until(here, 6)  # at the gateway that took the job in
        sixth = events[-1]["id"]
        resumed = watch(one, "a", {"Last-Event-ID": sixth})
        late_events, events = list(late), events + list(early)
        other, resumed_events = other + list(here), list(resumed)
        done = check_whole(events)
        assert count(events, "delta") >= 8 and count(events, "restart") == 0, events
        running = [e["data"] for e in events if e["event"] == "status" and e["data"]["status"] == "running"]
        assert running == [{"status": "running", "attempt": 1, "node": done["node"]}], events
        first = int([e for e in events if e["event"] == "delta"][0]["id"])
        ids = {e["id"]: e["data"] for e in events if e["event"] == "delta"}
        for seen in late_events, other, resumed_events:
            assert seen[-1]["data"] == done, seen
            for e in seen:
                if e["event"] == "delta":  # the same everywhere, but for the last ones that nobody has
                    assert ids.get(e["id"], e["data"]) == e["data"], (e, ids)
        for seen in late_events, other:
            check_whole(seen)
            deltas = [int(e["id"]) for e in seen if e["event"] == "delta"]
            assert deltas[0] == first and len(deltas) >= 8, seen
        assert int(resumed_events[0]["id"]) == int(sixth) + 1, resumed_events
        assert 0 < int(d.redis.cli("PTTL", "genq:stream:default/a")) <= 60000


def test_a_joiner_whose_gateway_had_nobody_before():
    """Also when somebody had been there, and left."""
    with Live() as d:
        d.gateways[0].submit(id="j", prompt=PROMPT, stream=True)
        wait_for(lambda: d.redis.cli("EXISTS", "genq:stream:default/j") == "1" and
                 int(d.redis.cli("XLEN", "genq:stream:default/j")) > 5, "some tokens")
        first = watch(d.gateways[1], "j")
        events = until(first, 2)
        first.close()
        again = list(watch(d.gateways[1], "j"))
        check_whole(again)
        kinds = [e["event"] for e in again]
        assert kinds[:2] == ["status", "delta"] and again[:3] == events[:3], (events, again)


def test_running_attempts_and_node_at_other_gateways():
    with Live(stub=["--latency-ms", "60000"], config="retry: {base_ms: 100, cap_ms: 100}\n") as d:
        one, two = d.gateways
        d.engine.faults("kind=status,code=500,times=1")  # at once
        one.submit(id="r")
        for gateway in one, two:
            job = d.shows(gateway, "r", "running")
            assert job["attempts"] == 2 and job["node"] and job["started_at"], job
        found = d.hash("r")
        assert found["status"] == "running" and found["attempts"] == "2", found
        assert d.redis.cli("EXISTS", "genq:worker:" + found["worker"]) == "1", found
        wait_for(lambda: "job" in d.hash("r"), "what the gateways write")
        assert d.hash("r")["status"] == "running"
        assert two.get("/api/v1/jobs/r?wait=200ms").json["status"] == "running"
        listed = {j["id"]: j for j in two.get("/api/v1/jobs").json["data"]}
        assert listed["r"]["status"] == "running" and listed["r"]["attempts"] == 2, listed
        one.submit(id="w", priority="low", not_before=int(time.time() * 1000) + 3600000)
        for gateway in one, two:
            found = gateway.get("/api/v1/jobs?status=running").json["data"]
            assert [(j["id"], j["attempts"]) for j in found] == [("r", 2)], found
            assert not gateway.get("/api/v1/jobs?status=queued").json["data"]
        assert two.delete("/api/v1/jobs/r").status == 202
        assert one.finished("r")["status"] == "cancelled"
        wait_for(lambda: d.hash("r")["status"] == "cancelled", "the end")
        assert set(d.hash("r")) == {"status", "job"}, d.hash("r")
        assert d.redis.cli("EXISTS", "genq:running") == "0"
        assert not two.get("/api/v1/jobs?status=running").json["data"]


def test_a_retry_goes_back_to_queued_and_keeps_attempts():
    with Live(stub=["--latency-ms", "60000"], gateways=1,
              config="retry: {base_ms: 60000, cap_ms: 60000}\n") as d:
        d.gateways[0].submit(id="q", prompt=PROMPT, stream=True)
        stream = watch(d.gateways[0], "q")
        d.shows(d.gateways[0], "q", "running")
        d.engine.stop()
        wait_for(lambda: d.gateways[0].get("/api/v1/jobs/q").json["status"] == "queued")
        job = d.gateways[0].get("/api/v1/jobs/q").json
        assert job["attempts"] == 1 and job["node"] is None, job
        states = []
        while "queued" not in states[1:]:
            e = next(stream)
            states += [e["data"]["status"]] if e.get("event") == "status" else []
        assert states[-2:] == ["running", "queued"], states
        assert d.gateways[0].delete("/api/v1/jobs/q").status == 202
        assert list(stream)[-1]["data"]["status"] == "cancelled"


def test_a_killed_workers_job_is_queued_then_runs_elsewhere():
    with Live(stub=["--latency-ms", "4000", "--tokens", "20"]) as d:
        one, two = d.gateways
        one.submit(id="k", prompt=PROMPT, stream=True)
        d.known(two, "k")
        stream = watch(two, "k")
        events = until(stream, 4)
        d.shows(two, "k", "running")
        d.workers[0].kill()
        wait_for(lambda: not one.get("/api/v1/jobs?status=running").json["data"], "none to run")
        job = d.shows(two, "k", "queued", 40)  # its heartbeat goes 15 s after the last beat
        assert job["node"] is None, job
        d.add_worker()
        events += list(stream)
        done = check_whole(events)
        assert count(events, "restart") == 1, events
        at = [e.get("event") for e in events].index("restart")
        assert count(events[:at], "delta") >= 4 and count(events[at:], "delta") >= 5, events
        assert done["output"]["text"].startswith(text_of(events[at:])), events


def test_a_new_attempt_restarts():
    with Live(config="retry: {base_ms: 10, cap_ms: 20}\n", stub=["--latency-ms", "800", "--tokens", "8"]) as d:
        d.engine.faults("kind=midstream_error,times=1")
        stream = watch_before_it_runs(d, "n")
        events = list(stream)
        done = check_whole(events)
        assert done["attempts"] == 2 and count(events, "restart") == 1, events
        at = [e.get("event") for e in events].index("restart")
        assert events[at]["data"] == {"attempt": 2}, events
        assert all(e["data"]["attempt"] == 2 for e in events[at:] if e["event"] == "delta"), events
        late = d.redis.cli("XRANGE", "genq:stream:default/n", "-", "+", "COUNT", "1").split("\n")
        assert late[1:3] == ["event", "restart"], late  # the first attempt's are gone


def watch_before_it_runs(d, job_id):
    """A job behind one that holds the engine's only turn: the worker starts when its stream is open."""
    d.workers[0].pause()
    d.gateways[0].submit(id=job_id, prompt=PROMPT, stream=True)
    d.known(d.gateways[1], job_id)
    stream = watch(d.gateways[1], job_id)
    first = next(stream)
    assert first["data"]["status"] == "queued", first
    d.workers[0].resume()
    return stream


def test_redis_killed_in_the_middle():
    with Live(stub=["--latency-ms", "6000", "--tokens", "40"]) as d:
        one, two = d.gateways
        one.submit(id="m", prompt=PROMPT, stream=True)
        d.known(two, "m")
        stream = watch(two, "m")
        events = until(stream, 3)
        d.redis.kill()
        assert two.get("/api/v1/jobs/m").json["status"] == "queued"
        d.redis.start()
        events += list(stream)
        check_whole(events)
        assert count(events, "delta") > 10, events  # they go on when it is back
        d.engine.latency(3000)
        one.submit(id="m2", prompt=PROMPT, stream=True)
        d.known(two, "m2")
        stream = watch(two, "m2")
        events = until(stream, 3)
        d.redis.kill()
        done = check_whole(events + list(stream))
        assert done["id"] == "m2"


def test_redis_emptied_in_the_middle():
    with Live(stub=["--latency-ms", "6000", "--tokens", "40"]) as d:
        one, two = d.gateways
        one.submit(id="f", prompt=PROMPT, stream=True)
        d.known(two, "f")
        stream = watch(two, "f")
        events = until(stream, 5)
        d.redis.cli("FLUSHALL")
        more = until(stream, 5)
        late = watch(two, "f"), watch(one, "f")
        events += more + list(stream)
        check_whole(events)
        for seen in map(list, late):
            check_whole(seen)
            assert count(seen, "delta") >= 8, seen
        d.redis.cli("SCRIPT", "FLUSH")
        d.engine.latency(1000)
        one.submit(id="g", prompt=PROMPT, stream=True)
        assert text_of(list(watch(two, "g"))), "tokens"


def test_without_redis_the_end_comes():
    with Live(has_redis=False, stub=["--latency-ms", "1500", "--tokens", "10"]) as d:
        one, two = d.gateways
        one.submit(id="w", prompt=PROMPT, stream=True)
        d.known(two, "w")
        stream = watch(two, "w")
        wait_for(lambda: d.engine.events("recv"), "the call")
        assert two.get("/api/v1/jobs/w").json["status"] == "queued"
        events = list(stream)
        assert count(events, "delta") == 0
        check_whole(events, is_all=False)


def test_a_redis_that_hangs_holds_no_answer_up():
    with Live(stub=["--latency-ms", "60000"]) as d:
        d.gateways[0].submit(id="h", stream=True)
        d.shows(d.gateways[1], "h", "running")
        d.redis.pause()
        try:
            started = time.monotonic()
            assert d.gateways[1].get("/api/v1/jobs/h").json["status"] == "queued"
            with watch(d.gateways[1], "h") as stream:
                assert next(stream)["data"]["status"] == "queued"
            assert time.monotonic() - started < 5
        finally:
            d.redis.resume()
        d.gateways[0].delete("/api/v1/jobs/h")


def test_the_rights_that_the_page_names_are_enough():
    page = read_file(os.path.join(os.environ["SOURCE_DIR"], "docs", "redis.md"))
    words = re.search(r"The user needs the commands of (.*?) on the keys", page, re.S).group(1)
    rights = " ".join("+" + w.lower() for w in re.findall(r"`([^`]+)`", words))
    assert rights.startswith("+@hash +@keyspace "), rights
    with Live(user="resetkeys ~genq:* resetchannels &genq:* -@all " + rights) as d:
        one, two = d.gateways
        one.submit(id="a", prompt=PROMPT, stream=True)
        d.known(two, "a")
        with watch(two, "a") as stream:
            events = until(stream, 2)
            d.shows(two, "a", "running")
            assert [j["id"] for j in two.get("/api/v1/jobs?status=running").json["data"]] == ["a"]
            check_whole(events + list(stream))
        wait_for(lambda: d.hash("a")["status"] == "succeeded", "the end")
        assert two.get("/api/v1/nodes").json["data"]
        for member in d.members:
            assert member.metric("genq_redis_failed_total") == 0 and "refuses" not in member.said(), member.said()


def test_a_huge_stream_stays_small_in_redis():
    limit = 50000
    with Live(config="limits: {stream_bytes: %d}\n" % limit) as d:
        d.engine.faults("kind=huge,bytes=2,times=1")
        d.engine.latency(1000)
        stream = watch_before_it_runs(d, "big")
        events = list(stream)
        done = events[-1]["data"]
        assert done["status"] == "succeeded" and len(done["output"]["text"]) == 2 << 20
        text = text_of(events)
        assert len(text) < limit and done["output"]["text"].startswith(text)
        cut = [e for e in events if e["event"] == "delta"][-1]["data"]
        assert cut.get("is_cut") and cut["text"] == "", cut
        assert int(d.redis.cli("MEMORY", "USAGE", "genq:stream:default/big")) < 4 * limit


def test_short_jobs_cost_redis_nothing():
    """Those that end within a sweep are never told as running."""
    with Live(stub=["--latency-ms", "0"], gateways=1) as d:
        monitor = Process(["redis-cli", "-s", d.redis.socket, "monitor"], d.folder, "monitor")
        try:
            wait_for(lambda: "OK" in read_file(monitor.log), "the monitor")
            ids = [d.gateways[0].submit(id="s%d" % i)["id"] for i in range(200)]
            for i in ids:
                d.gateways[0].finished(i)
            d.engine.latency(2000)
            d.gateways[0].submit(id="long", stream=True)
            d.shows(d.gateways[0], "long", "running")
            wait_for(lambda: "genq:stream:default/long" in read_file(monitor.log), "its stream")
            told = [line for line in read_file(monitor.log).splitlines() if '"running"' in line]
            assert all("default/long" in line for line in told) and told, told
        finally:
            monitor.end()
        d.gateways[0].finished("long")


def test_up_on_kafka_beside_a_worker():
    """The tokens of its own worker come once, those of another one too."""
    with Live(gateways=0, stub=["--latency-ms", "2000", "--tokens", "20"]) as d:
        up = Member(d, "up", "both", urls=[d.engine.url])
        d.workers.append(up)
        up.start()
        wait_for(lambda: all("group_assigned" in w.said() for w in d.workers), "a share for each")
        ids = ["u%d" % i for i in range(8)]
        for i in ids:
            up.submit(id=i, prompt=PROMPT, stream=True)
        some = wait_for(lambda: up.get("/api/v1/jobs?status=running").json["data"])
        assert len({j["id"] for j in some}) == len(some), some
        for stream in [watch(up, i) for i in ids]:
            events = list(stream)
            check_whole(events)
            assert count(events, "restart") == 0 and count(events, "delta") >= 8, events
        assert all(w.metric("genq_engine_calls_total") > 0 for w in d.workers)


def test_the_cli_prints_tokens():
    with Live() as d:
        url = "http://127.0.0.1:%d" % d.gateways[1].port
        done = subprocess.run([os.environ["GENQ"], "--server", url, "submit", "-m", "stub", "--stream", PROMPT],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and done.stdout == "echo: " + PROMPT[:40] + "\n", done
        done = subprocess.run([os.environ["GENQ"], "--server", url, "submit", "-m", "stub", "--stream", "--json",
                               PROMPT], capture_output=True, text=True, timeout=60, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert sum("seq" in line for line in lines) >= 10 and lines[-1]["status"] == "succeeded", lines


with KAFKA:
    run(globals())
