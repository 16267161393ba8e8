#!/usr/bin/env bash
# Line coverage of all tests, by folder and file: tests/coverage.sh [ctest arguments].
set -euo pipefail
cd "$(dirname "$0")/.."
out=${BUILD_DIR:-build-tests}/coverage

deploy/packages.sh test
mkdir -p "$out"
cmake -S . -B "$out" -G Ninja -DGENQ_VARIANT=coverage -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O0 -g" \
    -DGENQ_COVERAGE=ON >"$out.log" 2>&1
cmake --build "$out" >>"$out.log" 2>&1
find "$out" -name '*.gcda' -delete
ctest --test-dir "$out" -j "${JOBS:-2}" "$@" || true
python3 tests/lib/coverage.py "$out"
