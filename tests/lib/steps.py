"""The way of one job, step by step: as docs/architecture.md promises it between its marks, and as the
debug logs of processes tell it."""
import json
import os
import re

from genq import read_file

SOURCE_DIR = os.environ["SOURCE_DIR"]
CONFIG = "log: {level: debug, format: json}\n"

STEPS = ["submit", "append", "apply", "acked", "deliver", "take", "call", "answered", "finish",
         "published", "append", "apply", "wake", "ended"]


def told(log, job_id):
    """What a log file tells of a job, in the order of its lines."""
    lines = [json.loads(line) for line in read_file(log).splitlines()
             if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if line.get("id") == job_id]


def documented(mark):
    """The rows between two of these marks: the cells that stand in backquotes, step and file among
    them. Each file is checked to log its step."""
    text = read_file(os.path.join(SOURCE_DIR, "docs", "architecture.md"))
    parts = text.split("<!-- %s -->" % mark)
    assert len(parts) == 3, "docs/architecture.md needs two <!-- %s --> marks" % mark
    rows = [re.findall(r"\| *`([\w./-]+)`(?= *\|)", line)
            for line in re.findall(r"^\| *\d+ *(\|.*)$", parts[1], re.M)]
    for step, *_, path in rows:
        text = read_file(os.path.join(SOURCE_DIR, path))
        assert re.search(r'log_debug\("%s"' % step, text), "%s does not log %s" % (path, step)
    return rows
