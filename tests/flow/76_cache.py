"""The result cache of one process: what is the same question, who is answered from it, what bounds it,
and that a job ends once whatever becomes of it."""
import json
import os
import signal
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import World, read_file, run, wait_for  # noqa: E402

NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached_tokens": 0}


def ask(w, **fields):
    """A job, once it has ended well."""
    job = w.finished(w.submit(**fields)["id"], fields.get("tenant", "default"))
    assert job["status"] == "succeeded", job
    return job


def n_calls(w):
    return len(w.stub_events("recv"))


def cache_file(w):
    return os.path.join(w.data, "genq-cache.db")


def rows(w, what="count(*)"):
    db = sqlite3.connect("file:%s?mode=ro" % cache_file(w), uri=True)
    try:
        return db.execute("SELECT %s FROM answer" % what).fetchall()
    finally:
        db.close()


def test_a_repeat_is_answered_without_a_call():
    with World() as w:
        first, second = ask(w, temperature=0), ask(w, temperature=0)
        assert first["cached"] is False and second["cached"] is True, (first, second)
        assert second["output"] == first["output"] and second["output"]["text"] == "echo: hello", second
        assert n_calls(w) == 1
        assert first["usage"]["total_tokens"] > 0 and second["usage"] == NOTHING, (first, second)
        assert second["calls"] == [] and second["cost"] == 0 and second["node"] is None, second
        assert second["attempts"] == 0 and second["started_at"] is None, second
        timing = second["timing"]
        assert timing["engine_ms"] is None and timing["total_ms"] == timing["queue_ms"] >= 0, timing
        assert [w.metric("genq_cache_" + m) for m in ("hits_total", "misses_total", "entries")] == [1, 1, 1]
        told = subprocess.run([os.environ["GENQ"], "get", second["id"], "--server", "http://127.0.0.1:%d" % w.port],
                              capture_output=True, text=True, check=True, timeout=60).stdout
        assert "status    succeeded, from the result cache\n" in told, told
        assert w.metric("genq_cache_bytes") > len(json.dumps(first["output"]))
        assert w.metric("genq_engine_calls_total") == 1
        used = w.get("/api/v1/usage").json["data"]
        assert [(u["calls"], u["jobs"], u["total_tokens"]) for u in used] == \
            [(1, 1, first["usage"]["total_tokens"])], used
        listed = w.get("/api/v1/completions").json["data"]
        assert [c["cached"] for c in listed] == [False, True], listed


def test_who_looks_by_itself():
    with World() as w:
        for fields, is_cached in (({}, False), ({"temperature": 0.5}, False), ({"temperature": 0}, True),
                                  ({"temperature": 0.0}, True), ({"seed": 7}, True),
                                  ({"seed": 0, "temperature": 1}, True), ({"top_k": 1}, False),
                                  ({"temperature": 0, "cache": "bypass"}, False),
                                  ({"top_k": 2, "cache": "use"}, True)):
            fields["prompt"] = json.dumps(fields)
            assert ask(w, **fields)["cached"] is False, fields
            assert ask(w, **fields)["cached"] is is_cached, fields


def test_bypass_neither_reads_nor_writes_and_refresh_overwrites():
    with World() as w:
        assert ask(w, temperature=0, cache="bypass")["cached"] is False
        assert not os.path.exists(cache_file(w))  # nor has it cost anything
        assert ask(w, temperature=0)["cached"] is False  # it was not written
        [(row,)] = wait_for(lambda: rows(w, "row"), "the answer in its file")
        assert ask(w, temperature=0, cache="bypass")["cached"] is False and n_calls(w) == 3
        assert ask(w, temperature=0, cache="refresh")["cached"] is False and n_calls(w) == 4
        wait_for(lambda: [r for (r,) in rows(w, "row") if r > row], "the answer, written anew")
        assert len(rows(w, "row")) == 1
        assert ask(w, temperature=0)["cached"] is True and n_calls(w) == 4


