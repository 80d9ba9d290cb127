package builder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/metric"
	"example.org/upkeep/tlog"
)

// A verifier is another build service whose word counts.
type verifier struct {
	name string
	key  note.Verifier
	text string // the key as configured
	base string // address of its pages
	http *http.Client
	log  *tlog.Client

	asksBack bool           // it answers only after our record is logged
	from     []netip.Prefix // it asks from there, besides the addresses of its log
}

// base returns the address of the verifier's log.
func (v Verifier) base() (string, error) {
	k, err := note.NewVerifier(v.Key)
	if err != nil {
		return "", fmt.Errorf("verifier key %q: %w", v.Key, err)
	}
	if v.URL == "" {
		return LogURL(k.Name()), nil
	}
	u, err := url.Parse(v.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", fmt.Errorf("verifier %s: %q is not an http or https URL", k.Name(), v.URL)
	}
	return strings.TrimSuffix(v.URL, "/"), nil
}

// LogURL returns the address of a build log by its name, when nothing else is said.
func LogURL(name string) string {
	if strings.Contains(name, ".") {
		return "https://" + name + "/tlog"
	}
	return "http://" + name + ":8000/tlog"
}

func openVerifier(v Verifier, dir string, logger *slog.Logger, reg *metric.Registry) (*verifier, error) {
	base, err := v.base()
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(v.Key, "+")
	from, err := parseNetworks(v.From)
	if err != nil {
		return nil, fmt.Errorf("verifier %s: from: %w", name, err)
	}
	// A lookup answers when the other side has built.
	hc := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}}
	c, err := tlog.NewClient(tlog.ClientConfig{Key: v.Key, URL: base, Dir: filepath.Join(dir, url.PathEscape(name)), HTTP: hc, Logger: logger, Metrics: reg})
	if err != nil {
		return nil, fmt.Errorf("verifier %s: %w", name, err)
	}
	key, err := note.NewVerifier(v.Key)
	if err != nil {
		return nil, fmt.Errorf("verifier %s: %w", name, err)
	}
	return &verifier{name: name, key: key, text: v.Key, base: strings.TrimSuffix(base, "/tlog"), http: hc, log: c, asksBack: v.AsksBack, from: from}, nil
}

// An opinion is what a verifier says of a spec.
type opinion struct {
	Verifier string
	Record   string // its record, "" with an error
	Error    string
	LogID    int64 // of its record; -1: it signed the record, and has not logged it yet
	circle   bool  // it asked for the same meanwhile
	sum      string
	key      string
	same     bool
	differs  bool
}

// decide returns whether opinions are enough to log a record: agreed, or that
// no answer still to come can change that it is not.
func decide(opinions []opinion, require, outstanding int) (agreed, hopeless bool) {
	n := 0
	for _, o := range opinions {
		if o.same {
			n++
		}
	}
	return n >= require, n+outstanding < require
}

// An answer is what one of the verifiers said.
type answer struct {
	*verifier
	opinion
}

// askAll asks verifiers all at once.
func askAll(list []*verifier, ask func(*verifier) opinion) <-chan answer {
	answers := make(chan answer, len(list))
	for _, v := range list {
		go func() { answers <- answer{v, ask(v)} }()
	}
	return answers
}

// agree asks the verifiers until enough of them have the same sum, and returns
// what they said. What is looked at besides has time until serving ends.
func (s *Service) agree(serving, ctx context.Context, out built) ([]opinion, error) {
	rec := out.record
	var first []*verifier
	for _, v := range s.verifiers {
		if !v.asksBack {
			first = append(first, v)
		}
	}
	if len(first) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.VerifyTimeout.D())
	defer cancel()
	answers := askAll(first, func(v *verifier) opinion { return v.ask(ctx, rec.Spec, s.circles).compare(rec) })
	var opinions []opinion
	for left := len(first); left > 0; {
		a := <-answers
		left--
		opinions = append(opinions, a.opinion)
		if a.differs {
			s.differs(serving, a.verifier, out, a.opinion)
		}
		agreed, hopeless := decide(opinions, s.cfg.Require, left)
		if agreed {
			return opinions, nil
		}
		if hopeless {
			break
		}
	}
	var texts []string
	for _, o := range opinions {
		switch {
		case o.differs:
			texts = append(texts, o.Verifier+" came to another sum")
		case o.circle:
			texts = append(texts, o.Verifier+" asked for the same build in turn")
			s.logger.Warn("a verifier asks for the same build, so that neither can log it first; set asks_back for it", "verifier", o.Verifier, "err", o.Error)
		case o.Error != "":
			texts = append(texts, o.Verifier+" could not be asked")
			s.logger.Warn("asking a verifier", "verifier", o.Verifier, "err", o.Error)
		}
	}
	return nil, temporary(fmt.Sprintf("The result is not logged: fewer than %d verifiers have the same (%s).", s.cfg.Require, strings.Join(texts, ", ")), errNotAgreed)
}

// errNotAgreed is a good build that too few verifiers agree with.
var errNotAgreed = errors.New("too few verifiers agree")

func agreements(opinions []opinion) []Agreement {
	var out []Agreement
	for _, o := range opinions {
		if o.same {
			out = append(out, Agreement{Name: o.Verifier, Key: o.key, Sum: o.sum, LogID: o.LogID})
		}
	}
	return out
}

// compare says whether an opinion is ours.
func (o opinion) compare(rec spec.Record) opinion {
	if o.Error == "" {
		o.same = o.Record == strings.TrimSpace(string(rec.Line()))
		o.differs = !o.same
	}
	return o
}

// ask returns a verifier's opinion; it builds when it has none yet.
func (v *verifier) ask(ctx context.Context, sp spec.Spec, c *circles) opinion {
	rec, logged, err := v.opinion(ctx, sp)
	switch {
	case errors.Is(err, errNoOpinions):
		end := c.ask(sp, v.sources(ctx))
		o := v.lookup(ctx, sp)
		o.circle = end() && o.Error != ""
		return o
	case err == nil && logged:
		return v.lookup(ctx, sp)
	case err != nil:
		return opinion{Verifier: v.name, key: v.text, Error: err.Error()}
	}
	return v.says(rec, -1)
}

func (v *verifier) says(rec spec.Record, id int64) opinion {
	return opinion{Verifier: v.name, key: v.text, Record: strings.TrimSpace(string(rec.Line())), sum: rec.Sum, LogID: id}
}

// lookup returns what a verifier's log says; it builds and logs when it has no
// record.
func (v *verifier) lookup(ctx context.Context, sp spec.Spec) opinion {
	o := opinion{Verifier: v.name, key: v.text}
	got, err := v.log.Lookup(ctx, sp.String())
	if err != nil {
		o.Error = err.Error()
		return o
	}
	theirs, err := spec.ParseRecord(got.Data)
	if err != nil {
		o.Error = err.Error()
		return o
	}
	if theirs.Spec != sp {
		o.Error = fmt.Sprintf("its log has a record of %s for %s", theirs.Spec, sp)
		return o
	}
	return v.says(theirs, got.ID)
}
