package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.org/upkeep/internal/httpget"
)

// statusRange is a range of HTTP statuses.
type statusRange struct{ from, to int }

func parseStatuses(s string) ([]statusRange, error) {
	var ranges []statusRange
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.Atoi(first)
		to, errTo := strconv.Atoi(last)
		if errFrom != nil || errTo != nil || from < 100 || to > 599 || from > to {
			return nil, fmt.Errorf("has %q, which is no range of statuses like \"200-299\"", item)
		}
		ranges = append(ranges, statusRange{from, to})
	}
	return ranges, nil
}

// A Checker tells whether the running service is well.
type Checker interface {
	// Configured reports whether there is anything to check.
	Configured() bool
	// Check returns nil when it is well; detail is a few words for people.
	Check(ctx context.Context) (detail string, err error)
}

// maxBody is how much of a health answer is searched for the wanted text.
const maxBody = 64 << 10

// health checks as the configuration says.
type health struct {
	cfg    HealthConfig
	ranges []statusRange
	run    func(ctx context.Context, argv []string, env []string, timeout time.Duration) (int, string, error)
	vacant func(addr string) bool // a kept socket answers, and no process does yet; nil = never
}

func newHealth(cfg HealthConfig, run func(context.Context, []string, []string, time.Duration) (int, string, error)) *health {
	ranges, err := parseStatuses(cfg.Status)
	if err != nil {
		ranges = []statusRange{{200, 299}} // said by CheckUpdates
	}
	return &health{cfg: cfg, ranges: ranges, run: run}
}

func (h *health) Configured() bool {
	return h.cfg.URL != "" || h.cfg.TCP != "" || len(h.cfg.Command) > 0
}

func (h *health) Check(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout.D())
	defer cancel()
	var said []string
	if h.cfg.TCP != "" {
		if h.vacant != nil && h.vacant(h.cfg.TCP) {
			return "", fmt.Errorf("%s is not served by the new process yet", h.cfg.TCP)
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.cfg.TCP)
		if err != nil {
			return "", fmt.Errorf("%s does not accept connections: %w", h.cfg.TCP, err)
		}
		conn.Close()
		said = append(said, h.cfg.TCP+" accepts connections")
	}
	if h.cfg.URL != "" {
		detail, err := h.get(ctx)
		if err != nil {
			return "", err
		}
		said = append(said, detail)
	}
	if len(h.cfg.Command) > 0 {
		code, out, err := h.run(ctx, h.cfg.Command, nil, h.cfg.Timeout.D())
		if err != nil {
			return "", fmt.Errorf("health command: %w", err)
		}
		if code != 0 {
			return "", fmt.Errorf("health command %s", exited(code, out))
		}
		said = append(said, "health command is content")
	}
	return strings.Join(said, ", "), nil
}

// get asks over a connection of its own, so that it is the new process that
// answers, and past every cache on the way.
func (h *health) get(ctx context.Context) (string, error) {
	tr := &http.Transport{DisableKeepAlives: true, Proxy: nil, MaxResponseHeaderBytes: 64 << 10}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.cfg.URL, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("User-Agent", "upkeep-health")
	resp, err := hc.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return "", fmt.Errorf("%s did not answer within %v", h.cfg.URL, h.cfg.Timeout)
		}
		return "", fmt.Errorf("health check: %w", err)
	}
	defer resp.Body.Close()
	good := false
	for _, r := range h.ranges {
		good = good || r.from <= resp.StatusCode && resp.StatusCode <= r.to
	}
	if !good {
		return "", fmt.Errorf("%s answered %s", h.cfg.URL, httpget.Line(resp.Status, 100))
	}
	if h.cfg.Body != "" {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", h.cfg.URL, err)
		}
		if !strings.Contains(string(body), h.cfg.Body) {
			return "", fmt.Errorf("%s answered without the text %q", h.cfg.URL, h.cfg.Body)
		}
	}
	return "answered " + httpget.Line(resp.Status, 100), nil
}

// exited tells of a command's end, with the first of what it said.
func exited(code int, out string) string {
	text := fmt.Sprintf("exited with status %d", code)
	if line := httpget.Line(out, 300); line != "" {
		text += ": " + line
	}
	return text
}
