package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"example.org/upkeep/tlog"
)

// Sums are the hashes of a version in the checksum database.
type Sums struct {
	Zip    string // h1:… of the zip
	GoMod  string // h1:… of go.mod
	Record int64
	Head   tlog.TreeHead // the verified head that covers it
}

// VerifyVersion checks that the checksum database knows the version, so that
// nobody can invent one for us alone.
func (f *Fetcher) VerifyVersion(ctx context.Context, mod, version string) error {
	_, err := f.Sums(ctx, mod, version)
	return err
}

// Sums looks a version up in the checksum database and verifies the answer:
// signature, consistency with what was seen before, inclusion.
func (f *Fetcher) Sums(ctx context.Context, mod, version string) (Sums, error) {
	s, err := f.sums(ctx, mod, version)
	f.m.result(err)
	return s, err
}

func (f *Fetcher) sums(ctx context.Context, mod, version string) (Sums, error) {
	path, err := module.EscapePath(mod)
	if err != nil {
		return Sums{}, err
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		return Sums{}, err
	}
	c, err := f.sumdbClient(ctx)
	if err != nil {
		return Sums{}, err
	}
	rec, err := c.Lookup(ctx, path+"@"+v)
	if errors.Is(err, tlog.ErrNotFound) {
		return Sums{}, &VerifyError{Kind: SumDBMissing, Err: fmt.Errorf("%s@%s is not in the checksum database %s: %w", mod, version, f.db.Name, err)}
	}
	if err != nil {
		return Sums{}, classify(ctx, err, map[string]string{"fork": SumDBFork, "signature": SumDBSignature, "stale": SumDBBad, "bad": SumDBBad})
	}
	s, err := parseSums(rec.Data, mod, version)
	if err != nil {
		return Sums{}, &VerifyError{Kind: SumDBBad, Err: fmt.Errorf("record %d of the checksum database %s: %w", rec.ID, f.db.Name, err)}
	}
	s.Record, s.Head = rec.ID, rec.Head
	return s, nil
}

// parseSums reads a record of a checksum database, which must be of this version.
func parseSums(text []byte, mod, version string) (Sums, error) {
	var s Sums
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 3 || f[0] != mod || !strings.HasPrefix(f[2], "h1:") {
			return Sums{}, fmt.Errorf("the line %.200q is not about %s", line, mod)
		}
		switch f[1] {
		case version:
			s.Zip = f[2]
		case version + "/go.mod":
			s.GoMod = f[2]
		default:
			return Sums{}, fmt.Errorf("the line %.200q is not about %s", line, version)
		}
	}
	if s.Zip == "" || s.GoMod == "" {
		return Sums{}, fmt.Errorf("it does not hold both hashes of %s@%s", mod, version)
	}
	return s, nil
}

// GoMod returns the go.mod file of a version, verified.
func (f *Fetcher) GoMod(ctx context.Context, mod, version string) ([]byte, error) {
	if f.proxy == nil {
		return nil, errNoProxy
	}
	s, err := f.Sums(ctx, mod, version)
	if err != nil {
		return nil, err
	}
	data, err := f.proxy.GoMod(ctx, mod, version)
	if err != nil {
		return nil, err
	}
	sum, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		return nil, err
	}
	if sum != s.GoMod {
		err := &VerifyError{Kind: SumDBBad, Err: fmt.Errorf("the module proxy's go.mod of %s@%s has the hash %s, and the checksum database %s says %s", mod, version, sum, f.db.Name, s.GoMod)}
		f.m.result(err)
		return nil, err
	}
	return data, nil
}

var (
	errNoSumDB = errors.New("no checksum database is configured: set fetch.sumdb in the configuration, in the form of GOSUMDB")
	errNoProxy = errors.New("no module proxy is configured: set fetch.proxy in the configuration, in the form of GOPROXY")
)

// sumdbClient makes the client when it is first needed: where the database is
// reached depends on what the proxy says.
func (f *Fetcher) sumdbClient(ctx context.Context) (*tlog.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sumdb != nil {
		return f.sumdb, nil
	}
	if f.db.Key == "" {
		return nil, errNoSumDB
	}
	url := f.db.URL
	if f.proxy != nil {
		var err error
		if url, err = f.proxy.SumDBURL(ctx, f.db); err != nil {
			return nil, err
		}
	}
	c, err := tlog.NewClient(tlog.ClientConfig{Key: f.db.Key, URL: url, Dir: filepath.Join(f.cfg.Dir, "sumdb"),
		Attempts: 3, HTTP: f.hc, Logger: f.opt.Logger, Metrics: f.opt.Metrics})
	if err != nil {
		return nil, fmt.Errorf("fetch: checksum database: %w", err)
	}
	f.sumdb = c
	return c, nil
}
