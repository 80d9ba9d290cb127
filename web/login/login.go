// Package login keeps everybody out of the pages who has not logged in.
//
// People log in with a password and get a cookie; programs carry a token in
// the Authorization header, bound to a scope. A proxy in front may vouch for
// people with a header, if it is configured to and connects from a listed
// address. Nobody else is trusted: guesses are throttled, per address and
// altogether, before any work is done for them.
//
// The file given in [Config] (JSON, mode 0600) holds the users with argon2id
// hashes of their passwords and the tokens with their SHA-256. It is read
// again when it changes; when it cannot be read nobody gets in. Sessions are
// in memory only.
package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/web"
)

// Config says who may use the pages.
type Config struct {
	File    string   // users and tokens, see [Access]
	Header  string   // name of the header in which a proxy says who it is; "" = none
	Proxies []string // addresses or networks of those proxies
	HTTPS   bool     // the pages are reached by TLS
	Open    []string // paths that need no login, for example "/version"
	Program string   // for the title of the login page
	Log     *slog.Logger
}

// A Gate lets people and programs in.
type Gate struct {
	cfg      Config
	proxies  []netip.Prefix
	log      *slog.Logger
	now      func() time.Time
	throttle throttle
	sessions sessions
	hashing  chan struct{} // one password at a time: each takes 64 MB

	mu     sync.Mutex
	access Access
	err    error // why the file could not be read
	stamp  fileStamp
}

type fileStamp struct {
	size int64
	time time.Time
}

// New returns a gate. A file that is missing, or has nobody in it, is an error:
// a gate that nobody can pass is a mistake.
func New(cfg Config) (*Gate, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{cfg: cfg, log: cfg.Log, now: time.Now, hashing: make(chan struct{}, 1)}
	for _, text := range cfg.Proxies {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, err
		}
		g.proxies = append(g.proxies, p)
	}
	if (cfg.Header == "") != (len(g.proxies) == 0) {
		return nil, errors.New("a header that names the user and the proxies that may send it need each other: set both or none")
	}
	access, err := g.current()
	if err != nil {
		return nil, err
	}
	if len(access.Users) == 0 && cfg.Header == "" {
		return nil, fmt.Errorf("nobody can log in: %s has no user; set a password with \"upkeep passwd\"", cfg.File)
	}
	return g, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// current returns who may use the pages, from the file as it is now.
func (g *Gate) current() (Access, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var stamp fileStamp
	if fi, err := os.Stat(g.cfg.File); err == nil {
		stamp = fileStamp{fi.Size(), fi.ModTime()}
	}
	if stamp != g.stamp || g.err != nil || stamp == (fileStamp{}) {
		g.access, g.err = ReadAccess(g.cfg.File)
		g.stamp = stamp
		if g.err != nil {
			g.log.Error("nobody can log in", "err", g.err)
		}
	}
	return g.access, g.err
}

// A who is who makes a request.
type who struct {
	name    string
	scope   Scope // of a token; people may do everything
	session bool
}

type key struct{}

// Name returns who makes the request, "" without a login.
func Name(ctx context.Context) string {
	w, _ := ctx.Value(key{}).(who)
	return w.name
}

// HasSession says whether the request is somebody's who can log out.
func HasSession(ctx context.Context) bool {
	w, _ := ctx.Value(key{}).(who)
	return w.session
}

// Wrap puts a handler behind the gate. It answers /login and /logout itself.
// It belongs inside [web.Secure], which refuses foreign pages' forms.
func (g *Gate) Wrap(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", g.form)
	mux.HandleFunc("POST /login", g.login)
	mux.HandleFunc("POST /logout", g.logout)
	mux.Handle("GET /static/", h)
	for _, path := range g.cfg.Open {
		mux.Handle("GET "+path, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		who, ok := g.identify(r)
		if !ok {
			g.refuse(w, r)
			return
		}
		if !who.may(r) {
			http.Error(w, fmt.Sprintf("Refused: the token %q has the scope %q, which is not for this.", who.name, who.scope), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, who)))
	})
	return mux
}

// may says whether the scope of a token covers a request.
func (w who) may(r *http.Request) bool {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch w.scope {
	case "", ScopeAct:
		return true
	case ScopeRead:
		return reads
	case ScopeMetrics:
		return reads && r.URL.Path == "/metrics"
	case ScopeNotify:
		return r.Method == http.MethodPost && forPrograms(r) && strings.HasSuffix(r.URL.Path, "/notify")
	}
	return false
}

