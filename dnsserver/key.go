package dnsserver

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"example.org/upkeep/internal/durable"
)

// A Key is a signing key of the zone, or the public key of another operator's.
type Key struct {
	Public *dns.DNSKEY
	Tag    uint16
	File   string // without .key and .private
	Timing

	signer crypto.Signer // nil for a foreign key
}

// Timing says when a key is used, as BIND's tools write it. The zero time
// means "always" for the first two and "never" for the others.
type Timing struct {
	Created  time.Time
	Publish  time.Time // in the DNSKEY set from then on
	Activate time.Time // signs from then on
	Inactive time.Time // no longer signs
	Delete   time.Time // no longer in the DNSKEY set
	SyncPub  time.Time // asked of the parent by CDS and CDNSKEY from then on
	SyncDel  time.Time // no longer asked for
}

// published reports whether the key is in the DNSKEY set.
func (t Timing) published(now time.Time) bool {
	return !now.Before(t.Publish) && (t.Delete.IsZero() || now.Before(t.Delete))
}

// active reports whether the key signs.
func (t Timing) active(now time.Time) bool {
	return t.published(now) && !now.Before(t.Activate) && (t.Inactive.IsZero() || now.Before(t.Inactive))
}

// synced reports whether the parent should have a DS record for the key.
func (t Timing) synced(now time.Time) bool {
	return t.published(now) && !now.Before(t.SyncPub) && (t.SyncDel.IsZero() || now.Before(t.SyncDel)) &&
		(t.Inactive.IsZero() || now.Before(t.Inactive))
}

// Next returns the first of the key's times that lies after now, or zero.
func (t Timing) Next(now time.Time) time.Time {
	var first time.Time
	for _, at := range []time.Time{t.Publish, t.Activate, t.Inactive, t.Delete, t.SyncPub, t.SyncDel} {
		if at.After(now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// SEP reports whether the key is meant to be named by a DS record.
func (k *Key) SEP() bool { return k.Public.Flags&dns.SEP != 0 }

// Algorithms that keys can have.
var algorithms = map[string]uint8{
	"ecdsap256sha256": dns.ECDSAP256SHA256,
	"ed25519":         dns.ED25519,
}

// GenerateKey makes a key for the zone and writes its two files into dir.
// Algorithm is ecdsap256sha256 or ed25519. With sep it is a key that a DS
// record names, which signs everything when it is the only one.
func GenerateKey(dir, zone, algorithm string, sep bool, timing Timing) (*Key, error) {
	alg, ok := algorithms[strings.ToLower(algorithm)]
	if !ok {
		return nil, fmt.Errorf("there is no key algorithm %q: use ecdsap256sha256 or ed25519", algorithm)
	}
	zone, err := checkZone(zone)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of keys: %w", err)
	}
	for range 10 {
		k := &Key{Timing: timing, Public: &dns.DNSKEY{
			Hdr:   dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
			Flags: dns.ZONE, Protocol: 3, Algorithm: alg,
		}}
		if sep {
			k.Public.Flags |= dns.SEP
		}
		bits := 256
		priv, err := k.Public.Generate(bits)
		if err != nil {
			return nil, fmt.Errorf("generating a key: %w", err)
		}
		k.signer = priv.(crypto.Signer)
		k.Tag = k.Public.KeyTag()
		k.File = filepath.Join(dir, fmt.Sprintf("K%s+%03d+%05d", zone, alg, k.Tag))
		// Two keys with the same tag could only be told apart by trying.
		if taken, err := tagTaken(dir, zone, k.Tag); err != nil {
			return nil, err
		} else if taken {
			continue
		}
		return k, k.write()
	}
	return nil, fmt.Errorf("generating a key: every one had the tag of a key that is in %s", dir)
}

func tagTaken(dir, zone string, tag uint16) (bool, error) {
	m, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("K%s+???+%05d.key", zone, tag)))
	return len(m) > 0, err
}

const keyTimeFormat = "20060102150405"

// timingFields are the names of the times in files, in their order there.
func (t *Timing) fields() []struct {
	name string
	at   *time.Time
} {
	return []struct {
		name string
		at   *time.Time
	}{
		{"Created", &t.Created}, {"Publish", &t.Publish}, {"Activate", &t.Activate}, {"Inactive", &t.Inactive},
		{"Delete", &t.Delete}, {"SyncPublish", &t.SyncPub}, {"SyncDelete", &t.SyncDel},
	}
}

