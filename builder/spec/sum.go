package spec

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
)

// SumLen is the length of a sum's text.
const SumLen = 28

const sumBytes = 20 // of the SHA-256 that a sum holds

// Sum returns the text form of a binary's hash as records hold it: the version
// of the format, then the first 160 bits in base64url.
func Sum(sha256 [32]byte) string {
	return "0" + base64.RawURLEncoding.EncodeToString(sha256[:sumBytes])
}

// CheckSum says what is wrong with the form of a sum, if anything.
func CheckSum(sum string) error {
	if len(sum) != SumLen {
		return fmt.Errorf("sum %.40q is %d bytes long instead of %d", sum, len(sum), SumLen)
	}
	if sum[0] != '0' {
		return fmt.Errorf("sum %q is of the unknown format %q", sum, sum[:1])
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sum[1:])
	if err != nil || len(raw) != sumBytes {
		return fmt.Errorf("sum %q is not base64url", sum)
	}
	return nil
}

// A Digest computes size and sum of a binary written to it.
type Digest struct {
	size int64
	h    hash.Hash
}

// NewDigest returns an empty digest.
func NewDigest() *Digest { return &Digest{h: sha256.New()} }

func (d *Digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return d.h.Write(p)
}

// Size returns the number of bytes written.
func (d *Digest) Size() int64 { return d.size }

// SHA256 returns the full hash of the bytes written.
func (d *Digest) SHA256() [32]byte { return [32]byte(d.h.Sum(nil)) }

// Hex returns the full hash in lower-case hex.
func (d *Digest) Hex() string { return hex.EncodeToString(d.h.Sum(nil)) }

// Sum returns the text form of the hash as records hold it.
func (d *Digest) Sum() string { return Sum(d.SHA256()) }
