package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// Keys that nothing proves are shown with their tag, and kept only when
// somebody accepts them.
func TestPin(t *testing.T) {
	zonetest.Epoch = time.Now().UTC().Truncate(time.Second)
	tr := zonetest.New(t, zonetest.Fast)
	zone := discover.DefaultConfig()
	zone.Zone, zone.Sources, zone.Timeout = zonetest.ZoneName, []string{"server://" + tr.Addr}, config.Duration(time.Minute)
	for _, tc := range []struct {
		name   string
		change func(*discover.Config)
		p      pinner
		pinned bool
		says   string // of the error
	}{
		{"yes", nil, pinner{in: strings.NewReader("yes\n"), terminal: true}, true, ""},
		{"flag", nil, pinner{firstUse: true}, true, ""},
		{"no", nil, pinner{in: strings.NewReader("y\n"), terminal: true}, false, "nobody accepted"},
		{"end of input", nil, pinner{in: strings.NewReader(""), terminal: true}, false, "nobody accepted"},
		{"nobody to ask", nil, pinner{in: strings.NewReader("yes\n")}, false, "nobody accepted"},
		{"no zone", func(c *discover.Config) { c.Zone = "" }, pinner{}, false, ""},
		{"an anchor is given", func(c *discover.Config) { c.Anchor = "given" }, pinner{}, false, ""},
		{"the resolver is trusted", func(c *discover.Config) { c.Trust = discover.TrustResolver }, pinner{}, false, ""},
		{"no answer", func(c *discover.Config) {
			c.Sources, c.Timeout = []string{"server://127.0.0.1:1"}, config.Duration(time.Second)
		}, pinner{firstUse: true}, false, "asking server://127.0.0.1:1 for the keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, dir := zone, t.TempDir()
			if tc.change != nil {
				tc.change(&cfg)
			}
			var out strings.Builder
			tc.p.out = &out
			got, err := tc.p.pin(t.Context(), cfg, dir)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v; want %q", err, tc.says)
			}
			text, readErr := os.ReadFile(filepath.Join(dir, anchorName))
			if (readErr == nil) != tc.pinned || tc.pinned != (got.Anchor == filepath.Join(dir, anchorName)) {
				t.Fatalf("anchor %q, %v\n%s", got.Anchor, readErr, text)
			}
			if !tc.pinned {
				return
			}
			ds := tr.Zone.Key.ToDS(2)
			if !strings.Contains(out.String(), strings.ToUpper(ds.Digest)) || !strings.Contains(out.String(), "Nothing proves") {
				t.Error(out.String())
			}
			d, err := discover.New(got, discover.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := d.Ask(t.Context(), zonetest.Module); err != nil {
				t.Error(err)
			}
		})
	}
}