// write stores both files, the private one first: a public key that nobody
// can sign with is worse than one that nobody publishes.
func (k *Key) write() error {
	var priv, pub strings.Builder
	priv.WriteString(k.Public.PrivateKeyString(k.signer))
	role := "zone-signing"
	if k.SEP() {
		role = "key-signing"
	}
	fmt.Fprintf(&pub, "; This is a %s key, keyid %d, for %s\n", role, k.Tag, k.Public.Hdr.Name)
	for _, f := range k.Timing.fields() {
		if !f.at.IsZero() {
			at := f.at.UTC()
			fmt.Fprintf(&priv, "%s: %s\n", f.name, at.Format(keyTimeFormat))
			fmt.Fprintf(&pub, "; %s: %s (%s)\n", f.name, at.Format(keyTimeFormat), at.Format(time.ANSIC))
		}
	}
	fmt.Fprintf(&pub, "%s IN DNSKEY %d %d %d %s\n", k.Public.Hdr.Name, k.Public.Flags, k.Public.Protocol, k.Public.Algorithm, k.Public.PublicKey)
	if err := writeKeyFile(k.File+".private", priv.String(), 0o600); err != nil {
		return err
	}
	return writeKeyFile(k.File+".key", pub.String(), 0o644)
}

// writeKeyFile writes a file that belongs to whom the one in its place does, with
// that one's mode, or to whom the folder does.
func writeKeyFile(file, text string, perm fs.FileMode) error {
	old, err := os.Stat(file)
	if err == nil {
		perm = old.Mode().Perm()
	} else if old, err = os.Stat(filepath.Dir(file)); err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	if err := durable.WriteFile(file, []byte(text), perm); err != nil {
		return err
	}
	keepOwner(file, old)
	return nil
}

// Retime changes when the key is used and writes its files.
func (k *Key) Retime(t Timing) error {
	if k.signer == nil {
		return fmt.Errorf("key %d in %s is another operator's: its times are not ours to set", k.Tag, k.File)
	}
	k.Timing = t
	return k.write()
}

// ErrNoKeys is returned when a folder has no key that can sign for the zone.
var ErrNoKeys = errors.New("no signing key")

const maxKeyFile = 64 << 10

// LoadKeys reads the keys of the zone in a folder, by tag. A .key file without
// a .private file is the key of another operator (RFC 8901).
func LoadKeys(dir, zone string) ([]*Key, error) {
	zone, err := checkZone(zone)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	var keys []*Key
	prefix := "K" + zone + "+"
	own := false
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".key")
		if !ok || !strings.HasPrefix(strings.ToLower(base), strings.ToLower(prefix)) {
			continue
		}
		k, err := readKey(filepath.Join(dir, base), zone)
		if err != nil {
			return nil, err
		}
		own = own || k.signer != nil
		keys = append(keys, k)
	}
	if !own {
		return nil, fmt.Errorf("%w for %s in the folder %s", ErrNoKeys, zone, dir)
	}
	slices.SortFunc(keys, func(a, b *Key) int { return int(a.Tag) - int(b.Tag) })
	return keys, nil
}

func readBounded(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is no key file: it has %d bytes", file, fi.Size())
	}
	return os.ReadFile(file)
}

func readKey(base, zone string) (*Key, error) {
	data, err := readBounded(base + ".key")
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	zp := dns.NewZoneParser(strings.NewReader(string(data)), ".", base+".key")
	zp.SetDefaultTTL(3600)
	rr, _ := zp.Next()
	pub, ok := rr.(*dns.DNSKEY)
	if err := zp.Err(); err != nil || !ok {
		return nil, fmt.Errorf("the key file %s.key holds no DNSKEY record: %w", base, errOr(err, "some other record"))
	}
	if !strings.EqualFold(pub.Hdr.Name, zone) || pub.Protocol != 3 || pub.Flags&dns.ZONE == 0 {
		return nil, fmt.Errorf("the key file %s.key holds no zone key for %s", base, zone)
	}
	pub.Hdr.Name = zone
	if pub.ToDS(dns.SHA256) == nil {
		return nil, fmt.Errorf("the key file %s.key holds a key that is not base64", base)
	}
	k := &Key{Public: pub, Tag: pub.KeyTag(), File: base}
	priv, err := readBounded(base + ".private")
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	if !slices.Contains([]uint8{dns.ECDSAP256SHA256, dns.ED25519}, pub.Algorithm) {
		return nil, fmt.Errorf("the key %s has the algorithm %d; signing works with %d (ECDSA P-256) and %d (Ed25519)", base, pub.Algorithm, dns.ECDSAP256SHA256, dns.ED25519)
	}
	signer, err := pub.ReadPrivateKey(strings.NewReader(string(priv)), base+".private")
	if err != nil || signer == nil {
		return nil, fmt.Errorf("the key file %s.private: %w", base, errOr(err, "holds no private key"))
	}
	k.signer, ok = signer.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key file %s.private holds a key that can't sign", base)
	}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("the key files %s.key and .private: %w", base, err)
	}
	return k, k.readTiming(string(priv))
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