def test_what_is_the_same_question():
    aliases = "models: {small: {target: stub}}\nqueues: {other: {}}\n"
    base = {"temperature": 0, "max_tokens": 50, "options": {"mirostat": 2}}
    same = [{"priority": "high"}, {"metadata": {"a": 1}}, {"custom_id": "c"}, {"session": "s"},
            {"timeout_ms": 5000}, {"max_attempts": 2}, {"batch_id": "b"}, {"queue": "other"},
            {"deadline": 253402300799999}, {"keep_alive": "5m"}, {"model": "small"}, {"stream": True},
            {"not_before": 1}]
    other = [{"tenant": "else"}, {"prompt": "hullo"}, {"max_tokens": 51}, {"options": {"mirostat": 1}},
             {"seed": 1}, {"model": "stub2"}, {"stop": ["x"]}]
    with World(stub=["--model", "stub", "--model", "stub2"], config=aliases) as w:
        assert ask(w, **base)["cached"] is False
        for more in same:
            assert ask(w, **{**base, **more})["cached"] is True, more
        for more in other:
            assert ask(w, **{**base, **more})["cached"] is False, more
        assert n_calls(w) == 1 + len(other)
        reply = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "cache": "maybe"})
        assert reply.status == 400 and reply.error["param"] == "cache", reply
        assert "use, refresh or bypass" in reply.error["message"], reply


def test_each_kind_of_answer_comes_back_whole():
    kinds = [{"prompt": "p"}, {"prompt": None, "messages": [{"role": "user", "content": 'a "b" \u00e9'}]},
             {"prompt": None, "input": ["one", "two"]},
             {"prompt": "j", "response_format": {"type": "json_object"}}]
    with World() as w:
        for fields in kinds:
            first, second = ask(w, seed=1, **fields), ask(w, seed=1, **fields)
            assert second["cached"] and second["output"] == first["output"] and first["output"], second


def test_what_failed_is_not_kept():
    with World() as w:
        w.faults("kind=status,code=400,times=1")
        job = w.finished(w.submit(seed=1)["id"])
        assert job["status"] == "failed" and job["cached"] is False, job
        assert ask(w, seed=1)["cached"] is False
        assert ask(w, seed=1)["cached"] is True


def test_it_outlives_kills_and_restarts():
    with World() as w:
        ask(w, seed=1)
        assert ask(w, seed=1)["cached"] is True
        w.genq.end(signal.SIGKILL)
        w.start()
        assert w.metric("genq_cache_entries") == 1 or wait_for(lambda: w.metric("genq_cache_entries") == 1)
        assert ask(w, seed=1)["cached"] is True and n_calls(w) == 1


def test_killed_among_hits_each_job_ends_once():
    with World() as w:
        ask(w, seed=1)
        jobs = [{"id": "j%d" % i, "model": "stub", "prompt": "hello", "seed": 1} for i in range(400)]
        for at in (0, 60, 200):
            assert w.post("/api/v1/jobs", jobs[:200] if at < 200 else jobs).status == 200
            wait_for(lambda: w.metric("genq_cache_hits_total") >= at / 2, "some hits")
            w.genq.end(signal.SIGKILL)
            w.start()
        for job in jobs:
            done = w.finished(job["id"])
            assert done["status"] == "succeeded" and done["output"]["text"] == "echo: hello", done
            assert done["cached"] and not done["calls"] and done["usage"] == NOTHING, done
        feed = w.get("/api/v1/completions?limit=1000").json["data"]
        assert sorted(c["id"] for c in feed[1:]) == sorted(j["id"] for j in jobs) and n_calls(w) == 1


def test_time_ends_it():
    with World(config="cache: {ttl_s: 1}\n") as w:
        ask(w, seed=1)
        wait_for(lambda: not ask(w, seed=1)["cached"], "the end of the answer's time")
        assert n_calls(w) == 2
        ask(w, seed=2)
        wait_for(lambda: not ask(w, seed=3, cache="refresh")["cached"] and len(rows(w, "row")) == 1,
                 "old answers to go when new ones come")


