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
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/web"
)

//go:embed templates/*.html
var templateFS embed.FS

// State says where a build stands.
type State string

// The states of a build.
const (
	StateNew      State = "new"      // nobody has asked for it yet
	StateQueued   State = "queued"   // waits for its turn
	StateBuilding State = "building" // is being built
	StateDone     State = "done"     // has a record in the log
	StateFailed   State = "failed"   // cannot be built, or not now
)

// A Build is one build as the pages show it.
type Build struct {
	Spec    spec.Spec
	State   State
	Queue   int       // position, when queued
	Started time.Time // of the build
	Ended   time.Time
	Size    int64
	Sum     string
	Index   int64    // of the record in the log
	LogSize int64    // of the tree head that covers it
	Error   string   // why it failed, one sentence
	Retry   bool     // the failure may go away: asking again makes sense
	Output  []string // last lines of the build's output
	Agreed  []string // other builders that came to the same sum
	Gone    bool     // the record stays, the binary is no longer kept
}

// A Log is the build log as the pages show it.
type Log struct {
	Name string
	Key  string // verifier key
	Size int64
	Hash [32]byte
}

// A Builder is what the pages ask.
type Builder interface {
	// Recent returns at most n builds, newest first, with those under way.
	Recent(ctx context.Context, n int) ([]Build, error)
	// Find returns a build; one that nobody asked for has StateNew.
	Find(ctx context.Context, s spec.Spec) (Build, error)
	// Start asks for a build, again if it failed before. It returns at once.
	Start(ctx context.Context, s spec.Spec) error
	// Watch sends after changes of any build until ctx ends.
	Watch(ctx context.Context) <-chan struct{}
	// Log returns how the log stands.
	Log() Log
}

// Config says how the pages are served.
type Config struct {
	Security web.Security
	Base     string // address that the service is reached under, "" = as in the request
	Targets  []string
	Go       []string // Go versions offered in the form, newest first
	Metrics  bool     // there is a /metrics to link to
	Log      *slog.Logger
}

// Pages are the pages. They are an [http.Handler] for "/", "/static/", "/-/"
// and the addresses of builds without a suffix; the rest belongs to the
// service's own handler.
type Pages struct {
	cfg     Config
	builder Builder
	pages   *web.Templates
	log     *slog.Logger
	h       http.Handler
}

// pause is the least time between two events to one viewer.
const pause = 500 * time.Millisecond

// New returns the pages of a builder.
func New(cfg Config, b Builder) *Pages {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Security.Log == nil {
		cfg.Security.Log = cfg.Log
	}
	if len(cfg.Targets) == 0 {
		cfg.Targets = defaultTargets
	}
	files, err := fs.Sub(templateFS, "templates")
	if err != nil {
		panic(fmt.Sprintf("buildpage: templates: %v", err))
	}
	p := &Pages{cfg: cfg, builder: b, log: cfg.Log}
	p.pages = web.NewTemplates(files, nil, cfg.Log)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.start)
	mux.HandleFunc("GET /-/find", p.find)
	mux.HandleFunc("GET /-/events", p.events)
	mux.HandleFunc("POST /-/build", p.build)
	mux.Handle("GET /static/", web.Static())
	mux.HandleFunc("GET /", p.result)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.Message(w, http.StatusMethodNotAllowed, "Not possible", "This address is only for reading.")
	})
	p.h = web.Secure(cfg.Security, mux)
	return p
}

// ServeHTTP serves the pages, with every check of package web.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.h.ServeHTTP(w, r) }

// defaultTargets are those in the form; any other one can be written into the
// address.
var defaultTargets = []string{
	"linux-amd64", "linux-arm64", "linux-arm", "linux-386", "linux-riscv64", "darwin-arm64", "darwin-amd64",
	"freebsd-amd64", "openbsd-amd64", "windows-amd64", "windows-arm64",
}

func (p *Pages) page(title, live string, data any) web.Page {
	page := web.Page{Title: title, Program: "upkeep-build", Live: live, Data: data}
	if p.cfg.Metrics {
		page.Nav = []web.Link{{Href: "/", Text: "Builds"}, {Href: "/metrics", Text: "Metrics"}}
	}
	return page
}

// Message writes a page that says one thing.
func (p *Pages) Message(w http.ResponseWriter, status int, title, text string) {
	p.pages.Render(w, status, "message.html", p.page(title, "", struct{ Title, Text string }{title, text}))
}

