package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
)

// ServeHTTP answers every request to the service. GET starts no build, but for
// events, opinions, lookups in the log and binaries that were removed; HEAD never.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	r = s.clients.identify(r, h)
	if !waits(r.URL.Path) {
		s.patience(w, 0)
	}
	// The connection's next request may be one that waits.
	defer func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) }()
	if len(r.URL.Path) > 4096 {
		s.pages.ServeError(w, r, http.StatusRequestURITooLong, "The address is too long.")
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/tlog/"); ok {
		s.serveLog(w, r, rest)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !(r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/retry")) {
		h.Set("Allow", "GET, HEAD")
		s.pages.ServeError(w, r, http.StatusMethodNotAllowed, "Only GET is answered here.")
		return
	}
	switch r.URL.Path {
	case "/":
		s.pages.ServeHome(w, r)
		return
	case "/favicon.ico":
		s.pages.ServeError(w, r, http.StatusNotFound, "There is none.")
		return
	case "/robots.txt":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, "User-agent: *\nDisallow: /*@\nDisallow: /tlog/\n")
		return
	}
	rt, err := parsePath(r.URL.Path)
	switch {
	case err != nil:
		s.pages.ServeError(w, r, http.StatusNotFound, sentence(printable(err.Error())))
	case rt.spec == (spec.Spec{}):
		s.serveModule(w, r, rt)
	case rt.slash:
		redirect(w, r, r.URL.Path+"/", http.StatusMovedPermanently)
	case !rt.spec.Exact():
		sp, err := rt.spec, s.clients.page(r)
		if err == nil {
			sp, err = s.resolve(r.Context(), rt.spec)
		}
		if err != nil {
			s.serveFailure(w, r, err)
			return
		}
		redirect(w, r, "/"+sp.String()+rt.suffix, http.StatusFound)
	default:
		s.serveSpec(w, r, rt)
	}
}

// waits reports whether an answer may have to wait for a build.
func waits(path string) bool {
	return strings.HasPrefix(path, "/tlog/lookup/") || strings.Contains(path, "@")
}

// Slow clients get their answer at this rate at least, or none.
const (
	slowest = 16 << 10 // bytes a second
	patient = time.Minute
)

// patience sets how long the client may take for an answer of so many bytes.
func (s *Service) patience(w http.ResponseWriter, size int64) {
	d := s.patient + time.Duration(size/slowest)*time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d)) // not every writer has a connection
}

