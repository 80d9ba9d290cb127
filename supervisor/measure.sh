#!/usr/bin/env bash
# Repeats the figures of docs/supervisor.md on this machine, which should be
# quiet: size, start-up overhead, idle memory and CPU, memory with the page,
# click to serving.
#   supervisor/measure.sh [seconds of idling, 300]
set -euo pipefail
cd "$(dirname "$0")/.."
idle=${1:-300}
dir=$(mktemp -d)
pids=()
cleanup() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
export CGO_ENABLED=0
go build -trimpath -ldflags=-s -o "$dir/upkeep" ./cmd/upkeep
echo "size                   $(($(stat -c %s "$dir/upkeep") / 1000)) kB"

# A service that says when its first instruction ran.
mkdir "$dir/src"
cat >"$dir/src/main.go" <<'GO'
package main

import (
	"os"
	"strconv"
	"time"
)

func main() {
	now := strconv.FormatInt(time.Now().UnixMicro(), 10)
	_ = os.WriteFile(os.Args[1], []byte(now), 0o600)
	if len(os.Args) > 2 {
		time.Sleep(time.Hour)
	}
}
GO
printf 'module example.org/hello\n\ngo 1.26\n' >"$dir/src/go.mod"
(cd "$dir/src" && go build -trimpath -o ../hello-v1 .)
ln -s hello-v1 "$dir/hello"
cat >"$dir/upkeep.toml" <<TOML
state = "$dir/state"
[service]
path = "$dir/hello"
args = ["$dir/began"]
[updates]
interval = "1h"
[discovery]
zone = "nothing.test."
sources = ["udp://127.0.0.1:9"]
TOML
micro() { date +%s%6N; }
for who in service upkeep; do
	printf '%-22s' "start by $who, ms"
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		t=$(micro)
		if [ $who = service ]; then "$dir/hello" "$dir/began"; else "$dir/upkeep" run -log error -config "$dir/upkeep.toml" || true; fi
		echo $((($(cat "$dir/began") - t) / 100)) | sed 's/\(.\)$/.\1/; s/^\./0./'
	done | sort -n | tr '\n' ' '
	echo
done

sed -i 's|^args = .*|args = ["'"$dir"'/began", "stay"]|' "$dir/upkeep.toml"
"$dir/upkeep" run -log error -config "$dir/upkeep.toml" &
pids+=($!)
pid=$!
ticks() { awk '{print $14 + $15}' "/proc/$pid/stat"; }
sleep 25
from=$(ticks)
rss() { awk '/VmRSS/ {print $2}' "/proc/$pid/status"; }
echo "idle memory, 25 s      $(rss) kB"
sleep "$idle"
echo "idle memory, $((25 + idle)) s     $(rss) kB"
echo "CPU in $idle s          $(awk -v t=$(($(ticks) - from)) -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f s", t / hz}')"
kill "$pid"
wait "$pid" 2>/dev/null || true
pids=()

address=127.0.0.1:${PAGE_PORT:-18399}
printf '[web]\nlisten = "%s"\n' "$address" >>"$dir/upkeep.toml"
"$dir/upkeep" run -log error -config "$dir/upkeep.toml" &
pids+=($!)
pid=$!
sleep 10
echo "memory, page on        $(rss) kB"
curl -sf -o /dev/null "http://$address/"
echo "page rendered once     $(rss) kB"
for _ in $(seq 100); do curl -sf -o /dev/null "http://$address/"; done
echo "page rendered 101 ×    $(rss) kB"
kill "$pid"
wait "$pid" 2>/dev/null || true
pids=()

go test -run '^$' -bench Switch -benchtime 20x ./supervisor | grep -E 'Switch|ok'