// Commands writes a page with the main packages of a module; dirs are their
// folders in the module, target is like "linux-amd64-go1.26.3".
func (p *Pages) Commands(w http.ResponseWriter, mod, version string, dirs []string, target string) {
	type command struct{ Name, Link string }
	data := struct {
		Module, Version string
		Commands        []command
	}{Module: mod, Version: version}
	for _, dir := range dirs {
		s := spec.Spec{Module: mod, Version: version, Dir: dir}
		link := mod + "@" + version + "/"
		if dir != "" {
			link += dir + "/"
		}
		data.Commands = append(data.Commands, command{s.Package(), "/" + link + target + "/"})
	}
	p.pages.Render(w, http.StatusOK, "commands.html", p.page(mod, "", data))
}

// A form is the search form, filled in.
type form struct {
	Module, Version, Dir, Target, GoVersion string
	Stripped                                bool
	Targets, Go                             []string
	Error                                   string
}

func (p *Pages) form() form {
	f := form{Version: spec.Latest, GoVersion: spec.Latest, Targets: p.cfg.Targets, Go: p.cfg.Go}
	if target := runtime.GOOS + "-" + runtime.GOARCH; len(f.Targets) > 0 {
		f.Target = target
	}
	return f
}

// start shows what was built last, the log, and the form.
func (p *Pages) start(w http.ResponseWriter, r *http.Request) {
	p.startWith(w, r, http.StatusOK, p.form())
}

func (p *Pages) startWith(w http.ResponseWriter, r *http.Request, status int, f form) {
	recent, err := p.builder.Recent(r.Context(), 30)
	if err != nil {
		p.log.Error("the builder does not answer", "err", err)
		p.Message(w, http.StatusInternalServerError, "The builder does not answer", err.Error())
		return
	}
	data := struct {
		Form   form
		Recent []Build
		Log    Log
	}{f, recent, p.builder.Log()}
	page := p.page("Builds", "/-/events", data)
	page.Refresh = 30
	p.pages.Render(w, status, "start.html", page)
}

// find leads from the form to the page of a build; it starts nothing.
func (p *Pages) find(w http.ResponseWriter, r *http.Request) {
	f := p.form()
	f.Module = strings.Trim(strings.TrimSpace(r.FormValue("module")), "/")
	for _, scheme := range []string{"https://", "http://"} {
		f.Module = strings.TrimPrefix(f.Module, scheme)
	}
	f.Version, f.Dir = strings.TrimSpace(r.FormValue("version")), strings.Trim(strings.TrimSpace(r.FormValue("dir")), "/")
	f.Target, f.GoVersion, f.Stripped = r.FormValue("target"), strings.TrimSpace(r.FormValue("go")), r.FormValue("stripped") != ""
	if mod, v, ok := strings.Cut(f.Module, "@"); ok {
		f.Module, f.Version = mod, v
	}
	if f.Version == "" {
		f.Version = spec.Latest
	}
	if f.GoVersion == "" {
		f.GoVersion = spec.Latest
	}
	if err := module.CheckPath(f.Module); err != nil {
		f.Error = err.Error()
		p.startWith(w, r, http.StatusBadRequest, f)
		return
	}
	// Without a folder the service looks which commands the module has.
	if f.Dir == "" && r.FormValue("exact") == "" {
		http.Redirect(w, r, "/"+f.Module+"@"+f.Version+"?target="+f.Target, http.StatusSeeOther)
		return
	}
	goos, goarch, _ := strings.Cut(f.Target, "-")
	sp := spec.Spec{Module: f.Module, Version: f.Version, Dir: f.Dir, GOOS: goos, GOARCH: goarch, GoVersion: f.GoVersion, Stripped: f.Stripped}
	if _, err := spec.ParseRequest(sp.String()); err != nil {
		f.Error = err.Error()
		p.startWith(w, r, http.StatusBadRequest, f)
		return
	}
	http.Redirect(w, r, "/"+sp.String(), http.StatusSeeOther)
}

func (p *Pages) events(w http.ResponseWriter, r *http.Request) {
	web.ServeChanges(w, r, p.builder.Watch(r.Context()), pause)
}

