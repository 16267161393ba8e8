"""The result cache in a real Redis: shared by all workers, bounded, and nothing that a job waits for."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.environ["SOURCE_DIR"], "tests", "lib"))
from distributed import Distributed  # noqa: E402
from genq import World, read_file, run, wait_for  # noqa: E402
from kafka import KafkaCluster  # noqa: E402
from redis import RedisServer  # noqa: E402


def config(redis, more=""):
    return 'redis: {url: "%s"}\n%s' % (redis.url, more)


def ask(w, at=None, **fields):
    """A job, once it has ended well: asked here, and waited for at another gateway."""
    tenant = fields.get("tenant", "default")
    job_id = w.submit(**fields)["id"]
    if at:  # which may not have read of it yet
        wait_for(lambda: at.get("/api/v1/jobs/%s?tenant=%s" % (job_id, tenant)).status == 200)
    job = (at or w).finished(job_id, tenant)
    assert job["status"] == "succeeded", job
    return job


def keys(redis):
    return [k for k in redis.cli("KEYS", "genq:cache:*").split("\n") if k]


def warm(w, redis, **fields):
    """Asks until Redis has the answer: the connection to it may be made yet. Gives the job."""
    before = set(keys(redis))

    def kept():
        job = ask(w, cache="refresh", **fields)
        return set(keys(redis)) - before and job
    return wait_for(kept, "the answer in Redis")


def hit(w, **fields):
    """As soon as it is one: who asks may not be connected yet."""
    return wait_for(lambda: (lambda job: job["cached"] and job)(ask(w, **fields)), "a hit")


def test_two_processes_share_one():
    with RedisServer() as redis, World(config=config(redis)) as a, World(config=config(redis)) as b:
        first = warm(a, redis, seed=1)
        [key] = keys(redis)
        assert len(key) == len("genq:cache:") + 64
        assert redis.cli("GET", key).startswith('{"text":"echo: hello"')
        assert 86000000 < int(redis.cli("PTTL", key)) <= 86400000
        second = hit(b, seed=1)
        assert second["output"] == first["output"] and second["calls"] == [], second
        assert a.metric("genq_cache_entries") == 1 and a.metric("genq_cache_bytes") > 0
        assert not os.path.exists(os.path.join(a.data, "genq-cache.db"))
        assert ask(b, seed=1, tenant="else")["cached"] is False
        warm(b, redis, seed=2)
        hit(a, seed=2)


def test_it_is_bounded():
    with RedisServer() as redis, World(config=config(redis, "cache: {max_bytes: 4000}\n")) as w:
        for i in range(40):
            warm(w, redis, seed=i) if i == 0 else ask(w, seed=i)
        wait_for(lambda: 5 < w.metric("genq_cache_entries") < 40, "some, not all")
        wait_for(lambda: len(keys(redis)) == w.metric("genq_cache_entries"))
        assert 2000 < w.metric("genq_cache_bytes") <= 4000
        assert int(redis.cli("HGET", "genq:cache-sizes", "total")) == w.metric("genq_cache_bytes")
        assert int(redis.cli("HLEN", "genq:cache-sizes")) == len(keys(redis)) + 1
        assert hit(w, seed=39) and ask(w, seed=0)["cached"] is False
    with RedisServer() as redis, World(config=config(redis, "cache: {ttl_s: 1}\n")) as w:
        warm(w, redis, seed=1)
        assert 0 < int(redis.cli("PTTL", keys(redis)[0])) <= 1000
        wait_for(lambda: not ask(w, seed=1)["cached"], "the end of its time")


def test_a_list_that_redis_evicted_is_begun_anew():
    """Under maxmemory any of the three keys may go: sizes that nothing stands behind count no more."""
    with RedisServer() as redis, World(config=config(redis, "cache: {max_bytes: 4000}\n")) as w:
        for i in range(10):
            warm(w, redis, seed=i) if i == 0 else ask(w, seed=i)
        wait_for(lambda: w.metric("genq_cache_entries") == 10)
        redis.cli("DEL", "genq:cache-list")
        for i in range(10, 16):
            ask(w, seed=i)
        wait_for(lambda: w.metric("genq_cache_entries") == 6)
        assert w.metric("genq_cache_bytes") <= 4000
        assert int(redis.cli("HLEN", "genq:cache-sizes")) == 7


def test_without_redis_jobs_run():
    with RedisServer() as redis, World(config=config(redis)) as w:
        warm(w, redis, seed=1)
        hit(w, seed=1)
        redis.kill()
        for _ in range(3):
            assert ask(w, seed=1)["cached"] is False
        redis.start()  # what was kept is there again
        hit(w, seed=1)
        w.stop()
        redis.kill()
        w.start()  # away at the start
        assert ask(w, seed=1)["cached"] is False


def test_a_redis_that_hangs_is_waited_for_once():
    with RedisServer() as redis, World(config=config(redis)) as w:
        warm(w, redis, seed=1)
        hit(w, seed=1)
        redis.pause()
        start = time.monotonic()
        assert ask(w, seed=1)["cached"] is False
        jobs = [{"model": "stub", "prompt": "p%d" % i, "seed": 1} for i in range(40)]
        reply = w.post("/api/v1/jobs", jobs)
        for job in reply.json["data"]:
            assert w.finished(job["id"])["status"] == "succeeded"
        # 4 slots: had each waited half a second, 10 rounds would have been 5 s
        assert time.monotonic() - start < 4, time.monotonic() - start
        redis.resume()
        hit(w, seed=1)


def test_a_full_redis_keeps_nothing():
    with RedisServer() as redis, World(config=config(redis)) as w:
        wait_for(lambda: w.metric("genq_redis_up"), "Redis")
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        wait_for(lambda: ask(w, seed=1) and w.metric("genq_cache_dropped_total") > 0, "a refusal")
        assert ask(w, seed=1)["cached"] is False and keys(redis) == []
        assert read_file(w.genq.log).count("cache_fails") == 1
        redis.cli("CONFIG", "SET", "maxmemory", "0")
        warm(w, redis, seed=1)
        hit(w, seed=1)


def test_what_others_write_there_is_no_answer():
    with RedisServer() as redis, World(config=config(redis)) as w:
        first = warm(w, redis, seed=1)
        [key] = keys(redis)
        for text in ("{broken", "[1]", '"x"', "", '{"a":1}}', '{"a":\x01}'):
            redis.cli("SET", key, text)
            again = ask(w, seed=1)
            assert again["cached"] is False and again["output"] == first["output"], (text, again)
        redis.cli("DEL", key)
        redis.cli("LPUSH", key, "a")  # no string
        assert ask(w, seed=1)["cached"] is False
        hit(w, seed=1)  # which the next one made good
        redis.cli("FLUSHALL")
        assert ask(w, seed=1)["cached"] is False


def test_workers_of_one_kafka_share_one():
    with RedisServer() as redis, KafkaCluster() as kafka, \
            Distributed(kafka, gateways=2, workers=2, has_engine_each=True, config=config(redis)) as d:
        here, there = d.gateways
        first = warm(here, redis, seed=1)
        engine = {e.url.rpartition("//")[2] for e in d.engines} - {first["node"]}
        assert len(engine) == 1, first["node"]
        d.workers[0 if first["node"] in d.engines[0].url else 1].stop()  # who answered is gone
        second = hit(here, at=there, seed=1)
        assert second["output"] == first["output"] and second["node"] is None, second
        redis.kill()
        assert ask(here, seed=1)["node"] in engine
        assert not any(os.path.exists(os.path.join(m.data, "genq-cache.db")) for m in d.members)


def test_workers_without_redis_have_their_own():
    with KafkaCluster() as kafka, Distributed(kafka, gateways=1, workers=1) as d:
        gateway, [worker] = d.gateways[0], d.workers
        assert ask(gateway, seed=1)["cached"] is False
        hit(gateway, seed=1)
        worker.kill()
        worker.start()
        hit(gateway, seed=1)
        assert os.path.exists(os.path.join(worker.data, "genq-cache.db"))
        assert not os.path.exists(os.path.join(gateway.data, "genq-cache.db"))


if __name__ == "__main__":
    run(globals())
