#!/usr/bin/env bash
# Makes web/testdata/demo.openmetrics.gz anew: a real Prometheus collects what
# the three programs say while "upkeep-demo -check" goes through updates,
# roll-backs and attacks. Needs the Debian package prometheus; takes minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
prometheus=
trap '[ -z "$prometheus" ] || kill "$prometheus" 2>/dev/null || true; rm -rf "$work"' EXIT
echo '[]' >"$work/targets.json"
cat >"$work/prometheus.yml" <<EOF
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
  - job_name: upkeep
    file_sd_configs: [{files: ["$work/targets.json"], refresh_interval: 1s}]
    metric_relabel_configs: [{source_labels: [__name__], regex: "upkeep_.*", action: keep}]
EOF
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address=127.0.0.1:0 2>"$work/prometheus.log" &
prometheus=$!
go run ./cmd/upkeep-demo -check -dir "$work/demo" &
demo=$!
# The programs say where they listen in the first lines of their logs.
while kill -0 $demo 2>/dev/null; do
	{ grep -hoE '(^http: |listens" url=|web page" address=)http://127.0.0.1:[0-9]+' "$work"/demo/log/upkeep*.log 2>/dev/null || true; } |
		grep -oE '127.0.0.1:[0-9]+' | sort -u | sed 's/.*/"&"/' | paste -sd, | sed 's/.*/[{"targets": [&]}]/' >"$work/new.json"
	mv "$work/new.json" "$work/targets.json"
	sleep 1
done
wait $demo
kill $prometheus
wait $prometheus || true
prometheus=
# One line a sample, times in seconds, the samples of a metric together.
promtool tsdb dump "$work/tsdb" |
	sed -E 's/", /",/g; s/^\{__name__="([^"]+)",?(.*)\} ([^ ]+) ([0-9]+)([0-9]{3})$/\1{\2} \3 \4.\5/' |
	grep -v " NaN " |
	LC_ALL=C sort -s -t'{' -k1,1 | { cat; echo '# EOF'; } | gzip -9n >web/testdata/demo.openmetrics.gz
ls -l web/testdata/demo.openmetrics.gz
