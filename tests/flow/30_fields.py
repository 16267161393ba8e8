"""Every field of a job has a case here that changes it and sees what comes of it: at the engine, in
both dialects, in the job as it is read, or in when and where it runs. The fields are those of
schema/job.def; one without a case fails the first test."""
import datetime
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import Nodes, World, read_file, run, wait_for  # noqa: E402

# The model's name chooses the dialect: each of the two nodes lists one.
DIALECTS = {"oll": (["--dialect", "ollama", "--model", "oll"], ""),
            "oai": (["--dialect", "openai", "--model", "oai"], "")}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["x", "y"]}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
ABSENT = object()
CHAT = {"messages": [{"role": "user", "content": "key=%s"}]}
INPUT = {"input": "key=%s"}

# field: values, each (what the job says, where Ollama gets it, what Ollama gets). OpenAI-compatible
# engines get each under its own name, as it was said.
SAMPLING = {
    "max_tokens": [(7, "options.num_predict", 7)],
    "max_completion_tokens": [(9, "options.num_predict", 9)],
    "temperature": [(0, "options.temperature", 0), (0.7, "options.temperature", 0.7)],
    "top_p": [(0.25, "options.top_p", 0.25)],
    "top_k": [(13, "options.top_k", 13)],
    "min_p": [(0.05, "options.min_p", 0.05)],
    "repeat_penalty": [(1.2, "options.repeat_penalty", 1.2)],
    "presence_penalty": [(-1.5, "options.presence_penalty", -1.5)],
    "frequency_penalty": [(0.5, "options.frequency_penalty", 0.5)],
    "seed": [(42, "options.seed", 42), (9007199254740991, "options.seed", 9007199254740991)],
    "stop": [("END", "options.stop", ["END"]), (["a", "b"], "options.stop", ["a", "b"])],
    "response_format": [({"type": "json_object"}, "format", "json"),
                        (JSON_SCHEMA, "format", SCHEMA), ({"type": "text"}, "format", ABSENT)],
    "tools": [(TOOLS, "tools", TOOLS)],
    "tool_choice": [("none", "tool_choice", ABSENT)],
    "parallel_tool_calls": [(False, "parallel_tool_calls", ABSENT)],
    "logprobs": [(True, "logprobs", True)],
    "top_logprobs": [(3, "top_logprobs", 3)],
    "logit_bias": [({"50256": -100}, "logit_bias", ABSENT)],
    "suffix": [("the end", "suffix", "the end")],
    "reasoning_effort": [("low", "reasoning_effort", ABSENT)],
    "dimensions": [(4, "dimensions", 4)],
    "encoding_format": [("float", "encoding_format", ABSENT)],
    "keep_alive": [("5m", "keep_alive", "5m"), (0, "keep_alive", 0)],
    "user": [("someone", "user", ABSENT)],
}
BODIES = {"tools": CHAT, "tool_choice": CHAT, "parallel_tool_calls": CHAT, "logprobs": CHAT,
          "top_logprobs": CHAT, "reasoning_effort": CHAT, "dimensions": INPUT,
          "encoding_format": INPUT}  # the others go with a prompt


def at(body, path):
    for name in path.split("."):
        if not isinstance(body, dict) or name not in body:
            return ABSENT
        body = body[name]
    return body


def fill(value, key):
    if isinstance(value, str):
        return value.replace("%s", key)
    if isinstance(value, list):
        return [fill(v, key) for v in value]
    return {k: fill(v, key) for k, v in value.items()} if isinstance(value, dict) else value


def requests_by_key(stub):
    found = {}
    for r in stub.requests():
        found[re.search(r"key=([\w.-]+)", str(r["body"])).group(1)] = r
    return found


def run_jobs(w, jobs):
    """Submits all, waits for all; gives the finished ones by id."""
    reply = w.post("/api/v1/jobs", jobs)
    assert reply.status == 200 and all("error" not in j or not j["error"] for j in reply.json["data"]), reply
    return {j["id"]: w.finished(j["id"], j.get("tenant", "default")) for j in jobs}


def order_of(w):
    """Keys in the order in which the engine got them."""
    return [line[3] for line in w.stub_events("recv")]


ONE_SLOT = "engines: [{url: 'http://127.0.0.1:%d', slots: 1}]\n"


