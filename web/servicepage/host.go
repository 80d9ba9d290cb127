package servicepage

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/a-h/templ"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/login"
)

// A Service is one of several supervised services on a host.
type Service struct {
	Name string // on the front page; also in addresses, as far as it fits there
	supervisor.Controller
	Builder      string // as in [Config]
	ReleaseNotes string
}

// NewHost returns the pages of several services: a front page that lists them
// all, and below /s/<name>/ the pages and the API of each. Settings and
// Metrics of the configuration are not used; they are each supervisor's own.
func NewHost(cfg Config, services []Service) http.Handler {
	cfg.Settings, cfg.Metrics, cfg.Version = nil, nil, false
	h := &host{services: services, front: newServer(cfg, nil)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.list)
	mux.HandleFunc("GET /events", h.events)
	mux.HandleFunc("GET /api/v1/services", h.api)
	mux.Handle("GET /static/", web.Static())
	taken := map[string]bool{}
	for _, svc := range services {
		path := hostPrefix + slug(svc.Name, taken)
		h.paths = append(h.paths, path)
		sub := cfg
		sub.prefix, sub.Builder, sub.ReleaseNotes = path, svc.Builder, svc.ReleaseNotes
		mux.Handle(sub.prefix+"/", http.StripPrefix(sub.prefix, newServer(sub, svc.Controller).routes()))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		const title = "There is no such page"
		web.Render(h.front.log, w, http.StatusNotFound, h.page(r, title, "", h.front.messageMain(title, "The address "+r.URL.Path+" is none of this server's.")))
	})
	return guard(cfg, mux)
}

// hostPrefix starts the address of each service.
const hostPrefix = "/s/"

// slug makes a part of an address out of a name, another one for each service.
func slug(name string, taken map[string]bool) string {
	s := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '-'
	}, name)
	for try, i := s, 2; ; i++ {
		if try != "" && !taken[try] {
			taken[try] = true
			return try
		}
		try = fmt.Sprintf("%s-%d", s, i)
	}
}

type host struct {
	services []Service
	paths    []string // of the services
	front    *server
}

func (h *host) page(r *http.Request, title, live string, main templ.Component) web.Page {
	p := web.Page{Title: title, Program: "upkeep", Live: live, Main: main, Refresh: 10}
	p.Nav = []web.Link{{Href: "/", Text: "Services", Current: r.URL.Path == "/"}}
	if login.HasSession(r.Context()) {
		p.User = login.Name(r.Context())
	}
	return p
}

// An entry is one service on the front page and in the API.
type entry struct {
	Name   string             `json:"name"`
	Status *supervisor.Status `json:"status,omitempty"`
	Error  string             `json:"error,omitempty"` // why its supervisor can't be asked
	Href   string             `json:"-"`
	Slug   string             `json:"-"` // for ids in the page
	View   view               `json:"-"`
}

// A hostView is the front page.
type hostView struct {
	Sentence, Tone string
	Services       []entry
}

func (v hostView) sign() string {
	if v.Tone == "good" {
		return "✓"
	}
	return "!"
}

// ask asks all supervisors at once. One that hangs delays the page by a few
// seconds only.
func (h *host) ask(ctx context.Context) []entry {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list := make([]entry, len(h.services))
	var wg sync.WaitGroup
	for i, svc := range h.services {
		wg.Go(func() {
			e := entry{Name: svc.Name, Href: h.paths[i], Slug: strings.TrimPrefix(h.paths[i], hostPrefix)}
			st, err := svc.Status(ctx)
			if err != nil {
				e.Error = err.Error()
				e.View.Sentence, e.View.Tone, e.View.Sign = textNoSupervisor, "bad", "!"
			} else {
				e.Status, e.View = &st, h.front.view(st, nil)
			}
			list[i] = e
		})
	}
	wg.Wait()
	return list
}

func (h *host) list(w http.ResponseWriter, r *http.Request) {
	list := h.ask(r.Context())
	good := 0
	for _, e := range list {
		if e.Status != nil && e.Status.Code == supervisor.CodeCurrent {
			good++
		}
	}
	v := hostView{Sentence: fmt.Sprintf("%d of %d services up to date", good, len(list)), Tone: "good", Services: list}
	if good < len(list) {
		v.Tone = "warn"
	}
	web.Render(h.front.log, w, http.StatusOK, h.page(r, v.Sentence, "/events", hostMain(v)))
}

func (h *host) api(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Services []entry `json:"services"`
	}{h.ask(r.Context())})
}

// watchAgain is how long a supervisor that went away is left alone.
const watchAgain = 3 * time.Second

func tell(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default: // told already
	}
}

// events tells of changes of any service.
func (h *host) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	changed := make(chan struct{}, 1)
	for _, svc := range h.services {
		go func() {
			// The watch of a supervisor that stops ends; it may start again.
			for ctx.Err() == nil {
				for range svc.Watch(ctx) {
					tell(changed)
					if ctx.Err() != nil {
						return
					}
				}
				select {
				case <-ctx.Done():
				case <-time.After(watchAgain):
					tell(changed)
				}
			}
		}()
	}
	web.ServeChanges(w, r, changed, pause)
}
