package dnsserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// signSet returns the data of an RRSIG record over a set (RFC 4034, section 3).
func signSet(set *rrset, k *Key, zone []byte, inception, expiration time.Time) ([]byte, error) {
	rdata := appendSigned(nil, set, k, zone, uint32(inception.Unix()), uint32(expiration.Unix()))
	var sig [64]byte
	if err := k.sign(&sig, set.appendCanonical(slices.Clone(rdata))); err != nil {
		return nil, err
	}
	return append(rdata, sig[:]...), nil
}

// appendSigned appends the data of an RRSIG record without the signature.
func appendSigned(b []byte, set *rrset, k *Key, zone []byte, inception, expiration uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, set.typ)
	b = append(b, k.Public.Algorithm, labelCount(set.owner))
	b = binary.BigEndian.AppendUint32(b, set.ttl)
	b = binary.BigEndian.AppendUint32(b, expiration)
	b = binary.BigEndian.AppendUint32(b, inception)
	b = binary.BigEndian.AppendUint16(b, k.Tag)
	return append(b, zone...)
}

// appendCanonical appends the set in canonical form.
func (s *rrset) appendCanonical(b []byte) []byte {
	for _, data := range s.data {
		b = append(b, s.owner...)
		b = binary.BigEndian.AppendUint16(b, s.typ)
		b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
		b = binary.BigEndian.AppendUint32(b, s.ttl)
		b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
		b = append(b, data...)
	}
	return b
}

// A signature is a stored RRSIG. It is never changed.
type signature struct {
	key     digest   // of the set's content
	refresh int64    // when it is to be made anew, Unix seconds
	rdata   [][]byte // one for each key that signs
}

// Lifetimes of signatures. The long validity outlasts a clock that is wrong
// and a server that is away for a weekend; the inception lies back for
// resolvers whose clock is behind.
const (
	DefaultValidity = 14 * 24 * time.Hour
	inceptionBack   = 3 * time.Hour
)

// What an answer, and the denial of a name, need that is not there yet.
var (
	errNotSigned       = errors.New("a signature has to be made first")
	errDenialNotSigned = errors.New("a signature of a denial has to be made first")
)

// A signer makes signatures with the keys that are active and keeps them.
type signer struct {
	zone     []byte
	zoneKeys []*Key // that sign the zone's data
	sepKeys  []*Key // that sign the key set
	validity time.Duration
	made     func()

	// Signatures of sets that exist, and of denials: a flood of names that
	// don't exist must not push out those that do.
	kept    sigTable
	denials stampTable
}

func newSigner(zone []byte, keys []*Key, validity time.Duration, slots int, now time.Time, made func()) *signer {
	s := &signer{zone: zone, validity: validity, made: made}
	for _, k := range keys {
		if k.signer == nil || !k.active(now) {
			continue
		}
		if k.SEP() {
			s.sepKeys = append(s.sepKeys, k)
		} else {
			s.zoneKeys = append(s.zoneKeys, k)
		}
	}
	// Everything is signed by each algorithm (RFC 4035, section 2.2): a key of one
	// kind that is alone with its algorithm does the work of both.
	data, sep := s.zoneKeys, s.sepKeys
	s.zoneKeys, s.sepKeys = withAlone(data, sep), withAlone(sep, data)
	s.kept.init(slots)
	s.denials.init(slots / 2)
	return s
}

// withAlone returns the keys and those of others that have an algorithm of their own.
func withAlone(keys, others []*Key) []*Key {
	all := slices.Clone(keys)
	for _, k := range others {
		if !slices.ContainsFunc(keys, func(o *Key) bool { return o.Public.Algorithm == k.Public.Algorithm }) {
			all = append(all, k)
		}
	}
	return all
}

