package web

import (
	"crypto/tls"
	"time"
)

// Certificate returns what [tls.Config] calls for the certificate in a pair of
// files, which are read again when they change.
func Certificate(cert, key string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	pair := &keyPair{cert: cert, key: key}
	if _, err := pair.get(time.Now()); err != nil {
		return nil, err
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get(time.Now()) }, nil
}
