package dnsserver

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// Server cookies are those of RFC 9018: servers that share secrets accept each
// other's.
const (
	clientCookieLen = 8
	serverCookieLen = 16
	cookieOld       = 3600 // seconds after which a cookie is no longer accepted
	cookieFuture    = 300
	cookieRenew     = 1800
)

// A cookieSecret is the key of the hash.
type cookieSecret [16]byte

// appendCookie appends the option's content: the client's cookie and ours.
func appendCookie(b []byte, secret *cookieSecret, client []byte, addr netip.Addr, now uint32) []byte {
	b = append(b, client[:clientCookieLen]...)
	b = append(b, 1, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, now)
	return binary.LittleEndian.AppendUint64(b, cookieHash(secret, b[len(b)-16:], addr))
}

// cookieHash hashes the client's cookie, our fields and the client's address.
func cookieHash(secret *cookieSecret, fields []byte, addr netip.Addr) uint64 {
	var in [32]byte
	n := copy(in[:], fields[:16])
	if addr.Is4() {
		a := addr.As4()
		n += copy(in[n:], a[:])
	} else {
		a := addr.As16()
		n += copy(in[n:], a[:])
	}
	return sipHash24(secret, in[:n])
}

// checkCookie reports whether the option's content holds a cookie that one of
// the secrets made for this address.
func checkCookie(secrets []cookieSecret, cookie []byte, addr netip.Addr, now uint32) (valid, renew bool) {
	if len(cookie) != clientCookieLen+serverCookieLen || cookie[8] != 1 {
		return false, true
	}
	at := binary.BigEndian.Uint32(cookie[12:])
	if age := int32(now - at); age > cookieOld || age < -cookieFuture { // RFC 1982 arithmetic
		return false, true
	} else {
		renew = age > cookieRenew
	}
	got := binary.LittleEndian.Uint64(cookie[16:])
	for i := range secrets {
		if cookieHash(&secrets[i], cookie[:16], addr) == got {
			return true, renew || i > 0
		}
	}
	return false, true
}

// sipHash24 is SipHash-2-4 (Aumasson and Bernstein, 2012).
func sipHash24(key *cookieSecret, msg []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	v0, v1 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d
	v2, v3 := k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(msg)) << 56
	for len(msg) >= 8 {
		m := binary.LittleEndian.Uint64(msg)
		v3 ^= m
		round()
		round()
		v0 ^= m
		msg = msg[8:]
	}
	for i, c := range msg {
		last |= uint64(c) << (8 * i)
	}
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}

// SetCookieSecrets sets the secrets that servers of one name share. The first
// makes cookies, all are accepted: a new one is appended everywhere, then put
// first, and the old one is taken away an hour later. With none it makes one that
// only this process knows.
func (h *Handler) SetCookieSecrets(secrets [][16]byte) {
	list := make([]cookieSecret, len(secrets))
	for i, s := range secrets {
		list[i] = s
	}
	if len(list) == 0 {
		list = *newCookieSecrets()
	}
	h.cookies.Store(&list)
}

// ParseCookieSecrets reads secrets, 32 hex digits a line; # starts a comment.
func ParseCookieSecrets(text string) ([][16]byte, error) {
	var secrets [][16]byte
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil || len(b) != 16 {
			return nil, fmt.Errorf("line %d is no secret of 32 hex digits", n)
		}
		secrets = append(secrets, [16]byte(b))
	}
	if len(secrets) == 0 || len(secrets) > 8 {
		return nil, fmt.Errorf("there are %d secrets; use one to eight", len(secrets))
	}
	return secrets, nil
}

// newCookieSecrets makes a secret that only this process knows.
func newCookieSecrets() *[]cookieSecret {
	var s cookieSecret
	_, _ = rand.Read(s[:]) // never fails
	return &[]cookieSecret{s}
}
