package supervisor_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/supervisor/policy"
)

// evilVersion is what the attacker wants to be installed. It would be within
// the policy, so that only discovery stands in its way.
const evilVersion = "v1.0.66"

// An attack is what somebody does on the way to one source, or with the zone.
// Before it, one honest poll has seen v1.0.1 at 100 records. Then v1.0.2 is
// published at 120 records, and the attack begins.
type attack struct {
	name  string
	start func(t *testing.T, f *field)
	event string // kind that must be there after one poll, "" for none
	bogus string // kind of BogusError, when event is "bogus"

	// With an honest second source updates must go on, unless the zone's own
	// key signs what is wrong: then nothing at all may be believed.
	keyHolder bool
	// The attack does no harm: the true version comes through.
	harmless  bool
	agree     int // of two sources; the attack then must be noticed with both
	transport string
}

// field is where an attack takes place.
type field struct {
	tree  *zonetest.Tree
	path  *zonetest.Path // the attacked way
	qname string
	evil  *zonetest.Tree // zones with other keys that say evilVersion
	cfg   *discover.Config
	now   time.Time

	old map[dns.Question]*dns.Msg // honest answers from before
}

// module alters the answer to the question for the module's record.
func (f *field) module(change func(m *dns.Msg) *dns.Msg) {
	f.on(f.qname, dns.TypeTXT, change)
}

func (f *field) on(qname string, qtype uint16, change func(m *dns.Msg) *dns.Msg) {
	f.path.SetAttack(func(q dns.Question, m *dns.Msg) *dns.Msg {
		if dns.CanonicalName(q.Name) == qname && q.Qtype == qtype {
			return change(m)
		}
		return m
	})
}

func (f *field) all(change func(q dns.Question, m *dns.Msg) *dns.Msg) { f.path.SetAttack(change) }

// edit changes the zones between two answers.
func (f *field) edit(change func()) {
	f.tree.Mu.Lock()
	defer f.tree.Mu.Unlock()
	change()
}

func (f *field) set(r dns.RR) { f.edit(func() { f.tree.Zone.Set(r) }) }

func (f *field) text(m *dns.Msg, txt string) *dns.Msg {
	for _, r := range m.Answer {
		if t, ok := r.(*dns.TXT); ok {
			t.Txt = []string{txt}
		}
	}
	return m
}

const evilText = "v=" + evilVersion + " t=6a000000"

func evilTXT(qname string) dns.RR {
	return &dns.TXT{Hdr: dns.RR_Header{Name: qname, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{evilText}}
}

func without(rrs []dns.RR, types ...uint16) (out []dns.RR) {
	for _, r := range rrs {
		if !slices.Contains(types, r.Header().Rrtype) {
			out = append(out, r)
		}
	}
	return out
}

// instead answers from another tree.
func instead(tr *zonetest.Tree, q dns.Question, m *dns.Msg) *dns.Msg {
	m.Answer, m.Ns, m.Rcode = nil, nil, dns.RcodeSuccess
	tr.Resolve(m)
	return m
}

// proofOf is the zone's answer to another question, used as if it were for this one.
func proofOf(z *zonetest.Zone, qname string, qtype uint16, m *dns.Msg) *dns.Msg {
	other := new(dns.Msg)
	other.SetQuestion(qname, qtype)
	z.Answer(other)
	m.Answer, m.Ns = nil, other.Ns
	return m
}

// replay answers as before the attack, where it did not ask then honestly.
func (f *field) replay(q dns.Question, m *dns.Msg) *dns.Msg {
	q.Name = dns.CanonicalName(q.Name)
	if old := f.old[q]; old != nil {
		old = old.Copy()
		old.Id, old.Question = m.Id, m.Question
		return old
	}
	return m
}

func clone(m map[string][]dns.RR) map[string][]dns.RR {
	out := map[string][]dns.RR{}
	for k, v := range m {
		out[k] = slices.Clone(v)
	}
	return out
}

// record keeps the tree's present answers for a replay.
func (f *field) record(tr *zonetest.Tree) {
	tr.Mu.Lock()
	defer tr.Mu.Unlock()
	f.old = map[dns.Question]*dns.Msg{}
	for _, n := range []string{f.qname, name.Status(zonetest.ZoneName), name.Toolchain(zonetest.ZoneName)} {
		m := new(dns.Msg)
		m.SetQuestion(n, dns.TypeTXT)
		m.Response, m.RecursionAvailable = true, true
		tr.Resolve(m)
		f.old[m.Question[0]] = m
	}
}

// TestAttacks puts somebody on the way to the name servers, and then makes the
// zone's own key sign what is wrong. Whatever happens, no other version than
// the true one is ever scheduled, every attack leaves its event and its metric
// within one poll, and an honest second source keeps updates going.
func TestAttacks(t *testing.T) {
	if len(attacks) < 40 {
		t.Errorf("%d attacks", len(attacks))
	}
	// Most of the time is spent waiting for answers that do not come: more run
	// side by side than there are processors.
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, 8)
	for _, a := range attacks {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			t.Run(a.name, func(t *testing.T) {
				if a.agree == 0 {
					t.Run("alone", func(t *testing.T) { a.run(t, false) })
				}
				t.Run("beside an honest source", func(t *testing.T) { a.run(t, true) })
			})
		})
	}
}

