package dnsserver

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
	"math/bits"
)

// A p256Key makes the same signatures with an ECDSA P-256 key as the standard
// library's deterministic ones (RFC 6979), in half the time and with a tenth of
// the garbage: what makes a flood of names that don't exist costly.
//
// The curve's arithmetic, which takes most of the time, is the standard
// library's: the nonce is used as a key of crypto/ecdh, whose public key has the
// signature's first half. What is done here is arithmetic modulo the group's
// order, with no branch or address that depends on a secret. The inverse alone
// is taken of a secret that was multiplied by another one.
type p256Key struct {
	d  scalar // times 2^256
	be [32]byte
}

// A scalar is a number below the order of the group; least significant first.
type scalar [4]uint64

var (
	p256Order   = scalar{0xf3b9cac2fc632551, 0xbce6faada7179e84, 0xffffffffffffffff, 0xffffffff00000000}
	p256Square  = scalar{0x83244c95be79eea2, 0x4699799c49bd6fa6, 0x2845b2392b6bec59, 0x66e12d94f3d95620} // 2^512
	p256Inverse = uint64(0xccd1c8aaee00bc4f)                                                             // -1/order modulo 2^64
	p256BigN    = new(big.Int).SetBytes(p256Order.bytes(make([]byte, 32)))
)

func newP256Key(k *ecdsa.PrivateKey) (*p256Key, error) {
	b, err := k.Bytes()
	if err != nil {
		return nil, err
	}
	if len(b) != 32 || k.Params().BitSize != 256 {
		return nil, errors.New("not a key of the curve P-256")
	}
	p := &p256Key{be: [32]byte(b)}
	d := setScalar(&p.be)
	p.d = d.mul(&p256Square)
	return p, nil
}

// setScalar reads 32 bytes, most significant first, modulo the order.
func setScalar(b *[32]byte) scalar {
	s := scalar{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[:])}
	return s.reduce(0)
}

func (s *scalar) bytes(b []byte) []byte {
	for i, w := range s {
		binary.BigEndian.PutUint64(b[24-8*i:], w)
	}
	return b[:32]
}

// reduce takes the order off once, from a number with a fifth word, if it is
// not less.
func (s *scalar) reduce(high uint64) scalar {
	var t scalar
	var borrow uint64
	for i := range s {
		t[i], borrow = bits.Sub64(s[i], p256Order[i], borrow)
	}
	_, borrow = bits.Sub64(high, 0, borrow)
	mask := -borrow // all ones: it was less
	for i := range s {
		t[i] ^= mask & (t[i] ^ s[i])
	}
	return t
}

func (s *scalar) add(o *scalar) scalar {
	var t scalar
	var carry uint64
	for i := range s {
		t[i], carry = bits.Add64(s[i], o[i], carry)
	}
	return t.reduce(carry)
}

// mul is the product divided by 2^256 (Montgomery's multiplication).
func (s *scalar) mul(o *scalar) scalar {
	var t [6]uint64
	for i := range s {
		var carry uint64
		for j := range o {
			hi, lo := bits.Mul64(s[i], o[j])
			var c uint64
			lo, c = bits.Add64(lo, t[j], 0)
			hi += c
			t[j], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
		t[4], t[5] = bits.Add64(t[4], carry, 0)
		m := t[0] * p256Inverse
		carry = 0
		for j := range p256Order {
			hi, lo := bits.Mul64(m, p256Order[j])
			var c uint64
			lo, c = bits.Add64(lo, t[j], 0)
			hi += c
			lo, c = bits.Add64(lo, carry, 0)
			carry = hi + c
			if j > 0 {
				t[j-1] = lo
			}
		}
		var c uint64
		t[3], c = bits.Add64(t[4], carry, 0)
		t[4] = t[5] + c
	}
	r := scalar{t[0], t[1], t[2], t[3]}
	return r.reduce(t[4])
}

func (s *scalar) isZero() bool { return s[0]|s[1]|s[2]|s[3] == 0 }

// sign appends the signature over a message with that hash.
func (k *p256Key) sign(dst []byte, digest [32]byte) ([]byte, error) {
	e := setScalar(&digest)
	var reduced [32]byte
	e.bytes(reduced[:])
	g := newNonces(&k.be, &reduced)
	for {
		nonce := g.next()
		n := setScalar(&nonce)
		var same [32]byte
		if [32]byte(n.bytes(same[:])) != nonce || n.isZero() {
			continue // not below the order; of 2^32 one is not
		}
		point, err := ecdh.P256().NewPrivateKey(nonce[:])
		if err != nil {
			return dst, err
		}
		x := [32]byte(point.PublicKey().Bytes()[1:])
		r := setScalar(&x)
		if r.isZero() {
			continue
		}
		t := r.mul(&k.d)
		t = t.add(&e)
		inv := n.inverse(g.blind())
		inv = inv.mul(&p256Square)
		s := inv.mul(&t)
		if s.isZero() {
			continue
		}
		var out [64]byte
		r.bytes(out[:32])
		s.bytes(out[32:])
		return append(dst, out[:]...), nil
	}
}

// inverse is 1/s; the factor hides s from what takes a time that depends on it.
func (s *scalar) inverse(factor [32]byte) scalar {
	f := setScalar(&factor)
	fm := f.mul(&p256Square)
	hidden := s.mul(&fm)
	if hidden.isZero() { // a factor of 0
		hidden, fm = *s, scalar{1}
		fm = fm.mul(&p256Square)
	}
	var b [32]byte
	z := new(big.Int).SetBytes(hidden.bytes(b[:]))
	z.ModInverse(z, p256BigN).FillBytes(b[:])
	inv := setScalar(&b)
	return inv.mul(&fm)
}

// nonces makes nonces from a key and a hash (RFC 6979, section 3.2).
type nonces struct {
	k, v  [32]byte
	again bool
}

func newNonces(key, digest *[32]byte) *nonces {
	g := &nonces{}
	for i := range g.v {
		g.v[i] = 1
	}
	var m [97]byte
	copy(m[33:], key[:])
	copy(m[65:], digest[:])
	for i := range byte(2) {
		copy(m[:], g.v[:])
		m[32] = i
		g.k = hmacSHA256(&g.k, m[:])
		g.v = hmacSHA256(&g.k, g.v[:])
	}
	return g
}

func (g *nonces) next() [32]byte {
	if g.again {
		var m [33]byte
		copy(m[:], g.v[:])
		g.k = hmacSHA256(&g.k, m[:])
		g.v = hmacSHA256(&g.k, g.v[:])
	}
	g.again = true
	g.v = hmacSHA256(&g.k, g.v[:])
	return g.v
}

// blind returns something that nobody knows and that is used nowhere else.
func (g *nonces) blind() [32]byte {
	var m [37]byte
	copy(m[:], g.v[:])
	copy(m[32:], "blind")
	return hmacSHA256(&g.k, m[:])
}

// hmacSHA256 is HMAC-SHA-256 of at most 128 bytes, without garbage.
func hmacSHA256(key *[32]byte, message []byte) [32]byte {
	var inner [64 + 128]byte
	var outer [64 + 32]byte
	for i := range 64 {
		inner[i], outer[i] = 0x36, 0x5c
	}
	for i, c := range key {
		inner[i] ^= c
		outer[i] ^= c
	}
	n := copy(inner[64:], message)
	sum := sha256.Sum256(inner[:64+n])
	copy(outer[64:], sum[:])
	return sha256.Sum256(outer[:])
}
