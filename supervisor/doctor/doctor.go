// Package doctor walks the path that a supervised service depends on and says
// in plain words what is broken, whose fault it is likely to be and what to do.
//
// It changes nothing: it asks the same servers as the supervisor, verifies the
// same way, and only reads files. What servers say of themselves (the time, a
// certificate) is shown as their word.
package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/install"
)

// Levels of a [Finding].
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
	Skip = "skip" // could not be looked at, since something before it failed or is not configured
)

// A Finding is the state of one link of the path.
type Finding struct {
	Link  string `json:"link"`
	Level string `json:"level"`
	What  string `json:"what"` // one sentence
	Whose string `json:"whose,omitempty"`
	Next  string `json:"next,omitempty"`
}

// A Patient is what is examined. What is missing is skipped.
type Patient struct {
	Module   string
	Version  string // running, may be ""
	Discover *discover.Discoverer
	Fetch    *fetch.Fetcher
	HTTP     *http.Client // for the builder
	Path     string       // service binary
	State    string       // folder
	Cache    string       // folder that is shared, "" = none
	User     string       // of the service, "" = upkeep's own
	Config   string       // file
	Unit     string       // file, "" = looked for
	Now      func() time.Time
}

type examination struct {
	Patient
	report func(Finding)
}

// Examine walks the path and reports each link as it goes.
func Examine(ctx context.Context, p Patient, report func(Finding)) {
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.HTTP == nil {
		p.HTTP = &http.Client{Timeout: 15 * time.Second}
	}
	e := &examination{p, report}
	e.clock(ctx)
	e.sources(ctx)
	e.answer(ctx)
	e.builder(ctx)
	e.proxy(ctx)
	e.files()
	e.unit()
}

func (e *examination) ok(link, format string, args ...any) {
	e.report(Finding{Link: link, Level: OK, What: fmt.Sprintf(format, args...)})
}

func (e *examination) skip(link, format string, args ...any) {
	e.report(Finding{Link: link, Level: Skip, What: fmt.Sprintf(format, args...)})
}

func (e *examination) fail(link string, err error) {
	a := Explain(err)
	e.report(Finding{link, Fail, strings.ReplaceAll(err.Error(), "\n", "; "), a.Whose, a.Next})
}

func (e *examination) note(level, link, what, whose, next string) {
	e.report(Finding{link, level, what, whose, next})
}

// clock compares this machine's time with what the builder says.
func (e *examination) clock(ctx context.Context) {
	if e.Fetch == nil {
		e.skip("clock", "no builder is configured to compare the time with")
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, e.Fetch.Builder()+"/", nil)
	if err != nil {
		e.fail("clock", err)
		return
	}
	before := e.Now()
	resp, err := e.HTTP.Do(req)
	if err != nil {
		e.skip("clock", "the builder did not answer, so there is no time to compare with")
		return
	}
	resp.Body.Close()
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		e.skip("clock", "the builder does not say what time it has")
		return
	}
	finding := Clock(before, theirs, req.URL.Host)
	e.report(finding)
}

// Clock judges the difference between this machine's time and a server's.
func Clock(ours, theirs time.Time, host string) Finding {
	diff := ours.Sub(theirs).Round(time.Second)
	abs := max(diff, -diff)
	what := fmt.Sprintf("this machine's clock is within %s of %s's", max(abs, 2*time.Second), host)
	if abs <= 2*time.Minute {
		return Finding{Link: "clock", Level: OK, What: what}
	}
	word := "ahead of"
	if diff < 0 {
		word = "behind"
	}
	f := Finding{Link: "clock", Level: Warn, What: fmt.Sprintf("this machine's clock (%s) is %s %s the clock of %s", ours.UTC().Format(time.RFC3339), abs, word, host),
		Whose: "this machine's clock, or the server's", Next: "Set the clock (for example with chrony or systemd-timesyncd): signatures are valid for a time only."}
	if abs > 5*time.Minute {
		f.Level = Fail
	}
	return f
}

