package dnsserver

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func apply(t *testing.T, dir string, r *Roll, err error) []*Key {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.Make != nil {
		if _, err := GenerateKey(dir, testZone, r.Make.Algorithm, r.Make.SEP, r.Make.Timing); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range r.Retime {
		if err := c.Key.Retime(c.Timing); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := LoadKeys(dir, testZone)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// A validator that has cached any earlier key set and any earlier DS set can
// validate at every moment of a change.
func TestRollKeepsValid(t *testing.T) {
	const ttl, dsTTL = 5 * time.Minute, 24 * time.Hour
	start := time.Now().UTC().Truncate(time.Second)
	for _, kind := range []string{"zsk", "first zsk", "first zsk of another algorithm", "csk", "algorithm", "algorithm of two"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			old := Timing{Created: start.Add(-time.Hour), Publish: start.Add(-time.Hour), Activate: start.Add(-time.Hour)}
			if _, err := GenerateKey(dir, testZone, "ecdsap256sha256", true, old); err != nil {
				t.Fatal(err)
			}
			if kind == "zsk" || kind == "algorithm of two" {
				if _, err := GenerateKey(dir, testZone, "ecdsap256sha256", false, old); err != nil {
					t.Fatal(err)
				}
			}
			keys, err := LoadKeys(dir, testZone)
			if err != nil {
				t.Fatal(err)
			}
			parent := []*dns.DS{Anchors(keys, start)[0].DS()}
			before := map[uint16]bool{} // shown until now
			for _, k := range keys {
				before[k.Tag] = true
			}
			finishAt := time.Duration(-1)
			switch kind {
			case "first zsk", "first zsk of another algorithm":
				alg := "ECDSAP256SHA256"
				if kind != "first zsk" {
					alg = "ed25519"
				}
				r := &Roll{Make: &NewKey{Algorithm: alg, Timing: NewTiming(keys, false, alg, start, ttl)}}
				keys = apply(t, dir, r, nil)
			case "zsk":
				r, err := PlanZSK(keys, start, ttl)
				keys = apply(t, dir, r, err)
				if _, err := PlanZSK(keys, start.Add(time.Minute), ttl); err == nil {
					t.Error("a second change was planned beside the first")
				}
			default:
				alg := ""
				if kind != "csk" {
					alg = "ed25519"
				}
				r, err := PlanSEP(keys, alg, start, ttl)
				keys = apply(t, dir, r, err)
				if _, err := PlanFinish(keys, parent, dsTTL, start.Add(2*time.Hour), ttl); err == nil || !strings.Contains(err.Error(), "does not name") {
					t.Errorf("finished without a DS record: %v", err)
				}
				finishAt = 10 * time.Hour
			}
			type seen struct {
				at     time.Duration
				shown  map[uint16]bool
				parent []*dns.DS
			}
			history := []seen{{0, before, parent}}
			for at := time.Duration(0); at < 72*time.Hour; at += ttl / 2 {
				now := start.Add(at)
				if at == finishAt {
					for _, k := range keys {
						if k.Created.Equal(start) {
							parent = append(parent, k.DS())
						}
					}
					r, err := PlanFinish(keys, parent, dsTTL, now, ttl)
					keys = apply(t, dir, r, err)
					parent = parent[1:]
					for _, k := range keys {
						if k.SEP() && k.synced(now) != k.Created.Equal(start) {
							t.Errorf("the parent is asked for key %d: %v", k.Tag, k.synced(now))
						}
					}
				}
				if kind == "algorithm of two" && at == 40*time.Hour { // the key of the data follows
					r, err := PlanZSK(keys, now, ttl)
					keys = apply(t, dir, r, err)
				}
				s := newSigner(nil, keys, DefaultValidity, 64, now, func() {})
				shown := map[uint16]bool{}
				for _, k := range keys {
					if k.published(now) {
						shown[k.Tag] = true
					}
				}
				// What was seen last may have been fetched at any time until now.
				if n := len(history); n > 0 && maps.Equal(history[n-1].shown, shown) && slices.Equal(history[n-1].parent, parent) {
					history[n-1].at = at
				} else {
					history = append(history, seen{at, shown, parent})
				}
				for _, h := range history {
					if at-h.at <= ttl && !anyOf(s.zoneKeys, func(k *Key) bool { return h.shown[k.Tag] }) {
						t.Fatalf("after %s nothing that signs is in the key set of %s", at, h.at)
					}
					if at-h.at <= dsTTL && !anyOf(s.sepKeys, func(k *Key) bool { return shown[k.Tag] && named(k, h.parent) }) {
						t.Fatalf("after %s no signer of the keys is named by the DS set of %s", at, h.at)
					}
				}
				// A strict validator wants every algorithm that is named, and whoever
				// checks a zone every one that is in the key set.
				algorithms := map[uint8]bool{}
				for _, h := range history {
					for _, ds := range h.parent {
						algorithms[ds.Algorithm] = algorithms[ds.Algorithm] || at-h.at <= dsTTL
					}
				}
				for _, k := range keys {
					algorithms[k.Public.Algorithm] = algorithms[k.Public.Algorithm] || shown[k.Tag]
				}
				for alg, needed := range algorithms {
					has := func(k *Key) bool { return k.Public.Algorithm == alg }
					if needed && !(anyOf(s.zoneKeys, has) && anyOf(s.sepKeys, has)) {
						t.Fatalf("after %s algorithm %d does not sign everything", at, alg)
					}
				}
				if anchors := Anchors(keys, now); anyOf(anchors, func(k *Key) bool { return !k.SEP() }) || len(anchors) == 0 {
					t.Fatalf("after %s the anchors are %v", at, anchors)
				}
				for len(history) > 0 && at-history[0].at > dsTTL {
					history = history[1:]
				}
			}
			states := map[string]int{}
			for _, k := range keys {
				states[k.State(start.Add(72*time.Hour))]++
			}
			removed := map[string]int{"first zsk": 0, "first zsk of another algorithm": 0, "algorithm of two": 2}
			if _, ok := removed[kind]; !ok {
				removed[kind] = 1
			}
			if states["removed"] != removed[kind] || states["active"] != len(keys)-removed[kind] {
				t.Errorf("at the end: %v", states)
			}
		})
	}
}

func anyOf(keys []*Key, ok func(*Key) bool) bool {
	for _, k := range keys {
		if ok(k) {
			return true
		}
	}
	return false
}

func TestRollErrors(t *testing.T) {
	keys := testKeys(t, "ecdsap256sha256")
	now := time.Now()
	if _, err := PlanZSK(keys, now, time.Minute); err == nil || !strings.Contains(err.Error(), "signs everything") {
		t.Errorf("%v", err)
	}
	if _, err := PlanFinish(keys, nil, 0, now, time.Minute); err == nil || !strings.Contains(err.Error(), "no change is under way") {
		t.Errorf("%v", err)
	}
	foreign := *keys[0]
	foreign.signer = nil
	if err := foreign.Retime(Timing{}); err == nil {
		t.Error("another operator's key was changed")
	}
	if _, err := os.Stat(keys[0].File + ".key"); err != nil {
		t.Error(err)
	}
}
