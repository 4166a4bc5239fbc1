# For scripts that measure a process: `begin` and `end` of one, and `serve` of a log.
#
# The caller sets: tidemark, workers, dir (a folder of its own).
pid=

number() { curl -sf "$url/v1/status" | grep -oE "\"$1\":[0-9]+" | head -1 | cut -d: -f2; }

# begin DIR: starts one in the folder, and waits until it serves at $url; what it logs is in $dir/served.
begin() {
    local port=
    # The new process comes to it only after a while, and until then the port of the one before would be read.
    : >"$dir/served"
    "$tidemark" run --workers "$workers" --data-dir "$1" --listen 127.0.0.1:0 2>"$dir/served" &
    pid=$!
    until port=$(sed -nE "s/.*serving HTTP address=[0-9.]+:([0-9]+).*/\\1/p" "$dir/served") && [[ -n $port ]]; do
        kill -0 "$pid" 2>/dev/null || { cat "$dir/served" >&2 && return 1; }
        sleep 0.02
    done
    url=http://127.0.0.1:$port
}

# peak_mib: the greatest resident size so far.
peak_mib() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status"; }

# serve DIR: until all records of its log are counted, and a checkpoint has told the store of them.
serve() {
    local records
    records=$("$tidemark" replay --from "log:$1/log" --workers "$workers" --out "tsv:$dir/counts.tsv" 2>&1 | sed -nE 's/.*offsets [0-9]+ to ([0-9]+)/\1/p' | paste -sd+ | bc)
    begin "$1"
    until (($(number read || echo 0) >= records)); do sleep 0.1; done
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
