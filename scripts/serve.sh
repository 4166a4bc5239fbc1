# For scripts that measure a process: `begin` and `end` of one, and `serve` of a log.
#
# The caller sets: tidemark, workers, dir (a folder of its own); processes, where a job is to have more than one.
pid=

number() { curl -sf "$url/v1/status" | grep -oE "\"$1\":[0-9]+" | head -1 | cut -d: -f2; }

# begin DIR: starts one in the folder, and waits until it serves at $url; what it logs is in $dir/served.
begin() {
    local port=
    # What the one before said is not to be taken for this one's.
    : >"$dir/served"
    if ((${processes:-1} != 1)); then
        begin_job "$1"
        return
    fi
    "$tidemark" run --workers "$workers" --data-dir "$1" --listen 127.0.0.1:0 2>"$dir/served" &
    pid=$!
    until port=$(sed -nE "s/.*serving HTTP address=[0-9.]+:([0-9]+).*/\\1/p" "$dir/served" 2>/dev/null) && [[ -n $port ]]; do lives; done
    url=http://127.0.0.1:$port
}

# begin_job DIR: the same with several processes; their ports follow each other, so they can't be left to the kernel.
begin_job() {
    url=http://127.0.0.1:$((20000 + RANDOM % 10000))
    "$tidemark" cluster --processes "$processes" --workers "$workers" --data-dir "$1" --listen "${url#http://}" 2>"$dir/served" &
    pid=$!
    until curl -sf "$url/healthz" >/dev/null; do lives; done
}

# lives: waits a little for what has been started.
lives() {
    kill -0 "$pid" 2>/dev/null || fail "it did not start: $(tail -3 "$dir/served")"
    sleep 0.02
}

# peak_mib: the greatest resident size so far, of the one process.
peak_mib() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status"; }

# serve DIR: until all records of its log are counted, and a checkpoint has told the store of them.
serve() {
    local records
    records=$("$tidemark" replay --from "log:$1/log" --workers "$workers" --out "tsv:$dir/counts.tsv" 2>&1 | sed -nE 's/.*offsets [0-9]+ to ([0-9]+)/\1/p' | paste -sd+ | bc)
    begin "$1"
    count_all "$records"
    settle
}

# count_all RECORDS [PAUSE]: until so many are read, looking again after so many seconds.
count_all() { until (($(number read || echo 0) >= $1)); do sleep "${2:-0.1}"; done; }

# settle: until a checkpoint that was begun after this has been made, or there is nothing new for one.
settle() {
    local newest
    newest=$(number number || echo 0)
    until (($(number number || echo 0) > ${newest:-0} + 1)) || (($(number age_ms || echo 0) > 12000)); do sleep 0.2; done
}

end() {
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    pid=
}

# windows: how many the last log served has.
windows() { wc -l <"$dir/counts.tsv"; }
