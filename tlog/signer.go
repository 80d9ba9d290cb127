package tlog

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// openSigner returns the signer of a key and the verifier key that belongs to it.
func openSigner(signerKey string) (note.Signer, string, error) {
	signerKey = strings.TrimSpace(signerKey)
	s, err := note.NewSigner(signerKey)
	if err != nil {
		return nil, "", fmt.Errorf("signer key of a log: %w", err) // without the key, which is secret
	}
	v, err := VerifierKey(signerKey)
	return s, v, err
}

// VerifierKey returns the verifier key that belongs to a signer key.
func VerifierKey(signerKey string) (string, error) {
	// PRIVATE+KEY+<name>+<key ID>+<base64 of algorithm (1) and seed>
	f := strings.SplitN(strings.TrimSpace(signerKey), "+", 5)
	if len(f) != 5 {
		return "", fmt.Errorf("signer key of a log has %d fields, not 5", len(f))
	}
	secret, err := base64.StdEncoding.DecodeString(f[4])
	if err != nil || len(secret) != 1+ed25519.SeedSize || secret[0] != 1 {
		return "", fmt.Errorf("signer key of log %s is not an Ed25519 key", f[2])
	}
	public := ed25519.NewKeyFromSeed(secret[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(f[2], public)
}