def one_slot(more="", stub=()):
    """A world whose only node does one job at a time."""
    return World(stub=stub, engines=[], config=lambda w: ONE_SLOT % w.stub_port + more)


def block(w, ms=100000):
    """Occupies the only slot until the engine's latency is changed and the job is cancelled."""
    w.latency(ms)
    job = w.submit(id="blocker", prompt="key=blocker")
    wait_for(lambda: w.stub_events("recv"), "the blocker at the engine")
    w.latency(0)
    return job["id"]


# ---- fields for the engine

def test_every_field_has_a_case():
    text = read_file(os.path.join(os.environ["SOURCE_DIR"], "schema", "job.def"))
    fields = re.findall(r'^JOB_FIELD\(\w+, "(\w+)"', text, re.M)
    sampling = re.findall(r'^SAMPLING\(\w+, "(\w+)"', text, re.M)
    assert len(fields) > 15 and len(sampling) > 20, (fields, sampling)
    missing = [f for f in fields if "test_field_" + f not in globals()]
    missing += [f for f in sampling if f not in SAMPLING]
    assert not missing, "no case for %s" % missing
    known = set(fields) | set(sampling)
    stale = [f for f in SAMPLING if f not in known]
    stale += [n[11:] for n in globals() if n.startswith("test_field_") and n[11:] not in known]
    assert not stale, "cases for what is no field: %s" % stale


def test_sampling_fields_reach_the_engine():
    jobs, wanted = [], []
    for model in DIALECTS:
        for kind, body in (("chat", CHAT), ("prompt", {"prompt": "key=%s"}), ("input", INPUT)):
            jobs.append({"id": "%s-without-%s" % (model, kind), "model": model, **body})
        for name, values in SAMPLING.items():
            for i, (value, place, ollama) in enumerate(values):
                key = "%s-%s-%d" % (model, name, i)
                body = BODIES.get(name, {"prompt": "key=%s"})
                jobs.append({"id": key, "model": model, **body, name: value})
                if model == "oll":
                    wanted.append((model, key, place, ollama, name))
                else:
                    wanted.append((model, key, name, value, name))
    jobs = [{**fill(j, j["id"]), **{n: j[n] for n in SAMPLING if n in j}} for j in jobs]
    with Nodes(DIALECTS) as w:
        done = run_jobs(w, jobs)
        bad = [j for j in done.values() if j["status"] != "succeeded"]
        assert not bad, bad
        seen = {model: requests_by_key(w.node[model]) for model in DIALECTS}
    for model, key, place, value, name in wanted:
        body = seen[model][key]["body"]
        assert at(body, place) == value, (key, place, at(body, place), body)
        if value is ABSENT:  # nor anywhere else
            assert name not in body and name not in body.get("options", {}), (key, body)
        bare = [seen[model]["%s-without-%s" % (model, kind)]["body"]
                for kind in ("chat", "prompt", "input")]
        assert all(at(b, place) is ABSENT for b in bare), (key, bare)


def test_two_names_of_max_tokens_are_refused_together():
    with World() as w:
        reply = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "max_tokens": 1,
                                        "max_completion_tokens": 1})
        assert reply.status == 400 and "max_" in reply.error["param"], reply


# ---- what is run

def test_field_id():
    with World() as w:
        own = w.submit(id="my-id.1", prompt="key=a")
        assert own["id"] == "my-id.1" and w.finished("my-id.1")["id"] == "my-id.1"
        again = w.post("/api/v1/jobs", {"model": "stub", "id": "my-id.1", "prompt": "key=a"})
        assert again.status == 200 and again.json["status"] == "succeeded", again
        made = w.submit(prompt="key=b")["id"]
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", made), made
        w.finished(made)
        assert order_of(w) == ["a", "b"], order_of(w)


def test_field_model():
    with Nodes({"n": (["--model", "one", "--model", "two"], "")}) as w:
        done = run_jobs(w, [{"id": m, "model": m, "prompt": "key=" + m} for m in ("one", "two")])
        seen = requests_by_key(w.node["n"])
        for m in ("one", "two"):
            assert seen[m]["body"]["model"] == m and done[m]["model"] == m, (seen, done)
            assert done[m]["calls"][0]["model"] == m, done


