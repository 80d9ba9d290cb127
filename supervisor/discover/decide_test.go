package discover

import (
	"errors"
	"os"
	"path/filepath"

	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor/discover/zonetest"
)

// said makes a source's answer.
func said(source string, size int64, age time.Duration, versions ...string) SourceAnswer {
	a := SourceAnswer{Source: source, Zone: testZone, uncached: true}
	if size > 0 {
		a.Status = &name.StatusText{Size: size, Hash: [32]byte{byte(size)}, At: epoch.Add(-age)}
	}
	for _, v := range versions {
		a.Versions = append(a.Versions, name.Entry{Version: v, Time: epoch.Add(-age)})
	}
	return a
}

func failed(source string, err error) SourceAnswer {
	return SourceAnswer{Source: source, Zone: testZone, Err: err}
}

func denies(source string, size int64) SourceAnswer {
	a := said(source, size, time.Minute)
	a.Err = &NotFoundError{Module: hello, Source: source}
	return a
}

func from(server string, a SourceAnswer) SourceAnswer { a.Server = server; return a }

func forked(a SourceAnswer) SourceAnswer { a.Status.Hash[31] = 1; return a }
func cachedPart(a SourceAnswer) SourceAnswer {
	a.uncached = false
	return a
}

func signed(a SourceAnswer, age time.Duration) SourceAnswer {
	a.signed = epoch.Add(-age)
	return a
}

// A record that was replaced does not come back with its old signature.
func TestJudgeRecordReplayed(t *testing.T) {
	before := seen{Records: map[string]record{testZone + " a": {"v1.0.2", epoch.Add(-time.Hour)}}}
	for _, tc := range []struct {
		answer SourceAnswer
		stale  bool
	}{
		{signed(said("a", 200, time.Minute, "v1.0.1"), 48*time.Hour), true},
		{signed(said("a", 200, time.Minute, "v1.0.1"), 70*time.Minute), false}, // within the tolerance
		{signed(said("a", 200, time.Minute, "v1.0.2"), 48*time.Hour), false},   // the same content
		{signed(said("a", 200, time.Minute, "v1.0.1"), time.Minute), false},    // signed anew
		{signed(denies("a", 200), 48*time.Hour), true},
	} {
		answers := []SourceAnswer{tc.answer}
		v := judge(epoch, rules{1, 6 * time.Hour, 72 * time.Hour}, hello, answers, nil, before)
		if got := errors.Is(v.err, ErrStale); got != tc.stale {
			t.Errorf("%v: stale %v, %v", tc.answer.signed, got, v.err)
		}
	}
}

