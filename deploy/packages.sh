#!/usr/bin/env bash
# Installs what is missing on Debian 12 to build genq, and to test it.
#
#   packages.sh [build|test|quickstart]      build is the default; the others add to it
#
# Does nothing, without asking the network, when everything is there.
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config libmicrohttpd-dev libcurl4-openssl-dev libuv1-dev
    libcjson-dev libyaml-dev libsqlite3-dev libssl-dev librdkafka-dev libhiredis-dev libmimalloc-dev
    python3)
# python3-venv: deploy/engine.sh makes itself a virtual environment; curl asks engines how they are.
quickstart=(python3-venv curl ca-certificates)
# clang-14 with its run-time library and symbolizer: fuzzing; zsh: its completion of genq's words.
# Java and Maven: a real Kafka broker, which kcat and openssl speak to; and a real redis-server.
test=(sqlite3 clang-14 libclang-rt-14-dev llvm-14 procps jq zsh openjdk-17-jre-headless maven kcat
    openssl redis-server)

case ${1:-build} in
build) want=("${build[@]}") ;;
quickstart) want=("${build[@]}" "${quickstart[@]}") ;;
test) want=("${build[@]}" "${quickstart[@]}" "${test[@]}") ;;
*) echo "usage: packages.sh [build|test|quickstart]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "packages.sh: this system has no apt; install what Debian calls: ${want[*]}" >&2
    exit 1
fi

# dpkg-query fails for a name it has never heard of, which is one of those that are missing.
have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${want[@]}" 2>/dev/null | sed -n 's/^.i  *//p') || true
missing=()
for package in "${want[@]}"; do
    grep -qx "$package" <<<"$have" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "packages.sh: not root; run this as root, then come back:" >&2
    echo "    apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
policy=
trap 'rm -f "$log" ${policy:+"$policy"}' EXIT
# Debian starts a server that it installs. Tests start their own, so no service may start meanwhile:
# by Debian's own switch, where the system has not set it already.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
if ! { apt-get -q update && apt-get -q -y --no-install-recommends install "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "packages.sh: apt-get could not install: ${missing[*]}" >&2
    exit 1
fi