def test_field_prompt():
    text = 'key=p "quoted" \\ \u00e4\u4e2d\U0001f600\n\ttab'
    with Nodes(DIALECTS) as w:
        run_jobs(w, [{"id": m, "model": m, "prompt": text} for m in DIALECTS])
        for m, path in (("oll", "/api/generate"), ("oai", "/v1/completions")):
            r = w.node[m].requests()[0]
            assert r["path"] == path and r["body"]["prompt"] == text, r
            assert w.finished(m)["output"]["text"] == "echo: " + text[:40], w.finished(m)


def test_field_messages():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "key=m"}]
    with Nodes(DIALECTS) as w:
        done = run_jobs(w, [{"id": m, "model": m, "messages": messages} for m in DIALECTS])
        for m, path in (("oll", "/api/chat"), ("oai", "/v1/chat/completions")):
            r = w.node[m].requests()[0]
            assert r["path"] == path and r["body"]["messages"] == messages, r
            assert done[m]["output"]["message"]["content"] == "echo: key=m", done[m]
            assert done[m]["output"]["message"]["role"] == "assistant", done[m]


def test_field_input():
    with Nodes(DIALECTS) as w:
        jobs = [{"id": m + kind, "model": m, "input": value} for m in DIALECTS
                for kind, value in (("-text", "key=one"), ("-list", ["key=list", "two", "three"]))]
        done = run_jobs(w, jobs)
        for m, path in (("oll", "/api/embed"), ("oai", "/v1/embeddings")):
            seen = {r["path"] for r in w.node[m].requests()}
            assert seen == {path}, seen
            assert sorted(str(r["body"]["input"]) for r in w.node[m].requests()) == \
                ["['key=list', 'two', 'three']", "key=one"]
            assert len(done[m + "-text"]["output"]["embedding"]) == 4, done[m + "-text"]
            assert [len(v) for v in done[m + "-list"]["output"]["embedding"]] == [4, 4, 4]
            assert done[m + "-list"]["usage"]["prompt_tokens"] > 0, done[m + "-list"]


def test_field_options():
    """Merged into the body untouched; stronger than the field of the same meaning."""
    options = {"mirostat": 2, "top_k": 99, "keep_alive": "1h", "think": False}
    with Nodes(DIALECTS) as w:
        run_jobs(w, [{"id": m, "model": m, "prompt": "key=" + m, "top_k": 1, "options": options}
                     for m in DIALECTS])
        body = w.node["oai"].requests()[0]["body"]
        assert {k: body[k] for k in options} == options, body
        body = w.node["oll"].requests()[0]["body"]
        assert body["options"] == {"mirostat": 2, "top_k": 99}, body
        assert body["keep_alive"] == "1h" and body["think"] is False, body


# ---- when, where and how

def test_field_priority():
    with one_slot() as w:
        blocker = block(w)
        for p in ("low", "normal", "high"):
            w.submit(id=p, prompt="key=" + p, priority=p)
        w.delete("/api/v1/jobs/" + blocker)
        for p in ("low", "normal", "high"):
            assert w.finished(p)["priority"] == p
        assert order_of(w) == ["blocker", "high", "normal", "low"], order_of(w)


def test_field_queue():
    with World(config="queues: {fast: {}}\n") as w:
        fast = w.submit(queue="fast")
        assert fast["position"].startswith("genq.jobs.fast.normal/"), fast
        assert w.finished(fast["id"])["queue"] == "fast"
        usual = w.submit()
        assert usual["position"].startswith("genq.jobs.default.normal/"), usual
        assert w.finished(usual["id"])["queue"] == "default"
        found = [j["id"] for j in w.get("/api/v1/jobs?queue=fast").json["data"]]
        assert found == [fast["id"]], found
        refused = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "queue": "slow"})
        assert refused.status == 400 and refused.error["param"] == "queue", refused


def test_field_tenant():
    with World() as w:
        w.submit(id="same", tenant="blue", prompt="of blue")
        w.submit(id="same", prompt="of default")
        blue, usual = w.finished("same", "blue"), w.finished("same")
        assert blue["tenant"] == "blue" and blue["output"]["text"] == "echo: of blue", blue
        assert usual["tenant"] == "default" and usual["output"]["text"] == "echo: of default"
        rows = {r["tenant"]: r for r in w.get("/api/v1/usage?group_by=tenant").json["data"]}
        assert set(rows) == {"blue", "default"}, rows
        feed = w.get("/api/v1/completions?tenant=blue").json["data"]
        assert [j["tenant"] for j in feed] == ["blue"], feed


