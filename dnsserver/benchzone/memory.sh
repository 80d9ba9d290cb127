#!/bin/bash
# usage: memory.sh DIR [MODULES]
# Memory with many names (3,000,000 unless it says otherwise): with a list in memory, and
# answers kept for 200,000 queries; prints the proportional set size in MB for each way of
# denial. What the index on disk takes beside it is in docs/log.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$1"; cd "$1"; D=$PWD; N=${2:-3000000}; Z=bench.example
(cd "$here" && CGO_ENABLED=0 go build -o "$D/benchzone" . && CGO_ENABLED=0 go build -o "$D/upkeep-dns" ../../cmd/upkeep-dns)
[ -e many/modules.tsv ] || { ./benchzone -generate many -zone $Z -modules "$N"; rm many/zone; }
[ -e keys ] || ./upkeep-dns keygen -zone $Z -keys keys >/dev/null
K=$(ls keys/*.key); K=${K%.key}
echo "| names | compact, MB | nsec, MB |"; echo '|---|---|---|'
row="| $N |"
for denial in compact nsec; do
  GOMAXPROCS=2 ./benchzone -zone $Z -key "$K" -tsv many/modules.tsv -listen 127.0.0.1:5419 -denial $denial -workers 2 >/dev/null & pid=$!
  trap 'kill $pid 2>/dev/null' EXIT
  for i in $(seq 600); do dig +tries=1 +time=1 @127.0.0.1 -p 5419 $Z SOA 2>/dev/null | grep -q 'status: NOERROR' && break; sleep .2; done
  for f in exist missing; do head -200000 many/$f.txt >slice; dnsperf -s 127.0.0.1 -p 5419 -d slice -D -n 1 -q 200 >/dev/null; done
  row+=" $(awk '/^Pss:/ {printf "%.0f", $2/1024}' /proc/$pid/smaps_rollup) |"
  kill $pid; wait $pid 2>/dev/null || true
done
echo "$row"
