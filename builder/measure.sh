#!/bin/bash
# Measures the build service on a quiet machine and prints a Markdown table.
#   builder/measure.sh DIR [GOVERSION]
# DIR keeps downloads (modules, toolchain, a log of 1,000,000 records) from one
# run to the next; results, logs and everything compiled are thrown away at the
# start. DOWNLOAD=1 only downloads, which the figures should not hold. A run takes
# about six minutes on two processors. Needs root (or a systemd unit) and bubblewrap,
# as the service does, and curl.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: builder/measure.sh DIR [GOVERSION]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
go=${2:-$(go env GOVERSION)}
cd "$(dirname "$0")/.."
target="$(go env GOOS)-$(go env GOARCH)-$go"
state=$dir/state key=$dir/build.key addr=127.0.0.1:18765
program=$dir/upkeep-build
CGO_ENABLED=0 go build -o "$program" ./cmd/upkeep-build
CGO_ENABLED=0 go test -c -o "$dir/builder.test" ./builder
CGO_ENABLED=0 go test -c -o "$dir/tlog.test" ./tlog
[ -e "$key" ] || "$program" keygen -key "$key" measure.test >/dev/null
chmod o+x "$dir"

pid=
stop() {
	[ -z "$pid" ] || { kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null || true; }
	pid=
}
trap stop EXIT

# serve STATE KEY [ARGS...] starts the service and waits until it answers.
serve() {
	"$program" serve -listen $addr -state "$1" -key "$2" "${@:3}" 2>"$dir/serve.log" &
	pid=$!
	for _ in $(seq 600); do
		curl -fsS -o /dev/null "http://$addr/tlog/latest" 2>/dev/null && return
		kill -0 "$pid" 2>/dev/null || { cat "$dir/serve.log" >&2; exit 1; }
		sleep 0.1
	done
	echo "the service does not answer" >&2
	exit 1
}

# build WHAT TARGET SPEC prints a line of the table.
build() {
	local start end steps
	if [ "${DOWNLOAD:-}" = 1 ]; then # as far as the first compiler
		curl -fsSN --max-time 1200 "http://$addr/${3}events" 2>/dev/null | grep -m1 -o 'Compiling\|Success\|Failed.*' | sed "s#^#$1: #" >&2 || true
		return
	fi
	start=$(date +%s.%N)
	curl -fsS -o /dev/null --max-time 1800 "http://$addr/tlog/lookup/$3" || { tail -5 "$dir/serve.log" >&2; exit 1; }
	end=$(date +%s.%N)
	steps=$(grep 'msg="build done"' "$dir/serve.log" | grep -F "spec=$3" | tail -1 | sed 's/.*steps=//; s/^"//; s/"$//')
	echo "$start $end" | awk -v what="$1" -v limit="$2" -v steps="$steps" '{printf "| %s | %s | %.1f s | %s |\n", what, limit, $2-$1, steps}'
	sleep 2 # compression and sharing go on behind the answer
}

fresh() { # all but downloads
	for sub in log blobs results queue std deps work mismatches; do rm -rf "${state:?}/$sub"; done
}

age=filippo.io/age httpbin=github.com/mccutchen/go-httpbin/v2 caddy=github.com/caddyserver/caddy/v2
echo "$(nproc) processors, $(awk '/^model name/ {sub(/^[^:]*: /, ""); print; exit}' /proc/cpuinfo), $(go env GOVERSION), builds with $go, load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
echo
echo '| build | to reach | clock | steps, with their processor time |'
echo '|---|---|---|---|'
fresh
serve "$state" "$key"
sleep 5
rss=$(awk '/^VmRSS/ {printf "%.1f", $2/1024}' /proc/$pid/status)
build "age v1.2.1, first of all" - "$age@v1.2.1/cmd/age/$target/"
build "age v1.3.1" "5 s" "$age@v1.3.1/cmd/age/$target/"
build "go-httpbin v2.24.0" - "$httpbin@v2.24.0/cmd/go-httpbin/$target/"
build "go-httpbin v2.25.0" "3 s" "$httpbin@v2.25.0/cmd/go-httpbin/$target/"
build "caddy v2.11.1" - "$caddy@v2.11.1/cmd/caddy/$target/"
build "caddy v2.11.2 (newer x/net: much of it is compiled again)" "45 s" "$caddy@v2.11.2/cmd/caddy/$target/"
build "caddy v2.11.2 stripped (all dependencies shared)" "10 s" "$caddy@v2.11.2/cmd/caddy/$target-stripped/"
stop
[ "${DOWNLOAD:-}" != 1 ] || exit 0
# Without shared dependencies; the standard library is compiled.
rm -rf "$state/log" "$state/deps" "$state/results" "$state/blobs"
sed 's/^share = .*/share = 0/' <("$program" config default) >"$dir/noshare.toml"
serve "$state" "$key" -config "$dir/noshare.toml"
build "age v1.3.1, nothing shared" "5 s" "$age@v1.3.1/cmd/age/$target/"
build "go-httpbin v2.25.0, nothing shared" "3 s" "$httpbin@v2.25.0/cmd/go-httpbin/$target/"
[ "${SKIP_CADDY:-}" = 1 ] || build "caddy v2.11.2, nothing shared" "-" "$caddy@v2.11.2/cmd/caddy/$target/"
stop
(cd builder && "$dir/builder.test" -test.run '^$' -test.bench '^BenchmarkBuild$' -test.benchtime 5x) |
	awk '/^BenchmarkBuild/ {printf "| net/http server of ten lines, new version | 2 s | %.1f s | %s s of processor time |\n", $3/1e9, $5}'
echo
echo '| log: requests in a second of processor time | to reach | 20 records | 1,000,000 records |'
echo '|---|---|---|---|'
(cd builder && UPKEEP_BENCH_LARGE=1 UPKEEP_BENCH_LOG=$dir/logs "$dir/builder.test" -test.run '^$' -test.bench '^BenchmarkLogHTTP$' -test.benchtime 100000x) |
	awk '/^BenchmarkLogHTTP/ {
		split($1, p, "/"); sub(/-[0-9]+$/, "", p[3]); for (i = 4; i < NF; i++) if ($(i+1) == "req/CPU-s") v[p[2], p[3]] = $i }
		END { n = split("latest tile anytile lookup", k, " "); for (i = 1; i <= n; i++) printf "| %s | %s | %s | %s |\n", k[i], k[i] == "lookup" ? "10,000" : "15,000", v[k[i], 20], v[k[i], 1000000] }'
(cd tlog && "$dir/tlog.test" -test.run '^$' -test.bench '^BenchmarkLogAppend$' -test.benchtime 20000x) |
	awk '/^BenchmarkLogAppend/ {printf "| durable appends in a second on the clock (%s) | 1,000 | %.0f | |\n", $1, 1e9/$3}'
serve "$dir/logs/1000000" "$dir/logs/key"
sleep 5
echo "| idle memory of the service | 21 MB | $rss MiB | $(awk '/^VmRSS/ {printf "%.1f", $2/1024}' /proc/$pid/status) MiB |"
stop