// sources tries each transport of each source.
func (e *examination) sources(ctx context.Context) {
	if e.Discover == nil {
		e.skip("sources", "no zone is configured")
		return
	}
	for _, r := range e.Discover.Probe(ctx) {
		link := "source " + r.Source
		if r.Err != nil {
			e.fail(link, r.Err)
			continue
		}
		what := fmt.Sprintf("%s answers over %s in %s", r.Server, r.Transport, r.RTT.Round(time.Millisecond))
		if r.TLS != nil {
			level, note := certificate(r.TLS, e.Now())
			what += ", " + note
			if level != OK {
				e.note(level, link, what, "the resolver's operator", "Expect it to stop working when the certificate is not renewed; have a second source.")
				continue
			}
		}
		e.ok(link, "%s", what)
	}
}

// answer asks for the module and validates, link by link.
func (e *examination) answer(ctx context.Context) {
	if e.Discover == nil {
		return
	}
	if e.Module == "" {
		e.skip("answer", "no module is known: name it in service.module")
		return
	}
	a, err := e.Discover.Ask(ctx, e.Module)
	for _, s := range a.Sources {
		for _, l := range s.Chain {
			left := l.Expires.Sub(e.Now())
			link := "keys of " + l.Zone
			what := fmt.Sprintf("key %d (algorithm %d) is named by %s and signs until %s", l.KeyTag, l.Algorithm, l.By, l.Expires.UTC().Format(time.RFC3339))
			if left < time.Hour {
				e.note(Warn, link, what, "the operator of the zone", "Less than an hour is left: if nothing signs anew, answers fail validation then.")
				continue
			}
			e.ok(link, "%s", what)
		}
		link := "answer of " + s.Source
		switch {
		case s.Err != nil:
			e.fail(link, s.Err)
		case s.Stale != "":
			e.fail(link, fmt.Errorf("%w: %s", discover.ErrStale, s.Stale))
		case len(s.Versions) == 0:
			e.note(Warn, link, "the zone knows "+e.Module+" and lists no release of it", "the module's author", "Tag a release; pre-releases and untagged commits are not listed.")
		default:
			e.ok(link, "%s %s, %s", e.Module, s.Versions[0].Version, s.Proof)
		}
	}
	if err != nil && len(a.Sources) > 1 {
		e.fail("agreement", err)
	}
	for _, ev := range a.Events {
		switch ev.Kind {
		case discover.EventVanished, discover.EventLower, discover.EventBehind, discover.EventFallback, discover.EventSilence:
			e.note(Warn, "answer", ev.Text, "the index", "Compare with another source: upkeep check -v.")
		}
	}
}

// builder looks at its TLS and at its log.
func (e *examination) builder(ctx context.Context) {
	if e.Fetch == nil {
		e.skip("builder", "no builder is configured: set fetch.key")
		return
	}
	u, err := url.Parse(e.Fetch.Builder())
	if err != nil {
		e.fail("builder", err)
		return
	}
	if u.Scheme == "https" {
		if err := e.tls(ctx, "builder TLS", u); err != nil {
			e.fail("builder TLS", err)
			e.skip("builder log", "the builder cannot be reached")
			return
		}
	} else if host := u.Hostname(); host != "localhost" && !net.ParseIP(host).IsLoopback() {
		e.note(Warn, "builder TLS", "the builder is reached over plain HTTP at "+u.Host, "this configuration", "What is installed is verified all the same; others on the way can see what runs here and can slow it down.")
	}
	head, err := e.Fetch.Update(ctx)
	if err != nil {
		e.fail("builder log", err)
	} else {
		e.ok("builder log", "%s has %d records; signed, and consistent with what was seen before", e.Fetch.Name(), head.Size)
	}
}

// tls connects to an https address and reports its certificate.
func (e *examination) tls(ctx context.Context, link string, u *url.URL) error {
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	var tc *tls.Config
	if tr, ok := e.HTTP.Transport.(*http.Transport); ok && tr.TLSClientConfig != nil {
		tc = tr.TLSClientConfig.Clone()
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: tc}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", addr, err)
	}
	defer conn.Close()
	cs := conn.(*tls.Conn).ConnectionState()
	level, note := certificate(&cs, e.Now())
	if level == OK {
		e.ok(link, "%s: %s", addr, note)
		return nil
	}
	e.note(level, link, addr+": "+note, "the server's operator", "Tell the operator to renew the certificate.")
	return nil
}

