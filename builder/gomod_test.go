package builder

import (
	"strings"
	"testing"

	"example.org/upkeep/builder/source"
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