func (k *Key) readTiming(private string) error {
	for line := range strings.Lines(private) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		for _, f := range k.Timing.fields() {
			if f.name != name {
				continue
			}
			at, err := time.Parse(keyTimeFormat, value)
			if err != nil {
				return fmt.Errorf("the key file %s.private: %s is %q, which is no time like %s", k.File, name, value, keyTimeFormat)
			}
			*f.at = at
		}
	}
	return nil
}

// check signs and verifies, so that a wrong pair of files is found at the start.
func (k *Key) check() error {
	var msg [32]byte
	_, err := rand.Read(msg[:])
	if err != nil {
		return err
	}
	owner, err := packName(k.Public.Hdr.Name)
	if err != nil {
		return err
	}
	set := txtSet(owner, 60, base64.StdEncoding.EncodeToString(msg[:]))
	now := time.Now()
	rdata, err := signSet(set, k, owner, now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		return err
	}
	rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{Name: k.Public.Hdr.Name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 60, Rdlength: uint16(len(rdata))}, rdata, 0)
	if err != nil {
		return err
	}
	txt := &dns.TXT{Hdr: dns.RR_Header{Name: k.Public.Hdr.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{base64.StdEncoding.EncodeToString(msg[:])}}
	if err := rr.(*dns.RRSIG).Verify(k.Public, []dns.RR{txt}); err != nil {
		return fmt.Errorf("the private key is not the public key's: %w", err)
	}
	return nil
}

// sign signs a message in the form of DNSSEC, which has 64 bytes with both
// algorithms.
func (k *Key) sign(sig *[64]byte, message []byte) error {
	switch signer := k.signer.(type) {
	case *ecdsa.PrivateKey:
		hash := sha256.Sum256(message)
		// Without a source of randomness the nonce is derived from key and
		// message (RFC 6979): as safe, and a third faster.
		der, err := signer.Sign(nil, hash[:], crypto.SHA256)
		if err != nil {
			return err
		}
		return fromDER(sig, der)
	case ed25519.PrivateKey:
		copy(sig[:], ed25519.Sign(signer, message))
		return nil
	}
	return fmt.Errorf("key %d can't sign", k.Tag)
}

// fromDER reads a signature of ECDSA P-256 in the form of X.509.
func fromDER(sig *[64]byte, der []byte) error {
	input := cryptobyte.String(der)
	var list, number cryptobyte.String
	ok := input.ReadASN1(&list, asn1.SEQUENCE) && input.Empty()
	for half := range 2 {
		ok = ok && list.ReadASN1(&number, asn1.INTEGER)
		n := bytes.TrimLeft(number, "\x00")
		if !ok || len(n) > 32 {
			return errors.New("the signature that was made has an unknown form")
		}
		clear(sig[32*half : 32*half+32])
		copy(sig[32*half+32-len(n):], n)
	}
	return nil
}

// DS returns the record for the parent zone, with SHA-256.
func (k *Key) DS() *dns.DS {
	ds := k.Public.ToDS(dns.SHA256)
	ds.Hdr.Ttl = 3600
	return ds
}

func checkZone(zone string) (string, error) {
	wire, err := packName(zone)
	if err != nil {
		return "", err
	}
	// Names of modules must fit before it.
	if len(wire) < 2 || len(wire) > 200 {
		return "", fmt.Errorf("%q can't be the zone: its name must have between 1 and 199 bytes", zone)
	}
	if _, plain := labelsOf(wire, len(wire)-1); !plain {
		return "", fmt.Errorf("%q can't be the zone: its labels may have letters, digits, dashes and underscores", zone)
	}
	return showName(wire), nil
}

// KeyStates are what [Key.State] returns.
var KeyStates = []string{"foreign", "waiting", "published", "active", "retired", "removed"}

// State says in one word what the key does at a time.
func (k *Key) State(now time.Time) string {
	switch {
	case k.signer == nil:
		return "foreign"
	case now.Before(k.Publish):
		return "waiting"
	case !k.published(now):
		return "removed"
	case k.active(now):
		return "active"
	case now.Before(k.Activate):
		return "published"
	}
	return "retired"
}

// Anchors returns the keys that a validator can start from: those that sign
// the key set now, and of them those that are meant for it, if there are any.
func Anchors(keys []*Key, now time.Time) []*Key {
	signing := newSigner(nil, keys, DefaultValidity, 0, now, func() {}).sepKeys
	if slices.ContainsFunc(signing, (*Key).SEP) {
		signing = slices.DeleteFunc(signing, func(k *Key) bool { return !k.SEP() })
	}
	return signing
}
