"""Dead letters: what is listed, what each filter leaves, and what becomes of a letter that is redriven. With
Kafka: 71_distributed."""
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, Nodes, run, wait_for  # noqa: E402

WELL, SOME_FAILED, USAGE, NO_SERVER = 0, 1, 2, 3
DAY_MS = 86400000
# A model of its own queue; whatever it is asked fails, as the stub has no such model.
CONFIG = ("queues: {default: {}, slow: {}}\nmodels: {big: {queue: slow}}\n"
          "retry: {attempts: 2, base_ms: 1, cap_ms: 5}\n")


def box(more=""):
    return Nodes({"n": ([], "")}, CONFIG + more)


class Done:
    def __init__(self, p):
        self.code, self.out, self.err = p.returncode, p.stdout, p.stderr

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def __repr__(self):
        return "exit %d\n%s\n%s" % (self.code, self.out[-3000:], self.err[-3000:])


def genq(w, *arguments):
    """A command, against w."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GENQ_")}
    return Done(subprocess.run(
        [os.environ["GENQ"], *arguments, "--server", "http://127.0.0.1:%d" % w.port],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment,
        timeout=LIMIT_S * 2))


def dead(w, *arguments):
    return genq(w, "dead", *arguments)


def ids(w, *arguments):
    done = dead(w, "list", "--json", *arguments)
    assert done.code == WELL, done
    return [letter["job_id"] for letter in done.lines]


def fail(w, **fields):
    """Submits a job of a model that no engine has; gives it, failed."""
    job = w.submit(**{"model": "none", **fields})
    job = w.finished(job["id"], job["tenant"])
    assert job["status"] == "failed" and job["error"]["code"] == "model_not_found", job
    return job


def redriven(w, *arguments):
    """The letters that the command told, which must have gone well."""
    done = dead(w, "redrive", "--json", *arguments)
    assert done.code == WELL, done
    return done.lines


def restart(w, change):
    """change(db) while genq is away."""
    assert w.genq.end() == 0
    db = sqlite3.connect(os.path.join(w.data, "genq.db"))
    with db:
        change(db)
    db.close()
    w.start()


def bury(db):
    """As a broken client would: a record on a job topic that is no job."""
    db.execute("INSERT INTO \"genq.jobs.default.normal\"(off, ts, value) VALUES(7, ?, ?)",
               (int(time.time() * 1000), "no job \u20ac".encode() + b"x" * 300))


# ---- the list


def test_each_filter_leaves_its_own():
    with box() as w:
        w.node["n"].faults("kind=status,code=500,match=key=bad")
        assert w.post("/api/v1/batches?id=b", '{"model":"none","prompt":"x"}\n').status == 201
        w.finished("b-0")
        fail(w, id="a", priority="high")
        fail(w, id="t", tenant="t2")
        fail(w, id="q", model="big")
        w.submit(id="e", prompt="key=bad")
        assert w.finished("e")["error"]["code"] == "attempts_exhausted"
        w.submit(id="fine")
        w.finished("fine")
        assert ids(w) == ["b-0", "a", "t", "q", "e"]
        assert ids(w, "--model", "none") == ["b-0", "a", "t"] and ids(w, "-m", "big") == ["q"]
        assert ids(w, "--code", "attempts_exhausted") == ["e"]
        assert ids(w, "--tenant", "t2") == ["t"]
        assert ids(w, "--queue", "slow") == ["q"]
        assert ids(w, "--batch", "b") == ["b-0"]
        assert ids(w, "a") == ["a"] and ids(w, "t", "--tenant", "default") == []
        assert ids(w, "--limit", "2") == ["b-0", "a"] and ids(w, "-n1") == ["b-0"]
        letters = dead(w, "list", "--json").lines
        third = letters[2]["at"]
        assert ids(w, "--since", str(third)) == [x["job_id"] for x in letters if x["at"] >= third]
        assert ids(w, "--until", str(third)) == [x["job_id"] for x in letters if x["at"] < third]
        assert ids(w, "--since", "2020-01-01") == ids(w) and ids(w, "--until", "2020-01-01") == []
        for far in "x" * 300, "x" * 20000:  # never as if it had not been said
            for done in dead(w, "redrive", "--dry-run", "--since", far), genq(w, "usage", "--from", far):
                assert done.code == USAGE and not done.out, done
        done = dead(w, "list", "--limit", "2")
        cursor = re.search(r"--after (\d+)", done.err).group(1)
        assert ids(w, "--after", cursor) == ["t", "q", "e"], done
        table = dead(w, "list", "--tenant", "t2").out
        assert re.match(r"CAME +JOB +TENANT", table) and "model_not_found" in table, table
        done = dead(w, "list", "--code", "poison")
        assert done.code == WELL and done.out == "" and "no dead letter" in done.err, done


def test_a_letter_tells_where_it_is_from():
    with box() as w:
        job = fail(w, id="a", metadata={"n": 1})
        letter = dead(w, "list", "--json").lines[0]
        assert letter == {
            "object": "dead", "position": "genq.dead/0/0", "at": letter["at"],
            "code": "model_not_found", "reason": job["error"]["message"],
            "source": "genq.jobs.default.normal/0/0", "job_id": "a", "tenant": "default",
            "model": "none", "queue": "default", "batch_id": None, "bytes": letter["bytes"],
            "preview": None, "can_redrive": True, "redriven_as": None}, letter
        assert abs(letter["at"] - job["finished_at"]) < LIMIT_S * 1000 and letter["bytes"] > 30


def test_pages_of_the_api():
    with box() as w:
        for i in range(5):
            fail(w, id="p%d" % i)
        page = w.get("/api/v1/dead?limit=2").json
        assert [x["job_id"] for x in page["data"]] == ["p0", "p1"] and page["has_more"]
        assert page["object"] == "list" and page["end"] == 5
        rest = w.get("/api/v1/dead?after=%d" % page["next"]).json
        assert [x["job_id"] for x in rest["data"]] == ["p2", "p3", "p4"], rest
        assert rest["next"] is None and not rest["has_more"]
        cut = w.get("/api/v1/dead?before=3").json
        assert [x["job_id"] for x in cut["data"]] == ["p0", "p1", "p2"] and not cut["has_more"]


def test_a_record_that_is_no_job():
    with box() as w:
        restart(w, bury)
        letter = wait_for(lambda: dead(w, "list", "--json", "--code", "malformed").lines)[0]
        assert letter["source"] == "genq.jobs.default.normal/0/7" and letter["reason"], letter
        assert letter["preview"] == ("no job \u20ac" + "x" * 190) and letter["bytes"] == 310, letter
        assert not letter["can_redrive"] and letter["job_id"] is None, letter
        assert "no job" in dead(w, "list").out
        fail(w, id="good")
        done = dead(w, "redrive")
        assert done.code == SOME_FAILED and "1 redriven, 0 before, 1 refused" in done.err, done
        assert "refused: the record is no job" in done.out and "normal/0/7" in done.out, done
        assert letter["reason"] in done.out, done


def test_a_job_that_did_not_fail_after_all_has_no_letter():
    """A worker that is killed between letter and completion leaves one; its job may then go well."""
    with box() as w:
        fail(w, id="a")
        restart(w, lambda db: db.execute("UPDATE job SET state=3"))
        assert ids(w) == [] and redriven(w) == []


def test_letters_outlive_a_kill_and_go_after_30_days():
    with box() as w:
        for i in range(3):
            fail(w, id="old%d" % i)
        w.genq.end(signal.SIGKILL)
        w.start()
        assert ids(w) == ["old0", "old1", "old2"]
        old, counts = int(time.time() * 1000) - 31 * DAY_MS, []
        restart(w, lambda db: db.execute("UPDATE \"genq.dead\" SET ts=? WHERE off<2", (old,)))
        assert len(ids(w)) == 3
        fail(w, id="new")
        assert ids(w) == ["old2", "new"]
        restart(w, lambda db: counts.append(db.execute(
            "SELECT n_rows FROM log_topic WHERE name='genq.dead'").fetchone()[0]))
        assert ids(w) == ["old2", "new"] and counts == [2], counts


# ---- redriving


def test_a_redrive_is_a_new_job_of_known_origin():
    with box() as w:
        old = fail(w, id="a", prompt="key=a", metadata={"n": 1}, custom_id="c", seed=7)
        told = redriven(w, "--set-model", "stub", "--option", "temperature=0.5",
                        "--option", "mirostat=2", "--option", "seed=null")
        assert [(x["result"], x["job_id"]) for x in told] == [("redriven", "a")], told
        new = w.finished(told[0]["id"])
        assert new["status"] == "succeeded" and new["redrive_of"] == "a", new
        assert new["attempts"] == 1 and new["created_at"] >= old["finished_at"], new
        assert new["metadata"] == {"n": 1} and new["custom_id"] == "c" and new["model"] == "stub"
        body = w.node["n"].requests()[-1]["body"]
        assert body["prompt"] == "key=a" and body["model"] == "stub", body
        assert body["options"] == {"temperature": 0.5, "mirostat": 2}, body
        feed = w.get("/api/v1/completions").json["data"]
        assert [c.get("redrive_of") for c in feed] == [None, "a"], feed
        assert w.get("/api/v1/jobs/a").json["status"] == "failed"
        shown = subprocess.run([os.environ["GENQ"], "get", new["id"], "--server",
                                "127.0.0.1:%d" % w.port], capture_output=True, text=True, check=True)
        assert "redrives  a" in shown.stdout, shown.stdout


def test_redriven_twice_runs_once():
    with box() as w:
        fail(w, id="a")
        first = redriven(w, "--set-model", "stub")[0]
        w.finished(first["id"])
        for more in ((), ("--set-model", "stub"), ("--option", "seed=1"), ("--dry-run",)):
            again = redriven(w, *more)
            assert [(x["result"], x["id"]) for x in again] == [("already", first["id"])], again
        done = dead(w, "redrive")
        assert "was redriven before, as " + first["id"] in done.out, done
        assert dead(w, "list", "--json").lines[0]["redriven_as"] == first["id"]
        assert "redriven" in dead(w, "list").out
        assert len(w.node["n"].events("recv")) == 1 and len(w.get("/api/v1/jobs").json["data"]) == 2


def test_a_dry_run_changes_nothing():
    with box() as w:
        fail(w, id="a")
        told = redriven(w, "--dry-run", "--set-model", "stub")
        assert [x["result"] for x in told] == ["would"], told
        done = dead(w, "redrive", "--dry-run")
        assert "would be " + told[0]["id"] in done.out and "1 would be redriven" in done.err, done
        assert len(w.get("/api/v1/jobs").json["data"]) == 1
        assert redriven(w, "--set-model", "stub")[0]["id"] == told[0]["id"]


def test_what_fails_again_is_not_run_for_ever():
    with box() as w:
        for i in range(3):
            fail(w, id="a%d" % i)
        told = redriven(w)
        assert [x["job_id"] for x in told] == ["a0", "a1", "a2"], told
        for letter in told:
            assert w.finished(letter["id"])["redrive_of"] == letter["job_id"]
        assert ids(w) == ["a0", "a1", "a2"] + [x["id"] for x in told]
        # Pages of one letter, each of whose jobs fails before the next is asked for.
        end, after, n = w.get("/api/v1/dead").json["end"], 0, 0
        while after is not None:
            page = w.post("/api/v1/dead/redrive?limit=1&after=%d&before=%d" % (after, end), {}).json
            for letter in page["data"]:
                w.finished(letter["id"])
            n += len(page["data"])
            after = page["next"]
        assert n == end == 6, n


def test_many_letters_are_redriven_page_by_page():
    n = 250  # more than a page of the command
    with box() as w:
        jobs = [{"id": "m%d" % i, "model": "none", "prompt": "x"} for i in range(n)]
        assert w.post("/api/v1/jobs", jobs).status == 200
        wait_for(lambda: w.metric("genq_jobs_unfinished") == 0)
        told = redriven(w)
        assert sorted(x["job_id"] for x in told) == sorted(j["id"] for j in jobs), len(told)
        assert {x["result"] for x in told} == {"redriven"} and len(ids(w, "-n", "1000")) >= n


def test_filters_choose_what_is_redriven():
    with box() as w:
        fail(w, id="a")
        fail(w, id="q", model="big")
        fail(w, id="t", tenant="t2")
        assert [x["job_id"] for x in redriven(w, "--limit", "1", "--dry-run")] == ["a"]
        for arguments, wanted in ((["--model", "big"], "q"), (["t"], "t"), (["--queue", "slow"], "q"),
                                  (["--tenant", "t2"], "t"), (["--after", "2"], "t")):
            assert [x["job_id"] for x in redriven(w, "--dry-run", *arguments)] == [wanted], arguments
        for arguments in (["--code", "poison"], ["--batch", "b"], ["--until", "2020-01-01"],
                          ["--since", "2100-01-01"]):
            assert redriven(w, "--dry-run", *arguments) == [], arguments
        assert [x["job_id"] for x in redriven(w, "--tenant", "t2")] == ["t"]
        new = redriven(w, "--model", "big", "--set-model", "stub")[0]
        assert w.finished(new["id"])["queue"] == "default"  # the other model's
        assert w.finished(redriven(w, "t", "--tenant", "t2")[0]["id"], "t2")["tenant"] == "t2"
        assert [x["job_id"] for x in dead(w, "list", "--json").lines
                if not x["redriven_as"]][0] == "a"


def test_a_line_of_a_batch_keeps_its_place():
    with box() as w:
        lines = ['{"model":"stub","prompt":"0"}', '{"custom_id":"c1","method":"POST",'
                 '"url":"/v1/chat/completions","body":{"model":"none","messages":'
                 '[{"role":"user","content":"1"}]}}', '{"model":"stub","prompt":"2"}']
        assert w.post("/api/v1/batches?id=b", "\n".join(lines)).status == 201
        for i in range(3):
            w.finished("b-%d" % i)
        new = w.finished(redriven(w, "--batch", "b", "--set-model", "stub")[0]["id"])
        assert new["batch_id"] == "b" and new["batch_line"] == 1, new
        reply = w.get("/api/v1/batches/b/results").body.decode().splitlines()
        results = [json.loads(line) for line in reply]
        assert len(results) == 3 and results[1]["custom_id"] == "c1", results
        assert results[1]["response"]["status_code"] == 200 and not results[1]["error"], results
        batch = w.get("/api/v1/batches/b").json
        assert batch["status"] == "done" and batch["counts"]["succeeded"] == 3, batch
        assert batch["total"] == 4 and batch["counts"]["failed"] == 1, batch


def test_times_of_then_are_left_out():
    with box() as w:
        now_ms = int(time.time() * 1000)
        fail(w, id="a", not_before=now_ms + 50, deadline=now_ms + DAY_MS, timeout_ms=4321,
             max_attempts=3)
        new = redriven(w, "--option", "max_tokens=5")[0]["id"]
        w.finished(new)
        record = [row for row in sqlite3.connect("file:%s/genq.db?mode=ro" % w.data, uri=True).execute(
            "SELECT value FROM \"genq.dead\" WHERE key=?", (new,))][0][0]
        job = json.loads(record)
        assert "deadline" not in job and "not_before" not in job, job
        assert job["timeout_ms"] == 4321 and job["max_attempts"] == 3, job
        assert job["max_tokens"] == 5 and job["redrive_of"] == "a", job


def test_a_queued_redrive_shows_its_origin():
    with box() as w:
        fail(w, id="a")
        w.node["n"].latency(LIMIT_S * 1000)
        new = redriven(w, "--set-model", "stub")[0]["id"]
        job = w.get("/api/v1/jobs/" + new).json
        assert job["redrive_of"] == "a" and not job["finished_at"], job
        w.delete("/api/v1/jobs/" + new)
        assert w.finished(new)["redrive_of"] == "a"


def test_options_meet_what_the_job_has():
    with box() as w:
        fail(w, id="a", options={"mirostat": 1, "tfs_z": 2}, max_completion_tokens=9, stop="x")
        new = redriven(w, "--set-model", "stub", "--option", "mirostat=3", "--option", "tfs_z=null",
                       "--option", "max_tokens=4", "--option", "stop=[\"y\"]", "--option",
                       "user=it's")[0]["id"]
        w.finished(new)
        body = w.node["n"].requests()[-1]["body"]
        assert body["options"] == {"mirostat": 3, "num_predict": 4, "stop": ["y"]}, body


# ---- what is refused


def test_wrong_input_is_told():
    with box() as w:
        fail(w, id="a")
        for arguments, words in (
                (["redrive", "--option", "temperature=9"], "'temperature' must be a number"),
                (["redrive", "--option", "priority=high"], "'priority' is a field of the job"),
                (["redrive", "--option", "nothing"], "not NAME=VALUE"),
                (["redrive", "--option", "=1"], "not NAME=VALUE"),
                (["redrive", "--set-model", ""], "'model' must be a string of 1 to 256"),
                (["redrive", "--limit", "0"], "--limit: '0'"), (["list", "-n", "x"], "--limit: 'x'"),
                (["list", "--after", "x"], "--after: 'x' is no cursor"),
                (["list", "--since", "soon"], "'since' must be a time"),
                (["redrive", "--until", "soon"], "'until' must be a time"),
                (["list", "--code", "poisn"], "'code' must be a failed job's error code"),
                (["list", "--tenant", "a b"], "'tenant' must be"),
                (["list", "--batch", "a b"], "'batch_id' must be"),
                (["list", "a b"], "'job_id' must be"), (["list", "a", "b"], "one argument too many")):
            done = dead(w, *arguments)
            assert done.code == USAGE and words in done.err and done.out == "", (arguments, done)
        for body, param in (("[]", None), ("{", None), ('{"model":1}', "model"),
                            ('{"options":[]}', "options"), ('{"prompt":"x"}', None)):
            reply = w.post("/api/v1/dead/redrive", body)
            assert reply.status == 400 and reply.error["param"] == param, (body, reply)
        for query, param in (("dry_run=1", "dry_run"), ("before=x", "before"), ("limit=0", "limit"),
                             ("state=x", "state")):
            reply = w.post("/api/v1/dead/redrive?" + query, {})
            assert reply.status == 400 and reply.error["param"] == param, (query, reply)
        assert w.get("/api/v1/dead?dry_run=true").status == 400
        assert len(w.get("/api/v1/jobs").json["data"]) == 1  # nothing of all that was run


def test_a_full_queue_refuses_and_a_repeat_goes_on():
    with box("limits: {queued_jobs: 2}\n") as w:
        for i in range(3):
            fail(w, id="a%d" % i)
        w.node["n"].latency(LIMIT_S * 1000)
        for i in range(2):
            w.submit(id="busy%d" % i)
        done = dead(w, "redrive", "--set-model", "stub")
        assert done.code == NO_SERVER and "queued_jobs" in done.err, done
        w.node["n"].latency(0)
        for i in range(2):
            w.delete("/api/v1/jobs/busy%d" % i)
        wait_for(lambda: w.metric("genq_jobs_unfinished") == 0)
        for letter in redriven(w, "--set-model", "stub", "--limit", "2"):
            assert w.finished(letter["id"])["status"] == "succeeded"
        last = redriven(w, "--set-model", "stub")
        assert [x["result"] for x in last] == ["already", "already", "redriven"], last


run(globals())
