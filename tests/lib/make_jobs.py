#!/usr/bin/env python3
"""Writes N jobs as JSONL, one {"model", "prompt"} object a line, the same for the same --seed.

With --keys each prompt starts with `key=j<number> `, counted from 1, by which the stub engine's log
names the job.
"""
import argparse
import json
import random
import sys

WORDS = (
    "the a to of and in for with that one good bad slow late fast cheap broken fine package refund "
    "order parcel invoice screen battery manual support answer delivery colour price again never "
    "always maybe please thanks week monday today item return works stopped arrived missing"
).split()


def prompt_of(rng, n_bytes, head):
    text = head + " ".join(rng.choices(WORDS, k=n_bytes // 2 + 1))
    return text[: max(n_bytes, len(head.rstrip()))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int, help="number of jobs")
    parser.add_argument("--bytes", type=int, default=400, help="length of each prompt (400)")
    parser.add_argument("--model", default="stub")
    parser.add_argument("--keys", action="store_true", help="start prompts with key=j<number>")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    try:
        for i in range(1, args.n + 1):
            prompt = prompt_of(rng, args.bytes, f"key=j{i} " if args.keys else "")
            job = {"model": args.model, "prompt": prompt}
            sys.stdout.write(json.dumps(job, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
