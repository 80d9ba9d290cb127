package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/httpget"
)

const (
	maxEvents    = 4 << 20 // of one stream; a build sends a few lines
	maxEventLine = 8 << 10
)

// watch reads the builder's events for a build until they end. They are shown
// to people and decide nothing, so a failure here is no failure.
func (f *Fetcher) watch(ctx context.Context, s spec.Spec, progress func(Progress)) {
	body, err := httpget.Open(ctx, f.hc, f.Page(s)+"events")
	if err != nil {
		f.opt.Logger.Debug("fetch: no progress from the builder", "err", err)
		return
	}
	defer body.Close()
	readEvents(io.LimitReader(body, maxEvents), func(p Progress) bool {
		p.At = time.Now()
		progress(p)
		return p.State == "queued" || p.State == "building"
	})
}

// readEvents reads server-sent events until the stream ends or f returns false.
func readEvents(r io.Reader, f func(Progress) bool) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 1024), maxEventLine)
	var event string
	var data []string
	for sc.Scan() {
		line := sc.Text()
		if line == "" {
			if p, ok := parseEvent(event, strings.Join(data, "\n")); ok && !f(p) {
				return
			}
			event, data = "", nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			event = value
		case "data":
			if len(data) < 64 {
				data = append(data, value)
			}
		}
	}
}

func parseEvent(event, data string) (Progress, bool) {
	if event != "update" {
		return Progress{}, false
	}
	var u struct {
		Kind          string
		QueuePosition int
		Error         string
	}
	if json.Unmarshal([]byte(data), &u) != nil || u.QueuePosition < 0 {
		return Progress{}, false
	}
	switch u.Kind {
	case "QueuePosition":
		if u.QueuePosition == 0 {
			return Progress{State: "building"}, true
		}
		return Progress{State: "queued", Position: u.QueuePosition}, true
	case "Success":
		return Progress{State: "built"}, true
	case "PermFailed", "TempFailed":
		return Progress{State: "failed", Text: httpget.Line(u.Error, 300)}, true
	}
	return Progress{}, false
}
