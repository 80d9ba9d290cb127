package dnsserver

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// A stamp is what is kept of a signature of a denial; the rest of its RRSIG
// record can be told from the set that it signs. Denials come in endless variety:
// stamps have no pointers, so that the garbage collector does not look at them.
type stamp struct {
	inception, expiration, refresh uint32 // Unix seconds
	sig                            [64]byte
}

// A digest is a hash of what a slot of a table is about.
type digest [16]byte

// A stampTable is a fixed number of slots, found by digest of the set's content
// and the key that signed; a newer stamp takes the place of an older one.
type stampTable struct {
	keys   []digest // together, since most are looked at in vain
	stamps []stamp
	locks  stripes
}

// stripes are locks that each guard some of the slots of a table.
type stripes [64]struct {
	sync.Mutex
	turn uint8 // whose place the next one takes
}

func (t *stampTable) init(slots int) {
	n := tableSize(slots)
	t.keys, t.stamps = make([]digest, n), make([]stamp, n)
}

// tableSize is a power of two.
func tableSize(slots int) int {
	n := ways * 16
	for n < slots {
		n *= 2
	}
	return n
}

// tableBucket returns where the slots for a digest begin.
func tableBucket(key *digest, slots int) int {
	return int(binary.LittleEndian.Uint64(key[:])%uint64(slots/ways)) * ways
}

// get returns the stamp that has a key, if there is one that is good now.
func (t *stampTable) get(key digest, now time.Time) (st stamp, ok bool) {
	at := tableBucket(&key, len(t.keys))
	lock := &t.locks[at/ways%len(t.locks)]
	lock.Lock()
	defer lock.Unlock()
	for i := at; i < at+ways; i++ {
		if t.keys[i] == key && now.Unix() < int64(t.stamps[i].refresh) {
			return t.stamps[i], true
		}
	}
	return st, false
}

func (t *stampTable) put(key digest, st *stamp) {
	at := tableBucket(&key, len(t.keys))
	lock := &t.locks[at/ways%len(t.locks)]
	lock.Lock()
	defer lock.Unlock()
	victim := -1
	for i := at; i < at+ways; i++ {
		if t.keys[i] == key {
			victim = i
			break
		}
		if victim < 0 && t.keys[i] == (digest{}) {
			victim = i
		}
	}
	if victim < 0 {
		lock.turn++
		victim = at + int(lock.turn)%ways
	}
	t.keys[victim], t.stamps[victim] = key, *st
}

// stamp returns the stamp of one of the zone's keys over the NSEC set that has
// this sum, and whether it was made for that. When it has to be made first and
// may is false, it is errNotSigned.
func (s *signer) stamp(set *rrset, sum digest, which int, now time.Time, may bool) (st stamp, made bool, err error) {
	key := sum
	key[len(key)-1] ^= byte(which)
	st, ok := s.denials.get(key, now)
	if ok {
		return st, false, nil
	}
	if !may {
		return st, false, errNotSigned
	}
	st.inception, st.expiration = uint32(now.Add(-inceptionBack).Unix()), uint32(now.Add(s.validity).Unix())
	st.refresh = uint32(s.refreshAt(sum, now))
	k := s.zoneKeys[which]
	var room [1024]byte
	message := appendSigned(room[:0], set, k, s.zone, st.inception, st.expiration)
	if err := k.sign(&st.sig, set.appendCanonical(message)); err != nil {
		return st, false, err
	}
	s.made()
	s.denials.put(key, &st)
	return st, true, nil
}

// appendStamp appends the data of the RRSIG record that a stamp stands for.
func (s *signer) appendStamp(b []byte, set *rrset, which int, st *stamp) []byte {
	b = appendSigned(b, set, s.zoneKeys[which], s.zone, st.inception, st.expiration)
	return append(b, st.sig[:]...)
}

// signDenial is sign for NSEC sets.
func (s *signer) signDenial(set *rrset, now time.Time, may bool) (sigs *rrset, refresh int64, err error) {
	sum := set.sum()
	refresh = math.MaxInt64
	sigs = &rrset{owner: set.owner, typ: dns.TypeRRSIG, ttl: set.ttl}
	for i := range s.zoneKeys {
		st, _, err := s.stamp(set, sum, i, now, may)
		if err != nil {
			return nil, 0, err
		}
		sigs.data = append(sigs.data, s.appendStamp(nil, set, i, &st))
		refresh = min(refresh, int64(st.refresh))
	}
	return sigs, refresh, nil
}
