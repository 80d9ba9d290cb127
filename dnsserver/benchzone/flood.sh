#!/bin/bash
# usage: flood.sh DIR [RUNS] [SECONDS]
# Existing names beside a flood of random ones, in the folder that measure.sh made.
# Each row: queries for existing names at 20,000 a second, and as many as are answered;
# alone and beside 50,000 random names a second. Medians of the runs. One worker, pinned
# to CPU 0, the sender to CPU 1; as root the server runs with the highest priority that
# is not real-time, whose processes the system stops for 50 ms of each second.
set -eu
here=$(cd "$(dirname "$0")" && pwd); cd "$1"; D=$PWD; RUNS=${2:-5}; SECS=${3:-2}; Z=bench.example
(cd "$here" && CGO_ENABLED=0 go build -o "$D/benchzone" .)
K=$(ls keys/*.key); K=${K%.key}
first() { if [ "$(id -u)" = 0 ]; then echo "nice -n -20"; fi; }
row() { # row NAME ARGUMENTS: medians of the columns
  for i in $(seq "$RUNS"); do GOMAXPROCS=2 taskset -c 1 $(first) ./benchzone -flood 127.0.0.1:5415 -zone $Z -period "${SECS}s" "${@:2}"; done |
    awk -v name="$1" '{for (i = 1; i <= NF; i++) v[i, NR] = $i} END {printf "| %s |", name; for (i = 1; i <= NF; i++) {for (j = 1; j <= NR; j++) for (k = j+1; k <= NR; k++) if (v[i, k] < v[i, j]) {t = v[i, j]; v[i, j] = v[i, k]; v[i, k] = t}; printf " %s |", v[i, int((NR+1)/2)]} print ""}'
}
echo '| | existing answered/s | % of those asked | p50, ms | p99, ms | random asked/s | random answered/s, also by TC |'
echo '|---|---|---|---|---|---|---|'
for denial in compact nsec; do
  GOMAXPROCS=1 taskset -c 0 $(first) ./benchzone -zone $Z -key "$K" -tsv modules.tsv -listen 127.0.0.1:5415 -denial $denial >/dev/null & pid=$!
  trap 'kill $pid 2>/dev/null' EXIT
  for i in $(seq 100); do dig +tries=1 +time=1 @127.0.0.1 -p 5415 $Z SOA 2>/dev/null | grep -q 'status: NOERROR' && break; sleep .2; done
  ./benchzone -flood 127.0.0.1:5415 -zone $Z -random 0 -period 2s >/dev/null # signs all
  row "$denial, 20,000/s, alone" -random 0
  row "$denial, 20,000/s, flood"
  row "$denial, all it can, alone" -random 0 -rate 0
  row "$denial, all it can, flood" -rate 0
  kill $pid; wait $pid 2>/dev/null || true
done
