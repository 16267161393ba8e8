#!/usr/bin/env bash
# All tests, on a fresh Debian 12 as root: installs what they need, builds every variant, runs them.
#
#   plain   as users build it: unit, contract and flow tests, checks of the tree
#   asan    AddressSanitizer and UBSan, with the crash points that tests/chaos needs
#   tsan    ThreadSanitizer
#   fuzz    each parser of outside bytes, a few seconds each
#
# tests/run.sh [ctest arguments], e.g. tests/run.sh -R flow. VARIANTS="plain asan" picks variants.
# GENQ_LONG=1 adds the tests with a broker that take minutes: group, follower, topics, outbox,
# left-out steps, foreign clients, rolling restarts, jobs for later, live state, routing, takeover, clocks that
# jump, a network that fails, also at the start and between brokers. A few of their cases run always.
# GENQ_NO_KAFKA=1 skips the tests with a real Kafka, whose jars come from Maven Central (44 MB, once).
# GENQ_RDKAFKA=DIR runs these tests alone, the long ones too, of a plain build against the librdkafka that its
# "./configure --prefix=DIR && make && make install" left in DIR, instead of Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${BUILD_DIR:-build-tests}
read -ra variants <<<"${VARIANTS:-plain asan tsan fuzz}"
if [ -n "${GENQ_RDKAFKA:-}" ]; then
    rdkafka=$(realpath "$GENQ_RDKAFKA")
    export PKG_CONFIG_PATH=$rdkafka/lib/pkgconfig
    read -ra variants <<<"${VARIANTS:-plain}"
    set -- -L kafka "$@"
    GENQ_LONG=1
fi

deploy/packages.sh test
mkdir -p "$out"

# Here and not by the first test that wants them. Without jars the tests with a broker are skipped: said
# here, and by ctest at its end.
export GENQ_KAFKA_LIBS=${GENQ_KAFKA_LIBS:-$(realpath "$out")/kafka-libs}
if [ -z "${GENQ_NO_KAFKA:-}" ]; then
    echo "collecting Kafka's jars"
    python3 -B tests/lib/kafka.py collect >/dev/null || {
        echo "tests/run.sh: NO KAFKA TO TEST WITH (is Maven Central out of reach?): its tests are skipped" >&2
        export GENQ_NO_KAFKA=1
    }
fi

configure() { # NAME cmake options…
    local name=$1 build=$out/$1${rdkafka:+-rdkafka}
    shift
    cmake -S . -B "$build" -G Ninja -U '*RDKAFKA*' -DGENQ_VARIANT="$name" \
        -DGENQ_LONG_TESTS="${GENQ_LONG:-OFF}" "$@" >"$build.log" 2>&1 &&
        cmake --build "$build" >>"$build.log" 2>&1 || {
        tail -40 "$build.log" >&2
        echo "tests/run.sh: building '$name' failed; all of it is in $build.log" >&2
        exit 1
    }
    echo "subdirs(${build##*/})" >>"$out/CTestTestfile.cmake"
    if [ -n "${rdkafka:-}" ] && [[ $(ldd "$build/genq") != *"$rdkafka/lib/librdkafka.so.1 "* ]]; then
        echo "tests/run.sh: $build/genq is not linked to the librdkafka in $rdkafka" >&2
        exit 1
    fi
}

: >"$out/CTestTestfile.cmake"
for name in "${variants[@]}"; do
    echo "building $name"
    case $name in
    plain) configure plain -DCMAKE_BUILD_TYPE=Release ;;
    asan) configure asan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
        -DGENQ_SANITIZE=address -DGENQ_TEST_HOOKS=ON ;;
    tsan) configure tsan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
        -DGENQ_SANITIZE=thread ;;
    fuzz) configure fuzz -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" \
        -DCMAKE_C_COMPILER=clang-14 -DGENQ_FUZZ=ON ;;
    *)
        echo "tests/run.sh: no variant '$name'" >&2
        exit 2
        ;;
    esac
done

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$PWD/tests/tsan.supp:second_deadlock_stack=1:report_thread_leaks=0}
ctest --test-dir "$out" --no-label-summary --output-on-failure -j "${JOBS:-4}" "$@"
