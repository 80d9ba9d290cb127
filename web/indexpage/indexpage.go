// Package indexpage serves the pages of the index: type a module path, see
// what the zone says of it and how to ask the name servers yourself.
//
// Nothing in a request is trusted (see package web); a module path is looked
// up only after it has been checked. The pages change nothing, so there is no
// login. What they show is not proof: that is in the signed answers and in
// the log. There are no files on disk.
package indexpage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"
	"golang.org/x/mod/module"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/web"
)

// maxPath bounds a module path asked for; a longer one has no name in the zone.
const maxPath = 300

// staleAfter is when the start page says that the log was read too long ago.
// Supervisors have the same limit by default.
const staleAfter = 6 * time.Hour

// Config says how the pages are served.
type Config struct {
	Security web.Security
	Zone     string // "l.example.org."
	Server   string // address of a name server of the zone, for the dig lines; "" = the viewer's resolver
	Anchor   string // file with the zone's keys, for the delv line; may be empty
	LogName  string // of the followed log
	// Health returns facts about the zone for the start page: keys, signature
	// ages, other servers. Nil = none.
	Health func(context.Context) []Fact
	Log    *slog.Logger
}

// A Fact is one line of the zone's health.
type Fact struct {
	Name, Value string
	Bad         bool // needs somebody's attention
}

type server struct {
	cfg   Config
	index index.Reader
	log   *slog.Logger
}

// New returns the handler of all pages.
func New(cfg Config, idx index.Reader) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Security.Log == nil {
		cfg.Security.Log = cfg.Log
	}
	s := &server{cfg: cfg, index: idx, log: cfg.Log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.start)
	mux.HandleFunc("GET /module/{path...}", s.module)
	mux.HandleFunc("GET /feed/{path...}", s.feed)
	mux.HandleFunc("GET /api/v1/module/{path...}", s.apiModule)
	mux.HandleFunc("GET /api/v1/status", s.apiStatus)
	mux.Handle("GET /static/", web.Static())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.message(w, http.StatusNotFound, "There is no such page", "The address "+r.URL.Path+" is none of this server's.")
	})
	return web.Secure(cfg.Security, mux)
}

func (s *server) page(title string, main templ.Component) web.Page {
	return web.Page{Title: title, Program: "upkeep-dns", Main: main}
}

func (s *server) message(w http.ResponseWriter, status int, title, text string) {
	web.Render(s.log, w, status, s.page(title, messageMain(title, text)))
}

// A startView is what the start page shows.
type startView struct {
	Zone, LogName string
	Head          index.Head
	Toolchains    []version
	Ask           ask
	Facts         []Fact
	Stale         bool // the log was read too long ago
}

func (v startView) tone() string {
	if v.Stale {
		return "warn"
	}
	return "good"
}

func (v startView) sign() string {
	if v.Stale {
		return "!"
	}
	return "#"
}

// releaseKind is the kind of a Go release in words.
func releaseKind(kind string) string {
	switch kind {
	case "cur":
		return "current"
	case "prev":
		return "previous"
	}
	return kind
}

// start is the page with the search form and the zone's health.
func (s *server) start(w http.ResponseWriter, r *http.Request) {
	if q := strings.TrimSpace(r.FormValue("module")); q != "" {
		http.Redirect(w, r, "/module/"+escapePath(cleanQuery(q)), http.StatusSeeOther)
		return
	}
	head, err := s.index.Head()
	if err != nil {
		s.fail(w, err)
		return
	}
	tools, err := s.index.Toolchains()
	if err != nil {
		s.fail(w, err)
		return
	}
	v := startView{Zone: s.cfg.Zone, LogName: s.cfg.LogName, Head: head, Ask: s.ask(name.Toolchain(s.cfg.Zone))}
	v.Stale = head.Size > 0 && time.Since(head.Accepted) > staleAfter
	for _, t := range tools {
		v.Toolchains = append(v.Toolchains, newVersion(index.Version{Version: t.Version, Time: t.Time, Record: t.Record}, t.Kind))
	}
	if s.cfg.Health != nil {
		v.Facts = s.cfg.Health(r.Context())
	}
	web.Render(s.log, w, http.StatusOK, s.page("Index "+s.cfg.Zone, startMain(v)))
}

func (s *server) fail(w http.ResponseWriter, err error) {
	s.log.Error("the index does not answer", "err", err)
	s.message(w, http.StatusInternalServerError, "The index does not answer", err.Error())
}

// cleanQuery makes a module path of what people paste: an address, a path
// with a version, a trailing slash.
func cleanQuery(q string) string {
	if u, err := url.Parse(q); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		q = u.Host + u.Path
	}
	q, _, _ = strings.Cut(q, "@")
	return strings.Trim(q, "/")
}

// escapePath writes a path for an address, slashes kept.
func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

var errTooLong = fmt.Errorf("a module path has at most %d bytes", maxPath)

// checkPath says what is wrong with a module path before it is looked up.
func checkPath(path string) error {
	if len(path) > maxPath {
		return errTooLong
	}
	if err := module.CheckPath(path); err != nil {
		var bad *module.InvalidPathError
		if errors.As(err, &bad) {
			return fmt.Errorf("%q is not a module path: %w", path, bad.Err)
		}
		return err
	}
	return nil
}

// An ask is how to ask the name servers for a name.
type ask struct{ Name, Dig, Delv string }

func (s *server) ask(qname string) ask {
	at, port := "", ""
	if s.cfg.Server != "" {
		if host, p, err := net.SplitHostPort(s.cfg.Server); err == nil {
			at = " @" + host
			if p != "53" {
				port = " -p " + p
			}
		} else {
			at = " @" + s.cfg.Server
		}
	}
	a := ask{Name: qname, Dig: "dig" + at + port + " +dnssec " + qname + " TXT"}
	if s.cfg.Anchor != "" {
		a.Delv = "delv" + at + port + " -a " + s.cfg.Anchor + " +root=" + strings.TrimSuffix(s.cfg.Zone, ".") + " " + qname + " TXT"
	}
	return a
}