// certificate describes a verified connection.
func certificate(cs *tls.ConnectionState, now time.Time) (level, what string) {
	leaf := cs.PeerCertificates[0]
	left := leaf.NotAfter.Sub(now)
	what = fmt.Sprintf("%s, certificate of %s by %s, valid until %s", tls.VersionName(cs.Version), or(strings.Join(leaf.DNSNames, ", "), leaf.Subject.CommonName), leaf.Issuer.CommonName, leaf.NotAfter.UTC().Format("2006-01-02"))
	// Short-lived certificates are renewed late: the last eighth of the lifetime is a warning.
	if left < leaf.NotAfter.Sub(leaf.NotBefore)/8 {
		return Warn, what + fmt.Sprintf(", only %d hours left", int(left.Hours()))
	}
	return OK, what
}

// proxy looks at the module proxy and the checksum database.
func (e *examination) proxy(ctx context.Context) {
	if e.Fetch == nil {
		return
	}
	p := e.Fetch.Proxy()
	switch {
	case p == nil:
		e.skip("module proxy", "none is configured: set fetch.proxy, in the form of GOPROXY")
	case e.Module == "":
		e.skip("module proxy", "no module is known: name it in service.module")
	default:
		list, err := p.List(ctx, e.Module)
		if err != nil {
			e.fail("module proxy", err)
		} else {
			e.ok("module proxy", "%s lists %d versions of %s", p, len(list), e.Module)
		}
	}
	switch {
	case e.Fetch.SumDB() == "":
		e.note(Fail, "checksum database", "none is configured, so no update is installed", "this configuration", "Set fetch.sumdb, in the form of GOSUMDB.")
	case e.Module == "" || e.Version == "":
		e.skip("checksum database", "no running version is known to look up")
	default:
		s, err := e.Fetch.Sums(ctx, e.Module, e.Version)
		if err != nil {
			e.fail("checksum database", err)
		} else {
			e.ok("checksum database", "%s has %s@%s as record %d of %d", e.Fetch.SumDB(), e.Module, e.Version, s.Record, s.Head.Size)
		}
	}
}

const roomNeeded = 64 << 20 // a binary of common size, while the old one is kept

// files looks at disk space and permissions.
func (e *examination) files() {
	if e.State != "" {
		if err := writable(e.State); err != nil {
			e.fail("state folder", err)
		} else {
			e.ok("state folder", "%s can be written", e.State)
		}
	}
	if e.Cache != "" {
		if err := writable(e.Cache); err != nil {
			e.note(Warn, "shared folder", fmt.Sprintf("answers are not shared with the other services of this host: %v", err), "this machine's set-up",
				"Make the folder so that all of them can write there: install -d -m 1777 "+e.Cache+". Updates work without it.")
		} else {
			e.ok("shared folder", "%s can be written", e.Cache)
		}
	}
	if e.Path == "" {
		e.skip("binary", "none is configured: set service.path")
		return
	}
	place := install.At(e.Path)
	if err := place.Room(roomNeeded); err != nil {
		var space *install.SpaceError
		if errors.As(err, &space) {
			e.note(Fail, "disk", err.Error(), "this machine", "Free some space in that file system; upkeep keeps the last binaries for a roll-back (updates.keep).")
		} else {
			e.fail("disk", err)
		}
	} else {
		e.ok("disk", "there is room for another binary in %s", place.Dir)
	}
	if err := writable(place.Dir); err != nil {
		e.fail("binary's folder", err)
	} else {
		e.ok("binary's folder", "%s can be written", place.Dir)
	}
	file, _, err := place.Current()
	if err == nil {
		var fi os.FileInfo
		if fi, err = os.Stat(file); err == nil {
			for _, f := range judgeFile(file, fi, e.User) {
				e.report(f)
			}
			return
		}
	}
	e.fail("binary", err)
}

// writable creates and removes a file.
func writable(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".upkeep-doctor.tmp-*")
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// unit looks at the systemd unit beside the configuration, or the one installed.
func (e *examination) unit() {
	file := e.Unit
	if file == "" {
		file = findUnit(e.Path)
	}
	if file == "" {
		e.skip("unit", "no unit file is beside the binary or in /etc/systemd/system")
		return
	}
	text, err := readUnit(file)
	if err != nil {
		e.fail("unit", err)
		return
	}
	findings := Unit(file, text, UnitFacts{Config: e.Config, Dirs: []string{filepath.Dir(e.Path), e.State}, Exists: func(f string) bool { _, err := os.Stat(f); return err == nil }})
	for _, f := range findings {
		e.report(f)
	}
}
