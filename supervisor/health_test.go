package supervisor

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
)

func TestHealth(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			w.Write([]byte("all is well"))
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		default:
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	const closed = "127.0.0.1:1" // a port that nobody is given by chance
	run := func(_ context.Context, argv, _ []string, _ time.Duration) (int, string, error) {
		return len(argv) - 1, "it said this\nand that", nil
	}
	for _, tc := range []struct {
		name string
		cfg  HealthConfig
		err  string
	}{
		{"ok", HealthConfig{URL: "/ok"}, ""},
		{"bad status", HealthConfig{URL: "/bad"}, "503"},
		{"a status that is wanted", HealthConfig{URL: "/bad", Status: "200, 500-599"}, ""},
		{"a redirect is not followed", HealthConfig{URL: "/moved"}, "302"},
		{"text", HealthConfig{URL: "/ok", Body: "is well"}, ""},
		{"other text", HealthConfig{URL: "/ok", Body: "is bad"}, `without the text "is bad"`},
		{"an endless answer is cut", HealthConfig{URL: "/endless", Body: "is well"}, "without the text"},
		{"slow", HealthConfig{URL: "/slow"}, "did not answer within 200ms"},
		{"tcp", HealthConfig{TCP: srv.Listener.Addr().String()}, ""},
		{"tcp closed", HealthConfig{TCP: closed}, "does not accept connections"},
		{"command", HealthConfig{Command: []string{"true"}}, ""},
		{"command fails", HealthConfig{Command: []string{"false", "one", "two"}}, "status 2: it said this"},
		{"one of two", HealthConfig{URL: "/ok", TCP: closed}, "does not accept"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.cfg.URL != "" {
				tc.cfg.URL = srv.URL + tc.cfg.URL
			}
			if tc.cfg.Status == "" {
				tc.cfg.Status = "200-299"
			}
			tc.cfg.Timeout = config.Duration(time.Minute)
			if tc.name == "slow" {
				tc.cfg.Timeout = config.Duration(200 * time.Millisecond)
			}
			h := newHealth(tc.cfg, run)
			if !h.Configured() {
				t.Error("not configured")
			}
			detail, err := h.Check(t.Context())
			if tc.err == "" {
				if err != nil || detail == "" {
					t.Errorf("%q, %v; want it well", detail, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v; want an error with %q", err, tc.err)
			}
		})
	}
	if got := exited(1, " \n"); got != "exited with status 1" {
		t.Errorf("a command that says nothing %q", got)
	}
	if newHealth(HealthConfig{Status: "200"}, nil).Configured() {
		t.Error("configured without anything to check")
	}
}

func TestCheckConfig(t *testing.T) {
	good := Defaults()
	good.State, good.Service.Path, good.File = "/s", "/p", "upkeep.toml"
	for _, tc := range []struct {
		change func(*Config)
		start  string // part of the error of CheckStart
		update string // of CheckUpdates
	}{
		{func(c *Config) {}, "", ""},
		{func(c *Config) { c.Service.Path = "" }, "service.path is not set", ""},
		{func(c *Config) { c.State = "" }, "state is not set", ""},
		{func(c *Config) { c.Process.StopSignal = "TREM" }, `process.stop_signal is "TREM"`, ""},
		{func(c *Config) { c.Process.StopSignal = "SIGINT" }, "", ""},
		{func(c *Config) { c.Process.StopSignal = "WINCH" }, "", ""},
		{func(c *Config) { c.Process.StopSignal = "STOP" }, "", `process.stop_signal is "STOP"`},
		{func(c *Config) { c.Process.Output = "x" }, "keep, inherit", ""},
		{func(c *Config) { c.Process.Restart = "x" }, "exit, always", ""},
		{func(c *Config) { c.Process.Handover = "x" }, "process.handover", ""},
		{func(c *Config) { c.Process.Env = []string{"A=1", "B"} }, `"B", which is not NAME=value`, ""},
		{func(c *Config) { c.Process.Env = []string{"A=\x00"} }, `process.env has "A=\x00" with a zero byte`, ""},
		{func(c *Config) { c.Service.Args = []string{"\x00"} }, "service.args has", ""},
		{func(c *Config) { c.Process.Dir = "/nowhere/at/all" }, "process.dir", ""},
		{func(c *Config) { c.Process.User = "nobody at all" }, "process.user", ""},
		{func(c *Config) { c.Process.AmbientCap = []string{"net_bind_service"} }, "need process.user", ""},
		{func(c *Config) { c.Hooks.Timeout = 0 }, "", ""},
		{func(c *Config) { c.Hooks.Timeout, c.Hooks.After = 0, []string{"x"} }, "", "hooks.timeout"},
		{func(c *Config) { c.Updates.Interval = 1 }, "", "updates.interval"},
		{func(c *Config) { c.Updates.Keep = 0 }, "", "updates.keep"},
		{func(c *Config) { c.Updates.Windows = []string{"xx"} }, "", "updates.windows"},
		{func(c *Config) { c.Updates.Timezone = "Nowhere" }, "", "updates.windows"},
		{func(c *Config) { c.Health.URL = "ftp://x" }, "", "health.url"},
		{func(c *Config) { c.Health.TCP = "x" }, "", "health.tcp"},
		{func(c *Config) { c.Health.TCP = "[::1]:65535" }, "", ""},
		{func(c *Config) { c.Health.TCP = "localhost:https" }, "", ""},
		{func(c *Config) { c.Health.TCP = "localhost:65536" }, "", "health.tcp"},
		{func(c *Config) { c.Health.TCP = "localhost:0" }, "", "health.tcp"},
		{func(c *Config) { c.Health.TCP = "localhost:" }, "", "health.tcp"},
		{func(c *Config) { c.Health.URL = "http://localhost:65536/" }, "", "health.url"},
		{func(c *Config) { c.Process.Sockets = []SocketConfig{{Name: "a", Network: "tcp", Address: ":65536"}} }, "process.socket", ""},
		{func(c *Config) { c.Process.Sockets = []SocketConfig{{Name: "a", Network: "tcp", Address: ":0"}} }, "", ""},
		{func(c *Config) { c.Health.Status = "2xx" }, "", "health.status"},
		{func(c *Config) { c.Health.Interval = 0 }, "", "health.interval"},
		{func(c *Config) { c.Health.Timeout = 0 }, "", "health.timeout"},
	} {
		c := good
		tc.change(&c)
		for _, e := range []struct {
			err  error
			want string
		}{{c.CheckStart(), tc.start}, {c.CheckUpdates(), tc.update}} {
			if e.want == "" && e.err != nil || e.want != "" && (e.err == nil || !strings.Contains(e.err.Error(), e.want)) {
				t.Errorf("%v; want %q", e.err, e.want)
			}
		}
	}
}