// build starts a build, or a failed one again.
func (p *Pages) build(w http.ResponseWriter, r *http.Request) {
	sp, err := spec.Parse(r.PostFormValue("spec"))
	if err != nil {
		p.Message(w, http.StatusBadRequest, "Not a build", err.Error())
		return
	}
	if err := p.builder.Start(r.Context(), sp); err != nil {
		p.Message(w, http.StatusServiceUnavailable, "The build was not started", err.Error())
		return
	}
	http.Redirect(w, r, "/"+sp.String(), http.StatusSeeOther)
}

// splitSum parts the address of a result into spec and sum.
func splitSum(text string) (string, string) {
	dir, last := path.Split(strings.TrimSuffix(text, "/"))
	if strings.HasSuffix(text, "/") && dir != "" && spec.CheckSum(last) == nil {
		return dir, last
	}
	return text, ""
}

// result is the page of one build, under its spec or under spec and sum.
func (p *Pages) result(w http.ResponseWriter, r *http.Request) {
	text, sum := splitSum(strings.TrimPrefix(r.URL.Path, "/"))
	sp, err := spec.Parse(text)
	if err != nil {
		p.Message(w, http.StatusNotFound, "Not a build", err.Error())
		return
	}
	b, err := p.builder.Find(r.Context(), sp)
	if err != nil {
		p.log.Error("the builder does not answer", "spec", sp.String(), "err", err)
		p.Message(w, http.StatusInternalServerError, "The builder does not answer", err.Error())
		return
	}
	if sum != "" && (b.State != StateDone || b.Sum != sum) {
		p.Message(w, http.StatusNotFound, "There is no such result",
			"The build "+sp.String()+" has no result with the sum "+sum+" in this server's log.")
		return
	}
	page := p.page(sp.Command()+" "+sp.Version, "", p.view(r, b))
	if b.State == StateQueued || b.State == StateBuilding {
		page.Refresh = 2
	}
	if b.State != StateDone {
		page.Live = "/-/events"
	}
	p.pages.Render(w, http.StatusOK, "build.html", page)
}

// A view is a build with what the page says about it.
type view struct {
	Build
	Log      Log
	Link     string // address of the result, with a trailing slash
	File     string
	Sentence string
	Tone     string
	Sign     string
	Get      string // command lines
	Rebuild  string
	Base     string
}

func (p *Pages) view(r *http.Request, b Build) view {
	v := view{Build: b, Log: p.builder.Log(), Link: "/" + b.Spec.String(), File: b.Spec.FileName(), Base: p.cfg.Base}
	if b.Sum != "" {
		v.Link += b.Sum + "/"
	}
	if v.Base == "" {
		v.Base = "http://" + r.Host
		if r.TLS != nil || p.cfg.Security.HTTPS {
			v.Base = "https://" + r.Host
		}
	}
	v.Base = strings.TrimSuffix(v.Base, "/")
	switch b.State {
	case StateNew:
		v.Sentence, v.Sign = "Not built yet", "?"
	case StateQueued:
		v.Sentence, v.Tone, v.Sign = fmt.Sprintf("Waiting, position %d in the queue", b.Queue), "info", "…"
	case StateBuilding:
		v.Sentence, v.Tone, v.Sign = "Being built", "info", "…"
	case StateDone:
		v.Sentence, v.Tone, v.Sign = "Built", "good", "✓"
	default:
		v.Sentence, v.Tone, v.Sign = "Failed: "+b.Error, "bad", "!"
	}
	v.Get = fmt.Sprintf("upkeep get -builder %s -key '%s' -os %s -arch %s -go %s %s@%s",
		v.Base, v.Log.Key, b.Spec.GOOS, b.Spec.GOARCH, b.Spec.GoVersion, b.Spec.Package(), b.Spec.Version)
	v.Rebuild = reproduce(b.Spec)
	return v
}

// reproduce is the command that makes the same binary, and its sum.
func reproduce(s spec.Spec) string {
	ldflags := "-buildid="
	if s.Stripped {
		ldflags += " -s"
	}
	return fmt.Sprintf("GOBIN= GOPATH=$PWD/gopath CGO_ENABLED=0 GOOS=%s GOARCH=%s GOTOOLCHAIN=%s GOWORK=off GOFLAGS= \\\n"+
		"  go install -trimpath -ldflags='%s' -- %s@%s\n"+
		"find gopath/bin -type f -exec sh -c 'printf 0; openssl dgst -sha256 -binary \"$1\" | head -c 20 | basenc --base64url | tr -d =' _ {} \\;",
		s.GOOS, s.GOARCH, s.GoVersion, ldflags, s.Package(), s.Version)
}
