package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/supervisor/discover"
)

// Exit codes of check.
const (
	checkDoubt    = 1 // an answer that is not believed
	checkNotFound = 3
	checkSilent   = 4 // no answer
)

func checkCommand() *cli.Command {
	var f sourceFlags
	var asJSON, verbose bool
	return &cli.Command{
		Name:  "check",
		Args:  "MODULE…",
		Short: "ask for the latest version of modules, and say how the answer was validated",
		Long: `Exit codes: 0 every answer was validated; 1 an answer is not to be believed
(bogus, unsigned, stale, or the sources do not agree); 3 a module does not exist,
by a validated answer; 4 nobody answered; 2 wrong use. With several modules the
gravest.`,
		Example: `upkeep check -zone l.example.org github.com/mjl-/mox
upkeep check -zone l.upkeep.test -source server://127.0.0.1:5353 -anchor anchor.keys example.org/hello`,
		Flags: func(fs *flag.FlagSet) {
			f.discovery(fs)
			fs.BoolVar(&asJSON, "json", false, "print JSON, one object a module")
			fs.BoolVar(&verbose, "v", false, "print what each source said")
		},
		Run: func(ctx context.Context, args []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			if len(args) == 0 && cfg.Service.Module != "" {
				args = []string{cfg.Service.Module}
			}
			if len(args) == 0 {
				return cli.Usagef("name at least one module")
			}
			for _, arg := range args {
				if path, version, ok := strings.Cut(arg, "@"); ok {
					return cli.Usagef("check asks for the newest version: name %s without %q", path, "@"+version)
				}
				if err := module.CheckImportPath(arg); err != nil {
					return cli.Usagef("%q is no module: %w", arg, err)
				}
			}
			if cfg.Discovery.Zone == "" && cfg.Discovery.Updates == "" {
				return cli.Hint(errors.New("no zone is configured"), "Name the zone that lists versions with -zone, or a configuration with -config.")
			}
			dir := ""
			if cfg.State != "" {
				dir = filepath.Join(cfg.State, "discovery")
			}
			cfg.Discovery.Fallback = false
			d, err := discover.New(cfg.Discovery, discover.Options{Dir: dir, ReadOnly: true})
			if err != nil {
				return err
			}
			defer d.Close()
			code := 0
			for _, arg := range args {
				a, err := askPackage(ctx, d, arg)
				if asJSON {
					if err := json.NewEncoder(os.Stdout).Encode(checkResult(arg, a, err)); err != nil {
						return err
					}
				} else {
					printAnswer(os.Stdout, arg, a, err, verbose || len(a.Sources) > 1)
				}
				code = graver(code, checkCode(err))
			}
			if code != 0 {
				return &cli.ExitError{Code: code}
			}
			return nil
		},
	}
}

// askPackage asks for the module; when it does not exist, for the ones that
// the path may be a package of.
func askPackage(ctx context.Context, d *discover.Discoverer, path string) (discover.Answer, error) {
	first, ferr := d.Ask(ctx, path)
	if !errors.Is(ferr, discover.ErrNotFound) {
		return first, ferr
	}
	for p := path; strings.Count(p, "/") > 1; {
		p = p[:strings.LastIndexByte(p, '/')]
		a, err := d.Ask(ctx, p)
		if err == nil && len(a.Versions) > 0 {
			return a, nil
		}
		if err != nil && !errors.Is(err, discover.ErrNotFound) {
			return a, err
		}
	}
	return first, ferr
}

func checkCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, discover.ErrNotFound):
		return checkNotFound
	}
	var bogus *discover.BogusError
	var insecure *discover.InsecureError
	if errors.Is(err, discover.ErrUnreachable) && !errors.As(err, &bogus) && !errors.As(err, &insecure) && !errors.Is(err, discover.ErrStale) {
		return checkSilent
	}
	return checkDoubt
}

func graver(a, b int) int {
	for _, c := range []int{checkDoubt, checkSilent, checkNotFound} {
		if a == c || b == c {
			return c
		}
	}
	return 0
}

type checkJSON struct {
	Asked     string       `json:"asked"`
	Module    string       `json:"module"`
	Version   string       `json:"version,omitempty"` // newest
	Versions  []name.Entry `json:"versions,omitempty"`
	Toolchain []name.Entry `json:"toolchain,omitempty"`
	LogSize   int64        `json:"log_size,omitempty"`
	LogRead   *time.Time   `json:"log_read,omitempty"`
	Validated bool         `json:"validated"`
	Proof     string       `json:"proof,omitempty"`
	Source    string       `json:"source,omitempty"`
	TTL       float64      `json:"ttl_seconds,omitempty"`
	Fresh     bool         `json:"fresh"`
	Stale     *time.Time   `json:"stale_since,omitempty"`
	LastFresh *time.Time   `json:"last_fresh,omitempty"`
	Silent    bool         `json:"silent,omitempty"` // for longer than max_silence
	Sources   []sourceJSON `json:"sources,omitempty"`
	Events    []string     `json:"events,omitempty"`
	Error     string       `json:"error,omitempty"`
	Exit      int          `json:"exit"`
}

type sourceJSON struct {
	Source    string          `json:"source"`
	Zone      string          `json:"zone"`
	Server    string          `json:"server,omitempty"`
	Transport string          `json:"transport,omitempty"`
	Versions  []name.Entry    `json:"versions,omitempty"`
	LogSize   int64           `json:"log_size,omitempty"`
	Chain     []discover.Link `json:"chain,omitempty"`
	Proof     string          `json:"proof,omitempty"`
	Stale     string          `json:"stale,omitempty"`
	Behind    bool            `json:"behind,omitempty"`
	RTT       float64         `json:"seconds"`
	Error     string          `json:"error,omitempty"`
}

