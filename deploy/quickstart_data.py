"""Data of the quick start: package descriptions to label, and a look at the labels.

    quickstart_data.py model URL            name of a chat model that the engine at URL has
    quickstart_data.py make MODEL FILE      40 package descriptions of Debian, one job a line, into FILE
    quickstart_data.py show FILE            results of such jobs: a few of them, how many were right, tokens
"""
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request

# Debian's sections, and a plainer word for each: small models know "music" better than "sound".
LABELS = {"games": "game", "science": "science", "net": "network", "sound": "music", "mail": "email"}
PER_SECTION = 8
TEXT_CHARS = 300

# Examples for the model, none of them a package. Which of them and in which order was chosen on other packages than
# the 40: for a tiny model that moves the result by tens of percent.
EXAMPLES = [
    ("science", "Simulate molecules and chemical reactions"),
    ("network", "Chat client for IRC"),
    ("game", "Strategy game for two players"),
    ("music", "Play and record audio files in many formats"),
    ("email", "Filter spam from incoming e-mail"),
    ("game", "Chess playing program with a 3D board and computer opponents"),
    ("music", "Stream songs and internet radio"),
    ("network", "DNS server"),
    ("science", "Plot data of astronomy experiments"),
    ("email", "SMTP server that delivers messages"),
]


def out_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, errors="replace").stdout


def candidates():
    """Of each section, names of packages that are likely programs: twice as many as needed, since some have next to
    no description. Their order has nothing to do with their meaning, and is the same everywhere."""
    names = {section: set() for section in LABELS}
    for paragraph in out_of("apt-cache", "dumpavail").split("\n\n"):
        section = paragraph[paragraph.find("\nSection: ") + 10:].split("\n", 1)[0]
        if section in names:
            name = re.match(r"Package: ([a-z]+)\n", paragraph)
            if name and not re.search(r"^lib|(dev|doc|data|common)$", name[1]):
                names[section].add(name[1])
    return {section: sorted(found, key=lambda name: hashlib.md5(name.encode()).digest())[:2 * PER_SECTION]
            for section, found in names.items()}


def describe(paragraph):
    """Synopsis and first paragraph of the long description; only the synopsis where apt has no more."""
    found = re.search(r"^Description(?:-en)?: (.*(?:\n .*)*)", paragraph, re.M)
    if not found:
        return ""
    lines = [line.strip() for line in found[1].split("\n")]
    body = " ".join(lines[1:lines.index(".")] if "." in lines else lines[1:])
    text = " ".join(("%s. %s" % (lines[0], body)).split())
    return text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS].rsplit(" ", 1)[0] + " ..."


def packages():
    """(name, section, description) of PER_SECTION packages of each section, taking turns."""
    sections = candidates()
    texts = {}
    listing = out_of("apt-cache", "-o", "Acquire::Languages=en", "show", "--no-all-versions",
                     *(name for names in sections.values() for name in names))
    for paragraph in listing.split("\n\n"):
        if paragraph.startswith("Package: "):
            texts.setdefault(paragraph.split("\n", 1)[0][9:], describe(paragraph))
    columns = [[(name, section, texts[name]) for name in names if len(texts.get(name, "")) > 20][:PER_SECTION]
               for section, names in sections.items()]
    return [row for turn in zip(*columns) for row in turn]


def job(model, name, section, text):
    labels = list(LABELS.values())
    messages = [{"role": "system", "content": "Label each software package with its topic. Topics: %s." % ", ".join(labels)}]
    for label, example in EXAMPLES:
        messages += [{"role": "user", "content": example}, {"role": "assistant", "content": json.dumps({"label": label})}]
    schema = {"type": "object", "properties": {"label": {"enum": labels}}, "required": ["label"]}
    return {"custom_id": name, "model": model, "messages": messages + [{"role": "user", "content": text}],
            "temperature": 0,
            # The label takes ten tokens; models that think first need room for that.
            "max_tokens": 16 if model == "smollm2" else 512,
            "response_format": {"type": "json_schema", "json_schema": {"name": "label", "schema": schema}},
            "metadata": {"section": section, "label": LABELS[section]}}


def made_before(model, path):
    """Asking apt takes two seconds: not again, unless this file or the model has changed."""
    try:
        with open(path) as f:
            return json.loads(f.readline())["model"] == model and os.path.getmtime(path) > os.path.getmtime(__file__)
    except (OSError, ValueError, KeyError):
        return False


def make(model, path):
    if made_before(model, path):
        return
    rows = packages()
    if len(rows) < PER_SECTION * len(LABELS):
        sys.exit("quickstart_data: apt knows too few packages; as root: apt-get update")
    text = "".join(json.dumps(job(model, *row)) + "\n" for row in rows)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def label_of(result):
    try:
        return json.loads(result["output"]["text"])["label"]
    except (ValueError, KeyError, TypeError):
        return "?"


def show(path):
    with open(path) as f:
        results = [json.loads(line) for line in f]
    done = [r for r in results if r["status"] == "succeeded"]
    right = [r for r in done if label_of(r) == r["metadata"]["label"]]

    print("%-10s%-20s %-10s %s" % ("", "package", "label", "truth"))
    for r in done[:10]:
        label, truth = label_of(r), r["metadata"]["label"]
        print(("%-10s%-20s %-10s %-10s%s" % ("", r["custom_id"], label, truth, "" if label == truth else "wrong")).rstrip())
    if len(done) > 10:
        print("%-10s... and %d more" % ("", len(done) - 10))
    print()
    for r in results:
        if r["status"] != "succeeded":
            error = r.get("error") or {}
            print("%-10s%s: %s" % (r["status"], r["custom_id"], error.get("message") or error.get("code")))
    if not done:
        return
    print("%-10s%d of %d, %d %%; by chance it would be %d %%"
          % ("right", len(right), len(done), 100 * len(right) / len(done), 100 / len(LABELS)))
    usage = [r["usage"] or {} for r in done]
    prompt, cached, completion = (sum(u.get(key) or 0 for u in usage)
                                  for key in ("prompt_tokens", "cached_tokens", "completion_tokens"))
    print("%-10s%d in, %d of them cached by the engine; %d out" % ("tokens", prompt, cached, completion))


def model(url):
    def get(path):
        with urllib.request.urlopen(url.rstrip("/") + path, timeout=5) as answer:
            return json.load(answer)

    try:  # Ollama says which are no chat models, and which run elsewhere
        names = [m["name"] for m in get("/api/tags")["models"]
                 if "bert" not in (m.get("details") or {}).get("family", "") and not m.get("remote_host")]
    except (OSError, ValueError, KeyError):
        try:
            names = [m["id"] for m in get("/v1/models")["data"]]
        except (OSError, ValueError, KeyError) as e:
            sys.exit("quickstart_data: no list of models from %s: %s" % (url, e))
    names = [name for name in names if "embed" not in name]
    if not names:
        sys.exit("quickstart_data: the engine at %s has no chat model" % url)
    print(names[0])


commands = {"model": (model, 1), "make": (make, 2), "show": (show, 1)}
if len(sys.argv) < 2 or sys.argv[1] not in commands or len(sys.argv) - 2 != commands[sys.argv[1]][1]:
    sys.exit(__doc__.strip())
commands[sys.argv[1]][0](*sys.argv[2:])
