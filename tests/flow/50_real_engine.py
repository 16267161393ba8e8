"""A real engine with a real model: llama.cpp's server and SmolLM2 (tests/lib/real_engine.sh). Skipped
where PyPI cannot be reached."""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import genq  # noqa: E402

ENGINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib/real_engine.sh")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "label", "schema": {
    "type": "object", "properties": {"label": {"enum": ["fruit", "animal"]}},
    "required": ["label"]}}}
LINES = [
    {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0},
    {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0},
    {"messages": [{"role": "user", "content": "Is a banana a fruit or an animal?"}],
     "max_tokens": 24, "temperature": 0, "response_format": SCHEMA},
    {"custom_id": "o1", "method": "POST", "url": "/v1/chat/completions",
     "body": {"model": "smollm2", "messages": [{"role": "user", "content": "Count to three."}],
              "max_tokens": 8}},
]


URL = None


class Real(genq.World):
    """A genq on the real engine, without a stub."""

    def start_stub(self):
        self.engines = [URL]


def test_batch_run():
    with tempfile.TemporaryDirectory() as folder:
        path, out = os.path.join(folder, "in.jsonl"), os.path.join(folder, "out.jsonl")
        with open(path, "w") as f:
            f.writelines(json.dumps(line) + "\n" for line in LINES)
        done = subprocess.run([os.environ["GENQ"], "batch", "run", path, "-o", out, "-m", "smollm2",
                               "--engine", URL], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        with open(out) as f:
            results = [json.loads(line) for line in f]
        assert len(results) == len(LINES)
        assert "Paris" in results[0]["output"]["text"], results[0]
        assert results[1]["output"]["message"]["role"] == "assistant", results[1]
        assert results[2]["output"]["json"]["label"] in ("fruit", "animal"), results[2]
        for job in results[:3]:
            assert job["usage"]["prompt_tokens"] > 0 and job["usage"]["completion_tokens"] > 0, job
        body = results[3]["response"]["body"]
        assert results[3]["custom_id"] == "o1" and body["object"] == "chat.completion", results[3]
        assert body["choices"][0]["message"]["content"], body


def test_streamed_tokens_add_up_to_the_answer():
    with Real() as w:
        job = w.submit(model="smollm2", max_tokens=40, stream=True, temperature=0, prompt=None,
                       messages=[{"role": "user", "content": "Tell me a story."}])
        text, end = "", None
        with w.events("/api/v1/jobs/%s/events" % job["id"], limit_s=60) as events:
            for event in events:
                if event.get("event") == "delta":
                    text += event["data"]["text"]
                elif event.get("event") == "completion":
                    end = event["data"]
                    break
        assert end["status"] == "succeeded", end
        assert text and text == end["output"]["text"], (text, end["output"])
        assert end["timing"]["first_token_ms"] is not None, end["timing"]


def main():
    global URL
    got = subprocess.run([ENGINE], capture_output=True, text=True, check=False)
    if got.returncode == 77:
        print(got.stderr)
        sys.exit(77)
    assert got.returncode == 0, got.stderr
    URL = got.stdout.strip()
    try:
        genq.run(globals())
    finally:
        subprocess.run([ENGINE, "down"], check=False)


main()
