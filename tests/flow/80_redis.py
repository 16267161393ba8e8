"""A real Redis beside genq: what is in it is judged by redis-cli alone; and jobs go on without it."""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "lib"))
from genq import Process, World, read_file, run, wait_for
from redis import RedisServer

HOT_S = 500
COUNTERS = ["calls", "prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens",
            "wasted_tokens"]


class Beside:
    """A Redis, and a genq that writes into it."""

    def __init__(self, url=None, down=False, config="", stub=(), **settings):
        self.redis = RedisServer(**settings)
        self.down, self.subscriber = down, None
        text = 'redis: {url: "%s", hot_s: %d}\n' % (url or self.redis.url, HOT_S)
        self.world = World(config=text + config, stub=stub)

    def __enter__(self):
        if not self.down:
            self.redis.start()
        try:
            self.world.__enter__()
        except BaseException:
            self.redis.__exit__()
            raise
        if not self.down and self.redis.password is None:
            self.await_state("ok")
        return self

    def __exit__(self, *reason):
        try:
            if self.subscriber:
                self.subscriber.end(signal.SIGKILL)
            self.world.__exit__(*reason)
        finally:
            self.redis.__exit__()

    def subscribe(self):
        """Gathers what is published from now on."""
        self.subscriber = Process(["redis-cli", "-s", self.redis.socket, "subscribe",
                                   "genq:completions"], self.world.folder, "subscriber")
        wait_for(lambda: "genq:completions" in read_file(self.subscriber.log), "a subscription")

    def published(self):
        return [json.loads(line) for line in read_file(self.subscriber.log).splitlines()
                if line.startswith("{")]

    def hash(self, key):
        lines = self.redis.cli("HGETALL", key).split("\n")
        return dict(zip(lines[::2], lines[1::2]))

    def job(self, job_id, tenant="default"):
        return self.hash("genq:job:%s/%s" % (tenant, job_id))

    def status(self, job_id, tenant="default"):
        return self.job(job_id, tenant).get("status")

    def check(self):
        return self.world.get("/readyz").json["checks"]["redis"]

    def await_state(self, state, why=""):
        wait_for(lambda: self.check()["status"] == state and why in (self.check()["error"] or ""),
                 "redis to be %s: %s; it is %s" % (state, why, self.check()))
        assert self.world.get("/readyz").status == 200

    def usage(self, tenant="default"):
        """The counters of all days."""
        sums = {}
        for key in self.redis.cli("KEYS", "genq:usage:%s:*" % tenant).split():
            for name, value in self.hash(key).items():
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def await_usage(self, n, tenant="default"):
        """n jobs are counted, and the sums are the ledger's."""
        wait_for(lambda: self.usage(tenant).get("succeeded") == n,
                 lambda: "%d jobs counted: %s" % (n, self.usage(tenant)))
        rows = self.world.get("/api/v1/usage?tenant=" + tenant).json["data"]
        sums = self.usage(tenant)
        for name in COUNTERS:
            assert sums.get(name, 0) == rows[0][name], (name, sums, rows)

    def submit(self, prefix, n, **fields):
        jobs = [{"id": "%s-%d" % (prefix, i), "model": "stub", "prompt": "hello", **fields}
                for i in range(n)]
        reply = self.world.post("/api/v1/jobs", jobs)
        assert reply.status == 200 and not any(j.get("error") for j in reply.json["data"]), reply
        return [j["id"] for j in jobs]

    def await_ended(self, ids):
        for job_id in ids:
            assert self.world.finished(job_id)["status"] == "succeeded"

    def await_hashes(self, ids):
        for job_id in ids:
            wait_for(lambda i=job_id: self.status(i) == "succeeded", "the hash of " + job_id)

    def check_hash(self, job_id, tenant="default"):
        """As the API shows it, and for as long as the config says."""
        shown = self.world.get("/api/v1/jobs/%s?tenant=%s" % (job_id, tenant)).json
        found = self.job(job_id, tenant)
        assert set(found) == {"status", "job"}, found
        assert found["status"] == shown["status"], (found, shown)
        assert json.loads(found["job"]) == shown, (found, shown)
        left = int(self.redis.cli("TTL", "genq:job:%s/%s" % (tenant, job_id)))
        assert HOT_S - 60 <= left <= HOT_S, left


def check_once(published, ids):
    found = sorted(j["id"] for j in published)
    assert found == sorted(ids), (len(found), len(ids), found[:50])