// redirect sends to a path of ours.
func redirect(w http.ResponseWriter, r *http.Request, to string, status int) {
	w.Header().Set("Location", (&url.URL{Path: to, RawQuery: r.URL.RawQuery}).EscapedPath())
	if status == http.StatusFound || status == http.StatusTemporaryRedirect {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
}

// serveLog answers for the build log.
func (s *Service) serveLog(w http.ResponseWriter, r *http.Request, rest string) {
	if key, ok := strings.CutPrefix(rest, "lookup/"); ok && strings.Contains(key, spec.Latest) {
		if sp, err := spec.ParseRequest(key); err == nil && !sp.Exact() {
			err := s.clients.page(r)
			if err == nil {
				sp, err = s.resolve(r.Context(), sp)
			}
			if err != nil {
				retryAfter(w.Header(), err)
				status, text := s.statusOf(err)
				http.Error(w, text, status)
				return
			}
			redirect(w, r, "/tlog/lookup/"+sp.String(), http.StatusFound)
			return
		}
	}
	if key, ok := strings.CutPrefix(rest, "lookup/"); ok && r.Method == http.MethodHead {
		if _, ok := s.log.Find(key); !ok { // nobody would get what is built
			http.Error(w, "not found: no record for this key", http.StatusNotFound)
			return
		}
	}
	s.logHandler.ServeHTTP(w, r)
}

// statusOf returns status and text for an error of ours.
func (s *Service) statusOf(err error) (int, string) {
	f := failureOf(err)
	return f.HTTPStatus(), s.hide(f.Text)
}

func (s *Service) serveFailure(w http.ResponseWriter, r *http.Request, err error) {
	status, text := s.statusOf(err)
	retryAfter(w.Header(), err)
	if status >= 500 {
		s.logger.Warn("request failed", "path", r.URL.Path, "err", errors.Unwrap(err), "text", text)
	}
	s.pages.ServeError(w, r, status, text)
}

// serveModule answers for a module or a version of it.
func (s *Service) serveModule(w http.ResponseWriter, r *http.Request, rt route) {
	err := s.clients.page(r)
	var m ModuleInfo
	if err == nil {
		m, err = s.moduleInfo(r.Context(), rt.module, rt.version, r.UserAgent())
	}
	if err != nil {
		s.serveFailure(w, r, err)
		return
	}
	if len(m.Commands) == 1 || rt.version != "" && m.Commands[0].Dir == "" {
		sp := spec.Spec{Module: m.Module, Version: m.Version, Dir: m.Commands[0].Dir, GOOS: m.GOOS, GOARCH: m.GOARCH, GoVersion: m.GoVersion}
		redirect(w, r, "/"+sp.String(), http.StatusFound)
		return
	}
	s.patience(w, maxOutput)
	s.pages.ServeModule(w, r, m)
}

// serveSpec answers for a build.
func (s *Service) serveSpec(w http.ResponseWriter, r *http.Request, rt route) {
	switch {
	case rt.suffix == "events":
		s.serveEvents(w, r, rt.spec)
		return
	case rt.suffix == "opinion" && rt.sum == "":
		s.serveOpinion(w, r, rt.spec)
		return
	case rt.suffix == "retry":
		s.serveRetry(w, r, rt.spec)
		return
	}
	s.patience(w, maxOutput)
	res, err := s.Result(rt.spec)
	if err != nil {
		s.serveFailure(w, r, err)
		return
	}
	switch {
	case rt.sum != "" && (res.State != StateSuccess || res.Sum != rt.sum):
		s.pages.ServeError(w, r, http.StatusNotFound, "There is no build with this sum.")
	case rt.sum == "" && res.State == StateSuccess:
		redirect(w, r, res.URL()+rt.suffix, http.StatusFound)
	case rt.suffix == "":
		s.pages.ServeResult(w, r, res)
	case rt.suffix == "log":
		s.serveOutput(w, r, res)
	case res.State != StateSuccess:
		text := "This was not built yet."
		if res.Error != "" {
			text = res.Error
		}
		s.pages.ServeError(w, r, http.StatusNotFound, text)
	case rt.suffix == "record":
		s.serveRecord(w, r, res)
	case rt.suffix == "dl":
		redirect(w, r, res.URL()+res.Spec.FileName(), http.StatusTemporaryRedirect)
	default:
		s.serveFile(w, r, res, rt.suffix)
	}
}

// serveRecord sends the record with what is known besides. The record never
// changes; who agreed can become known later, and does so in caches as well.
func (s *Service) serveRecord(w http.ResponseWriter, r *http.Request, res Result) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if res.SHA256 != "" {
		h.Set("X-Upkeep-Sha256", res.SHA256)
	}
	agreed := agreedHeader(res.Agreed)
	if agreed != "" {
		h.Set("X-Upkeep-Agreed", agreed)
	}
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(res.SHA256+res.Sum+agreed))))
	if len(res.Pending) == 0 {
		immutable(w)
	} else {
		h.Set("Cache-Control", "public, max-age=60")
	}
	rec := spec.Record{Spec: res.Spec, Size: res.Size, Sum: res.Sum}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(rec.Line()))
}

// agreedHeader is the list of verifiers for programs: names of logs with the
// numbers of their records.
func agreedHeader(list []Agreement) string {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", a.Name, a.LogID)
	}
	return b.String()
}

func immutable(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
}

