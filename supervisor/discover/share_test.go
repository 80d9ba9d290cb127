package discover

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor/discover/zonetest"
)

const envAsk = "UPKEEP_TEST_ASK"

// otherProcess is what another process does and says.
type otherProcess struct {
	Config Config
	Now    time.Time

	Versions  string
	Exchanges int
	Error     string
}

// TestMain lets this program be another supervisor on the same host.
func TestMain(m *testing.M) {
	text := os.Getenv(envAsk)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := askOnce(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// askOnce asks, and prints what it learned.
func askOnce(text string) error {
	var p otherProcess
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	d, err := New(p.Config, Options{Now: func() time.Time { return p.Now }})
	if err != nil {
		return err
	}
	defer d.Close()
	a, err := d.Ask(context.Background(), hello)
	if err != nil {
		p.Error = err.Error()
	}
	p.Versions, p.Exchanges = join(a.Versions), a.Sources[0].Exchanges
	return json.NewEncoder(os.Stdout).Encode(p)
}

// One question for a module serves all services of a host: a second process
// with the same folder asks nobody, and validates all the same.
func TestShare(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	qname, err := name.Module(hello, testZone)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Zone, cfg.Sources, cfg.Cache = testZone, []string{"tcp://" + tr.Addr}, t.TempDir()
	cfg.Anchor = anchorFile(t, tr.Root.Key.ToDS(2))
	process := func(after time.Duration) otherProcess {
		t.Helper()
		text, err := json.Marshal(otherProcess{Config: cfg, Now: epoch.Add(after)})
		if err != nil {
			t.Fatal(err)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env, cmd.Stderr = append(os.Environ(), envAsk+"="+string(text)), os.Stderr
		out, err := cmd.Output()
		var p otherProcess
		if err != nil || json.Unmarshal(out, &p) != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return p
	}
	asked := func() (n int) {
		tr.Mu.Lock()
		defer tr.Mu.Unlock()
		for _, q := range tr.Asked {
			if strings.EqualFold(q.Name, qname) {
				n++
			}
		}
		return n
	}
	for i, tc := range []struct {
		after     time.Duration
		exchanges int // by this process
		asked     int // for the module, in all
	}{
		{0, 10, 1},
		{0, 0, 1},
		{30 * time.Second, 0, 1},
		{2 * time.Minute, 5, 2}, // the TTL of the records and of one denial is over, that of the keys is not
	} {
		p := process(tc.after)
		if p.Error != "" || p.Versions != "v1.0.1 v0.3.0" || p.Exchanges != tc.exchanges || asked() != tc.asked {
			t.Errorf("process %d: %+v; the module was asked for %d times", i+1, p, asked())
		}
	}
	// Whatever somebody else puts there is validated: it is as good as a packet.
	writeFiles(t, cfg.Cache, `{"at":"2026-11-21T12:00:00Z"}`)
	if p := process(2 * time.Minute); p.Error != "" || p.Exchanges != 10 {
		t.Errorf("with a spoilt folder: %+v", p)
	}
}
