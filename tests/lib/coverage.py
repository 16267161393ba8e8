"""Sums gcov's counts: coverage.py BUILD_DIR prints the share of lines run, by file and folder."""
import collections
import gzip
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ("base", "schema", "broker-config", "store", "producer", "worker", "genq.c")


def counts(build):
    """{file: {line: times run}} of the project's own files."""
    lines = collections.defaultdict(lambda: collections.defaultdict(int))
    data = [os.path.join(d, f) for d, _, files in os.walk(build) for f in files
            if f.endswith(".gcda")]
    for path in data:
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(["gcov", "--json-format", os.path.abspath(path)], cwd=work,
                           capture_output=True, check=False)
            for name in os.listdir(work):
                with gzip.open(os.path.join(work, name)) as f:
                    report = json.load(f)
                for file in report["files"]:
                    name = os.path.relpath(os.path.join(report["current_working_directory"],
                                                        file["file"]), ROOT)
                    if name.split("/")[0] in FOLDERS and name.endswith(".c"):
                        for line in file["lines"]:
                            lines[name][line["line_number"]] += line["count"]
    return lines


def main():
    lines = counts(sys.argv[1])
    if not lines:
        sys.exit("no counts found: was this built with GENQ_COVERAGE, and run?")
    folders = collections.defaultdict(lambda: [0, 0])
    for name in sorted(lines):
        run, n = sum(1 for c in lines[name].values() if c), len(lines[name])
        print(f"{run / n * 100:6.1f} % {run:5}/{n:<5} {name}")
        for key in (name.split("/")[0], "all"):
            folders[key][0] += run
            folders[key][1] += n
    print()
    for key, (run, n) in folders.items():
        print(f"{run / n * 100:6.1f} % {run:5}/{n:<5} {key}")


if __name__ == "__main__":
    main()
