#!/bin/bash
# usage: measure.sh DIR [RUNS] [SECONDS]
# Measures this name server beside NSD, Knot DNS, BIND, PowerDNS and CoreDNS, whichever is
# installed, with one worker, the same 100,000 names and the same ECDSA P-256 key. The
# server is pinned to CPU 0 and dnsperf to CPU 1. Printed are medians of the runs: answers
# for each second of the server's CPU time. Missing names are spread over the whole zone.
# Needs dnsperf, dnssec-signzone and Go; run it as root. With RT=1 both sides run under the
# round-robin real-time scheduler, for a machine with other work. ONLY="upkeep nsd" leaves
# the others out.
set -eu
here=$(cd "$(dirname "$0")" && pwd); mkdir -p "$1"; cd "$1"; D=$PWD; RUNS=${2:-3}; SECS=${3:-2}; Z=bench.example
rt() { if [ "${RT:-}" = 1 ]; then echo "chrt -r 10"; fi; }
(cd "$here" && CGO_ENABLED=0 go build -o "$D/benchzone" . && CGO_ENABLED=0 go build -o "$D/upkeep-dns" ../../cmd/upkeep-dns)
[ -e modules.tsv ] || ./benchzone -generate "$D" -zone $Z
[ -e keys ] || ./upkeep-dns keygen -zone $Z -keys keys >/dev/null
K=$(ls keys/*.key); K=${K%.key}
if [ ! -e signed ]; then cat zone "$K.key" >zone.in; dnssec-signzone -q -P -z -o $Z -e +5184000 -f signed zone.in "$K" >/dev/null; fi
tree() { echo "$1"; for k in $(pgrep -P "$1"); do tree "$k"; done; }
ticks() { for p in $(tree "$1"); do sed 's/.*) //' "/proc/$p/stat" | awk '{print $12+$13}'; done | awk '{s+=$1} END {print s+0}'; }
rss() { for p in $(tree "$1"); do awk '/^Pss:/ {print $2}' "/proc/$p/smaps_rollup"; done | awk '{s+=$1} END {printf "%.0f", s/1024}'; }
median() { sort -n | awk '{v[NR]=$1} END {print NR ? v[int((NR+1)/2)] : "-"}'; }
run() { # run PID PORT FILE dnsperf-arguments: answers for each CPU second
  local a b n; a=$(ticks "$1")
  n=$(taskset -c 1 $(rt) dnsperf -s 127.0.0.1 -p "$2" -d "$3" -l "$SECS" -t 2 "${@:4}" 2>/dev/null | awk '/Queries completed/ {print $3}')
  b=$(ticks "$1"); awk -v n="$n" -v t=$((b-a)) -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.0f\n", n*hz/(t ? t : 1)}'
}
p99() { taskset -c 1 $(rt) dnsperf -s 127.0.0.1 -p "$2" -d "$3" -l 1 -t 2 -D -W -v -Q 2000 -q 100 -c 4 2>/dev/null | awk '/^> / {print $NF*1e6}' | sort -n | awk '{v[NR]=$1} END {printf "%.0f\n", v[int(NR*.99)]}'; }
measure() { # measure NAME PID PORT
  for i in $(seq 100); do dig +tries=1 +time=1 @127.0.0.1 -p "$3" $Z SOA 2>/dev/null | grep -q 'status: NOERROR' && break; sleep .2; done
  for p in $(tree "$2"); do taskset -a -cp 0 "$p" >/dev/null; [ "${RT:-}" != 1 ] || chrt -a -r -p 10 "$p"; done
  run "$2" "$3" exist.txt -D -c 8 -q 100 >/dev/null # warm
  # Each name's record of denial is signed at most once by those who keep a chain.
  [ -z "${4:-}" ] || for i in $(seq "$4"); do shuf -n 400000 missing.txt >slice; run "$2" "$3" slice -D -c 8 -q 100 >/dev/null; done
  local e m pl t l
  e=$(for i in $(seq "$RUNS"); do run "$2" "$3" exist.txt -D -c 8 -q 100; done | median)
  m=$(for i in $(seq "$RUNS"); do shuf -n 400000 missing.txt >slice; run "$2" "$3" slice -D -c 8 -q 100; done | median)
  pl=$(for i in $(seq "$RUNS"); do run "$2" "$3" exist.txt -c 8 -q 100; done | median)
  t=$(for i in $(seq "$RUNS"); do run "$2" "$3" exist.txt -D -m tcp -c 100 -q 200; done | median)
  l=$(for i in $(seq "$RUNS"); do p99 "$2" "$3" exist.txt; done | median)
  printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$e" "$m" "$pl" "$t" "$l" "$(rss "$2")"
  for p in $(tree "$2"); do [ "${RT:-}" != 1 ] || chrt -a -o -p 0 "$p"; done
  kill "$2"; wait "$2" 2>/dev/null || true
}
echo '| server | existing | missing | existing, plain | TCP, 100 connections | p99 at 2,000/s, µs | memory, MB |'
echo '|---|---|---|---|---|---|---|'
has() { [ -z "${ONLY:-}" ] || [[ " $ONLY " = *" $1 "* ]] && command -v "$2" >/dev/null; }
if has upkeep bash; then
  ./benchzone -zone $Z -key "$K" -tsv modules.tsv -listen 127.0.0.1:5411 >/dev/null & measure 'upkeep-dns, compact' $! 5411
  ./benchzone -zone $Z -key "$K" -tsv modules.tsv -listen 127.0.0.1:5414 -denial nsec >/dev/null & measure 'upkeep-dns, nsec' $! 5414 10
fi
if has nsd nsd; then
  mkdir -p nsd.d; printf 'server:\n ip-address: 127.0.0.1@5412\n server-count: 1\n username: ""\n chroot: ""\n zonesdir: "%s"\n database: ""\n pidfile: "%s/nsd.d/pid"\n xfrdfile: "%s/nsd.d/x"\n zonelistfile: "%s/nsd.d/z"\n xfrdir: "%s/nsd.d"\n logfile: "%s/nsd.d/log"\n tcp-count: 1000\n rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n reuseport: yes\n minimal-responses: yes\nremote-control:\n control-enable: no\nzone:\n name: %s\n zonefile: "%s/signed"\n' "$D" "$D" "$D" "$D" "$D" "$D" $Z "$D" >nsd.conf
  nsd -d -c nsd.conf >/dev/null 2>&1 & measure 'NSD (presigned)' $! 5412
fi
knot() { # knot FILE MODULE
  rm -rf knot.d; mkdir -p knot.d/run knot.d/db
  printf 'server:\n  rundir: "%s/knot.d/run"\n  user: root\n  listen: 127.0.0.1@5413\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n  tcp-max-clients: 1000\ndatabase:\n  storage: "%s/knot.d/db"\npolicy:\n  - id: man\n    manual: on\n    single-type-signing: on\n    algorithm: ecdsap256sha256\nmod-onlinesign:\n  - id: default\n    policy: man\nzone:\n  - domain: %s\n    file: "%s/%s"\n    zonefile-sync: -1\n    journal-content: none\n    semantic-checks: off\n%s' "$D" "$D" $Z "$D" "$1" "$2" >knot.conf
}
if has knot knotd; then
  knot signed ""; knotd -c knot.conf >/dev/null 2>&1 & measure 'Knot DNS (presigned)' $! 5413
  knot zone "    module: mod-onlinesign/default
"; keymgr -c knot.conf $Z import-bind "$K.key" >/dev/null 2>&1; keymgr -c knot.conf $Z set "$(keymgr -c knot.conf $Z list 2>/dev/null | awk 'NR==1 {print $1}')" ksk=yes zsk=yes >/dev/null 2>&1
  knotd -c knot.conf >/dev/null 2>&1 & measure 'Knot DNS (signing online)' $! 5413
fi
if has bind named; then
  mkdir -p bind.d; printf 'options { directory "%s/bind.d"; listen-on port 5416 { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none; session-keyfile none; managed-keys-directory "%s/bind.d"; tcp-clients 1000; dnssec-validation no; notify no; minimal-responses yes; };\ncontrols { };\nzone "%s" { type primary; file "%s/signed"; check-names ignore; };\n' "$D" "$D" $Z "$D" >named.conf
  named -f -n 1 -c "$D/named.conf" >/dev/null 2>&1 & measure 'BIND (presigned)' $! 5416
fi
if has pdns pdns_server; then
  rm -rf pdns.d; mkdir -p pdns.d; printf 'zone "%s" { type master; file "%s/zone"; };\n' $Z "$D" >pdns.d/named.conf
  printf 'launch=bind\nbind-config=%s/pdns.d/named.conf\nbind-dnssec-db=%s/pdns.d/keys.db\nlocal-address=127.0.0.1\nlocal-port=5417\nreceiver-threads=1\ndistributor-threads=1\nsigning-threads=1\nreuseport=yes\nsocket-dir=%s/pdns.d\ndaemon=no\nguardian=no\nwebserver=no\nloglevel=3\nmax-tcp-connections=1000\nmax-tcp-connections-per-client=0\nsecurity-poll-suffix=\n' "$D" "$D" "$D" >pdns.d/pdns.conf
  pdnsutil --config-dir=pdns.d create-bind-db pdns.d/keys.db >/dev/null 2>&1; pdnsutil --config-dir=pdns.d import-zone-key $Z "$K.private" active ksk >/dev/null 2>&1
  pdns_server --config-dir=pdns.d >/dev/null 2>&1 & measure 'PowerDNS (signing online, caches)' $! 5417
fi
if has coredns coredns; then
  printf '%s:5418 {\n  bind 127.0.0.1\n  file %s/zone %s\n  dnssec {\n    key file %s\n    cache_capacity 10000\n  }\n}\n' $Z "$D" $Z "$D/$K" >Corefile
  GOMAXPROCS=1 coredns -conf Corefile >/dev/null 2>&1 & measure 'CoreDNS (signing online, cache)' $! 5418
fi