func (a attack) run(t *testing.T, second bool) {
	tree := zonetest.New(t, zonetest.Fast)
	qname, err := name.Module(zonetest.Module, zonetest.ZoneName)
	if err != nil {
		t.Fatal(err)
	}
	f := &field{tree: tree, path: tree.NewPath(t), qname: qname, evil: otherKeys(t, tree), now: zonetest.Epoch}
	f.evil.Publish(t, 150, zonetest.Epoch, evilVersion)
	tree.Publish(t, 100, zonetest.Epoch.Add(-time.Minute), "v1.0.1")

	dir := t.TempDir()
	anchor := filepath.Join(dir, "anchor")
	if err := os.WriteFile(anchor, []byte(tree.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := discover.DefaultConfig()
	f.cfg = &cfg
	cfg.Zone, cfg.Anchor, cfg.Timeout = zonetest.ZoneName, anchor, config.Duration(3*time.Second)
	if a.event == discover.EventUnreachable || a.event == discover.EventSilence {
		cfg.Timeout = config.Duration(1500 * time.Millisecond) // an honest source needs its time on a busy machine
	}
	cfg.Sources = []string{a.source(t, f)}
	if second {
		cfg.Sources = append(cfg.Sources, "tcp://"+tree.Addr)
	}
	cfg.Agree = max(a.agree, 1)
	reg := metric.New()
	open := func() *discover.Discoverer {
		d, err := discover.New(cfg, discover.Options{Dir: dir, Metrics: reg, Now: func() time.Time { return f.now }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		return d
	}
	d := open()
	if _, err := d.Ask(t.Context(), zonetest.Module); err != nil && a.transport != "tls" && a.transport != "https" && a.transport != "tls-plain" {
		t.Fatalf("before the attack: %v", err)
	}
	tree.Publish(t, 120, zonetest.Epoch, "v1.0.2")
	before := counted(reg, a.event, a.bogus)
	a.start(t, f)
	// The attack meets a client that asks for the keys again.
	d = open()
	ans, askErr := d.Ask(t.Context(), zonetest.Module)

	got := candidate(f.now, ans, askErr)
	want := "v1.0.2"
	if a.keyHolder || !second && !a.harmless {
		want = ""
	}
	if got == evilVersion || got != want {
		t.Errorf("scheduled: %q, want %q (%v)", got, want, askErr)
	}
	kinds := []string{}
	for _, e := range ans.Events {
		kinds = append(kinds, e.Kind)
	}
	silenced := second && a.event == discover.EventSilence // the second source is heard
	if a.event != "" && !silenced && !slices.Contains(kinds, a.event) {
		t.Errorf("events %q without %s: %+v", kinds, a.event, ans.Events)
	}
	if a.event != "" && !silenced {
		if after := counted(reg, a.event, a.bogus); after <= before {
			t.Errorf("metric of %s %s did not rise", a.event, a.bogus)
		}
	}
	if a.harmless && (askErr != nil || len(kinds) != 0 || ans.TTL > time.Minute) {
		t.Errorf("harmless, but: %v, events %q, TTL %v", askErr, kinds, ans.TTL)
	}
}

// otherKeys is a tree whose keys have other tags: with the same tag a foreign
// signature is told to be a bad one instead of one by an unknown key.
func otherKeys(t *testing.T, tree *zonetest.Tree) *zonetest.Tree {
	for {
		other := zonetest.New(t, zonetest.Fast)
		if !slices.ContainsFunc(other.Zones, func(z *zonetest.Zone) bool {
			return slices.ContainsFunc(tree.Zones, func(o *zonetest.Zone) bool { return o.Key.KeyTag() == z.Key.KeyTag() })
		}) {
			return other
		}
	}
}

// candidate is what the policy would install of an answer.
func candidate(now time.Time, a discover.Answer, err error) string {
	in := policy.Input{Now: now, Running: policy.Pair{Version: "v1.0.1", GoVersion: "go1.27.4"}, Level: policy.LevelPatch, Toolchain: policy.ToolchainFollow}
	if err == nil {
		for _, e := range a.Versions {
			in.Releases = append(in.Releases, policy.Release{Version: e.Version, Discovered: e.Time})
		}
	} else if len(a.Versions) > 0 {
		return "versions beside an error: " + a.Versions[0].Version
	}
	if d := policy.Decide(in); d.Candidate != nil {
		return d.Candidate.Version
	}
	return ""
}

// source is the attacked way as a configuration names it.
func (a attack) source(t *testing.T, f *field) string {
	switch a.transport {
	case "udp", "tcp":
		return a.transport + "://" + f.path.Addr
	case "tls", "https":
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS() // its certificate is of an authority that nobody trusts, and for example.com
		t.Cleanup(srv.Close)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, pemOf(srv.Certificate().Raw), 0o600); err != nil {
			t.Fatal(err)
		}
		f.cfg.CA = ca
		addr := srv.Listener.Addr().String()
		if a.transport == "tls" {
			return "tls://" + addr + "#dns.example"
		}
		return "https://" + addr + "/dns-query#dns.example"
	case "tls-plain":
		return "tls://" + f.path.Addr
	}
	if a.event == discover.EventUnreachable {
		return "udp://" + f.path.Addr
	}
	return "tcp://" + f.path.Addr
}

func counted(reg *metric.Registry, event, bogus string) float64 {
	want, kind := "upkeep_discovery_events_total", event
	if bogus != "" {
		want, kind = "upkeep_discovery_bogus_total", bogus
	}
	for _, m := range reg.Samples() {
		if m.Name == want && m.Values[0] == kind {
			return m.Value
		}
	}
	return 0
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
