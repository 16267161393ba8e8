"""The way of one job, step by step, from submission to answer: as genq's debug log tells it, and as
docs/architecture.md promises it between its `trace` marks."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from genq import World, run, wait_for  # noqa: E402
from steps import CONFIG, STEPS, documented, told  # noqa: E402


def trace(w, job_id):
    return told(w.genq.log, job_id)


def test_a_job_passes_these_steps_in_this_order():
    with World(config=CONFIG) as w:
        done = w.post("/api/v1/jobs?wait=60s", {"model": "stub", "prompt": "p", "id": "t1"})
        assert done.json["status"] == "succeeded", done
        seen = wait_for(lambda: (lambda t: t and t[-1]["event"] == "ended" and t)(trace(w, "t1")),
                        "the last step")
        print("# " + " -> ".join(line["event"] for line in seen))
        assert [line["event"] for line in seen] == STEPS, seen
        assert [line["ts"] for line in seen] == sorted(line["ts"] for line in seen), seen
        facts = {line["event"]: line for line in seen}
        assert facts["submit"]["topic"] == "genq.jobs.default.normal", facts["submit"]
        assert facts["take"]["attempt"] == 1 and facts["answered"]["status"] == 200, facts
        assert facts["apply"]["topic"] == "genq.completions" and facts["ended"]["code"] == 0, facts


def test_a_retry_goes_back_to_the_call():
    config = CONFIG + "retry: {base_ms: 1}\n"
    with World(config=config, stub=["--fault", "kind=status,code=500,times=1"]) as w:
        w.submit(id="t2")
        assert w.finished("t2")["attempts"] == 2
        seen = wait_for(lambda: (lambda t: t and t[-1]["event"] == "ended" and t)(trace(w, "t2")),
                        "the last step")
        at = STEPS.index("take")
        wanted = STEPS[:at] + ["take", "call", "answered", "retry"] + STEPS[at:]
        assert [line["event"] for line in seen] == wanted, seen


def test_the_documents_tell_the_same():
    assert [step for step, _ in documented("trace")] == STEPS


def test_no_steps_are_told_at_level_info():
    with World() as w:
        w.finished(w.submit(id="t3")["id"])
        assert not trace(w, "t3"), trace(w, "t3")


run(globals())
