"""`genq batch run` is killed again and again, its input comes as a file, through a pipe, and changes
between two runs; the output must be what one undisturbed run over the last input gives."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from judge import Judge, read_result  # noqa: E402
from rig import (IS_SLOW, RANDOM, SLOTS, Folder, Process, Stub, Thread, check_sane,  # noqa: E402
                 mono_us, n_kills, write_config)

N_JOBS = 2000 if IS_SLOW else 4000
KILLS = n_kills(24 if IS_SLOW else 60)
VOLATILE = ("id", "created_at", "started_at", "finished_at", "timing", "calls", "attempts")


def job_line(key, i):
    prompt = f"key={key} tell me about {i}"
    if i % 7 == 3:
        return json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions",
                           "body": {"model": "stub", "messages": [{"role": "user",
                                                                   "content": prompt}]}})
    if i % 7 == 5:
        return json.dumps({"messages": [{"role": "user", "content": prompt}], "model": "stub",
                           "custom_id": key, "stream": i % 2 == 1})
    return json.dumps({"prompt": prompt, "model": "stub", "custom_id": key})


def wanted_of(line):
    try:
        j = json.loads(line)
        body = j.get("body", j)
        prompt = body.get("prompt") or body["messages"][-1]["content"]
    except ValueError:
        return None, "invalid_request"
    return j["custom_id"], "echo: " + prompt[:40]


def first_input():
    lines = [job_line(f"L{i:05}", i) for i in range(N_JOBS)]
    for i in range(0, N_JOBS, 100):
        lines[i] = lines[max(0, i - 1)]  # repeated lines
    lines[N_JOBS // 2] = '{"prompt": no json'
    return lines


def changed(lines, n_change):
    """Inserted, removed, moved and repeated lines, anywhere."""
    lines = list(lines)
    for i in range(N_JOBS // 4):
        lines.insert(RANDOM.randrange(len(lines)), job_line(f"N{n_change}-{i}", i))
        del lines[RANDOM.randrange(len(lines))]
        if i % 10:
            continue
        lines.insert(RANDOM.randrange(len(lines)), lines.pop(RANDOM.randrange(len(lines))))
        lines.insert(RANDOM.randrange(len(lines)), RANDOM.choice(lines))
    return lines


class Run:
    """One output with its state, killed and continued."""

    def __init__(self, folder, name, stub, config):
        self.folder, self.stub, self.config = folder, stub, config
        self.inz, self.outz = folder(f"{name}.in"), folder(f"{name}.out")
        self.errors = folder(f"{name}.err")
        self.judge = Judge(self.outz + ".genq", stub.log)
        self.n_killed = 0
        self.all_keys = set()

    def set_input(self, lines):
        self.lines = lines
        self.all_keys.update(wanted_of(line)[0] for line in lines)
        with open(self.inz, "w") as f:
            f.write("".join(line + "\n" for line in lines))

    def feed(self, pipe):
        try:
            with pipe, open(self.inz, "rb") as f:
                while chunk := f.read(RANDOM.randrange(1, 60000)):
                    pipe.write(chunk)
                    pipe.flush()
        except BrokenPipeError:
            pass

    def once(self, kill_after_s, is_piped):
        """One process. True when it was killed; else it ended by itself, with self.code."""
        self.judge.started(mono_us())
        p = Process(["--config", self.config, "batch", "run", "-" if is_piped else self.inz, "-o",
                     self.outz], self.errors, stdin=subprocess.PIPE if is_piped else None)
        feeder = Thread(self.feed, p.process.stdin) if is_piped else None
        was_killed = False
        if kill_after_s is not None:
            was_killed = p.wait_or_kill(kill_after_s)
            self.code = p.process.returncode
        else:
            self.code = p.wait(120)
        if feeder:
            feeder.join(20)
        check_sane(p)
        if was_killed:
            self.stub.settle()
            self.n_killed += 1
        self.judge.ended(p.killed_us, was_killed)
        return was_killed

    def undisturbed(self, is_piped=False):
        """To the end. Lines that were in flight at two kills failed, and are tried again."""
        for _ in range(4):
            self.once(None, is_piped)
            failed = [(k, a) for k, a in self.results() if a in ("poison",)]
            if not failed:
                return
            assert self.code == 1, f"{len(failed)} lines failed, but exit code {self.code}"
        raise AssertionError(f"still failing: {failed[:5]}")

    def results(self):
        with open(self.outz) as f:
            return [read_result(line) for line in f]

    def check(self):
        has_bad = any(wanted_of(line)[0] is None for line in self.lines)
        assert self.code == (1 if has_bad else 0), f"exit code {self.code}"
        wanted = [wanted_of(line) for line in self.lines]
        self.judge.verdict(left_over=self.all_keys - {key for key, _ in wanted})
        self.judge.check_output(self.outz, wanted)


def normal(path):
    """Output lines without what differs between any two runs."""
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    for j in lines:
        for name in VOLATILE:
            j.pop(name, None)
        body = (j.get("response") or {}).get("body") or {}
        for part in (j.get("response") or {}, body):
            for name in ("id", "request_id", "created"):
                part.pop(name, None)
    return lines


def check_like_undisturbed(run, other):
    other.set_input(run.lines)
    with open(run.inz) as f, open(other.inz, "w") as g:
        g.write(f.read())
    other.inz = run.inz  # messages of refused lines name the file
    other.once(None, False)
    a, b = normal(run.outz), normal(other.outz)
    for n, (x, y) in enumerate(zip(a, b)):
        assert x == y, f"line {n + 1} differs from an undisturbed run's:\n{x}\n{y}"
    assert len(a) == len(b)


def main():
    folder = Folder("batch_kill")
    stub = Stub(folder, "--latency-ms", 5, "--jitter-ms", 5)
    config = write_config(folder("genq.yaml"), stub.url)
    n_slow = 3 if IS_SLOW else 1
    runs = []
    for name, n_kill, is_piped, n_changes in (("file", KILLS // 2, False, 0),
                                              ("pipe", KILLS // 4, True, 0),
                                              ("changed", KILLS - KILLS // 2 - KILLS // 4, False, 3)):
        # So slow that every kill meets work: a kill comes after 0.22 s on average.
        n_stage = max(1, n_kill // (n_changes + 1))
        n_new = N_JOBS // 4 if n_changes else N_JOBS
        ms = max(5, int(n_stage * n_slow * 225 * SLOTS / n_new / 1.5))
        own = Stub(folder, "--latency-ms", ms, "--jitter-ms", ms, name=f"stub-{name}")
        run = Run(folder, name, own, write_config(folder(f"{name}.yaml"), own.url))
        lines = first_input()
        for change in range(n_changes + 1):
            if change:
                lines = changed(lines, change)
            run.set_input(lines)
            for _ in range(n_stage):
                run.once(RANDOM.uniform(0.05, 0.4) * n_slow, is_piped)
        run.undisturbed(is_piped)
        run.check()
        print(f"{name}: {len(run.lines)} lines, ", end="")
        run.judge.require()
        runs.append(run)
    runs[2].set_input(runs[2].lines[:10] + runs[2].lines[N_JOBS // 2:])
    runs[2].undisturbed()  # the output gets shorter
    runs[2].check()
    runs[2].judge.require()
    check_like_undisturbed(runs[2], Run(folder, "reference", stub, config))
    check_like_undisturbed(runs[0], Run(folder, "reference0", stub, config))
    print(f"{sum(r.n_killed for r in runs)} kills in all")
    assert sum(r.n_killed for r in runs) >= KILLS * 0.8, "too few kills hit a running process"
    folder.remove()


if __name__ == "__main__":
    main()
