package discover

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"example.org/upkeep/supervisor/discover/zonetest"
)

// The sentence must say what is wrong.
func TestBroken(t *testing.T) {
	for _, tc := range zonetest.BrokenLinks(t) {
		t.Run(tc.Name, func(t *testing.T) {
			tr, anchor := tc.Tree(t)
			d := discoverer(t, tr, func(c *Config, _ *Options) {
				c.Sources, c.Anchor = []string{"tcp://" + tr.Addr}, anchorFile(t, anchor)
			})
			if tc.Name == "silence" {
				d.cfg.Timeout /= 20
			}
			a, err := d.Ask(t.Context(), tc.Module)
			if tc.Kind == "ok" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || len(a.Versions) != 0 {
				t.Fatalf("believed: %v, %v", a.Versions, err)
			}
			var bogus *BogusError
			var insecure *InsecureError
			var malformed *malformedError
			got, event := "", ""
			switch {
			case errors.As(err, &bogus):
				got, event = bogus.Kind, EventBogus
			case errors.As(err, &insecure):
				got, event = "insecure", EventInsecure
			case errors.As(err, &malformed):
				got, event = "malformed", EventMalformed
			case errors.Is(err, ErrNoZone):
				got, event = "nozone", EventUnreachable
			case errors.Is(err, ErrUnreachable):
				got, event = "unreachable", EventUnreachable
			}
			if got != tc.Kind || !strings.Contains(err.Error(), tc.Says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v; want %s with %q", got, err, tc.Kind, tc.Says)
			}
			if len(a.Events) != 1 || a.Events[0].Kind != event || a.Fresh.StaleSince.IsZero() {
				t.Errorf("events %+v; want one %s", a.Events, event)
			}
		})
	}
}

func anchorFile(t testing.TB, ds *dns.DS) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(file, []byte(ds.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
