package login

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cheap keeps the tests fast; the format is the same.
var cheap = params{memory: 64, time: 1, threads: 1}

const password = "correct horse battery"

// Guesses for unknown names are as expensive as others, which tests need not wait for.
var realNobody = nobody

func init() {
	nobody = hashWith("nobody's", cheap)
}

type world struct {
	*Gate
	file  string
	h     http.Handler
	clock time.Time
	log   *strings.Builder
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{file: filepath.Join(t.TempDir(), "access.json"), clock: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), log: &strings.Builder{}}
	a := Access{Users: []User{{"admin", hashWith(password, cheap)}}}
	for _, scope := range Scopes {
		a.Tokens = append(a.Tokens, Token{Name: "t-" + string(scope), Scope: scope, Hash: hashToken(tokenPrefix + string(scope))})
	}
	if err := a.Write(w.file); err != nil {
		t.Fatal(err)
	}
	cfg := Config{File: w.file, Open: []string{"/version"}, Program: "upkeep", Log: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Gate = g
	g.now = func() time.Time { return w.clock }
	w.h = g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "inside as %q %v", Name(r.Context()), HasSession(r.Context()))
	}))
	return w
}

func (w *world) do(r *http.Request) *http.Response {
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	return rec.Result()
}

func (w *world) login(name, pass, from string) *http.Response {
	r := httptest.NewRequest("POST", "http://localhost:8300/login", strings.NewReader(url.Values{"name": {name}, "password": {pass}, "next": {"/history?q=1"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = from + ":999"
	return w.do(r)
}

func get(path string, c ...*http.Cookie) *http.Request {
	r := httptest.NewRequest("GET", "http://localhost:8300"+path, nil)
	r.Header.Set("Accept", "text/html")
	for _, c := range c {
		r.AddCookie(c)
	}
	return r
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogin(t *testing.T) {
	w := newWorld(t, nil)
	r := w.do(get("/history?q=1"))
	if r.StatusCode != 303 || r.Header.Get("Location") != "/login?next=%2Fhistory%3Fq%3D1" {
		t.Fatalf("without a login: status %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	if r := w.do(get("/login?next=/history")); r.StatusCode != 200 || !strings.Contains(body(t, r), `value="/history"`) {
		t.Error("no login page")
	}
	for _, bad := range [][2]string{{"admin", "wrong password"}, {"admin", ""}, {"", ""}, {"ADMIN", password}, {"nobody", password}, {"admin", strings.Repeat("x", 5000)}} {
		w.clock = w.clock.Add(time.Hour)
		if r := w.login(bad[0], bad[1], "192.0.2.1"); r.StatusCode != 401 || len(r.Cookies()) != 0 {
			t.Errorf("%q %.20q: status %d", bad[0], bad[1], r.StatusCode)
		}
	}
	r = w.login("admin", password, "192.0.2.1")
	if r.StatusCode != 303 || r.Header.Get("Location") != "/history?q=1" || len(r.Cookies()) != 1 {
		t.Fatalf("status %d to %q, cookies %v", r.StatusCode, r.Header.Get("Location"), r.Cookies())
	}
	c := r.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Name != "upkeep_session_8300" {
		t.Errorf("cookie %+v", c)
	}
	if got := body(t, w.do(get("/", c))); got != `inside as "admin" true` {
		t.Error(got)
	}
	if r := w.do(get("/login", c)); r.StatusCode != 303 {
		t.Errorf("the login page when logged in: status %d", r.StatusCode)
	}
	// Another value of the cookie is nobody's.
	first := "x"
	if c.Value[0] == 'x' {
		first = "y"
	}
	if r := w.do(get("/", &http.Cookie{Name: c.Name, Value: first + c.Value[1:]})); r.StatusCode != 303 {
		t.Errorf("forged cookie: status %d", r.StatusCode)
	}
	out := httptest.NewRequest("POST", "http://localhost:8300/logout", nil)
	out.AddCookie(c)
	if r := w.do(out); r.StatusCode != 303 {
		t.Errorf("logout: status %d", r.StatusCode)
	}
	if r := w.do(get("/", c)); r.StatusCode != 303 {
		t.Errorf("after logout: status %d", r.StatusCode)
	}
}

func TestSessionsEnd(t *testing.T) {
	w := newWorld(t, nil)
	begin := func() *http.Cookie {
		t.Helper()
		r := w.login("admin", password, "192.0.2.1")
		if len(r.Cookies()) != 1 {
			t.Fatalf("status %d", r.StatusCode)
		}
		return r.Cookies()[0]
	}
	inside := func(c *http.Cookie) bool { return w.do(get("/", c)).StatusCode == 200 }

	c := begin()
	w.clock = w.clock.Add(maxIdle + time.Second)
	if inside(c) {
		t.Error("an idle session goes on")
	}
	c = begin()
	for range 15 {
		w.clock = w.clock.Add(maxIdle - time.Second)
		if w.clock.Sub(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)) < maxAge-24*time.Hour && !inside(c) {
			t.Fatal("a session in use ended")
		}
		inside(c)
	}
	if inside(c) {
		t.Error("a session goes on for ever")
	}
	c = begin()
	a := Access{Users: []User{{"admin", hashWith("another password", cheap)}}}
	if err := a.Write(w.file); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(w.file, time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if inside(c) {
		t.Error("a session survives the change of the password")
	}
	// Form posts of an ended session are told so, not just sent away.
	r := httptest.NewRequest("POST", "http://localhost:8300/action", nil)
	r.AddCookie(c)
	if resp := w.do(r); resp.StatusCode != 401 || !strings.Contains(body(t, resp), "Your session is over") {
		t.Errorf("post: status %d", resp.StatusCode)
	}
}

func TestSessionLimit(t *testing.T) {
	var s sessions
	now := time.Now()
	first := s.begin("admin", "h", now)
	for i := range maxSessions {
		s.begin("admin", "h", now.Add(time.Duration(i+1)*time.Second))
	}
	if len(s.all) != maxSessions {
		t.Errorf("%d sessions", len(s.all))
	}
	if _, ok := s.all[hashToken(first)]; ok {
		t.Error("the oldest session stayed")
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t, nil)
	tests := []struct {
		auth, method, path string
		want               int
	}{
		{"Bearer " + tokenPrefix + "read", "GET", "/api/v1/status", 200},
		{"Bearer " + tokenPrefix + "read", "HEAD", "/metrics", 200},
		{"Bearer " + tokenPrefix + "read", "POST", "/api/v1/actions", 403},
		{"Bearer " + tokenPrefix + "read", "DELETE", "/api/v1/status", 403},
		{"Bearer " + tokenPrefix + "act", "POST", "/api/v1/actions", 200},
		{"Bearer " + tokenPrefix + "metrics", "GET", "/metrics", 200},
		{"Bearer " + tokenPrefix + "metrics", "GET", "/api/v1/status", 403},
		{"Bearer " + tokenPrefix + "metrics", "POST", "/metrics", 403},
		{"Bearer " + tokenPrefix + "unknown", "GET", "/api/v1/status", 401},
		{"Bearer ", "GET", "/api/v1/status", 401},
		{"Basic YW5uYTp4", "GET", "/api/v1/status", 401},
		{"", "GET", "/api/v1/status", 401},
		{"", "POST", "/api/v1/actions", 401},
		{"", "GET", "/metrics", 401},
		{"", "GET", "/version", 200},
		{"", "GET", "/static/upkeep.css", 200},
		{"", "POST", "/version", 401},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, "http://localhost:8300"+tt.path, nil)
		if tt.auth != "" {
			r.Header.Set("Authorization", tt.auth)
		}
		if resp := w.do(r); resp.StatusCode != tt.want {
			t.Errorf("%s %s with %q: status %d, want %d", tt.method, tt.path, tt.auth, resp.StatusCode, tt.want)
		}
	}
}

func TestThrottleOneAddress(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 24_000 {
		r := w.login("admin", "a wrong guess", "192.0.2.1")
		if want := 401; i < addrSize && r.StatusCode != want || i >= addrSize && r.StatusCode != 429 {
			t.Fatalf("guess %d: status %d", i, r.StatusCode)
		}
		if i >= addrSize && r.Header.Get("Retry-After") == "" {
			t.Fatal("no Retry-After")
		}
		if i > 200 { // the rest costs only time: none of them reaches the password
			break
		}
	}
	for range 24_000 {
		w.failed(netip.MustParseAddr("192.0.2.1"))
	}
	if n := strings.Count(w.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, w.log)
	}
	// Even the right password waits now, from there; not from elsewhere.
	if r := w.login("admin", password, "192.0.2.1"); r.StatusCode != 429 {
		t.Errorf("status %d", r.StatusCode)
	}
	if r := w.login("admin", password, "192.0.2.2"); r.StatusCode != 303 {
		t.Errorf("another address: status %d", r.StatusCode)
	}
	w.clock = w.clock.Add(61 * time.Second)
	if r := w.login("admin", password, "192.0.2.1"); r.StatusCode != 303 {
		t.Errorf("a minute later: status %d", r.StatusCode)
	}
	w.clock = w.clock.Add(2 * time.Hour)
	w.login("admin", "a wrong guess", "192.0.2.3")
	if !strings.Contains(w.log.String(), "count=24203") {
		t.Errorf("the log:\n%s", w.log)
	}
}

func TestThrottleManyAddresses(t *testing.T) {
	var th throttle
	now := time.Now()
	th.good(netip.MustParseAddr("198.51.100.7"), now)
	allowed := 0
	for i := range 5000 {
		if _, ok := th.allow(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), now); ok {
			allowed++
		}
	}
	if allowed != globalSize {
		t.Errorf("%d guesses let through at once, want %d", allowed, globalSize)
	}
	if _, ok := th.allow(netip.MustParseAddr("198.51.100.7"), now); !ok {
		t.Error("others' guesses lock out somebody who logged in before")
	}
	if _, ok := th.allow(netip.MustParseAddr("10.9.9.9"), now.Add(2*time.Second+time.Millisecond)); !ok {
		t.Error("nobody new may try two seconds later")
	}
	for i := range 3 * maxAddrs {
		th.allow(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(th.addrs) > maxAddrs {
		t.Errorf("%d addresses in memory", len(th.addrs))
	}
}

func TestThrottleIPv6(t *testing.T) {
	var th throttle
	now := time.Now()
	for i := range addrSize + 1 {
		_, ok := th.allow(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), now)
		if ok != (i < addrSize) {
			t.Errorf("guess %d from one /64: %v", i, ok)
		}
	}
}

func TestProxyHeader(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Header, c.Proxies = "X-Remote-User", []string{"192.0.2.9", "10.0.0.0/8"} })
	for _, tt := range []struct {
		from, name string
		want       int
	}{
		{"192.0.2.9", "operator", 200}, {"10.2.3.4", "operator", 200}, {"192.0.2.8", "operator", 303}, {"192.0.2.9", "", 303}, {"192.0.2.9", "<b>", 303},
	} {
		r := get("/")
		r.RemoteAddr = tt.from + ":1"
		r.Header.Set("X-Remote-User", tt.name)
		if resp := w.do(r); resp.StatusCode != tt.want {
			t.Errorf("%s %q: status %d, want %d", tt.from, tt.name, resp.StatusCode, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"no file":            {File: filepath.Join(dir, "none")},
		"header, no proxy":   {File: filepath.Join(dir, "none"), Header: "X-User"},
		"proxy, no header":   {File: filepath.Join(dir, "none"), Proxies: []string{"127.0.0.1"}},
		"proxy, bad address": {File: filepath.Join(dir, "none"), Header: "X-User", Proxies: []string{"localhost"}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A file that becomes unreadable keeps everybody out until it is good again.
func TestFileFailsClosed(t *testing.T) {
	w := newWorld(t, nil)
	c := w.login("admin", password, "192.0.2.1").Cookies()[0]
	if err := os.WriteFile(w.file, []byte(`{"users":[{"name":"admin","password":"plain"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.do(get("/", c)); r.StatusCode != 303 {
		t.Errorf("status %d", r.StatusCode)
	}
	if r := w.login("admin", "plain", "192.0.2.1"); r.StatusCode != 503 {
		t.Errorf("status %d", r.StatusCode)
	}
}

func TestHash(t *testing.T) {
	// A value of the reference implementation (argon2 -id, "password", salt "somesalt").
	const known = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	if !checkPassword(known, "password") || checkPassword(known, "passwore") {
		t.Error("argon2id differs from the reference")
	}
	h, err := HashPassword(password)
	if err != nil || !checkPassword(h, password) || checkPassword(h, password+"x") || !strings.HasPrefix(h, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Errorf("%s %v", h, err)
	}
	for _, bad := range []string{"short", strings.Repeat("x", MaxPassword+1)} {
		if _, err := HashPassword(bad); err == nil {
			t.Errorf("%.10q was taken", bad)
		}
	}
	for _, bad := range []string{"", "plain", strings.Replace(known, "argon2id", "argon2i", 1), strings.Replace(known, "v=19", "v=16", 1),
		strings.Replace(known, "m=256", "m=4294967295", 1), strings.Replace(known, "t=2", "t=99", 1), strings.Replace(known, "p=1", "p=0", 1),
		strings.Replace(known, "m=256", "m=0256", 1), known + "$x", known[:len(known)-30], known + "=="} {
		if _, _, _, err := parseHash(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if checkPassword(bad, "password") {
			t.Errorf("%q fits", bad)
		}
	}
	if checkPassword(realNobody, "") || checkPassword(realNobody, password) {
		t.Error("a password fits nobody's hash")
	}
	if p, _, _, err := parseHash(realNobody); err != nil || p != defaultParams {
		t.Errorf("nobody's hash takes another time than people's: %+v %v", p, err)
	}
}

func TestAccessFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.json")
	var a Access
	if err := a.SetUser("admin", password); err != nil {
		t.Fatal(err)
	}
	old := a.Users[0].Password
	if err := a.SetUser("admin", password); err != nil || len(a.Users) != 1 || a.Users[0].Password == old {
		t.Errorf("the same password again: %v %v", err, a.Users)
	}
	tok, err := a.AddToken("prometheus", ScopeMetrics, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddToken("prometheus", ScopeRead, time.Now()); err == nil {
		t.Error("two tokens of one name")
	}
	if _, err := a.AddToken("x", "everything", time.Now()); err == nil {
		t.Error("an unknown scope")
	}
	if err := a.SetUser("a b", password); err == nil {
		t.Error("a name with a space")
	}
	if err := a.Write(file); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v %v", fi.Mode(), err)
	}
	b, err := ReadAccess(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := b.token(tok); !ok || got.Name != "prometheus" || got.Scope != ScopeMetrics {
		t.Errorf("token %+v %v", got, ok)
	}
	data, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(data), tok) || strings.Contains(string(data), password) {
		t.Error("the file holds a secret in plain")
	}
	if err := b.RemoveToken("none"); err == nil {
		t.Error("removed a token that is not there")
	}
	if err := b.RemoveToken("prometheus"); err != nil {
		t.Error(err)
	}
	if err := b.RemoveUser("admin"); err != nil || len(b.Users) != 0 {
		t.Error(err)
	}
	if err := b.RemoveUser("admin"); err == nil {
		t.Error("removed a user twice")
	}
	good := a.Users[0].Password
	for name, text := range map[string]string{
		"not JSON": "{", "unknown field": `{"userz":[]}`, "bad hash": `{"users":[{"name":"a","password":"x"}]}`,
		"twice":     `{"users":[{"name":"a","password":"` + good + `"},{"name":"a","password":"` + good + `"}]}`,
		"bad name":  `{"users":[{"name":"a b","password":"` + good + `"}]}`,
		"bad token": `{"tokens":[{"name":"a","scope":"read","hash":"00"}]}`,
		"bad scope": `{"tokens":[{"name":"a","scope":"root","hash":"` + hashToken("x") + `"}]}`,
	} {
		if _, err := parseAccess([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"/history?q=1": "/history?q=1", "": "/", "//evil.example": "/", "https://evil.example/": "/", "/\\evil.example": "/",
		"\\evil": "/", "history": "/", "/\t/evil.example": "/", "javascript:alert(1)": "/", "http:/x": "/",
	} {
		if got := localPath(next); got != want {
			t.Errorf("localPath(%q) = %q, want %q", next, got, want)
		}
	}
}

// Many logins at once are looked at one after the other.
func TestConcurrentLogins(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if r := w.login("admin", password, fmt.Sprintf("192.0.2.%d", i)); r.StatusCode != 303 {
				t.Errorf("status %d", r.StatusCode)
			}
		})
	}
	wg.Wait()
}

func FuzzParseAccess(f *testing.F) {
	f.Add([]byte(`{"users":[{"name":"admin","password":"` + hashWith(password, cheap) + `"}],"tokens":[]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAccess(data)
		if err != nil {
			return
		}
		for _, u := range a.Users {
			if CheckName(u.Name) != nil {
				t.Errorf("name %q", u.Name)
			}
		}
	})
}
