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

// Where we are stricter than a validator has to be, or more lenient. The keys
// are names of broken links, or "program: link" where one differs.
var differs = map[string]string{
	"expired within the skew":        "bad",  // delv and named allow none
	"of the future within the skew":  "bad",  // likewise
	"alias":                          "any",  // they follow it
	"two TXT records":                "good", // a matter of the format
	"not a release":                  "good",
	"another module's major version": "good",
	"DS of SHA-1 only":               "any", // depends on the build
	"algorithm RSASHA1":              "any",
	"zone denied by the TLD":         "any",  // a denial, of the zone rather than of the name
	"signed by the zone above":       "good", // any zone above may sign, in theory; the format's zone signs itself
	"silence":                        "skip",

	// With our five minutes.
	"unbound: expired within the skew":       "good",
	"unbound: of the future within the skew": "good",
	// It wants the zone's own signature, as we do.
	"kresd: signed by the zone above": "bad",

	"unsigned delegation inserted by the parent, NSEC": "unsigned",
	"unsigned delegation, NSEC3 opt-out":               "unsigned",
}

// The same answers, judged by real validators: what they believe and what we
// believe must not differ, except where that is meant.
func TestVerdicts(t *testing.T) {
	defer func(old time.Time) { zonetest.Epoch = old }(zonetest.Epoch)
	t.Run("delv", func(t *testing.T) {
		delv := validator{program: "delv", pkg: "bind9-dnsutils"}.find(t)
		verdicts(t, "delv", func(t *testing.T, tr *zonetest.Tree, anchor *dns.DS, qname string) (string, string) {
			return byDelv(t, delv, tr, anchor, qname)
		})
	})
	for _, v := range validators {
		t.Run(v.program, func(t *testing.T) {
			v.find(t)
			verdicts(t, v.program, func(t *testing.T, tr *zonetest.Tree, anchor *dns.DS, qname string) (string, string) {
				got, m := verdictOf(t, v.start(t, tr, anchor), qname)
				return got, m.String()
			})
		})
	}
}

// verdicts compares the judgement of one program on every broken link with what
// it should be.
func verdicts(t *testing.T, program string, judge func(*testing.T, *zonetest.Tree, *dns.DS, string) (got, said string)) {
	for _, tc := range zonetest.BrokenLinks(t) {
		want, ok := differs[program+": "+tc.Name]
		if !ok {
			want = differs[tc.Name]
		}
		if want == "skip" {
			continue
		}
		if want == "" {
			want = "bad"
			if tc.Kind == "ok" {
				want = "good"
			}
		}
		t.Run(tc.Name, func(t *testing.T) {
			qname, err := name.Module(tc.Module, testZone)
			if err != nil {
				t.Fatal(err)
			}
			once := func() (got, said string) {
				// They have no other clock than the machine's, and minutes matter.
				zonetest.Epoch = time.Now().UTC().Truncate(time.Second)
				tr, anchor := tc.Tree(t)
				return judge(t, tr, anchor, qname)
			}
			got, said := once()
			// On a busy machine a program may tire of waiting for answers, which it
			// calls bad; what it finds bad it does again.
			for tries := 0; tries < 3 && got == "bad" && want != "bad" && want != "any"; tries++ {
				got, said = once()
			}
			if want != "any" && got != want {
				t.Errorf("%s says %s, want %s:\n%s", program, got, want, said)
			}
		})
	}
}

func byDelv(t *testing.T, delv string, tr *zonetest.Tree, ds *dns.DS, qname string) (string, string) {
	anchor := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(anchor, []byte(`trust-anchors { . static-ds `+strings.Join(strings.Fields(ds.String())[4:7], " ")+` "`+ds.Digest+`"; };`), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(tr.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, _ := exec.CommandContext(ctx, delv, "@"+host, "-p", port, "-a", anchor, "+root=.", "+tcp", qname, "TXT").CombinedOutput()
	switch {
	case strings.Contains(string(out), "fully validated"):
		return "good", string(out)
	case strings.Contains(string(out), "unsigned answer"):
		return "unsigned", string(out)
	}
	return "bad", string(out)
}
