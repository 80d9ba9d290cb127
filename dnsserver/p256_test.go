package dnsserver

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"testing"
)

// The numbers that carries and reductions go wrong at.
func edgeScalars() (list [][32]byte) {
	n := elliptic.P256().Params().N
	for _, v := range []*big.Int{big.NewInt(0), big.NewInt(1), big.NewInt(2), n, new(big.Int).Lsh(big.NewInt(1), 255), new(big.Int).Lsh(big.NewInt(1), 64),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)), new(big.Int).Lsh(big.NewInt(0xffffffff), 224)} {
		for d := int64(-2); d <= 2; d++ {
			x := new(big.Int).Add(v, big.NewInt(d))
			if x.Sign() >= 0 && x.BitLen() <= 256 {
				list = append(list, [32]byte(x.FillBytes(make([]byte, 32))))
			}
		}
	}
	for range 40 {
		var b [32]byte
		rand.Read(b[:])
		list = append(list, b)
	}
	return list
}

func TestScalars(t *testing.T) {
	n := elliptic.P256().Params().N
	r := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), 256), n)
	number := func(s scalar) *big.Int { return new(big.Int).SetBytes(s.bytes(make([]byte, 32))) }
	all := edgeScalars()
	for _, a := range all {
		sa := setScalar(&a)
		va := new(big.Int).SetBytes(a[:])
		va.Mod(va, n)
		if number(sa).Cmp(va) != 0 {
			t.Fatalf("%x is read as %x", a, number(sa))
		}
		for _, b := range all {
			sb := setScalar(&b)
			vb := number(sb)
			product := new(big.Int).Mul(va, vb)
			product.Mod(product.Mul(product, r), n)
			if got := number(sa.mul(&sb)); got.Cmp(product) != 0 {
				t.Fatalf("%x times %x is %x; want %x", a, b, got, product)
			}
			sum := new(big.Int).Add(va, vb)
			if got := number(sa.add(&sb)); got.Cmp(sum.Mod(sum, n)) != 0 {
				t.Fatalf("%x plus %x is %x; want %x", a, b, got, sum)
			}
			if sa.isZero() {
				continue
			}
			if got := number(sa.inverse(b)); got.Cmp(new(big.Int).ModInverse(va, n)) != 0 {
				t.Fatalf("1/%x is %x, hidden by %x", a, got, b)
			}
		}
	}
}

// The signatures are those of the standard library, byte by byte.
func TestP256(t *testing.T) {
	for i, d := range edgeScalars() {
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
		if err != nil {
			continue // 0, or not below the order
		}
		fast, err := newP256Key(key)
		if err != nil {
			t.Fatal(err)
		}
		for j, digest := range edgeScalars() {
			if i%5 != j%5 {
				continue
			}
			der, err := key.Sign(nil, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			var sig struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(der, &sig); err != nil {
				t.Fatal(err)
			}
			want := append(sig.R.FillBytes(make([]byte, 32)), sig.S.FillBytes(make([]byte, 32))...)
			if got, err := fast.sign(nil, digest); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("key %x, hash %x: %x, %v; want %x", d, digest, got, err, want)
			}
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newP256Key(other); err == nil {
		t.Error("a key of another curve is taken")
	}
}

func TestHMAC(t *testing.T) {
	key := [32]byte{1, 2, 3}
	for n := range 129 {
		m := bytes.Repeat([]byte{0xa5}, n)
		h := hmac.New(sha256.New, key[:])
		h.Write(m)
		if got := hmacSHA256(&key, m); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("%d bytes: %x", n, got)
		}
	}
}

// BenchmarkSign compares with the standard library in one run.
func BenchmarkSign(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	fast, err := newP256Key(key)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]byte, 0, 64)
		for b.Loop() {
			if _, err := fast.sign(out, digest); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
	})
}
