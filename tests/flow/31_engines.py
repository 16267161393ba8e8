"""Engine nodes: dialects told apart by probing, health, slots, weights, models and aliases, what is
sent along, where URLs may point, cost."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import LIMIT_S, Nodes, read_file, run, wait_for  # noqa: E402

NOBODY = "http://127.0.0.1:1"  # nothing listens there
QUICK = "health: {interval_ms: 50, fall: 3, rise: 2}\nretry: {base_ms: 1, cap_ms: 20}\n"
HEALTH = "/api/version"  # what an Ollama is asked


def jobs(w, n, prefix="j", **fields):
    """Submits n jobs, gives them once all have ended."""
    body = [{"model": "stub", "prompt": "key=%s%d" % (prefix, i), "id": "%s%d" % (prefix, i), **fields}
            for i in range(n)]
    reply = w.post("/api/v1/jobs", body)
    assert reply.status == 200, reply
    return [w.finished(j["id"]) for j in body]


def log_events(w, name):
    lines = [json.loads(line) for line in read_file(w.genq.log).splitlines()
             if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if line["event"] == name]


# ---- dialects

def test_dialects_are_told_apart():
    nodes = {"ollama": (["--dialect", "ollama", "--model", "m1"], ""),
             "openai": (["--dialect", "openai", "--model", "m2"], ""),
             "both": (["--dialect", "both", "--model", "m3"], "")}
    with Nodes(nodes) as w:
        w.await_nodes()
        assert {n: w.state_of(n)["api"] for n in nodes} == \
            {"ollama": "ollama", "openai": "openai", "both": "ollama"}
        for model, name, path in (("m1", "ollama", "/api/generate"), ("m2", "openai", "/v1/completions"),
                                  ("m3", "both", "/api/generate")):
            done = w.finished(w.submit(model=model)["id"])
            assert done["node"] == name and done["status"] == "succeeded", done
            assert [r["path"] for r in w.node[name].requests()] == [path]
        paths = [r["path"] for r in w.node["openai"].requests(None)]
        assert paths[:2] == ["/api/version", "/v1/models"], paths


def test_a_told_dialect_is_not_probed():
    with Nodes({"a": ([], "api: openai"), "b": (["--model", "other"], "api: ollama")}) as w:
        w.await_nodes()
        assert w.state_of("a")["api"] == "openai" and w.state_of("b")["api"] == "ollama"
        w.finished(w.submit(model="stub:latest")["id"])
        w.finished(w.submit(model="other")["id"])
        paths = {r["path"] for r in w.node["a"].requests(None)}
        assert paths == {"/v1/models", "/props", "/v1/completions"}, paths
        assert {r["path"] for r in w.node["b"].requests()} == {"/api/generate"}


def test_what_is_no_engine_is_told():
    with Nodes({"a": (["--prefix", "/elsewhere"], "")}, QUICK) as w:
        w.await_nodes(a="down")
        assert "neither Ollama nor an OpenAI" in w.state_of("a")["error"], w.state_of("a")
        assert w.state_of("a")["api"] == "unknown"


def test_streams_and_plain_answers_agree_in_both_dialects():
    nodes = {"oll": (["--dialect", "ollama", "--model", "oll"], ""),
             "oai": (["--dialect", "openai", "--model", "oai"], "")}
    bodies = {"prompt": {"prompt": "say \u00e4\U0001f600\"\\\n it"},
              "chat": {"messages": [{"role": "user", "content": "say \u00e4\U0001f600\"\\\n it"}]}}
    with Nodes(nodes) as w:
        seen = []
        for model in nodes:
            for kind, body in bodies.items():
                for stream in (False, True):
                    job = {"model": model, "stream": stream, **body}
                    done = w.post("/api/v1/jobs?wait=60s", job).json
                    assert done["status"] == "succeeded", done
                    assert done["output"]["text"] == "echo: say \u00e4\U0001f600\"\\\n it", done
                    assert done["output"]["finish_reason"] == "stop", done
                    seen.append((kind, done["usage"]["prompt_tokens"], done["usage"]["completion_tokens"]))
        assert len(set(seen)) == 2, seen


# ---- slots and weights

def test_slots_are_filled_and_not_exceeded():
    long = ["--latency-ms", "300"]  # so that all of them are there at once, even if each starts late
    nodes = {"three": ([*long, "--model", "a"], "slots: 3"),
             "auto": ([*long, "--model", "b"], "slots: auto"),
             "told": ([*long, "--model", "c", "--dialect", "openai", "--props", "6"], "")}
    with Nodes(nodes) as w:
        w.await_nodes()
        for prefix in "abc":
            jobs(w, 30, prefix, model=prefix)
        assert {n: w.node[n].stats()["max_in_flight"] for n in nodes} == \
            {"three": 3, "auto": 4, "told": 6}
        assert w.state_of("told")["slots"] == 6, w.state_of("told")


def test_weights_share_jobs_that_all_find_room():
    with Nodes({"heavy": (["--latency-ms", "3000"], "slots: 20, weight: 30"),
                "light": (["--latency-ms", "3000"], "slots: 20, weight: 10")}) as w:
        w.await_nodes()
        body = [{"model": "stub", "prompt": "p"} for _ in range(12)]
        assert w.post("/api/v1/jobs", body).status == 200
        wait_for(lambda: sum(len(w.node[n].events("recv")) for n in w.node) == 12)
        shares = {n: len(w.node[n].events("recv")) for n in w.node}
        assert shares == {"heavy": 9, "light": 3}, shares


def test_a_busy_node_does_not_hold_up_a_free_one():
    with Nodes({"slow": (["--latency-ms", "100000"], "slots: 1, weight: 1000"),
                "quick": ([], "slots: 1, weight: 1")}) as w:
        w.await_nodes()
        first = w.submit(id="first")
        wait_for(lambda: w.node["slow"].events("recv"))
        assert {j["node"] for j in jobs(w, 20)} == {"quick"}
        assert w.get("/api/v1/jobs/" + first["id"]).json["status"] == "running"


# ---- health

def test_three_failures_take_a_node_out_and_two_successes_bring_it_back():
    with Nodes({"a": ([], ""), "b": ([], "")}, QUICK) as w:
        w.await_nodes()
        a = w.node["a"]

        def faults():
            return len([e for e in a.events("fault", None) if e[4] == HEALTH])

        def checks():
            return len([e for e in a.events("sent", None) if e[4] == HEALTH])

        a.faults("kind=status,code=500,times=2,path=" + HEALTH)  # two are borne
        good = checks()
        wait_for(lambda: faults() == 2 and checks() >= good + 2, "checks after two failures")
        assert not log_events(w, "node_down"), log_events(w, "node_down")
        a.faults("kind=status,code=500,path=" + HEALTH)
        w.await_nodes(a="down")
        assert faults() >= 5, faults()  # two and three
        assert "HTTP 500" in w.state_of("a")["error"], w.state_of("a")
        ready = w.get("/readyz").json["checks"]["engines"]
        assert ready["up"] == 1 and ready["total"] == 2, ready
        assert {j["node"] for j in jobs(w, 10, "out")} == {"b"}
        good = checks()
        a.faults()
        w.await_nodes(a="up")
        assert checks() >= good + 2, (checks(), good)
        a.latency(20)
        w.node["b"].latency(20)
        assert {j["node"] for j in jobs(w, 16, "in")} == {"a", "b"}


def test_a_hanging_check_is_a_failure():
    with Nodes({"a": ([], "")}, "health: {interval_ms: 20, timeout_ms: 50, fall: 2}\n") as w:
        w.await_nodes()
        w.node["a"].faults("kind=hang,path=" + HEALTH)
        w.await_nodes(a="down")
        w.node["a"].faults()
        w.await_nodes(a="up")


def test_jobs_of_a_dead_node_run_elsewhere():
    with Nodes({"a": (["--latency-ms", "100000"], "slots: 4"),
                "b": (["--latency-ms", "40"], "slots: 4")}, QUICK) as w:
        w.await_nodes()
        body = [{"model": "stub", "prompt": "key=d%d" % i, "id": "d%d" % i} for i in range(60)]
        assert w.post("/api/v1/jobs", body).status == 200
        wait_for(lambda: len(w.node["a"].events("recv")) == 4, "jobs at the node")
        w.node["a"].stop()
        done = [w.finished(j["id"]) for j in body]
        assert all(j["status"] == "succeeded" for j in done), done
        moved = [j for j in done if len(j["calls"]) > 1]
        assert len(moved) >= 4 and all(j["node"] == "b" for j in moved), moved
        for j in moved:
            assert j["calls"][0]["node"] == "a" and j["calls"][0]["outcome"] == "cut", j
            assert j["attempts"] == 2, j
        answers = len(w.node["a"].events("sent")) + len(w.node["b"].events("sent"))
        assert answers == 60, answers  # none ran twice to its end
        w.await_nodes(a="down")
        w.node["a"].arguments = ["--latency-ms", "40"]
        w.node["a"].start()
        w.await_nodes(a="up")
        assert {j["node"] for j in jobs(w, 16, "back")} == {"a", "b"}


# ---- models

def test_models_choose_the_node():
    nodes = {"a": (["--model", "x", "--model", "both"], ""), "b": (["--model", "y", "--model", "both"], ""),
             "c": (["--model", "z", "--model", "hidden"], "models: [z]")}
    with Nodes(nodes) as w:
        w.await_nodes()
        assert w.state_of("a")["models"] == ["x:latest", "both:latest"], w.state_of("a")
        assert w.state_of("c")["models"] == ["z:latest"], w.state_of("c")
        for model, node in (("x", "a"), ("y", "b"), ("z", "c"), ("x:latest", "a")):
            done = w.finished(w.submit(model=model)["id"])
            assert done["node"] == node and done["model"] == model, done
        for model in ("hidden", "nothing", "x:7b"):
            done = w.finished(w.submit(model=model)["id"])
            assert done["status"] == "failed" and done["error"]["code"] == "model_not_found", done
            assert model in done["error"]["message"] and "y:latest" in done["error"]["message"], done
            assert not done["calls"], done
        assert not [r for r in w.node["c"].requests() if r["body"]["model"] == "hidden"]


def test_a_model_that_no_node_has_waits_while_a_node_is_away():
    with Nodes({"a": (["--model", "x"], ""), "b": (["--model", "y"], "")}, QUICK) as w:
        w.await_nodes()
        w.node["b"].stop()
        w.await_nodes(b="down")
        w.submit(id="later", model="y")
        assert w.finished(w.submit(model="x")["id"])["status"] == "succeeded"
        assert w.get("/api/v1/jobs/later").json["status"] == "queued"
        w.node["b"].start()
        assert w.finished("later")["status"] == "succeeded"


def test_one_answer_of_not_found_is_one_jobs_own():
    """An engine may say 404 to one request (a path that it lacks, say): other jobs of the model run."""
    for names in ("a", "ab"):
        with Nodes({n: (["--model", "x"], "slots: 2") for n in names}, QUICK) as w:
            w.await_nodes()
            for name in names:
                w.node[name].faults("kind=status,code=404,match=gone,"
                                    "body={\"error\":\"model 'x' not found\"}")
            body = [{"id": "n%d" % i, "model": "x", "prompt": "gone" if i % 10 == 0 else "key=n"}
                    for i in range(60)]
            assert w.post("/api/v1/jobs", body).status == 200
            for i, j in enumerate(body):
                done = w.finished(j["id"])
                if i % 10:
                    assert done["status"] == "succeeded", done
                else:
                    assert done["error"]["code"] == "model_not_found", done
                    assert done["error"]["message"] == "model 'x' not found", done
                    assert 1 <= len(done["calls"]) <= 6, done


def test_a_node_that_lost_a_model_leaves_its_jobs_to_others():
    with Nodes({"a": (["--model", "x"], "slots: 2"), "b": (["--model", "x"], "slots: 2")}, QUICK) as w:
        w.await_nodes()
        w.node["a"].faults("kind=status,code=404")
        done = jobs(w, 20, model="x")
        assert {(j["status"], j["node"]) for j in done} == {("succeeded", "b")}, done


def test_a_model_that_is_deleted():
    with Nodes({"a": (["--model", "x", "--model", "y"], "slots: 1")}, QUICK) as w:
        w.await_nodes()
        w.node["a"].stop()
        w.node["a"].arguments = ["--model", "y"]
        w.node["a"].start()
        wait_for(lambda: w.state_of("a")["models"] == ["y:latest"], "the new list")
        done = w.finished(w.submit(model="x")["id"])
        assert done["error"]["code"] == "model_not_found", done
        assert done["error"]["message"].endswith("there are: y:latest"), done
        assert w.finished(w.submit(model="y")["id"])["status"] == "succeeded"


def test_aliases():
    more = "models: {small: {target: real}, plain: {}}\n"
    with Nodes({"a": (["--model", "real", "--model", "plain"], "")}, more) as w:
        done = w.finished(w.submit(model="small")["id"])
        assert done["status"] == "succeeded" and done["model"] == "small", done
        assert done["calls"][0]["model"] == "real", done
        assert w.finished(w.submit(model="plain")["id"])["status"] == "succeeded"
        assert [r["body"]["model"] for r in w.node["a"].requests()] == ["real", "plain"]


# ---- what is sent, and where to

def test_api_key_and_headers_go_with_every_request():
    settings = "api_key: sk-1, headers: {X-Org: 'my org', x-two: \"a: b\"}"
    with Nodes({"a": ([], settings), "bare": (["--model", "other"], "")}) as w:
        w.await_nodes()
        w.finished(w.submit()["id"])
        w.finished(w.submit(model="other")["id"])
        seen = w.node["a"].requests(None)
        assert {r["path"] for r in seen} == {"/api/version", "/api/tags", "/api/generate"}, seen
        for r in seen:
            h = r["headers"]
            assert h["authorization"] == "Bearer sk-1" and h["x-org"] == "my org", r
            assert h["x-two"] == "a: b", r
        for r in w.node["bare"].requests(None):
            assert "authorization" not in r["headers"] and "x-org" not in r["headers"], r
        assert "sk-1" not in w.get("/api/v1/nodes").body.decode() + read_file(w.genq.log)


def test_a_wrong_key_is_told_and_jobs_wait():
    with Nodes({"a": ([], "")}, QUICK) as w:
        w.await_nodes()
        w.node["a"].faults("kind=status,code=401,body={\"error\":{\"message\":\"bad key\"}}")
        w.submit(id="k")
        wait_for(lambda: "bad key" in (w.state_of("a")["error"] or ""), "the engine's words")
        w.node["a"].faults()
        done = w.finished("k")
        assert done["status"] == "succeeded" and done["attempts"] == 1, done


def url_case(options, suffix, api, path, key="stub"):
    class At(Nodes):
        def start_stub(self):
            super().start_stub()
            self.nodes["a"] = (options, "url: " + self.node["a"].url + suffix)

    with At({"a": (options, "")}) as w:
        done = w.finished(w.submit(model=key)["id"])
        assert done["status"] == "succeeded", done
        assert w.state_of("a")["api"] == api, w.state_of("a")
        requests = [r for r in w.node["a"].requests(None) if r["method"] == "POST"]
        assert [r["path"] for r in requests] == [path], requests


def test_urls_with_a_path_prefix():
    url_case(["--prefix", "/llm"], "/llm", "ollama", "/llm/api/generate")
    url_case(["--prefix", "/a/b", "--dialect", "openai"], "/a/b/", "openai", "/a/b/v1/completions")


def test_urls_that_end_in_v1():
    url_case(["--dialect", "openai"], "/v1", "openai", "/v1/completions")
    url_case(["--dialect", "openai"], "/v1/", "openai", "/v1/completions")
    url_case(["--prefix", "/x", "--dialect", "openai"], "/x/v1", "openai", "/x/v1/completions")
    url_case([], "/v1", "openai", "/v1/completions", "stub:latest")  # Ollama's OpenAI side


# ---- cost

def test_cost():
    nodes = {"a": (["--model", "a", "--tokens", "10"], "cost: {prompt: 2.5, completion: 10}"),
             "b": (["--model", "b", "--tokens", "10"], "cost: {completion: 1e3}"),
             "c": (["--model", "c"], "")}
    with Nodes(nodes) as w:
        w.await_nodes()
        done = {m: w.finished(w.submit(model=m, prompt="x" * 399)["id"]) for m in nodes}
        for m, cost in (("a", (100 * 2.5 + 10 * 10) / 1e6), ("b", 10 * 1e3 / 1e6), ("c", 0)):
            assert abs(done[m]["cost"] - cost) < 1e-12, done[m]
        rows = {r["node"]: r for r in w.get("/api/v1/usage?group_by=node").json["data"]}
        assert abs(rows["a"]["cost"] - 350e-6) < 1e-12 and rows["c"]["cost"] == 0, rows


run(globals())
