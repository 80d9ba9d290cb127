package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// Every failure that the tree of zones can produce has its sentence and its
// advice, through the whole examination and not only for the error by itself.
func TestEveryBrokenLink(t *testing.T) {
	generic := []string{Explain(errors.New("x")).Next, explainBogus(&discover.BogusError{}).Next, ""}
	advice := map[string]string{}
	for _, tc := range zonetest.BrokenLinks(t) {
		t.Run(tc.Name, func(t *testing.T) {
			tr, anchor := tc.Tree(t)
			file := filepath.Join(t.TempDir(), "anchor")
			if err := os.WriteFile(file, []byte(anchor.String()+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := discover.DefaultConfig()
			cfg.Zone, cfg.Sources, cfg.Anchor = zonetest.ZoneName, []string{"tcp://" + tr.Addr}, file
			cfg.Timeout = config.Duration(time.Minute) // for the slowest machine
			if tc.Name == "silence" {
				cfg.Timeout = config.Duration(200 * time.Millisecond)
			}
			now := func() time.Time { return zonetest.Epoch }
			d, err := discover.New(cfg, discover.Options{Now: now})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var broken []Finding
			said := false
			e := &examination{Patient{Module: tc.Module, Discover: d, Now: now}, func(f Finding) {
				if f.Level == Fail {
					broken = append(broken, f)
					said = said || strings.Contains(f.What, tc.Says)
				}
			}}
			e.sources(t.Context())
			e.answer(t.Context())
			if tc.Kind == "ok" {
				if len(broken) > 0 {
					t.Errorf("%+v", broken)
				}
				return
			}
			if len(broken) == 0 || !said {
				t.Fatalf("nobody says %q: %+v", tc.Says, broken)
			}
			for _, f := range broken {
				if slices.Contains(generic, f.Next) || f.Whose == "" || f.Whose == "unknown" || strings.Contains(f.What, "\n") {
					t.Errorf("%+v", f)
				}
			}
			advice[tc.Kind] = broken[len(broken)-1].Next
		})
	}
	// Different kinds of failure get different advice.
	seen := map[string]string{}
	for kind, next := range advice {
		if other := seen[next]; other != "" {
			t.Errorf("%s and %s get the same advice: %s", kind, other, next)
		}
		seen[next] = kind
	}
}
