// Package servicepage serves the web pages and the JSON API of a supervisor.
//
// It shows what a [supervisor.Controller] says and passes on what people ask
// for; it decides nothing. Nothing in a request is trusted (see package web),
// and neither is the text of versions, reasons and log lines, which come from
// other people's programs. Only POST changes something, and whoever may POST
// may replace the running program by any version that the log vouches for.
//
// Values come from the address or from a form's plain encoding, never from
// multipart bodies, whose parser is not even linked: r.FormValue would do that.
//
// There are no files on disk.
package servicepage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/login"
)

// logLines is how many of the service's last lines the pages show.
const logLines = 200

// Bounds on what an action can name.
const maxVersion, maxGoVersion = 200, 40

// pause is the least time between two events to one viewer.
const pause = 300 * time.Millisecond

// Config says how the pages are served.
type Config struct {
	Security web.Security
	Metrics  http.Handler // for /metrics; nil = elsewhere
	Builder  string       // base address of the build service, for links; may be empty
	// ReleaseNotes is the address of a version's release notes, with
	// "{version}" where the version goes. Empty: the module's repository at
	// one of the well-known hosts, else no link.
	ReleaseNotes string
	Login        *login.Gate // nil = everybody who reaches the address may do everything
	Version      bool        // serve /version without a login
	Settings     Settings    // nil = the configuration is not shown
	EditSettings bool        // it may be changed as well, by people with a session
	Log          *slog.Logger

	prefix string // of every address, when the pages are a part of a host's
}

type server struct {
	cfg Config
	ctl supervisor.Controller
	log *slog.Logger
	now func() time.Time

	notices notices
}

// New returns the handler of all pages and of the API.
func New(cfg Config, ctl supervisor.Controller) http.Handler {
	return guard(cfg, newServer(cfg, ctl).routes())
}

// guard puts pages behind the login and the checks of package web.
func guard(cfg Config, h http.Handler) http.Handler {
	if cfg.Login != nil {
		h = cfg.Login.Wrap(h)
	}
	if cfg.Security.Log == nil {
		cfg.Security.Log = cfg.Log
	}
	return web.Secure(cfg.Security, h)
}

func newServer(cfg Config, ctl supervisor.Controller) *server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &server{cfg: cfg, ctl: ctl, log: cfg.Log, now: time.Now}
}

// path is the address of a page.
func (s *server) path(p string) string { return s.cfg.prefix + p }

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /history", s.history)
	mux.HandleFunc("GET /log", s.serviceLog)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /changes", s.showChanges)
	mux.HandleFunc("GET /schedule", s.schedule)
	mux.HandleFunc("POST /action", s.action)
	mux.HandleFunc("POST /notify", s.notify)
	mux.Handle("GET /static/", web.Static())
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	if s.cfg.Settings != nil {
		mux.HandleFunc("GET /config", s.showSettings)
		mux.HandleFunc("POST /config", s.saveSettings)
	}
	if s.cfg.Version {
		mux.HandleFunc("GET /version", s.version)
	}
	s.api(mux)
	mux.HandleFunc("/", s.notFound)
	return mux
}

// status asks the engine; when it does not answer the page says so itself.
func (s *server) status(w http.ResponseWriter, r *http.Request) (supervisor.Status, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	st, err := s.ctl.Status(ctx)
	if err != nil {
		s.message(w, r, http.StatusServiceUnavailable, "The supervisor does not answer", err.Error())
		return st, false
	}
	return st, true
}

func (s *server) page(r *http.Request, title, live string, main templ.Component) web.Page {
	p := web.Page{Title: title, Program: "upkeep", Live: live, Main: main}
	if login.HasSession(r.Context()) {
		p.User = login.Name(r.Context())
	}
	links := []web.Link{{Href: "/", Text: "Overview"}, {Href: "/history", Text: "History"}, {Href: "/log", Text: "Service log"}}
	if s.cfg.Settings != nil {
		links = append(links, web.Link{Href: "/config", Text: "Configuration"})
	}
	for _, l := range links {
		l.Current = l.Href == r.URL.Path
		l.Href = s.path(l.Href)
		p.Nav = append(p.Nav, l)
	}
	if s.cfg.Metrics != nil {
		p.Nav = append(p.Nav, web.Link{Href: "/metrics", Text: "Metrics"})
	}
	return p
}

// message is a page that says one thing.
func (s *server) message(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	web.Render(s.log, w, status, s.page(r, title, "", s.messageMain(title, text)))
}

func (s *server) overview(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	v := s.view(st, s.ctl.Logs(12))
	p := s.page(r, v.Sentence, s.path("/events"), s.overviewMain(&v))
	// Without the script the page is loaded again by itself, often while an
	// update runs.
	p.Refresh = 60
	if st.Update != nil || st.Self.Update != nil {
		p.Refresh = 2
	}
	web.Render(s.log, w, http.StatusOK, p)
}

func (s *server) serviceLog(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	p := s.page(r, "Service log", s.path("/events"), logMain(st.Service.Name, s.ctl.Logs(logLines)))
	p.Refresh = 10
	web.Render(s.log, w, http.StatusOK, p)
}

func (s *server) events(w http.ResponseWriter, r *http.Request) {
	web.ServeChanges(w, r, s.ctl.Watch(r.Context()), pause)
}

// version says which version runs, for monitoring and for inventories.
func (s *server) version(w http.ResponseWriter, r *http.Request) {
	st, err := s.ctl.Status(r.Context())
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Module    string `json:"module"`
		Version   string `json:"version"`
		GoVersion string `json:"go_version"`
	}{st.Service.Module, st.Service.Version, st.Service.GoVersion})
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	s.message(w, r, http.StatusNotFound, "There is no such page", "The address "+r.URL.Path+" is none of this supervisor's.")
}

// do asks the engine for an action and says how an error is to be answered.
func (s *server) do(ctx context.Context, a supervisor.Action) (int, error) {
	if !knownVerbs[a.Verb] {
		return http.StatusBadRequest, fmt.Errorf("there is no action %.40q", a.Verb)
	}
	if a.Verb == supervisor.VerbSchedule && a.At.IsZero() {
		return http.StatusBadRequest, errors.New("schedule needs a time")
	}
	if len(a.Version) > maxVersion || len(a.GoVersion) > maxGoVersion || len(a.Reason) > 500 {
		return http.StatusBadRequest, errors.New("a version, a Go version or a reason is too long")
	}
	err := s.ctl.Do(ctx, a)
	var refused *supervisor.RefusedError
	switch {
	case errors.As(err, &refused):
		return http.StatusConflict, err
	case err != nil:
		return http.StatusInternalServerError, err
	}
	s.log.Info("action asked for on the web page", "verb", a.Verb, "version", a.Version, "by", a.By)
	return http.StatusAccepted, nil
}
