package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"example.org/upkeep/web/acme"
)

// Listen says where pages are served.
type Listen struct {
	Addr  string      // host:port
	Cert  string      // PEM file with the certificate and its chain; empty = no TLS
	Key   string      // PEM file of its key
	ACME  acme.Config // instead of files: where the certificate is got; no Directory = no ACME
	Plain bool        // it may be reached from elsewhere without TLS, since a proxy in front ends that
	Login bool        // people have to log in

	Listener net.Listener // listens on Addr already; nil = not yet
}

// Check refuses what would leave the pages open to others: from anywhere but
// this machine they can be reached only with a login, and with TLS or the
// word of the operator that a proxy takes care of it.
func (l Listen) Check() error {
	host, _, err := net.SplitHostPort(l.Addr)
	if err != nil {
		return fmt.Errorf("the address %q is not host:port", l.Addr)
	}
	if (l.Cert == "") != (l.Key == "") {
		return errors.New("certificate and key need each other; one of them is missing")
	}
	if l.Cert != "" && l.ACME.Directory != "" {
		return errors.New("a certificate in files and one by ACME exclude each other; set one of them")
	}
	if l.ACME.Directory != "" {
		if err := l.ACME.Check(); err != nil {
			return err
		}
	}
	if isLoopback(host) {
		return nil
	}
	if !l.Login {
		return fmt.Errorf("the address %s can be reached from other machines, and nobody has to log in; set a password with \"upkeep passwd\", or listen on 127.0.0.1", l.Addr)
	}
	if !l.TLS() && !l.Plain {
		return fmt.Errorf("the address %s can be reached from other machines without TLS: passwords could be read on the way; set a certificate and its key, or ACME, or plain = true when a proxy in front has one", l.Addr)
	}
	return nil
}

// isLoopback says of names only "localhost": any other one may be anywhere.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().WithZone("").IsLoopback()
}

// TLS says whether the pages are served by TLS.
func (l Listen) TLS() bool { return l.Cert != "" || l.ACME.Directory != "" }

// Scheme is that of the pages' addresses.
func (l Listen) Scheme() string {
	if l.TLS() {
		return "https"
	}
	return "http"
}

// OpenPublic is [Listen.Open] for pages that are for everybody and change
// nothing that needs an account.
func (l Listen) OpenPublic(ctx context.Context) (net.Listener, error) {
	l.Login, l.Plain = true, true
	return l.Open(ctx)
}

// Open checks and listens. A certificate in files is read again when they
// change; one by ACME is renewed until ctx ends.
func (l Listen) Open(ctx context.Context) (net.Listener, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	var issued *acme.Manager
	var err error
	switch {
	case l.ACME.Directory != "":
		if issued, err = acme.New(l.ACME); err != nil {
			return nil, err
		}
		conf.NextProtos = append(conf.NextProtos, acme.Proto)
		conf.GetCertificate = issued.GetCertificate
	case l.Cert != "":
		if conf.GetCertificate, err = Certificate(l.Cert, l.Key); err != nil {
			return nil, err
		}
	}
	ln := l.Listener
	if ln == nil {
		ln, err = net.Listen("tcp", l.Addr)
	}
	if err != nil || conf.GetCertificate == nil {
		return ln, err
	}
	if issued != nil {
		go issued.Run(ctx)
	}
	return tls.NewListener(ln, conf), nil
}

// A keyPair is a certificate in files that somebody else renews.
type keyPair struct {
	cert, key string

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed time.Time // of the files, when they were read
	looked  time.Time
}

// lookAgain is how often the files are looked at.
const lookAgain = 30 * time.Second

// get returns the certificate. While new files don't fit each other, as in the
// middle of a renewal, the old one goes on.
func (p *keyPair) get(now time.Time) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded != nil && now.Sub(p.looked) < lookAgain {
		return p.loaded, nil
	}
	p.looked = now
	var changed time.Time
	for _, name := range []string{p.cert, p.key} {
		fi, err := os.Stat(name)
		if err != nil && p.loaded == nil {
			return nil, fmt.Errorf("reading the certificate: %w", err)
		}
		if err == nil && fi.ModTime().After(changed) {
			changed = fi.ModTime()
		}
	}
	if p.loaded != nil && !changed.After(p.changed) {
		return p.loaded, nil
	}
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		if p.loaded != nil {
			return p.loaded, nil
		}
		return nil, fmt.Errorf("reading the certificate %s and the key %s: %w", p.cert, p.key, err)
	}
	p.loaded, p.changed = &c, changed
	return p.loaded, nil
}