func TestJudge(t *testing.T) {
	bogus := &BogusError{Kind: BadSignature, Reason: "the signature does not verify"}
	known := map[string]mark{testZone + " a": {100, [32]byte{100}, epoch.Add(-time.Hour)}}
	for _, tc := range []struct {
		name    string
		agree   int
		answers []SourceAnswer
		marks   map[string]mark
		before  []string
		want    string // versions
		events  string
		err     error // errors.Is, nil = none
		says    string
	}{
		{"one fresh source", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1", "v0.2.0")}, known, nil, "v1.0.1 v0.2.0", "", nil, ""},
		{"a zone without status", 1, []SourceAnswer{said("a", 0, 0, "v1.0.1")}, nil, nil, "v1.0.1", "", nil, ""},
		{"status denied after it was known", 1, []SourceAnswer{said("a", 0, 0, "v1.0.1")}, known, nil, "", "stale", ErrStale, "now does not say"},
		{"log went back", 1, []SourceAnswer{said("a", 99, time.Minute, "v1.0.0")}, known, nil, "", "stale", ErrStale, "went back from 100 to 99"},
		{"same size, much older reading", 1, []SourceAnswer{said("a", 100, 3*time.Hour, "v1.0.0")}, known, nil, "", "stale", ErrStale, "replayed"},
		{"same size, slightly older reading from another cache", 1, []SourceAnswer{said("a", 100, 65*time.Minute, "v1.0.0")}, known, nil, "v1.0.0", "", nil, ""},
		{"same size, other hash", 1, []SourceAnswer{forked(said("a", 100, time.Minute, "v1.0.0"))}, known, nil, "", "conflict", ErrStale, "another hash than before"},
		{"too old", 1, []SourceAnswer{said("a", 101, 7*time.Hour, "v1.0.0")}, known, nil, "", "stale", ErrStale, "7 hours ago"},
		{"just fresh", 1, []SourceAnswer{said("a", 101, 6*time.Hour, "v1.0.0")}, known, nil, "v1.0.0", "", nil, ""},
		{"of the future", 1, []SourceAnswer{said("a", 101, -time.Hour, "v1.0.0")}, known, nil, "", "stale", ErrStale, "in the future"},
		{"the freshest wins", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), said("b", 120, time.Minute, "v1.0.2")}, nil, nil, "v1.0.2", "", nil, ""},
		{"one is far behind", 1, []SourceAnswer{said("a", 100, 2*time.Hour, "v1.0.1"), said("b", 120, time.Minute, "v1.0.2")}, nil, nil, "v1.0.2", "behind", nil, ""},
		{"one is bogus, the other honest", 1, []SourceAnswer{failed("a", bogus), said("b", 120, time.Minute, "v1.0.2")}, nil, nil, "v1.0.2", "bogus", nil, ""},
		{"one is silent, the other honest", 1, []SourceAnswer{failed("a", ErrUnreachable), said("b", 120, time.Minute, "v1.0.2")}, nil, nil, "v1.0.2", "unreachable", nil, ""},
		{"bogus and silent: bogus is told first", 1, []SourceAnswer{failed("a", ErrUnreachable), failed("b", bogus)}, nil, nil, "", "unreachable bogus", ErrUnreachable, "b: the signature does not verify"},
		{"two agree", 2, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), said("b", 100, time.Minute, "v1.0.1")}, nil, nil, "v1.0.1", "", nil, ""},
		{"one of two is silent", 2, []SourceAnswer{failed("a", ErrUnreachable), said("b", 100, time.Minute, "v1.0.1")}, nil, nil, "", "unreachable disagree", ErrDisagree, "a has no fresh answer; b says v1.0.1"},
		{"one of two is stale", 2, []SourceAnswer{said("a", 90, time.Minute, "v1.0.1"), said("b", 100, time.Minute, "v1.0.1")}, known, nil, "", "stale disagree", ErrDisagree, ""},
		{"two of three", 2, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), failed("b", bogus), said("c", 101, time.Minute, "v1.0.1")}, nil, nil, "v1.0.1", "bogus", nil, ""},
		{"two behind the third", 2, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), said("b", 100, time.Minute, "v1.0.1"), said("c", 101, time.Minute, "v1.0.2")}, nil, nil, "v1.0.1", "", nil, ""},
		{"a version that one source alone has", 2, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1", "v0.9.0"), said("b", 101, time.Minute, "v1.9.9", "v0.9.0")}, nil, nil, "v0.9.0", "", nil, ""},
		{"one server asked in two ways", 2, []SourceAnswer{from("192.0.2.1:53", said("a", 100, time.Minute, "v1.0.1")), from("192.0.2.1:853", said("b", 100, time.Minute, "v1.0.1"))}, nil, nil, "", "disagree", ErrDisagree, ""},
		{"two servers", 2, []SourceAnswer{from("192.0.2.1:53", said("a", 100, time.Minute, "v1.0.1")), from("192.0.2.2:53", said("b", 100, time.Minute, "v1.0.1"))}, nil, nil, "v1.0.1", "", nil, ""},
		{"two servers on loopback", 2, []SourceAnswer{from("127.0.0.1:53", said("a", 100, time.Minute, "v1.0.1")), from("127.0.0.1:54", said("b", 100, time.Minute, "v1.0.1"))}, nil, nil, "v1.0.1", "", nil, ""},
		{"one server denies in two ways", 2, []SourceAnswer{from("192.0.2.1:53", denies("a", 100)), from("192.0.2.1:853", denies("b", 100))}, nil, nil, "", "disagree", ErrDisagree, ""},
		{"different answers at one size", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), said("b", 100, time.Minute, "v1.9.9")}, nil, nil, "", "conflict", ErrDisagree, "one says v1.0.1, the other v1.9.9"},
		{"different answers, one from a cache", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), cachedPart(said("b", 100, time.Minute, "v1.0.2"))}, nil, nil, "v1.0.2", "", nil, ""},
		{"different logs at one size", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1"), forked(said("b", 100, time.Minute, "v1.0.1"))}, nil, nil, "", "conflict", ErrDisagree, "different hashes"},
		{"an older record of one at the same size", 1, []SourceAnswer{signed(said("a", 100, time.Minute, "v1.0.1"), 48*time.Hour), signed(said("b", 100, time.Minute, "v1.0.2"), time.Hour)}, nil, nil, "v1.0.2", "stale", nil, ""},
		{"an older record from a cache", 1, []SourceAnswer{cachedPart(signed(said("a", 100, time.Minute, "v1.0.1"), 48*time.Hour)), signed(said("b", 100, time.Minute, "v1.0.2"), time.Hour)}, nil, nil, "v1.0.2", "behind", nil, ""},
		{"an older denial of one at the same size", 1, []SourceAnswer{signed(denies("a", 100), 48*time.Hour), signed(said("b", 100, time.Minute, "v1.0.2"), time.Hour)}, nil, nil, "v1.0.2", "stale", nil, ""},
		{"the same record, signed at other times", 1, []SourceAnswer{signed(said("a", 100, time.Minute, "v1.0.1"), 48*time.Hour), signed(said("b", 100, time.Minute, "v1.0.1"), time.Hour)}, nil, nil, "v1.0.1", "", nil, ""},
		{"not found", 1, []SourceAnswer{denies("a", 100)}, nil, nil, "", "", ErrNotFound, ""},
		{"not found any more", 1, []SourceAnswer{denies("a", 100)}, nil, []string{"v1.0.0"}, "", "not_found", ErrNotFound, ""},
		{"not found by a source that is behind", 1, []SourceAnswer{denies("a", 100), said("b", 101, time.Minute, "v1.0.0")}, nil, nil, "v1.0.0", "", nil, ""},
		{"not found by one of two that must agree", 2, []SourceAnswer{denies("a", 100), said("b", 101, time.Minute, "v1.0.0")}, nil, nil, "", "disagree", ErrDisagree, ""},
		{"no release", 1, []SourceAnswer{said("a", 100, time.Minute)}, nil, nil, "", "", nil, ""},
		{"a version vanished", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1")}, nil, []string{"v1.0.1", "v0.9.0"}, "v1.0.1", "vanished", nil, ""},
		{"the newest went down", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.0")}, nil, []string{"v1.0.1"}, "v1.0.0", "lower", nil, ""},
		{"a new major beside", 1, []SourceAnswer{said("a", 100, time.Minute, "v1.0.1", "v0.9.1")}, nil, []string{"v0.9.0"}, "v1.0.1 v0.9.1", "", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before seen
			for _, v := range tc.before {
				before.Versions = append(before.Versions, name.Entry{Version: v})
			}
			v := judge(epoch, rules{tc.agree, 6 * time.Hour, 72 * time.Hour}, hello, tc.answers, tc.marks, before)
			var events []string
			for _, e := range v.events {
				events = append(events, e.Kind)
			}
			if join(v.versions) != tc.want || strings.Join(events, " ") != tc.events {
				t.Errorf("versions %q, events %q", join(v.versions), events)
			}
			switch {
			case tc.err == nil && v.err != nil, tc.err != nil && !errors.Is(v.err, tc.err):
				t.Errorf("error %v, want %v", v.err, tc.err)
			case tc.says != "" && !strings.Contains(v.err.Error(), tc.says):
				t.Errorf("error %v, want %q", v.err, tc.says)
			}
			if v.err != nil && len(v.versions) > 0 {
				t.Errorf("versions beside an error: %v", v.versions)
			}
		})
	}
}

