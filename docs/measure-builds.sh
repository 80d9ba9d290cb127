#!/bin/sh
# Measures builds one after the other. Usage: measure-builds.sh URL LOG SPEC...
#   URL   of the build service
#   LOG   file that its standard error goes to
#   SPEC  build specs, in order; each should not be built yet
# Prints for each the seconds on the clock of the lookup, and the time and
# processor time of each step as the service logs them.
set -eu
url=$1 log=$2
shift 2
for spec; do
	start=$(date +%s.%N)
	curl -sS -o /dev/null --max-time 3600 "$url/tlog/lookup/$spec"
	end=$(date +%s.%N)
	steps=$(grep 'msg="build done"' "$log" | grep -F "spec=$spec" | tail -1 | sed 's/.*steps=//')
	echo "$start $end" | awk -v spec="$spec" -v steps="$steps" '{printf "%.2f s  %s  %s\n", $2-$1, spec, steps}'
	sleep 1 # compression and sharing go on behind the answer
done