func (s *Service) serveOutput(w http.ResponseWriter, r *http.Request, res Result) {
	out, err := s.Output(res.Spec)
	if err != nil {
		s.serveFailure(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if res.State == StateSuccess {
		immutable(w)
	}
	for _, l := range out {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return // the client went away
		}
	}
}

// serveFile sends a binary, plain or compressed.
func (s *Service) serveFile(w http.ResponseWriter, r *http.Request, res Result, name string) {
	sp := res.Spec
	base, f := name, plain
	if b, ok := strings.CutSuffix(name, ".gz"); ok {
		base, f = b, gzipped
	}
	// Programs of a major version are served under the command's name as well.
	alias := sp.Command() + strings.TrimPrefix(sp.FileName(), path.Base(sp.Package()))
	if base != sp.FileName() && base != alias {
		s.pages.ServeError(w, r, http.StatusNotFound, "The binary's name is "+sp.FileName()+".")
		return
	}
	h := w.Header()
	if res.Removed && r.Method == http.MethodHead {
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Cache-Control", "no-store")
		return
	}
	if res.Removed {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // it is built first
		again, err := s.follow(r.Context(), sp, ClientOf(r), func(Event) error { return nil })
		if err == nil && (again.State != StateSuccess || again.Sum != res.Sum) {
			err = &Failure{Text: "The binary is not stored any more, and building it again failed: " + again.Error, Status: again.status}
		}
		if err != nil {
			s.serveFailure(w, r, err)
			return
		}
		res = again
	}
	if f == plain {
		h.Add("Vary", "Accept-Encoding")
		if r.Header.Get("Range") == "" {
			switch {
			case accepts(r, "zstd"):
				f = zstded
				h.Set("Content-Encoding", "zstd")
			case accepts(r, "gzip"):
				f = gzipped
				h.Set("Content-Encoding", "gzip")
			}
		}
	}
	file, err := s.blobs.open(res.SHA256, f)
	if err != nil && h.Get("Content-Encoding") != "" {
		// There may be no room for another form; the binary itself is there.
		if whole, plainErr := s.blobs.open(res.SHA256, plain); plainErr == nil {
			s.logger.Warn("a binary is sent uncompressed", "err", err)
			h.Del("Content-Encoding")
			file, f, err = whole, plain, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		h.Del("Content-Encoding")
		s.pages.ServeError(w, r, http.StatusNotFound, "The binary is not stored here any more.")
		return
	}
	if err != nil {
		h.Del("Content-Encoding")
		s.serveFailure(w, r, err)
		return
	}
	defer file.Close()
	s.patience(w, res.Size)
	h.Set("Content-Type", "application/octet-stream")
	if strings.HasSuffix(name, ".gz") {
		h.Set("Content-Type", "application/gzip")
	}
	h.Set("ETag", `"`+res.SHA256+string(f)+`"`)
	h.Set("X-Upkeep-Sha256", res.SHA256)
	h.Set("Content-Disposition", "attachment; filename="+strconv.Quote(name))
	immutable(w)
	if h.Get("Content-Encoding") != "" {
		// http.ServeContent leaves out the length of an encoded answer.
		if fi, err := file.Stat(); err == nil {
			h.Set("Content-Length", strconv.FormatInt(fi.Size(), 10))
		}
	}
	http.ServeContent(w, r, "", time.Time{}, file)
}

// accepts reports whether a client takes a content coding.
func accepts(r *http.Request, coding string) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), coding) {
			q := strings.TrimSpace(params)
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

// serveEvents streams what happens to a build, starting it if needed.
func (s *Service) serveEvents(w http.ResponseWriter, r *http.Request, sp spec.Spec) {
	rc := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return
	}
	// A comment now and then keeps the connection and finds clients that went away.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := make(chan Event)
	done := make(chan error, 1)
	go func() {
		_, err := s.Watch(ctx, sp, ClientOf(r), func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		done <- err
	}()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	if rc.Flush() != nil {
		return
	}
	for {
		var err error
		select {
		case e := <-events:
			err = writeEvent(w, e)
		case <-tick.C:
			_, err = fmt.Fprint(w, ": \n\n")
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				s.logger.Warn("watching a build", "spec", sp.String(), "err", err)
				_ = writeEvent(w, Event{Kind: "TempFailed", Error: s.hide(failureOf(err).Text)}) // the connection ends here anyway
			}
			return
		}
		if err := errors.Join(err, rc.SetWriteDeadline(time.Now().Add(time.Minute)), rc.Flush()); err != nil {
			return
		}
	}
}

func writeEvent(w http.ResponseWriter, e Event) error {
	name := "update"
	if e.Kind == "Output" {
		name = "output"
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
	return err
}

// serveRetry forgets a failed result.
func (s *Service) serveRetry(w http.ResponseWriter, r *http.Request, sp spec.Spec) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		s.pages.ServeError(w, r, http.StatusMethodNotAllowed, "A retry is a POST.")
		return
	}
	if err := s.Forget(sp); err != nil {
		s.serveFailure(w, r, err)
		return
	}
	redirect(w, r, "/"+sp.String(), http.StatusSeeOther)
}

// plainPages are the pages of a service without HTML.
type plainPages struct{ s *Service }

func (p plainPages) ServeHome(w http.ResponseWriter, r *http.Request) {
	st := p.s.Status(r.Context())
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "key %s\nrecords %d\ngo %s\nbuilding %d\nqueued %d\n", st.VerifierKey, st.LogSize, st.GoVersion, len(st.Building), len(st.Queued))
}

func (p plainPages) ServeResult(w http.ResponseWriter, r *http.Request, res Result) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s %s %s %s\n", res.Spec, res.State, res.Sum, res.Error)
}

func (p plainPages) ServeModule(w http.ResponseWriter, r *http.Request, m ModuleInfo) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, c := range m.Commands {
		fmt.Fprintln(w, spec.Spec{Module: m.Module, Version: m.Version, Dir: c.Dir, GOOS: m.GOOS, GOARCH: m.GOARCH, GoVersion: m.GoVersion})
	}
}

func (p plainPages) ServeError(w http.ResponseWriter, r *http.Request, status int, text string) {
	http.Error(w, text, status)
}