def test_max_bytes_bounds_it_and_the_oldest_go():
    with World(config="cache: {max_bytes: 8192}\n") as w:
        for i in range(60):
            ask(w, seed=i)
        wait_for(lambda: 10 < w.metric("genq_cache_entries") < 60, "some, not all")
        assert 4096 < w.metric("genq_cache_bytes") <= 8192
        assert sum(n for (n,) in rows(w, "bytes")) == w.metric("genq_cache_bytes")
        assert ask(w, seed=59)["cached"] is True and ask(w, seed=0)["cached"] is False
        w.faults("kind=huge,bytes=1,match=long")  # longer than all of it
        long = {"prompt": "long", "seed": 1}
        assert [ask(w, **long)["cached"] for _ in range(2)] == [False, False]
        assert ask(w, seed=59)["cached"] is True


def test_answers_over_4_mib_are_not_kept():
    with World(stub=["--fault", "kind=huge,bytes=5,match=long", "--fault", "kind=huge,bytes=3,match=short"]) as w:
        for prompt, is_kept in (("long", False), ("short", True)):
            assert [ask(w, prompt=prompt, seed=1)["cached"] for _ in range(2)] == [False, is_kept], prompt


def test_zero_is_off():
    for setting in ("ttl_s", "max_bytes"):
        with World(config="cache: {%s: 0}\n" % setting) as w:
            ask(w, seed=1)
            assert ask(w, seed=1)["cached"] is False and n_calls(w) == 2
            assert not os.path.exists(cache_file(w))


def test_a_damaged_file_begins_anew():
    with World() as w:
        ask(w, seed=1)
        for damage in ("garbage" * 1000, "", None):
            w.stop()
            if damage is None:  # of another version
                db = sqlite3.connect(cache_file(w))
                db.execute("PRAGMA user_version=99")
                db.commit()
                db.close()
            else:
                with open(cache_file(w), "w", encoding="utf-8") as f:
                    f.write(damage)
            w.start()
            assert ask(w, seed=1)["cached"] is False
            assert ask(w, seed=1)["cached"] is True


def test_a_file_that_cannot_be_opened_costs_nobody_a_job():
    with World() as w:
        os.mkdir(cache_file(w))
        assert [ask(w, seed=1)["cached"] for _ in range(3)] == [False] * 3
        assert read_file(w.genq.log).count("cache_fails") == 1
        os.rmdir(cache_file(w))


def test_a_watched_hit_sends_its_completion():
    with World() as w:
        first = ask(w, seed=1)
        job = w.submit(seed=1, stream=True)
        with w.events("/api/v1/jobs/%s/events" % job["id"]) as stream:
            *_, last = list(stream)
        assert last["event"] == "completion" and last["data"]["cached"], last
        assert last["data"]["output"]["text"] == first["output"]["text"]


def test_batch_run_uses_it_too():
    with World() as w:
        name = os.path.join(w.folder, "in.jsonl")

        def batch(n, *more):
            with open(name, "w", encoding="utf-8") as f:
                f.write(n * (json.dumps({"prompt": "same", "temperature": 0}) + "\n"))
            before = n_calls(w)
            subprocess.run([os.environ["GENQ"], "batch", "run", name, "-o", "out.jsonl", "-m", "stub", "--engine",
                            "http://127.0.0.1:%d" % w.stub_port, *more], cwd=w.folder, check=True, timeout=60,
                           capture_output=True, env={**os.environ, "GENQ_CONFIG": ""})
            out = [json.loads(line) for line in read_file(os.path.join(w.folder, "out.jsonl")).splitlines()]
            assert len(out) == n and {job["output"]["text"] for job in out} == {"echo: same"}, out
            return n_calls(w) - before, sum(job["cached"] for job in out)

        calls, hits = batch(20)  # those that are asked before the first is answered are calls, too
        assert calls >= 1 and calls + hits == 20
        assert os.path.exists(os.path.join(w.folder, "out.jsonl.genq", "genq-cache.db"))
        assert batch(30) == (0, hits + 10)
        calls, hits = batch(20, "--fresh")  # forgets what was cached as well
        assert calls >= 1 and calls + hits == 20


if __name__ == "__main__":
    run(globals())
