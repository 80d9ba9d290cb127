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
	*victim

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

// advance lets time go by.
func (f *field) advance(d time.Duration) { f.setClock(f.now().Add(d)) }

// TestAttacks puts somebody on the way to the name servers, and then makes the
// zone's own key sign what is wrong, while the real engine runs a service and
// asks. Whatever happens, no other version than the true one is ever scheduled,
// every attack leaves its event and its metric within one poll, and an honest
// second source keeps updates going.
func TestAttacks(t *testing.T) {
	if len(attacks) < 40 {
		t.Errorf("%d attacks", len(attacks))
	}
	at := hostileNetwork(t)
	// Most of the time is spent waiting for answers that do not come: more run
	// side by side than there are processors.
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, 16)
	for _, a := range attacks {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			t.Run(a.name, func(t *testing.T) {
				if a.agree == 0 {
					t.Run("alone", func(t *testing.T) { a.run(t, at, false) })
				}
				t.Run("beside an honest source", func(t *testing.T) { a.run(t, at, true) })
			})
		})
	}
}

func (a attack) run(t *testing.T, at zonetest.Place, second bool) {
	tree := zonetest.New(t, zonetest.Fast)
	qname, err := name.Module(zonetest.Module, zonetest.ZoneName)
	if err != nil {
		t.Fatal(err)
	}
	reg := metric.New()
	f := &field{tree: tree, path: tree.NewPathAt(t, at), qname: qname, evil: otherKeys(t, tree), victim: newVictim(t, reg)}
	f.evil.Publish(t, 150, zonetest.Epoch, evilVersion)
	tree.Publish(t, 100, zonetest.Epoch.Add(-time.Minute), "v1.0.1")

	dir := t.TempDir()
	anchor := filepath.Join(dir, "anchor")
	if err := os.WriteFile(anchor, []byte(tree.Anchor()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := discover.DefaultConfig()
	f.cfg = &cfg
	// An honest source needs its time on a busy machine.
	cfg.Zone, cfg.Anchor, cfg.Timeout = zonetest.ZoneName, anchor, config.Duration(4*time.Second)
	cfg.Sources = []string{a.source(t, f)}
	if second {
		cfg.Sources = append(cfg.Sources, "tcp://"+tree.Addr)
	}
	cfg.Agree = max(a.agree, 1)
	open := func() {
		d, err := discover.New(cfg, discover.Options{Dir: dir, Metrics: reg, Now: f.victim.now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		f.use(d)
	}
	open()
	if s := f.start(t); s.Knowledge.Error != "" && a.transport != "tls" && a.transport != "https" && a.transport != "tls-plain" {
		t.Fatalf("before the attack: %v", s.Knowledge.Error)
	}
	tree.Publish(t, 120, zonetest.Epoch, "v1.0.2")
	a.start(t, f)
	before, counts := f.now(), a.samples(reg)
	// The attack meets a client that asks for the keys again.
	open()
	s := f.poll(t)

	want := "v1.0.2"
	if a.keyHolder || !second && !a.harmless {
		want = ""
	}
	f.judge(t, s, want)
	kinds := kindsSince(s, before)
	silenced := second && a.event == discover.EventSilence // the second source is heard
	if a.event != "" && !silenced {
		if !slices.Contains(kinds, a.kindOf()) {
			t.Errorf("events %q without %s; %+v", kinds, a.kindOf(), s.Knowledge)
		}
		if missing := a.rose(counts, a.samples(reg)); len(missing) > 0 {
			t.Errorf("did not rise: %q", missing)
		}
	}
	if a.harmless && (s.Knowledge.Error != "" || len(kinds) != 0) {
		t.Errorf("harmless, but: %v, events %q", s.Knowledge.Error, kinds)
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

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