// unsigned returns the keys of others that are in the key set with an algorithm that
// nothing of ours is signed with (RFC 4035, section 2.2 and RFC 8901, section 4).
func (s *signer) unsigned(keys []*Key, now time.Time) (list []*Key) {
	for _, k := range keys {
		if k.signer == nil && k.published(now) && !slices.ContainsFunc(s.zoneKeys, func(o *Key) bool { return o.Public.Algorithm == k.Public.Algorithm }) {
			list = append(list, k)
		}
	}
	return list
}

// sameAs reports whether another signer makes the same signatures.
func (s *signer) sameAs(o *signer) bool {
	same := func(a, b *Key) bool { return a.Public.String() == b.Public.String() }
	return bytes.Equal(s.zone, o.zone) && s.validity == o.validity && len(s.kept.slots) == len(o.kept.slots) && slices.EqualFunc(s.zoneKeys, o.zoneKeys, same) &&
		slices.EqualFunc(s.sepKeys, o.sepKeys, same)
}

// sign returns the RRSIG set over a set, and when it wants to be refreshed.
// When a signature has to be made first and may is false, it is errNotSigned.
func (s *signer) sign(set *rrset, now time.Time, may bool) (sigs *rrset, refresh int64, err error) {
	if set.typ == dns.TypeNSEC {
		return s.signDenial(set, now, may)
	}
	key := set.sum()
	sig := s.kept.get(key)
	if sig == nil || now.Unix() >= sig.refresh {
		if !may {
			return nil, 0, errNotSigned
		}
		if sig, err = s.make(set, key, now); err != nil {
			return nil, 0, err
		}
		s.kept.put(sig)
	}
	return &rrset{set.owner, dns.TypeRRSIG, set.ttl, sig.rdata}, sig.refresh, nil
}

// sum is a hash of the set's content.
func (s *rrset) sum() digest {
	var room [1024]byte
	content := binary.BigEndian.AppendUint16(room[:0], s.typ)
	content = binary.BigEndian.AppendUint32(content, s.ttl)
	sum := sha256.Sum256(s.appendCanonical(content))
	return digest(sum[:])
}

// refreshAt is when a signature made now is to be made anew, in Unix seconds:
// spread over a sixteenth of the validity, so that signatures made together at
// the start don't have to be refreshed together.
func (s *signer) refreshAt(sum digest, now time.Time) int64 {
	spread := s.validity / 16 * time.Duration(sum[0]) / 256
	return now.Add(s.validity/2 - spread).Unix()
}

func (s *signer) make(set *rrset, key digest, now time.Time) (*signature, error) {
	keys := s.zoneKeys
	switch set.typ {
	case dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		keys = s.sepKeys
	}
	sig := &signature{key: key, refresh: s.refreshAt(key, now)}
	for _, k := range keys {
		rdata, err := signSet(set, k, s.zone, now.Add(-inceptionBack), now.Add(s.validity))
		if err != nil {
			return nil, err
		}
		sig.rdata = append(sig.rdata, rdata)
		s.made()
	}
	return sig, nil
}

// A sigTable is a fixed number of slots, found by hash; a newer signature
// takes the place of an older one. Readers take no lock.
type sigTable struct {
	slots []atomic.Pointer[signature]
	next  atomic.Uint32
}

const ways = 4

func (t *sigTable) init(slots int) { t.slots = make([]atomic.Pointer[signature], tableSize(slots)) }

func (t *sigTable) bucket(key digest) []atomic.Pointer[signature] {
	i := tableBucket(&key, len(t.slots))
	return t.slots[i : i+ways]
}

func (t *sigTable) get(key digest) *signature {
	b := t.bucket(key)
	for i := range b {
		if s := b[i].Load(); s != nil && s.key == key {
			return s
		}
	}
	return nil
}

func (t *sigTable) put(s *signature) {
	b := t.bucket(s.key)
	victim := -1
	for i := range b {
		old := b[i].Load()
		if old != nil && old.key == s.key {
			victim = i
			break
		}
		if old == nil && victim < 0 {
			victim = i
		}
	}
	if victim < 0 {
		victim = int(t.next.Add(1) % ways)
	}
	b[victim].Store(s)
}
