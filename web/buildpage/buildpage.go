// Package buildpage serves the pages of the build service: find a build, see
// how it stands, get the binary, and verify it without this server's word.
//
// Nothing in a request is trusted (see package web), and build output and
// reasons are foreign text. A page never starts a build when it is only
// fetched, so crawlers that follow links start none: that takes a POST, or a
// lookup in the log. There are no files on disk.
package buildpage

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/a-h/templ"
	"golang.org/x/mod/module"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/web"
)

// A Service is what the pages ask; [builder.Service] is one. It serves every
// address that is not of these pages.
type Service interface {
	http.Handler
	Status(ctx context.Context) builder.Status
	Result(sp spec.Spec) (builder.Result, error)
	Output(sp spec.Spec) ([]string, error)
	Watch(ctx context.Context, sp spec.Spec, client string, emit func(builder.Event) error) (builder.Result, error)
	Forget(sp spec.Spec) error
}

// Config says how the pages are served.
type Config struct {
	Security web.Security
	Base     string // address that the service is reached under, "" = as in the request
	Metrics  bool   // there is a /metrics to link to
	Log      *slog.Logger
}

// Pages are the pages; they are a [builder.Pages].
type Pages struct {
	cfg     Config
	service Service
	log     *slog.Logger
	viewers chan struct{} // one for each stream of events

	mu      sync.Mutex
	started map[spec.Spec]bool // builds that the pages wait for
}

var _ builder.Pages = (*Pages)(nil)

// New returns pages without a service. [Pages.Handler] gives them theirs.
func New(cfg Config) *Pages {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Security.Log == nil {
		cfg.Security.Log = cfg.Log
	}
	return &Pages{cfg: cfg, log: cfg.Log, viewers: make(chan struct{}, maxViewers), started: map[spec.Spec]bool{}}
}

// Handler returns a handler for everything: the service's own addresses and
// what the pages need besides. Call it once, before the first request. The
// name of the service's log is a name of this server, when it is a host name.
func (p *Pages) Handler(s Service) http.Handler {
	p.service = s
	sec := p.cfg.Security
	name, _, _ := strings.Cut(s.Status(context.Background()).VerifierKey, "+")
	if strings.Contains(name, ".") {
		sec.Hosts = append([]string{name}, sec.Hosts...)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/find", p.find)
	mux.HandleFunc("GET /-/events", p.events)
	mux.HandleFunc("POST /-/build", p.build)
	mux.Handle("GET /static/", web.Static())
	// The service's addresses hold module paths, whose bytes a ServeMux would
	// clean: they go past it.
	return web.Secure(sec, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := strings.HasPrefix(r.URL.Path, "/-/") || strings.HasPrefix(r.URL.Path, "/static/")
		if own {
			mux.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	}))
}

func (p *Pages) page(title, live string, main templ.Component) web.Page {
	page := web.Page{Title: title, Program: "upkeep-build", Live: live, Main: main}
	if p.cfg.Metrics {
		page.Nav = []web.Link{{Href: "/", Text: "Builds"}, {Href: "/metrics", Text: "Metrics"}}
	}
	return page
}

// ServeError renders a message with a status.
func (p *Pages) ServeError(w http.ResponseWriter, _ *http.Request, status int, text string) {
	title := http.StatusText(status)
	switch status {
	case http.StatusNotFound:
		title = "Not found"
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		title = "Not possible now"
	case http.StatusBadRequest:
		title = "This request makes no sense"
	}
	web.Render(p.log, w, status, p.page(title, "", messageMain(title, text)))
}

// A moduleView is a module with links to its commands.
type moduleView struct {
	builder.ModuleInfo
	Links []command
}

type command struct{ Package, Synopsis, Link string }

// ServeModule lists a module's main packages.
func (p *Pages) ServeModule(w http.ResponseWriter, _ *http.Request, m builder.ModuleInfo) {
	v := moduleView{ModuleInfo: m}
	for _, c := range m.Commands {
		s := spec.Spec{Module: m.Module, Version: m.Version, Dir: c.Dir, GOOS: m.GOOS, GOARCH: m.GOARCH, GoVersion: m.GoVersion}
		v.Links = append(v.Links, command{s.Package(), c.Synopsis, "/" + s.String()})
	}
	web.Render(p.log, w, http.StatusOK, p.page(m.Module+" "+m.Version, "", moduleMain(v)))
}

