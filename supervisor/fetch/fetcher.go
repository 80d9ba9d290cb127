package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

// A Fetcher obtains binaries from one builder. It may be used by several
// goroutines at once.
type Fetcher struct {
	cfg     Config
	opt     Options
	base    string // of the builder, without a trailing slash
	hc      *http.Client
	builder *tlog.Client
	db      goproxy.SumDB
	proxy   *goproxy.Client // nil without a proxy
	m       *metrics

	mu      sync.Mutex
	sumdb   *tlog.Client          // nil until its address is known
	entries map[string]name.Entry // versions that were verified
}

// New checks the configuration. It sends nothing. Without a checksum database
// in the configuration the fetcher works, and VerifyVersion fails.
func New(cfg Config, opt Options) (*Fetcher, error) {
	def := DefaultConfig()
	if cfg.BuildTimeout == 0 {
		cfg.BuildTimeout = def.BuildTimeout
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = def.Timeout
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fetcher{cfg: cfg, opt: opt, hc: opt.HTTP}
	if cfg.Key == "" {
		return nil, errors.New("fetch: key is not set: it is the verifier key of the builder's log (name+hash+key), as its operator publishes it")
	}
	v, err := note.NewVerifier(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("fetch: key %q is not a verifier key (name+hash+key): %w", cfg.Key, err)
	}
	if f.base, err = baseURL(cfg.Builder, v.Name()); err != nil {
		return nil, err
	}
	if f.hc == nil {
		if f.hc, err = NewHTTP(cfg.CA); err != nil {
			return nil, err
		}
	}
	dir := cfg.Dir
	if dir == "" {
		return nil, errors.New("fetch: no state folder: without the tree head kept from before, a log could change its history unnoticed")
	}
	f.builder, err = tlog.NewClient(tlog.ClientConfig{Key: cfg.Key, URL: f.base + "/tlog", Dir: filepath.Join(dir, "builder"),
		Attempts: 3, HTTP: f.hc, Logger: opt.Logger, Metrics: opt.Metrics})
	if err != nil {
		return nil, fmt.Errorf("fetch: builder: %w", err)
	}
	if cfg.SumDB != "" {
		if f.db, err = goproxy.ParseSumDB(cfg.SumDB); err != nil {
			return nil, fmt.Errorf("fetch: sumdb: %w", err)
		}
	}
	if cfg.Proxy != "" {
		if f.proxy, err = goproxy.New(cfg.Proxy, f.hc); err != nil {
			return nil, fmt.Errorf("fetch: proxy: %w", err)
		}
	}
	f.m = newMetrics(opt.Metrics)
	return f, nil
}

// baseURL returns the builder's address, by default the one that its name implies.
func baseURL(base, name string) (string, error) {
	if base == "" {
		if strings.Contains(name, ".") {
			return "https://" + name, nil
		}
		return "http://" + name + ":8000", nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("fetch: builder %q is not an http or https address", base)
	}
	base = strings.TrimSuffix(base, "/")
	// The log's own address is an easy mistake.
	return strings.TrimSuffix(base, "/tlog"), nil
}

// NewHTTP returns a client without a limit on the whole answer: a lookup waits
// for a build, and each use has its own time limit.
func NewHTTP(caFile string) (*http.Client, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("fetch: reading the certificate authorities: %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("fetch: reading the certificate authorities: %s holds no PEM certificate", caFile)
		}
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        tc,
		TLSHandshakeTimeout:    15 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}}, nil
}

// Builder returns the builder's base address.
func (f *Fetcher) Builder() string { return f.base }

// Name returns the name of the builder's log.
func (f *Fetcher) Name() string { return f.builder.Name() }

// SumDB returns the name of the checksum database, "" when there is none.
func (f *Fetcher) SumDB() string { return f.db.Name }

// Proxy returns the client of the module proxies, nil when there is none.
func (f *Fetcher) Proxy() *goproxy.Client { return f.proxy }

// Head returns the builder's tree head as verified last.
func (f *Fetcher) Head() (tlog.TreeHead, bool) { return f.builder.Head() }

// Close ends idle connections.
func (f *Fetcher) Close() { f.hc.CloseIdleConnections() }
