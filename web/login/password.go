package login

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// params are those of argon2id. RFC 9106, section 4, second recommendation.
type params struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

var defaultParams = params{memory: 64 << 10, time: 3, threads: 4}

// Limits on a hash in the file, so that a mistake there doesn't eat the machine.
const (
	maxMemory  = 1 << 20 // KiB
	maxTime    = 20
	maxHashLen = 64
)

// MinPassword and MaxPassword bound a password's length in bytes.
const (
	MinPassword = 10
	MaxPassword = 1000
)

// HashPassword returns a password's hash in the usual text form:
// $argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>.
func HashPassword(password string) (string, error) {
	if len(password) < MinPassword || len(password) > MaxPassword {
		return "", fmt.Errorf("the password has %d bytes; it needs %d to %d", len(password), MinPassword, MaxPassword)
	}
	return hashWith(password, defaultParams), nil
}

func hashWith(password string, p params) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	sum := argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, 32)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.threads, enc(salt), enc(sum))
}

var errHash = errors.New("not an argon2id hash as \"upkeep passwd\" writes it")

func parseHash(text string) (p params, salt, sum []byte, err error) {
	f := strings.Split(text, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errHash
	}
	var n [3]uint64
	for i, field := range strings.Split(f[3], ",") {
		if i < len(n) {
			n[i], _ = strconv.ParseUint(field[min(2, len(field)):], 10, 32) // compared below
		}
	}
	p = params{memory: uint32(n[0]), time: uint32(n[1]), threads: uint8(n[2])}
	if f[3] != fmt.Sprintf("m=%d,t=%d,p=%d", p.memory, p.time, p.threads) ||
		p.memory < 8 || p.memory > maxMemory || p.time < 1 || p.time > maxTime || p.threads < 1 {
		return p, nil, nil, errHash
	}
	dec := base64.RawStdEncoding.Strict()
	if salt, err = dec.DecodeString(f[4]); err != nil || len(salt) < 8 || len(salt) > maxHashLen {
		return p, nil, nil, errHash
	}
	if sum, err = dec.DecodeString(f[5]); err != nil || len(sum) < 16 || len(sum) > maxHashLen {
		return p, nil, nil, errHash
	}
	return p, salt, sum, nil
}

// checkPassword compares in a time that depends on the hash's parameters only.
func checkPassword(hash, password string) bool {
	p, salt, sum, err := parseHash(hash)
	if err != nil || len(password) > MaxPassword {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, uint32(len(sum)))
	return subtle.ConstantTimeCompare(got, sum) == 1
}