def test_field_batch_id():
    with World() as w:
        w.finished(w.submit(id="in", batch_id="b1")["id"])
        assert w.finished(w.submit(id="out")["id"])["batch_id"] is None
        assert w.get("/api/v1/jobs/in").json["batch_id"] == "b1"
        for path in ("/api/v1/jobs?batch_id=b1", "/api/v1/completions?after=0&batch_id=b1"):
            assert [j["id"] for j in w.get(path).json["data"]] == ["in"], w.get(path)
        rows = {r["batch"]: r for r in w.get("/api/v1/usage?group_by=batch").json["data"]}
        assert "b1" in rows, rows


def test_field_custom_id():
    with World() as w:
        name = "mine \u00e4 \"1\""
        job = w.submit(custom_id=name)
        assert job["custom_id"] == name and w.finished(job["id"])["custom_id"] == name
        assert w.get("/api/v1/completions?after=0").json["data"][0]["custom_id"] == name
        assert w.finished(w.submit()["id"])["custom_id"] is None


def test_field_metadata():
    with World() as w:
        data = {"k": ["v", 1, None, {"\u00e4": True}], "": "x"}
        job = w.submit(metadata=data)
        assert job["metadata"] == data and w.finished(job["id"])["metadata"] == data
        assert w.submit(metadata={"k": "x" * 16000})["metadata"]
        long = w.post("/api/v1/jobs", {"model": "stub", "prompt": "p", "metadata": {"k": "x" * 16400}})
        assert long.status == 400 and long.error["param"] == "metadata", long


def test_field_session():
    """Jobs of one session go to one node, whichever would be chosen else; many sessions use both."""
    with Nodes({"a": ([], "slots: 4"), "b": ([], "slots: 4")}) as w:
        w.await_nodes()
        nodes = {}
        for session in range(12):
            ids = ["s%d-%d" % (session, i) for i in range(4)]
            done = run_jobs(w, [{"id": i, "model": "stub", "prompt": "key=" + i,
                                 "session": "s%d" % session} for i in ids])
            nodes[session] = {j["node"] for j in done.values()}
            assert len(nodes[session]) == 1, nodes
        assert set.union(*nodes.values()) == {"a", "b"}, nodes
        w.node["a"].latency(20)
        w.node["b"].latency(20)
        done = run_jobs(w, [{"id": "n%d" % i, "model": "stub", "prompt": "key=n"} for i in range(8)])
        assert {j["node"] for j in done.values()} == {"a", "b"}, done  # without: by load


def test_field_not_before():
    with World() as w:
        due = time.time() + 4
        text = datetime.datetime.fromtimestamp(due, datetime.timezone.utc).isoformat()
        for key, value in (("ms", int(due * 1000)), ("text", text)):
            job = w.submit(id=key, prompt="key=" + key, not_before=value)
            assert job["status"] == "scheduled", job
            assert job["position"].startswith("genq.scheduled/"), job
            assert w.get("/api/v1/jobs/" + key).json["status"] == "scheduled"
        w.finished(w.submit(prompt="key=now")["id"])
        for key in ("ms", "text"):
            done = w.finished(key)
            assert done["status"] == "succeeded", done
            assert done["started_at"] >= int(due * 1000) - 1, (done["started_at"], due)
        assert order_of(w)[0] == "now", order_of(w)
        past = w.submit(not_before=1000)
        assert past["status"] == "queued" and w.finished(past["id"])["status"] == "succeeded", past


