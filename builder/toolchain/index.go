package toolchain

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"net"
	"strings"
	"time"

	dnsname "example.org/upkeep/dnsserver/name"
)

// An Index is a name server that tells which Go versions are current, previous
// and next, in the toolchain record of its zone. What it says is a hint like
// the proxy's list: a toolchain is used only after its hash was found in the
// checksum database.
type Index struct {
	Zone   string
	Server string // address to ask, host:port; "" for the system's resolver
}

// line asks the index.
func (i Index) line(ctx context.Context) (Line, error) {
	r := &net.Resolver{}
	if i.Server != "" {
		r.PreferGo = true
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, i.Server)
		}
	}
	domain := strings.TrimSuffix(dnsname.Toolchain(i.Zone), ".") + "."
	texts, err := r.LookupTXT(ctx, domain)
	if err != nil {
		return Line{}, fmt.Errorf("asking the index for Go versions: %w", err)
	}
	if len(texts) != 1 {
		return Line{}, fmt.Errorf("asking the index for Go versions: %s has %d TXT records instead of one", domain, len(texts))
	}
	l, err := parseLine(texts[0])
	if err != nil {
		return Line{}, fmt.Errorf("asking the index for Go versions: %s: %w", domain, err)
	}
	return l, nil
}

// parseLine reads a toolchain record.
func parseLine(text string) (Line, error) {
	entries, err := dnsname.ParseTXT(text)
	if err != nil {
		return Line{}, err
	}
	var l Line
	for _, e := range entries {
		var to *string
		switch e.Kind {
		case "cur":
			to = &l.Current
		case "prev":
			to = &l.Previous
		case "next":
			to = &l.Next
		default:
			continue
		}
		if *to != "" || !usable(e.Version) {
			return Line{}, fmt.Errorf("%.60q is there twice or names no toolchain", e.Version)
		}
		*to = e.Version
	}
	switch {
	case l.Current == "" || !released(l.Current):
		return Line{}, errors.New("no release is current")
	case l.Previous != "" && (!released(l.Previous) || version.Compare(version.Lang(l.Previous), version.Lang(l.Current)) >= 0):
		return Line{}, fmt.Errorf("%s is not the release line before %s", l.Previous, l.Current)
	case l.Next != "" && version.Compare(l.Next, l.Current) <= 0:
		return Line{}, fmt.Errorf("%s is not newer than %s", l.Next, l.Current)
	}
	return l, nil
}

// indexed returns what the index says, at most ten minutes old; ok is false
// when there is none or it can't be asked.
func (s *Store) indexed(ctx context.Context) (l Line, ok bool) {
	if s.index.Zone == "" {
		return l, false
	}
	s.mu.Lock()
	l, fresh := s.line, time.Now().Before(s.lineUntil)
	s.mu.Unlock()
	if fresh {
		return l, l.Current != ""
	}
	askCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	got, err := s.index.line(askCtx)
	cancel()
	keep := listFor
	if err != nil {
		keep = failedFor
		s.logger.Warn("the index does not say which Go versions there are", "err", err)
	} else {
		l = got
	}
	if ctx.Err() == nil {
		s.mu.Lock()
		s.line, s.lineUntil = l, time.Now().Add(keep) // the last good one, if there was one
		s.mu.Unlock()
	}
	return l, l.Current != ""
}