def test_a_jobs_hash_publication_and_usage():
    with Beside() as b:
        b.subscribe()
        ids = b.submit("a", 50)
        b.await_ended(ids)
        b.await_hashes(ids)
        for job_id in ids:
            b.check_hash(job_id)
        b.await_usage(50)
        wait_for(lambda: len(b.published()) >= 50, "50 publications")
        check_once(b.published(), ids)
        shown = b.world.get("/api/v1/jobs/a-7").json
        assert shown in b.published()
        day = time.strftime("%Y%m%d", time.gmtime())
        assert set(b.redis.cli("KEYS", "genq:usage:*").split()) <= {
            "genq:usage:default:%s" % d for d in (day, time.strftime(
                "%Y%m%d", time.gmtime(time.time() - 86400)))}


def test_all_ends_and_tenants():
    with Beside(config="retry: {attempts: 1}\n") as b:
        w = b.world
        w.faults("kind=status,code=400,times=1")
        failed = w.submit(tenant="t1")["id"]
        assert w.finished(failed, "t1")["status"] == "failed"
        w.latency(60000)
        w.submit(id="runs", tenant="t1")
        assert w.delete("/api/v1/jobs/runs?tenant=t1").status == 202
        w.submit(id="late", tenant="t2", deadline=int(time.time() * 1000) + 200,
                 not_before=int(time.time() * 1000) + 400)
        assert w.finished("late", "t2")["status"] == "expired"
        wait_for(lambda: b.status("late", "t2") == "expired", "an expired hash")
        for job_id, tenant, state in ((failed, "t1", "failed"), ("runs", "t1", "cancelled"),
                                      ("late", "t2", "expired")):
            assert b.status(job_id, tenant) == state
            b.check_hash(job_id, tenant)
        one, two = b.usage("t1"), b.usage("t2")
        assert (one["failed"], one["cancelled"], two) == (1, 1, {"expired": 1}), (one, two)


def test_a_job_that_waits_and_runs():
    with Beside(config="retry: {base_ms: 3000}\n", stub=["--slots", "1"]) as b:
        w = b.world
        w.latency(60000)
        for i in range(6):
            w.submit(id="j%d" % i)
        w.submit(id="later", not_before=int(time.time() * 1000) + 3600000)
        wait_for(lambda: b.status("later") == "scheduled", "a scheduled hash")
        wait_for(lambda: b.status("j0") == "running", "a running hash")
        found = b.job("j0")
        node = w.get("/api/v1/nodes").json["data"][0]["name"]
        assert (found["attempts"], found["node"]) == ("1", node), found
        assert json.loads(found["job"]) == w.get("/api/v1/jobs/j0").json
        waiting = [i for i in range(6) if b.status("j%d" % i) == "queued"]
        assert waiting, [b.job("j%d" % i) for i in range(6)]
        found = b.job("j%d" % waiting[-1])
        assert json.loads(found["job"]) == w.get("/api/v1/jobs/j%d" % waiting[-1]).json
        assert int(b.redis.cli("TTL", "genq:job:default/j0")) > HOT_S
        w.delete("/api/v1/jobs/j0")
        wait_for(lambda: b.status("j0") == "cancelled", "a cancelled hash")
        b.check_hash("j0")


def test_a_terminal_state_stays():
    """Nothing that comes late, or from another gateway that is behind, changes an end."""
    with Beside() as b:
        ids = b.submit("a", 3)
        b.await_ended(ids)
        b.await_hashes(ids)
        before, sums = b.job("a-0"), b.usage()
        feed = b.redis.cli("KEYS", "genq:feed:*").strip()
        b.world.stop(signal.SIGKILL)
        b.redis.cli("HSET", feed, "position", "0")  # as if it had written nothing
        b.world.start()
        b.await_ended(b.submit("b", 1))
        b.await_usage(4)
        assert b.job("a-0") == before and sums["calls"] == 3


def test_a_killed_genq_counts_and_publishes_once():
    with Beside() as b:
        b.subscribe()
        ids = []
        for i in range(5):
            ids += b.submit("r%d" % i, 200)
            wait_for(lambda n=len(ids): len(b.published()) > n - 150, "some publications")
            b.world.stop(signal.SIGKILL)
            b.world.start()
        b.await_ended(ids)
        b.await_hashes(ids)
        b.await_usage(len(ids))
        wait_for(lambda: len(b.published()) >= len(ids), "all publications")
        check_once(b.published(), ids)