func checkResult(asked string, a discover.Answer, err error) checkJSON {
	r := checkJSON{Asked: asked, Module: a.Module, Versions: a.Versions, Toolchain: a.Toolchain, Validated: a.Proof != "" && (err == nil || errors.Is(err, discover.ErrNotFound)),
		Proof: a.Proof, Source: a.Source, TTL: a.TTL.Seconds(), Exit: checkCode(err)}
	if len(a.Versions) > 0 {
		r.Version = a.Versions[0].Version
	}
	if a.Status != nil {
		r.LogSize, r.LogRead = a.Status.Size, &a.Status.At
	}
	r.Fresh, r.Silent = a.Fresh.StaleSince.IsZero(), a.Fresh.Silent
	if !r.Fresh {
		r.Stale = &a.Fresh.StaleSince
	}
	if !a.Fresh.Last.IsZero() {
		r.LastFresh = &a.Fresh.Last
	}
	for _, s := range a.Sources {
		j := sourceJSON{Source: s.Source, Zone: s.Zone, Server: s.Server, Transport: s.Transport, Versions: s.Versions,
			Chain: s.Chain, Proof: s.Proof, Stale: s.Stale, Behind: s.Behind, RTT: s.RTT.Seconds()}
		if s.Status != nil {
			j.LogSize = s.Status.Size
		}
		if s.Err != nil {
			j.Error = s.Err.Error()
		}
		r.Sources = append(r.Sources, j)
	}
	for _, e := range a.Events {
		r.Events = append(r.Events, e.Kind+": "+e.Text)
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func printAnswer(w io.Writer, asked string, a discover.Answer, err error, each bool) {
	row := func(key, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s %s\n", key, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s\n", asked)
	if a.Module != asked && err == nil {
		row("module", "%s", a.Module)
	}
	if err != nil {
		key := "refused"
		switch checkCode(err) {
		case checkNotFound:
			key = "not found"
		case checkSilent:
			key = "no answer"
		}
		row(key, "%s", strings.ReplaceAll(err.Error(), "\n", "\n             "))
	} else if len(a.Versions) == 0 {
		row("newest", "none: the zone knows the path, and no release of it")
	}
	for i, e := range a.Versions {
		row([]string{"newest", "also"}[min(i, 1)], "%s%s", e.Version, discovered(e.Time))
	}
	var gos []string
	for _, e := range a.Toolchain {
		gos = append(gos, strings.TrimSpace(e.Version+" "+map[string]string{"prev": "(previous)", "next": "(candidate)"}[e.Kind]))
	}
	if len(gos) > 0 {
		row("Go", "%s", strings.Join(gos, ", "))
	}
	if a.Status != nil {
		row("log", "%d records, read %s", a.Status.Size, since(a.Status.At))
	} else if err == nil {
		row("log", "the zone does not say how far its log is")
	}
	if a.Proof != "" {
		row("proof", "%s", a.Proof)
	}
	switch {
	case a.Source == "":
	case len(a.Sources) > 1:
		row("from", "%s (%d of %d sources)", a.Source, strings.Count(a.Source, ", ")+1, len(a.Sources))
	default:
		row("from", "%s", a.Source)
	}
	switch {
	case a.Fresh.StaleSince.IsZero() && err == nil:
		row("fresh", "yes")
	case !a.Fresh.StaleSince.IsZero() && a.Fresh.Last.IsZero():
		row("fresh", "no: there never was a fresh verified answer")
	case !a.Fresh.StaleSince.IsZero():
		row("fresh", "no, stale since %s; the last fresh answer was on %s", since(a.Fresh.StaleSince), since(a.Fresh.Last))
	}
	if each {
		for _, s := range a.Sources {
			var said []string
			switch {
			case s.Err != nil:
				said = append(said, s.Err.Error())
			case s.Stale != "":
				said = append(said, "stale: "+s.Stale)
			default:
				for _, e := range s.Versions {
					said = append(said, e.Version)
				}
				if s.Status != nil {
					said = append(said, fmt.Sprintf("at %d records", s.Status.Size))
				}
				if s.Behind {
					said = append(said, "(behind)")
				}
			}
			row("source", "%s for %s: %s", s.Source, s.Zone, strings.Join(said, " "))
			for _, l := range s.Chain {
				row("", "  %s key %d (algorithm %d) by %s", l.Zone, l.KeyTag, l.Algorithm, l.By)
			}
		}
	}
	for _, e := range a.Events {
		if err == nil || !strings.Contains(err.Error(), e.Text) {
			row("attention", "%s", e.Text)
		}
	}
}

func discovered(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", discovered " + since(t)
}

func since(t time.Time) string {
	d := time.Since(t).Round(time.Second)
	unit, n := "second", int(d.Seconds())
	switch {
	case d > 48*time.Hour:
		unit, n = "day", int(d.Hours()/24)
	case d > 2*time.Hour:
		unit, n = "hour", int(d.Hours())
	case d > 2*time.Minute:
		unit, n = "minute", int(d.Minutes())
	}
	s := t.UTC().Format("2006-01-02 15:04:05 UTC")
	if n < 0 {
		return s
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%s (%d %s ago)", s, n, unit)
}
