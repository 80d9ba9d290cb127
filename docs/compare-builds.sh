#!/bin/sh
# Compares what a build service serves with what a plain "go install" gives,
# byte for byte. Usage: compare-builds.sh URL GOVERSIONS TARGETS PROGRAMS...
#   URL         of the build service
#   GOVERSIONS  for example "go1.27.4 go1.26.8"
#   TARGETS     for example "linux/amd64 windows/amd64 darwin/arm64"
#   PROGRAMS    module@version or module@version/pkgdir
# Everything that the go command keeps goes to a folder of its own, $WORK.
set -eu
url=$1 versions=$2 targets=$3
shift 3
work=${WORK:-$(mktemp -d)}
export GOPATH="$work/gopath" GOCACHE="$work/cache" GOFLAGS=-modcacherw GOWORK=off CGO_ENABLED=0
bad=0
for program; do
	module=${program%%@*}
	rest=${program#*@}
	version=${rest%%/*}
	dir=${rest#"$version"}
	for goversion in $versions; do
		for target in $targets; do
			goos=${target%/*} goarch=${target#*/}
			spec="$module@$version$dir/$goos-$goarch-$goversion/"
			rm -rf "$GOPATH/bin"
			ours=$(curl -sSL --max-time 1800 --retry 2 "$url/tlog/lookup/$spec" | sed -n 2p)
			if (cd "$work" && GOTOOLCHAIN=$goversion GOOS=$goos GOARCH=$goarch go install -trimpath -ldflags=-buildid= -- "$module$dir@$version") >"$work/log" 2>&1; then
				plain=$(find "$GOPATH/bin" -type f -exec sha256sum {} + | cut -d' ' -f1)
			else
				plain="failed: $(tail -1 "$work/log")"
			fi
			size=$(echo "$ours" | cut -d' ' -f7)
			sum=$(echo "$ours" | cut -d' ' -f8)
			served=$(curl -sSL --max-time 600 "$url/${spec}dl" | sha256sum | cut -d' ' -f1)
			verdict=DIFFERENT
			if [ "$served" = "$plain" ]; then verdict=equal; else bad=1; fi
			echo "| $module$dir | $version | $goos/$goarch | $goversion | $size | $sum | $verdict |"
			[ $verdict = equal ] || echo "    ours $served, plain $plain" >&2
		done
	done
done
exit $bad