// A form is the search form, filled in.
type form struct {
	Module, Version, Dir, Target, GoVersion string
	Stripped                                bool
	Targets, Go                             []string
	Error                                   string
}

// targets are those in the form; any other one can be typed.
var targets = []string{
	"linux-amd64", "linux-arm64", "linux-arm", "linux-386", "linux-riscv64", "darwin-arm64", "darwin-amd64",
	"freebsd-amd64", "openbsd-amd64", "windows-amd64", "windows-arm64",
}

func newForm(st builder.Status) form {
	f := form{Version: spec.Latest, GoVersion: spec.Latest, Targets: targets, Target: runtime.GOOS + "-" + runtime.GOARCH}
	f.Go = goVersions(st)
	return f
}

// goVersions are those that the service has at hand.
func goVersions(st builder.Status) []string {
	return slices.DeleteFunc([]string{st.GoVersion, st.Previous, st.Next}, func(v string) bool { return v == "" })
}

// A homeView is the service's state with the form.
type homeView struct {
	builder.Status
	Form    form
	LogName string
}

// ServeHome shows what was built last, the log, and the form.
func (p *Pages) ServeHome(w http.ResponseWriter, r *http.Request) {
	st := p.service.Status(r.Context())
	p.home(w, http.StatusOK, st, newForm(st))
}

func (p *Pages) home(w http.ResponseWriter, status int, st builder.Status, f form) {
	name, _, _ := strings.Cut(st.VerifierKey, "+")
	page := p.page("Builds", "/-/events", homeMain(homeView{st, f, name}))
	page.Refresh = 30
	web.Render(p.log, w, status, page)
}

// find leads from the form to the page of a build; it starts nothing.
func (p *Pages) find(w http.ResponseWriter, r *http.Request) {
	st := p.service.Status(r.Context())
	f := newForm(st)
	f.Module = strings.TrimSpace(r.FormValue("module"))
	for _, scheme := range []string{"https://", "http://"} {
		f.Module = strings.TrimPrefix(f.Module, scheme)
	}
	f.Module = strings.Trim(f.Module, "/")
	f.Version, f.Dir = strings.TrimSpace(r.FormValue("version")), strings.Trim(strings.TrimSpace(r.FormValue("dir")), "/")
	f.Target, f.GoVersion, f.Stripped = strings.TrimSpace(r.FormValue("target")), strings.TrimSpace(r.FormValue("go")), r.FormValue("stripped") != ""
	if mod, v, ok := strings.Cut(f.Module, "@"); ok {
		f.Module, f.Version = mod, v
	}
	if f.Version == "" {
		f.Version = spec.Latest
	}
	if f.GoVersion == "" {
		f.GoVersion = spec.Latest
	}
	where := ""
	if err := module.CheckPath(f.Module); err != nil {
		f.Error = err.Error()
	} else if f.Dir == "" {
		// The service looks which commands the module has.
		where = "/" + f.Module
		if f.Version != spec.Latest {
			where += "@" + f.Version
		}
		if f.Version != spec.Latest && module.Check(f.Module, f.Version) != nil {
			f.Error = fmt.Sprintf("%q is not a version of %s; versions are like v1.2.3, or latest", f.Version, f.Module)
		}
	} else {
		goos, goarch, _ := strings.Cut(f.Target, "-")
		dir := f.Dir
		if dir == "." {
			dir = "" // the module's root
		}
		sp := spec.Spec{Module: f.Module, Version: f.Version, Dir: dir, GOOS: goos, GOARCH: goarch, GoVersion: f.GoVersion, Stripped: f.Stripped}
		where = "/" + sp.String()
		if _, err := spec.ParseRequest(sp.String()); err != nil {
			f.Error = err.Error()
		}
	}
	if f.Error != "" {
		p.home(w, http.StatusBadRequest, st, f)
		return
	}
	http.Redirect(w, r, where, http.StatusSeeOther)
}
