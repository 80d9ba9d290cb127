// Package acme gets the certificate of a server from a certification authority
// that speaks ACME (RFC 8555), and renews it. The authority sees that the names
// are ours by connecting to port 443 of each (tls-alpn-01, RFC 8737), so there
// is no second listener and no file to serve.
//
// The authority is believed when it says what the certificate is, after a look
// at whether it fits our key and names; nothing else depends on it. What
// clients send in their hello only chooses between the certificate and a
// challenge that we have under way ourselves.
//
// Files, in the folder of [Config], all for the owner only:
//
//	account.key    key of our account at the authority
//	certificate    key, certificate and chain; one file, so that they fit
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	client "golang.org/x/crypto/acme"
)

// Proto has to be among the protocols of a server that uses a [Manager].
const Proto = client.ALPNProto

// Config says whose certificate it is and who issues it.
type Config struct {
	Directory string   // address of the authority's directory, https://…
	Names     []string // of the server
	Dir       string   // for key and certificate
	Contact   string   // mail address that the authority may write to; may be empty
	Roots     string   // PEM file of the roots that the authority's own certificate has; empty = the system's
	Log       *slog.Logger
}

// Times.
const (
	attempt  = 5 * time.Minute // for one order, all steps
	firstTry = time.Minute     // after a failure
	lastTry  = 6 * time.Hour
	look     = 12 * time.Hour // how often the certificate's age is looked at
)

// A Manager has the certificate.
type Manager struct {
	cfg  Config
	http *http.Client
	log  *slog.Logger
	now  func() time.Time
	// sleep waits, and returns false when ctx ends first; tests have their own.
	sleep func(context.Context, time.Duration) bool

	mu         sync.Mutex
	cert       *tls.Certificate
	err        error // why there is none
	challenges map[string]*tls.Certificate
}

// Check says what is wrong with a configuration.
func (cfg Config) Check() error {
	u, err := url.Parse(cfg.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("the ACME directory %q is not an https address", cfg.Directory)
	}
	if len(cfg.Names) == 0 {
		return errors.New("a certificate by ACME needs a host name of this server; there is none")
	}
	for _, name := range cfg.Names {
		if !public(name) {
			return fmt.Errorf("%q is not a host name that a certificate by ACME can be had for", name)
		}
	}
	return nil
}

// New takes the certificate that is on disk, if there is one. [Manager.Run]
// gets it otherwise.
func New(cfg Config) (*Manager, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	if cfg.Roots != "" {
		data, err := os.ReadFile(cfg.Roots)
		if err != nil {
			return nil, fmt.Errorf("reading the ACME server's roots: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s has no certificate in PEM", cfg.Roots)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	m := &Manager{cfg: cfg, log: cfg.Log, now: time.Now, sleep: sleep, challenges: map[string]*tls.Certificate{},
		http: &http.Client{Transport: tr, Timeout: time.Minute}, err: errors.New("the certificate has not been issued yet")}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	// The folder above may be one that other users have to enter.
	err := os.MkdirAll(filepath.Dir(cfg.Dir), 0o755)
	if err == nil {
		err = os.MkdirAll(cfg.Dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("making the folder of the certificate: %w", err)
	}
	cert, err := readCertificate(m.file(certificateFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		m.log.Error("the kept certificate is of no use; asking for a new one", "err", err)
	default:
		m.cert = cert
	}
	return m, nil
}

// public says whether a name can be one that an authority knows.
func public(name string) bool {
	return net.ParseIP(name) == nil && strings.Contains(name, ".") && !strings.ContainsAny(name, "*:/ ")
}

// Names are those of a server's host names that a certificate can be had for.
func Names(hosts []string) []string {
	var names []string
	for _, h := range hosts {
		if h = strings.ToLower(strings.TrimSuffix(h, ".")); public(h) && !slices.Contains(names, h) {
			names = append(names, h)
		}
	}
	return names
}

// GetCertificate is for [tls.Config].
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// RFC 8737, section 3: the authority offers this protocol and no other.
	if slices.Equal(hello.SupportedProtos, []string{Proto}) {
		if c := m.challenges[strings.ToLower(hello.ServerName)]; c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("no challenge is under way for %.80q", hello.ServerName)
	}
	if m.cert == nil {
		return nil, m.err
	}
	return m.cert, nil
}

func (m *Manager) current() *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cert
}

// due says whether a certificate has to be replaced: it is for other names, or
// a third of its time is left, which for the usual ones is a month and for
// short ones days.
func due(cert *tls.Certificate, names []string, now time.Time) bool {
	if cert == nil {
		return true
	}
	leaf := cert.Leaf
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return true
		}
	}
	return !now.Before(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

// pause is how long to wait after a number of failures in a row.
func pause(failures int) time.Duration {
	d := firstTry
	for range failures - 1 {
		if d *= 2; d >= lastTry {
			return lastTry
		}
	}
	return d
}

// Run gets the certificate and renews it until ctx ends. Start it when the
// server accepts connections: the authority connects to it. While it fails the
// old certificate goes on.
func (m *Manager) Run(ctx context.Context) {
	failures := 0
	for {
		var err error
		if due(m.current(), m.cfg.Names, m.now()) {
			err = m.renew(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		wait := age(m.current())
		if err == nil {
			failures = 0
		} else {
			failures++
			wait = pause(failures)
			if d, ok := client.RateLimit(err); ok && d > wait {
				wait = min(d, 2*look)
			}
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			m.log.Error("no new certificate", "names", strings.Join(m.cfg.Names, " "), "err", err, "again", wait)
		}
		// Not all servers at the same second.
		if !m.sleep(ctx, wait+rand.N(wait/10)) {
			return
		}
	}
}

// age is how long a certificate need not be looked at: short ones are looked
// at often enough to be renewed in time.
func age(cert *tls.Certificate) time.Duration {
	if cert == nil {
		return look
	}
	return max(firstTry, min(look, cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/20))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (m *Manager) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	cert, err := m.order(ctx)
	if err != nil {
		return fmt.Errorf("asking %s for a certificate: %w", m.cfg.Directory, err)
	}
	m.mu.Lock()
	m.cert = cert
	m.mu.Unlock()
	m.log.Info("certificate issued", "names", strings.Join(m.cfg.Names, " "), "until", cert.Leaf.NotAfter)
	return nil
}