def test_redis_killed_and_back():
    with Beside() as b:
        first = b.submit("a", 20)
        b.await_ended(first)
        b.await_hashes(first)
        b.redis.kill()
        b.await_state("down", "redis 127.0.0.1:%d: " % b.redis.port)
        ids = b.submit("b", 200)
        b.await_ended(ids)
        assert b.world.metric("genq_redis_up") == 0
        b.redis.start()
        b.await_state("ok")
        b.await_hashes(ids)
        b.await_usage(220)
        b.check_hash("b-199")
        wait_for(lambda: b.world.metric("genq_redis_behind") == 0, "to be up to date")


def test_redis_killed_while_jobs_run():
    with Beside() as b:
        ids = []
        for i in range(4):
            ids += b.submit("r%d" % i, 300)
            b.redis.kill()
            b.redis.start()
        b.await_ended(ids)
        b.await_hashes(ids[::20] + ids[-1:])
        b.await_usage(len(ids))


def test_redis_hangs():
    with Beside() as b:
        b.subscribe()
        b.redis.pause()
        started = time.monotonic()
        ids = b.submit("a", 100)
        b.await_ended(ids)
        b.await_state("down")
        assert time.monotonic() - started < 60
        b.redis.resume()
        b.await_state("ok")
        b.await_hashes(ids)
        b.await_usage(100)
        check_once(b.published(), ids)


def test_redis_is_full():
    with Beside() as b:
        b.redis.cli("CONFIG", "SET", "maxmemory", "1")
        ids = b.submit("a", 100)
        b.await_ended(ids)
        b.await_state("down", "OOM")
        time.sleep(1)  # it stays so while it is full
        assert b.check()["status"] == "down"
        b.redis.cli("CONFIG", "SET", "maxmemory", "0")
        b.await_state("ok")
        b.await_hashes(ids)
        b.await_usage(100)


def test_redis_may_only_be_read():
    with Beside() as b:
        b.redis.cli("REPLICAOF", "127.0.0.1", "1")
        ids = b.submit("a", 10)
        b.await_ended(ids)
        b.await_state("down", "READONLY")
        b.redis.cli("REPLICAOF", "NO", "ONE")
        b.await_state("ok")
        b.await_hashes(ids)
        b.await_usage(10)


def test_redis_is_emptied():
    """Counters and hashes come back from the store; nobody is told twice."""
    with Beside() as b:
        b.subscribe()
        ids = b.submit("a", 100)
        b.await_ended(ids)
        b.await_hashes(ids)
        b.redis.cli("FLUSHALL")
        more = b.submit("b", 1)
        b.await_ended(more)
        b.await_hashes(ids + more)
        b.await_usage(101)
        b.redis.cli("FLUSHALL")  # noticed although no job ends
        b.await_hashes(ids + more)
        b.await_usage(101)
        b.redis.cli("FLUSHALL")
        b.redis.cli("SCRIPT", "FLUSH")
        b.world.stop(signal.SIGKILL)
        b.world.start()
        b.await_hashes(ids + more)
        b.await_usage(101)
        more += b.submit("c", 50)
        b.await_ended(more)
        b.await_hashes(more)
        b.await_usage(151)
        wait_for(lambda: len(b.published()) >= 151, "all publications")
        check_once(b.published(), ids + more)


def test_scripts_are_forgotten():
    with Beside() as b:
        b.await_ended(b.submit("a", 1))
        b.await_usage(1)
        b.redis.cli("SCRIPT", "FLUSH")
        b.await_ended(b.submit("b", 50))
        b.await_usage(51)


def test_redis_is_away_at_the_start():
    with Beside(down=True) as b:
        assert b.check()["status"] == "down"
        ids = b.submit("a", 30)
        b.await_ended(ids)
        b.redis.start()
        b.await_state("ok")
        b.await_hashes(ids)
        b.await_usage(30)


def test_a_wrong_password():
    with Beside(requirepass="secret") as b:
        b.await_state("down", "NOAUTH")
        b.await_ended(b.submit("a", 3))
        b.redis.cli("CONFIG", "SET", "requirepass", "")
        b.redis.password = None
        b.await_state("ok")
        b.await_usage(3)


