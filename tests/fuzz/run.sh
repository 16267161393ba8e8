#!/usr/bin/env bash
# Runs one fuzz target for a short while on its corpus: run.sh TARGET CORPUS. FUZZ_SECONDS (10).
# FUZZ_SEED (1): the same inputs each time, so that a run fails for what changed; 0: others each time.
set -euo pipefail
target=$1 corpus=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p found
[ -d "$corpus" ] || corpus=
"$target" -max_total_time="${FUZZ_SECONDS:-10}" -seed="${FUZZ_SEED:-1}" -timeout=10 -rss_limit_mb=1024 -max_len=8192 \
    -print_final_stats=1 found ${corpus:+"$corpus"} >log 2>&1 || { tail -40 log; exit 1; }
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' log)
echo "$runs inputs, no fault"
[ "${runs:-0}" -gt 100 ]
