package web_test

import (
	"fmt"
	"html"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/web/webtest"
)

// This draws the dashboard from its JSON and from real answers of Prometheus:
// panels at their places, values with their units, the colours of thresholds.
// It is not Grafana, and the picture says so; it shows what is on the
// dashboard, and that each query gives what its panel is for.

// The grid: 24 columns, rows of 30 pixels with gaps.
const (
	column = 50
	row    = 34
	gap    = 8
)

var palette = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#c0d8ff"}

var thresholdColours = map[string]string{"green": "#37872d", "orange": "#e0752d", "red": "#c4162a", "yellow": "#cc9d00", "": "#37872d"}

func picture(t *testing.T, panels []shown, from, to float64) {
	t.Helper()
	bottom := 0
	var b strings.Builder
	for _, p := range panels {
		x, y, w, h := p.GridPos.X*column, p.GridPos.Y*row, p.GridPos.W*column-gap, p.GridPos.H*row-gap
		bottom = max(bottom, y+h)
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`, x, y)
		if p.Type == "row" {
			fmt.Fprintf(&b, `<text x="4" y="20" class="title">⌄ %s</text></g>`, html.EscapeString(p.Title))
			continue
		}
		fill := "#181b1f"
		if p.Type == "stat" {
			fill = p.colour()
		}
		fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="3" fill="%s" stroke="#2c3235"/><text x="10" y="20" class="title">%s</text>`, w, h, fill, html.EscapeString(p.Title))
		switch p.Type {
		case "stat":
			fmt.Fprintf(&b, `<text x="%d" y="%d" class="stat">%s</text>`, w/2, h/2+24, html.EscapeString(p.last()))
		case "table":
			p.table(&b, w)
		default:
			p.chart(&b, w, h, from, to)
		}
		b.WriteString("</g>")
	}
	page := fmt.Sprintf(`<!DOCTYPE html><html lang="en"><title>dashboard</title><body style="margin:0;background:#111217"><svg width="%d" height="%d" xmlns="http://www.w3.org/2000/svg">
<style>text{font:12px "DejaVu Sans",sans-serif;fill:#ccccdc}.title{font-weight:600;font-size:12px}.stat{font-size:38px;text-anchor:middle;fill:#fff}.axis{font-size:10px;fill:#8e8e9a}.cell{font-size:11px}</style>
<text x="8" y="18" class="axis">web/dashboard.json with the data of a run of upkeep-demo -check, drawn by a test of this repository (not by Grafana)</text><g transform="translate(4 26)">%s</g></svg></body></html>`,
		24*column+gap, bottom+40, b.String())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(page)) // gone viewer
	}))
	defer srv.Close()
	tab := webtest.New(t)
	tab.View("dark", 24*column+gap)
	tab.Go(srv.URL)
	tab.Shot("dashboard")
}

// last is a stat's value.
func (p shown) last() string {
	if len(p.lines) == 0 {
		return "No data"
	}
	v := p.lines[0].v
	return unit(v[len(v)-1], p.FieldConfig.Defaults.Unit)
}

func (p shown) colour() string {
	name := ""
	if len(p.lines) > 0 {
		v := p.lines[0].v
		for _, s := range p.FieldConfig.Defaults.Thresholds.Steps {
			if s.Value == nil || v[len(v)-1] >= *s.Value {
				name = s.Color
			}
		}
	}
	return thresholdColours[name]
}

// unit writes a value as Grafana does for the units of this dashboard.
func unit(v float64, unit string) string {
	scale := func(steps []float64, names []string) string {
		i := 0
		for i+1 < len(steps) && math.Abs(v) >= steps[i+1] {
			i++
		}
		return strings.TrimSpace(trim(v/steps[i]) + " " + names[i])
	}
	switch unit {
	case "s":
		if math.Abs(v) < 1 && v != 0 {
			return trim(v*1000) + " ms"
		}
		return scale([]float64{1, 60, 3600, 86400}, []string{"s", "min", "h", "d"})
	case "bytes", "decbytes":
		return scale([]float64{1, 1e3, 1e6, 1e9, 1e12}, []string{"B", "kB", "MB", "GB", "TB"})
	case "percentunit":
		return trim(v*100) + " %"
	}
	return scale([]float64{1, 1e3, 1e6}, []string{"", "K", "Mil"})
}

func trim(v float64) string {
	s := fmt.Sprintf("%.2f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// table lists the labels of each series, without those that the panel hides.
func (p shown) table(b *strings.Builder, w int) {
	hidden := map[string]bool{}
	for _, tr := range p.Transformations {
		maps.Copy(hidden, tr.Options.ExcludeByName)
	}
	names := map[string]bool{}
	for _, l := range p.lines {
		for n := range l.labels {
			if !hidden[n] {
				names[n] = true
			}
		}
	}
	columns := slices.Sorted(maps.Keys(names))
	for i, n := range columns {
		x := 10 + i*(w-20)/len(columns)
		fmt.Fprintf(b, `<text x="%d" y="46" class="axis">%s</text>`, x, html.EscapeString(n))
		for j, l := range p.lines {
			if j < 8 {
				fmt.Fprintf(b, `<text x="%d" y="%d" class="cell">%s</text>`, x, 68+j*22, html.EscapeString(l.labels[n]))
			}
		}
	}
}

// chart draws lines with a scale, the time below and the names at the bottom.
func (p shown) chart(b *strings.Builder, w, h int, from, to float64) {
	if len(p.lines) == 0 {
		fmt.Fprintf(b, `<text x="%d" y="%d">No data</text>`, w/2-20, h/2)
		return
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range p.lines {
		low, high = min(low, slices.Min(l.v)), max(high, slices.Max(l.v))
	}
	if low > 0 && low < high/2 || low == high && low > 0 {
		low = 0
	}
	if low == high {
		high = low + 1
	}
	left, top, right, bottom := 62.0, 34.0, float64(w-12), float64(h-48)
	x := func(at float64) float64 { return left + (at-from)/(to-from)*(right-left) }
	y := func(v float64) float64 { return bottom - (v-low)/(high-low)*(bottom-top) }
	for i := range 5 {
		v := low + (high-low)*float64(i)/4
		anchor := "middle"
		if i == 4 {
			anchor = "end"
		}
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#2c3235"/><text x="%.1f" y="%.1f" class="axis" text-anchor="end">%s</text>`,
			left, y(v), right, y(v), left-6, y(v)+3, html.EscapeString(unit(v, p.FieldConfig.Defaults.Unit)))
		at := from + (to-from)*float64(i)/4
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="axis" text-anchor="%s">%s</text>`, x(at), bottom+14, anchor, time.Unix(int64(at), 0).UTC().Format("15:04:05"))
	}
	offset := 10
	for i, l := range p.lines {
		colour := palette[i%len(palette)]
		var path strings.Builder
		for j := range l.v {
			cmd := "L"
			if j == 0 || l.at[j]-l.at[j-1] > 3*step {
				cmd = "M" // nothing in between
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", cmd, x(l.at[j]), y(l.v[j]))
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-linecap="round"/>`, path.String(), colour)
		if name := l.name; offset+9*len(name) < w {
			fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="3" fill="%s"/><text x="%d" y="%d" class="axis">%s</text>`, offset, h-13, colour, offset+16, h-9, html.EscapeString(name))
			offset += 30 + 7*len(name)
		}
	}
}
