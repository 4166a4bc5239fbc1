# Sourced by the scripts beside it: goes to the root of the repository, and says how long each step takes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# An incremental build costs time and gigabytes where nothing is built twice. Whoever edits and checks in turns sets it to 1.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

# Of all tests, in each script: others would build everything anew.
test_features=dataflows/testkit,connectors/kafka,connectors/cassandra,connectors/objects

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need PROGRAM HOW-TO-GET-IT
need() {
    command -v "$1" >/dev/null || fail "$1 is missing; $2"
}

need_rust() {
    need cargo 'install Rust from https://rustup.rs, or the distribution'"'"'s rustup'
    # zstd, mimalloc, librdkafka and AWS-LC are C.
    provide 'a C compiler' build-essential command -v cc
    provide make make command -v make
    provide pkg-config pkg-config command -v pkg-config
    provide perl perl command -v perl
    provide 'OpenSSL for C' libssl-dev pkg-config --exists libssl
    provide 'zlib for C' zlib1g-dev pkg-config --exists zlib
}

apt_install() {
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    # The list of packages may be too old, or empty.
    { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } >&2
}

# provide WHAT DEBIAN-PACKAGE TEST...: installs what the test doesn't find, where that can be done unasked.
provide() {
    local what=$1 package=$2
    shift 2
    ! "$@" >/dev/null 2>&1 || return 0
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || fail "$what is missing; install it, e.g. sudo apt-get install $package"
    step "installing $package" apt_install "$package"
    "$@" >/dev/null 2>&1 || fail "$what is still missing after $package was installed"
}

# step WHAT COMMAND...: what a failed one leaves on the screen last is its name.
step() {
    local what=$1 started=$SECONDS
    shift
    printf '== %s\n' "$what"
    "$@" || fail "failed: $what"
    printf '== %s: %d s\n' "$what" $((SECONDS - started))
}

# venv FOLDER PACKAGE...: one with these packages, made anew where it has others.
venv() {
    local folder=$1
    shift
    [[ $(cat "$folder/made-from" 2>/dev/null) != "$*" ]] || return 0
    provide 'the venv of Python' python3-venv python3 -c 'import ensurepip'
    rm -rf -- "$folder" && python3 -m venv "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check "$@" &&
        printf '%s\n' "$*" >"$folder/made-from"
}

# measured_on: the machine and the program in $tidemark, in words.
measured_on() {
    local commit=
    [[ -n ${TIDEMARK:-} ]] || commit=", commit $(git describe --always --dirty 2>/dev/null || echo unknown)"
    printf '%s, %s cores, %s GiB; %s%s' "$(sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo)" "$(nproc)" \
        "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1024 / 1024 }' /proc/meminfo)" "$("$tidemark" --version)" "$commit"
}

now_ms() { date +%s%3N; }

# topic_records BROKERS TOPIC: the end offsets of its partitions, summed up.
topic_records() { scripts/services kafka-get-offsets --bootstrap-server "$1" --topic "$2" | cut -d: -f3 | paste -sd+ | bc; }

# need_servers: addresses of a Kafka and a Cassandra for tests. Where TIDEMARK_TEST_KAFKA and TIDEMARK_TEST_CASSANDRA have some already,
# these are used and none is started: whoever edits and tests in turns starts them once, by scripts/services.
need_servers() {
    scripts/services install
    scripts/services clients
    [[ -z ${TIDEMARK_TEST_KAFKA:-} || -z ${TIDEMARK_TEST_CASSANDRA:-} ]] || return 0
    servers=$(mktemp -d target/services/test.XXXXXX)
    step 'starting Kafka and Cassandra' start_servers
}

start_servers() {
    scripts/services start --dir "$servers" --port 0 --owner $$ || return 1
    TIDEMARK_TEST_KAFKA=$(sed -n 's/^address=//p' "$servers/kafka.env")
    TIDEMARK_TEST_CASSANDRA=$(sed -n 's/^address=//p' "$servers/cassandra.env")
    export TIDEMARK_TEST_KAFKA TIDEMARK_TEST_CASSANDRA
}

# For a trap: however a script ends, the servers do not stay behind; after a SIGKILL they end by themselves, since it owns them.
servers=
stop_servers() {
    [[ -n $servers ]] || return 0
    scripts/services signal kafka KILL --dir "$servers" || true
    scripts/services signal cassandra KILL --dir "$servers" || true
    rm -rf -- "$servers"
}