// forPrograms reports whether only programs, not people, make such requests.
func forPrograms(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/api/") || strings.HasSuffix(r.URL.Path, "/notify")
}

func (g *Gate) identify(r *http.Request) (who, bool) {
	if g.cfg.Header != "" && g.fromProxy(r) {
		if name := r.Header.Get(g.cfg.Header); CheckName(name) == nil {
			return who{name: name}, true
		}
	}
	access, err := g.current()
	if err != nil {
		return who{}, false
	}
	if auth := r.Header.Get("Authorization"); auth != "" {
		text, ok := strings.CutPrefix(auth, "Bearer ")
		if !ok {
			return who{}, false
		}
		t, ok := access.token(text)
		return who{name: t.Name, scope: t.Scope}, ok
	}
	c, err := r.Cookie(g.cookieName(r))
	if err != nil {
		return who{}, false
	}
	user, ok := g.sessions.user(c.Value, &access, g.now())
	return who{name: user, session: true}, ok
}

func (g *Gate) fromProxy(r *http.Request) bool {
	addr := remote(r)
	for _, p := range g.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// refuse leads people to the login page and tells programs.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
		next := ""
		if r.URL.Path != "/" {
			next = "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, "/login"+next, http.StatusSeeOther)
		return
	}
	if r.Method == http.MethodPost && !forPrograms(r) {
		g.page(w, http.StatusUnauthorized, "Your session is over. Log in; what you asked for was not done.", "/")
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": "no login: send a token in the Authorization header"}) // gone viewer
}

// cookieName differs by port: browsers share cookies between the ports of a
// host, and several supervisors on one host have a login each.
func (g *Gate) cookieName(r *http.Request) string {
	name := "upkeep_session"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		name += "_" + port
	}
	if g.cfg.HTTPS {
		return "__Host-" + name
	}
	return name
}

func (g *Gate) form(w http.ResponseWriter, r *http.Request) {
	if _, ok := g.identify(r); ok {
		http.Redirect(w, r, localPath(r.URL.Query().Get("next")), http.StatusSeeOther)
		return
	}
	g.page(w, http.StatusOK, "", r.URL.Query().Get("next"))
}

func (g *Gate) page(w http.ResponseWriter, status int, problem, next string) {
	web.Render(g.log, w, status, web.Page{Title: "Log in", Program: g.cfg.Program, Main: loginMain(problem, localPath(next))})
}

// localPath keeps a redirect on this server.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func (g *Gate) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		g.page(w, http.StatusBadRequest, "The form could not be read.", "/")
		return
	}
	name, password, next := r.PostForm.Get("name"), r.PostForm.Get("password"), r.PostForm.Get("next")
	addr := remote(r)
	if wait, ok := g.throttle.allow(addr, g.now()); !ok {
		g.failed(addr)
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
		g.page(w, http.StatusTooManyRequests, "Too many attempts. Wait for "+waitText(wait)+".", next)
		return
	}
	access, err := g.current()
	if err != nil {
		g.page(w, http.StatusServiceUnavailable, "Nobody can log in now; the reason is in the log of the supervisor.", next)
		return
	}
	select {
	case g.hashing <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	hash := access.password(name)
	ok := checkPassword(hash, password)
	<-g.hashing
	if !ok {
		g.failed(addr)
		g.page(w, http.StatusUnauthorized, "The name or the password is not right.", next)
		return
	}
	g.throttle.good(addr, g.now())
	g.log.Info("login", "user", name, "remote", addr)
	http.SetCookie(w, &http.Cookie{
		Name: g.cookieName(r), Value: g.sessions.begin(name, hash, g.now()), Path: "/", MaxAge: int(maxAge.Seconds()),
		HttpOnly: true, Secure: g.cfg.HTTPS, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, r, localPath(next), http.StatusSeeOther)
}

func waitText(d time.Duration) string {
	if d > 90*time.Second {
		return fmt.Sprintf("%d minutes", int(d.Minutes())+1)
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds())+1)
}

// failed logs that guesses fail, once an hour.
func (g *Gate) failed(addr netip.Addr) {
	if n, ok := g.throttle.bad(g.now()); ok {
		g.log.Warn("failed logins; the next line comes in an hour at the earliest", "count", n, "last", addr)
	}
}

func (g *Gate) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(g.cookieName(r)); err == nil {
		g.sessions.end(c.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookieName(r), Path: "/", MaxAge: -1, HttpOnly: true, Secure: g.cfg.HTTPS, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