def test_keys_that_hold_something_else():
    """They are genq's names; nothing is held up by them."""
    with Beside() as b:
        day = time.strftime("%Y%m%d", time.gmtime())
        b.redis.cli("SET", "genq:job:default/a-0", "mine")
        b.redis.cli("SET", "genq:usage:odd:" + day, "mine")
        b.await_ended(b.submit("a", 2))
        b.await_hashes(["a-0", "a-1"])
        b.world.submit(id="x", tenant="odd")
        wait_for(lambda: b.status("x", "odd") == "succeeded", "a hash")
        assert b.check()["status"] == "ok"


def test_a_stop_leaves_nothing_behind():
    with Beside() as b:
        ids = b.submit("a", 300)
        b.await_ended(ids)
        wait_for(lambda: b.redis.cli("KEYS", "genq:worker:*"), "a heartbeat")
        b.world.stop()
        assert b.usage()["succeeded"] == 300
        assert b.redis.cli("KEYS", "genq:worker*") == ""
        b.world.start()


def test_heartbeats():
    with Beside() as b:
        w = b.world
        w.latency(60000)
        w.submit(id="j")
        key = wait_for(lambda: b.redis.cli("KEYS", "genq:worker:*"), "a heartbeat")
        name = w.get("/api/v1/nodes").json["data"][0]["name"]

        def beat():
            return json.loads(b.redis.cli("GET", key) or "{}")

        wait_for(lambda: beat().get("running") == 1 and beat()["slots"] == 4, beat)
        assert beat()["id"] == key.rpartition(":")[2] and beat()["pid"] == w.genq.pid
        node = json.loads(b.redis.cli("GET", "genq:node:" + name))
        assert (node["name"], node["state"], node["slots"]) == (name, "up", 4), node
        assert node["models"] and node["worker"] == beat()["id"], node
        assert [n["name"] for n in beat()["nodes"]] == [name]
        for k in (key, "genq:node:" + name):
            assert 8000 < int(b.redis.cli("PTTL", k)) <= 15000
        w.stub.end(signal.SIGKILL)  # told at once, not at the next beat
        w.delete("/api/v1/jobs/j")
        at = beat()["at"]
        wait_for(lambda: beat()["nodes"][0]["state"] == "down" or beat()["at"] - at > 20000, beat)
        assert b.redis.cli("FLUSHALL") == "OK"
        wait_for(lambda: b.redis.cli("GET", key), "another heartbeat")


def test_nodes_of_all_processes():
    def show(w):
        return sorted((n["name"], n["worker"]) for n in w.get("/api/v1/nodes").json["data"])

    with Beside() as b, World(config='redis: {url: "%s"}\n' % b.redis.url) as other:
        wait_for(lambda: len(show(b.world)) == 2, lambda: show(b.world))
        wait_for(lambda: len(show(other)) == 2, lambda: show(other))
        both = show(other)
        assert show(b.world) == both and len({worker for _, worker in both}) == 2, both
        assert b.world.get("/api/v1/nodes").json["data"][0]["name"].endswith(
            str(b.world.stub_port)), "its own come first"
        done = subprocess.run([os.environ["GENQ"], "nodes", "--server",
                               "http://127.0.0.1:%d" % other.port], capture_output=True, text=True,
                              check=True)
        assert done.stdout.split()[:2] == ["HOST", "NODE"], done.stdout
        assert all(name in done.stdout for name, _ in both), done.stdout
        b.redis.pause()
        started = time.monotonic()
        assert b.world.get("/api/v1/nodes").status == 200
        assert time.monotonic() - started < 20
        b.redis.resume()
        other.stop()
        wait_for(lambda: len(show(b.world)) == 1, "the other one's farewell")
        b.redis.kill()
        wait_for(lambda: len(show(b.world)) == 1, "its own nodes")
        other.start()


def test_without_redis_there_is_no_check():
    with World() as w:
        assert "redis" not in w.get("/readyz").json["checks"]


def test_a_url_that_is_none():
    with World() as w:
        for url in ("localhost", "rediss://localhost"):
            config = os.path.join(w.folder, "bad.yaml")
            with open(config, "w", encoding="utf-8") as f:
                f.write('redis: {url: "%s"}\n' % url)
            done = subprocess.run([os.environ["GENQ"], "--config", config, "up", "--data",
                                   os.path.join(w.folder, "d2"), "--listen", "127.0.0.1:0"],
                                  capture_output=True, text=True, timeout=60)
            assert done.returncode == 2 and "redis.url: " in done.stderr, done


run(globals())
