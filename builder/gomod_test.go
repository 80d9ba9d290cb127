package builder

import (
	"strings"
	"testing"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/goproxy"
)

// A go.mod file that would take gigabytes of memory is not read.
func TestBigGoMod(t *testing.T) {
	e := newEcosystem(t)
	e.publish("example.org/big", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n-- go.mod --\nmodule example.org/big\n\ngo 1.21\n"+strings.Repeat("\n", source.MaxGoMod))
	ts := start(t, e, testOptions{})
	for _, path := range []string{"/tlog/lookup/example.org/big@v1.0.0/" + target() + "/", "/example.org/big@latest/" + target() + "/"} {
		if resp, body := ts.get(t, "GET", path); resp.StatusCode != 500 || !strings.Contains(string(body), "larger than this server accepts") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// A proxy that lies about the size of a go.mod file makes no failure that stays.
func TestEndlessGoMod(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	path := "/example.org/hello/@v/v1.0.0.mod"
	e.mu.Lock()
	good := e.files[path]
	e.mu.Unlock()
	e.set(path, make([]byte, goproxy.MaxGoMod+1))
	ts := start(t, e, testOptions{change: func(c *Config) { c.Tries = 1 }})
	lookup := "/tlog/lookup/example.org/hello@v1.0.0/" + target() + "/"
	if resp, body := ts.get(t, "GET", lookup); resp.StatusCode != 500 || !strings.Contains(string(body), "answer is larger than this server accepts") {
		t.Errorf("endless: %d %s", resp.StatusCode, body)
	}
	e.set(path, good)
	ts.mu.Lock()
	clear(ts.temp) // the pause after a failure is over
	ts.mu.Unlock()
	if resp, body := ts.get(t, "GET", lookup); resp.StatusCode != 200 {
		t.Errorf("whole again: %d %s", resp.StatusCode, body)
	}
}
