#!/bin/bash
# Measures how long the go command alone needs for the step from caddy v2.11.1 to
# v2.11.2, with one GOCACHE for both and no sandbox: what is compiled there has to
# be compiled by whoever wants the same bytes.
#   builder/measure-gocache.sh DIR [RUNS]
# DIR keeps the downloads and the cache that holds v2.11.1; each run starts with a
# copy of it, in turn with the go command's own settings and with those for garbage
# that the service sets. Takes about four minutes on two processors, and the downloads.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: builder/measure-gocache.sh DIR [RUNS]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
package=github.com/caddyserver/caddy/v2/cmd/caddy
export CGO_ENABLED=0 GOTOOLCHAIN=local GOENV=off GOFLAGS=-modcacherw GOWORK=off GOMODCACHE=$dir/mod GOBIN=$dir/bin
TIMEFORMAT='%R %U %S'
cd "$dir"
install() { go install -trimpath -ldflags=-buildid= "$@"; }
for v in v2.11.1 v2.11.2; do # downloads all that is needed, and compiles nothing
	GOCACHE=$dir/plan install -n "$package@$v" 2>/dev/null
done
if [ ! -e first ]; then
	rm -rf cache.first
	GOCACHE=$dir/cache.first install "$package@v2.11.1"
	touch first
fi
echo "$(nproc) processors, $(awk '/^model name/ {sub(/^[^:]*: /, ""); print; exit}' /proc/cpuinfo), $(go env GOVERSION), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
limit=$(awk -v n="$(nproc)" '/^MemTotal/ {printf "%d", $2*1024*0.8/(n+1)}' /proc/meminfo)
for i in $(seq "${2:-3}"); do
	for collect in 100 off; do
		rm -rf cache bin
		cp -a cache.first cache
		sync
		export GOCACHE=$dir/cache GOGC= GOMEMLIMIT=
		[ $collect = 100 ] || export GOGC=$collect GOMEMLIMIT=$limit
		took=$({ time install "$package@v2.11.2" 2>errors || { cat errors >&2; exit 1; }; } 2>&1)
		sum=$(sha256sum bin/caddy | cut -c1-16)
		again=$({ time install "$package@v2.11.2" 2>errors; } 2>&1)
		echo "$took $again" | awk -v i="$i" -v gogc=$collect -v sum="$sum" '{printf "run %d, GOGC=%s: %.1f s, %.1f s of processor time; once more with all of it compiled: %.1f s; SHA-256 %s\n", i, gogc, $1, $2+$3, $4, sum}'
	done
done