// The latest time of discovery counts, so that a source cannot cut a cooldown short.
func TestAgreedTime(t *testing.T) {
	v := judge(epoch, rules{2, 6 * time.Hour, 72 * time.Hour}, hello,
		[]SourceAnswer{said("a", 100, 5*time.Hour, "v1.0.1"), said("b", 100, time.Minute, "v1.0.1")}, nil, seen{})
	if len(v.versions) != 1 || !v.versions[0].Time.Equal(epoch.Add(-time.Minute)) {
		t.Errorf("%+v", v.versions)
	}
}

// The marks outlive the process, and max_silence is noticed.
func TestMemory(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	now := epoch
	dir := t.TempDir()
	open := func() *Discoverer {
		return discoverer(t, tr, func(c *Config, o *Options) { o.Dir, o.Now = dir, func() time.Time { return now } })
	}
	if _, err := open().Ask(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	tr.Publish(t, 99, epoch, "v1.0.0")
	a, err := open().Ask(t.Context(), hello)
	if !errors.Is(err, ErrStale) || !a.Fresh.StaleSince.Equal(now) || !a.Fresh.Last.Equal(epoch) || a.Fresh.Silent {
		t.Fatalf("replay after a restart: %v, %+v", err, a.Fresh)
	}
	now = now.Add(71 * time.Hour)
	tr.Mu.Lock()
	for _, z := range tr.Zones {
		z.Expiration = epoch.Add(1000 * time.Hour)
	}
	tr.Mu.Unlock()
	d := open()
	if a, _ := d.Ask(t.Context(), hello); a.Fresh.Silent || !a.Fresh.StaleSince.Equal(epoch) {
		t.Errorf("before max_silence: %+v", a.Fresh)
	}
	now = now.Add(2 * time.Hour)
	a, _ = d.Ask(t.Context(), hello)
	if !a.Fresh.Silent || a.Events[len(a.Events)-1].Kind != EventSilence {
		t.Errorf("after max_silence: %+v, %v", a.Fresh, a.Events)
	}
	tr.Publish(t, 101, now, "v1.0.2")
	now = now.Add(time.Minute) // cached by nobody, but keys may have expired
	if a, err := d.Ask(t.Context(), hello); err != nil || a.Fresh.Silent || !a.Fresh.StaleSince.IsZero() {
		t.Errorf("fresh again: %v, %+v", err, a.Fresh)
	}
}

// Polls that find nothing new do not write; a larger log and a refusal do.
func TestSaves(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	now := epoch
	dir := t.TempDir()
	d := discoverer(t, tr, func(c *Config, o *Options) { o.Dir, o.Now = dir, func() time.Time { return now } })
	file := filepath.Join(dir, "discovery.json")
	wrote := func() bool {
		t.Helper()
		if _, err := d.Ask(t.Context(), hello); err != nil && !errors.Is(err, ErrStale) {
			t.Fatal(err)
		}
		_, err := os.Stat(file)
		os.Remove(file)
		return err == nil
	}
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() {}, true},
		{func() {}, false},
		{func() { now = now.Add(time.Minute) }, false},
		{func() { now = now.Add(saveEvery) }, true},
		{func() { tr.Publish(t, 101, now, "v1.0.1", "v0.3.0") }, true},
		{func() {}, false},
		{func() { tr.Publish(t, 101, now, "v1.0.2", "v0.3.0") }, true},
		{func() { tr.Publish(t, 90, now, "v1.0.2", "v0.3.0") }, true},
	} {
		step.do()
		if got := wrote(); got != step.want {
			t.Errorf("step %d: wrote %v", i, got)
		}
	}
}

