package web

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Limits on requests. No form or API call of ours is near them.
const (
	MaxBody   = 64 << 10
	MaxHeader = 16 << 10
)

// csp allows our own files and nothing else: no inline script or style, no
// frames, and no way to make markup out of text in the script.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// Security says who may talk to a handler.
type Security struct {
	// Hosts are the names that the pages are reached under, without port.
	// "localhost", loopback addresses and the address that a connection came
	// in on are always among them.
	Hosts []string
	// HTTPS says that viewers reach the pages by TLS, also when a proxy in
	// front ends it.
	HTTPS bool
	Log   *slog.Logger
}

// Secure puts a handler behind the checks that every page needs: the Host
// must be ours (a foreign name that resolves to our address is DNS rebinding),
// requests that change something must come from our own pages, bodies are
// bounded, and the answer carries the headers that bind the browser.
func Secure(s Security, h http.Handler) http.Handler {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	hosts := map[string]bool{}
	for _, host := range s.Hosts {
		hosts[canonicalHost(host)] = true
	}
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Warn("refused a request from another site's page", "path", r.URL.Path,
			"origin", r.Header.Get("Origin"), "remote", r.RemoteAddr)
		http.Error(w, "Refused: this request comes from another site's page.", http.StatusForbidden)
	}))
	h = cross.Handler(h)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", csp)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("X-Frame-Options", "DENY")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		if s.HTTPS {
			head.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if !allowedHost(r, hosts) {
			log.Warn("refused a request for a host that is not ours", "host", r.Host, "remote", r.RemoteAddr)
			http.Error(w, fmt.Sprintf("Refused: %q is not a name of this server. If it should be one, add it to \"hosts\" in the configuration.", r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		if r.ContentLength > MaxBody {
			http.Error(w, fmt.Sprintf("Refused: the request's body is longer than %d bytes.", MaxBody), http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		h.ServeHTTP(w, r)
	})
}

// allowedHost says whether the request's Host is one of ours. An address that
// the connection came in on is safe: a page of another site has another name.
func allowedHost(r *http.Request, hosts map[string]bool) bool {
	host := canonicalHost(r.Host)
	if host == "localhost" || hosts[host] {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if addr.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	ap, err := netip.ParseAddrPort(local.String())
	return err == nil && ap.Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
}

// canonicalHost is the name or address in a Host header, without port.
func canonicalHost(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// NewServer returns a server with limits on header size and on slow clients.
// There is no limit on the time of an answer, since events are streams;
// handlers bound their own work.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    MaxHeader,
	}
	if log != nil {
		srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	return srv
}
