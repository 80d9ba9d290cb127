package dnsserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Roll is one step of changing a key: what to do now, as a plain value.
type Roll struct {
	Make    *NewKey  // a key to make
	Retime  []Retime // keys whose times change
	Summary []string // what happens when, for people
}

// A NewKey is a key to be made.
type NewKey struct {
	SEP       bool
	Algorithm string
	Timing    Timing
}

// A Retime gives a key other times.
type Retime struct {
	Key    *Key
	Timing Timing
}

// rollMargin is added to every wait, for servers whose clocks differ and
// caches that keep records a little longer.
const rollMargin = time.Hour

func algorithmName(alg uint8) string { return strings.ToLower(dns.AlgorithmToString[alg]) }

func ownKeys(keys []*Key, sep bool, now time.Time) (active, waiting []*Key) {
	for _, k := range keys {
		if k.signer == nil || k.SEP() != sep {
			continue
		}
		switch k.State(now) {
		case "active":
			if k.Inactive.IsZero() {
				active = append(active, k)
			}
		case "waiting", "published":
			waiting = append(waiting, k)
		}
	}
	return active, waiting
}

// PlanZSK plans the change of the key that signs the zone's data by publishing
// its successor first (RFC 6781, section 4.1.1.1). Nothing else has to be done:
// the times in the files do the rest. ttl is the longest TTL in the zone.
func PlanZSK(keys []*Key, now time.Time, ttl time.Duration) (*Roll, error) {
	active, waiting := ownKeys(keys, false, now)
	switch {
	case len(active) == 0:
		return nil, errors.New("there is no active zone-signing key: a key of the kind that a DS record names signs everything; change that one")
	case len(waiting) > 0:
		return nil, fmt.Errorf("key %d is already on its way", waiting[0].Tag)
	}
	use := now.Add(ttl + rollMargin)
	gone := use.Add(ttl + rollMargin)
	// The algorithm follows that of the key that the DS record names, which signs
	// the data too as long as no other key of its algorithm does.
	algorithm := active[0].Public.Algorithm
	if sep, _ := ownKeys(keys, true, now); len(sep) == 1 {
		algorithm = sep[0].Public.Algorithm
	}
	r := &Roll{Make: &NewKey{Algorithm: algorithmName(algorithm), Timing: Timing{Created: now, Publish: now, Activate: use}}}
	for _, k := range active {
		t := k.Timing
		t.Inactive, t.Delete = use, gone
		if k.Public.Algorithm != algorithm {
			t.Inactive = gone // while an algorithm is in the key set, it signs
		}
		r.Retime = append(r.Retime, Retime{k, t})
		r.Summary = append(r.Summary, fmt.Sprintf("key %d signs until %s and is gone at %s", k.Tag, show(t.Inactive), show(gone)))
	}
	r.Summary = append(r.Summary, fmt.Sprintf("the new key is published now and signs from %s on", show(use)))
	return r, nil
}

// NewTiming says when a key made now is used. The first one that only signs data
// takes that over from a key in use, so caches have to know it before; not when it
// has an algorithm of its own: then both sign.
func NewTiming(keys []*Key, sep bool, algorithm string, now time.Time, ttl time.Duration) Timing {
	t := Timing{Created: now, Publish: now, Activate: now, SyncPub: now}
	active, _ := ownKeys(keys, true, now)
	if !sep && slices.ContainsFunc(active, func(k *Key) bool { return algorithmName(k.Public.Algorithm) == strings.ToLower(algorithm) }) {
		t.Activate = now.Add(ttl + rollMargin)
	}
	return t
}

// PlanSEP plans the first step of changing the key that a DS record names: its
// successor signs beside it at once (RFC 6781, section 4.1.2), and the parent
// is asked for its DS record once every cache can have the key.
func PlanSEP(keys []*Key, algorithm string, now time.Time, ttl time.Duration) (*Roll, error) {
	active, waiting := ownKeys(keys, true, now)
	if len(active) == 0 {
		return nil, errors.New("there is no active key that a DS record names")
	}
	if len(waiting) > 0 || len(active) > 1 {
		return nil, errors.New("a change is under way: bring it to its end first (key roll -finish)")
	}
	if algorithm == "" {
		algorithm = algorithmName(active[0].Public.Algorithm)
	}
	ask := now.Add(ttl + rollMargin)
	return &Roll{
		Make: &NewKey{SEP: true, Algorithm: algorithm, Timing: Timing{Created: now, Publish: now, Activate: now, SyncPub: ask}},
		Summary: []string{
			fmt.Sprintf("the new key signs beside key %d from now on", active[0].Tag),
			fmt.Sprintf("put its DS record into the parent zone, beside the old one, not before %s", show(ask)),
			"then run key roll -finish, which looks for it there",
		},
	}, nil
}

// PlanFinish plans the second step: when the parent zone names the new key, the
// old one goes after the old DS record can be in no cache. parent is what the
// parent zone says, and dsTTL how long it is kept.
func PlanFinish(keys []*Key, parent []*dns.DS, dsTTL time.Duration, now time.Time, ttl time.Duration) (*Roll, error) {
	active, _ := ownKeys(keys, true, now)
	if len(active) < 2 {
		return nil, errors.New("no change is under way: there is no second active key that a DS record can name")
	}
	fresh := active[0]
	for _, k := range active {
		if k.SyncPub.After(fresh.SyncPub) {
			fresh = k
		}
	}
	if !named(fresh, parent) {
		return nil, fmt.Errorf("the parent zone does not name the new key yet; its record is: %s", fresh.DS())
	}
	if now.Before(fresh.SyncPub) {
		return nil, fmt.Errorf("the new key can be missing in caches until %s: finish after that", show(fresh.SyncPub))
	}
	gone := now.Add(max(dsTTL, ttl) + rollMargin)
	r := &Roll{Summary: []string{fmt.Sprintf("the parent zone names key %d", fresh.Tag)}}
	for _, k := range active {
		if k == fresh {
			continue
		}
		t := k.Timing
		t.SyncDel, t.Inactive, t.Delete = now, gone, gone
		r.Retime = append(r.Retime, Retime{k, t})
		r.Summary = append(r.Summary, fmt.Sprintf("key %d signs until %s; take its DS record out of the parent zone now", k.Tag, show(gone)))
	}
	return r, nil
}

// named reports whether one of the DS records is the key's.
func named(k *Key, parent []*dns.DS) bool {
	for _, ds := range parent {
		if own := k.Public.ToDS(ds.DigestType); own != nil && own.KeyTag == ds.KeyTag && own.Algorithm == ds.Algorithm && strings.EqualFold(own.Digest, ds.Digest) {
			return true
		}
	}
	return false
}

func show(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
