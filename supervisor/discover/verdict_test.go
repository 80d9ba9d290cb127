package discover

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// Where we are stricter than a validator has to be, or more lenient.
var differs = map[string]string{
	"expired within the skew":        "bad",  // delv allows none
	"of the future within the skew":  "bad",  // likewise
	"alias":                          "any",  // delv follows it
	"two TXT records":                "good", // a matter of the format
	"not a release":                  "good",
	"another module's major version": "good",
	"DS of SHA-1 only":               "any", // depends on its build
	"algorithm RSASHA1":              "any",
	"zone denied by the TLD":         "any",  // a denial, of the zone rather than of the name
	"signed by the zone above":       "good", // delv lets any zone above sign; the format's zone signs itself
	"silence":                        "skip",
	"unsigned delegation inserted by the parent, NSEC":   "unsigned",
	"unsigned delegation, NSEC3 opt-out":                 "unsigned",
	"algorithm downgrade to a key that is not in the DS": "bad",
}

// The same answers, judged by delv: what it believes and what we believe must
// not differ, except where that is meant.
func TestVerdicts(t *testing.T) {
	delv, err := exec.LookPath("delv")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal("delv is not installed")
		}
		t.Skip("delv is not installed; it is in BIND's tools (bind9-dnsutils)")
	}
	// delv has no other clock than the machine's.
	old := epoch
	epoch = time.Now().UTC().Truncate(time.Second)
	zonetest.Epoch = epoch
	defer func() { epoch, zonetest.Epoch = old, old }()
	for _, tc := range brokenLinks(t) {
		want := differs[tc.name]
		if want == "skip" {
			continue
		}
		if want == "" {
			want = "bad"
			if tc.kind == "ok" {
				want = "good"
			}
		}
		t.Run(tc.name, func(t *testing.T) {
			algs := zonetest.Fast
			if tc.algs != nil {
				algs = *tc.algs
			}
			tr := zonetest.New(t, algs)
			ds := tr.Root.Key.ToDS(dns.SHA256)
			anchor := filepath.Join(t.TempDir(), "anchor")
			if err := os.WriteFile(anchor, []byte(`trust-anchors { . static-ds `+strings.Join(strings.Fields(ds.String())[4:7], " ")+` "`+ds.Digest+`"; };`), 0o600); err != nil {
				t.Fatal(err)
			}
			tr.Mu.Lock()
			tc.do(t, tr)
			tr.Mu.Unlock()
			qname, err := name.Module(tc.module, testZone)
			if err != nil {
				t.Fatal(err)
			}
			host, port, err := net.SplitHostPort(tr.Addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, _ := exec.CommandContext(ctx, delv, "@"+host, "-p", port, "-a", anchor, "+root=.", "+tcp", qname, "TXT").CombinedOutput()
			got := "bad"
			switch {
			case strings.Contains(string(out), "fully validated"):
				got = "good"
			case strings.Contains(string(out), "unsigned answer"):
				got = "unsigned"
			}
			if want != "any" && got != want {
				t.Errorf("delv says %s, want %s:\n%s", got, want, out)
			}
		})
	}
}