// Two name servers of one zone that sign different things at one size are kept
// as evidence.
func TestEvidence(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	other := &zonetest.Tree{Zones: []*zonetest.Zone{tr.Root, tr.TLD, nil}, Root: tr.Root, TLD: tr.TLD}
	twin := *tr.Zone
	twin.Records = map[string][]dns.RR{}
	for k, v := range tr.Zone.Records {
		twin.Records[k] = v
	}
	other.Zone, other.Zones[2] = &twin, &twin
	other.Publish(t, 100, epoch.Add(-time.Minute), "v1.9.9")
	other.Start(t)
	dir := t.TempDir()
	d := discoverer(t, tr, func(c *Config, o *Options) {
		c.Sources = []string{"udp://" + tr.Addr, "udp://" + other.Addr}
		o.Dir = dir
	})
	a, err := d.Ask(t.Context(), hello)
	if !errors.Is(err, ErrDisagree) || len(a.Events) != 1 || a.Events[0].Kind != EventConflict || len(a.Events[0].Files) != 2 {
		t.Fatalf("%v, %+v", err, a.Events)
	}
	for i, want := range []string{tr.Addr, other.Addr} {
		text := readFile(t, a.Events[0].Files[i])
		if !strings.Contains(text, want) || strings.Count(text, `"Wire"`) != 3 {
			t.Errorf("evidence %d: %s", i, text)
		}
	}
}

// Supervisors of one host share what one of them asked, and believe none of it.
func TestSharedCache(t *testing.T) {
	tr := zonetest.New(t, zonetest.Fast)
	dir := t.TempDir()
	now := epoch
	open := func() *Discoverer {
		return discoverer(t, tr, func(c *Config, o *Options) {
			c.Cache, c.Sources = dir, []string{"tcp://" + tr.Addr}
			o.Now = func() time.Time { return now }
		})
	}
	ask := func(want int) Answer {
		t.Helper()
		a, err := open().Ask(t.Context(), hello)
		if err != nil || join(a.Versions) != "v1.0.1 v0.3.0" || a.Sources[0].Exchanges != want {
			t.Fatalf("%d exchanges, want %d; %v, %v", a.Sources[0].Exchanges, want, a.Versions, err)
		}
		return a
	}
	ask(10)
	now = now.Add(20 * time.Second)
	if a := ask(0); a.TTL != 40*time.Second {
		t.Errorf("TTL %v of what is 20 seconds old", a.TTL)
	}
	now = now.Add(45 * time.Second)
	ask(5) // the texts, and what the TLD says of a name that is no zone, are over
	// Another user of the machine writes what it likes.
	evil := zonetest.New(t, zonetest.Fast)
	evil.Publish(t, 200, now, "v1.6.6")
	d := discoverer(t, evil, func(c *Config, o *Options) {
		c.Cache, c.Sources = dir, []string{"tcp://" + evil.Addr}
		o.Now = func() time.Time { return now }
	})
	d.sources[0].spec = "tcp://" + tr.Addr // writes under the honest source's name
	if a, err := d.Ask(t.Context(), hello); err != nil || join(a.Versions) != "v1.6.6" {
		t.Fatal(a.Versions, err)
	}
	now = now.Add(time.Second)
	ask(10)
	writeFiles(t, dir, "garbage")
	ask(10)

}