def test_field_deadline():
    with one_slot() as w:
        blocker = block(w)
        soon = w.submit(id="queued", prompt="key=queued", deadline=int(time.time() * 1000) + 200)
        done = w.finished(soon["id"])
        assert done["status"] == "expired" and done["error"]["code"] == "deadline_exceeded", done
        assert done["attempts"] == 0 and not done["calls"], done
        w.delete("/api/v1/jobs/" + blocker)
        w.latency(100000)
        text = datetime.datetime.fromtimestamp(time.time() + 3, datetime.timezone.utc).isoformat()
        w.submit(id="running", prompt="key=running", deadline=text)
        done = w.finished("running")
        assert done["status"] == "expired" and done["error"]["code"] == "deadline_exceeded", done
        assert [c["outcome"] for c in done["calls"]] == ["cancelled"], done
        wait_for(lambda: [e for e in w.stub_events("abort") if e[3] == "running"], "the abort")
        w.latency(0)
        late = w.submit(id="late", prompt="key=late", deadline=1000)
        assert w.finished(late["id"])["status"] == "expired"
        far = w.submit(id="far", prompt="key=far", deadline=int(time.time() * 1000) + 60000)
        assert w.finished(far["id"])["status"] == "succeeded"
        assert order_of(w) == ["blocker", "running", "far"], order_of(w)


def test_field_timeout_ms():
    with World(stub=["--fault", "kind=hang,match=key=hang"]) as w:
        started = time.monotonic()
        job = w.submit(prompt="key=hang", timeout_ms=250, max_attempts=1)
        done = w.finished(job["id"])
        took = time.monotonic() - started
        assert done["status"] == "failed" and done["error"]["code"] == "engine_timeout", done
        assert done["calls"][0]["outcome"] == "timeout" and took < 60, (done, took)
        assert 240 <= done["calls"][0]["ms"] < 30000, done["calls"]
        w.latency(300)
        job = w.submit(prompt="key=slow", timeout_ms=60000)
        assert w.finished(job["id"])["status"] == "succeeded"


def test_field_max_attempts():
    with World(stub=["--fault", "kind=status,code=500"], config="retry: {base_ms: 1}\n") as w:
        for n in (1, 2, 4):
            w.submit(id="m%d" % n, prompt="key=m%d" % n, max_attempts=n)
        for n in (1, 2, 4):
            done = w.finished("m%d" % n)
            assert done["error"]["code"] == "attempts_exhausted", done
            assert done["attempts"] == n and len(done["calls"]) == n, done
            assert order_of(w).count("m%d" % n) == n, order_of(w)


def read_text(events, until=None):
    """The tokens up to the completion, or so many of them."""
    text, n = "", 0
    for e in events:
        if e.get("event") == "delta":
            text += e["data"]["text"]
            n += 1
        if e.get("event") == "completion":
            assert e["data"]["status"] == "succeeded", e
        if n == until:
            break
    assert until is None or n == until, text
    return text


def test_field_cache():
    """Whether a question that was answered is asked again, and whether its answer is kept."""
    with World() as w:
        def asked(prompt, *modes):
            for mode in modes:
                w.finished(w.submit(prompt="key=" + prompt, **({"cache": mode} if mode else {}))["id"])
            return order_of(w).count(prompt)

        assert asked("u", "use", "use", "use") == 1
        assert asked("b", "bypass", "bypass", "use") == 3
        assert asked("r", "use", "refresh", "use") == 2
        assert asked("d", None, None) == 2


def test_field_stream():
    """Asked for at the engine; tokens reach who listens, those that join late from the first on."""
    with Nodes({m: (["--chunk-ms", "400", *options], settings)
                for m, (options, settings) in DIALECTS.items()}) as w:
        for m in DIALECTS:
            job = {"model": m, "messages": [{"role": "user", "content": "key=s one two three"}]}
            for key, stream in (("s", True), ("p", False)):
                assert w.post("/api/v1/jobs", {**job, "id": key + m, "stream": stream}).status == 201
            with w.events("/api/v1/jobs/s%s/events" % m) as early:
                text = read_text(early, until=2)
                with w.events("/api/v1/jobs/s%s/events" % m) as late:
                    assert read_text(late) == "echo: key=s one two three"
                assert text + read_text(early) == "echo: key=s one two three"
            with w.events("/api/v1/jobs/p%s/events" % m) as events:
                assert read_text(events) == ""
            bodies = sorted(r["body"]["stream"] for r in w.node[m].requests())
            assert bodies == [False, True], bodies
            done, plain = w.finished("s" + m), w.finished("p" + m)
            assert done["output"] == plain["output"], (done["output"], plain["output"])
            assert done["usage"] == plain["usage"] and done["usage"]["completion_tokens"] == 8, done
            assert done["timing"]["first_token_ms"] is not None, done
            assert done["timing"]["first_token_ms"] < done["timing"]["engine_ms"], done


run(globals())
